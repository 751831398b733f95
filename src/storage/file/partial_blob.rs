//! The blob of a file that is being written, and of the same file when it is
//! finished.
//!
//! A content of one chunk waits in memory, and is written and finished in one
//! step. To hand each step to a thread would take longer than the steps.
//!
//! Each operation owns a reference to the file, and so to its lock and its
//! places in the pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::{run, run_on};
use super::dir::{DataFile, Dir, open_path};
use super::partial_file::PartialFile;
use super::pool::{Pool, WriterPlaces};
use super::read_blob::{Located, ReadBlob};
use super::recovery::RecoveryOptions;
use super::short_writes::ShortWrites;
use super::stamp::{FileStamp, Stamp};
use super::storage_dir::StorageDir;
use super::writers::{FilePermit, WriteClaim};
use crate::content::{Bitfield, ContentName, Manifest};
use crate::storage::{Blob, StorageError, check_range};

/// How much of a file is copied at a time, in bytes: what has begun is not interrupted.
const COPY_LEN: u64 = 64 << 20;

/// A content that was opened for writing. The blob holds the claim; operations
/// that still run keep the file alive after the blob is dropped.
pub(super) struct PartialBlob {
    length: u64,
    phase: Arc<Mutex<Phase>>,
    claim: Mutex<Option<WriteClaim>>,
    /// Where contents of one chunk are finished.
    writes: Arc<ShortWrites>,
}

pub(super) enum Phase {
    /// A content of one chunk: it is written when it is finished.
    Short {
        file: Arc<ShortFile>,
        /// All of it, once that was written.
        pieces: Option<Vec<Bytes>>,
    },
    Writing {
        file: Arc<PartialFile<Dir>>,
        /// Where the file is to be when it is finished.
        target: Located,
    },
    /// The file has its name, and is open only while it is read.
    Finished(ReadBlob),
}

/// The file of a content of one chunk, which does not exist yet.
pub(super) struct ShortFile {
    pub(super) dir: Arc<StorageDir<Dir>>,
    pub(super) pool: Arc<Pool<DataFile>>,
    pub(super) name: ContentName,
    pub(super) manifest: Manifest,
    pub(super) options: RecoveryOptions,
    pub(super) permit: Arc<FilePermit>,
    pub(super) target: Located,
}

/// Where the bytes of a content are.
enum Place {
    /// In a file that is not finished.
    Unfinished(Arc<PartialFile<Dir>>),
    Finished(ReadBlob),
}

impl ShortFile {
    /// Waits for the places of its file.
    pub(super) async fn places(&self) -> WriterPlaces {
        let files = PartialFile::<Dir>::files(&self.manifest);
        self.pool.writer_places(files).await
    }

    /// Opens the file.
    fn open(&self, places: WriterPlaces) -> Result<PartialFile<Dir>, StorageError> {
        let permits = (Some(Arc::clone(&self.permit)), Some(places));
        let (dir, manifest) = (Arc::clone(&self.dir), self.manifest.clone());
        let opened = PartialFile::open(dir, self.name.clone(), manifest, self.options, permits)?;
        Ok(opened.file)
    }
}

impl PartialBlob {
    /// The blob of a file that is open.
    pub(super) fn new(
        file: PartialFile<Dir>,
        target: Located,
        claim: WriteClaim,
        writes: Arc<ShortWrites>,
    ) -> Self {
        let length = file.length();
        let file = Arc::new(file);
        Self::begin(length, Phase::Writing { file, target }, claim, writes)
    }

    /// The blob of a content of one chunk.
    pub(super) fn short(file: ShortFile, claim: WriteClaim, writes: Arc<ShortWrites>) -> Self {
        let length = file.manifest.geometry().length();
        let phase = Phase::Short {
            file: Arc::new(file),
            pieces: None,
        };
        Self::begin(length, phase, claim, writes)
    }

    fn begin(length: u64, phase: Phase, claim: WriteClaim, writes: Arc<ShortWrites>) -> Self {
        Self {
            length,
            phase: Arc::new(Mutex::new(phase)),
            claim: Mutex::new(Some(claim)),
            writes,
        }
    }

    /// Where the bytes are. Those that wait in memory are written for this.
    async fn place(&self) -> Result<Place, StorageError> {
        if let Some(short) = self.is_short() {
            let attempt = || async {
                let places = short.places().await;
                let (short, phase) = (Arc::clone(&short), Arc::clone(&self.phase));
                run(move || write_short(&short, places, &phase)).await
            };
            short.pool.retry(attempt).await?;
        }
        match &*lock(&self.phase) {
            Phase::Writing { file, .. } => Ok(Place::Unfinished(Arc::clone(file))),
            Phase::Finished(blob) => Ok(Place::Finished(blob.clone())),
            // It was written just now, and no phase is followed by this one.
            Phase::Short { .. } => Err(StorageError::ReadOnly),
        }
    }

    fn is_short(&self) -> Option<Arc<ShortFile>> {
        match &*lock(&self.phase) {
            Phase::Short { file, .. } => Some(Arc::clone(file)),
            Phase::Writing { .. } | Phase::Finished(_) => None,
        }
    }

    fn finished(&self) -> Option<ReadBlob> {
        match &*lock(&self.phase) {
            Phase::Finished(blob) => Some(blob.clone()),
            Phase::Writing { .. } | Phase::Short { .. } => None,
        }
    }
}

/// Opens the file of a content of one chunk, and writes what waits in memory. Returns
/// nothing if another call was faster.
pub(super) fn write_short(
    short: &ShortFile,
    places: WriterPlaces,
    phase: &Mutex<Phase>,
) -> Result<Option<Arc<PartialFile<Dir>>>, StorageError> {
    let waiting = || match &*lock(phase) {
        Phase::Short { pieces, .. } => Some(pieces.clone()),
        Phase::Writing { .. } | Phase::Finished(_) => None,
    };
    if waiting().is_none() {
        return Ok(None);
    }
    let file = Arc::new(short.open(places)?);
    let Some(pieces) = waiting() else {
        return Ok(None);
    };
    if let Some(pieces) = pieces {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        // If this fails, the bytes still wait, and the next call begins anew.
        file.write(0, len, &pieces)?;
    }
    *lock(phase) = Phase::Writing {
        file: Arc::clone(&file),
        target: short.target.clone(),
    };
    Ok(Some(file))
}

fn lock(phase: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on the file is open only while it is read.
pub(super) fn finished(phase: &Mutex<Phase>, stamp: Stamp) {
    let mut phase = lock(phase);
    let Phase::Writing { target, .. } = &*phase else {
        return;
    };
    let blob = ReadBlob::new(target.clone(), stamp);
    let writing = std::mem::replace(&mut *phase, Phase::Finished(blob));
    drop(phase);
    // Closes the file, unless it is being read right now.
    drop(writing);
}

#[async_trait]
impl Blob for PartialBlob {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length)?;
        if let Phase::Short {
            pieces: Some(pieces),
            ..
        } = &*lock(&self.phase)
        {
            let all = Bytes::from(pieces.concat());
            return Ok(all.slice(offset as usize..offset as usize + len));
        }
        match self.place().await? {
            Place::Unfinished(file) => run_on(len, move || file.read(offset, len)).await,
            Place::Finished(blob) => blob.read_at(offset, len).await,
        }
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length)?;
        if len == self.length
            && let Phase::Short { pieces: all, .. } = &mut *lock(&self.phase)
        {
            *all = Some(pieces);
            return Ok(());
        }
        match self.place().await? {
            Place::Unfinished(file) => run(move || file.write(offset, len, &pieces)).await,
            Place::Finished(_) => Err(StorageError::ReadOnly),
        }
    }

    async fn copy_from(&self, source: &dyn Blob) -> Result<bool, StorageError> {
        let Some(stamp) = source.file() else {
            return Ok(false);
        };
        // A content of one chunk waits in memory, and is read for that.
        if self.is_short().is_some() || source.length() != self.length {
            return Ok(false);
        }
        let Place::Unfinished(file) = self.place().await? else {
            return Err(StorageError::ReadOnly);
        };
        let opened = run(move || Ok(open_path(stamp.path()))).await?;
        // The caller can read the source by other means.
        let Ok(source) = opened else {
            return Ok(false);
        };
        let (source, mut left) = (Arc::new(source), self.length);
        while left > 0 {
            let len = left.min(COPY_LEN);
            let (file, source) = (Arc::clone(&file), Arc::clone(&source));
            if !run(move || file.copy_next(&source, len)).await? {
                return Ok(false);
            }
            left -= len;
        }
        Ok(true)
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        if self.is_short().is_some() {
            // It is committed by being finished.
            return Ok(());
        }
        let Place::Unfinished(file) = self.place().await? else {
            return Ok(());
        };
        let verified = verified.clone();
        run(move || file.commit(&verified)).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        if let Some(short) = self.is_short() {
            self.writes.finish(&short, &self.phase).await?;
        }
        if let Place::Unfinished(file) = self.place().await? {
            let phase = Arc::clone(&self.phase);
            run(move || {
                let stamp = file.finish()?;
                drop(file);
                finished(&phase, stamp);
                Ok(())
            })
            .await?;
        }
        // From now on another download may write this content, under another
        // name.
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn file(&self) -> Option<FileStamp> {
        self.finished()?.file()
    }

    fn release(&self) {
        if let Some(blob) = self.finished() {
            blob.release();
        }
    }
}
