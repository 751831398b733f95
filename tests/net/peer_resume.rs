//! Interrupted downloads and restarted peers, on files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bt_lite::storage::{Blob, FileStamp, Partial};
use bt_lite::{
    Bitfield, ContentId, ContentName, Download, DownloadError, DownloadEvent, DownloadOptions,
    FileStorage, Manifest, MemoryStorage, Peer, Storage, StorageError,
};
use bytes::Bytes;
use futures::StreamExt;
use tempfile::TempDir;

use crate::on_all_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{World, content, named, soon};

const CHUNK: usize = 16 << 10;
const CHUNKS: usize = 64;
const HALF: u64 = (CHUNKS * CHUNK / 2) as u64;

/// How many reads it takes to hash a content of 1 MiB.
const HASHING_READS: usize = 1;

/// An owner whose disk hangs after half of the chunks.
async fn hanging_owner(world: &World, bytes: &Bytes) -> Peer {
    let reads = HASHING_READS + CHUNKS / 2;
    let storage = Troubled::new(Call::Read, reads, Trouble::Hangs);
    storage.inner.insert(named("x"), bytes.clone()).unwrap();
    let owner = world.builder("hanging", storage).start().await.unwrap();
    owner.share(named("x")).await.unwrap();
    owner
}

async fn on_files(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    world.builder(name, storage).start().await.unwrap()
}

async fn sharing_again(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

/// Waits until this many bytes are verified.
async fn verified(download: &Download, bytes: u64) {
    let mut events = download.events();
    while let Some(event) = events.next().await {
        match event {
            // A busy machine may let it wait for a while.
            DownloadEvent::Found(_) | DownloadEvent::Stalled(_) | DownloadEvent::Resumed => {}
            DownloadEvent::Progress(progress) if progress.verified_bytes < bytes => {}
            DownloadEvent::Progress(_) => return,
            event => panic!("{event:?}"),
        }
    }
}

/// Changes a byte of a file, and restores its metadata.
fn alter(path: &Path, at: usize) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
}

fn part(dir: &TempDir, id: ContentId) -> PathBuf {
    dir.path().join(format!("{id}.part"))
}

/// The first chunk of an unfinished file that has been written.
fn first_written(dir: &TempDir, id: ContentId) -> usize {
    let bytes = fs::read(part(dir, id)).unwrap();
    let mut chunks = bytes.chunks(CHUNK);
    let written = chunks.position(|chunk| chunk.iter().any(|byte| *byte != 0));
    written.expect("something was written")
}

/// Counts the reads of contents that are being written. Can have something else
/// take their name just before they are published.
#[derive(Clone)]
struct Counting {
    inner: FileStorage,
    reads: Arc<AtomicUsize>,
    taken: Option<PathBuf>,
}

struct CountingBlob {
    of: Counting,
    inner: Arc<dyn Blob>,
}

impl Counting {
    fn new(dir: &Path, taken: Option<&Path>) -> Self {
        Self {
            inner: FileStorage::open(dir).unwrap(),
            reads: Arc::default(),
            taken: taken.map(Path::to_path_buf),
        }
    }
}

#[async_trait]
impl Storage for Counting {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let mut partial = self.inner.create(name, manifest).await?;
        let (of, inner) = (self.clone(), partial.blob);
        partial.blob = Arc::new(CountingBlob { of, inner });
        Ok(partial)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.inner.has_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.inner.open(name).await
    }
}

#[async_trait]
impl Blob for CountingBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        self.of.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read_at(offset, len).await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.inner.write_at(offset, pieces).await
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.inner.commit(verified).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        if let Some(path) = &self.of.taken {
            fs::write(path, "mine").unwrap();
        }
        self.inner.finish().await
    }

    fn file(&self) -> Option<FileStamp> {
        self.inner.file()
    }

    fn release(&self) {
        self.inner.release();
    }
}

on_all_networks! {
    async fn untouched_chunks_do_not_delay_the_end_and_are_verified_before_they_are_served(
        world: World
    ) {
        let (dir, bytes) = (tempfile::tempdir().unwrap(), content(CHUNKS * CHUNK, 9));
        let id = ContentId::of(&bytes);
        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        // All chunks are there, but the name is taken.
        let path = dir.path().join("x");
        let refused = Counting::new(dir.path(), Some(&path));
        let leecher = world.builder("leecher", refused).start().await.unwrap();
        let ended = leecher.download(id).await;
        assert!(matches!(ended, Err(DownloadError::TargetExists { .. })), "{ended:?}");
        leecher.shutdown().await;
        fs::remove_file(&path).unwrap();

        let counting = Counting::new(dir.path(), None);
        let reads = counting.reads.clone();
        let leecher = world.builder("leecher-again", counting);
        let leecher = leecher.start().await.unwrap();
        let mut again = leecher.download(id);
        (&mut again).await.unwrap();
        assert_eq!(again.progress().downloaded, 0);
        assert_eq!(again.durable_bytes(), bytes.len() as u64);
        // Two chunks are verified at a time.
        let read = reads.load(Ordering::Relaxed);
        assert!(read <= 2, "{read} chunks were read");
        assert_eq!(fs::read(&path).unwrap(), bytes);

        // The metadata does not show that.
        owner.peer.shutdown().await;
        alter(&path, (CHUNKS - 1) * CHUNK + 3);
        let second = world.node("second").await;
        let other = second.peer.download(id);
        while !leecher.contents().is_empty() && other.progress().wasted == 0 {
            tokio::task::yield_now().await;
        }
        let progress = other.progress();
        assert_eq!(progress.wasted, 0);
        assert!(progress.verified_bytes < bytes.len() as u64);
    }

    async fn second_peer_on_one_target_is_told_where_it_is_written(world: World) {
        let (dir, bytes) = (tempfile::tempdir().unwrap(), content(CHUNKS * CHUNK, 10));
        let id = ContentId::of(&bytes);
        let hanging = hanging_owner(&world, &bytes).await;
        let storage = FileStorage::open(dir.path()).unwrap();
        let first = world.builder("first", storage.clone()).start().await.unwrap();
        let download = first.download(id);
        verified(&download, HALF).await;
        // The same storage, and another one in the same directory, as in another
        // process.
        let other = FileStorage::open(dir.path()).unwrap();
        for (name, storage) in [("same", storage), ("other", other)] {
            let second = world.builder(name, storage).start().await.unwrap();
            let error = second.download(id).await.unwrap_err();
            let path = Some(part(&dir, id));
            let (source, chunk) = (StorageError::Locked { id, path }, None);
            assert_eq!(error, DownloadError::Storage { id, chunk, source });
            let path = part(&dir, id);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            second.shutdown().await;
        }
        hanging.shutdown().await;
        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        download.await.unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes);
    }

    async fn cancelled_download_goes_on_with_the_missing_chunks(world: World) {
        let (dir, bytes) = (tempfile::tempdir().unwrap(), content(CHUNKS * CHUNK, 1));
        let id = ContentId::of(&bytes);
        let hanging = hanging_owner(&world, &bytes).await;
        let leecher = on_files(&world, "leecher", dir.path()).await;
        let mut download = leecher.download(id);
        verified(&download, HALF).await;
        download.cancel();
        assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
        assert_eq!(download.durable_bytes(), HALF);
        hanging.shutdown().await;

        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        let mut again = leecher.download(id);
        (&mut again).await.unwrap();
        assert_eq!(again.progress().downloaded, HALF);
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes);
    }

    async fn cancelled_download_in_memory_goes_on_with_the_missing_chunks(world: World) {
        let bytes = content(CHUNKS * CHUNK, 8);
        let id = ContentId::of(&bytes);
        let hanging = hanging_owner(&world, &bytes).await;
        let builder = world.builder("leecher", MemoryStorage::new());
        let leecher = builder.start().await.unwrap();
        let mut download = leecher.download(id);
        verified(&download, HALF).await;
        download.cancel();
        assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
        // Before anything more has come.
        let mut again = leecher.download(id);
        verified(&again, HALF).await;
        assert_eq!((again.progress().downloaded, again.durable_bytes()), (0, HALF));
        again.cancel();
        assert_eq!((&mut again).await, Err(DownloadError::Cancelled));
        hanging.shutdown().await;

        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        let mut again = leecher.download(id);
        (&mut again).await.unwrap();
        assert_eq!(again.progress().downloaded, HALF);
    }

    async fn download_of_a_peer_that_stopped_goes_on_in_the_next(world: World) {
        let (dir, bytes) = (tempfile::tempdir().unwrap(), content(CHUNKS * CHUNK, 2));
        let id = ContentId::of(&bytes);
        let hanging = hanging_owner(&world, &bytes).await;
        let leecher = on_files(&world, "leecher", dir.path()).await;
        let download = leecher.download(id);
        verified(&download, HALF).await;
        leecher.shutdown().await;
        drop(download);
        hanging.shutdown().await;

        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        let leecher = on_files(&world, "leecher-again", dir.path()).await;
        let mut again = leecher.download(id);
        (&mut again).await.unwrap();
        assert_eq!(again.progress().downloaded, HALF);
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes);
    }

    async fn dropped_download_goes_on_with_the_missing_chunks(world: World) {
        let (dir, bytes) = (tempfile::tempdir().unwrap(), content(CHUNKS * CHUNK, 3));
        let id = ContentId::of(&bytes);
        let hanging = hanging_owner(&world, &bytes).await;
        let leecher = on_files(&world, "leecher", dir.path()).await;
        let download = leecher.download(id);
        verified(&download, HALF).await;
        drop(download);
        hanging.shutdown().await;

        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        let mut again = leecher.download(id);
        (&mut again).await.unwrap();
        assert_eq!(again.progress().downloaded, HALF);
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes);
    }

    async fn chunk_that_was_altered_is_found_before_it_is_served(world: World) {
        let (dir, bytes) = (tempfile::tempdir().unwrap(), content(CHUNKS * CHUNK, 4));
        let id = ContentId::of(&bytes);
        let hanging = hanging_owner(&world, &bytes).await;
        let leecher = on_files(&world, "leecher", dir.path()).await;
        let download = leecher.download(id);
        verified(&download, HALF).await;
        leecher.shutdown().await;
        drop(download);
        alter(&part(&dir, id), first_written(&dir, id) * CHUNK + 7);

        // Others get the good chunks, and not the bad one.
        let good = HALF - CHUNK as u64;
        let leecher = on_files(&world, "leecher-again", dir.path()).await;
        let mut again = leecher.download(id);
        verified(&again, good).await;
        let second = world.node("second").await;
        let addr = leecher.local_addr().unwrap().clone();
        let options = DownloadOptions::new().owner(addr);
        let other = second.peer.download_with(id, options);
        verified(&other, good).await;
        let progress = other.progress();
        assert_eq!((progress.verified_bytes, progress.wasted), (good, 0));
        assert_eq!(again.progress().verified_bytes, good);

        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        hanging.shutdown().await;
        (&mut again).await.unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes);
    }

    async fn restarted_peer_shares_what_it_had(world: World) {
        let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (shared, fetched) = (content(100_000, 5), content(200_000, 6));
        let path = files.path().join("shared");
        fs::write(&path, &shared).unwrap();
        let origin = world.node("origin").await;
        origin.share("fetched", &fetched).await;
        let peer = sharing_again(&world, "peer", dir.path()).await;
        peer.share(&*path).await.unwrap();
        peer.download(named("fetched")).await.unwrap();
        let before = peer.contents();
        assert_eq!(before.len(), 2);
        peer.shutdown().await;
        origin.peer.shutdown().await;

        let peer = sharing_again(&world, "peer-again", dir.path()).await;
        assert_eq!(peer.contents(), before);
        let last = world.node("last").await;
        for (name, bytes) in [("shared", &shared), ("fetched", &fetched)] {
            last.peer.download(named(name)).await.unwrap();
            assert_eq!(last.bytes(name).unwrap(), bytes);
        }

        // An unshared content stays unshared, and a changed file is left out.
        let id = ContentId::of(&fetched);
        assert!(peer.unshare(&id).await);
        peer.shutdown().await;
        let peer = sharing_again(&world, "peer-third", dir.path()).await;
        let ids: Vec<_> = peer.contents().iter().map(|c| c.id).collect();
        assert_eq!(ids, [ContentId::of(&shared)]);
        peer.shutdown().await;
        fs::write(&path, b"another content").unwrap();
        let peer = sharing_again(&world, "peer-fourth", dir.path()).await;
        assert_eq!(peer.contents(), []);
    }

    async fn file_that_changes_is_no_longer_shared(world: World) {
        let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = files.path().join("x");
        let bytes = content(CHUNKS * CHUNK, 7);
        fs::write(&path, &bytes).unwrap();
        let peer = sharing_again(&world, "peer", dir.path()).await;
        let shared = peer.share(&*path).await.unwrap();
        fs::write(&path, content(CHUNKS * CHUNK - 1, 8)).unwrap();

        let wants = world.node("wants").await;
        let download = wants.peer.download(shared.id);
        // The owner notices when another peer asks for a block.
        while !peer.contents().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(download.progress().verified_bytes, 0);
        drop(download);
        wants.peer.shutdown().await;
        // The tracker no longer lists it.
        world.listed(&shared, 0).await;
        peer.shutdown().await;
        let peer = sharing_again(&world, "peer-again", dir.path()).await;
        assert_eq!(peer.contents(), []);
    }
}
