//! A content whose file a download has replaced is not offered any more.

use std::fs;
use std::path::Path;

use bt_lite::peer::{IfTaken, PeerEvent};
use bt_lite::storage::Lost;
use bt_lite::{
    Content, ContentId, DownloadError, DownloadOptions, FileStorage, MemoryStorage, Peer,
    StorageError,
};
use bytes::Bytes;
use futures::StreamExt;

use crate::on_both_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{World, content, named, soon};

const CHUNK: usize = 16 << 10;

async fn peer_in(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

fn over(name: &str) -> DownloadOptions {
    DownloadOptions::new()
        .name(named(name))
        .if_taken(IfTaken::Overwrite)
}

/// Two contents that an owner has.
async fn two(world: &World, seed: u64) -> (Peer, [Content; 2], [Bytes; 2]) {
    let owner = world.node("owner").await;
    let bytes = [0, 1].map(|n| content((20 + n) * CHUNK, seed + n as u64));
    let first = owner.share("first", &bytes[0]).await;
    let second = owner.share("second", &bytes[1]).await;
    (owner.peer, [first, second], bytes)
}

/// What was withdrawn until something was complete.
async fn withdrawn_before(events: &mut bt_lite::peer::PeerEvents, id: ContentId) -> Vec<Content> {
    let mut withdrawn = Vec::new();
    loop {
        match events.next().await.unwrap() {
            PeerEvent::Withdrawn { content, .. } => withdrawn.push(content),
            PeerEvent::Complete { content } if content.id == id => return withdrawn,
            _ => {}
        }
    }
}

on_both_networks! {
    async fn content_that_was_replaced_is_retired_when_the_other_is_published(world: World) {
        // Fetched from the owner, or copied from what is here.
        for (n, from) in ["fetched", "copied"].into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let (owner, [first, second], bytes) = two(&world, n as u64 * 10).await;
            let peer = peer_in(&world, from, dir.path()).await;
            peer.download_with(first.id, DownloadOptions::new().name(named("x"))).await.unwrap();
            if from == "copied" {
                peer.download(second.id).await.unwrap();
            }
            world.listed(&first, 2).await;
            let mut events = peer.events();
            peer.download_with(second.id, over("x")).await.unwrap();
            let path = dir.path().join("x");
            assert_eq!(fs::read(&path).unwrap(), bytes[1]);
            let [here] = &peer.contents()[..] else {
                panic!("{from}: {:?}", peer.contents());
            };
            assert_eq!((here.id, peer.list().len()), (second.id, 1), "{from}");
            let error = StorageError::Changed { path: path.clone() };
            assert_eq!(peer.lost(), [Lost::new(first.id, named("x"), error)], "{from}");
            let withdrawn = withdrawn_before(&mut events, second.id).await;
            assert_eq!(withdrawn.len(), 1, "{from}");
            assert!(peer.paths(&second.id).await.contains(&path));
            // Only the owner is left.
            world.listed(&first, 1).await;
            peer.shutdown().await;
            // Nothing of it comes back, and nothing is missed.
            let peer = peer_in(&world, &format!("{from}-again"), dir.path()).await;
            assert_eq!(peer.contents().len(), 1, "{from}");
            assert_eq!(peer.lost(), [], "{from}");
            let leecher = world.node(&format!("{from}-leecher")).await;
            owner.shutdown().await;
            leecher.peer.download(second.id).await.unwrap();
            peer.shutdown().await;
        }
    }

    async fn content_that_was_replaced_keeps_its_other_places(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let (owner, [first, second], bytes) = two(&world, 20).await;
        let peer = peer_in(&world, "peer", dir.path()).await;
        for name in ["x", "y", "z"] {
            peer.download_with(first.id, DownloadOptions::new().name(named(name))).await.unwrap();
        }
        // One that is not the first, and then the first.
        for name in ["y", "x"] {
            peer.download_with(second.id, over(name)).await.unwrap();
        }
        assert_eq!(peer.paths(&first.id).await, [dir.path().join("z")]);
        assert_eq!(peer.content_stats(&first.id).unwrap().names, [named("z")]);
        assert_eq!(peer.lost(), []);
        owner.shutdown().await;
        let leecher = world.node("leecher").await;
        leecher.peer.download(first.id).await.unwrap();
        leecher.peer.download(second.id).await.unwrap();
        peer.shutdown().await;
        let peer = peer_in(&world, "peer-again", dir.path()).await;
        assert_eq!(peer.paths(&first.id).await, [dir.path().join("z")]);
        let mut paths = peer.paths(&second.id).await;
        paths.sort();
        assert_eq!(paths, ["x", "y"].map(|name| dir.path().join(name)));
        assert_eq!(fs::read(dir.path().join("z")).unwrap(), bytes[0]);
        peer.shutdown().await;
    }

    async fn content_under_another_name_than_its_file_is_retired_as_well(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let (_owner, [first, second], bytes) = two(&world, 30).await;
        let peer = peer_in(&world, "peer", dir.path()).await;
        let path = dir.path().join("x");
        fs::write(&path, &bytes[0]).unwrap();
        let source = bt_lite::ShareSource::file(&path).named(named("other"));
        peer.share(source).await.unwrap();
        peer.download_with(second.id, over("x")).await.unwrap();
        let lost = peer.lost();
        assert_eq!((lost.len(), lost[0].id, &lost[0].name), (1, first.id, &named("other")));
        assert!(!lost[0].recorded);
        assert_eq!(peer.contents().len(), 1);
    }

    async fn content_in_memory_that_was_replaced_is_retired(world: World) {
        let (_owner, [first, second], bytes) = two(&world, 40).await;
        let storage = MemoryStorage::new();
        let peer = world.builder("peer", storage.clone()).start().await.unwrap();
        peer.download_with(first.id, DownloadOptions::new().name(named("x"))).await.unwrap();
        let mut reader = peer.reader(&first.id).await.unwrap();
        peer.download_with(second.id, over("x")).await.unwrap();
        assert_eq!(storage.bytes("x").unwrap(), bytes[1]);
        assert_eq!(peer.contents().len(), 1);
        assert_eq!(peer.lost().len(), 1);
        let error = tokio::io::AsyncReadExt::read_u8(&mut reader).await.unwrap_err();
        assert!(error.downcast::<DownloadError>().is_ok());
    }

    async fn file_that_was_altered_is_replaced_by_the_same_content(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let (_owner, [first, _], bytes) = two(&world, 50).await;
        let peer = peer_in(&world, "peer", dir.path()).await;
        for name in ["x", "y"] {
            peer.download_with(first.id, DownloadOptions::new().name(named(name))).await.unwrap();
        }
        let path = dir.path().join("x");
        fs::write(&path, "mine").unwrap();
        peer.download_with(first.id, over("x")).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes[0]);
        let mut paths = peer.paths(&first.id).await;
        paths.sort();
        assert_eq!(paths, ["x", "y"].map(|name| dir.path().join(name)));
        assert_eq!(peer.lost(), []);
        assert!(peer.download_bytes(first.id, 1 << 20).await.unwrap() == bytes[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn links_of_a_content_that_is_replaced_hear_of_it() {
    let world = World::memory(1).await;
    let dir = tempfile::tempdir().unwrap();
    let (owner, [first, second], _) = two(&world, 60).await;
    let peer = peer_in(&world, "peer", dir.path()).await;
    peer.download_with(first.id, DownloadOptions::new().name(named("x")))
        .await
        .unwrap();
    owner.unshare(&first.id).await;
    world.network().set_upload_rate("peer", Some(50_000));
    let leecher = world.node("leecher").await;
    let mut download = leecher.peer.download(first.id);
    let mut events = download.events();
    while download.progress().verified_chunks < 2 {
        soon(events.next()).await.unwrap();
    }
    assert_eq!(peer.stats().awake, 1);
    soon(peer.download_with(second.id, over("x")))
        .await
        .unwrap();
    assert_eq!((peer.contents().len(), peer.lost().len()), (1, 1));
    let source = bt_lite::ShareSource::bytes(named("first"), content(20 * CHUNK, 60));
    owner.share(source).await.unwrap();
    soon(&mut download).await.unwrap();
}

/// Nothing is retired before the other one is there.
#[tokio::test(start_paused = true)]
async fn content_stays_when_the_other_cannot_be_published() {
    let world = World::memory(1).await;
    let (_owner, [first, second], bytes) = two(&world, 70).await;
    let storage = Replacing(Troubled::new(Call::Finish, 1, Trouble::Fails));
    let peer = world
        .builder("peer", storage.clone())
        .start()
        .await
        .unwrap();
    peer.download_with(first.id, DownloadOptions::new().name(named("x")))
        .await
        .unwrap();
    let failed = peer.download_with(second.id, over("x")).await;
    assert!(
        matches!(failed, Err(DownloadError::Storage { .. })),
        "{failed:?}"
    );
    assert_eq!(peer.contents().len(), 1);
    assert_eq!(peer.lost(), []);
    assert_eq!(storage.0.inner.bytes("x").unwrap(), bytes[0]);
    storage.0.mend();
    peer.download_with(second.id, over("x")).await.unwrap();
    assert_eq!(peer.lost().len(), 1);
    assert_eq!(peer.contents()[0].id, second.id);
}

/// A troubled storage that can replace.
#[derive(Clone)]
struct Replacing(Troubled);

#[async_trait::async_trait]
impl bt_lite::Storage for Replacing {
    async fn create(
        &self,
        name: &bt_lite::ContentName,
        manifest: &bt_lite::Manifest,
    ) -> Result<bt_lite::storage::Partial, StorageError> {
        self.0.create(name, manifest).await
    }

    async fn create_replacing(
        &self,
        name: &bt_lite::ContentName,
        manifest: &bt_lite::Manifest,
    ) -> Result<bt_lite::storage::Partial, StorageError> {
        let mut partial = self.0.inner.create_replacing(name, manifest).await?;
        partial.blob = self.0.blob(partial.blob);
        Ok(partial)
    }

    async fn open(
        &self,
        name: &bt_lite::ContentName,
    ) -> Result<std::sync::Arc<dyn bt_lite::Blob>, StorageError> {
        self.0.open(name).await
    }
}
