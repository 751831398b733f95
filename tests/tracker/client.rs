//! Trackers, as a peer sees them.

use std::time::Duration;

use bt_lite::TcpTransport;
use bt_lite::protocol::{ContentKey, Refusal};
use bt_lite::tracker::{RegistryConfig, TrackerError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::*;

fn name(number: u8) -> ContentKey {
    entry(number, OwnState::Complete).name.into()
}

#[tokio::test(start_paused = true)]
async fn owner_is_found_by_id_and_by_name_and_never_by_itself() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let (seeder, leecher) = (client(&network, "seeder"), client(&network, "leecher"));
    seeder.registered().await.unwrap();
    seeder.own(entry(1, OwnState::Complete)).await.unwrap();
    leecher.own(entry(1, OwnState::Partial)).await.unwrap();
    let found = leecher.need(id(1).into(), 10).await.unwrap();
    assert_eq!(addrs(&found), ["memory:seeder"]);
    assert!(found.owners[0].complete);
    assert_eq!((found.id, found.length), (id(1), 1000));
    let found = seeder.need(name(1), 10).await.unwrap();
    assert_eq!(addrs(&found), ["memory:leecher"]);
    assert!(!found.owners[0].complete);
    assert_eq!(
        seeder.need(id(9).into(), 10).await,
        Err(TrackerError::NotFound)
    );
    let stats = tracker.stats();
    assert_eq!((stats.registry.peers, stats.registry.ownerships), (2, 2));
    assert_eq!(stats.registry.refusals.unknown_content, 1);
    assert_eq!(stats.connections, 2);
}

#[tokio::test(start_paused = true)]
async fn name_of_two_contents_is_answered_with_their_ids() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let one = client(&network, "one");
    one.own(entry(1, OwnState::Complete)).await.unwrap();
    let mut other = entry(2, OwnState::Complete);
    other.name = entry(1, OwnState::Complete).name;
    one.own(other).await.unwrap();
    let asker = client(&network, "asker");
    assert_eq!(
        asker.need(name(1), 10).await,
        Err(TrackerError::Ambiguous {
            candidates: vec![(id(1), 1000), (id(2), 1000)]
        })
    );
}

#[tokio::test(start_paused = true)]
async fn credited_owner_is_named_first() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let owners: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| client(&network, name))
        .into();
    for owner in &owners {
        owner.own(entry(1, OwnState::Complete)).await.unwrap();
    }
    let asker = client(&network, "asker");
    let found = asker.need(id(1).into(), 10).await.unwrap();
    assert_eq!(found.owners.len(), 4);
    asker.credit(&addr("memory:c"), 50_000_000);
    asker.credit(&addr("memory:b"), 1_000_000);
    asker.credit(&addr("memory:nobody"), 1_000_000);
    sleep(Duration::from_secs(6)).await;
    for _ in 0..20 {
        let found = asker.need(id(1).into(), 1).await.unwrap();
        assert_eq!(addrs(&found), ["memory:c"]);
        let found = asker.need(id(1).into(), 2).await.unwrap();
        assert_eq!(addrs(&found), ["memory:c", "memory:b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_peer_listed() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    owner.registered().await.unwrap();
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    let stats = tracker.stats();
    assert_eq!((stats.registry.peers, stats.registry.expired), (1, 0));
    let heartbeats = stats.registry.requests.register;
    assert!((180..=201).contains(&heartbeats), "{heartbeats}");
    assert_eq!(stats.registry.requests.own, 1);
    assert_eq!(stats.accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_client_is_forgotten_with_its_lease() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    drop(owner);
    sleep(Duration::from_secs(21)).await;
    assert_eq!(tracker.stats().registry.peers, 1);
    assert_eq!(tracker.stats().connections, 0);
    sleep(Duration::from_secs(2)).await;
    let stats = tracker.stats().registry;
    assert_eq!((stats.peers, stats.contents, stats.expired), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn shutdown_says_exit_and_reports_what_was_credited() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let (owner, asker) = (client(&network, "owner"), client(&network, "asker"));
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    asker.need(id(1).into(), 10).await.unwrap();
    asker.credit(&addr("memory:owner"), 1);
    let begun = Instant::now();
    asker.shutdown().await;
    assert_eq!(tracker.stats().registry.requests.update, 1);
    owner.shutdown().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let stats = tracker.stats().registry;
    assert_eq!(
        (stats.peers, stats.contents, stats.requests.exit),
        (0, 0, 2)
    );
    assert_eq!(owner.registered().await, Err(TrackerError::Closed));
    let gone = owner.own(entry(2, OwnState::Complete)).await;
    assert_eq!(gone, Err(TrackerError::Closed));
    let none = owner.need(id(1).into(), 1).await;
    assert_eq!(none, Err(TrackerError::Closed));
}

#[tokio::test(start_paused = true)]
async fn shutdown_with_a_tracker_that_does_not_answer_is_bounded() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    owner.registered().await.unwrap();
    network.stall("tracker");
    let begun = Instant::now();
    owner.shutdown().await;
    assert!(begun.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn owners_are_listed_again_within_a_heartbeat_of_a_restart() {
    for by_force in [false, true] {
        let network = MemoryNetwork::new(1);
        let first = tracker(&network).await;
        let owners = ["a", "b", "c"].map(|name| client(&network, name));
        for owner in &owners {
            owner.own(entry(1, OwnState::Complete)).await.unwrap();
            owner.own(entry(2, OwnState::Partial)).await.unwrap();
            owner.own(entry(2, OwnState::Gone)).await.unwrap();
        }
        if by_force {
            network.kill("tracker");
        } else {
            first.shutdown().await;
        }
        drop(first);
        sleep(Duration::from_secs(300)).await;
        let second = Tracker::builder(network.endpoint("tracker"))
            .key_and_epoch([6; 32], 2)
            .bind(TRACKER)
            .await
            .unwrap();
        sleep(RegistryConfig::default().heartbeat).await;
        let stats = second.stats().registry;
        assert_eq!((stats.peers, stats.contents, stats.ownerships), (3, 1, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn peer_that_the_tracker_has_forgotten_registers_and_owns_again() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    // Longer than the lease, and longer than any request may take.
    network.stall("owner");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(tracker.stats().registry.peers, 0);
    network.resume("owner");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(tracker.stats().registry.ownerships, 1);
    // A heartbeat that arrived too late had registered another peer, which is
    // forgotten by now.
    sleep(Duration::from_secs(20)).await;
    let stats = tracker.stats().registry;
    assert_eq!((stats.peers, stats.ownerships), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn changes_while_a_tracker_is_away_are_announced_later() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    network.refuse("tracker", true);
    network.cut("tracker", "owner");
    sleep(Duration::from_secs(2)).await;
    let away = owner.own(entry(2, OwnState::Complete)).await;
    assert!(matches!(away, Err(TrackerError::Unreachable { .. })));
    assert!(owner.own(entry(1, OwnState::Gone)).await.is_err());
    network.refuse("tracker", false);
    sleep(Duration::from_secs(16)).await;
    let asker = client(&network, "asker");
    let found = asker.need(id(2).into(), 10).await.unwrap();
    assert_eq!(addrs(&found), ["memory:owner"]);
    let gone = asker.need(id(1).into(), 10).await;
    assert_eq!(gone, Err(TrackerError::NotFound));
    // The registration was not lost with its connection.
    assert_eq!(tracker.stats().registry.peers, 2);
}

#[tokio::test(start_paused = true)]
async fn dead_tracker_costs_no_waiting() {
    let network = MemoryNetwork::new(1);
    let _one = tracker(&network).await;
    let _other = Tracker::builder(network.endpoint("other"))
        .bind("memory:other")
        .await
        .unwrap();
    let _stalled = Tracker::builder(network.endpoint("stalled"))
        .bind("memory:stalled")
        .await
        .unwrap();
    network.stall("stalled");
    let all = [TRACKER, "memory:nobody", "memory:other", "memory:stalled"];
    let owner = client_of(&network, "owner", &all);
    let asker = client_of(&network, "asker", &all);
    let begun = Instant::now();
    owner.registered().await.unwrap();
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let found = asker.need(id(1).into(), 10).await.unwrap();
    assert_eq!(addrs(&found), ["memory:owner"]);
    assert_eq!(begun.elapsed(), Duration::from_millis(500));
    // Once it is known to be out of reach, no call waits for it at all.
    sleep(Duration::from_secs(11)).await;
    let begun = Instant::now();
    asker.need(id(1).into(), 10).await.unwrap();
    let none = asker.need(id(9).into(), 10).await;
    assert_eq!(none, Err(TrackerError::NotFound));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn unreachable_tracker_is_an_error_that_names_it() {
    let network = MemoryNetwork::new(1);
    let peer = client_of(&network, "peer", &["memory:nobody"]);
    let unreachable = |outcome: Result<(), TrackerError>| match outcome {
        Err(TrackerError::Unreachable { tracker, .. }) => tracker == addr("memory:nobody"),
        _ => false,
    };
    assert!(unreachable(peer.registered().await));
    let owned = peer.own(entry(1, OwnState::Complete)).await;
    assert!(unreachable(owned));
    assert!(unreachable(peer.need(id(1).into(), 1).await.map(drop)));
    // It starts later, and is told.
    let late = Tracker::builder(network.endpoint("nobody"))
        .bind("memory:nobody")
        .await
        .unwrap();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(peer.registered().await, Ok(()));
    assert_eq!(late.stats().registry.ownerships, 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_name_the_tracker_and_the_reason() {
    let network = MemoryNetwork::new(1);
    let mut config = RegistryConfig::default();
    config.max_peers = 1;
    config.max_contents_per_peer = 1;
    let _tracker = Tracker::builder(network.endpoint("tracker"))
        .registry(config)
        .bind(TRACKER)
        .await
        .unwrap();
    let refused = |refusal| {
        Err(TrackerError::Refused {
            tracker: addr(TRACKER),
            refusal,
        })
    };
    let first = client(&network, "first");
    first.own(entry(1, OwnState::Complete)).await.unwrap();
    let more = first.own(entry(2, OwnState::Complete)).await;
    assert_eq!(more, refused(Refusal::ContentsPerPeer { max: 1 }));
    // A refused content affects nothing else.
    first.own(entry(1, OwnState::Partial)).await.unwrap();
    let second = client(&network, "second");
    let registered = second.registered().await;
    assert_eq!(registered, refused(Refusal::Peers { max: 1 }));
    first.shutdown().await;
    sleep(Duration::from_secs(15)).await;
    assert_eq!(second.registered().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn clients_are_used_from_many_tasks() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let owner = owner.clone();
            tokio::spawn(async move {
                owner.registered().await.unwrap();
                owner.own(entry(number, OwnState::Complete)).await.unwrap();
                let found = owner.need(id(number).into(), 1).await.unwrap();
                assert_eq!(addrs(&found), [""; 0]);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(tracker.stats().registry.ownerships, 200);
}

#[tokio::test(start_paused = true)]
async fn contents_announced_together_travel_together() {
    let network = MemoryNetwork::new(1);
    let mut config = RegistryConfig::default();
    config.max_contents_per_peer = 60;
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .registry(config)
        .bind(TRACKER)
        .await
        .unwrap();
    let owner = client(&network, "owner");
    let own_all = |numbers: std::ops::Range<u8>, state| {
        let tasks: JoinSet<_> = numbers
            .map(|number| {
                let owner = owner.clone();
                async move { owner.own(entry(number, state)).await }
            })
            .collect();
        tasks.join_all()
    };
    let outcomes = own_all(0..60, OwnState::Complete).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let requests = tracker.stats().registry.requests.own;
    assert!(requests <= 4, "{requests}");
    // If some are refused, each call has its own outcome.
    let outcomes = own_all(0..10, OwnState::Gone).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let outcomes = own_all(100..120, OwnState::Complete).await;
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok());
    assert_eq!(taken.count(), 10);
    assert_eq!(tracker.stats().registry.ownerships, 60);
}

#[tokio::test(start_paused = true)]
async fn tracker_that_stops_answering_is_given_up_in_bounded_time() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let peer = client(&network, "peer");
    peer.registered().await.unwrap();
    network.stall("tracker");
    let begun = Instant::now();
    let (owned, found) = tokio::join!(
        peer.own(entry(1, OwnState::Complete)),
        peer.need(id(1).into(), 1)
    );
    let tracker = addr(TRACKER);
    assert_eq!(owned, Err(TrackerError::TimedOut { tracker }));
    assert!(matches!(found, Err(TrackerError::TimedOut { .. })));
    assert!(begun.elapsed() <= Duration::from_secs(21));
    network.resume("tracker");
    sleep(Duration::from_secs(20)).await;
    let asker = client(&network, "asker");
    let found = asker.need(id(1).into(), 1).await.unwrap();
    assert_eq!(addrs(&found), ["memory:peer"]);
}

#[tokio::test(start_paused = true)]
async fn client_without_trackers_is_valid() {
    let network = MemoryNetwork::new(1);
    let alone = client_of(&network, "alone", &[]);
    assert_eq!(alone.registered().await, Ok(()));
    assert_eq!(alone.own(entry(1, OwnState::Complete)).await, Ok(()));
    assert_eq!(
        alone.need(id(1).into(), 1).await,
        Err(TrackerError::NoTracker)
    );
    alone.credit(&addr("memory:x"), 1);
    alone.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn content_that_the_protocol_cannot_express_is_refused_at_once() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    let mut long = entry(1, OwnState::Complete);
    long.length = u64::MAX;
    let outcome = owner.own(long).await;
    assert!(matches!(outcome, Err(TrackerError::Invalid(_))));
}

#[tokio::test]
async fn tracker_and_peers_meet_over_tcp() {
    let tracker = Tracker::builder(TcpTransport::new())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let start = |listen: Option<&str>| {
        TrackerClient::start(
            Arc::new(TcpTransport::new()),
            vec![tracker.local_addr().clone()],
            listen.map(addr),
            ClientConfig::default(),
        )
    };
    let (owner, asker) = (start(Some("0.0.0.0:7001")), start(None));
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    let found = asker.need(name(1), 10).await.unwrap();
    assert_eq!(addrs(&found), ["127.0.0.1:7001"]);
    owner.shutdown().await;
    assert_eq!(asker.need(name(1), 10).await, Err(TrackerError::NotFound));
    tracker.shutdown().await;
    asker.shutdown().await;
}

/// A transport that reaches every tracker over the interface with the number 7.
struct OverSeven(bt_lite::MemoryTransport);

#[async_trait::async_trait]
impl Transport for OverSeven {
    async fn connect(&self, addr: &Addr) -> Result<Connection, bt_lite::TransportError> {
        let mut connection = self.0.connect(addr).await?;
        connection.remote = "[fe80::1%7]:7000".parse().expect("an address");
        Ok(connection)
    }

    async fn listen(
        &self,
        addr: &Addr,
    ) -> Result<Box<dyn bt_lite::transport::Listener>, bt_lite::TransportError> {
        self.0.listen(addr).await
    }
}

#[tokio::test(start_paused = true)]
async fn link_local_owner_is_reached_over_the_interface_of_the_tracker() {
    let network = MemoryNetwork::new(1);
    let mut registry = bt_lite::tracker::RegistryConfig::default();
    registry.addresses = bt_lite::tracker::AddressRule::Any;
    let builder = Tracker::builder(network.endpoint("tracker")).registry(registry);
    let tracker = builder.bind(TRACKER).await.unwrap();
    let client = |name: &str, listen: Option<&str>| {
        TrackerClient::start(
            Arc::new(OverSeven(network.endpoint(name))),
            vec![tracker.local_addr().clone()],
            listen.map(addr),
            ClientConfig::default(),
        )
    };
    let owner = client("owner", Some("[fe80::9%3]:70"));
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    let asker = client("asker", None);
    let found = asker.need(id(1).into(), 10).await.unwrap();
    // The owner's own number of the interface was not told.
    assert_eq!(addrs(&found), ["[fe80::9%7]:70"]);
}
