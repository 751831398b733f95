//! The blobs of the file storage: [`PartialBlob`] for a file that is being
//! written, [`ReadBlob`] for a finished one.
//!
//! File operations run on tokio's blocking threads, and always to their end.
//! Each operation owns a reference to the file, and so to its lock.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::dir::{DataFile, Dir};
use super::disk::DiskFile;
use super::failure::failed;
use super::partial_file::PartialFile;
use super::stamp::FileStamp;
use super::storage_dir::StorageDir;
use super::writers::WriteClaim;
use crate::content::Bitfield;
use crate::storage::{Blob, StorageError, check_range};

/// Runs file operations on a thread that may block.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StorageError::io(
                "using a file",
                io::Error::other("the runtime is shutting down"),
            )),
        },
    }
}

/// A content that is open for writing. The blob holds the claim; operations that
/// still run keep the file alive after the blob is dropped.
pub(super) struct PartialBlob {
    file: Arc<PartialFile<Dir>>,
    claim: Mutex<Option<WriteClaim>>,
}

impl PartialBlob {
    pub(super) fn new(file: PartialFile<Dir>, claim: WriteClaim) -> Self {
        Self {
            file: Arc::new(file),
            claim: Mutex::new(Some(claim)),
        }
    }
}

#[async_trait]
impl Blob for PartialBlob {
    fn length(&self) -> u64 {
        self.file.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.file.length())?;
        let file = self.file.clone();
        run(move || file.read(offset, len)).await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.file.length())?;
        let file = self.file.clone();
        run(move || file.write(offset, len, &pieces)).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let (file, verified) = (self.file.clone(), verified.clone());
        run(move || file.commit(&verified)).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let file = self.file.clone();
        run(move || file.finish()).await?;
        // From now on another download may write this content, under another
        // name.
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn file(&self) -> Option<FileStamp> {
        self.file.published()
    }
}

/// A file that is open for reading. Reads fail when it changes.
pub(super) struct ReadBlob(Arc<ReadFile>);

struct ReadFile {
    file: DataFile,
    stamp: FileStamp,
    /// The directory of the file, if it was opened by its name in a storage.
    dir: Option<Arc<StorageDir<Dir>>>,
}

impl ReadBlob {
    pub(super) fn new(
        file: DataFile,
        path: PathBuf,
        dir: Option<Arc<StorageDir<Dir>>>,
    ) -> Result<Self, StorageError> {
        let stamp = FileStamp::of(&file, path)?;
        Ok(Self(Arc::new(ReadFile { file, stamp, dir })))
    }

    /// A file that must still have this stamp.
    pub(super) fn with_stamp(file: DataFile, stamp: FileStamp) -> Self {
        let dir = None;
        Self(Arc::new(ReadFile { file, stamp, dir }))
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
            // After the read: if the file is unchanged now, it was unchanged
            // during the read.
            this.stamp.check(&this.file)?;
            read.map_err(|e| failed("reading", &this.stamp.path, e))
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
        run(move || match &this.dir {
            Some(dir) => dir.make_durable(&this.file, &this.stamp.path),
            None => Ok(()),
        })
        .await
    }

    fn file(&self) -> Option<FileStamp> {
        Some(self.0.stamp.clone())
    }
}
