//! What a peer tells those who watch it.

use std::fs;

use bt_lite::peer::swarm::{BanReason, LeaveReason, PieceState};
use bt_lite::peer::{PeerConfig, PeerEvents};
use bt_lite::{
    ChunkIndex, ContentKey, DownloadError, DownloadEvent, DownloadKey, MemoryStorage, Peer,
    PeerEvent, ShareSource, StorageError,
};
use futures::{FutureExt, StreamExt};

use crate::on_all_networks;
use crate::peer_handles::found;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Net, World, content, named, soon};

const CHUNK: usize = 16 << 10;

/// Whether an event ends something.
fn is_end(event: &PeerEvent) -> bool {
    matches!(
        event,
        PeerEvent::Complete { .. }
            | PeerEvent::Failed { .. }
            | PeerEvent::ShareEnded { .. }
            | PeerEvent::Withdrawn { .. }
    )
}

/// The events up to one that is waited for, with that one.
async fn until(events: &mut PeerEvents, last: impl Fn(&PeerEvent) -> bool) -> Vec<PeerEvent> {
    let mut seen = Vec::new();
    loop {
        let event = soon(events.next()).await.expect("the stream goes on");
        let ends = last(&event);
        seen.push(event);
        if ends {
            return seen;
        }
    }
}

fn at(events: &[PeerEvent], wanted: impl Fn(&PeerEvent) -> bool) -> usize {
    let found = events.iter().position(wanted);
    found.unwrap_or_else(|| panic!("{events:#?}"))
}

on_all_networks! {
    async fn download_is_told_from_its_owner_to_its_share(world: World) {
        const CHUNKS: usize = 20;
        let owner = world.node("owner").await;
        let mut of_owner = owner.peer.events();
        let content = owner.share("x", &content(CHUNKS * CHUNK, 1)).await;
        let started = PeerEvent::ShareStarted { content: content.clone() };
        assert_eq!(of_owner.next().await.as_ref(), Some(&started));

        let leecher = world.node("leecher").await;
        let mut events = leecher.peer.events();
        soon(leecher.peer.download(named("x"))).await.unwrap();
        let seen = until(&mut events, |event| *event == started).await;
        let joined = at(&seen, |event| matches!(
            event,
            PeerEvent::OwnerJoined { id, owner: who } if *id == content.id
                && who.peer == owner.peer.id()
                && who.addr.as_ref() == owner.peer.local_addr()
        ));
        let found = at(&seen, |e| *e == PeerEvent::Found { content: content.clone() });
        let complete = at(&seen, |e| *e == PeerEvent::Complete { content: content.clone() });
        assert!(found < complete && joined < complete, "{seen:#?}");
        for chunk in 0..CHUNKS as u32 {
            let chunk = ChunkIndex(chunk);
            let verified = PeerEvent::ChunkVerified { id: content.id, chunk };
            let verified = |event: &&PeerEvent| **event == verified;
            assert_eq!(seen[..complete].iter().filter(verified).count(), 1, "{seen:#?}");
        }
        // The owner is not needed any more.
        let left = |event: &PeerEvent| matches!(event, PeerEvent::OwnerLeft { .. });
        let more = match seen.iter().any(left) {
            true => seen,
            false => until(&mut events, left).await,
        };
        let PeerEvent::OwnerLeft { owner: who, why, .. } = &more[at(&more, left)] else {
            unreachable!()
        };
        assert_eq!(who.peer, owner.peer.id());
        assert!(matches!(
            why,
            LeaveReason::Refused { .. } | LeaveReason::Left { .. } | LeaveReason::Ended
        ), "{why}");

        assert!(owner.peer.unshare(&content.id).await);
        let ended = PeerEvent::ShareEnded { content };
        let seen = until(&mut of_owner, |event| *event == ended).await;
        assert_eq!(seen.iter().filter(|event| is_end(event)).count(), 1, "{seen:#?}");
    }

    async fn stream_that_is_not_read_for_long_has_every_end(world: World) {
        const CONTENTS: usize = 300;
        let owner = world.node("owner").await;
        let leecher = world.node("leecher").await;
        let mut events = leecher.peer.events();
        let nothing = ContentKey::from(named("nothing"));
        leecher.peer.download(named("nothing")).await.unwrap_err();
        let mut contents = Vec::new();
        for n in 0..CONTENTS {
            let shared = owner.share(&format!("x-{n}"), &content(100 + n, n as u64)).await;
            leecher.peer.download(&shared).await.unwrap();
            contents.push(shared);
        }
        leecher.peer.shutdown().await;
        let mut seen = Vec::new();
        while let Some(event) = soon(events.next()).await {
            seen.push(event);
        }
        assert!(
            matches!(&seen[0], PeerEvent::Failed { key, error: DownloadError::NotFound { .. } } if *key == nothing),
            "{:?}", seen[0]
        );
        let complete: Vec<_> = seen.iter().filter_map(|event| match event {
            PeerEvent::Complete { content } => Some(content.id),
            _ => None,
        }).collect();
        let expected: Vec<_> = contents.iter().map(|content| content.id).collect();
        assert_eq!(complete, expected);
        let missed = seen.iter().filter_map(|event| match event {
            PeerEvent::Missed { events } => Some(*events as usize),
            _ => None,
        });
        let (markers, missed) = (missed.clone().count(), missed.sum::<usize>());
        let kept = seen.len() - markers;
        assert_eq!(kept, 1024);
        // At least found, verified, complete and shared.
        assert!(missed + kept > 4 * CONTENTS, "{missed}");
    }

    async fn subscriber_that_leaves_takes_nothing_from_others(world: World) {
        let peer = world.node("peer").await.peer;
        let (first, mut second) = (peer.events(), peer.events());
        let share = async |name| peer.share(ShareSource::bytes(name, name)).await.unwrap();
        let one = share("one").await;
        drop(first);
        let two = share("two").await;
        for content in [one, two] {
            let event = PeerEvent::ShareStarted { content };
            assert_eq!(second.next().await, Some(event));
        }
        assert_eq!(second.next().now_or_never(), None);
        // One that comes later sees what comes later.
        let mut third = peer.events();
        let content = share("three").await;
        let event = PeerEvent::ShareStarted { content };
        assert_eq!(third.next().await, Some(event.clone()));
        assert_eq!(second.next().await, Some(event));
    }

    async fn shutdown_ends_the_stream_after_the_last_events(world: World) {
        let storage = Troubled::new(Call::Read, 1 + 3, Trouble::Hangs);
        storage.inner.insert(named("x"), content(20 * CHUNK, 1)).unwrap();
        let owner = world.builder("owner", storage).start().await.unwrap();
        let id = owner.share(named("x")).await.unwrap().id;
        let leecher = world.node("leecher").await;
        let mut events = leecher.peer.events();
        let download = leecher.peer.download(id);
        found(&download).await;
        leecher.peer.shutdown().await;
        let seen = until(&mut events, is_end).await;
        let failed = PeerEvent::Failed { key: id.into(), error: DownloadError::ShutDown };
        assert_eq!(seen.last(), Some(&failed));
        assert_eq!(events.next().await, None);
        assert_eq!(events.next().await, None);
        assert_eq!(leecher.peer.events().next().await, None);
        // The same when the last handle is dropped.
        let mut events = owner.events();
        drop(owner);
        while soon(events.next()).await.is_some() {}
    }

    async fn content_that_cannot_be_read_any_more_is_withdrawn_with_the_reason(world: World) {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("x");
        fs::write(&path, content(3 * CHUNK, 1)).unwrap();
        let owner = world.builder("owner", MemoryStorage::new()).start().await.unwrap();
        let mut events = owner.events();
        let content = owner.share(&*path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let leecher = world.node("leecher").await;
        let _download = leecher.peer.download(named("x"));
        let seen = until(&mut events, is_end).await;
        let error = StorageError::Changed { path };
        assert_eq!(seen.last(), Some(&PeerEvent::Withdrawn { content, error }));
    }

    async fn failed_download_is_told_with_what_was_asked_for(world: World) {
        let peer = world.node("peer").await.peer;
        let mut events = peer.events();
        // A text that is not a key is told to the caller only.
        peer.download(DownloadKey::id("nonsense")).await.unwrap_err();
        let error = peer.download(named("nothing")).await.unwrap_err();
        let key = named("nothing").into();
        let failed = PeerEvent::Failed { key, error };
        assert_eq!(events.next().await, Some(failed));
        assert_eq!(events.next().now_or_never(), None);
    }

    async fn download_that_waits_for_others_is_told(world: World) {
        let storage = Troubled::new(Call::Read, 1, Trouble::Hangs);
        storage.inner.insert(named("x"), content(20 * CHUNK, 1)).unwrap();
        let owner = world.builder("owner", storage).start().await.unwrap();
        let id = owner.share(named("x")).await.unwrap().id;
        let mut config = PeerConfig::default();
        config.max_downloads = 1;
        let leecher = world.node_with("leecher", config).await;
        let first = leecher.peer.download(id);
        found(&first).await;
        let mut events = leecher.peer.events();
        let _second = leecher.peer.download(named("y"));
        let queued = PeerEvent::Queued { key: named("y").into() };
        until(&mut events, |event| *event == queued).await;
    }

    async fn download_that_joins_another_sees_its_details_and_ends_once(world: World) {
        let storage = Troubled::new(Call::Read, 1 + 5, Trouble::Hangs);
        let bytes = content(20 * CHUNK, 1);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let owner = world.builder("hanging", storage).start().await.unwrap();
        let id = owner.share(named("x")).await.unwrap().id;
        let leecher = world.node("leecher").await;
        let mut of_peer = leecher.peer.events();
        let first = leecher.peer.download(named("x"));
        let from_start = first.detailed_events();
        found(&first).await;
        let second = leecher.peer.download(id);
        found(&second).await;
        let joined = second.detailed_events();
        let helper = world.node("helper").await;
        helper.share("x", &bytes).await;
        let content = soon(first).await.unwrap();
        soon(second).await.unwrap();
        let joined: Vec<_> = joined.collect().await;
        let from_start: Vec<_> = from_start.collect().await;
        for events in [&joined, &from_start] {
            assert_eq!(events.last(), Some(&DownloadEvent::Finished(content.clone())));
            let helped = |event: &DownloadEvent| matches!(
                event,
                DownloadEvent::OwnerJoined(who) if who.peer == helper.peer.id()
            );
            assert!(events.iter().any(helped), "{events:#?}");
        }
        let verified = |events: &[DownloadEvent]| {
            let is = |event: &&DownloadEvent| matches!(event, DownloadEvent::ChunkVerified { .. });
            events.iter().filter(is).count()
        };
        assert_eq!(verified(&from_start), 20);
        assert!(verified(&joined) > 0);
        // Of the content, one end and one start are told.
        let shared = PeerEvent::ShareStarted { content: content.clone() };
        let seen = until(&mut of_peer, |event| *event == shared).await;
        let complete = |event: &&PeerEvent| matches!(event, PeerEvent::Complete { .. });
        assert_eq!(seen.iter().filter(complete).count(), 1, "{seen:#?}");
        assert!(of_peer.next().now_or_never().flatten().is_none_or(|event| !is_end(&event)));
    }

    async fn map_of_pieces_says_what_is_here_and_who_has_the_rest(world: World) {
        let storage = Troubled::new(Call::Read, 1 + 5, Trouble::Hangs);
        let bytes = content(20 * CHUNK, 1);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let owner = world.builder("hanging", storage).start().await.unwrap();
        let id = owner.share(named("x")).await.unwrap().id;
        let leecher = world.node("leecher").await;
        let waiting = leecher.peer.download(named("nothing"));
        assert_eq!(waiting.piece_map().await, None);
        let download = leecher.peer.download(id);
        let (map, stored) = loop {
            if let Some(map) = download.piece_map().await
                && let Some(stored) = download.verified_chunks().await
                && map.count(PieceState::Stored) > 0
                && map.count(PieceState::Stored) == stored.count()
            {
                break (map, stored);
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        };
        assert_eq!(map.chunks(), 20);
        assert_eq!(map.availability(), 1);
        assert!(map.count(PieceState::UnderWay) > 0, "{map:?}");
        for chunk in (0..20).map(ChunkIndex) {
            let run = map.get(chunk).unwrap();
            assert_eq!(run.state == PieceState::Stored, stored.contains(chunk), "{map:?}");
            assert_eq!(run.copies, 1);
        }
        let stats = download.stats().await;
        assert_eq!(stats.links.len(), 1);
        let link = &stats.links[0];
        assert_eq!(link.peer, Some(owner.id()));
        assert_eq!(link.addr.as_ref(), owner.local_addr());
        assert_eq!((link.chunks, link.share), (Some(20), Some(1.0)));
        if let Net::Memory(_) = world.net {
            assert_eq!(link.remote, link.addr);
        }
        // One whose outcome is certain is answered at once.
        waiting.await.unwrap_err();
    }

    async fn liar_is_named_with_its_reason_and_its_waste_is_counted(world: World) {
        let Net::Memory(network) = &world.net else {
            return;
        };
        let liar = world.node("liar").await;
        let bytes = content(4 * CHUNK, 1);
        let shared = liar.share("x", &bytes).await;
        network.corrupt("liar", 1.0);
        let leecher = world.node("leecher").await;
        let mut events = leecher.peer.events();
        let download = leecher.peer.download(&shared);
        let mut details = download.detailed_events();
        let is_ban = |event: &PeerEvent| matches!(event, PeerEvent::Banned { .. });
        let seen = until(&mut events, is_ban).await;
        let Some(PeerEvent::Banned { id, banned }) = seen.last() else {
            unreachable!()
        };
        assert_eq!((*id, banned.peer.peer), (shared.id, liar.peer.id()));
        assert_eq!(banned.peer.addr.as_ref(), liar.peer.local_addr());
        assert!(matches!(banned.why, BanReason::BadChunk { .. } | BanReason::BadManifest));
        loop {
            match soon(details.next()).await.unwrap() {
                DownloadEvent::Banned(same) => break assert_eq!(same, *banned),
                DownloadEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!(download.stats().await.banned, std::slice::from_ref(banned));
        let good = world.node("good").await;
        good.share("x", &bytes).await;
        soon(download).await.unwrap();
        let stats = leecher.peer.stats();
        assert_eq!(stats.downloaded - stats.waste.total(), bytes.len() as u64);
        if let BanReason::BadChunk { .. } = banned.why {
            assert!(stats.waste.bad > 0 && stats.waste.bad.is_multiple_of(CHUNK as u64));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_a_peer_without_trackers_or_links_end_with_it() {
    let world = World::memory(1).await;
    let peer = Peer::builder(world.transport("alone"), MemoryStorage::new());
    let peer = peer.start().await.unwrap();
    let mut events = peer.events();
    assert_eq!(events.next().now_or_never(), None);
    drop(peer);
    assert_eq!(soon(events.next()).await, None);
}
