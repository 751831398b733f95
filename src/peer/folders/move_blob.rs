//! A blob whose bytes may move to another place while it is read.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;

use crate::content::Bitfield;
use crate::storage::{Blob, FileStamp, StorageError, WriteJob};

/// The bytes of a file of a folder: first where they are fetched to, and then where
/// the folder lies. Whoever reads it need not know.
pub(super) struct MoveBlob(RwLock<Arc<dyn Blob>>);

impl MoveBlob {
    pub(super) fn new(blob: Arc<dyn Blob>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(blob)))
    }

    /// From now on the bytes are read there. They are the same bytes.
    pub(super) fn move_to(&self, blob: Arc<dyn Blob>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = blob;
    }

    /// Where the bytes are now.
    pub(super) fn now(&self) -> Arc<dyn Blob> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Blob for MoveBlob {
    fn length(&self) -> u64 {
        self.now().length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let before = self.now();
        match before.read_at(offset, len).await {
            Err(error) if error.is_gone() => {
                // It may have moved during the read.
                let now = self.now();
                match Arc::ptr_eq(&before, &now) {
                    true => Err(error),
                    false => now.read_at(offset, len).await,
                }
            }
            read => read,
        }
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        self.now().read_now(offset, len)
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.now().write_at(offset, pieces).await
    }

    fn write_job(&self, offset: u64, pieces: &[Bytes]) -> Option<WriteJob> {
        self.now().write_job(offset, pieces)
    }

    async fn copy_from(&self, source: &dyn Blob) -> Result<bool, StorageError> {
        self.now().copy_from(source).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.now().commit(verified).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        self.now().finish().await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.now().sync().await
    }

    fn file(&self) -> Option<FileStamp> {
        self.now().file()
    }

    fn release(&self) {
        self.now().release();
    }
}
