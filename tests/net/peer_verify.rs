//! Data that is here already is taken over without anybody else.

use std::fs;
use std::path::Path;

use bt_lite::peer::PeerEvent;
use bt_lite::{
    Content, ContentId, DownloadOptions, ErrorKind, FileStorage, Peer, ShareError, ShareSource,
    StorageError,
};
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

on_both_networks! {
    async fn file_is_taken_over_where_it_lies_and_shared_after_a_restart(world: World) {
        for (seed, length) in [0, 1, CHUNK, CHUNK + 1, 40 * CHUNK + 7].into_iter().enumerate() {
            let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let bytes = content(length, 1 + seed as u64);
            let id = ContentId::of(&bytes);
            for (place, root) in [("inside", dir.path()), ("outside", outside.path())] {
                let case = format!("{length} {place}");
                let peer = peer_in(&world, &format!("peer-{length}-{place}"), dir.path()).await;
                let path = root.join(place);
                fs::write(&path, &bytes).unwrap();
                let mut events = peer.events();
                let taken = peer.verify(&path, id).await.unwrap();
                assert_eq!(taken, Content::new(id, named(place), length as u64), "{case}");
                assert_eq!(peer.contents(), std::slice::from_ref(&taken), "{case}");
                assert_eq!(peer.paths(&id).await, std::slice::from_ref(&path), "{case}");
                let started = PeerEvent::ShareStarted { content: taken.clone() };
                assert_eq!(events.next().await, Some(started), "{case}");
                world.listed(&taken, 1).await;
                assert_eq!(peer.stats().downloaded, 0, "{case}");
                // Once more changes nothing.
                assert_eq!(peer.verify(&path, &taken).await.unwrap(), taken, "{case}");
                assert_eq!(peer.paths(&id).await.len(), 1, "{case}");
                peer.shutdown().await;
                let again = format!("peer-{length}-{place}-again");
                let peer = peer_in(&world, &again, dir.path()).await;
                assert_eq!(peer.contents(), std::slice::from_ref(&taken), "{case}");
                let leecher = world.node(&format!("leecher-{length}-{place}")).await;
                leecher.peer.download(id).await.unwrap();
                assert_eq!(leecher.bytes(place).unwrap(), bytes, "{case}");
                assert!(peer.unshare(&id).await);
                peer.shutdown().await;
                leecher.peer.shutdown().await;
            }
        }
    }

    async fn file_that_is_another_content_changes_nothing(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let peer = peer_in(&world, "peer", dir.path()).await;
        let bytes = content(5 * CHUNK, 20);
        let path = dir.path().join("x");
        let expected = Content::new(ContentId::of(&bytes), named("film"), bytes.len() as u64);
        let id = expected.id;
        let mut wrong = bytes.to_vec();
        wrong[3 * CHUNK] ^= 1;
        let found = ContentId::of(&wrong);
        fs::write(&path, &wrong).unwrap();
        let differs = ShareError::HashDiffers { name: named("x"), id, found };
        assert_eq!(peer.verify(&path, id).await, Err(differs.clone()));
        assert_eq!(peer.verify(&path, &expected).await, Err(differs));
        // One that is not whole.
        fs::write(&path, &bytes[1..]).unwrap();
        let length = bytes.len() as u64 - 1;
        let shorter = ShareError::LengthDiffers {
            name: named("x"),
            id,
            expected: expected.length,
            length,
        };
        assert_eq!(peer.verify(&path, expected.clone()).await, Err(shorter.clone()));
        let found = ContentId::of(&bytes[1..]);
        let differs = ShareError::HashDiffers { name: named("x"), id, found };
        assert_eq!(peer.verify(&path, id).await, Err(differs));
        assert_eq!(peer.contents(), []);
        assert_eq!(fs::read(&path).unwrap(), bytes[1..]);
        let missing = peer.verify(dir.path().join("nowhere"), id).await;
        assert!(matches!(missing, Err(ShareError::Storage(StorageError::Io { .. }))), "{missing:?}");
        let a_directory = peer.verify(dir.path(), id).await;
        let Err(ShareError::Storage(StorageError::NotAFile { .. })) = a_directory else {
            panic!("{a_directory:?}");
        };
        // The length is known of what is here.
        let here = peer.share(ShareSource::bytes("y", bytes.clone())).await.unwrap();
        assert_eq!(peer.verify(&path, id).await, Err(shorter));
        assert_eq!(peer.contents(), [here]);
        peer.shutdown().await;
        // And nothing of all that was recorded.
        let peer = peer_in(&world, "peer-again", dir.path()).await;
        assert_eq!((peer.contents(), peer.lost()), (vec![], vec![]));
        assert_eq!(peer.verify(&path, id).await.unwrap_err().kind(), "hash_differs");
        peer.shutdown().await;
        assert_eq!(peer.verify(&path, id).await, Err(ShareError::ShutDown));
    }

    async fn content_that_is_here_has_one_more_place(world: World) {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let peer = peer_in(&world, "peer", dir.path()).await;
        let bytes = content(5 * CHUNK, 30);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        peer.download(shared.id).await.unwrap();
        let path = outside.path().join("y");
        fs::write(&path, &bytes).unwrap();
        peer.verify(&path, shared.id).await.unwrap();
        assert_eq!(peer.paths(&shared.id).await, [dir.path().join("x"), path.clone()]);
        fs::remove_file(dir.path().join("x")).unwrap();
        assert!(peer.download_bytes(shared.id, 1 << 20).await.unwrap() == bytes);
        // What was lost is found again.
        fs::remove_file(&path).unwrap();
        peer.download_bytes(shared.id, 1 << 20).await.unwrap_err();
        assert_eq!(peer.lost().len(), 1);
        fs::write(&path, &bytes).unwrap();
        peer.verify(&path, shared.id).await.unwrap();
        assert_eq!(peer.lost(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_else_is_needed() {
    let world = World::memory(1).await;
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(5 * CHUNK, 1);
    let path = dir.path().join("x");
    fs::write(&path, &bytes).unwrap();
    let peer = peer_in(&world, "peer", dir.path()).await;
    // Its tracker is gone.
    world.network().partition(&["peer"], &["tracker"]);
    let begun = tokio::time::Instant::now();
    let taken = soon(peer.verify(&path, ContentId::of(&bytes)))
        .await
        .unwrap();
    assert!(begun.elapsed().is_zero());
    assert_eq!(peer.contents(), std::slice::from_ref(&taken));
    world.network().heal();
    soon(world.listed(&taken, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn content_that_is_being_downloaded_is_not_taken_over() {
    let world = World::memory(1).await;
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(40 * CHUNK, 1);
    let owner = world.node("owner").await;
    let shared = owner.share("x", &bytes).await;
    world.network().set_upload_rate("owner", Some(50_000));
    let peer = peer_in(&world, "peer", &dir.path().join("storage")).await;
    let download = peer.download(shared.id);
    let mut events = download.events();
    while download.progress().verified_chunks < 2 {
        soon(events.next()).await.unwrap();
    }
    let path = dir.path().join("y");
    fs::write(&path, &bytes).unwrap();
    let refused = peer.verify(&path, shared.id).await;
    assert_eq!(refused, Err(ShareError::Downloading { id: shared.id }));
    // A download takes it over.
    download.cancel();
    let _ = download.await;
    let before = owner.peer.content_stats(&shared.id).unwrap().uploaded;
    let options = DownloadOptions::new().existing(&path);
    soon(peer.download_with(shared.id, options)).await.unwrap();
    let after = owner.peer.content_stats(&shared.id).unwrap().uploaded;
    assert!(after - before < bytes.len() as u64 / 2, "{before} {after}");
}

#[tokio::test(start_paused = true)]
async fn disk_that_fails_meanwhile_changes_nothing() {
    let world = World::memory(1).await;
    let bytes = content(5 * CHUNK, 1);
    for nth in [0, 1] {
        let storage = Troubled::new(Call::Read, nth, Trouble::Fails);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let peer = world
            .builder("peer", storage.clone())
            .start()
            .await
            .unwrap();
        let verified = peer.verify(named("x"), ContentId::of(&bytes)).await;
        match nth {
            0 => {
                assert_eq!(verified, Err(ShareError::Storage(Troubled::error())));
                assert_eq!(peer.contents(), []);
                storage.mend();
                peer.verify(named("x"), ContentId::of(&bytes))
                    .await
                    .unwrap();
            }
            _ => drop(verified.unwrap()),
        }
        assert_eq!(peer.contents().len(), 1);
        peer.shutdown().await;
    }
}
