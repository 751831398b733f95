//! Why a tracker does not start over a store, and what it does not do with one.

use std::sync::Arc;

use bt_lite::tracker::{BindError, ClientConfig, StoreError, TrackerClient};
use bt_lite::{Advice, ErrorKind, Zone};

use super::*;

async fn refused(network: &MemoryNetwork, config: RedisConfig) -> BindError {
    let builder = Tracker::builder(network.endpoint("t")).redis(config);
    let bound = builder.bind("memory:t").await;
    bound.expect_err("it does not start")
}

#[tokio::test(flavor = "multi_thread")]
async fn store_of_another_schema_or_key_is_left_alone() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let first = tracker(&network, 0, config(&[&server])).await;
    let mut other = config(&[&server]);
    other.key = [8; 32];
    let error = refused(&network, other).await;
    assert_eq!(error, BindError::Store(StoreError::Key));
    assert_eq!((error.kind(), error.cause_kind()), ("store", Some("key")));
    // With another prefix it is another store.
    let mut apart = config(&[&server]);
    (apart.key, apart.prefix) = ([8; 32], "other".into());
    let second = tracker(&network, 1, apart).await;
    drop((first, second));
    server.tell(&["HSET", "bt_lite:meta", "schema", "77"]).await;
    let error = refused(&network, config(&[&server])).await;
    let schema = StoreError::Schema {
        found: "77".into(),
        expected: "2",
    };
    assert_eq!(error, BindError::Store(schema));
    assert_eq!(error.advice(), Advice::AskUser);
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_alone_is_no_store_and_neither_is_silence() {
    let primary = Server::start().await;
    let replica = Server::replica_of(&primary).await;
    let network = MemoryNetwork::new(1);
    let error = refused(&network, config(&[&replica])).await;
    assert!(matches!(
        error,
        BindError::Store(StoreError::ReadOnly { .. })
    ));
    assert_eq!(error.advice(), Advice::Retry);
    // Of both, the primary is used, whatever the order.
    let tracker = tracker(&network, 0, config(&[&replica, &primary])).await;
    drop(tracker);
    let mut gone = primary;
    gone.kill();
    let error = refused(&network, config(&[&gone])).await;
    assert!(matches!(
        error,
        BindError::Store(StoreError::Unreachable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_that_cannot_work_is_refused() {
    let network = MemoryNetwork::new(1);
    let url = || RedisConfig::new(["redis://127.0.0.1:1/"], KEY);
    let wrong = [
        RedisConfig::new(Vec::<String>::new(), KEY),
        RedisConfig::new(["redis://127.0.0.1:1/"], [0; 32]),
        url().prefix("a{b".into()),
        url().patience(Duration::ZERO),
        url().patience(Duration::from_secs(11)),
    ];
    for wrong in wrong {
        let error = refused(&network, wrong).await;
        assert!(matches!(error, BindError::Config(_)), "{error:?}");
    }
    let shown = format!("{:?}", url());
    assert!(
        !shown.contains("127.0.0.1") && !shown.contains("key"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_are_not_known_and_clients_in_one_are_served_as_others() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network, 0, config(&[&server])).await;
    let client = |name: &str| {
        let zone: Zone = "a".parse().expect("a zone");
        TrackerClient::start(
            Arc::new(network.endpoint(name)),
            vec![addr("memory:t0")],
            Some(addr(&format!("memory:{name}"))),
            ClientConfig::default().seed(1).zone(zone),
        )
    };
    let owner = client("owner");
    let owned = owner.own(entry(1, OwnState::Complete)).await;
    assert_eq!(owned, Ok(()));
    let found = client("asker").need(id(1).into(), 8).await;
    let found = found.expect("it is found");
    let addrs: Vec<&Addr> = found.owners.iter().map(|owner| &owner.addr).collect();
    assert_eq!(addrs, [&addr("memory:owner")]);
    assert_eq!(found.importers, None);
}
