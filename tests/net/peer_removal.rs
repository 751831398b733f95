//! Which files are deleted with a content: those that the peer has written, and none that
//! it has only found.

use std::fs;
use std::path::Path;

use bt_lite::peer::{FileFate, PeerConfig};
use bt_lite::{
    Content, ContentId, DownloadError, DownloadOptions, FileStorage, MemoryStorage, Peer, Removal,
    ShareSource, StorageError,
};
use bytes::Bytes;

use crate::on_all_networks;
use crate::world::{World, content, named, soon};

const CHUNK: usize = 16 << 10;

async fn peer_in(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

async fn fates(peer: &Peer, id: &ContentId) -> Vec<FileFate> {
    let removed = peer.remove(id, Removal::DeleteFile).await.unwrap();
    removed.files.into_iter().map(|file| file.fate).collect()
}

/// How a content comes to the directory of a peer, and whether the peer writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Downloaded,
    Replaced,
    Copied,
    Read,
    Found,
    FoundById,
    SharedByName,
    SharedByPath,
}

impl Way {
    const ALL: [Self; 8] = [
        Self::Downloaded,
        Self::Replaced,
        Self::Copied,
        Self::Read,
        Self::Found,
        Self::FoundById,
        Self::SharedByName,
        Self::SharedByPath,
    ];

    fn writes(self) -> bool {
        use Way::{Copied, Downloaded, Read, Replaced};
        matches!(self, Downloaded | Replaced | Copied | Read)
    }

    /// Has this content under the name "x" in the directory.
    async fn take(self, peer: &Peer, dir: &Path, shared: &Content, bytes: &Bytes) {
        let path = dir.join("x");
        let options = DownloadOptions::new().name("x");
        match self {
            Self::Downloaded => drop(peer.download(shared.id).await.unwrap()),
            Self::Replaced => {
                fs::write(&path, "mine").unwrap();
                let options = options.if_taken(bt_lite::IfTaken::Overwrite);
                peer.download_with(shared.id, options).await.unwrap();
            }
            Self::Copied => {
                let elsewhere = tempfile::tempdir().unwrap();
                let from = elsewhere.path().join("from");
                fs::write(&from, bytes).unwrap();
                peer.share(&from).await.unwrap();
                peer.download_with(shared.id, options).await.unwrap();
            }
            Self::Read => drop(peer.share_reader("x", &bytes[..]).await.unwrap()),
            Self::Found => {
                fs::write(&path, bytes).unwrap();
                peer.download_with(shared.id, options).await.unwrap();
            }
            Self::FoundById => {
                fs::write(&path, bytes).unwrap();
                peer.download(shared.id).await.unwrap();
            }
            Self::SharedByName => {
                fs::write(&path, bytes).unwrap();
                peer.share(ShareSource::stored(named("x"))).await.unwrap();
            }
            Self::SharedByPath => {
                fs::write(&path, bytes).unwrap();
                peer.share(&path).await.unwrap();
            }
        }
    }
}

on_all_networks! {
    async fn file_is_deleted_only_if_the_peer_has_written_it_also_after_a_restart(world: World) {
        let owner = world.node("owner").await;
        for len in [5, 3 * CHUNK + 1] {
            let bytes = content(len, len as u64);
            let shared = owner.share("x", &bytes).await;
            for restarts in 0..3 {
                for way in Way::ALL {
                    let case = format!("{way:?}, {len}, {restarts}");
                    let dir = tempfile::tempdir().unwrap();
                    let mut peer = peer_in(&world, &format!("peer-{restarts}-{way:?}-{len}"), dir.path()).await;
                    way.take(&peer, dir.path(), &shared, &bytes).await;
                    for restart in 0..restarts {
                        peer.shutdown().await;
                        let name = format!("again-{restarts}-{way:?}-{len}-{restart}");
                        peer = peer_in(&world, &name, dir.path()).await;
                    }
                    let fates = fates(&peer, &shared.id).await;
                    let expected = match way.writes() {
                        true => FileFate::Deleted,
                        false => FileFate::WasThere,
                    };
                    assert!(fates.contains(&expected), "{fates:?} ({case})");
                    assert_eq!(dir.path().join("x").exists(), !way.writes(), "{case}");
                    assert!(peer.contents().is_empty(), "{case}");
                    peer.shutdown().await;
                    let name = format!("last-{restarts}-{way:?}-{len}");
                    peer = peer_in(&world, &name, dir.path()).await;
                    assert!(peer.contents().is_empty(), "{case}");
                    assert!(peer.lost().is_empty(), "{case}");
                    peer.shutdown().await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn file_that_was_written_stays_so_when_it_is_shared_again_and_one_that_was_found_as_well() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let bytes = content(2 * CHUNK, 1);
    let shared = owner.share("x", &bytes).await;
    for way in [Way::Downloaded, Way::Found] {
        for restarts in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut peer = peer_in(&world, &format!("peer-{way:?}-{restarts}"), dir.path()).await;
            way.take(&peer, dir.path(), &shared, &bytes).await;
            // Once more, and once with another name at trackers.
            peer.share(ShareSource::stored(named("x"))).await.unwrap();
            peer.share(ShareSource::stored(named("x")).named("y"))
                .await
                .unwrap();
            peer.share(dir.path().join("x")).await.unwrap();
            peer.download_with(shared.id, DownloadOptions::new().name("x"))
                .await
                .unwrap();
            if restarts {
                peer.shutdown().await;
                peer = peer_in(&world, &format!("again-{way:?}-{restarts}"), dir.path()).await;
            }
            let fates = fates(&peer, &shared.id).await;
            let deletes = way.writes();
            assert_eq!(fates.contains(&FileFate::Deleted), deletes, "{fates:?}");
            assert_eq!(
                dir.path().join("x").exists(),
                !deletes,
                "{way:?} {restarts}"
            );
            peer.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn file_that_took_the_place_of_one_that_was_written_is_not_the_peers() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let bytes = content(2 * CHUNK, 1);
    let shared = owner.share("x", &bytes).await;
    let dir = tempfile::tempdir().unwrap();
    let peer = peer_in(&world, "peer", dir.path()).await;
    peer.download(shared.id).await.unwrap();
    peer.shutdown().await;
    // Somebody puts the same bytes there, at another time.
    let path = dir.path().join("x");
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bytes).unwrap();
    let long_ago =
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(long_ago).unwrap();
    let peer = peer_in(&world, "again", dir.path()).await;
    assert!(peer.contents().is_empty());
    peer.download(shared.id).await.unwrap();
    assert_eq!(fates(&peer, &shared.id).await, [FileFate::WasThere]);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn content_in_memory_is_removed_only_if_the_peer_has_written_it() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let bytes = content(2 * CHUNK, 1);
    let shared = owner.share("x", &bytes).await;
    for (name, found) in [("peer", false), ("other", true)] {
        let storage = MemoryStorage::new();
        if found {
            storage.insert(named("x"), bytes.clone()).unwrap();
        }
        let builder = world.builder(name, storage.clone()).share_stored();
        let peer = builder.start().await.unwrap();
        peer.download(shared.id).await.unwrap();
        peer.shutdown().await;
        let builder = world
            .builder(&format!("{name}-again"), storage.clone())
            .share_stored();
        let peer = builder.start().await.unwrap();
        let expected = if found {
            FileFate::WasThere
        } else {
            FileFate::Deleted
        };
        assert_eq!(fates(&peer, &shared.id).await, [expected]);
        assert_eq!(storage.bytes("x").is_some(), found);
        peer.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn file_that_was_found_takes_room_and_is_not_evicted() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let (first, second) = (content(2 * CHUNK, 1), content(2 * CHUNK, 2));
    let found = owner.share("a", &first).await;
    let wanted = owner.share("b", &second).await;
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let start = async |name: &str| {
            let storage = FileStorage::open(dir.path()).unwrap();
            let config = PeerConfig::default().max_stored(Some(3 * CHUNK as u64));
            let builder = world.builder(name, storage).share_stored().config(config);
            builder.start().await.unwrap()
        };
        fs::write(dir.path().join("a"), &first).unwrap();
        let mut peer = start(&format!("peer-{restarts}")).await;
        peer.download(found.id).await.unwrap();
        if restarts {
            peer.shutdown().await;
            peer = start(&format!("again-{restarts}")).await;
        }
        while peer.stats().awake > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let outcome = soon(peer.download(wanted.id)).await;
        let Err(DownloadError::Storage { source, .. }) = &outcome else {
            panic!("{outcome:?}");
        };
        assert!(matches!(source, StorageError::Full { .. }), "{source:?}");
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), first);
        assert_eq!(peer.contents().len(), 1);
        peer.shutdown().await;
    }
}
