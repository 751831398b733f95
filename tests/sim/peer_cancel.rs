//! Futures and handles that are dropped after any number of polls leave no
//! task, no lock and no place behind.

use std::pin::pin;
use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::{Download, MemoryStorage, Peer, ShareSource, StorageError};
use bytes::Bytes;
use futures::poll;
use tokio::time::{sleep, timeout};

use crate::world::{World, alive_tasks, content, named, seed_of, soon, tasks_settle};

/// Polls at most this many times, lets other tasks run in between, and drops the
/// future. Returns its result, if it has ended.
async fn polled<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let std::task::Poll::Ready(done) = poll!(future.as_mut()) {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// An owner of 12 chunks, so that a download takes many steps.
async fn world_with_owner() -> (World, crate::world::Node, Bytes) {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let bytes = content(12 * (16 << 10), 1);
    owner.share("x", &bytes).await;
    (world, owner, bytes)
}

/// A peer with one place for a link, so that a lost place is noticed.
fn narrow() -> PeerConfig {
    let mut config = PeerConfig::default();
    config.max_connections = 1;
    config
}

#[tokio::test(start_paused = true)]
async fn download_dropped_after_any_number_of_polls_leaves_nothing() {
    let (world, _owner, bytes) = world_with_owner().await;
    soon(sleep(Duration::from_secs(1))).await;
    let before = alive_tasks();
    let mut finished = 0;
    for polls in 0..120 {
        let storage = MemoryStorage::new();
        let builder = world.builder("leecher", storage.clone()).config(narrow());
        let peer = builder.start().await.unwrap();
        let done = polled(peer.download(named("x")), polls).await;
        if let Some(done) = &done {
            assert!(done.is_ok(), "{polls} polls: {done:?}");
            finished += 1;
        }
        // The same download succeeds at once, in the same storage.
        let again = timeout(Duration::from_secs(30), peer.download(named("x"))).await;
        let again = again.unwrap_or_else(|_| panic!("hangs after {polls} polls"));
        again.unwrap_or_else(|error| panic!("after {polls} polls: {error}"));
        assert_eq!(storage.bytes(named("x")).unwrap(), bytes);
        peer.shutdown().await;
        drop(peer);
        // The owner may still be sending its farewell.
        sleep(Duration::from_secs(2)).await;
        tasks_settle(before).await;
    }
    assert!(
        (1..119).contains(&finished),
        "no count of polls was in the middle: {finished}"
    );
}

#[tokio::test(start_paused = true)]
async fn share_dropped_after_any_number_of_polls_is_done_or_undone() {
    let (world, _owner, _) = world_with_owner().await;
    let bytes = content(40_000, 2);
    let storage = MemoryStorage::new();
    let peer = world.builder("sharer", storage).start().await.unwrap();
    soon(sleep(Duration::from_secs(1))).await;
    let before = alive_tasks();
    let id = bt_lite::ContentId::of(&bytes);
    let source = || ShareSource::bytes(named("y"), bytes.clone());
    let mut finished = 0;
    for polls in 0..30 {
        let done = polled(peer.share(source()), polls).await;
        if done.is_some() {
            finished += 1;
            assert_eq!(peer.contents().len(), 1);
            assert!(peer.unshare(&id).await);
        }
        // In both cases it can be shared again at once.
        let content = peer.share(source()).await.unwrap();
        assert_eq!(peer.contents(), [content], "{polls} polls");
        let found = world.node("asker").await;
        found
            .peer
            .download(named("y"))
            .await
            .unwrap_or_else(|error| panic!("{polls} polls: {error}"));
        found.peer.shutdown().await;
        assert!(peer.unshare(&id).await, "{polls} polls");
        assert!(peer.contents().is_empty());
        drop(found);
        sleep(Duration::from_secs(2)).await;
        tasks_settle(before).await;
    }
    assert!((1..29).contains(&finished), "{finished}");
}

#[tokio::test(start_paused = true)]
async fn start_dropped_after_any_number_of_polls_leaves_nothing() {
    let (world, _owner, _) = world_with_owner().await;
    soon(sleep(Duration::from_secs(1))).await;
    let before = alive_tasks();
    let mut finished = 0;
    for polls in 0..30 {
        let start = world.builder("starter", MemoryStorage::new()).start();
        let started = polled(start, polls).await;
        finished += usize::from(started.is_some());
        drop(started);
        sleep(Duration::from_secs(30)).await;
        tasks_settle(before).await;
        // The address is free, and the tracker has forgotten the peer.
        assert_eq!(world.tracker.stats().registry.peers, 1, "{polls} polls");
        let peer = world.builder("starter", MemoryStorage::new()).start().await;
        peer.unwrap().shutdown().await;
        sleep(Duration::from_secs(2)).await;
        tasks_settle(before).await;
    }
    assert!((1..29).contains(&finished), "{finished}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_dropped_after_any_number_of_polls_ends_the_peer() {
    let (world, _owner, _) = world_with_owner().await;
    world.network().set_upload_rate("owner", Some(100_000));
    soon(sleep(Duration::from_secs(1))).await;
    let before = alive_tasks();
    for polls in 1..20 {
        let leecher = world.node("leecher").await;
        let download = leecher.peer.download(named("x"));
        sleep(Duration::from_millis(700)).await;
        assert!(download.progress().links > 0);
        polled(leecher.peer.shutdown(), polls).await;
        // The handles still exist.
        sleep(Duration::from_secs(20)).await;
        tasks_settle(before).await;
        assert!(soon(download).await.is_err());
        drop(leecher);
    }
}

#[tokio::test(start_paused = true)]
async fn set_strategy_can_be_dropped_and_can_be_late() {
    let (world, _owner, _) = world_with_owner().await;
    let leecher = world.node("leecher").await;
    let mut download = leecher.peer.download(named("x"));
    for polls in 0..3 {
        polled(download.set_strategy(Default::default()), polls).await;
    }
    (&mut download).await.unwrap();
    soon(download.set_strategy(Default::default())).await;
    let failed: Download = leecher.peer.download(named("nothing"));
    soon(failed.set_strategy(Default::default())).await;
}

#[tokio::test(start_paused = true)]
async fn unshare_dropped_half_way_still_ends_it() {
    let (world, owner, bytes) = world_with_owner().await;
    let id = bt_lite::ContentId::of(&bytes);
    world.network().stall("tracker");
    for _ in 0..5 {
        polled(owner.peer.unshare(&id), 1).await;
        assert!(owner.peer.contents().is_empty());
        sleep(Duration::from_millis(1)).await;
        assert!(owner.peer.contents().is_empty());
        world.network().resume("tracker");
        owner.share("x", &bytes).await;
        assert_eq!(owner.peer.contents().len(), 1);
        let leecher = world.node("leecher").await;
        soon(leecher.peer.download(named("x"))).await.unwrap();
        leecher.peer.shutdown().await;
        world.network().stall("tracker");
    }
}

/// After any sequence of starting, cancelling, sharing and unsharing the same
/// content, the peer works.
#[tokio::test(start_paused = true)]
async fn random_calls_leave_a_peer_that_works() {
    for seed in 0..40 {
        random_calls(seed).await;
    }
}

async fn random_calls(seed: u64) {
    let world = World::memory(seed).await;
    let bytes = content(12 * (16 << 10), 1);
    let id = bt_lite::ContentId::of(&bytes);
    let _owners = world.owners(2, "x", &bytes).await;
    let mut rng = fastrand::Rng::with_seed(seed_of("calls") ^ seed);
    let storage = MemoryStorage::new();
    let peer: Peer = world
        .builder("peer", storage.clone())
        .start()
        .await
        .unwrap();
    let mut downloads = Vec::new();
    for _ in 0..rng.usize(5..40) {
        match rng.u8(..6) {
            0 | 1 => downloads.push(peer.download(named("x"))),
            2 => {
                let source = ShareSource::bytes(named("x"), bytes.clone());
                polled(peer.share(source), rng.usize(..30)).await;
            }
            3 => {
                polled(peer.unshare(&id), rng.usize(..4)).await;
            }
            4 if !downloads.is_empty() => {
                let at = rng.usize(..downloads.len());
                drop(downloads.swap_remove(at));
            }
            _ => {
                for _ in 0..rng.usize(..40) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    drop(downloads);
    let last = soon(peer.download(named("x"))).await;
    assert!(last.is_ok(), "seed {seed}: {last:?}");
    assert_eq!(peer.contents().len(), 1, "seed {seed}");
    let taken = storage.insert(named("x"), bytes.clone());
    let served = world.node("served").await;
    soon(served.peer.download(named("x"))).await.unwrap();
    assert_eq!(served.bytes("x").unwrap(), bytes, "seed {seed}");
    // The content is in the storage, or was shared from memory.
    assert!(matches!(taken, Ok(()) | Err(StorageError::Exists { .. })));
    soon(peer.shutdown()).await;
}
