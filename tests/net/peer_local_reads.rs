//! A read that fails for somebody here has the same outcome as one that fails for another
//! peer: the content is read at its next place, or is no longer shared.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::peer::PeerEvent;
use bt_lite::storage::{Blob, Lost, Partial};
use bt_lite::{
    Content, ContentId, ContentName, DownloadError, DownloadOptions, FileStorage, Manifest,
    MemoryStorage, Peer, ReaderOptions, ShareSource, Storage, StorageError,
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::on_both_networks;
use crate::world::{Node, World, content, named, soon};

const CHUNK: usize = 16 << 10;

/// How a file comes to be another one.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Shrinks,
    Vanishes,
    Changes,
}

impl Fate {
    const ALL: [Self; 3] = [Self::Shrinks, Self::Vanishes, Self::Changes];

    fn befalls(self, path: &Path) {
        match self {
            Self::Shrinks => File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(7)
                .unwrap(),
            Self::Vanishes => fs::remove_file(path).unwrap(),
            Self::Changes => fs::write(path, "another").unwrap(),
        }
    }
}

/// How somebody here reads a content.
#[derive(Debug, Clone, Copy)]
enum Way {
    Reader,
    ReaderOfDownload,
    Stream,
    Bytes,
    Writer,
    Copy,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Reader,
        Self::ReaderOfDownload,
        Self::Stream,
        Self::Bytes,
        Self::Writer,
        Self::Copy,
    ];

    /// Reads all of it. A reader is there before `happens` does.
    async fn read(
        self,
        peer: &Peer,
        id: ContentId,
        happens: impl FnOnce(),
    ) -> Result<Vec<u8>, DownloadError> {
        let mut bytes = Vec::new();
        let read = match self {
            Self::Reader | Self::ReaderOfDownload => {
                let download = peer.download(id);
                let mut reader = match self {
                    Self::Reader => peer.reader(&id).await.unwrap(),
                    _ => download.reader(),
                };
                download.await.unwrap();
                happens();
                reader.read_to_end(&mut bytes).await
            }
            Self::Stream => {
                let mut stream = peer.stream(id);
                stream.wait_length().await.unwrap();
                happens();
                stream.read_to_end(&mut bytes).await
            }
            Self::Bytes => {
                happens();
                return peer.download_bytes(id, 1 << 20).await.map(Vec::from);
            }
            Self::Writer => {
                happens();
                return peer
                    .download_to(id, &mut bytes, 1 << 20)
                    .await
                    .map(|_| bytes);
            }
            Self::Copy => {
                happens();
                let options = DownloadOptions::new().name(named("copy"));
                let copied = peer.download_with(id, options).await?;
                assert_eq!(copied.name, named("copy"));
                let mut copies = peer.paths(&id).await;
                copies.retain(|path| path.ends_with("copy"));
                return Ok(fs::read(&copies[0]).unwrap());
            }
        };
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(error.downcast::<DownloadError>().unwrap()),
        }
    }
}

/// This peer has lost the content, and says so wherever it is asked.
async fn check_lost(world: &World, peer: &Peer, lost: &Lost, case: &str) {
    assert_eq!(peer.lost(), std::slice::from_ref(lost), "{case}");
    assert_eq!(peer.contents(), [], "{case}");
    assert!(peer.list().is_empty(), "{case}");
    let shared = Content::new(lost.id, lost.name.clone(), 0);
    world.listed(&shared, 0).await;
}

async fn withdrawn(events: &mut bt_lite::peer::PeerEvents) -> (Content, StorageError) {
    loop {
        match events.next().await.unwrap() {
            PeerEvent::Withdrawn { content, error } => return (content, error),
            PeerEvent::Missed { .. } => panic!("missed"),
            _ => {}
        }
    }
}

on_both_networks! {
    async fn content_whose_file_a_reader_here_finds_changed_is_lost(world: World) {
        for (seed, way) in Way::ALL.into_iter().enumerate() {
            for fate in Fate::ALL {
                let case = format!("{way:?}, {fate:?}");
                let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let storage = FileStorage::open(dir.path()).unwrap();
                let name = format!("peer-{way:?}-{fate:?}");
                let peer = world.builder(&name, storage).share_stored().start().await.unwrap();
                let path = outside.path().join("x");
                let bytes = content(20 * CHUNK + 1, seed as u64);
                fs::write(&path, &bytes).unwrap();
                let shared = peer.share(&path).await.unwrap();
                // It is in the storage as well, so a download does not copy it.
                let mut events = peer.events();
                let read = match way {
                    Way::Reader => {
                        let mut reader = peer.reader(&shared.id).await.unwrap();
                        fate.befalls(&path);
                        let read = reader.read_u8().await;
                        read.map(|_| Vec::new()).map_err(|e| e.downcast().unwrap())
                    }
                    Way::ReaderOfDownload => {
                        let download = peer.download(shared.id);
                        let mut reader = download.reader();
                        download.await.unwrap();
                        fs::remove_file(dir.path().join("x")).unwrap();
                        fate.befalls(&path);
                        let read = reader.read_u8().await;
                        read.map(|_| Vec::new()).map_err(|e| e.downcast().unwrap())
                    }
                    way => way.read(&peer, shared.id, || fate.befalls(&path)).await,
                };
                let error = StorageError::Changed { path: path.clone() };
                let (lost, told) = withdrawn(&mut events).await;
                assert_eq!(lost.id, shared.id, "{case}");
                match way {
                    Way::ReaderOfDownload => {
                        // The last of two places.
                        let (_, DownloadError::Storage { source, .. }) = ((), read.unwrap_err())
                        else {
                            panic!("{case}");
                        };
                        assert_eq!(source, told, "{case}");
                    }
                    Way::Copy => {
                        assert!(read.is_err(), "{case}");
                        assert_eq!(told, error, "{case}");
                    }
                    _ => {
                        let expected = DownloadError::Storage {
                            id: shared.id,
                            chunk: None,
                            source: error.clone(),
                        };
                        assert_eq!(read, Err(expected), "{case}");
                        assert_eq!(told, error, "{case}");
                    }
                }
                let lost = Lost::new(lost.id, lost.name, told).recorded(true);
                check_lost(&world, &peer, &lost, &case).await;
                // It can be shared again.
                fs::write(&path, &bytes).unwrap();
                peer.share(&path).await.unwrap();
                assert_eq!(peer.lost(), [], "{case}");
                peer.shutdown().await;
            }
        }
    }

    async fn readers_here_go_on_at_the_next_place(world: World) {
        for (seed, way) in Way::ALL.into_iter().enumerate() {
            for fate in Fate::ALL {
                let case = format!("{way:?}, {fate:?}");
                let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let storage = FileStorage::open(dir.path()).unwrap();
                let name = format!("peer-{way:?}-{fate:?}");
                let peer = world.builder(&name, storage).start().await.unwrap();
                let bytes = content(20 * CHUNK + 1, 10 + seed as u64);
                let [first, second, third] = ["a", "b", "c"].map(|name| {
                    let path = outside.path().join(name);
                    fs::write(&path, &bytes).unwrap();
                    path
                });
                let shared = peer.share(&first).await.unwrap();
                peer.share(&second).await.unwrap();
                // Readers are not to have a copy in the storage.
                peer.share(&third).await.unwrap();
                peer.download(shared.id).await.unwrap();
                let stored = dir.path().join("a");
                assert_eq!(fs::read(&stored).unwrap(), bytes);
                let read = way.read(&peer, shared.id, || {
                    fate.befalls(&first);
                    Fate::Changes.befalls(&second);
                });
                assert!(read.await.unwrap() == bytes, "{case}");
                let paths = peer.paths(&shared.id).await;
                assert_eq!(paths[..2], [third.clone(), stored], "{case}");
                assert_eq!(peer.lost(), [], "{case}");
                assert_eq!(peer.contents().len(), 1, "{case}");
                // And others get it from there.
                let leecher = world.node(&format!("leecher-{way:?}-{fate:?}")).await;
                leecher.peer.download(shared.id).await.unwrap();
                peer.shutdown().await;
                leecher.peer.shutdown().await;
            }
        }
    }

    async fn file_of_a_folder_that_is_read_here_and_gone_is_lost(world: World) {
        let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let storage = FileStorage::open(dir.path()).unwrap();
        let peer = world.builder("peer", storage).start().await.unwrap();
        let bytes = content(3 * CHUNK, 30);
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, &bytes).unwrap();
        fs::write(&b, "b").unwrap();
        let shared = peer.share_folder(folder.path()).await.unwrap();
        let id = ContentId::of(&bytes);
        let mut reader = peer.reader(&id).await.unwrap();
        fs::remove_file(&a).unwrap();
        let error = reader.read_u8().await.unwrap_err();
        assert!(error.downcast::<DownloadError>().is_ok());
        let lost = peer.lost();
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].id, &lost[0].error), (id, &StorageError::Changed { path: a }));
        let folders = peer.folders();
        assert_eq!((folders[0].id, folders[0].files), (shared.id, 1));
        // The folder itself is still there.
        assert_eq!(peer.contents().len(), 1);
    }
}

/// What a storage does to reads of what has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Fails,
    /// It returns fewer bytes than it was asked for.
    Short,
    Wrong,
    /// For a moment only.
    Interrupted,
}

/// A storage in memory with faults that are planted by name.
#[derive(Clone, Default)]
struct Faulty {
    inner: MemoryStorage,
    faults: Arc<Mutex<HashMap<ContentName, Fault>>>,
}

impl Faulty {
    fn plant(&self, name: &str, fault: Fault) {
        self.faults.lock().unwrap().insert(named(name), fault);
    }

    fn error() -> StorageError {
        StorageError::io("testing", io::Error::other("on purpose"))
    }
}

struct FaultyBlob {
    name: ContentName,
    of: Faulty,
    inner: Arc<dyn Blob>,
}

#[async_trait]
impl Storage for Faulty {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.inner.create(name, manifest).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        Ok(Arc::new(FaultyBlob {
            name: name.clone(),
            of: self.clone(),
            inner: self.inner.open(name).await?,
        }))
    }
}

#[async_trait]
impl Blob for FaultyBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let bytes = self.inner.read_at(offset, len).await?;
        let fault = self.of.faults.lock().unwrap().get(&self.name).copied();
        match fault.filter(|_| len > 0) {
            None => Ok(bytes),
            Some(Fault::Fails) => Err(Faulty::error()),
            Some(Fault::Short) => Ok(bytes.slice(..len / 2)),
            Some(Fault::Wrong) => Ok(BytesMut::zeroed(len).freeze()),
            Some(Fault::Interrupted) => {
                Err(StorageError::io("testing", io::ErrorKind::Interrupted))
            }
        }
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.inner.write_at(offset, pieces).await
    }

    async fn commit(&self, verified: &bt_lite::Bitfield) -> Result<(), StorageError> {
        self.inner.commit(verified).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        self.inner.finish().await
    }
}

/// A peer that shares bytes from a storage in which faults can be planted, under these
/// names.
async fn faulty(world: &World, names: &[&str], bytes: &Bytes) -> (Peer, Faulty, ContentId) {
    let storage = Faulty::default();
    let peer = world
        .builder("peer", storage.clone())
        .start()
        .await
        .unwrap();
    for name in names {
        storage.inner.insert(named(name), bytes.clone()).unwrap();
        peer.share(named(name)).await.unwrap();
    }
    (peer, storage, ContentId::of(bytes))
}

#[tokio::test(start_paused = true)]
async fn disk_that_fails_or_reads_too_little_ends_the_sharing_whoever_reads() {
    let bytes = content(20 * CHUNK, 1);
    for fault in [Fault::Fails, Fault::Short] {
        for remote in [false, true] {
            let world = World::memory(1).await;
            let (peer, storage, id) = faulty(&world, &["x"], &bytes).await;
            let mut losses = peer.lost_contents();
            storage.plant("x", fault);
            let wants = world.node("wants").await;
            let download = match remote {
                true => Some(wants.peer.download(id)),
                false => {
                    let error = peer.download_bytes(id, 1 << 20).await.unwrap_err();
                    assert!(matches!(error, DownloadError::Storage { .. }), "{error}");
                    assert_eq!(peer.lost().len(), 1);
                    None
                }
            };
            let lost = soon(losses.next()).await.unwrap();
            match (fault, &lost.error) {
                (Fault::Fails, error) => assert_eq!(*error, Faulty::error()),
                (_, StorageError::Io { source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
                }
                (_, error) => panic!("{error}"),
            }
            assert_eq!(peer.contents(), []);
            drop(download);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fault_of_one_place_is_mended_by_the_next() {
    let bytes = content(20 * CHUNK, 1);
    for fault in [Fault::Fails, Fault::Short] {
        let world = World::memory(1).await;
        let (peer, storage, id) = faulty(&world, &["x", "y"], &bytes).await;
        let options = ReaderOptions::new().buffer(CHUNK);
        let mut reader = peer.reader_with(&id, options).await.unwrap();
        reader.read_u8().await.unwrap();
        storage.plant("x", fault);
        assert_eq!(reader.seek(SeekFrom::Start(10)).await.unwrap(), 10);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest == bytes[10..]);
        assert_eq!(peer.content_stats(&id).unwrap().names, [named("y")]);
        assert_eq!(peer.lost(), []);
        // Nothing is left when that fails as well, and the reader says so each time.
        storage.plant("y", fault);
        for _ in 0..2 {
            reader.rewind().await.unwrap();
            let error = reader.read_to_end(&mut rest).await.unwrap_err();
            assert!(error.downcast::<DownloadError>().is_ok());
            assert_eq!(peer.lost().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn error_that_passes_ends_nothing() {
    let bytes = content(20 * CHUNK, 1);
    let world = World::memory(1).await;
    let (peer, storage, id) = faulty(&world, &["x", "y"], &bytes).await;
    storage.plant("x", Fault::Interrupted);
    let mut reader = peer.reader(&id).await.unwrap();
    let error = reader.read_u8().await.unwrap_err();
    assert!(error.downcast::<DownloadError>().is_ok());
    storage.faults.lock().unwrap().clear();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.unwrap();
    assert!(all == bytes);
    assert_eq!(
        peer.content_stats(&id).unwrap().names,
        [named("x"), named("y")]
    );
}

#[tokio::test(start_paused = true)]
async fn copy_of_wrong_bytes_is_made_from_the_next_place_or_not_at_all() {
    let bytes = content(20 * CHUNK, 1);
    let world = World::memory(1).await;
    let (peer, storage, id) = faulty(&world, &["x", "y"], &bytes).await;
    let copy = async |name: &str| {
        let options = DownloadOptions::new().name(named(name));
        peer.download_with(id, options).await
    };
    storage.plant("x", Fault::Wrong);
    copy("one").await.unwrap();
    assert_eq!(storage.inner.bytes("one").unwrap(), bytes);
    let names = peer.content_stats(&id).unwrap().names;
    assert_eq!(names, [named("y"), named("one")]);
    for name in ["y", "one"] {
        storage.plant(name, Fault::Wrong);
    }
    let error = copy("two").await.unwrap_err();
    assert!(matches!(error, DownloadError::NotFound { .. }), "{error:?}");
    assert_eq!(storage.inner.bytes("two"), None);
    let lost = peer.lost();
    assert_eq!(lost.len(), 1);
    assert!(
        matches!(lost[0].error, StorageError::Altered { .. }),
        "{:?}",
        lost[0]
    );
    assert_eq!(peer.contents(), []);
}

#[tokio::test(start_paused = true)]
async fn what_follows_goes_on_when_the_reader_is_dropped() {
    let bytes = content(20 * CHUNK, 1);
    let world = World::memory(1).await;
    let (peer, storage, id) = faulty(&world, &["x"], &bytes).await;
    let mut losses = peer.lost_contents();
    storage.plant("x", Fault::Fails);
    let mut reader = peer.reader(&id).await.unwrap();
    assert!(reader.read_u8().now_or_never().is_none());
    drop(reader);
    assert_eq!(soon(losses.next()).await.unwrap().id, id);
    assert_eq!(peer.contents(), []);
}

#[tokio::test(start_paused = true)]
async fn reader_here_ends_the_links_of_a_content_that_is_being_served() {
    let bytes = content(60 * CHUNK, 1);
    for places in [1, 2] {
        let world = World::memory(1).await;
        let (peer, storage, id) = faulty(&world, &["x", "y"][..places], &bytes).await;
        world.network().set_upload_rate("peer", Some(100_000));
        let good = world.node(&format!("good-{places}")).await;
        let Node { peer: leecher, .. } = world.node(&format!("leecher-{places}")).await;
        let mut download = leecher.download(id);
        let mut events = download.events();
        while download.progress().verified_chunks < 3 {
            soon(events.next()).await.unwrap();
        }
        assert_eq!(peer.stats().awake, 1);
        // Reads for the leecher go on until the one who reads here has found it out.
        storage.plant("x", Fault::Fails);
        let read = peer.download_bytes(id, 1 << 20).await;
        world.network().set_upload_rate("peer", None);
        match places {
            1 => {
                assert!(read.is_err());
                assert_eq!(peer.contents(), []);
                good.share("x", &bytes).await;
            }
            _ => assert!(read.unwrap() == bytes),
        }
        soon(&mut download).await.unwrap();
        peer.shutdown().await;
        leecher.shutdown().await;
    }
}

/// Readers on several threads find out at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_on_many_threads_lose_a_content_once() {
    soon(async {
        let world = World::tcp().await;
        for round in 0..8 {
            let dir = tempfile::tempdir().unwrap();
            let bytes = content(100 * CHUNK, round);
            let [first, second] = ["a", "b"].map(|name| {
                let path = dir.path().join(name);
                fs::write(&path, &bytes).unwrap();
                path
            });
            let Node { peer, .. } = world.node(&format!("peer-{round}")).await;
            let id = peer.share(&first).await.unwrap().id;
            peer.share(&second).await.unwrap();
            let mut events = peer.events();
            let read = async |at: &Path| {
                let mut readers = Vec::new();
                for _ in 0..8 {
                    let mut reader = peer.reader(&id).await.unwrap();
                    readers.push(tokio::spawn(async move {
                        let mut all = Vec::new();
                        reader.read_to_end(&mut all).await.map(|_| all)
                    }));
                }
                Fate::Vanishes.befalls(at);
                futures::future::join_all(readers).await
            };
            for all in read(&first).await {
                assert!(all.unwrap().unwrap() == bytes);
            }
            for all in read(&second).await {
                // What was open may have been read to its end.
                match all.unwrap() {
                    Ok(all) => assert!(all == bytes),
                    Err(error) => assert!(error.downcast::<DownloadError>().is_ok()),
                }
            }
            // One that comes later finds it out, if none of these did.
            _ = peer.download_bytes(id, 4 << 20).await;
            withdrawn(&mut events).await;
            assert_eq!(peer.lost().len(), 1);
            peer.shutdown().await;
            while let Some(event) = events.next().await {
                assert!(!matches!(event, PeerEvent::Withdrawn { .. }));
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_in_memory_are_read_like_a_file() {
    let world = World::memory(1).await;
    let Node { peer, .. } = world.node("peer").await;
    let bytes = content(5 * CHUNK, 1);
    let shared = peer
        .share(ShareSource::bytes("x", bytes.clone()))
        .await
        .unwrap();
    assert!(peer.download_bytes(shared.id, 1 << 20).await.unwrap() == bytes);
}
