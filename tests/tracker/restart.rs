//! The load on a tracker that starts again.

use std::time::Duration;

use bt_lite::tracker::RegistryConfig;
use tokio::time::{Instant, sleep};

use super::*;

/// How many peers are registered.
const PEERS: u64 = 10_000;

/// The most requests in any second. All peers return within the 8 s of
/// `return_spread`, each with a REGISTER and an OWN, and at first twice as densely.
const PEAK: u64 = 2 * 2 * PEERS / 8;

async fn started(network: &MemoryNetwork, epoch: u64) -> Tracker {
    Tracker::builder(network.endpoint("tracker"))
        .max_connections(PEERS as usize)
        .key_and_epoch([5; 32], epoch)
        .bind(TRACKER)
        .await
        .expect("it binds")
}

/// `cargo test --test tracker restart -- --nocapture` prints the figures.
#[tokio::test(start_paused = true)]
async fn ten_thousand_peers_are_back_within_a_heartbeat_without_a_stampede() {
    let heartbeat = RegistryConfig::default().heartbeat;
    for down in [
        Duration::ZERO,
        Duration::from_secs(3),
        Duration::from_secs(60),
    ] {
        let network = MemoryNetwork::new(1);
        let first = started(&network, 1).await;
        let mut owners = Vec::new();
        for number in 0..PEERS {
            let mut config = ClientConfig::default();
            config.seed = Some(number);
            let name = format!("peer-{number}");
            let owner = TrackerClient::start(
                Arc::new(network.endpoint(&name)),
                vec![addr(TRACKER)],
                Some(addr(&format!("memory:{name}"))),
                config,
            );
            owner
                .own(entry((number % 200) as u8, OwnState::Complete))
                .await
                .unwrap();
            owners.push(owner);
        }
        assert_eq!(first.stats().registry.ownerships, PEERS);
        match down.is_zero() {
            true => assert_eq!(first.drain(heartbeat).await, 0, "all have gone"),
            false => first.shutdown().await,
        }
        drop(first);
        sleep(down).await;
        let second = started(&network, 2).await;
        let begun = Instant::now();
        let (mut before, mut peak, mut all_back) = (0, 0, None);
        while begun.elapsed() < heartbeat {
            sleep(Duration::from_millis(250)).await;
            let stats = second.stats().registry;
            let requests = stats.requests.register + stats.requests.own;
            peak = peak.max(4 * (requests - before));
            before = requests;
            if stats.ownerships == PEERS {
                all_back = all_back.or(Some(begun.elapsed()));
            }
        }
        println!(
            "{PEERS} peers, tracker down for {down:?}: all are listed again after {all_back:?}, \
             at most {peak} requests a second"
        );
        assert!(all_back.is_some(), "{}", second.stats().registry.ownerships);
        assert!(peak <= PEAK, "{peak}");
        for owner in owners {
            drop(owner);
        }
    }
}
