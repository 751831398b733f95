//! The bytes of one file: being written ([`PartBlob`]), or finished
//! ([`ReadBlob`]).
//!
//! The file operations run on tokio's blocking threads and to their end; each
//! holds the file, and with it the lock, by itself.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::dir::{DataFile, Dir};
use super::disk::DiskFile;
use super::part::Part;
use super::place::{Place, failed};
use super::stamp::FileStamp;
use super::writers::Claim;
use crate::content::Bitfield;
use crate::storage::{Blob, StorageError, check_range};

/// Runs file operations where they may block.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StorageError::io(
                "using a file",
                &io::Error::other("the runtime is shutting down"),
            )),
        },
    }
}

/// A content that is open for writing. Its holder has the claim; the part may
/// outlive it by the operations that still run.
pub(super) struct PartBlob {
    part: Arc<Part<Dir>>,
    claim: Mutex<Option<Claim>>,
}

impl PartBlob {
    pub(super) fn new(part: Part<Dir>, claim: Claim) -> Self {
        Self {
            part: Arc::new(part),
            claim: Mutex::new(Some(claim)),
        }
    }
}

#[async_trait]
impl Blob for PartBlob {
    fn length(&self) -> u64 {
        self.part.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.part.length())?;
        let part = self.part.clone();
        run(move || part.read(offset, len)).await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.part.length())?;
        let part = self.part.clone();
        run(move || part.write(offset, len, &pieces)).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let (part, verified) = (self.part.clone(), verified.clone());
        run(move || part.commit(&verified)).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let part = self.part.clone();
        run(move || part.finish()).await?;
        // Another download of this content, under another name, may start now.
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn file(&self) -> Option<FileStamp> {
        self.part.published()
    }
}

/// A content that is open for reading: a file as it was when it was opened.
pub(super) struct ReadBlob(Arc<ReadFile>);

struct ReadFile {
    file: DataFile,
    stamp: FileStamp,
    /// Where its name is, if it is a content of the storage.
    place: Option<Arc<Place<Dir>>>,
}

impl ReadBlob {
    pub(super) fn new(
        file: DataFile,
        path: PathBuf,
        place: Option<Arc<Place<Dir>>>,
    ) -> Result<Self, StorageError> {
        let stamp = FileStamp::of(&file, path)?;
        Ok(Self(Arc::new(ReadFile { file, stamp, place })))
    }

    /// With the stamp that the file must keep.
    pub(super) fn with(file: DataFile, stamp: FileStamp) -> Self {
        let place = None;
        Self(Arc::new(ReadFile { file, stamp, place }))
    }
}

#[async_trait]
impl Blob for ReadBlob {
    fn length(&self) -> u64 {
        self.0.stamp.stat.len
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.0.stamp.stat.len)?;
        let this = self.0.clone();
        run(move || {
            let read = this.file.read_at(offset, len);
            // Behind the read, so that what it gave is from before any change.
            this.stamp.check(&this.file)?;
            read.map_err(|e| failed("reading", &this.stamp.path, 0, &e))
        })
        .await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.0.stamp.stat.len)?;
        Err(StorageError::ReadOnly)
    }

    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    async fn finish(&self) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    async fn sync(&self) -> Result<(), StorageError> {
        let this = self.0.clone();
        run(move || match &this.place {
            Some(place) => place.make_durable(&this.file, &this.stamp.path),
            None => Ok(()),
        })
        .await
    }

    fn file(&self) -> Option<FileStamp> {
        Some(self.0.stamp.clone())
    }
}
