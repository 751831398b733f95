//! Which events a reader gets, in which order, and what a slow one misses.

use std::time::Duration;

use bt_lite::{
    Content, Download, DownloadError, DownloadEvent, DownloadEvents, PauseOptions, PeerEvent,
    ShareSource,
};
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::sleep;

use crate::world::{Node, World, content, named, soon};

const CHUNK: usize = 16 << 10;

/// How many events wait for a reader, as documented.
const BOUND: usize = 1024;

/// All that there is at this moment.
fn unread<S: Stream + Unpin>(events: &mut S) -> Vec<S::Item> {
    let mut seen = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        seen.push(event);
    }
    seen
}

/// All until the end.
async fn all<S: Stream + Unpin>(events: S) -> Vec<S::Item> {
    soon(events.collect()).await
}

/// How many events a slow reader missed.
fn missed(events: &[DownloadEvent]) -> u64 {
    let missed = events.iter().map(|event| match event {
        DownloadEvent::Missed { events } => *events,
        _ => 0,
    });
    missed.sum()
}

/// An owner with a slow line.
async fn slow_owner(world: &World, len: usize) -> (Node, Content) {
    let owner = world.node("owner").await;
    let shared = owner.share("x", &content(len, 1)).await;
    world.network().set_upload_rate("owner", Some(100_000));
    (owner, shared)
}

async fn found(download: &Download) {
    let mut events = download.events();
    while !matches!(soon(events.next()).await, Some(DownloadEvent::Found(_))) {}
}

/// Pauses and resumes so often, without giving the reader a turn.
async fn pause_often(download: &Download, times: usize) {
    for _ in 0..times {
        download.pause(PauseOptions::new());
        while !download.is_paused() {
            sleep(Duration::from_millis(1)).await;
        }
        download.resume();
        while download.is_paused() {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The pauses among events, as paused or not.
fn pauses(events: &[DownloadEvent]) -> Vec<bool> {
    let pauses = events.iter().filter_map(|event| match event {
        DownloadEvent::Paused => Some(true),
        DownloadEvent::Unpaused => Some(false),
        _ => None,
    });
    pauses.collect()
}

#[tokio::test(start_paused = true)]
async fn reader_within_the_bound_gets_each_pause_of_its_download_and_of_one_it_joined() {
    const TIMES: usize = 20;
    let world = World::memory(1).await;
    let (_owner, shared) = slow_owner(&world, 40 * CHUNK).await;
    let leecher = world.node("leecher").await;
    let first = leecher.peer.download(named("x"));
    found(&first).await;
    let second = leecher.peer.download(shared.id);
    found(&second).await;
    let (of_first, of_second) = (first.events(), second.events());
    pause_often(&first, TIMES).await;
    let mut of_peer = leecher.peer.events();
    soon(first).await.unwrap();
    soon(second).await.unwrap();
    let expected: Vec<_> = [true, false].into_iter().cycle().take(2 * TIMES).collect();
    for events in [of_first, of_second] {
        let seen = all(events).await;
        assert_eq!(pauses(&seen), expected);
        assert_eq!(missed(&seen), 0);
        assert_eq!(seen.last(), Some(&DownloadEvent::Finished(shared.clone())));
    }
    assert!(unread(&mut of_peer).contains(&PeerEvent::Complete { content: shared }));
}

#[tokio::test(start_paused = true)]
async fn same_end_again_is_told_again_within_the_bound_and_once_beyond_it() {
    const TIMES: usize = 3 * BOUND;
    let world = World::memory(1).await;
    let peer = world.node("peer").await.peer;
    let mut events = peer.events();
    let key = named("nothing").into();
    let error = DownloadError::NotFound { key };
    let key = named("nothing").into();
    let failed = PeerEvent::Failed { key, error };
    let fail = async |times| {
        for _ in 0..times {
            peer.download(named("nothing")).await.unwrap_err();
        }
    };
    fail(5).await;
    assert_eq!(unread(&mut events), vec![failed.clone(); 5]);
    let content = peer.share(ShareSource::bytes("x", "x")).await.unwrap();
    assert!(peer.unshare(&content.id).await);
    fail(TIMES).await;
    let seen = unread(&mut events);
    // That the sharing ended was never dropped; its start was, as it ends nothing.
    let ended = PeerEvent::ShareEnded { content };
    assert_eq!(seen[..2], [PeerEvent::Missed { events: 1 }, ended]);
    let told = seen.iter().filter(|event| **event == failed).count();
    assert_eq!(told, BOUND - 1);
    let missed = seen[2..].iter().map(|event| match event {
        PeerEvent::Missed { events } => *events as usize,
        _ => 0,
    });
    assert_eq!(missed.sum::<usize>(), TIMES - told);
    assert_eq!(seen.last(), Some(&failed));
}

#[tokio::test(start_paused = true)]
async fn slow_reader_of_a_long_download_misses_chunks_and_nothing_else() {
    /// As many as a content of this length has.
    const CHUNKS: usize = BOUND;
    let world = World::memory(1).await;
    let bytes = content(CHUNKS * CHUNK, 1);
    let owner = world.node("owner").await;
    let shared = owner.share("x", &bytes).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    let (mut read, unread) = (download.detailed_events(), download.detailed_events());
    let reads = async {
        let mut seen = Vec::new();
        while let Some(event) = read.next().await {
            seen.push(event);
        }
        seen
    };
    let (outcome, fast) = soon(async { futures::join!(download, reads) }).await;
    outcome.unwrap();
    let slow = all(unread).await;
    let chunks = |events: &[DownloadEvent]| {
        let chunk = |event: &&DownloadEvent| matches!(event, DownloadEvent::ChunkVerified { .. });
        events.iter().filter(chunk).count()
    };
    assert_eq!((chunks(&fast), missed(&fast)), (CHUNKS, 0));
    assert!(chunks(&slow) < BOUND && missed(&slow) > 0);
    assert!(chunks(&slow) as u64 + missed(&slow) >= CHUNKS as u64);
    assert!(slow.len() <= 2 * BOUND);
    // What is not frequent comes in the same order.
    let rare = |events: Vec<DownloadEvent>| {
        let rare = events.into_iter().filter(|event| {
            !matches!(
                event,
                DownloadEvent::ChunkVerified { .. }
                    | DownloadEvent::Progress(_)
                    | DownloadEvent::Missed { .. }
            )
        });
        rare.collect::<Vec<_>>()
    };
    let (fast, slow) = (rare(fast), rare(slow));
    assert_eq!(fast, slow);
    assert_eq!(slow.last(), Some(&DownloadEvent::Finished(shared)));
}

#[tokio::test(start_paused = true)]
async fn reader_that_begins_after_the_end_gets_the_end() {
    let world = World::memory(1).await;
    let (_owner, shared) = slow_owner(&world, 4 * CHUNK).await;
    let leecher = world.node("leecher").await;
    let last = async |events: DownloadEvents| all(events).await.pop();

    let mut complete = leecher.peer.download(named("x"));
    soon(&mut complete).await.unwrap();
    let mut failed = leecher.peer.download(named("nothing"));
    let error = soon(&mut failed).await.unwrap_err();
    let mut cancelled = leecher.peer.download(named("y"));
    cancelled.cancel();
    soon(&mut cancelled).await.unwrap_err();
    for _ in 0..2 {
        for events in [complete.events(), complete.detailed_events()] {
            assert_eq!(
                last(events).await,
                Some(DownloadEvent::Finished(shared.clone()))
            );
        }
        let expected = DownloadEvent::Failed(error.clone());
        assert_eq!(last(failed.detailed_events()).await, Some(expected));
        let expected = DownloadEvent::Failed(DownloadError::Cancelled);
        assert_eq!(last(cancelled.events()).await, Some(expected));
        // It is the same when the peer has ended.
        leecher.peer.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn handle_that_left_hears_nothing_of_those_that_stay() {
    let world = World::memory(1).await;
    let (_owner, shared) = slow_owner(&world, 20 * CHUNK).await;
    let leecher = world.node("leecher").await;
    let stays = leecher.peer.download(named("x"));
    found(&stays).await;
    let leaves = leecher.peer.get(&shared.id).unwrap();
    let mut early = leaves.events();
    unread(&mut early);
    leaves.cancel();
    let cancelled = DownloadEvent::Failed(DownloadError::Cancelled);
    assert_eq!(all(early).await, [cancelled]);
    soon(stays).await.unwrap();
}
