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
use tokio::sync::Semaphore;

use super::blocking::run;
use super::dir::{DataFile, Dir, open_path};
use super::partial_file::PartialFile;
use super::pool::{Pool, WriterPlaces};
use super::read_blob::{Located, ReadBlob};
use super::recovery::RecoveryOptions;
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
}

enum Phase {
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
    /// One permit for each file that may be written at a time.
    pub(super) writes: Arc<Semaphore>,
    pub(super) target: Located,
}

impl ShortFile {
    /// Opens the file.
    fn open(&self, places: WriterPlaces) -> Result<PartialFile<Dir>, StorageError> {
        let permits = (Some(Arc::clone(&self.permit)), Some(places));
        let (dir, manifest) = (Arc::clone(&self.dir), self.manifest.clone());
        let opened = PartialFile::open(dir, self.name.clone(), manifest, self.options, permits)?;
        Ok(opened.file)
    }
}

impl PartialBlob {
    pub(super) fn new(file: PartialFile<Dir>, target: Located, claim: WriteClaim) -> Self {
        let length = file.length();
        let file = Arc::new(file);
        Self::begin(length, Phase::Writing { file, target }, claim)
    }

    /// The blob of a content of one chunk.
    pub(super) fn short(file: ShortFile, claim: WriteClaim) -> Self {
        let length = file.manifest.geometry().length();
        let phase = Phase::Short {
            file: Arc::new(file),
            pieces: None,
        };
        Self::begin(length, phase, claim)
    }

    fn begin(length: u64, phase: Phase, claim: WriteClaim) -> Self {
        Self {
            length,
            phase: Arc::new(Mutex::new(phase)),
            claim: Mutex::new(Some(claim)),
        }
    }

    /// The file, as long as it is not finished. One that waits in memory is
    /// written for this.
    async fn writing(&self) -> Result<Result<Arc<PartialFile<Dir>>, ReadBlob>, StorageError> {
        if let Some(file) = self.is_short() {
            self.run_short(file, |_| Ok(None)).await?;
        }
        Ok(match &*lock(&self.phase) {
            Phase::Writing { file, .. } => Ok(Arc::clone(file)),
            Phase::Finished(blob) => Err(blob.clone()),
            Phase::Short { .. } => return Err(StorageError::ReadOnly),
        })
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

    /// Opens the file of a content of one chunk, writes what waits in memory, and
    /// does one thing more, all on one thread.
    async fn run_short(
        &self,
        short: Arc<ShortFile>,
        more: fn(&PartialFile<Dir>) -> Result<Option<Stamp>, StorageError>,
    ) -> Result<(), StorageError> {
        let files = PartialFile::<Dir>::files(&short.manifest);
        // Never closed.
        let _turn = short.writes.acquire().await;
        let attempt = || async {
            let places = short.pool.writer_places(files).await;
            let (short, phase) = (Arc::clone(&short), Arc::clone(&self.phase));
            run(move || write_short(&short, places, &phase, more)).await
        };
        short.pool.retry(attempt).await
    }
}

fn write_short(
    short: &ShortFile,
    places: WriterPlaces,
    phase: &Mutex<Phase>,
    more: fn(&PartialFile<Dir>) -> Result<Option<Stamp>, StorageError>,
) -> Result<(), StorageError> {
    let file = Arc::new(short.open(places)?);
    let pieces = match &*lock(phase) {
        Phase::Short { pieces, .. } => pieces.clone(),
        // Another call was faster.
        Phase::Writing { .. } | Phase::Finished(_) => return Ok(()),
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
    if let Some(stamp) = more(&file)? {
        drop(file);
        finished(phase, stamp);
    }
    Ok(())
}

fn lock(phase: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on the file is open only while it is read.
fn finished(phase: &Mutex<Phase>, stamp: Stamp) {
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
        match self.writing().await? {
            Ok(file) => run(move || file.read(offset, len)).await,
            Err(blob) => blob.read_at(offset, len).await,
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
        let file = self.writing().await?.map_err(|_| StorageError::ReadOnly)?;
        run(move || file.write(offset, len, &pieces)).await
    }

    async fn copy_from(&self, source: &dyn Blob) -> Result<bool, StorageError> {
        let Some(stamp) = source.file() else {
            return Ok(false);
        };
        // A content of one chunk waits in memory, and is read for that.
        if self.is_short().is_some() || source.length() != self.length {
            return Ok(false);
        }
        let Ok(file) = self.writing().await? else {
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
        let Ok(file) = self.writing().await? else {
            return Ok(());
        };
        let verified = verified.clone();
        run(move || file.commit(&verified)).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        if let Some(short) = self.is_short() {
            let finish = |file: &PartialFile<Dir>| file.finish().map(Some);
            self.run_short(short, finish).await?;
        }
        if let Ok(file) = self.writing().await? {
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
