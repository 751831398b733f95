//! An owner reads what it sends, each byte once for each link, though it reads ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bt_lite::storage::{Blob, Partial};
use bt_lite::{Bitfield, ContentName, Manifest, MemoryStorage, Storage, StorageError};
use bytes::Bytes;
use futures::future::join_all;

use crate::on_all_networks;
use crate::world::{World, content, soon};

/// A storage in memory that counts the bytes that are read.
#[derive(Clone, Default)]
struct Counting {
    inner: MemoryStorage,
    read: Arc<AtomicU64>,
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
        self.of.read.fetch_add(len as u64, Ordering::Relaxed);
        self.inner.read_at(offset, len).await
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

on_all_networks! {
    async fn owner_that_reads_ahead_reads_little_that_it_does_not_send(world: World) {
        let bytes = content(24 << 20, 5);
        let storage = Counting::default();
        let name: ContentName = "x".parse().unwrap();
        storage.inner.insert(name.clone(), bytes.clone()).unwrap();
        let read = Arc::clone(&storage.read);
        let owner = world.builder("owner", storage).start().await.unwrap();
        let shared = owner.share(name).await.unwrap();
        let hashed = read.swap(0, Ordering::Relaxed);
        assert_eq!(hashed, bytes.len() as u64);

        let leechers = ["one", "two", "three", "four"];
        let nodes = join_all(leechers.map(|name| world.node(name))).await;
        let downloads = nodes.iter().map(|node| node.peer.download(shared.id));
        for done in join_all(downloads).await {
            done.unwrap();
        }
        let sent = owner.stats().uploaded;
        // What was on its way to links that have it from elsewhere meanwhile.
        let in_vain = leechers.len() as u64 * (2 << 20);
        let read = read.load(Ordering::Relaxed);
        assert!(read <= sent + in_vain, "{read} bytes were read, and {sent} sent");
    }
}
