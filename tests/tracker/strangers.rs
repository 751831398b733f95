//! Trackers and clients under strangers, and with extreme configurations.

use std::time::Duration;

use bt_lite::protocol::Refusal;
use bt_lite::tracker::{
    BindError, OwnEvent, OwnEvents, RegistryConfig, TrackerConfig, TrackerError,
};
use bt_lite::{MemoryStorage, Peer, ShareSource};
use tokio::time::{Instant, sleep, timeout};

use super::*;

async fn strict(network: &MemoryNetwork, epoch: u64, set: fn(&mut RegistryConfig)) -> Tracker {
    let mut config = RegistryConfig::default();
    set(&mut config);
    Tracker::builder(network.endpoint("tracker"))
        .registry(config)
        .key_and_epoch([5; 32], epoch)
        .bind(TRACKER)
        .await
        .expect("it binds")
}

/// How long a client waits at most until it announces again.
const RETRIED: Duration = Duration::from_secs(61);

/// The next event, which must come within an hour.
async fn next(events: &mut OwnEvents) -> Option<OwnEvent> {
    let event = timeout(Duration::from_secs(3600), events.next()).await;
    event.expect("something is said")
}

#[tokio::test(start_paused = true)]
async fn refused_owner_is_told_so_and_listed_once_there_is_room() {
    let network = MemoryNetwork::new(1);
    let one_owner = |config: &mut RegistryConfig| config.max_owners_per_content = 1;
    let first = strict(&network, 1, one_owner).await;
    let honest = client(&network, "honest");
    let mut events = honest.events();
    honest.own(entry(1, OwnState::Complete)).await.unwrap();
    honest.own(entry(2, OwnState::Complete)).await.unwrap();
    first.shutdown().await;
    drop(first);
    // The squatter registers before any other peer is back.
    let second = strict(&network, 2, one_owner).await;
    let squatter = client(&network, "squatter");
    squatter.own(entry(1, OwnState::Complete)).await.unwrap();
    let Some(OwnEvent::Refused(refused)) = next(&mut events).await else {
        panic!("nothing is said");
    };
    let full = Refusal::OwnersPerContent { max: 1 };
    assert_eq!((&refused.tracker, refused.id), (&addr(TRACKER), id(1)));
    assert_eq!(refused.refusal, full);
    assert_eq!(honest.refused(), [refused]);
    // Accepted contents are listed, and the others are announced again at a pace.
    let asker = client(&network, "asker");
    let found = asker.need(id(2).into(), 9).await.unwrap();
    assert_eq!(addrs(&found), ["memory:honest"]);
    let before = second.stats().registry.requests.own;
    sleep(Duration::from_secs(3600)).await;
    let asked = second.stats().registry.requests.own - before;
    assert!((60..=125).contains(&asked), "{asked}");
    squatter.shutdown().await;
    sleep(RETRIED).await;
    let found = asker.need(id(1).into(), 9).await.unwrap();
    assert_eq!(addrs(&found), ["memory:honest"]);
    let (tracker, id) = (addr(TRACKER), id(1));
    let name = entry(1, OwnState::Complete).name;
    assert_eq!(
        next(&mut events).await,
        Some(OwnEvent::Taken { tracker, id, name })
    );
    assert_eq!(honest.refused(), []);
    honest.shutdown().await;
    assert_eq!(next(&mut events).await, None);
    assert_eq!(next(&mut honest.events()).await, None);
}

#[tokio::test(start_paused = true)]
async fn refused_content_that_is_gone_is_not_announced_again() {
    let network = MemoryNetwork::new(1);
    let tracker = strict(&network, 1, |config| config.max_contents_per_peer = 1).await;
    let owner = client(&network, "owner");
    owner.own(entry(1, OwnState::Complete)).await.unwrap();
    let refused = owner.own(entry(2, OwnState::Complete)).await;
    let refusal = Refusal::ContentsPerPeer { max: 1 };
    let tracker_addr = addr(TRACKER);
    assert_eq!(
        refused,
        Err(TrackerError::Refused {
            tracker: tracker_addr,
            refusal
        })
    );
    owner.own(entry(2, OwnState::Gone)).await.unwrap();
    let before = tracker.stats().registry.requests.own;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(tracker.stats().registry.requests.own, before);
    assert_eq!(owner.refused(), []);
}

#[tokio::test(start_paused = true)]
async fn receiver_that_is_too_slow_is_told_how_much_it_has_missed() {
    let network = MemoryNetwork::new(1);
    let _tracker = strict(&network, 1, |config| config.max_contents_per_peer = 1).await;
    let owner = client(&network, "owner");
    let mut events = owner.events();
    owner.own(entry(0, OwnState::Complete)).await.unwrap();
    for round in 0..2 {
        for number in 1..=200 {
            let refused = owner.own(entry(number, OwnState::Complete)).await;
            assert!(refused.is_err());
            owner.own(entry(number, OwnState::Gone)).await.unwrap();
        }
        assert_eq!(owner.refused(), [], "in round {round}");
    }
    assert_eq!(
        next(&mut events).await,
        Some(OwnEvent::Missed { count: 144 })
    );
    assert!(matches!(
        next(&mut events).await,
        Some(OwnEvent::Refused(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn content_is_shared_and_found_by_its_id_although_its_name_is_taken() {
    let network = MemoryNetwork::new(1);
    let tracker = strict(&network, 1, |config| config.max_contents_per_name = 1).await;
    let squatter = client(&network, "squatter");
    squatter.own(entry(1, OwnState::Complete)).await.unwrap();
    let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new())
        .tracker(TRACKER)
        .listen("memory:peer")
        .start()
        .await
        .unwrap();
    let name = entry(1, OwnState::Complete).name;
    let source = ShareSource::bytes(name.clone(), &b"bytes"[..]);
    let content = peer.share(source).await.unwrap();
    let asker = client(&network, "asker");
    let found = asker.need(content.id.into(), 9).await.unwrap();
    assert_eq!(addrs(&found), ["memory:peer"]);
    assert_eq!(tracker.stats().registry.refusals.contents_per_name, 1);
    // It is found by its name as soon as that has a place.
    squatter.shutdown().await;
    sleep(RETRIED).await;
    let found = asker.need(name.into(), 9).await.unwrap();
    assert_eq!(found.id, content.id);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_block_others_of_their_host() {
    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .max_connections_per_host(10)
        .bind(TRACKER)
        .await
        .unwrap();
    let mut first = Raw::connect(&network, "host").await;
    first.register(None).await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Raw::connect(&network, "host").await);
    }
    let mut honest = Raw::connect(&network, "host").await;
    honest.register(None).await;
    first.register(None).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let stats = tracker.stats();
    assert_eq!((stats.connections, stats.gave_way), (10, 92));
    // The oldest connections are gone, and the others are not.
    assert_eq!(silent[0].reply().await, None);
    silent[99].register(None).await;
}

#[tokio::test(start_paused = true)]
async fn silent_hosts_do_not_block_others() {
    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .max_connections(20)
        .max_connections_per_host(10)
        .bind(TRACKER)
        .await
        .unwrap();
    let mut first = Raw::connect(&network, "first").await;
    first.register(None).await;
    let mut silent = Vec::new();
    for host in ["a", "b", "c"] {
        for _ in 0..30 {
            silent.push(Raw::connect(&network, host).await);
        }
    }
    let mut others = Vec::new();
    for number in 0..19 {
        let mut other = Raw::connect(&network, &format!("other-{number}")).await;
        other.register(None).await;
        others.push(other);
    }
    first.register(None).await;
    assert_eq!(tracker.stats().connections, 20);
    assert_eq!(tracker.stats().registry.refusals.busy, 0);
    // Connections that have asked for something stay, and new ones are refused.
    let mut late = Raw::connect(&network, "late").await;
    let busy = TrackerReply::Refused(Refusal::Busy);
    assert_eq!(late.reply().await, Some(busy));
    for other in &mut others {
        other.register(None).await;
    }
}

fn duration(extreme: u64) -> Duration {
    match extreme {
        u64::MAX => Duration::MAX,
        seconds => Duration::from_secs(seconds),
    }
}

#[tokio::test(start_paused = true)]
async fn tracker_works_with_any_figures() {
    type Set = fn(&mut TrackerConfig, u64);
    let fields: [(&str, Set); 6] = [
        ("max_connections", |c, x| c.max_connections = x as usize),
        ("max_connections_per_host", |c, x| {
            c.max_connections_per_host = x as usize;
        }),
        ("shards", |c, x| c.shards = x as u32),
        ("heartbeat", |c, x| c.registry.heartbeat = duration(x)),
        ("grace", |c, x| c.registry.grace = duration(x)),
        ("half_life", |c, x| c.registry.half_life = duration(x)),
    ];
    for (field, set) in fields {
        for extreme in [0, 1, u64::MAX] {
            let network = MemoryNetwork::new(1);
            let mut config = TrackerConfig::default();
            set(&mut config, extreme);
            let bound = Tracker::builder(network.endpoint("tracker"))
                .config(config)
                .bind(TRACKER)
                .await;
            let tracker = match bound {
                Ok(tracker) => tracker,
                Err(BindError::Config(error)) => {
                    assert!(
                        error.to_string().contains(field),
                        "{field} {extreme}: {error}"
                    );
                    continue;
                }
                Err(error) => panic!("{field} {extreme}: {error}"),
            };
            let mut raw = Raw::connect(&network, "peer").await;
            let listen = Some(addr("memory:peer"));
            let request = TrackerRequest::Register {
                listen,
                token: None,
            };
            let reply = raw.ask(&request).await;
            assert!(matches!(reply, TrackerReply::Registered(_)), "{field}");
            sleep(Duration::from_secs(60)).await;
            tracker.snapshot();
            tracker.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn client_works_with_any_figures() {
    type Set = fn(&mut ClientConfig, u64);
    let fields: [(&str, Set); 10] = [
        ("request_timeout", |c, x| c.request_timeout = duration(x)),
        ("need_grace", |c, x| c.need_grace = duration(x)),
        ("report_interval", |c, x| c.report_interval = duration(x)),
        ("first backoff", |c, x| c.backoff.0 = duration(x)),
        ("longest backoff", |c, x| c.backoff.1 = duration(x)),
        ("return_spread", |c, x| c.return_spread = duration(x)),
        ("first own_retry", |c, x| c.own_retry.0 = duration(x)),
        ("longest own_retry", |c, x| c.own_retry.1 = duration(x)),
        ("max_contents", |c, x| c.max_contents = x as usize),
        ("max_known_owners", |c, x| c.max_known_owners = x as usize),
    ];
    for (field, set) in fields {
        for extreme in [0, 1, u64::MAX] {
            let network = MemoryNetwork::new(1);
            let one = |config: &mut RegistryConfig| config.max_contents_per_peer = 1;
            let first = strict(&network, 1, one).await;
            let mut config = ClientConfig::default();
            config.seed = Some(1);
            set(&mut config, extreme);
            let client = TrackerClient::start(
                Arc::new(network.endpoint("peer")),
                vec![addr(TRACKER), addr("memory:nobody")],
                Some(addr("memory:peer")),
                config,
            );
            let minute = Duration::from_secs(60);
            let lasts = (field, extreme) == ("request_timeout", u64::MAX);
            let alive = |outcome: Result<_, _>, what: &str| match outcome {
                Ok(Err(TrackerError::Closed)) => panic!("{what}: {field} {extreme}"),
                Err(_) if !lasts => panic!("{what} takes for ever: {field} {extreme}"),
                _ => {}
            };
            alive(timeout(minute, client.registered()).await, "registered");
            for number in 1..4 {
                let own = client.own(entry(number, OwnState::Complete));
                alive(timeout(minute, own).await, "own");
            }
            let need = client.need(id(1).into(), 9);
            alive(
                timeout(minute, need).await.map(|found| found.map(drop)),
                "need",
            );
            client.credit(&addr("memory:x"), u64::MAX);
            // It loses its tracker, which then comes back.
            first.shutdown().await;
            drop(first);
            sleep(minute).await;
            let second = strict(&network, 2, one).await;
            sleep(2 * minute).await;
            let need = client.need(id(1).into(), 9);
            alive(
                timeout(minute, need).await.map(|found| found.map(drop)),
                "need again",
            );
            client.refused();
            client.shutdown().await;
            second.shutdown().await;
        }
    }
}
