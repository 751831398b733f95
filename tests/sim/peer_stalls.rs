//! Downloads for which nothing arrives: they say why, and go on when something does.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::protocol::{PeerMessage, RefuseReason};
use bt_lite::{
    Addr, ContentId, Download, DownloadError, DownloadEvent, DownloadEvents, DownloadOptions,
    MemoryStorage, Peer, StallReason, Transport,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use crate::peer_hostile::{Raw, hello};
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, content, named, soon};

const LEN: usize = 60 * (16 << 10);

/// Longer than any pause between two tries.
const MINUTES: Duration = Duration::from_secs(600);

/// An owner with a slow line.
async fn slow_owner(world: &World) -> (Node, Bytes) {
    let bytes = content(LEN, 1);
    let owner = world.node("owner").await;
    owner.share("x", &bytes).await;
    world.network().set_upload_rate("owner", Some(100_000));
    (owner, bytes)
}

async fn next(events: &mut DownloadEvents) -> DownloadEvent {
    soon(events.next()).await.expect("the download goes on")
}

/// Waits until something of it is stored.
async fn begun(events: &mut DownloadEvents) {
    loop {
        if let DownloadEvent::Progress(progress) = next(events).await
            && progress.verified_chunks >= 10
        {
            return;
        }
    }
}

/// The first reason for which the download stalls.
async fn stalls(events: &mut DownloadEvents) -> StallReason {
    loop {
        match next(events).await {
            DownloadEvent::Stalled(reason) => return reason,
            DownloadEvent::Progress(_) | DownloadEvent::Found(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until the download goes on, whatever it stalls for until then.
async fn resumes(events: &mut DownloadEvents) {
    loop {
        match next(events).await {
            DownloadEvent::Resumed => return,
            DownloadEvent::Stalled(_) | DownloadEvent::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The first reason, and after how long, for a download of `id` from these owners.
async fn reason_of(leecher: &Node, id: ContentId, owners: &[Addr]) -> (StallReason, Duration) {
    let mut options = DownloadOptions::new();
    options.owners = owners.to_vec();
    let begun = Instant::now();
    let download = leecher.peer.download_with(id, options);
    let reason = stalls(&mut download.events()).await;
    assert_eq!(download.stall(), Some(reason));
    (reason, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn network_that_is_gone_for_minutes_delays_a_download_and_does_not_end_it() {
    let world = World::memory(1).await;
    let (_owner, bytes) = slow_owner(&world).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    let mut events = download.events();
    begun(&mut events).await;
    // As after a sleep: connections are dead, and nobody can be reached.
    for other in ["owner", "tracker"] {
        world.network().cut("leecher", other);
        world.network().refuse(other, true);
    }
    let reason = stalls(&mut events).await;
    assert_eq!(reason, StallReason::Unreachable { owners: 1 });
    sleep(MINUTES).await;
    for other in ["owner", "tracker"] {
        world.network().refuse(other, false);
    }
    let back = Instant::now();
    resumes(&mut events).await;
    // The tracker's client tries again after a quarter of a minute at most. Then
    // everybody is tried.
    let waited = back.elapsed();
    assert!(waited < Duration::from_secs(17), "{waited:?}");
    assert_eq!(download.stall(), None);
    soon(download).await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn switch_that_drops_everything_for_minutes_does_not_end_a_download() {
    let world = World::memory(1).await;
    let (_owner, bytes) = slow_owner(&world).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    let mut events = download.events();
    begun(&mut events).await;
    let others = ["owner", "tracker"];
    world.network().partition(&["leecher"], &others);
    stalls(&mut events).await;
    sleep(MINUTES).await;
    world.network().heal();
    resumes(&mut events).await;
    soon(download).await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn owner_without_a_tracker_is_tried_for_as_long_as_the_handle_is_held() {
    let world = World::memory(1).await;
    let (owner, bytes) = slow_owner(&world).await;
    let storage = MemoryStorage::new();
    let peer = Peer::builder(world.transport("peer"), storage.clone());
    let peer = peer.start().await.unwrap();
    let options = DownloadOptions::new().owner(owner.addr());
    world.network().refuse("owner", true);
    let mut download = peer.download_with(ContentId::of(&bytes), options);
    let waited = tokio::time::timeout(MINUTES, &mut download).await;
    assert!(waited.is_err(), "{waited:?}");
    world.network().refuse("owner", false);
    let back = Instant::now();
    resumes(&mut download.events()).await;
    assert!(back.elapsed() < Duration::from_secs(33));
    soon(download).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answer_to_one_download_has_all_that_wait_look_again_at_once() {
    let world = World::memory(1).await;
    let (owner, bytes) = slow_owner(&world).await;
    let storage = MemoryStorage::new();
    let peer = Peer::builder(world.transport("peer"), storage.clone());
    let peer = peer.start().await.unwrap();
    world.network().refuse("owner", true);
    let options = DownloadOptions::new().owner(owner.addr());
    let waits = peer.download_with(ContentId::of(&bytes), options.clone());
    assert!(
        tokio::time::timeout(MINUTES, waits.events().for_each(|_| async {}))
            .await
            .is_err()
    );
    world.network().refuse("owner", false);
    let other = peer.download_with(ContentId::of(b"unknown"), options);
    let back = Instant::now();
    resumes(&mut waits.events()).await;
    assert!(
        back.elapsed() < Duration::from_millis(100),
        "{:?}",
        back.elapsed()
    );
    drop(other);
    soon(waits).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn owners_that_do_not_listen_or_refuse_are_told_at_once() {
    let world = World::memory(1).await;
    let leecher = world.node("leecher").await;
    let id = ContentId::of(b"nobody has it");
    let soon_told = Duration::from_secs(3);

    let (reason, after) = reason_of(&leecher, id, &[world.nowhere()]).await;
    assert_eq!(reason, StallReason::Unreachable { owners: 1 });
    assert!(after < soon_told, "{after:?}");

    let other = world.node("other").await;
    let owners = [world.nowhere(), other.addr()];
    let (reason, after) = reason_of(&leecher, id, &owners).await;
    let expected = StallReason::Refused {
        full: 0,
        refused: 1,
        unreachable: 1,
    };
    assert_eq!(reason, expected);
    assert!(after < soon_told, "{after:?}");
}

/// An owner that answers each link with these messages, and keeps it open unless it
/// refuses.
async fn answers_with(world: &World, name: &str, messages: Vec<PeerMessage>) -> Addr {
    let addr: Addr = format!("memory:{name}").parse().unwrap();
    let listener = world.network().endpoint(name).listen(&addr).await;
    let mut listener = listener.unwrap();
    tokio::spawn(async move {
        while let Ok(connection) = listener.accept().await {
            let messages = messages.clone();
            tokio::spawn(async move {
                let mut raw = Raw(connection);
                raw.say(hello(9)).await;
                while !matches!(raw.hear().await, Some(PeerMessage::Open(_)) | None) {}
                for message in messages {
                    let refuses = matches!(message, PeerMessage::Refuse(_));
                    raw.say(message).await;
                    if refuses {
                        return;
                    }
                }
                while raw.hear().await.is_some() {}
            });
        }
    });
    addr
}

#[tokio::test(start_paused = true)]
async fn each_reason_is_told_apart() {
    let world = World::memory(1).await;
    let leecher = world.node("leecher").await;
    let id = ContentId::of(b"nobody has it");

    let busy = vec![PeerMessage::Refuse(RefuseReason::Busy)];
    let full = answers_with(&world, "full", busy).await;
    let (reason, _) = reason_of(&leecher, id, &[full, world.nowhere()]).await;
    let expected = StallReason::Refused {
        full: 1,
        refused: 0,
        unreachable: 1,
    };
    assert_eq!(reason, expected);

    let silent = answers_with(&world, "silent", vec![PeerMessage::HaveAll]).await;
    let (reason, _) = reason_of(&leecher, id, &[silent]).await;
    let expected = StallReason::NoManifest { links: 1, wrong: 0 };
    assert_eq!(reason, expected);

    let wrong = PeerMessage::ManifestLength {
        length: 5,
        proof: Bytes::from_static(b"12345"),
    };
    let hashes = PeerMessage::ManifestHashes {
        page: 1,
        hashes: vec![0; 32].into(),
    };
    let lies = vec![PeerMessage::HaveAll, wrong, hashes];
    let liar = answers_with(&world, "liar", lies).await;
    let (reason, _) = reason_of(&leecher, id, &[liar]).await;
    let expected = StallReason::NoManifest { links: 0, wrong: 1 };
    assert_eq!(reason, expected);
}

#[tokio::test(start_paused = true)]
async fn owner_that_sends_no_more_and_one_that_lies_are_told_apart() {
    let world = World::memory(1).await;
    let (_owner, _) = slow_owner(&world).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    let mut events = download.events();
    begun(&mut events).await;
    world.network().corrupt("owner", 1.0);
    assert_eq!(stalls(&mut events).await, StallReason::Banned { peers: 1 });
    soon(leecher.peer.shutdown()).await;

    let leecher = world.node("second").await;
    world.network().corrupt("owner", 0.0);
    let download = leecher.peer.download(named("x"));
    let mut events = download.events();
    begun(&mut events).await;
    world.network().stall("owner");
    let reason = stalls(&mut events).await;
    assert!(
        matches!(reason, StallReason::Silent { links: 1 }),
        "{reason:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn partial_owners_without_the_rest_are_told_apart() {
    let world = World::memory(1).await;
    let (owner, _) = slow_owner(&world).await;
    let one = world.node("one").await;
    let other = world.node("other").await;
    let downloads: [Download; 2] = [
        one.peer.download(named("x")),
        other.peer.download(named("x")),
    ];
    for download in &downloads {
        begun(&mut download.events()).await;
    }
    owner.peer.shutdown().await;
    let reason = stalls(&mut downloads[0].events()).await;
    assert_eq!(reason, StallReason::NothingMissing { links: 1 });
}

#[tokio::test(start_paused = true)]
async fn slow_storage_is_told_apart_and_does_not_count_as_impatience() {
    let world = World::memory(1).await;
    let (_owner, bytes) = slow_owner(&world).await;
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(20));
    let storage = Troubled::new(Call::Write, 3, Trouble::Hangs);
    let builder = world.builder("leecher", storage).config(config.clone());
    let peer = builder.start().await.unwrap();
    let mut download = peer.download(named("x"));
    let reason = stalls(&mut download.events()).await;
    assert!(
        matches!(reason, StallReason::Storage { chunks: 1.. }),
        "{reason:?}"
    );
    let waited = tokio::time::timeout(MINUTES, &mut download).await;
    assert!(waited.is_err(), "{waited:?}");

    drop(download);
    soon(peer.shutdown()).await;

    // With the same patience an owner that is gone is not waited for.
    let leecher = world.node_with("other", config).await;
    let download = leecher.peer.download(named("x"));
    begun(&mut download.events()).await;
    world.network().kill("owner");
    world.network().refuse("owner", true);
    let error = soon(download).await.unwrap_err();
    let DownloadError::GaveUp {
        id,
        missing,
        reason,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*id, ContentId::of(&bytes));
    assert!(missing.is_some_and(|missing| (1..60).contains(&missing)));
    assert_eq!(*reason, StallReason::Unreachable { owners: 1 });
    assert!(
        error
            .to_string()
            .contains("the known owner cannot be reached"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn dial_without_a_place_goes_on_as_soon_as_one_is_free() {
    let world = World::memory(1).await;
    let (owner, _) = slow_owner(&world).await;
    let other = world.node("other").await;
    other.share("y", &content(1000, 2)).await;
    let mut config = PeerConfig::default();
    // One is kept for those that others open.
    config.max_connections = 2;
    let leecher = world.node_with("leecher", config).await;
    let long = leecher.peer.download(named("x"));
    begun(&mut long.events()).await;
    let mut short = leecher.peer.download(named("y"));
    let wait = Duration::from_millis(5300);
    assert!(tokio::time::timeout(wait, &mut short).await.is_err());
    owner.peer.shutdown().await;
    let free = Instant::now();
    soon(short).await.unwrap();
    assert!(
        free.elapsed() < Duration::from_millis(50),
        "{:?}",
        free.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn owner_that_has_a_place_in_a_moment_is_tried_again_in_a_moment() {
    let world = World::memory(1).await;
    let mut config = PeerConfig::default();
    config.max_connections_per_host = 1;
    let owner = world.node_with("owner", config).await;
    owner.share("x", &content(LEN, 1)).await;
    // Both are on the same host.
    let peer = |port: u8| {
        let peer = Peer::builder(world.transport("host"), MemoryStorage::new());
        peer.tracker(world.tracker.local_addr())
            .listen(format!("memory:host:{port}"))
    };
    let (first, second) = (
        peer(1).start().await.unwrap(),
        peer(2).start().await.unwrap(),
    );
    world.network().set_upload_rate("owner", Some(1_000_000));
    world.network().refuse("host", true);
    let begun = Instant::now();
    let one = first.download(named("x"));
    one.events().next().await.unwrap();
    let two = second.download(named("x"));
    let freed = async {
        sleep(Duration::from_millis(120)).await;
        first.shutdown().await;
    };
    let (_, done) = futures::join!(freed, soon(two));
    done.unwrap();
    // The content takes a second, and the next try comes long before the end of another.
    assert!(
        begun.elapsed() < Duration::from_millis(1700),
        "{:?}",
        begun.elapsed()
    );
}
