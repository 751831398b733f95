//! Chunks that are verified and written by one thread: a bad one is never written, and a
//! write that fails ends the download.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, io};

use async_trait::async_trait;
use bt_lite::content::Geometry;
use bt_lite::storage::{Blob, Partial, WriteJob};
use bt_lite::{
    Bitfield, ChunkIndex, Content, ContentId, ContentName, DownloadError, DownloadEvent,
    FileStorage, Manifest, MemoryStorage, Storage, StorageError,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};

use crate::on_all_networks;
use crate::world::strangers::{Answers, ClaimedManifest, FalseOwners};
use crate::world::{World, content, named, soon};

/// A content of this length has chunks that are not hashed where the driver runs.
const LEN: usize = 72 << 20;

/// Whether the liar gives this chunk wrong.
fn is_lie(chunk: ChunkIndex) -> bool {
    chunk.0 % 2 == 1
}

fn geometry() -> Geometry {
    let geometry = Geometry::of(LEN as u64).unwrap();
    assert!(geometry.chunk_len() > 64 << 10);
    geometry
}

/// The bytes of the file that the content is written to.
fn file_in(dir: &Path) -> Option<Vec<u8>> {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = file_in(&path) {
                return Some(found);
            }
        } else if path.metadata().unwrap().len() >= LEN as u64 {
            return Some(fs::read(path).unwrap());
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunk_of_a_liar_is_never_written() {
    let world = World::tcp().await;
    let (bytes, dir) = (content(LEN, 3), tempfile::tempdir().unwrap());
    let manifest = ClaimedManifest::of(&bytes);
    let shared = Content::new(ContentId::of(&bytes), named("x"), LEN as u64);
    let answers = Answers::Lies(manifest, bytes.clone(), is_lie);
    let liar = FalseOwners::list(&world, 1, &shared, answers).await;
    let storage = FileStorage::open(dir.path()).unwrap();
    let leecher = world.builder("leecher", storage).start().await.unwrap();
    let download = leecher.download(shared.id);
    let mut events = download.detailed_events();
    while !matches!(soon(events.next()).await, Some(DownloadEvent::Banned(_))) {}

    // Nobody else has given anything.
    drop(liar);
    let file = file_in(dir.path()).unwrap();
    let chunk_len = geometry().chunk_len() as usize;
    let mut written = 0;
    for (at, chunk) in file.chunks(chunk_len).take(LEN / chunk_len).enumerate() {
        let good = &bytes[at * chunk_len..(at + 1) * chunk_len];
        if chunk == good {
            assert!(!is_lie(ChunkIndex(at as u32)));
            written += 1;
        } else {
            assert!(chunk.iter().all(|byte| *byte == 0), "chunk {at}");
        }
    }
    assert!(written < LEN / chunk_len);

    let owner = world.node("owner").await;
    owner.share("x", &bytes).await;
    soon(download).await.unwrap();
    assert!(file_in(dir.path()).unwrap() == bytes);
}

/// A storage in memory that writes where chunks are verified.
#[derive(Clone, Default)]
struct Jobs {
    inner: MemoryStorage,
    /// How many jobs were run.
    run: Arc<AtomicUsize>,
    /// How many of them succeed.
    good: usize,
}

struct JobBlob {
    of: Jobs,
    inner: Arc<dyn Blob>,
}

#[async_trait]
impl Storage for Jobs {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let mut partial = self.inner.create(name, manifest).await?;
        let (of, inner) = (self.clone(), partial.blob);
        partial.blob = Arc::new(JobBlob { of, inner });
        Ok(partial)
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.inner.open(name).await
    }
}

#[async_trait]
impl Blob for JobBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        self.inner.read_at(offset, len).await
    }

    async fn write_at(&self, _offset: u64, _pieces: Vec<Bytes>) -> Result<(), StorageError> {
        panic!("there is a job for each write");
    }

    fn write_job(&self, offset: u64, pieces: &[Bytes]) -> Option<WriteJob> {
        let (of, inner, pieces) = (self.of.clone(), Arc::clone(&self.inner), pieces.to_vec());
        Some(Box::new(move || {
            if of.run.fetch_add(1, Ordering::Relaxed) >= of.good {
                return Err(StorageError::io("the write", io::Error::other("planned")));
            }
            let written = inner.write_at(offset, pieces).now_or_never();
            written.expect("memory does not wait")
        }))
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.inner.commit(verified).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        self.inner.finish().await
    }
}

on_all_networks! {
    async fn every_chunk_is_written_once_by_its_job(world: World) {
        let bytes = content(LEN, 4);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        let chunks = geometry().chunks() as usize;
        let storage = Jobs { good: chunks, ..Jobs::default() };
        let leecher = world.builder("leecher", storage.clone()).start().await.unwrap();
        soon(leecher.download(shared.id)).await.unwrap();
        assert_eq!(storage.run.load(Ordering::Relaxed), chunks);
        assert!(storage.inner.bytes(shared.name).unwrap() == bytes);
    }

    async fn write_that_fails_where_its_chunk_was_verified_ends_the_download(world: World) {
        let bytes = content(LEN, 5);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        let storage = Jobs { good: 20, ..Jobs::default() };
        let leecher = world.builder("leecher", storage.clone()).start().await.unwrap();
        let failed = soon(leecher.download(shared.id)).await.unwrap_err();
        assert!(
            matches!(&failed, DownloadError::Storage { chunk: Some(_), source, .. }
                if matches!(source, StorageError::Io { .. })),
            "{failed}"
        );
    }
}
