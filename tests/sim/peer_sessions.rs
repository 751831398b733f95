//! Many contents between two peers: one connection, contents that sleep, and
//! downloads that wait for their turn.

use std::time::Duration;

use bt_lite::peer::{DownloadEvent, PeerConfig};
use bt_lite::protocol::limits::HANDSHAKE_TIMEOUT;
use bt_lite::protocol::{ChannelId, PeerMessage, RefuseReason};
use bt_lite::transport::memory::TraceKind;
use bt_lite::{ContentId, DownloadError, StallReason};
use bytes::Bytes;
use futures::future::join_all;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, sleep};

use crate::peer_hostile::{Raw, hello, request};
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, content, named, soon};

/// An owner of contents `0` to `count - 1`, each of some chunks.
async fn owner_of(world: &World, count: usize) -> Node {
    let owner = world.node("owner").await;
    for number in 0..count {
        owner.share(&number.to_string(), &bytes_of(number)).await;
    }
    owner
}

fn bytes_of(number: usize) -> Bytes {
    content(1000 + 20_000 * (number % 3), number as u64)
}

/// The names of `count` contents.
fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| number.to_string())
}

/// Waits until no content of a peer is awake.
async fn all_asleep(node: &Node) {
    while node.peer.stats().awake > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn contents_of_two_peers_share_one_connection_and_sleep_afterwards() {
    const COUNT: usize = 300;
    let world = World::memory(1).await;
    let owner = owner_of(&world, COUNT).await;
    assert_eq!(owner.peer.stats().awake, 0);
    let leecher = world.node("leecher").await;
    world.network().record(1_000_000);
    let names: Vec<String> = names(COUNT).collect();
    let downloads = names
        .iter()
        .map(|name| leecher.peer.download(named(name.as_str())));
    for downloaded in soon(join_all(downloads)).await {
        downloaded.unwrap();
    }
    for (number, name) in names.iter().enumerate() {
        assert!(leecher.bytes(name) == Some(bytes_of(number)), "{name}");
    }
    let trace = world.network().trace();
    assert_eq!(trace.missed, 0);
    let to_owner = trace.events.iter().filter(|event| {
        event.kind == TraceKind::Connected && event.to.as_str().starts_with("memory:owner")
    });
    assert_eq!(to_owner.count(), 1);
    soon(all_asleep(&owner)).await;
    soon(all_asleep(&leecher)).await;
    for node in [&owner, &leecher] {
        let stats = node.peer.stats();
        assert_eq!((stats.contents, stats.connections), (COUNT, 1));
    }
    // The session ends some time after its last channel.
    sleep(Duration::from_secs(15)).await;
    assert_eq!(owner.peer.stats().connections, 0);
    // And contents wake up again.
    let again = world.node("again").await;
    soon(again.peer.download(named("7"))).await.unwrap();
    assert!(again.bytes("7") == Some(bytes_of(7)));
}

#[tokio::test(start_paused = true)]
async fn downloads_beyond_the_bound_wait_in_order() {
    const COUNT: usize = 5;
    let world = World::memory(1).await;
    let _owner = owner_of(&world, COUNT).await;
    let mut config = PeerConfig::default();
    config.max_downloads = 1;
    let leecher = world.node_with("leecher", config).await;
    let hung = leecher.peer.download(ContentId::of(b"nobody has it"));
    // It fails at once, as no tracker knows it, and gives its place back.
    soon(hung).await.unwrap_err();
    let names: Vec<String> = names(COUNT).collect();
    let downloads = names
        .iter()
        .map(|name| leecher.peer.download(named(name.as_str())));
    let mut downloads: Vec<_> = downloads.collect();
    let positions: Vec<_> = downloads.iter().map(bt_lite::Download::position).collect();
    assert_eq!(positions, [0, 1, 2, 3, 4].map(Some));
    while downloads[0].position().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(leecher.peer.stats().active_downloads, 1);
    let mut events = downloads[4].events();
    assert_eq!(soon(events.next()).await, Some(DownloadEvent::Queued));
    // One that is cancelled leaves the queue.
    downloads[2].cancel();
    soon(&mut downloads[2]).await.unwrap_err();
    assert!(downloads[4].position() < Some(3));
    for at in [0, 1, 3, 4] {
        soon(&mut downloads[at]).await.unwrap();
        let later = downloads.iter().skip(at + 2);
        assert!(
            later
                .map(bt_lite::Download::progress)
                .all(|p| p.downloaded == 0)
        );
        assert_eq!(downloads[at].position(), None);
    }
    assert!(matches!(
        events.next().now_or_never(),
        Some(Some(DownloadEvent::Found(_)))
    ));
}

#[tokio::test(start_paused = true)]
async fn time_in_the_queue_is_no_time_without_progress() {
    let world = World::memory(1).await;
    let _owner = owner_of(&world, 2).await;
    let mut config = PeerConfig::default();
    config.max_downloads = 1;
    let storage = Troubled::new(Call::Write, 0, Trouble::Hangs);
    let leecher = world.builder("leecher", storage.clone()).config(config);
    let leecher = leecher.start().await.unwrap();
    let first = leecher.download(named("1"));
    let second = leecher.download(named("0"));
    // Twice as long as a download waits for something to arrive.
    sleep(Duration::from_secs(120)).await;
    storage.mend();
    drop(first);
    soon(second).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn slow_storage_of_one_content_holds_up_no_other() {
    let world = World::memory(1).await;
    let owner = owner_of(&world, 30).await;
    let big = content(8 << 20, 99);
    owner.share("big", &big).await;
    // The first content that is written never comes to an end.
    let storage = Troubled::new(Call::Write, 0, Trouble::Hangs);
    let leecher = world.builder("leecher", storage.clone());
    let leecher = leecher.start().await.unwrap();
    let stuck = leecher.download(named("big"));
    while storage.count(Call::Write) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    storage.mend();
    for name in names(30) {
        soon(leecher.download(named(name.as_str()))).await.unwrap();
    }
    // Its progress is shown once in a while.
    sleep(Duration::from_secs(2)).await;
    assert!(stuck.progress().downloaded > 0);
    drop(stuck);
    leecher.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn downloads_of_one_address_that_is_dead_fail_together() {
    let world = World::memory(1).await;
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(60));
    let leecher = world.node_with("leecher", config).await;
    let begun = Instant::now();
    let downloads = (0..20u8).map(|number| {
        let options = bt_lite::DownloadOptions::new().owner(world.nowhere());
        leecher
            .peer
            .download_with(ContentId::of(&[number]), options)
    });
    for ended in soon(join_all(downloads)).await {
        ended.unwrap_err();
    }
    assert!(begun.elapsed() < Duration::from_secs(70));
}

#[tokio::test(start_paused = true)]
async fn channels_are_opened_by_the_rules_or_the_session_ends() {
    let world = World::memory(1).await;
    let owner = owner_of(&world, 2).await;
    let id = ContentId::of(&bytes_of(0));
    let other = ContentId::of(&bytes_of(1));
    let opened = [
        // An even number, and one that is not higher.
        (PeerMessage::Open(other), ChannelId(2)),
        (PeerMessage::Open(other), ChannelId(1)),
        // Never opened, and not for a channel.
        (request(0, 0, 1), ChannelId(3)),
        (hello(1), ChannelId(1)),
        (PeerMessage::KeepAlive, ChannelId(1)),
        (PeerMessage::Open(other), ChannelId::SESSION),
        (PeerMessage::HaveAll, ChannelId::SESSION),
    ];
    for (message, channel) in opened {
        let mut raw = Raw::link(&world, "bad", &owner, id, 1).await;
        let breach = format!("{message:?} on {channel:?}");
        raw.0.sink.send(message.encode(channel)).await.unwrap();
        let begun = Instant::now();
        assert_eq!(raw.last_words().await, None, "{breach}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{breach}");
    }
    // A second channel about the same content is refused, and the first one stays.
    let mut raw = Raw::link(&world, "good", &owner, id, 1).await;
    let again = PeerMessage::Open(id).encode(ChannelId(3));
    raw.0.sink.send(again).await.unwrap();
    let refused = PeerMessage::Refuse(RefuseReason::Duplicate);
    assert_eq!(raw.hear().await, Some(refused));
    raw.say(request(0, 0, 10)).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Block { .. })));
    // What comes for a channel that has ended is ignored.
    let late = PeerMessage::HaveNone.encode(ChannelId(3));
    raw.0.sink.send(late).await.unwrap();
    raw.say(request(0, 0, 10)).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Block { .. })));
}

#[tokio::test(start_paused = true)]
async fn sessions_that_open_nothing_are_closed_and_channels_are_bounded() {
    let world = World::memory(1).await;
    let owner = owner_of(&world, 1).await;
    let mut raw = Raw::connect(&world, "idle", &owner.addr()).await;
    raw.say(hello(1)).await;
    let begun = Instant::now();
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    assert_eq!(raw.hear().await, None);
    assert!(begun.elapsed() < 2 * HANDSHAKE_TIMEOUT);

    let mut raw = Raw::connect(&world, "many", &owner.addr()).await;
    raw.say(hello(1)).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    for number in 0..3000u32 {
        let unknown = ContentId::of(&number.to_be_bytes());
        let open = PeerMessage::Open(unknown).encode(ChannelId(2 * number + 1));
        raw.0.sink.send(open).await.unwrap();
        // Each is refused, and takes no place from then on.
        let refused = PeerMessage::Refuse(RefuseReason::UnknownContent);
        assert_eq!(raw.hear().await, Some(refused));
    }
}

#[tokio::test(start_paused = true)]
async fn session_ends_that_opens_channels_and_reads_no_refusal() {
    /// More than the refusals that may wait, and those that the network holds.
    const MOST: u32 = 100_000;
    let world = World::memory(1).await;
    let owner = owner_of(&world, 1).await;
    let mut raw = Raw::connect(&world, "many", &owner.addr()).await;
    raw.say(hello(1)).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    let begun = Instant::now();
    let mut opened = 0;
    while opened < MOST {
        let unknown = ContentId::of(&opened.to_be_bytes());
        let open = PeerMessage::Open(unknown).encode(ChannelId(2 * opened + 1));
        if raw.0.sink.send(open).await.is_err() {
            break;
        }
        opened += 1;
    }
    assert!(opened < MOST);
    // It did not take the time after which a session ends that reads nothing.
    assert!(begun.elapsed() < Duration::from_secs(2));
    // A peer that reads is told of each of its channels, however many it opens at once.
    let mut raw = Raw::connect(&world, "eager", &owner.addr()).await;
    raw.say(hello(2)).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    for number in 0..4000u32 {
        let unknown = ContentId::of(&number.to_be_bytes());
        let open = PeerMessage::Open(unknown).encode(ChannelId(2 * number + 1));
        raw.0.sink.feed(open).await.unwrap();
    }
    for _ in 0..4000 {
        let refused = PeerMessage::Refuse(RefuseReason::UnknownContent);
        assert_eq!(raw.hear().await, Some(refused));
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_cannot_be_read_any_more_is_withdrawn_when_it_wakes() {
    let world = World::memory(1).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, content(1000, 1)).unwrap();
    let owner = world.node("owner").await;
    let shared = owner.peer.share(path.as_path()).await.unwrap();
    std::fs::write(&path, content(1001, 1)).unwrap();
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(60));
    let leecher = world.node_with("leecher", config).await;
    let error = soon(leecher.peer.download(named("x"))).await.unwrap_err();
    let expected = DownloadError::GaveUp {
        id: shared.id,
        missing: None,
        reason: StallReason::Gone,
    };
    assert_eq!(error, expected);
    assert!(owner.peer.contents().is_empty());
    assert!(!owner.peer.unshare(&shared.id).await);
}

#[tokio::test(start_paused = true)]
async fn content_that_is_being_saved_does_not_hold_up_another_of_the_same_connection() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    owner.share("long", &content(32 << 20, 1)).await;
    owner.share("short", &content(50_000, 2)).await;
    world
        .network()
        .set_latency("owner", Duration::from_millis(100));
    let storage = Troubled::new(Call::Write, 300, Trouble::Hangs);
    let builder = world.builder("leecher", storage.clone());
    let leecher = builder.start().await.unwrap();
    let mut long = leecher.download(named("long"));
    while storage.count(Call::Write) <= 300 {
        sleep(Duration::from_millis(1)).await;
    }
    // What is on its way arrives while the driver waits for the storage.
    long.cancel();
    assert!((&mut long).now_or_never().is_none());
    storage.mend();
    soon(leecher.download(named("short"))).await.unwrap();
    assert!((&mut long).now_or_never().is_none(), "it is being saved");
    assert_eq!(soon(long).await, Err(DownloadError::Cancelled));
}
