//! The blob of a file that is being written, and of the same file when it is
//! finished.
//!
//! A content of one chunk waits in memory, and is written and finished in one
//! step. To hand each step to a thread would take longer than the steps.
//!
//! Each operation owns a reference to the file, and so to its lock and its
//! places in the pool.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::{run, run_on};
use super::dir::{Dir, open_path};
use super::partial_file::PartialFile;
use super::read_blob::{Located, ReadBlob};
use super::short_file::{Phase, ShortFile, finished, lock, write_short};
use super::short_writes::ShortWrites;
use super::stamp::FileStamp;
use super::writers::WriteClaim;
use crate::content::Bitfield;
use crate::storage::{Blob, StorageError, WriteJob, check_range};

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

/// Where the bytes of a content are.
enum Place {
    /// In a file that is not finished.
    Unfinished(Arc<PartialFile<Dir>>),
    Finished(ReadBlob),
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

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        self.finished()?.read_now(offset, len)
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

    fn write_job(&self, offset: u64, pieces: &[Bytes]) -> Option<WriteJob> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length).ok()?;
        let Phase::Writing { file, .. } = &*lock(&self.phase) else {
            return None;
        };
        let (file, pieces) = (Arc::clone(file), pieces.to_vec());
        Some(Box::new(move || file.write(offset, len, &pieces)))
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
