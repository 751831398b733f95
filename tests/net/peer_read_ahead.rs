//! An owner that sends reads several blocks at once, and each byte once for each link.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bt_lite::storage::{Blob, Partial};
use bt_lite::{Bitfield, ContentName, Manifest, MemoryStorage, Storage, StorageError};
use bytes::Bytes;
use futures::future::join_all;

use crate::world::{World, content, named, soon};

/// The longest block that may be asked for, in bytes.
const MAX_BLOCK: u64 = 256 << 10;

/// A storage in memory that counts the bytes that are read.
#[derive(Clone, Default)]
struct Counting {
    inner: MemoryStorage,
    counts: Arc<Counts>,
    /// Whether what is in memory may be read at once, which is not counted.
    at_once: bool,
}

/// Bytes that were read, and how many at most at a time.
#[derive(Default)]
struct Counts(AtomicU64, AtomicU64);

impl Counts {
    fn take(&self) -> (u64, u64) {
        (
            self.0.swap(0, Ordering::Relaxed),
            self.1.swap(0, Ordering::Relaxed),
        )
    }
}

struct CountingBlob {
    of: Counting,
    inner: Arc<dyn Blob>,
}

#[async_trait]
impl Storage for Counting {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.inner.create(name, manifest).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        let (of, inner) = (self.clone(), self.inner.open(name).await?);
        Ok(Arc::new(CountingBlob { of, inner }))
    }
}

#[async_trait]
impl Blob for CountingBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        self.of.counts.0.fetch_add(len as u64, Ordering::Relaxed);
        self.of.counts.1.fetch_max(len as u64, Ordering::Relaxed);
        self.inner.read_at(offset, len).await
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        let at_once = self.of.at_once;
        at_once.then(|| self.inner.read_now(offset, len))?
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.inner.write_at(offset, pieces).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.inner.commit(verified).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        self.inner.finish().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_that_reads_ahead_reads_several_blocks_at_once_and_none_twice() {
    // Chunks of several blocks.
    let bytes = content((256 << 20) + 1, 5);
    let world = World::tcp().await;
    let storage = Counting::default();
    storage.inner.insert(named("x"), bytes.clone()).unwrap();
    let counts = Arc::clone(&storage.counts);
    let owner = world.builder("owner", storage).start().await.unwrap();
    let shared = owner.share(named("x")).await.unwrap();
    assert_eq!(counts.take().0, bytes.len() as u64);

    let nodes = [world.node("one").await, world.node("two").await];
    let downloads = nodes.iter().map(|node| node.peer.download(shared.id));
    for done in soon(join_all(downloads)).await {
        done.unwrap();
    }
    let sent = owner.stats().uploaded;
    let (read, longest) = counts.take();
    // What is on its way to a link that has it from elsewhere meanwhile.
    let in_vain = nodes.len() as u64 * (2 << 20);
    assert!(
        read <= sent + in_vain,
        "{read} bytes were read, and {sent} sent"
    );
    assert!(longest > MAX_BLOCK, "{longest} bytes at a time");
}

#[tokio::test]
async fn owner_sends_what_is_in_memory_without_a_job_for_each_block() {
    let bytes = content(512 << 10, 6);
    for at_once in [false, true] {
        let world = World::tcp().await;
        let storage = Counting {
            at_once,
            ..Counting::default()
        };
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let counts = Arc::clone(&storage.counts);
        let owner = world.builder("owner", storage).start().await.unwrap();
        let shared = owner.share(named("x")).await.unwrap();
        counts.take();
        let node = world.node("one").await;
        soon(node.peer.download(shared.id)).await.unwrap();
        assert_eq!(counts.take().0 == 0, at_once);
    }
}
