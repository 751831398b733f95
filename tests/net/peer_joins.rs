//! Several handles of one download.

use bt_lite::{ContentId, DownloadError, DownloadEvent, DownloadOptions, Peer, Strategy};
use bytes::Bytes;
use futures::StreamExt;

use crate::on_all_networks;
use crate::peer_handles::found;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, content, named, soon};

const LENGTH: usize = 20 * (16 << 10);

/// An owner that hangs after some blocks until it is mended.
struct Hanging {
    peer: Peer,
    storage: Troubled,
    bytes: Bytes,
    id: ContentId,
}

impl Hanging {
    async fn start(world: &World) -> Self {
        let storage = Troubled::new(Call::Read, 1 + 5, Trouble::Hangs);
        let bytes = content(LENGTH, 21);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let builder = world.builder("hanging", storage.clone());
        let peer = builder.start().await.unwrap();
        let id = peer.share(named("x")).await.unwrap().id;
        Self {
            peer,
            storage,
            bytes,
            id,
        }
    }

    /// Another owner makes it end.
    async fn helper(&self, world: &World) -> Node {
        let helper = world.node("helper").await;
        helper.share("x", &self.bytes).await;
        helper
    }
}

fn to(name: &str) -> DownloadOptions {
    DownloadOptions::new().name(named(name))
}

on_all_networks! {
    async fn second_download_joins_the_first_with_a_handle_of_its_own(world: World) {
        let owner = Hanging::start(&world).await;
        let leecher = world.node("leecher").await;
        let mut first = leecher.peer.download(named("x"));
        found(&first).await;
        let mut second = leecher.peer.download(owner.id);
        found(&second).await;
        let mut third = leecher.peer.download(named("x"));
        found(&third).await;
        assert_eq!(leecher.peer.stats().active_downloads, 1);
        assert_eq!(second.content(), first.content());
        assert_eq!(second.position(), None);
        second.set_strategy(Strategy::Sequential).await;
        // Each has its own events, and sees the progress of the one download.
        let events = [&first, &second, &third].map(|download| download.events());
        let helper = owner.helper(&world).await;
        for download in [&mut first, &mut second, &mut third] {
            let got = (&mut *download).await.unwrap();
            assert_eq!((got.id, got.name), (owner.id, named("x")));
            assert_eq!(download.progress().verified_bytes, LENGTH as u64);
            assert!(download.progress().downloaded >= LENGTH as u64);
            assert_eq!(download.durable_bytes(), LENGTH as u64);
        }
        for events in events {
            let events: Vec<_> = events.collect().await;
            assert!(matches!(events[0], DownloadEvent::Found(_)), "{events:?}");
            let progress = |e: &DownloadEvent| matches!(e, DownloadEvent::Progress(_));
            assert!(events.iter().any(progress), "{events:?}");
            assert!(matches!(events.last(), Some(DownloadEvent::Finished(_))), "{events:?}");
        }
        assert_eq!(leecher.bytes("x"), Some(owner.bytes));
        drop((helper, owner.peer));
    }

    async fn handle_that_is_dropped_or_cancelled_does_not_end_the_download_of_another(world: World) {
        let owner = Hanging::start(&world).await;
        let leecher = world.node("leecher").await;
        let first = leecher.peer.download(named("x"));
        found(&first).await;
        let mut second = leecher.peer.download(owner.id);
        let mut third = leecher.peer.download(owner.id);
        found(&second).await;
        found(&third).await;
        // The one that began, ...
        drop(first);
        // ... and one that has joined.
        let events = third.events();
        third.cancel();
        assert_eq!((&mut third).await, Err(DownloadError::Cancelled));
        let last = events.collect::<Vec<_>>().await.pop();
        assert_eq!(last, Some(DownloadEvent::Failed(DownloadError::Cancelled)));
        let fourth = leecher.peer.download(owner.id);
        found(&fourth).await;
        let mut fifth = leecher.peer.download(owner.id);
        found(&fifth).await;
        drop(fourth);
        let _helper = owner.helper(&world).await;
        (&mut second).await.unwrap();
        (&mut fifth).await.unwrap();
        assert_eq!(leecher.bytes("x"), Some(owner.bytes));
        drop(owner.peer);
    }

    async fn first_handle_that_cancels_leaves_the_download_to_the_second(world: World) {
        let owner = Hanging::start(&world).await;
        let leecher = world.node("leecher").await;
        let mut first = leecher.peer.download(named("x"));
        found(&first).await;
        let mut second = leecher.peer.download(owner.id);
        found(&second).await;
        let events = first.events();
        first.cancel();
        assert_eq!((&mut first).await, Err(DownloadError::Cancelled));
        let last = events.collect::<Vec<_>>().await.pop();
        assert_eq!(last, Some(DownloadEvent::Failed(DownloadError::Cancelled)));
        let again = first.events().collect::<Vec<_>>().await.pop();
        assert_eq!(again, Some(DownloadEvent::Failed(DownloadError::Cancelled)));
        assert_eq!(leecher.peer.stats().active_downloads, 1);
        // The last one ends it.
        second.cancel();
        assert_eq!((&mut second).await, Err(DownloadError::Cancelled));
        while leecher.peer.stats().active_downloads > 0 {
            tokio::task::yield_now().await;
        }
        owner.storage.mend();
        drop(owner.peer);
    }

    async fn download_that_was_detached_goes_on_and_gives_a_handle_again(world: World) {
        let owner = Hanging::start(&world).await;
        let leecher = world.node("leecher").await;
        let first = leecher.peer.download(named("x"));
        found(&first).await;
        first.detach();
        for _ in 0..2 {
            let again = leecher.peer.download(owner.id);
            found(&again).await;
            drop(again);
        }
        assert_eq!(leecher.peer.stats().active_downloads, 1);
        let again = leecher.peer.download(owner.id);
        found(&again).await;
        let helper = owner.helper(&world).await;
        again.await.unwrap();
        assert_eq!(leecher.bytes("x"), Some(owner.bytes.clone()));
        helper.peer.shutdown().await;
        // A handle can still end one that was detached.
        let other = world.node("other").await;
        let owners = DownloadOptions::new().owner(owner.peer.local_addr().unwrap().clone());
        let first = other.peer.download_with(owner.id, owners);
        found(&first).await;
        first.detach();
        let mut again = other.peer.download(owner.id);
        found(&again).await;
        again.cancel();
        let ended = (&mut again).await;
        while other.peer.stats().active_downloads > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(ended, Err(DownloadError::Cancelled)), "{ended:?}");
        drop(leecher);
    }

    async fn download_that_joins_under_another_name_has_that_name_in_the_end(world: World) {
        let owner = Hanging::start(&world).await;
        let leecher = world.node("leecher").await;
        let first = leecher.peer.download(named("x"));
        found(&first).await;
        let second = leecher.peer.download_with(owner.id, to("y"));
        found(&second).await;
        assert_eq!(second.content().unwrap().name, named("y"));
        let _helper = owner.helper(&world).await;
        assert_eq!(first.await.unwrap().name, named("x"));
        assert_eq!(second.await.unwrap().name, named("y"));
        for name in ["x", "y"] {
            assert_eq!(leecher.bytes(name), Some(owner.bytes.clone()), "{name}");
        }
        // The user's own name stays here.
        let stats = leecher.peer.content_stats(&owner.id).unwrap();
        assert_eq!(stats.names, [named("x"), named("y")]);
        let key = bt_lite::ContentKey::Name(named("y"));
        let other = world.node("other").await;
        assert_eq!(other.peer.download(named("y")).await, Err(DownloadError::NotFound { key }));
        drop(owner.peer);
    }

    async fn failure_of_the_download_is_that_of_all_handles(world: World) {
        let owner = Hanging::start(&world).await;
        let leecher = world.node("leecher").await;
        let mut first = leecher.peer.download(named("x"));
        found(&first).await;
        let mut second = leecher.peer.download(owner.id);
        found(&second).await;
        leecher.peer.shutdown().await;
        assert_eq!((&mut first).await, Err(DownloadError::ShutDown));
        assert_eq!((&mut second).await, Err(DownloadError::ShutDown));
        drop(owner.peer);
    }
}
