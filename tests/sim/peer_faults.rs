//! Whole peers among owners that die, stall, refuse and lie, in virtual time.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::transport::memory::TraceKind;
use bt_lite::{ContentId, Download, DownloadError, DownloadEvent, DownloadOptions, StallReason};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, bind_tracker, content, named, soon};

const LEN: usize = 60 * (16 << 10);

/// Owners with slow lines, so that a download takes some time.
async fn slow_world(owners: usize) -> (World, Vec<Node>, Bytes) {
    let world = World::memory(1).await;
    let bytes = content(LEN, 1);
    let nodes = world.owners(owners, "x", &bytes).await;
    for owner in 0..owners {
        let network = world.network();
        network.set_upload_rate(&format!("owner-{owner}"), Some(100_000));
        network.set_latency(&format!("owner-{owner}"), Duration::from_millis(10));
    }
    (world, nodes, bytes)
}

/// Waits until this many chunks are stored.
async fn stored(download: &Download, chunks: u32) {
    let mut events = download.events();
    while let Some(event) = events.next().await {
        match event {
            DownloadEvent::Progress(progress) if progress.verified_chunks >= chunks => return,
            DownloadEvent::Progress(_) | DownloadEvent::Found(_) => {}
            end => panic!("{end:?}"),
        }
    }
}

async fn completes(leecher: &Node, download: Download, bytes: &Bytes) {
    download.await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), *bytes);
}

#[tokio::test(start_paused = true)]
async fn download_survives_owners_that_are_killed_one_by_one() {
    let (world, _owners, bytes) = slow_world(4).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    for dead in 0..3 {
        stored(&download, 8 * (dead + 1)).await;
        world.network().kill(&format!("owner-{dead}"));
    }
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn download_survives_links_that_are_cut_again_and_again() {
    let (world, _owners, bytes) = slow_world(2).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    for chunks in 1..10 {
        stored(&download, 4 * chunks).await;
        let owner = format!("owner-{}", chunks % 2);
        world.network().cut(&owner, "leecher");
    }
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn download_survives_owners_that_stall() {
    let (world, _owners, bytes) = slow_world(3).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    stored(&download, 5).await;
    world.network().stall("owner-0");
    stored(&download, 10).await;
    world.network().stall("owner-1");
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn download_survives_owners_that_refuse() {
    let (world, _owners, bytes) = slow_world(3).await;
    for owner in ["owner-0", "owner-1"] {
        world.network().refuse(owner, true);
    }
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn liar_is_found_and_not_asked_again() {
    let (world, _owners, bytes) = slow_world(3).await;
    world.network().corrupt("owner-1", 1.0);
    let leecher = world.node("leecher").await;
    world.network().record(100_000);
    let download = leecher.peer.download(named("x"));
    soon(completes(&leecher, download, &bytes)).await;

    let events = world.network().trace().events;
    let lied = |at: usize| {
        let event = &events[at];
        event.kind == TraceKind::Corrupted && event.from.as_str().contains("owner-1")
    };
    let lie = (0..events.len()).find(|&at| lied(at)).unwrap();
    // A second after its lie arrived, nothing goes to the liar any more.
    let delivered = events[lie..].iter().find(|event| {
        event.kind == TraceKind::Delivered
            && event.from.as_str().contains("owner-1")
            && event.bytes > 1000
    });
    let caught = delivered.unwrap().at + Duration::from_secs(1);
    let asked = events.iter().filter(|event| {
        event.at > caught
            && matches!(event.kind, TraceKind::Sent | TraceKind::Connected)
            && event.from.as_str().starts_with("memory:leecher")
            && event.to.as_str().starts_with("memory:owner-1")
    });
    assert_eq!(asked.count(), 0);
    assert!(events.last().unwrap().at > caught + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn occasional_lies_of_all_owners_do_not_end_a_download() {
    let (world, _owners, bytes) = slow_world(3).await;
    world.network().corrupt("owner-0", 0.05);
    world.network().corrupt("owner-1", 0.05);
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn owners_that_come_back_are_found_through_the_tracker() {
    let (world, mut owners, bytes) = slow_world(1).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    stored(&download, 10).await;
    owners.pop().unwrap().peer.shutdown().await;
    let asked = world.tracker.stats().registry.requests.need;
    sleep(Duration::from_secs(35)).await;
    assert!(world.tracker.stats().registry.requests.need > asked);
    // Another host shares it.
    let other = world.node("other").await;
    other.share("x", &bytes).await;
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn download_without_owners_is_given_up_after_its_patience() {
    let (world, mut owners, _) = slow_world(1).await;
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(33));
    let leecher = world.node_with("leecher", config).await;
    let mut download = leecher.peer.download(named("x"));
    stored(&download, 10).await;
    owners.pop().unwrap().peer.shutdown().await;
    let missing = 60 - download.progress().verified_chunks;
    let begun = Instant::now();
    let error = soon(&mut download).await.unwrap_err();
    let expected = DownloadError::GaveUp {
        id: ContentId::of(&content(LEN, 1)),
        missing: Some(missing),
        reason: StallReason::Unreachable { owners: 1 },
    };
    assert_eq!(error, expected);
    let waited = begun.elapsed();
    let patience = Duration::from_secs(31)..Duration::from_secs(34);
    assert!(patience.contains(&waited), "{waited:?}");
    assert!(leecher.peer.contents().is_empty());

    // The next download has what was committed.
    let other = world.node("other").await;
    other.share("x", &content(LEN, 1)).await;
    let again = leecher.peer.download(named("x"));
    soon(again).await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), content(LEN, 1));
}

#[tokio::test(start_paused = true)]
async fn owner_that_never_answers_is_given_up_without_a_manifest() {
    let (world, _owners, bytes) = slow_world(1).await;
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(60));
    let leecher = world.node_with("leecher", config).await;
    world.network().stall("owner-0");
    let error = soon(leecher.peer.download(named("x"))).await.unwrap_err();
    let expected = DownloadError::GaveUp {
        id: ContentId::of(&bytes),
        missing: None,
        reason: StallReason::Unreachable { owners: 1 },
    };
    assert_eq!(error, expected);
}

#[tokio::test(start_paused = true)]
async fn tracker_that_dies_after_the_start_is_not_missed() {
    let (world, _owners, bytes) = slow_world(2).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    stored(&download, 3).await;
    world.network().kill("tracker");
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn tracker_that_does_not_answer_delays_the_end_only_briefly() {
    let (world, _owners, bytes) = slow_world(2).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    stored(&download, 3).await;
    world.network().stall("tracker");
    let mut events = download.events();
    let mut whole = None;
    while let Some(event) = soon(events.next()).await {
        if let DownloadEvent::Progress(progress) = event
            && progress.verified_bytes == LEN as u64
        {
            whole.get_or_insert_with(Instant::now);
        }
    }
    let late = whole.unwrap().elapsed();
    assert!(late < Duration::from_secs(4), "{late:?}");
    completes(&leecher, download, &bytes).await;
}

#[tokio::test(start_paused = true)]
async fn restarted_tracker_knows_the_owners_again() {
    let (world, _owners, bytes) = slow_world(2).await;
    world.network().kill("tracker");
    world.tracker.shutdown().await;
    let World { net, .. } = world;
    let crate::world::Net::Memory(network) = &net else {
        unreachable!()
    };
    let tracker = bind_tracker(network, 2).await;
    let world = World { net, tracker };
    sleep(Duration::from_secs(30)).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn partition_is_waited_out() {
    let (world, _owners, bytes) = slow_world(2).await;
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    stored(&download, 10).await;
    world
        .network()
        .partition(&["leecher"], &["owner-0", "owner-1"]);
    sleep(Duration::from_secs(20)).await;
    world.network().heal();
    soon(completes(&leecher, download, &bytes)).await;
}

#[tokio::test(start_paused = true)]
async fn fast_owner_is_listed_before_a_slow_one() {
    let (world, _owners, bytes) = slow_world(2).await;
    world.network().set_upload_rate("owner-1", Some(1_000_000));
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    soon(completes(&leecher, download, &bytes)).await;
    sleep(Duration::from_secs(6)).await;
    assert!(world.tracker.stats().registry.requests.update > 0);
    // The one place goes to the fastest.
    let mut config = PeerConfig::default();
    config.owners_wanted = 1;
    leecher.peer.shutdown().await;
    let next = world.node_with("next", config).await;
    world.network().record(100_000);
    let download = next.peer.download(named("x"));
    soon(completes(&next, download, &bytes)).await;
    let dialled = world.network().trace().events.into_iter().filter(|event| {
        event.kind == TraceKind::Connected && event.from.as_str().starts_with("memory:next")
    });
    let first = dialled
        .map(|event| event.to)
        .find(|to| to.as_str().contains("owner"));
    assert_eq!(first.unwrap().as_str(), "memory:owner-1");
}

#[tokio::test(start_paused = true)]
async fn swarm_keeps_its_bound_of_links() {
    const PEERS: usize = 10;
    let world = World::memory(1).await;
    let mut config = PeerConfig::default();
    config.swarm.max_links = 3;
    config.swarm.sources = 2;
    config.max_connections = 5;
    let mut nodes = Vec::new();
    for number in 0..PEERS {
        let name = format!("peer-{number}");
        let node = world.node_with(&name, config.clone()).await;
        world.network().set_upload_rate(&name, Some(500_000));
        node.share(
            &format!("content-{number}"),
            &content(100_000, number as u64),
        )
        .await;
        nodes.push(node);
    }
    let mut fetches = Vec::new();
    for node in &nodes {
        for number in 0..PEERS {
            fetches.push(node.peer.download(named(&format!("content-{number}"))));
        }
    }
    let watched: Vec<_> = fetches.iter().map(Download::events).collect();
    let watch = futures::stream::select_all(watched).for_each(|event| {
        if let DownloadEvent::Progress(progress) = event {
            assert!(progress.links <= 3, "{progress:?}");
        }
        std::future::ready(())
    });
    let all = async {
        for fetch in fetches {
            fetch.await.unwrap();
        }
    };
    soon(async { futures::join!(watch, all) }).await;
    for (at, node) in nodes.iter().enumerate() {
        for number in (0..PEERS).filter(|&number| number != at) {
            let bytes = node.bytes(&format!("content-{number}")).unwrap();
            assert_eq!(bytes, content(100_000, number as u64));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn owner_that_the_user_knows_is_asked_too() {
    let (world, _owners, bytes) = slow_world(1).await;
    world.network().stall("tracker");
    let storage = bt_lite::MemoryStorage::new();
    let peer = bt_lite::Peer::builder(world.transport("peer"), storage.clone());
    let peer = peer.start().await.unwrap();
    let id = ContentId::of(&bytes);
    let options = DownloadOptions::new()
        .owner(world.nowhere())
        .owner("memory:owner-0");
    soon(peer.download_with(id, options)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn download_that_cannot_be_published_fails_at_once_although_somebody_is_dialled() {
    let world = World::memory(1).await;
    let _owner = world.owners(1, "x", &content(LEN, 1)).await;
    let silent = world.node("silent").await;
    world.network().stall("silent");
    let storage = Troubled::new(Call::Finish, 0, Trouble::Fails);
    let builder = world.builder("leecher", storage.clone());
    let leecher = builder.start().await.unwrap();
    // To dial it takes longer than the download.
    let options = DownloadOptions::new().owner(silent.addr());
    let download = leecher.download_with(named("x"), options);
    while storage.count(Call::Finish) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    let error = soon(download).await.unwrap_err();
    assert!(matches!(error, DownloadError::Storage { .. }), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn content_that_is_complete_without_a_link_is_announced_before_it_sleeps() {
    let (world, owners, _) = slow_world(1).await;
    let storage = Troubled::new(Call::Finish, 0, Trouble::Waits);
    let builder = world.builder("leecher", storage.clone());
    let leecher = builder.start().await.unwrap();
    let download = leecher.download(named("x"));
    while storage.count(Call::Finish) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    for owner in owners {
        owner.peer.shutdown().await;
    }
    storage.mend();
    let content = soon(download).await.unwrap();
    while leecher.stats().awake > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let config = ClientConfig::default();
    let (transport, tracker) = (world.transport("asker").into(), world.tracker.local_addr());
    let asker = TrackerClient::start(transport, vec![tracker.clone()], None, config);
    let found = asker.need(content.id.into(), 50).await.unwrap();
    let complete: Vec<_> = found.owners.iter().map(|owner| owner.complete).collect();
    assert_eq!(complete, [true]);
}
