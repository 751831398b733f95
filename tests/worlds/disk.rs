//! The storage of a node. It outlives its peers, fails when it is told to, and loses in a crash
//! what was not durable.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bt_lite::storage::{
    Blob, Catalogue, Draft, FileStamp, Partial, PausedDownload, PausedId, Stored,
};
use bt_lite::{
    Bitfield, ContentId, ContentName, FileStorage, Manifest, MemoryStorage, Storage, StorageError,
};
use bytes::Bytes;
use futures::FutureExt;
use tempfile::TempDir;

use crate::plan::{Call, Mistake};

/// A disk as one process has it. After a [crash](Disk::crash) a process has it no more.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Arc<State>,
    storage: Arc<dyn Storage>,
    /// The process that has it.
    process: u64,
}

struct State {
    kept: Kept,
    /// The process that may use it now.
    process: AtomicU64,
    faults: Mutex<Faults>,
    /// Whether other bytes are read than were written.
    lies: AtomicBool,
    mistake: Option<Mistake>,
    /// What is written, and would not survive.
    volatile: Mutex<Vec<Written>>,
}

#[derive(Default)]
struct Faults {
    fails: Option<Call>,
    full: bool,
    /// How many calls have failed.
    failed: u64,
}

enum Kept {
    Memory(MemoryStorage),
    Files(TempDir),
}

struct Written {
    /// It is open for as long as somebody else holds it.
    blob: Weak<dyn Blob>,
    offset: u64,
    len: usize,
}

impl Disk {
    pub(crate) fn new(in_files: bool, mistake: Option<Mistake>) -> Self {
        let kept = match in_files {
            true => Kept::Files(tempfile::tempdir().unwrap()),
            false => Kept::Memory(MemoryStorage::new()),
        };
        let state = State {
            kept,
            process: AtomicU64::default(),
            faults: Mutex::default(),
            lies: AtomicBool::default(),
            mistake,
            volatile: Mutex::default(),
        };
        Self::open(Arc::new(state))
    }

    fn open(state: Arc<State>) -> Self {
        let storage: Arc<dyn Storage> = match &state.kept {
            Kept::Memory(storage) => Arc::new(storage.clone()),
            Kept::Files(dir) => Arc::new(FileStorage::open(dir.path()).unwrap()),
        };
        let process = state.process.load(Ordering::Relaxed);
        Self {
            state,
            storage,
            process,
        }
    }

    /// The same disk for the next process. What was not durable is lost if the last one has
    /// crashed: each byte of it may be there or be any other.
    pub(crate) fn reopen(&self, crashed: bool) -> Self {
        self.state.process.fetch_add(1, Ordering::Relaxed);
        let volatile = std::mem::take(&mut *self.state.volatile.lock().unwrap());
        // Files go on to be written by threads, so there it is only the process that crashes.
        if crashed && matches!(self.state.kept, Kept::Memory(_)) {
            for write in volatile {
                let Some(blob) = write.blob.upgrade() else {
                    continue;
                };
                let junk = Bytes::from(vec![0x5a; write.len]);
                let written = blob.write_at(write.offset, vec![junk]);
                // One that is finished cannot be written, and need not be.
                let _ = written.now_or_never().expect("memory is never waited for");
            }
        }
        Self::open(Arc::clone(&self.state))
    }

    pub(crate) fn fail(&self, call: Option<Call>) {
        self.state.faults.lock().unwrap().fails = call;
    }

    pub(crate) fn fill(&self, full: bool) {
        self.state.faults.lock().unwrap().full = full;
    }

    /// How many calls have failed on purpose.
    pub(crate) fn failed(&self) -> u64 {
        self.state.faults.lock().unwrap().failed
    }

    pub(crate) fn lie(&self) {
        self.state.lies.store(true, Ordering::Relaxed);
    }

    /// The bytes of a finished content.
    pub(crate) async fn bytes(&self, name: &ContentName) -> Option<Bytes> {
        let storage = Self::open(Arc::clone(&self.state)).storage;
        let blob = storage.open(name).await.ok()?;
        blob.read_at(0, blob.length() as usize).await.ok()
    }

    /// The process may be gone.
    fn alive(&self) -> Result<(), StorageError> {
        match self.state.process.load(Ordering::Relaxed) == self.process {
            true => Ok(()),
            false => Err(StorageError::io("using it", io::Error::other("crashed"))),
        }
    }

    fn pass(&self, call: Call) -> Result<(), StorageError> {
        self.alive()?;
        let mut faults = self.state.faults.lock().unwrap();
        if faults.fails == Some(call) {
            faults.failed += 1;
            return Err(StorageError::io("testing", io::Error::other("bad disk")));
        }
        if faults.full && call != Call::Read {
            faults.failed += 1;
            return Err(StorageError::full("it", 1, Some(0)));
        }
        Ok(())
    }

    fn wrap(&self, inner: Arc<dyn Blob>) -> Arc<dyn Blob> {
        let disk = self.clone();
        Arc::new(DiskBlob { disk, inner })
    }

    fn partial(&self, mut partial: Partial) -> Partial {
        partial.blob = self.wrap(partial.blob);
        partial
    }
}

struct DiskBlob {
    disk: Disk,
    inner: Arc<dyn Blob>,
}

impl DiskBlob {
    /// Its writes are durable.
    fn settled(&self) {
        let mut volatile = self.disk.state.volatile.lock().unwrap();
        let inner = Arc::downgrade(&self.inner);
        volatile.retain(|write| !write.blob.ptr_eq(&inner));
    }
}

#[async_trait]
impl Storage for Disk {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.pass(Call::Write)?;
        Ok(self.partial(self.storage.create(name, manifest).await?))
    }

    async fn create_replacing(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.pass(Call::Write)?;
        Ok(self.partial(self.storage.create_replacing(name, manifest).await?))
    }

    async fn draft(&self, name: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
        self.pass(Call::Write)?;
        let (disk, inner) = (self.clone(), self.storage.draft(name).await?);
        Ok(Box::new(DiskDraft { disk, inner }))
    }

    fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
        self.storage.check_name(name)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.storage.has_partial(id).await
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        self.alive()?;
        self.storage.discard_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.pass(Call::Read)?;
        Ok(self.wrap(self.storage.open(name).await?))
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        self.pass(Call::Commit)?;
        self.storage.remember(stored).await
    }

    async fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
        self.pass(Call::Commit)?;
        self.storage.forget(name, id).await
    }

    async fn remove(
        &self,
        name: &ContentName,
        id: &ContentId,
        known: Option<&FileStamp>,
    ) -> Result<(), StorageError> {
        self.pass(Call::Write)?;
        self.storage.remove(name, id, known).await
    }

    async fn remember_paused(&self, paused: &PausedDownload) -> Result<(), StorageError> {
        self.pass(Call::Commit)?;
        self.storage.remember_paused(paused).await
    }

    async fn forget_paused(&self, id: &PausedId) -> Result<(), StorageError> {
        self.pass(Call::Commit)?;
        self.storage.forget_paused(id).await
    }

    async fn paused(&self) -> Result<Vec<PausedDownload>, StorageError> {
        self.storage.paused().await
    }

    async fn catalogue(&self) -> Result<Catalogue, StorageError> {
        self.alive()?;
        self.storage.catalogue().await
    }

    async fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        self.pass(Call::Read)?;
        self.storage.manifest(name, id).await
    }
}

struct DiskDraft {
    disk: Disk,
    inner: Box<dyn Draft>,
}

#[async_trait]
impl Draft for DiskDraft {
    async fn append(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.disk.pass(Call::Write)?;
        self.inner.append(bytes).await
    }

    async fn publish(self: Box<Self>, id: &ContentId) -> Result<Arc<dyn Blob>, StorageError> {
        self.disk.pass(Call::Commit)?;
        Ok(self.disk.wrap(self.inner.publish(id).await?))
    }

    async fn discard(self: Box<Self>) -> Result<(), StorageError> {
        self.inner.discard().await
    }
}

#[async_trait]
impl Blob for DiskBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        self.disk.pass(Call::Read)?;
        let bytes = self.inner.read_at(offset, len).await?;
        if self.disk.state.lies.load(Ordering::Relaxed) && !bytes.is_empty() {
            let mut other = bytes.to_vec();
            other[len / 2] ^= 1;
            return Ok(other.into());
        }
        Ok(bytes)
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.disk.pass(Call::Write)?;
        let written = Written {
            blob: Arc::downgrade(&self.inner),
            offset,
            len: pieces.iter().map(Bytes::len).sum(),
        };
        self.disk.state.volatile.lock().unwrap().push(written);
        if self.disk.state.mistake == Some(Mistake::LosesBytes) {
            let zeros = pieces.iter().map(|piece| vec![0; piece.len()].into());
            return self.inner.write_at(offset, zeros.collect()).await;
        }
        self.inner.write_at(offset, pieces).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.disk.pass(Call::Commit)?;
        if self.disk.state.mistake == Some(Mistake::ForgetsCommits) {
            return Ok(());
        }
        self.inner.commit(verified).await?;
        self.settled();
        Ok(())
    }

    async fn finish(&self) -> Result<(), StorageError> {
        self.disk.pass(Call::Commit)?;
        self.inner.finish().await?;
        self.settled();
        Ok(())
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.disk.pass(Call::Commit)?;
        self.inner.sync().await
    }

    fn file(&self) -> Option<FileStamp> {
        self.inner.file()
    }

    fn release(&self) {
        self.inner.release();
    }
}
