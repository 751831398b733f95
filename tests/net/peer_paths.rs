//! Where a content lies here is listed, however it came there.

use std::fs;
use std::path::Path;

use std::sync::Arc;

use async_trait::async_trait;
use bt_lite::peer::IfTaken;
use bt_lite::storage::Partial;
use bt_lite::{
    Blob, ContentName, DownloadError, DownloadOptions, FileStorage, Manifest, MemoryStorage, Peer,
    ShareSource, Storage, StorageError,
};

use crate::on_both_networks;
use crate::world::{World, content, named, soon};

const CHUNK: usize = 16 << 10;

async fn peer_in(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

on_both_networks! {
    async fn place_that_was_right_already_is_listed(world: World) {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for (seed, length) in [CHUNK, 5 * CHUNK + 1].into_iter().enumerate() {
            let (main, other) = (root.join(format!("main{length}")), root.join(format!("other{length}")));
            let bytes = content(length, seed as u64);
            let owner = world.node("owner").await;
            let shared = owner.share("x", &bytes).await;
            let id = shared.id;
            let peer = peer_in(&world, &format!("peer-{length}"), &main).await;
            peer.download(id).await.unwrap();
            let first = peer.paths(&id).await;
            assert_eq!(first, [main.join("x")]);
            fs::create_dir(&other).unwrap();
            // By its id, so that no name is wanted; by a name; as a file to be taken over.
            for (n, name) in [None, Some("y"), Some("z")].into_iter().enumerate() {
                let path = other.join(name.unwrap_or("x"));
                fs::write(&path, &bytes).unwrap();
                let mut options = DownloadOptions::new().directory(&other);
                if let Some(name) = name {
                    options = options.name(named(name));
                }
                if name == Some("z") {
                    options = options.existing(&path);
                }
                let got = peer.download_with(id, options.clone()).await.unwrap();
                assert_eq!(got.name.as_str(), name.unwrap_or("x"));
                let paths = peer.paths(&id).await;
                assert_eq!((paths.len(), paths.last()), (n + 2, Some(&path)), "{name:?}");
                // Once more changes nothing.
                peer.download_with(id, options).await.unwrap();
                assert_eq!(peer.paths(&id).await, paths);
            }
            // It is served from there when the first one is gone.
            fs::remove_file(main.join("x")).unwrap();
            owner.peer.shutdown().await;
            let leecher = world.node(&format!("leecher-{length}")).await;
            leecher.peer.download(id).await.unwrap();
            let paths = ["x", "y", "z"].map(|name| other.join(name));
            assert_eq!(peer.paths(&id).await, paths);
            peer.shutdown().await;
            leecher.peer.shutdown().await;
        }
    }

    async fn place_is_listed_though_no_tracker_hears_of_its_name(world: World) {
        let root = tempfile::tempdir().unwrap();
        let bytes = content(5 * CHUNK, 10);
        let peer = peer_in(&world, "peer", root.path()).await;
        let shared = peer.share(ShareSource::bytes("x", bytes.clone())).await.unwrap();
        world.tracker.shutdown().await;
        let options = DownloadOptions::new().name(named("y"));
        peer.download_with(shared.id, options).await.unwrap();
        assert_eq!(peer.paths(&shared.id).await, [root.path().join("y")]);
    }

    async fn content_that_was_there_when_it_was_first_asked_for_is_listed(world: World) {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (main, other) = (root.join("main"), root.join("other"));
        let owner = world.node("owner").await;
        for (n, existing) in [false, true].into_iter().enumerate() {
            let name = format!("x{n}");
            let bytes = content(5 * CHUNK, 20 + n as u64);
            let shared = owner.share(&name, &bytes).await;
            let peer = peer_in(&world, &format!("peer-{n}"), &main).await;
            fs::create_dir_all(&other).unwrap();
            let path = other.join(&name);
            fs::write(&path, &bytes).unwrap();
            let mut options = DownloadOptions::new().directory(&other);
            if existing {
                options = options.existing(&path);
            }
            peer.download_with(shared.id, options).await.unwrap();
            assert_eq!(peer.paths(&shared.id).await, [path]);
            assert_eq!(owner.peer.content_stats(&shared.id).unwrap().uploaded, 0);
            peer.shutdown().await;
        }
    }

    async fn name_that_is_taken_by_what_cannot_be_opened_is_called_taken(world: World) {
        let root = tempfile::tempdir().unwrap();
        let peer = peer_in(&world, "peer", root.path()).await;
        let bytes = content(5 * CHUNK, 30);
        let shared = peer.share(ShareSource::bytes("x", bytes)).await.unwrap();
        let path = root.path().join("y");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let options = DownloadOptions::new().name(named("y"));
        let taken = peer.download_with(shared.id, options.clone()).await;
        let expected = DownloadError::TargetExists {
            name: named("y"),
            id: shared.id,
            path: Some(path.clone()),
        };
        assert_eq!(taken, Err(expected));
        // A link is not replaced.
        let refused = peer.download_with(shared.id, options.clone().if_taken(IfTaken::Overwrite));
        let refused = refused.await;
        let Err(DownloadError::Storage { source: StorageError::NotAFile { .. }, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(path.is_symlink());
        // What was in the way is gone.
        fs::remove_file(&path).unwrap();
        peer.download_with(shared.id, options).await.unwrap();
    }
}

/// A storage in which something that cannot be opened has a name.
struct Taken(MemoryStorage);

#[async_trait]
impl Storage for Taken {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        if name.as_str() == "taken" {
            let name = name.clone();
            return Err(StorageError::Exists { name, path: None });
        }
        self.0.create(name, manifest).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.0.open(name).await
    }
}

#[tokio::test(start_paused = true)]
async fn name_that_the_storage_calls_taken_and_does_not_open_is_taken() {
    let world = World::memory(1).await;
    let storage = Taken(MemoryStorage::new());
    let peer = world.builder("peer", storage).start().await.unwrap();
    let source = ShareSource::bytes("x", content(5 * CHUNK, 1));
    let shared = peer.share(source).await.unwrap();
    let options = DownloadOptions::new().name(named("taken"));
    let taken = soon(peer.download_with(shared.id, options)).await;
    let (name, id, path) = (named("taken"), shared.id, None);
    assert_eq!(taken, Err(DownloadError::TargetExists { name, id, path }));
    assert_eq!(peer.contents(), [shared]);
}
