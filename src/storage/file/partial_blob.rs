//! The blob of a file that is being written, and of the same file when it is
//! finished.
//!
//! Each operation owns a reference to the file, and so to its lock and its
//! places in the pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::run;
use super::dir::Dir;
use super::partial_file::PartialFile;
use super::read_blob::{Located, ReadBlob};
use super::stamp::{FileStamp, Stamp};
use super::writers::WriteClaim;
use crate::content::Bitfield;
use crate::storage::{Blob, StorageError, check_range};

/// A content that was opened for writing. The blob holds the claim; operations
/// that still run keep the file alive after the blob is dropped.
pub(super) struct PartialBlob {
    length: u64,
    phase: Arc<Mutex<Phase>>,
    claim: Mutex<Option<WriteClaim>>,
}

enum Phase {
    Writing {
        file: Arc<PartialFile<Dir>>,
        /// Where the file is to be when it is finished.
        target: Located,
    },
    /// The file has its name, and is open only while it is read.
    Finished(ReadBlob),
}

impl PartialBlob {
    pub(super) fn new(file: PartialFile<Dir>, target: Located, claim: WriteClaim) -> Self {
        Self {
            length: file.length(),
            phase: Arc::new(Mutex::new(Phase::Writing {
                file: Arc::new(file),
                target,
            })),
            claim: Mutex::new(Some(claim)),
        }
    }

    /// The file, as long as it is not finished.
    fn writing(&self) -> Result<Arc<PartialFile<Dir>>, ReadBlob> {
        match &*lock(&self.phase) {
            Phase::Writing { file, .. } => Ok(Arc::clone(file)),
            Phase::Finished(blob) => Err(blob.clone()),
        }
    }
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
        match self.writing() {
            Ok(file) => run(move || file.read(offset, len)).await,
            Err(blob) => blob.read_at(offset, len).await,
        }
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length)?;
        let file = self.writing().map_err(|_| StorageError::ReadOnly)?;
        run(move || file.write(offset, len, &pieces)).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let Ok(file) = self.writing() else {
            return Ok(());
        };
        let verified = verified.clone();
        run(move || file.commit(&verified)).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        if let Ok(file) = self.writing() {
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
        self.writing().err()?.file()
    }

    fn release(&self) {
        if let Err(blob) = self.writing() {
            blob.release();
        }
    }
}
