//! Several trackers are as one.

use bt_lite::protocol::Refusal;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn peer_registers_at_one_tracker_asks_another_and_is_credited_at_a_third() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let mut trackers = Vec::new();
    for number in 0..3 {
        trackers.push(tracker(&network, number, config(&[&server])).await);
    }
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let registered = owner.register("memory:owner", None).await;
    let mut elsewhere = Raw::connect(&network, "owner", 1).await;
    let entries = vec![entry(1, OwnState::Complete), entry(2, OwnState::Partial)];
    let owned = elsewhere.own(registered.token, entries).await;
    assert_eq!(owned, TrackerReply::Done);
    let again = elsewhere
        .register("memory:owner", Some(registered.token))
        .await;
    assert_eq!(again, registered, "the same token, epoch and address");

    let mut asker = Raw::connect(&network, "asker", 2).await;
    let token = asker.register("memory:asker", None).await.token;
    let found = asker.owners(token, 1).await;
    assert_eq!(addrs(&found), ["memory:owner"]);
    assert_eq!((found.length, found.name.as_str()), (1000, "name-1"));
    assert!(found.owners[0].complete);
    assert!(!asker.owners(token, 2).await.owners[0].complete);
    let none = asker.need(token, 3).await;
    assert_eq!(none, TrackerReply::Refused(Refusal::UnknownContent));

    // By name, at another tracker.
    let mut asker = Raw::connect(&network, "asker", 0).await;
    let request = TrackerRequest::Need {
        token,
        key: "name-2"
            .parse::<bt_lite::ContentName>()
            .expect("a name")
            .into(),
        max_owners: 50,
    };
    let TrackerReply::Found(by_name) = asker.ask(&request).await else {
        panic!("it is found by its name");
    };
    assert_eq!((by_name.id, addrs(&by_name)), (id(2), vec!["memory:owner"]));

    let uploads = vec![Upload::new(found.owners[0].owner, 5000)];
    assert_eq!(asker.update(token, uploads).await, TrackerReply::Done);
    let all = credited(&server).await;
    assert_eq!(
        all,
        [("memory:asker".into(), 0), ("memory:owner".into(), 5000)]
    );

    assert_eq!(elsewhere.exit(registered.token).await, TrackerReply::Done);
    let gone = asker.need(token, 1).await;
    assert_eq!(gone, TrackerReply::Refused(Refusal::UnknownContent));
    let unknown = owner.exit(registered.token).await;
    assert_eq!(unknown, TrackerReply::Refused(Refusal::UnknownToken));
    for tracker in trackers {
        let store = tracker.stats().store.expect("it shares a store");
        assert_eq!(
            (store.away, store.losses, store.answered_without),
            (None, 0, 0)
        );
        tracker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_that_is_over_ends_what_the_peer_owned_and_leaves_no_key() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network, 0, config(&[&server])).await;
    let mut raw = Raw::connect(&network, "peer", 0).await;
    let token = raw.register("memory:peer", None).await.token;
    let entries = (0..200).map(|number| entry(number, OwnState::Complete));
    assert_eq!(raw.own(token, entries.collect()).await, TrackerReply::Done);
    until("the peer is counted", async || {
        tracker.stats().registry.ownerships == 200
    })
    .await;
    until("it is forgotten", async || {
        tracker.stats().registry.expired == 1
    })
    .await;
    let redis::Value::Array(keys) = server.tell(&["KEYS", "*"]).await else {
        panic!("keys");
    };
    let keys: Vec<String> = keys
        .into_iter()
        .map(|key| redis::from_redis_value(key).expect("a key"))
        .collect();
    let lasting = |key: &String| key.ends_with(":sum") || key == "bt_lite:meta";
    let left: Vec<&String> = keys.iter().filter(|key| !lasting(key)).collect();
    assert!(left.is_empty(), "{left:?}");
    until("nothing is counted", async || {
        let stats = tracker.stats().registry;
        (stats.peers, stats.contents, stats.ownerships) == (0, 0, 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_of_a_host_hold_over_all_trackers() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let mut trackers = Vec::new();
    for number in 0..2 {
        let registry = registry().max_peers_per_host(3).max_contents_per_peer(2);
        let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
        let builder = builder.registry(registry).redis(config(&[&server]));
        let bound = builder.bind(format!("memory:t{number}")).await;
        trackers.push(bound.expect("it starts"));
    }
    let mut both = [
        Raw::connect(&network, "peer", 0).await,
        Raw::connect(&network, "peer", 1).await,
    ];
    let mut tokens = Vec::new();
    for number in 0..3 {
        let registered = both[number % 2].register("memory:peer", None).await;
        tokens.push(registered.token);
    }
    for raw in &mut both {
        let listen = Some(addr("memory:peer"));
        let token = None;
        let refused = raw.ask(&TrackerRequest::Register { listen, token }).await;
        let full = Refusal::PeersPerHost { max: 3 };
        assert_eq!(refused, TrackerReply::Refused(full));
    }
    let one = |number| vec![entry(number, OwnState::Complete)];
    assert_eq!(both[0].own(tokens[0], one(1)).await, TrackerReply::Done);
    assert_eq!(both[1].own(tokens[0], one(2)).await, TrackerReply::Done);
    let TrackerReply::Partly(refused) = both[0].own(tokens[0], one(3)).await else {
        panic!("one more is refused");
    };
    assert_eq!(refused[0].refusal, Refusal::ContentsPerPeer { max: 2 });
    // What goes makes room.
    let gone = vec![entry(1, OwnState::Gone)];
    assert_eq!(both[1].own(tokens[0], gone).await, TrackerReply::Done);
    assert_eq!(both[0].own(tokens[0], one(3)).await, TrackerReply::Done);
    assert_eq!(both[0].exit(tokens[1]).await, TrackerReply::Done);
    both[1].register("memory:peer", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_the_store_has_forgotten_are_given_to_it_again() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network, 0, config(&[&server])).await;
    let mut raw = Raw::connect(&network, "peer", 0).await;
    let token = raw.register("memory:peer", None).await.token;
    server.tell(&["SCRIPT", "FLUSH"]).await;
    let entries = vec![entry(1, OwnState::Complete)];
    raw.send(&TrackerRequest::Own { token, entries }).await;
    let request = TrackerRequest::Need {
        token,
        key: id(1).into(),
        max_owners: 50,
    };
    raw.send(&request).await;
    assert_eq!(raw.reply().await, TrackerReply::Done);
    assert!(matches!(raw.reply().await, TrackerReply::Found(_)));
    assert_eq!(tracker.stats().store.expect("a store").losses, 0);
}
