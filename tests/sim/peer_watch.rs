//! The figures of downloads and peers, in virtual time.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::peer::swarm::{BanReason, DownloadStats, LinkState, RATE_WINDOW};
use bt_lite::protocol::PeerMessage;
use bt_lite::{Download, DownloadOptions, Geometry, PeerEvent};
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use crate::peer_hostile::{Raw, request, world_with_owner};
use crate::world::{Node, World, content, named, soon};

const CHUNK: u64 = 16 << 10;

/// The rate of the owner's line, in bytes per second.
const LINE: u64 = 100_000;

/// What a rate may be off: the blocks that are cut by the ends of the window, of at least
/// nine tenths of its length, and what else the line carries.
const TOLERANCE: u64 = 2 * CHUNK * 1000 / (RATE_WINDOW.as_millis() as u64 * 9 / 10) + LINE / 100;

fn assert_near(rate: u64, expected: u64) {
    assert!(
        rate.abs_diff(expected) <= TOLERANCE,
        "{rate}, not {expected}"
    );
}

/// Waits until the figures are as wanted.
async fn stats_when(download: &Download, wanted: impl Fn(&DownloadStats) -> bool) -> DownloadStats {
    let looks = async {
        loop {
            let stats = download.stats().await;
            if wanted(&stats) {
                return stats;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon(looks).await
}

#[tokio::test(start_paused = true)]
async fn rates_are_those_of_the_line_at_both_ends_and_fall_to_nothing() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let shared = owner.share("x", &content(3_000_000, 1)).await;
    world.network().set_upload_rate("owner", Some(LINE));
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(&shared);
    let begun = Instant::now();
    stats_when(&download, |stats| stats.progress.downloaded > 0).await;
    for second in 10..20 {
        sleep(begun + Duration::from_secs(second) - Instant::now()).await;
        let stats = download.stats().await;
        assert_near(stats.download_rate, LINE);
        assert_eq!(stats.upload_rate, 0);
        let [link] = &stats.links[..] else {
            panic!("{stats:#?}");
        };
        assert_eq!(link.peer, Some(owner.peer.id()));
        assert_eq!(link.downloaded, stats.progress.downloaded);
        assert_near(link.download_rate, LINE);
        assert_eq!((link.state, link.dialled), (LinkState::Unchoked, true));
        assert_eq!((link.uploaded, link.upload_rate), (0, 0));
        let of_peer = leecher.peer.stats();
        assert_eq!(of_peer.downloaded, stats.progress.downloaded);
        assert_near(of_peer.download_rate, LINE);

        let of_share = owner.peer.share_stats(&shared.id).await.unwrap();
        assert_near(of_share.upload_rate, LINE);
        assert_eq!(of_share.download_rate, 0);
        let [link] = &of_share.links[..] else {
            panic!("{of_share:#?}");
        };
        assert_eq!(link.peer, Some(leecher.peer.id()));
        assert_near(link.upload_rate, LINE);
        assert_eq!(link.uploaded, of_share.progress.uploaded);
        let here = stats.progress.verified_chunks;
        assert!(
            link.chunks.is_some_and(|chunks| here.abs_diff(chunks) <= 2),
            "{link:#?}"
        );
        assert_eq!(
            link.share,
            link.chunks
                .map(|chunks| { f64::from(chunks) / f64::from(stats.progress.chunks.unwrap()) })
        );
        let of_peer = owner.peer.stats();
        assert_near(of_peer.upload_rate, LINE);
        assert_eq!(of_peer.uploaded, of_share.progress.uploaded);
    }
    soon(download).await.unwrap();
    sleep(RATE_WINDOW * 2).await;
    // Nobody is linked any more, and both contents are asleep.
    for node in [&owner, &leecher] {
        let stats = node.peer.stats();
        assert_eq!((stats.download_rate, stats.upload_rate), (0, 0));
        assert_eq!(stats.awake, 0);
        let stats = node.peer.share_stats(&shared.id).await.unwrap();
        assert_eq!(stats.links, []);
        assert_eq!((stats.download_rate, stats.upload_rate), (0, 0));
        assert_eq!(stats.progress.verified_bytes, shared.length);
    }
    assert_eq!(owner.peer.stats().uploaded, leecher.peer.stats().downloaded);
    assert_eq!(leecher.peer.stats().waste.total(), 0);
    let unknown = bt_lite::ContentId::of(b"unknown");
    assert_eq!(owner.peer.share_stats(&unknown).await, None);
}

#[tokio::test(start_paused = true)]
async fn each_bad_chunk_is_counted_once_and_its_sender_is_named() {
    let world = World::memory(1).await;
    let liar = world.node("liar").await;
    // More than is on its way at a time.
    let bytes = content(200 * CHUNK as usize, 1);
    let shared = liar.share("x", &bytes).await;
    world.network().set_upload_rate("liar", Some(LINE));
    let leecher = world.node("leecher").await;
    let mut events = leecher.peer.events();
    let download = leecher.peer.download(&shared);
    stats_when(&download, |stats| stats.progress.verified_chunks >= 3).await;
    world.network().corrupt_next("liar", 1);
    let banned = loop {
        if let PeerEvent::Banned { banned, .. } = soon(events.next()).await.unwrap() {
            break banned;
        }
    };
    assert_eq!(banned.peer.peer, liar.peer.id());
    assert_eq!(banned.peer.addr.as_ref(), liar.peer.local_addr());
    let BanReason::BadChunk { chunk } = banned.why else {
        panic!("{banned:?}");
    };
    assert!(chunk.0 < 200);
    let stats = download.stats().await;
    assert_eq!(stats.waste.bad, CHUNK);
    assert_eq!(stats.banned, [banned]);
    assert_eq!(stats.links, [], "its link is gone");
    let good = world.node("good").await;
    good.share("x", &bytes).await;
    soon(download).await.unwrap();
    let of_peer = leecher.peer.stats();
    assert_eq!(of_peer.waste.bad, CHUNK);
    assert_eq!(
        of_peer.downloaded - of_peer.waste.total(),
        bytes.len() as u64
    );
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_rejected_are_counted() {
    let world = World::memory(1).await;
    let bytes = content(4 * CHUNK as usize, 1);
    let owner = world.node("owner").await;
    let shared = owner.share("x", &bytes).await;
    world.network().set_upload_rate("owner", Some(1000));
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(&shared);
    stats_when(&download, |stats| stats.progress.length.is_some()).await;
    // The owner does not share it any more; who goes does not reject.
    let before = download.stats().await.rejected;
    assert_eq!(before, 0);
    // A stranger that says that it has everything, and rejects what it is asked for.
    let mut raw = Raw::connect(&world, "stranger", &leecher.addr()).await;
    raw.greet(shared.id, 9).await;
    raw.say(PeerMessage::HaveAll).await;
    let mut rejected = 0;
    while rejected < 2 {
        if let Some(PeerMessage::Request(block)) = raw.hear().await {
            raw.say(PeerMessage::Reject(block)).await;
            rejected += 1;
        }
    }
    stats_when(&download, |stats| stats.rejected == 2).await;
}

#[tokio::test(start_paused = true)]
async fn link_that_waits_for_a_place_is_listed_with_its_position_at_both_ends() {
    let mut config = PeerConfig::default();
    config.swarm.max_links = 1;
    let (world, owner, shared, _) = world_with_owner(config).await;
    let mut first = Raw::link(&world, "first", &owner, shared.id, 1).await;
    first.say(request(3, 0, 5)).await;
    while !matches!(first.hear().await, Some(PeerMessage::Block { .. })) {}
    let late = world.node("late").await;
    let download = late.peer.download(named("x"));
    let queued = |stats: &DownloadStats| {
        stats
            .links
            .iter()
            .any(|link| link.state == LinkState::Queued { position: 1 })
    };
    let stats = stats_when(&download, queued).await;
    assert_eq!(stats.links.len(), 1);
    let stats = owner.peer.share_stats(&shared.id).await.unwrap();
    let states: Vec<_> = stats
        .links
        .iter()
        .map(|link| (link.peer, link.state))
        .collect();
    assert_eq!(states.len(), 2, "{stats:#?}");
    let waiting = (Some(late.peer.id()), LinkState::Waiting { position: 1 });
    assert!(states.contains(&waiting), "{states:?}");
}

#[tokio::test(start_paused = true)]
async fn stats_of_a_download_that_was_not_found_yet_come_at_once() {
    let mut config = PeerConfig::default();
    config.max_downloads = 1;
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    owner.share("x", &content(1_000_000, 1)).await;
    world.network().set_upload_rate("owner", Some(LINE));
    let Node { peer, .. } = world.node_with("leecher", config).await;
    let first = peer.download(named("x"));
    stats_when(&first, |stats| !stats.links.is_empty()).await;
    let options = DownloadOptions::new().owner(owner.addr());
    let second = peer.download_with(named("y"), options);
    let begun = Instant::now();
    assert_eq!(second.stats().await, DownloadStats::default());
    assert_eq!(second.piece_map().await, None);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// What an owner has sent of chunks that nobody else has is in vain when it leaves, for the
/// download and for the peer alike.
#[tokio::test(start_paused = true)]
async fn waste_of_a_peer_is_that_of_its_downloads() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    // Its chunks have several blocks.
    let shared = owner.share("x", &content(40 << 20, 1)).await;
    world.network().set_upload_rate("owner", Some(1_000_000));
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(shared.id);
    let chunk_len = Geometry::of(shared.length).unwrap().chunk_len();
    // So that a part of a chunk is here.
    let in_part = |stats: &DownloadStats| {
        let progress = &stats.progress;
        let unverified = progress.downloaded - progress.verified_bytes;
        progress.verified_chunks >= 3 && !unverified.is_multiple_of(chunk_len)
    };
    stats_when(&download, in_part).await;
    // Otherwise the rest of the chunk may come, as it is on its way.
    world.network().cut("owner", "leecher");
    owner.peer.shutdown().await;
    let stats = stats_when(&download, |stats| stats.links.is_empty()).await;
    assert!(stats.waste.dropped > 0, "{:?}", stats.waste);
    assert_eq!(leecher.peer.stats().waste, stats.waste);
    let downloaded = leecher.peer.stats().downloaded;
    assert_eq!(downloaded, stats.progress.downloaded);
}
