//! The promises of a download's handle: events, repeated awaiting, and the ways
//! to end it.

use bt_lite::peer::DownloadEvents;
use bt_lite::{ContentId, Download, DownloadError, DownloadEvent, ShareSource, Strategy};
use futures::{FutureExt, StreamExt};

use crate::on_all_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, content, named, soon};

/// Waits until the manifest is known.
pub(crate) async fn found(download: &Download) {
    let event = download.events().next().await;
    assert!(matches!(event, Some(DownloadEvent::Found(_))), "{event:?}");
}

/// All events of the stream. Checks their order.
async fn all(events: DownloadEvents) -> Vec<DownloadEvent> {
    let events: Vec<_> = events.collect().await;
    let ends = |event: &&DownloadEvent| {
        matches!(event, DownloadEvent::Finished(_) | DownloadEvent::Failed(_))
    };
    assert_eq!(events.iter().filter(ends).count(), 1, "{events:?}");
    assert!(
        events.last().filter(|event| ends(event)).is_some(),
        "{events:?}"
    );
    let found = |event: &DownloadEvent| matches!(event, DownloadEvent::Found(_));
    assert!(
        events.iter().skip(1).all(|event| !found(event)),
        "{events:?}"
    );
    let mut stored = 0;
    for event in &events {
        if let DownloadEvent::Progress(progress) = event {
            assert!(progress.verified_bytes >= stored, "{events:?}");
            stored = progress.verified_bytes;
            assert!(progress.length.is_some(), "{events:?}");
        }
    }
    events
}

/// An owner that hangs after this many blocks, and the id of its content of 20
/// chunks.
async fn hanging(world: &World, blocks: usize) -> (bt_lite::Peer, ContentId) {
    let storage = Troubled::new(Call::Read, 1 + blocks, Trouble::Hangs);
    let bytes = content(20 * (16 << 10), 1);
    storage.inner.insert(named("x"), bytes).unwrap();
    let owner = world.builder("hanging", storage).start().await.unwrap();
    let id = owner.share(named("x")).await.unwrap().id;
    (owner, id)
}

on_all_networks! {
    async fn download_returns_at_once(world: World) {
        // Nothing was polled since, so nothing can have been asked.
        let leecher = world.node("leecher").await;
        let asked = world.tracker.stats().registry.requests.need;
        let download = leecher.peer.download(named("nothing"));
        assert_eq!(world.tracker.stats().registry.requests.need, asked);
        assert_eq!(download.content(), None);
        assert!(download.await.is_err());
    }

    async fn events_go_from_found_to_finished(world: World) {
        let bytes = content(100_000, 1);
        let _owners = world.owners(1, "x", &bytes).await;
        let leecher = world.node("leecher").await;
        let download = leecher.peer.download(named("x"));
        let events = all(download.events()).await;
        let content = download.content().unwrap();
        assert_eq!(events[0], DownloadEvent::Found(content.clone()));
        assert_eq!(events.last(), Some(&DownloadEvent::Finished(content)));
        let whole = |event: &DownloadEvent| matches!(
            event,
            DownloadEvent::Progress(progress) if progress.verified_bytes == 100_000
        );
        assert!(events.iter().any(whole), "{events:?}");
    }

    async fn stream_that_nobody_reads_merges_progress_and_keeps_the_end(world: World) {
        let bytes = content(60 * (16 << 10), 1);
        let _owners = world.owners(1, "x", &bytes).await;
        let leecher = world.node("leecher").await;
        let mut download = leecher.peer.download(named("x"));
        let early = download.events();
        (&mut download).await.unwrap();
        let late = download.events();
        for events in [early, late] {
            let events = all(events).await;
            assert_eq!(events.len(), 3, "{events:?}");
        }
        // The same for a content that is complete already.
        let again = leecher.peer.download(named("x"));
        let events = all(again.events()).await;
        assert_eq!(again.progress().verified_bytes, bytes.len() as u64);
        assert_eq!(events.len(), 3, "{events:?}");
    }

    async fn failed_download_ends_its_streams_with_the_error(world: World) {
        let leecher = world.node("leecher").await;
        let mut download = leecher.peer.download(named("nothing"));
        let early = download.events();
        let error = (&mut download).await.unwrap_err();
        for events in [early, download.events()] {
            assert_eq!(all(events).await, [DownloadEvent::Failed(error.clone())]);
        }
    }

    async fn download_can_be_awaited_any_number_of_times(world: World) {
        let (_owner, id) = hanging(&world, 0).await;
        let leecher = world.node("leecher").await;
        let mut download = leecher.peer.download(id);
        for _ in 0..3 {
            assert_eq!((&mut download).now_or_never(), None);
        }
        found(&download).await;
        download.cancel();
        for _ in 0..3 {
            assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
        }
        download.cancel();
        assert_eq!(download.await, Err(DownloadError::Cancelled));
    }

    async fn set_strategy_returns_when_the_download_follows_it(world: World) {
        let (_owner, id) = hanging(&world, 3).await;
        let leecher = world.node("leecher").await;
        let mut download = leecher.peer.download(id);
        // It is still looking for the content, and follows when it has found it.
        let early = download.set_strategy(Strategy::Sequential);
        assert_eq!(early.now_or_never(), Some(()));
        // Now its driver runs.
        found(&download).await;
        download.set_strategy(Strategy::RarestFirst).await;
        download.cancel();
        assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
        download.set_strategy(Strategy::Sequential).await;
        // A download that never starts does not hold the call up.
        let nothing = leecher.peer.download(named("nothing"));
        nothing.set_strategy(Strategy::Sequential).await;
        assert!(nothing.await.is_err());
    }

    async fn dropped_handle_cancels_and_its_stream_reports_that(world: World) {
        let (_owner, id) = hanging(&world, 3).await;
        let leecher = world.node("leecher").await;
        let download = leecher.peer.download(id);
        found(&download).await;
        let events = download.events();
        drop(download);
        let events = all(events).await;
        assert_eq!(events.last(), Some(&DownloadEvent::Failed(DownloadError::Cancelled)));
        // The next one can start.
        let next = leecher.peer.download(id);
        found(&next).await;
    }

    async fn next_download_waits_for_one_that_is_being_cancelled(world: World) {
        let (_owner, id) = hanging(&world, 3).await;
        let leecher = world.node("leecher").await;
        let mut download = leecher.peer.download(id);
        found(&download).await;
        for _ in 0..5 {
            // The next one starts before the first is cancelled.
            let next = leecher.peer.download(id);
            download.cancel();
            found(&next).await;
            download = next;
        }
    }

    async fn detached_download_goes_on_to_the_end(world: World) {
        let bytes = content(100_000, 1);
        let _owners = world.owners(1, "x", &bytes).await;
        let leecher = world.node("leecher").await;
        let download = leecher.peer.download(named("x"));
        let events = download.events();
        download.detach();
        assert!(matches!(all(events).await.last(), Some(DownloadEvent::Finished(_))));
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
    }

    async fn finished_download_cannot_be_cancelled(world: World) {
        let bytes = content(100_000, 1);
        let owners = world.owners(1, "x", &bytes).await;
        let Node { peer, storage } = world.node("leecher").await;
        let mut download = peer.download(named("x"));
        let content = (&mut download).await.unwrap();
        download.cancel();
        assert_eq!((&mut download).await.as_ref(), Ok(&content));
        drop(download);
        owners[0].peer.shutdown().await;
        let next = world.node("next").await;
        next.peer.download(named("x")).await.unwrap();
        assert_eq!(peer.contents(), [content]);
        assert_eq!(storage.bytes(named("x")).unwrap(), bytes);
    }

    async fn shutdown_ends_every_download_with_its_last_event(world: World) {
        let (owner, id) = hanging(&world, 3).await;
        let leecher = world.node("leecher").await;
        let download = leecher.peer.download(id);
        found(&download).await;
        let early = leecher.peer.download(named("nothing"));
        let streams = [download.events(), early.events()];
        leecher.peer.shutdown().await;
        for (events, end) in streams.into_iter().zip([download, early]) {
            let late = all(end.events()).await;
            let error = end.await.unwrap_err();
            assert_eq!(error, DownloadError::ShutDown);
            assert_eq!(late.last(), Some(&DownloadEvent::Failed(error.clone())));
            assert_eq!(all(events).await.last(), Some(&DownloadEvent::Failed(error)));
        }
        let more = leecher.peer.download(id);
        let events = all(more.events()).await;
        assert_eq!(events, [DownloadEvent::Failed(DownloadError::ShutDown)]);
        owner.shutdown().await;
    }

    async fn dropping_the_last_handle_stops_the_peer(world: World) {
        let node = world.node("owner").await;
        let clone = node.peer.clone();
        let shared = node.share("x", &content(50_000, 1)).await;
        let download = node.peer.download(named("nothing"));
        drop(node);
        // The clone keeps the peer running.
        assert_eq!(clone.contents(), [shared]);
        assert!(matches!(download.await, Err(DownloadError::NotFound { .. })));
        let waiting = clone.download(named("nothing"));
        drop(clone);
        assert_eq!(waiting.await, Err(DownloadError::ShutDown));
    }

    async fn received_bytes_are_credited_to_their_owner(world: World) {
        let bytes = content(200_000, 1);
        let _owners = world.owners(2, "x", &bytes).await;
        let leecher = world.node("leecher").await;
        leecher.peer.download(named("x")).await.unwrap();
        assert_eq!(world.tracker.stats().registry.requests.update, 0);
        // The last report goes out with the farewell.
        leecher.peer.shutdown().await;
        let stats = world.tracker.stats().registry;
        assert_eq!((stats.requests.update, stats.requests.exit), (1, 1));
        assert_eq!(stats.peers, 2);
    }

    async fn content_has_a_copy_in_the_storage_only_when_it_is_asked_for(world: World) {
        let node = world.node("owner").await;
        let source = ShareSource::bytes(named("x"), "bytes");
        node.peer.share(source).await.unwrap();
        assert_eq!(node.bytes("x"), None);
        let download = node.peer.download(named("x"));
        assert_eq!(download.await.unwrap().length, 5);
        assert_eq!(node.bytes("x").unwrap(), "bytes");
    }
}
