//! Whole peers in zones: where a download comes from, and what is counted.

use std::time::Duration;

use bt_lite::peer::swarm::{PlannerConfig, SwarmConfig};
use bt_lite::{Content, PeerConfig, Zone};
use futures::future::join_all;

use crate::world::strangers::time_of;
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

/// What a crowd took.
#[derive(Debug)]
struct Took {
    /// When the last one had everything.
    last: Duration,
    /// How many contents came into each zone from others.
    copies: [f64; ZONES],
    /// How many peers of each zone fetched something from others.
    importers: [usize; ZONES],
}

const ZONES: usize = 3;

/// Leechers in three zones that all begin at once, and one owner in the first zone. All have the
/// same line. A round trip within a zone takes 1 ms, and one to another zone 20 ms.
async fn crowd(leechers_of_zone: usize, tell: bool) -> Took {
    const RATE: u64 = 1 << 18;
    const CROWD_LEN: usize = 2 << 20;
    let world = World::memory(1).await;
    let network = world.network();
    let config = |zone: usize| match tell {
        true => PeerConfig::default().zone(format!("zone-{zone}").parse::<Zone>().unwrap()),
        false => PeerConfig::default(),
    };
    let members = ZONES * leechers_of_zone;
    let line = |name: &str| {
        network.set_latency(name, Duration::from_micros(250));
        network.set_upload_rate(name, Some(RATE));
        network.set_download_rate(name, Some(4 * RATE));
    };
    let name = |number: usize| match number {
        0 => "owner".into(),
        _ => format!("leecher-{number}"),
    };
    let zone = |number: usize| number.saturating_sub(1) % ZONES;
    for one in 0..=members {
        line(&name(one));
        for other in (0..one).filter(|other| zone(*other) != zone(one)) {
            network.set_latency_between(&name(one), &name(other), Duration::from_millis(10));
        }
    }
    let owner = world.node_with("owner", config(0)).await;
    let shared = owner.share("x", &content(CROWD_LEN, 1)).await;
    let mut nodes = Vec::new();
    for number in 1..=members {
        nodes.push((
            zone(number),
            world.node_with(&name(number), config(zone(number))).await,
        ));
    }
    let fetch = nodes
        .iter()
        .map(|(_, node)| time_of(soon(node.peer.download(&shared))));
    let mut last = Duration::ZERO;
    for (time, got) in join_all(fetch).await {
        got.unwrap();
        last = last.max(time);
    }
    let (mut copies, mut importers) = ([0.0; ZONES], [0; ZONES]);
    for (zone, node) in &nodes {
        let far = node.peer.stats().far.downloaded;
        copies[*zone] += far as f64 / CROWD_LEN as f64;
        importers[*zone] += usize::from(far > 0);
    }
    Took {
        last,
        copies,
        importers,
    }
}

#[tokio::test(start_paused = true)]
async fn few_of_each_zone_fetch_from_others_and_it_takes_no_longer() {
    let took = crowd(12, true).await;
    let without = crowd(12, false).await;
    // If each peer chose for itself, it would be several times.
    assert!(took.copies.iter().all(|copies| *copies < 1.1), "{took:?}");
    assert!(took.importers.iter().all(|few| *few <= 8), "{took:?}");
    let most = without.last.mul_f64(1.1);
    assert!(
        took.last < most,
        "{took:?}, without zones {:?}",
        without.last
    );
}
