//! Downloads that are paused and resumed, in virtual time.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::{
    Content, ContentLimits, ContentState, Download, DownloadError, DownloadEvent, DownloadEvents,
    DownloadKey, DownloadOptions, PauseOptions, Peer, PeerEvent, Priority,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::time::sleep;

use crate::world::{Node, World, alive_tasks, content, named, soon, tasks_settle};

const CHUNK: usize = 16 << 10;
const LEN: usize = 60 * CHUNK;

/// Longer than anything is waited for.
const HOURS: Duration = Duration::from_secs(3 * 3600);

const SERVING: PauseOptions = PauseOptions::new();
const RESTING: PauseOptions = PauseOptions::new().serve(false);

/// An owner with a slow line.
async fn slow_owner(world: &World) -> (Node, Bytes, Content) {
    let bytes = content(LEN, 1);
    let owner = world.node("owner").await;
    let shared = owner.share("x", &bytes).await;
    world.network().set_upload_rate("owner", Some(100_000));
    (owner, bytes, shared)
}

/// A peer that gives up soon.
async fn impatient(world: &World, name: &str, max_downloads: usize) -> Node {
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(60));
    config.max_downloads = max_downloads;
    world.node_with(name, config).await
}

/// Waits for an event.
async fn until(events: &mut DownloadEvents, is_it: impl Fn(&DownloadEvent) -> bool) {
    loop {
        let event = soon(events.next()).await.expect("the download goes on");
        if is_it(&event) {
            return;
        }
    }
}

/// Waits until something of it is stored.
async fn begun(events: &mut DownloadEvents) {
    let has_some = |event: &DownloadEvent| matches!(event, DownloadEvent::Progress(progress) if progress.verified_chunks >= 10);
    until(events, has_some).await;
}

async fn paused(events: &mut DownloadEvents) {
    until(events, |event| *event == DownloadEvent::Paused).await;
}

async fn unpaused(events: &mut DownloadEvents) {
    until(events, |event| *event == DownloadEvent::Unpaused).await;
}

/// What happens to the only content of a peer.
fn state(peer: &Peer) -> ContentState {
    let [listed] = &peer.list()[..] else {
        panic!("{:?}", peer.list());
    };
    listed.state
}

#[tokio::test(start_paused = true)]
async fn paused_download_waits_forever_and_goes_on_where_it_was() {
    for options in [SERVING, RESTING] {
        let world = World::memory(1).await;
        let (_owner, bytes, _) = slow_owner(&world).await;
        let leecher = impatient(&world, "leecher", 64).await;
        let mut download = leecher.peer.download(named("x"));
        let mut events = download.events();
        begun(&mut events).await;
        download.pause(options);
        paused(&mut events).await;
        assert!(download.is_paused());
        assert_eq!(state(&leecher.peer), ContentState::Paused);
        // What was on its way arrives.
        sleep(Duration::from_secs(5)).await;
        let before = download.progress();
        assert_eq!(download.durable_bytes(), before.verified_bytes);
        assert!(before.verified_chunks < 40, "{before:?}");
        sleep(HOURS).await;
        let after = download.progress();
        assert_eq!(after.downloaded, before.downloaded);
        assert_eq!((after.rate, after.owners, after.links), (0.0, 0, 0));
        assert_eq!(download.stall(), None);
        assert!((&mut download).now_or_never().is_none());
        assert_eq!(leecher.peer.stats().active_downloads, 0);
        download.resume();
        unpaused(&mut events).await;
        soon(&mut download).await.unwrap();
        assert_eq!(leecher.bytes("x"), Some(bytes));
        let downloaded = download.progress().downloaded;
        // No more is fetched twice than was on its way.
        assert!(downloaded < (LEN + 20 * CHUNK) as u64, "{downloaded}");
    }
}

#[tokio::test(start_paused = true)]
async fn pausing_again_and_resuming_what_is_not_paused_change_nothing() {
    let world = World::memory(1).await;
    let (_owner, _, _) = slow_owner(&world).await;
    let leecher = impatient(&world, "leecher", 64).await;
    let mut download = leecher.peer.download(named("x"));
    let all = download.events();
    let mut events = download.events();
    download.resume();
    begun(&mut events).await;
    download.resume();
    sleep(Duration::from_secs(1)).await;
    download.pause(SERVING);
    paused(&mut events).await;
    download.pause(SERVING);
    // Others are not served any more.
    download.pause(RESTING);
    sleep(HOURS).await;
    download.resume();
    download.resume();
    soon(&mut download).await.unwrap();
    download.pause(SERVING);
    assert!(!download.is_paused());
    let all: Vec<_> = all.collect().await;
    let count = |is: &DownloadEvent| all.iter().filter(|event| *event == is).count();
    assert_eq!(count(&DownloadEvent::Paused), 1, "{all:?}");
    assert_eq!(count(&DownloadEvent::Unpaused), 1, "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn download_is_paused_before_the_manifest_is_known() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world).await;
    for at in ["tracker", "owner"] {
        let leecher = impatient(&world, &format!("leecher-{at}"), 64).await;
        world.network().stall(at);
        let leecher = leecher.peer;
        let mut download = leecher.download(shared.id);
        let mut events = download.events();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(state(&leecher), ContentState::Looking);
        download.pause(SERVING);
        paused(&mut events).await;
        assert_eq!(state(&leecher), ContentState::Paused);
        assert_eq!(leecher.stats().active_downloads, 0);
        world.network().resume(at);
        sleep(HOURS).await;
        assert_eq!(download.progress().downloaded, 0);
        download.resume();
        unpaused(&mut events).await;
        soon(&mut download).await.unwrap();
        leecher.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn paused_download_leaves_its_place_to_others_and_waits_for_one_when_it_resumes() {
    let world = World::memory(1).await;
    let (owner, _, _) = slow_owner(&world).await;
    for (name, seed) in [("y", 2), ("z", 3)] {
        owner.share(name, &content(LEN, seed)).await;
    }
    let leecher = impatient(&world, "leecher", 1).await;
    let start = |name: &str| {
        let download = leecher.peer.download(named(name));
        let events = download.events();
        (download, events)
    };
    let (mut x, mut of_x) = start("x");
    let (mut y, mut of_y) = start("y");
    let (mut z, mut of_z) = start("z");
    begun(&mut of_x).await;
    assert_eq!(
        (x.position(), y.position(), z.position()),
        (None, Some(0), Some(1))
    );
    // One that waits is passed over while it is paused.
    y.pause(SERVING);
    paused(&mut of_y).await;
    assert_eq!((y.position(), z.position()), (None, Some(0)));
    x.pause(SERVING);
    paused(&mut of_x).await;
    begun(&mut of_z).await;
    assert_eq!(leecher.peer.stats().active_downloads, 1);
    // It keeps its place in the queue.
    y.resume();
    unpaused(&mut of_y).await;
    until(&mut of_y, |event| *event == DownloadEvent::Queued).await;
    assert_eq!(y.position(), Some(0));
    x.resume();
    until(&mut of_x, |event| *event == DownloadEvent::Queued).await;
    assert_eq!((x.position(), y.position()), (Some(0), Some(1)));
    let progress = x.progress();
    let states = leecher.peer.list().into_iter().map(|listed| listed.state);
    let queued = |position| ContentState::Queued { position };
    let states: Vec<_> = states.collect();
    assert_eq!(states, [queued(0), queued(1), ContentState::Downloading]);
    soon(&mut z).await.unwrap();
    assert_eq!(x.progress().verified_chunks, progress.verified_chunks);
    soon(&mut x).await.unwrap();
    assert!(x.progress().verified_chunks > progress.verified_chunks);
    assert!(y.progress().verified_chunks < 60);
    soon(&mut y).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn paused_download_serves_what_it_has_only_if_it_is_told_to() {
    for options in [SERVING, RESTING] {
        let world = World::memory(1).await;
        let (owner, _, shared) = slow_owner(&world).await;
        let leecher = impatient(&world, "leecher", 64).await;
        let download = leecher.peer.download(named("x"));
        let mut events = download.events();
        begun(&mut events).await;
        download.pause(options);
        paused(&mut events).await;
        owner.peer.shutdown().await;
        sleep(Duration::from_secs(60)).await;
        world.listed(&shared, usize::from(options.serve)).await;
        let has = download.progress().verified_chunks;
        let other = world.node("other").await;
        let known = DownloadOptions::new().owner(leecher.addr());
        let theirs = other.peer.download_with(shared.id, known);
        sleep(Duration::from_secs(60)).await;
        let got = theirs.progress().verified_chunks;
        assert_eq!(got, if options.serve { has } else { 0 });
        // Each may be changed into the other.
        download.pause(PauseOptions::new().serve(!options.serve));
        sleep(Duration::from_secs(1)).await;
        world.listed(&shared, 1 + usize::from(!options.serve)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn owners_leave_and_come_while_a_download_is_paused() {
    let world = World::memory(1).await;
    let (owner, bytes, _) = slow_owner(&world).await;
    let leecher = impatient(&world, "leecher", 64).await;
    let mut download = leecher.peer.download(named("x"));
    let mut events = download.events();
    begun(&mut events).await;
    download.pause(SERVING);
    paused(&mut events).await;
    owner.peer.shutdown().await;
    sleep(HOURS).await;
    // Nobody has it: it stalls as any other does, from then on.
    download.resume();
    until(&mut events, |event| {
        matches!(event, DownloadEvent::Stalled(_))
    })
    .await;
    // A pause ends that.
    download.pause(SERVING);
    paused(&mut events).await;
    assert_eq!(download.stall(), None);
    sleep(HOURS).await;
    let other = world.node("other").await;
    other.share("x", &bytes).await;
    download.resume();
    soon(&mut download).await.unwrap();
    let events: Vec<_> = events.collect().await;
    assert!(!events.contains(&DownloadEvent::Resumed), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn all_handles_of_a_download_share_its_pause() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world).await;
    let leecher = impatient(&world, "leecher", 64).await;
    let mut first = leecher.peer.download(named("x"));
    let mut of_first = first.events();
    begun(&mut of_first).await;
    let mut second = leecher.peer.download(shared.id);
    let mut of_second = second.events();
    begun(&mut of_second).await;
    let third = leecher.peer.get(&shared.id).unwrap();
    second.pause(SERVING);
    paused(&mut of_first).await;
    paused(&mut of_second).await;
    assert!(first.is_paused() && third.is_paused());
    assert_eq!(leecher.peer.list().len(), 1);
    third.resume();
    unpaused(&mut of_second).await;
    first.pause(SERVING);
    paused(&mut of_second).await;
    // One that joins while it is paused is paused as well, and whoever asks for that.
    let fourth = leecher.peer.download(shared.id);
    paused(&mut fourth.events()).await;
    first.resume();
    unpaused(&mut of_second).await;
    let options = DownloadOptions::new().paused(SERVING);
    let fifth = leecher.peer.download_with(named("x"), options);
    // It joins, and pauses what it joins.
    paused(&mut of_second).await;
    sleep(HOURS).await;
    assert!(fifth.is_paused() && first.is_paused());
    assert_eq!(leecher.peer.list().len(), 1);
    drop(fifth);
    third.resume();
    soon(&mut first).await.unwrap();
    soon(&mut second).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn paused_download_is_cancelled_dropped_and_shut_down_like_any_other() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world).await;
    sleep(Duration::from_secs(1)).await;
    let tasks = alive_tasks();
    for serve in [true, false] {
        let options = PauseOptions::new().serve(serve);
        let leecher = impatient(&world, "leecher", 64).await;
        let pausing = async |download: &Download| {
            let mut events = download.events();
            begun(&mut events).await;
            download.pause(options);
            paused(&mut events).await;
        };
        let mut download = leecher.peer.download(named("x"));
        let events = download.events();
        pausing(&download).await;
        download.cancel();
        assert_eq!(soon(&mut download).await, Err(DownloadError::Cancelled));
        let events: Vec<_> = events.collect().await;
        let [.., before, last] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(*before, DownloadEvent::Paused, "{events:?}");
        assert_eq!(*last, DownloadEvent::Failed(DownloadError::Cancelled));
        assert!(leecher.peer.list().is_empty());
        // The next one goes on from there, and is not paused.
        let download = leecher.peer.download(named("x"));
        pausing(&download).await;
        drop(download);
        sleep(Duration::from_secs(1)).await;
        assert!(leecher.peer.list().is_empty());
        assert!(leecher.peer.get(&shared.id).is_none());
        let mut download = leecher.peer.download(named("x"));
        pausing(&download).await;
        soon(leecher.peer.shutdown()).await;
        assert_eq!(soon(&mut download).await, Err(DownloadError::ShutDown));
        drop((download, leecher));
        sleep(Duration::from_secs(5)).await;
        tasks_settle(tasks).await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_downloads_are_paused_and_resumed_at_once() {
    let world = World::memory(1).await;
    let (owner, _, _) = slow_owner(&world).await;
    owner.share("y", &content(LEN, 2)).await;
    let leecher = impatient(&world, "leecher", 1).await;
    let (mut x, mut y) = (
        leecher.peer.download(named("x")),
        leecher.peer.download(named("y")),
    );
    begun(&mut x.events()).await;
    leecher.peer.pause_all(SERVING);
    paused(&mut x.events()).await;
    paused(&mut y.events()).await;
    sleep(HOURS).await;
    let listed = leecher.peer.list();
    assert!(listed.iter().all(|is| is.state == ContentState::Paused));
    assert_eq!(y.progress().downloaded, 0);
    assert_eq!(leecher.peer.stats().queued_downloads, 0);
    leecher.peer.resume_all();
    soon(&mut x).await.unwrap();
    soon(&mut y).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn download_that_begins_paused_waits_to_be_resumed() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world).await;
    let leecher = impatient(&world, "leecher", 1).await;
    let options = DownloadOptions::new().paused(RESTING);
    let mut download = leecher.peer.download_with(shared.id, options);
    let asked = world.tracker.stats().registry.requests.need;
    sleep(HOURS).await;
    assert_eq!(world.tracker.stats().registry.requests.need, asked);
    let listed = leecher.peer.list();
    assert_eq!(
        (listed[0].id, listed[0].state),
        (Some(shared.id), ContentState::Paused)
    );
    leecher.peer.get(&shared.id).unwrap().resume();
    soon(&mut download).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn higher_priority_begins_first_and_takes_nobodys_place() {
    let world = World::memory(1).await;
    let (owner, _, _) = slow_owner(&world).await;
    let mut downloads = Vec::new();
    let priorities = [
        ("low", Priority::Low),
        ("first", Priority::Normal),
        ("second", Priority::Normal),
        ("high", Priority::High),
        ("raised", Priority::Low),
    ];
    for (seed, (name, _)) in priorities.into_iter().enumerate() {
        owner
            .share(name, &content(2 * CHUNK, 10 + seed as u64))
            .await;
    }
    let leecher = impatient(&world, "leecher", 1).await;
    for (name, priority) in priorities {
        let options = DownloadOptions::new().priority(priority);
        let download = leecher.peer.download_with(named(name), options);
        assert_eq!(download.priority(), priority);
        if name == "raised" {
            assert_eq!(download.position(), Some(3));
            download.set_priority(Priority::High);
            assert_eq!(download.position(), Some(1));
        }
        downloads.push(async move { (download.await.unwrap().name, name) });
        if name == "low" {
            // It is active, and stays.
            sleep(Duration::from_millis(1)).await;
        }
    }
    let mut ended = futures::stream::FuturesUnordered::from_iter(downloads);
    let mut order = Vec::new();
    while let Some((_, name)) = soon(ended.next()).await {
        order.push(name);
    }
    assert_eq!(order, ["low", "high", "raised", "first", "second"]);
}

/// Whoever waits for its turn and ends meanwhile stands in nobody's way, and is not counted.
#[tokio::test(start_paused = true)]
async fn download_that_ends_while_it_waits_leaves_the_line() {
    let world = World::memory(1).await;
    let (owner, _, _) = slow_owner(&world).await;
    for (name, seed) in [("y", 2), ("z", 3)] {
        owner.share(name, &content(LEN, seed)).await;
    }
    let leecher = impatient(&world, "leecher", 1).await;
    let mut x = leecher.peer.download(named("x"));
    let mut of_x = x.events();
    begun(&mut of_x).await;
    x.pause(SERVING);
    paused(&mut of_x).await;
    let y = leecher.peer.download(named("y"));
    begun(&mut y.events()).await;
    x.resume();
    until(&mut of_x, |event| *event == DownloadEvent::Queued).await;
    assert_eq!(leecher.peer.stats().queued_downloads, 1);
    x.cancel();
    assert_eq!(soon(&mut x).await, Err(DownloadError::Cancelled));
    assert_eq!(leecher.peer.stats().queued_downloads, 0);
    let z = leecher.peer.download(named("z"));
    assert_eq!(z.position(), Some(0));
    drop((y, z));
}

/// The limits of a download count, also if it turns out only later that another one of the
/// same content runs, and whatever that was set to before.
#[tokio::test(start_paused = true)]
async fn limits_of_a_download_that_meets_another_one_replace_those_of_the_content() {
    for by_name in [false, true] {
        for limited in [false, true] {
            let world = World::memory(1).await;
            let (_owner, _, shared) = slow_owner(&world).await;
            let leecher = impatient(&world, "leecher", 64).await;
            let keys = [DownloadKey::from(named("x")), DownloadKey::from(shared.id)];
            let [first, second] = match by_name {
                true => keys,
                false => {
                    let [name, id] = keys;
                    [id, name]
                }
            };
            let first = leecher.peer.download(first);
            begun(&mut first.events()).await;
            if limited {
                let before = ContentLimits::default().download(50_000);
                first.set_limits(before).await.unwrap();
            }
            let limits = ContentLimits::default().download(10_000);
            let options = DownloadOptions::new().name("another").limits(limits);
            let second = leecher.peer.download_with(second, options);
            sleep(Duration::from_secs(2)).await;
            assert_eq!(leecher.peer.list().len(), 1);
            assert_eq!(leecher.peer.content_limits(shared.id), limits);
            // What is set later still counts.
            first.add_owner("memory:nowhere").await.unwrap();
            sleep(Duration::from_secs(2)).await;
            assert_eq!(leecher.peer.content_limits(shared.id), limits);
            drop((first, second));
        }
    }
}

/// One pause is one event, whoever has asked for it.
#[tokio::test(start_paused = true)]
async fn pause_of_a_download_that_joins_another_one_is_told_once() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world).await;
    let leecher = impatient(&world, "leecher", 64).await;
    let first = leecher.peer.download(shared.id);
    begun(&mut first.events()).await;
    let mut events = leecher.peer.events();
    let paused = DownloadOptions::new().paused(SERVING);
    let second = leecher.peer.download_with(shared.id, paused);
    sleep(Duration::from_secs(5)).await;
    assert!(first.is_paused() && second.is_paused());
    let mut pauses = 0;
    while let Some(Some(event)) = events.next().now_or_never() {
        pauses += u32::from(matches!(event, PeerEvent::Paused { .. }));
    }
    assert_eq!(pauses, 1);
}

/// A download that waits until one into memory has ended holds no place meanwhile, which that
/// one may need.
#[tokio::test(start_paused = true)]
async fn download_that_waits_for_another_one_holds_up_nobody() {
    let world = World::memory(1).await;
    let (owner, bytes, _) = slow_owner(&world).await;
    let other = content(LEN, 2);
    owner.share("y", &other).await;
    let leecher = impatient(&world, "leecher", 1).await;
    let into_memory = {
        let peer = leecher.peer.clone();
        tokio::spawn(async move { peer.download_bytes(named("x"), LEN as u64).await })
    };
    sleep(Duration::from_secs(2)).await;
    leecher.peer.pause_all(SERVING);
    sleep(Duration::from_secs(5)).await;
    let waits = leecher.peer.download(named("x"));
    sleep(Duration::from_secs(5)).await;
    soon(leecher.peer.download(named("y"))).await.unwrap();
    assert!(!into_memory.is_finished());
    leecher.peer.resume_all();
    assert_eq!(soon(into_memory).await.unwrap().unwrap(), bytes);
    soon(waits).await.unwrap();
    assert_eq!(leecher.bytes("x"), Some(bytes));
}
