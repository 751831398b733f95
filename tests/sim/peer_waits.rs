//! Downloads that begin while no tracker answers: they say so, and begin when one does.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::{
    Advice, ContentId, Download, DownloadError, DownloadEvent, DownloadEvents, DownloadOptions,
    MemoryStorage, PauseOptions, Peer, StallReason, TrackerError,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{Node, World, bind_tracker, content, named, soon};

const LEN: usize = 3 * (16 << 10);

const MINUTES: Duration = Duration::from_secs(600);

/// The only tracker does not answer.
const AWAY: DownloadEvent = DownloadEvent::Stalled(StallReason::NoTracker { trackers: 1 });

async fn next(events: &mut DownloadEvents) -> DownloadEvent {
    soon(events.next()).await.expect("the download goes on")
}

/// A world whose tracker is away, and an owner that knew it before.
async fn world() -> (World, Node, Bytes) {
    let world = World::memory(1).await;
    let bytes = content(LEN, 1);
    let owner = world.node("owner").await;
    owner.share("x", &bytes).await;
    world.tracker.shutdown().await;
    world.network().refuse("tracker", true);
    (world, owner, bytes)
}

async fn leecher(world: &World, config: PeerConfig) -> Node {
    let storage = MemoryStorage::new();
    let builder = world.builder("leecher", storage.clone()).config(config);
    let peer = builder.trackers_optional().start().await.unwrap();
    Node { peer, storage }
}

/// A download that waits for the tracker.
async fn waits(leecher: &Node) -> (Download, DownloadEvents) {
    let download = leecher.peer.download(named("x"));
    let mut events = download.events();
    assert_eq!(next(&mut events).await, AWAY);
    let reason = StallReason::NoTracker { trackers: 1 };
    assert_eq!(download.stall(), Some(reason));
    (download, events)
}

#[tokio::test(start_paused = true)]
async fn download_waits_for_a_tracker_for_as_long_as_its_handle_is_held() {
    for silent in [false, true] {
        let (mut world, _owner, bytes) = world().await;
        if silent {
            world.network().refuse("tracker", false);
            world.tracker = bind_tracker(world.network(), 2).await;
            world.network().cut("owner", "tracker");
            world.network().stall("tracker");
        }
        let leecher = leecher(&world, PeerConfig::default()).await;
        let begun = Instant::now();
        let (mut download, mut events) = waits(&leecher).await;
        assert!(begun.elapsed() <= Duration::from_secs(20), "{silent}");
        let waited = timeout(MINUTES, &mut download).await;
        assert!(waited.is_err(), "{waited:?}");
        // It says so once.
        let more = timeout(Duration::ZERO, events.next()).await;
        assert!(more.is_err(), "{more:?}");
        match silent {
            true => world.network().resume("tracker"),
            false => {
                world.network().refuse("tracker", false);
                world.tracker = bind_tracker(world.network(), 3).await;
            }
        }
        let back = Instant::now();
        // The tracker has started again: it learns of the owner a moment later, and may
        // know nobody until then.
        loop {
            match next(&mut events).await {
                DownloadEvent::Stalled(StallReason::NoOwners) | DownloadEvent::Found(_) => {}
                // It may be over before anybody looks.
                DownloadEvent::Resumed | DownloadEvent::Progress(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(download.stall(), None);
        assert!(back.elapsed() < Duration::from_secs(40), "{silent}");
        soon(download).await.unwrap();
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn download_begins_as_soon_as_the_tracker_is_reached() {
    let (mut world, owner, _) = world().await;
    let leecher = leecher(&world, PeerConfig::default()).await;
    let (download, _) = waits(&leecher).await;
    world.network().refuse("tracker", false);
    world.tracker = bind_tracker(world.network(), 2).await;
    let id = owner.peer.contents()[0].id;
    // Whichever of the two comes back last.
    let mut reached = None;
    let mut download = download;
    let both = async {
        while world.tracker.stats().registry.peers < 2 {
            sleep(Duration::from_millis(1)).await;
        }
        reached = Some(Instant::now());
    };
    let (_, done) = futures::join!(both, soon(&mut download));
    assert_eq!(done.unwrap().id, id);
    let waited = reached.map_or(Duration::ZERO, |reached| reached.elapsed());
    assert!(waited < Duration::from_millis(2100), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn tracker_that_comes_up_and_knows_nothing_ends_the_wait() {
    let (mut world, owner, _) = world().await;
    let leecher = leecher(&world, PeerConfig::default()).await;
    let (download, mut events) = waits(&leecher).await;
    sleep(MINUTES).await;
    owner.peer.shutdown().await;
    world.network().refuse("tracker", false);
    world.tracker = bind_tracker(world.network(), 2).await;
    let back = Instant::now();
    // First its owners have the time to come back.
    let event = next(&mut events).await;
    assert_eq!(event, DownloadEvent::Stalled(StallReason::NoOwners));
    let error = soon(download).await.unwrap_err();
    let key = named("x").into();
    assert_eq!(error, DownloadError::NotFound { key });
    let waited = back.elapsed();
    assert!(waited < Duration::from_secs(45), "{waited:?}");
    // Now that it answers, it is believed.
    let begun = Instant::now();
    let error = soon(leecher.peer.download(named("y"))).await.unwrap_err();
    assert!(matches!(error, DownloadError::NotFound { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn search_goes_on_after_a_pause_as_it_was() {
    // The tracker returns while the download is paused, and knows nobody at first; or it is
    // paused meanwhile.
    for paused_before in [true, false] {
        let (mut world, owner, _) = world().await;
        let leecher = leecher(&world, PeerConfig::default()).await;
        let (download, mut events) = waits(&leecher).await;
        world.network().partition(&["owner"], &["tracker"]);
        let pause = async |events: &mut DownloadEvents| {
            download.pause(PauseOptions::new());
            assert_eq!(next(events).await, DownloadEvent::Paused);
        };
        if paused_before {
            pause(&mut events).await;
        }
        world.network().refuse("tracker", false);
        world.tracker = bind_tracker(world.network(), 2).await;
        if !paused_before {
            let event = next(&mut events).await;
            assert_eq!(event, DownloadEvent::Stalled(StallReason::NoOwners));
            pause(&mut events).await;
        }
        while world.tracker.stats().registry.peers == 0 {
            sleep(Duration::from_secs(1)).await;
        }
        download.resume();
        assert_eq!(next(&mut events).await, DownloadEvent::Unpaused);
        let event = next(&mut events).await;
        assert_eq!(event, DownloadEvent::Stalled(StallReason::NoOwners));
        world.network().heal();
        soon(download).await.unwrap();
        drop(owner);
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_neither_count_as_patience_nor_renew_it() {
    let (world, _owner, _) = world().await;
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(60));
    let leecher = leecher(&world, config).await;
    let mut active = Duration::ZERO;
    let (download, mut events) = waits(&leecher).await;
    for _ in 0..3 {
        let begun = Instant::now();
        sleep(Duration::from_secs(15)).await;
        download.pause(PauseOptions::new());
        // It says again that the tracker is away.
        while next(&mut events).await != DownloadEvent::Paused {}
        active += begun.elapsed();
        sleep(MINUTES).await;
        download.resume();
        assert_eq!(next(&mut events).await, DownloadEvent::Unpaused);
    }
    let begun = Instant::now();
    let error = soon(download).await.unwrap_err();
    assert!(matches!(error, DownloadError::NoTracker { .. }), "{error}");
    active += begun.elapsed();
    let expected = Duration::from_secs(60);
    assert!(
        active.abs_diff(expected) < Duration::from_secs(1),
        "{active:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn tracker_that_starts_and_falls_again_is_waited_for_anew() {
    let (mut world, owner, _) = world().await;
    let leecher = leecher(&world, PeerConfig::default()).await;
    let (download, mut events) = waits(&leecher).await;
    // It knows nobody while the owner cannot reach it, and then it is gone.
    world.network().partition(&["owner"], &["tracker"]);
    world.network().refuse("tracker", false);
    world.tracker = bind_tracker(world.network(), 2).await;
    let event = next(&mut events).await;
    assert_eq!(event, DownloadEvent::Stalled(StallReason::NoOwners));
    world.tracker.shutdown().await;
    world.network().refuse("tracker", true);
    assert_eq!(next(&mut events).await, AWAY);
    sleep(MINUTES).await;
    world.network().heal();
    world.network().refuse("tracker", false);
    world.tracker = bind_tracker(world.network(), 3).await;
    soon(download).await.unwrap();
    drop(owner);
}

#[tokio::test(start_paused = true)]
async fn waiting_download_is_cancelled_dropped_and_shut_down_at_once() {
    let (world, _owner, _) = world().await;
    let leecher = leecher(&world, PeerConfig::default()).await;
    let (download, _) = waits(&leecher).await;
    let begun = Instant::now();
    download.cancel();
    assert_eq!(soon(download).await, Err(DownloadError::Cancelled));
    let (download, mut events) = waits(&leecher).await;
    drop(download);
    let last = DownloadEvent::Failed(DownloadError::Cancelled);
    assert_eq!(next(&mut events).await, last);
    let stats = leecher.peer.stats();
    assert_eq!((stats.active_downloads, stats.queued_downloads), (0, 0));

    let (download, _) = waits(&leecher).await;
    soon(leecher.peer.shutdown()).await;
    assert_eq!(soon(download).await, Err(DownloadError::ShutDown));
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn waiting_download_holds_no_place_of_the_active_ones() {
    let (mut world, owner, bytes) = world().await;
    let mut config = PeerConfig::default();
    config.max_downloads = 1;
    let leecher = leecher(&world, config).await;
    let (download, _) = waits(&leecher).await;
    let stats = leecher.peer.stats();
    assert_eq!((stats.active_downloads, stats.queued_downloads), (0, 1));
    assert_eq!(download.position(), None);
    // Another one needs no tracker.
    let options = DownloadOptions::new().owner(owner.addr()).name(named("y"));
    let id = ContentId::of(&bytes);
    soon(leecher.peer.download_with(id, options)).await.unwrap();
    world.network().refuse("tracker", false);
    world.tracker = bind_tracker(world.network(), 2).await;
    soon(download).await.unwrap();
    let stats = leecher.peer.stats();
    assert_eq!((stats.active_downloads, stats.queued_downloads), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn patience_ends_the_wait_with_the_last_error_of_a_tracker() {
    let (world, _owner, _) = world().await;
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(60));
    let leecher = leecher(&world, config).await;
    let begun = Instant::now();
    let (download, _) = waits(&leecher).await;
    let error = soon(download).await.unwrap_err();
    let DownloadError::NoTracker {
        trackers: 1,
        source,
    } = &error
    else {
        panic!("{error}");
    };
    let unreachable = matches!(source, TrackerError::Unreachable { .. });
    assert!(unreachable, "{source}");
    assert_eq!(error.advice(), Advice::Retry);
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn answer_of_one_of_two_trackers_is_enough() {
    let (world, owner, bytes) = world().await;
    let other = bt_lite::Tracker::builder(world.network().endpoint("other"));
    let other = other.bind("memory:other").await.unwrap();
    let peer = |name: &str| {
        let storage = MemoryStorage::new();
        let builder = Peer::builder(world.transport(name), storage.clone());
        let builder = builder
            .tracker(world.tracker.local_addr())
            .tracker(other.local_addr())
            .listen(world.at(name));
        (builder.seed(3), storage)
    };
    owner.peer.shutdown().await;
    let (builder, storage) = peer("leecher");
    let leecher = builder.start().await.unwrap();
    let leecher = Node {
        peer: leecher,
        storage,
    };
    // One says that it knows nothing, and that is an answer.
    let begun = Instant::now();
    let error = soon(leecher.peer.download(named("x"))).await.unwrap_err();
    assert!(matches!(error, DownloadError::NotFound { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(21));

    // Both are away, and one comes back.
    world.network().cut("leecher", "other");
    world.network().refuse("other", true);
    let download = leecher.peer.download(named("x"));
    let mut events = download.events();
    let reason = StallReason::NoTracker { trackers: 2 };
    assert_eq!(next(&mut events).await, DownloadEvent::Stalled(reason));
    sleep(MINUTES).await;
    world.network().refuse("other", false);
    let (builder, storage) = peer("second");
    let second = builder.start().await.unwrap();
    let second = Node {
        peer: second,
        storage,
    };
    second.share("x", &bytes).await;
    soon(download).await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), bytes);
}
