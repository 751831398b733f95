//! Whole peers in zones: where a download comes from, and what is counted.

use bt_lite::peer::swarm::{PlannerConfig, SwarmConfig};
use bt_lite::{Content, PeerConfig, Zone};

use crate::world::{Node, World, content, soon};

const CHUNK: usize = 16 << 10;
const LEN: usize = 40 * CHUNK;

fn zone(name: &str) -> PeerConfig {
    let zone: Zone = name.parse().unwrap();
    // Before it is known who is near, little is asked for.
    let planner = PlannerConfig::default().first_window(4 * CHUNK as u64);
    let swarm = SwarmConfig::default().planner(planner);
    PeerConfig::default().zone(zone).swarm(swarm)
}

/// Owners in these zones, by number, and what they share.
async fn owners(world: &World, zones: &[&str]) -> (Vec<Node>, Content) {
    let mut nodes = Vec::new();
    let mut shared = None;
    for (number, name) in zones.iter().enumerate() {
        let node = world
            .node_with(&format!("owner-{number}"), zone(name))
            .await;
        shared = Some(node.share("x", &content(LEN, 1)).await);
        nodes.push(node);
    }
    (nodes, shared.unwrap())
}

#[tokio::test(start_paused = true)]
async fn download_comes_from_the_own_zone_and_bytes_between_zones_are_counted() {
    let world = World::memory(1).await;
    let (owners, shared) = owners(&world, &["here", "there"]).await;
    let leecher = world.node_with("leecher", zone("here")).await;
    soon(leecher.peer.download(&shared)).await.unwrap();
    let far = leecher.peer.stats().far;
    assert!(far.downloaded < LEN as u64 / 4, "{far:?}");
    let [near, other] = [0, 1].map(|at| owners[at].peer.stats());
    assert_eq!(near.far.uploaded, 0);
    assert_eq!(other.far.uploaded, other.uploaded);
    assert_eq!(other.far.uploaded, far.downloaded);
}

#[tokio::test(start_paused = true)]
async fn owner_of_another_zone_serves_all_of_it_if_there_is_no_other() {
    let world = World::memory(1).await;
    let (owners, shared) = owners(&world, &["there"]).await;
    for (name, zone, far) in [
        ("far", zone("here"), LEN as u64),
        ("none", PeerConfig::default(), 0),
    ] {
        let leecher = world.node_with(name, zone).await;
        let mut download = leecher.peer.download(&shared);
        soon(&mut download).await.unwrap();
        assert_eq!(leecher.peer.stats().far.downloaded, far, "{name}");
        leecher.peer.shutdown().await;
    }
    drop(owners);
}
