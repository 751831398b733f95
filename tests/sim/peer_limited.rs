//! A download says whether its own limits bound it, or something else does. In virtual time.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::{Download, RateLimits};
use tokio::time::sleep;

use crate::world::{Node, World, content, named, soon};

const LEN: usize = 2 << 20;

/// An owner whose line carries this much, and a peer with a limit.
async fn scene(upload: u64, limit: Option<u64>) -> (World, Node, Node) {
    let world = World::memory(1).await;
    for name in ["owner", "peer"] {
        world.network().set_latency(name, Duration::from_millis(5));
    }
    let owner = world.node("owner").await;
    owner.share("x", &content(LEN, 1)).await;
    world.network().set_upload_rate("owner", Some(upload));
    let mut config = PeerConfig::default();
    if let Some(limit) = limit {
        config = config.limits(RateLimits::default().download(limit));
    }
    let peer = world.node_with("peer", config).await;
    (world, owner, peer)
}

async fn limited(download: &Download) -> bool {
    let stats = soon(download.stats()).await;
    assert_eq!(download.stall(), None);
    assert!(stats.progress.rate > 0.0, "{stats:?}");
    stats.progress.limited
}

#[tokio::test(start_paused = true)]
async fn download_below_its_limit_is_not_limited_and_one_at_its_limit_is() {
    for (upload, limit, expected) in [
        (10_000_000, Some(100_000), true),
        (150_000, Some(100_000), true),
        (50_000, Some(100_000), false),
        (50_000, Some(10_000_000), false),
        (50_000, None, false),
    ] {
        let (_world, _owner, peer) = scene(upload, limit).await;
        let download = peer.peer.download(named("x"));
        for second in 0..8 {
            sleep(Duration::from_secs(1)).await;
            if second >= 3 {
                let found = limited(&download).await;
                assert_eq!(found, expected, "{upload} {limit:?} {second}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn limit_that_is_lifted_bounds_nothing_any_more() {
    let (_world, _owner, peer) = scene(100_000, Some(50_000)).await;
    let mut download = peer.peer.download(named("x"));
    sleep(Duration::from_secs(5)).await;
    assert!(limited(&download).await);
    peer.peer.set_rate_limits(RateLimits::default()).unwrap();
    sleep(Duration::from_secs(6)).await;
    assert!(!limited(&download).await);
    peer.peer
        .set_rate_limits(RateLimits::default().download(20_000))
        .unwrap();
    sleep(Duration::from_secs(8)).await;
    assert!(limited(&download).await);
    peer.peer.set_rate_limits(RateLimits::default()).unwrap();
    soon(&mut download).await.unwrap();
    assert!(!download.progress().limited);
}
