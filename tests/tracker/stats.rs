//! What a tracker says of itself.

use std::time::Duration;

use bt_lite::protocol::{OwnState, Refusal};
use bt_lite::tracker::{RegistryConfig, Tracker};

use super::*;

#[tokio::test(start_paused = true)]
async fn stats_count_what_is_held_asked_refused_and_connected() {
    let network = MemoryNetwork::new(1);
    let mut registry = RegistryConfig::default();
    registry.max_contents_per_peer = 2;
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .key_and_epoch([5; 32], 1)
        .registry(registry)
        .max_connections_per_host(2)
        .bind(TRACKER)
        .await
        .expect("it binds");
    assert_eq!(tracker.stats(), Default::default());

    let mut raw = Raw::connect(&network, "peer").await;
    let token = raw.register(Some("memory:peer")).await;
    let mut second = Raw::connect(&network, "peer").await;
    let other = second.register(None).await;
    let all = [1, 2, 3].map(|number| entry(number, OwnState::Complete));
    let own = |token, entries| TrackerRequest::Own { token, entries };
    let reply = raw.ask(&own(token, all.to_vec())).await;
    assert!(matches!(reply, TrackerReply::Partly(refused) if refused.len() == 1));
    raw.ask(&own(token, vec![entry(2, OwnState::Gone)])).await;
    second
        .ask(&own(other, vec![entry(1, OwnState::Partial)]))
        .await;
    let need = TrackerRequest::Need {
        token: other,
        key: id(9).into(),
        max_owners: 5,
    };
    let reply = second.ask(&need).await;
    assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownContent));
    // There is room for two of a host, and those have spoken.
    let mut third = Raw::connect(&network, "peer").await;
    assert_eq!(
        third.reply().await,
        Some(TrackerReply::Refused(Refusal::Busy))
    );
    tokio::time::sleep(Duration::from_secs(10)).await;

    let stats = tracker.stats();
    assert_eq!(stats.uptime.as_secs(), 10);
    assert_eq!(
        (stats.connections, stats.accepted, stats.refused),
        (2, 2, 1)
    );
    let registry = stats.registry;
    assert_eq!(
        (registry.peers, registry.contents, registry.ownerships),
        (2, 1, 2)
    );
    // Three, one that is withdrawn, and one of the other.
    assert_eq!(registry.announced, 5);
    let requests = registry.requests;
    assert_eq!((requests.register, requests.own, requests.need), (2, 3, 1));
    assert_eq!((requests.update, requests.exit), (0, 0));
    let refusals = registry.refusals;
    assert_eq!(
        (refusals.contents_per_peer, refusals.unknown_content),
        (1, 1)
    );
    assert_eq!(refusals.busy, 1);
    tracker.shutdown().await;
}
