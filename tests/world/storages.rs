//! A storage in memory that fails, or hangs, at a chosen call.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::storage::{Blob, Partial};
use bt_lite::{Bitfield, ContentId, ContentName, Manifest, MemoryStorage, Storage, StorageError};
use bytes::Bytes;
use tokio::sync::Notify;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Create,
    Open,
    Read,
    Write,
    Commit,
    Finish,
    Sync,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Fails,
    Hangs,
    /// Until the storage is mended.
    Waits,
}

/// From its `nth` call on (counted from 0), one operation is in trouble.
#[derive(Clone)]
pub(crate) struct Troubled {
    pub(crate) inner: MemoryStorage,
    trouble: Arc<Mutex<Option<(Call, usize, Trouble)>>>,
    counts: Arc<Mutex<HashMap<Call, usize>>>,
    mended: Arc<Notify>,
}

impl Troubled {
    pub(crate) fn new(call: Call, nth: usize, trouble: Trouble) -> Self {
        Self {
            inner: MemoryStorage::new(),
            trouble: Arc::new(Mutex::new(Some((call, nth, trouble)))),
            counts: Arc::default(),
            mended: Arc::default(),
        }
    }

    /// Every call succeeds from now on.
    pub(crate) fn mend(&self) {
        *self.trouble.lock().unwrap() = None;
        self.mended.notify_waiters();
    }

    /// How often an operation was called.
    pub(crate) fn count(&self, call: Call) -> usize {
        self.counts.lock().unwrap().get(&call).copied().unwrap_or(0)
    }

    /// A blob whose operations are in trouble as well.
    pub(crate) fn blob(&self, inner: Arc<dyn Blob>) -> Arc<dyn Blob> {
        let of = self.clone();
        Arc::new(TroubledBlob { of, inner })
    }

    pub(crate) fn error() -> StorageError {
        StorageError::io("testing", io::Error::other("on purpose"))
    }

    async fn pass(&self, call: Call) -> Result<(), StorageError> {
        let mended = self.mended.notified();
        let count = {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(call).or_default();
            *count += 1;
            *count - 1
        };
        let trouble = *self.trouble.lock().unwrap();
        match trouble {
            Some((troubled, nth, trouble)) if troubled == call && count >= nth => match trouble {
                Trouble::Fails => Err(Self::error()),
                Trouble::Hangs => std::future::pending().await,
                Trouble::Waits => {
                    mended.await;
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }
}

struct TroubledBlob {
    of: Troubled,
    inner: Arc<dyn Blob>,
}

#[async_trait]
impl Storage for Troubled {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.pass(Call::Create).await?;
        let mut partial = self.inner.create(name, manifest).await?;
        let (of, inner) = (self.clone(), partial.blob);
        partial.blob = Arc::new(TroubledBlob { of, inner });
        Ok(partial)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.inner.has_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.pass(Call::Open).await?;
        let (of, inner) = (self.clone(), self.inner.open(name).await?);
        Ok(Arc::new(TroubledBlob { of, inner }))
    }
}

#[async_trait]
impl Blob for TroubledBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        // One of nothing asks whether the bytes are there.
        if len > 0 {
            self.of.pass(Call::Read).await?;
        }
        self.inner.read_at(offset, len).await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.of.pass(Call::Write).await?;
        self.inner.write_at(offset, pieces).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.of.pass(Call::Commit).await?;
        self.inner.commit(verified).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        self.of.pass(Call::Finish).await?;
        self.inner.finish().await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.of.pass(Call::Sync).await?;
        self.inner.sync().await
    }
}
