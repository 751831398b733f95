//! Downloads of the same content that want it in different places, in virtual time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bt_lite::storage::Partial;
use bt_lite::{
    Blob, Content, ContentName, Download, DownloadError, DownloadEvent, DownloadOptions,
    FileStorage, Manifest, Peer, Storage, StorageError,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::world::{Node, World, content, soon};

const LEN: usize = 60 * (16 << 10);

/// A slow owner of a content, and a peer with a directory.
struct Scene {
    _world: World,
    _owner: Node,
    dir: TempDir,
    peer: Peer,
    bytes: Bytes,
    shared: Content,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(dir.path()).unwrap();
        Self::with(dir, storage).await
    }

    async fn with(dir: TempDir, storage: impl Storage) -> Self {
        let world = World::memory(1).await;
        let bytes = content(LEN, 1);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        world.network().set_upload_rate("owner", Some(100_000));
        let peer = world.builder("leecher", storage).start().await.unwrap();
        Self {
            _world: world,
            _owner: owner,
            dir,
            peer,
            bytes,
            shared,
        }
    }

    /// A download that goes on while another one joins it.
    async fn begin(&self, options: DownloadOptions) -> Download {
        let download = self.peer.download_with(self.shared.id, options);
        let mut events = download.events();
        while !matches!(soon(events.next()).await, Some(DownloadEvent::Progress(_))) {}
        download
    }

    fn has(&self, path: impl AsRef<Path>) -> bool {
        let path = self.dir.path().join(path);
        fs::read(path).is_ok_and(|bytes| bytes == self.bytes)
    }
}

fn into(directory: &str, seed: bool) -> DownloadOptions {
    let options = DownloadOptions::new().seed(seed);
    match directory {
        "" => options,
        directory => options.directory(directory),
    }
}

#[tokio::test(start_paused = true)]
async fn each_download_has_the_content_in_its_directory() {
    for seeds in [true, false] {
        for [first, second] in [["one", ""], ["", "two"], ["one", "two"], ["one", "one"]] {
            for name in [None, Some("y")] {
                println!("{seeds} {first} {second} {name:?}");
                let scene = Scene::new().await;
                let leads = scene.begin(into(first, seeds)).await;
                let options = into(second, seeds);
                let options = match name {
                    Some(name) => options.name(name),
                    None => options,
                };
                let joins = scene.peer.download_with(scene.shared.id, options);
                assert_eq!(scene.peer.list().len(), 1);
                soon(leads).await.unwrap();
                let joined = soon(joins).await.unwrap();
                assert_eq!(joined.name.as_str(), name.unwrap_or("x"));
                assert!(scene.has(Path::new(first).join("x")));
                assert!(scene.has(Path::new(second).join(joined.name.as_str())));
            }
        }
    }
}

/// Several that want it in the same place at the same time have it there.
#[tokio::test(start_paused = true)]
async fn downloads_that_want_the_same_place_do_not_stand_in_each_others_way() {
    for seeds in [true, false] {
        let scene = Scene::new().await;
        let leads = scene.begin(into("", seeds)).await;
        let joins = [1, 2, 3].map(|_| {
            let options = into("two", seeds).name("y");
            scene.peer.download_with(scene.shared.id, options)
        });
        soon(leads).await.unwrap();
        for joined in soon(join_all(joins)).await {
            assert_eq!(joined.unwrap().name.as_str(), "y");
        }
        assert!(scene.has("two/y"));
    }
}

/// What has the name of the content where the other download did not store it is another
/// file.
#[tokio::test(start_paused = true)]
async fn file_of_the_same_name_is_not_taken_for_the_content() {
    for seeds in [true, false] {
        for name in ["x", "y"] {
            println!("{seeds} {name}");
            let scene = Scene::new().await;
            let leads = scene.begin(into("one", seeds)).await;
            let another = scene.dir.path().join("x");
            fs::write(&another, content(LEN, 2)).unwrap();
            let options = into("", seeds).name(name);
            let joins = scene.peer.download_with(scene.shared.id, options);
            soon(leads).await.unwrap();
            match (name, soon(joins).await) {
                ("x", Err(DownloadError::TargetExists { .. })) => {}
                ("y", Ok(_)) => assert!(scene.has("y")),
                (_, other) => panic!("{other:?}"),
            }
            assert_eq!(fs::read(&another).unwrap(), content(LEN, 2));
        }
    }
}

/// So it is for those who read what is there already.
#[tokio::test(start_paused = true)]
async fn content_in_another_directory_is_read_there() {
    let scene = Scene::new().await;
    let one = || {
        scene
            .peer
            .download_with(scene.shared.id, into("one", false))
    };
    soon(one()).await.unwrap();
    fs::write(scene.dir.path().join("x"), content(LEN, 2)).unwrap();
    let again = one();
    let mut reader = again.reader();
    soon(again).await.unwrap();
    let mut read = Vec::new();
    soon(reader.read_to_end(&mut read)).await.unwrap();
    assert!(read == scene.bytes);
}

/// A file that is not shared may be replaced by anybody at any time.
#[tokio::test(start_paused = true)]
async fn content_that_is_replaced_before_it_is_copied_is_not_taken_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Replaced::before(&dir, 1);
    let scene = Scene::with(dir, storage).await;
    let leads = scene.begin(into("", false)).await;
    let options = into("", false).name("y");
    let joins = scene.peer.download_with(scene.shared.id, options);
    soon(leads).await.unwrap();
    let joined = soon(joins).await;
    assert!(
        matches!(joined, Err(DownloadError::Storage { .. })),
        "{joined:?}"
    );
    assert!(!scene.dir.path().join("y").exists());
}

/// Readers get the bytes that were verified, or none.
#[tokio::test(start_paused = true)]
async fn content_that_is_replaced_before_it_is_read_is_not_taken_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), content(LEN, 1)).unwrap();
    let storage = Replaced::before(&dir, 2);
    let scene = Scene::with(dir, storage).await;
    let options = into("", false).name("x");
    let download = scene.peer.download_with(scene.shared.id, options);
    let mut reader = download.reader();
    soon(download).await.unwrap();
    let mut read = Vec::new();
    match soon(reader.read_to_end(&mut read)).await {
        Ok(_) => assert!(read == scene.bytes),
        Err(error) => println!("{error}"),
    }
}

/// A storage of which a file is replaced, once, before it is opened for the `nth` time.
struct Replaced {
    inner: FileStorage,
    path: PathBuf,
    nth: usize,
    opened: AtomicUsize,
}

impl Replaced {
    fn before(dir: &TempDir, nth: usize) -> Self {
        Self {
            inner: FileStorage::open(dir.path()).unwrap(),
            path: dir.path().join("x"),
            nth,
            opened: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Storage for Replaced {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.inner.create(name, manifest).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        let is_there = name.as_str() == "x" && self.path.exists();
        if is_there && self.opened.fetch_add(1, Ordering::Relaxed) + 1 == self.nth {
            let new = self.path.with_extension("new");
            fs::write(&new, content(LEN, 2)).unwrap();
            fs::rename(new, &self.path).unwrap();
        }
        self.inner.open(name).await
    }
}
