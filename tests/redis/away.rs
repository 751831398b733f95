//! The store is lost, and comes back.

use bt_lite::protocol::Refusal;

use super::*;

/// Asks until there is an answer of this kind.
async fn eventually(raw: &mut Raw, request: &TrackerRequest, is_it: fn(&TrackerReply) -> bool) {
    let look = async {
        loop {
            let reply = raw.ask(request).await;
            if is_it(&reply) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, look).await;
    found.unwrap_or_else(|_| panic!("{request:?} is never answered so"));
}

fn is_done(reply: &TrackerReply) -> bool {
    *reply == TrackerReply::Done
}

#[tokio::test(flavor = "multi_thread")]
async fn tracker_answers_from_what_it_knew_and_catches_up_when_the_store_is_back() {
    let mut server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network, 0, config(&[&server])).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let registered = owner.register("memory:owner", None).await;
    let mut leaver = Raw::connect(&network, "leaver", 0).await;
    let leaving = leaver.register("memory:leaver", None).await.token;
    for (raw, token) in [(&mut owner, registered.token), (&mut leaver, leaving)] {
        let entries = vec![entry(1, OwnState::Complete)];
        assert_eq!(raw.own(token, entries).await, TrackerReply::Done);
    }
    let mut asker = Raw::connect(&network, "asker", 0).await;
    let token = asker.register("memory:asker", None).await.token;
    let found = asker.owners(token, 1).await;
    assert_eq!(addrs(&found), ["memory:leaver", "memory:owner"]);

    server.kill();
    // A heartbeat is one by the token's own proof.
    assert_eq!(
        owner.register("memory:owner", Some(registered.token)).await,
        registered
    );
    assert_eq!(leaver.exit(leaving).await, TrackerReply::Done);
    let found = asker.owners(token, 1).await;
    assert_eq!(addrs(&found), ["memory:owner"], "who has left is not named");
    let unknown = asker.need(token, 2).await;
    assert_eq!(unknown, TrackerReply::Refused(Refusal::Busy));
    let TrackerReply::Partly(refused) = owner
        .own(registered.token, vec![entry(2, OwnState::Complete)])
        .await
    else {
        panic!("it is refused for now");
    };
    assert_eq!((refused.len(), &refused[0].refusal), (1, &Refusal::Busy));
    let uploads = vec![Upload::new(found.owners[0].owner, 5000)];
    for _ in 0..2 {
        let updated = asker.update(token, uploads.clone()).await;
        assert_eq!(updated, TrackerReply::Done);
    }
    // New ones are let in.
    let mut newcomer = Raw::connect(&network, "newcomer", 0).await;
    let new = newcomer.register("memory:newcomer", None).await.token;
    assert_eq!(addrs(&newcomer.owners(new, 1).await), ["memory:owner"]);
    let wrong = owner.need(Token([9; 16]), 1).await;
    assert_eq!(wrong, TrackerReply::Refused(Refusal::UnknownToken));
    let store = tracker.stats().store.expect("a store");
    assert!(
        store.away.is_some() && store.answered_without >= 6,
        "{store:?}"
    );
    assert_eq!((store.losses, store.deferred, store.dropped), (1, 3, 0));

    server.run().await;
    until("the store is found again", async || {
        let store = tracker.stats().store.expect("a store");
        store.away.is_none() && store.deferred == 0
    })
    .await;
    let own = TrackerRequest::Own {
        token: registered.token,
        entries: vec![entry(2, OwnState::Complete)],
    };
    eventually(&mut owner, &own, is_done).await;
    assert_eq!(addrs(&asker.owners(token, 1).await), ["memory:owner"]);
    let all = credited(&server).await;
    let of_owner = all.iter().find(|(addr, _)| addr == "memory:owner");
    assert_eq!(of_owner.map(|(_, bytes)| *bytes), Some(10_000), "{all:?}");
    // The token is as good as before, and the epoch tells that something may be lost.
    let after = owner.register("memory:owner", Some(registered.token)).await;
    assert_eq!(after.token, registered.token);
    assert_ne!(after.epoch, registered.epoch);
    // What it was given without the store is nobody's token.
    let anew = newcomer.register("memory:newcomer", Some(new)).await;
    assert_ne!(anew.token, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn tracker_without_a_store_for_too_long_refuses_as_busy() {
    let mut server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let config = config(&[&server]).answers_without(Duration::ZERO);
    let _tracker = tracker(&network, 0, config).await;
    let mut raw = Raw::connect(&network, "peer", 0).await;
    let token = raw.register("memory:peer", None).await.token;
    server.kill();
    let request = TrackerRequest::Register {
        listen: None,
        token: Some(token),
    };
    let is_busy = |reply: &TrackerReply| *reply == TrackerReply::Refused(Refusal::Busy);
    eventually(&mut raw, &request, is_busy).await;
    server.run().await;
    let is_back = |reply: &TrackerReply| matches!(reply, TrackerReply::Registered(_));
    eventually(&mut raw, &request, is_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promoted_replica_goes_on_with_what_it_has_heard() {
    let mut primary = Server::start().await;
    let replica = Server::replica_of(&primary).await;
    let network = MemoryNetwork::new(1);
    // No lease ends, however long it takes until the replica is used.
    let lasting = registry().grace(Duration::from_secs(600));
    let tracker = Tracker::builder(network.endpoint("t0"));
    let tracker = tracker
        .registry(lasting)
        .redis(config(&[&primary, &replica]));
    let tracker = tracker.bind("memory:t0").await.expect("it starts");
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let registered = owner.register("memory:owner", None).await;
    let entries = vec![entry(1, OwnState::Complete)];
    assert_eq!(
        owner.own(registered.token, entries).await,
        TrackerReply::Done
    );
    let written = primary.written().await;
    until("the replica has heard of it", async || {
        replica.has_heard(written).await
    })
    .await;
    primary.kill();
    assert_eq!(
        owner.register("memory:owner", Some(registered.token)).await,
        registered
    );
    replica.tell(&["REPLICAOF", "NO", "ONE"]).await;
    until("the replica is used", async || {
        tracker.stats().store.expect("a store").away.is_none()
    })
    .await;
    let after = owner.register("memory:owner", Some(registered.token)).await;
    assert_eq!(after.token, registered.token);
    assert_ne!(after.epoch, registered.epoch);
    let mut asker = Raw::connect(&network, "asker", 0).await;
    let token = asker.register("memory:asker", None).await.token;
    assert_eq!(addrs(&asker.owners(token, 1).await), ["memory:owner"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_takes_no_changes_is_away_until_it_takes_them() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network, 0, config(&[&server])).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let registered = owner.register("memory:owner", None).await;
    let own = TrackerRequest::Own {
        token: registered.token,
        entries: vec![entry(1, OwnState::Complete)],
    };
    let broken = [
        // Full.
        (["maxmemory", "1"], ["maxmemory", "0"]),
        // Without the replicas that it insists on.
        (
            ["min-replicas-to-write", "5"],
            ["min-replicas-to-write", "0"],
        ),
    ];
    for (losses, (wrong, right)) in (1..).zip(broken) {
        server.tell(&["CONFIG", "SET", wrong[0], wrong[1]]).await;
        let TrackerReply::Partly(refused) = owner.ask(&own).await else {
            panic!("it is refused with {wrong:?}");
        };
        assert_eq!(refused[0].refusal, Refusal::Busy);
        let heartbeat = owner.register("memory:owner", Some(registered.token)).await;
        assert_eq!(heartbeat, registered);
        assert!(tracker.stats().store.expect("a store").losses >= losses);
        server.tell(&["CONFIG", "SET", right[0], right[1]]).await;
        eventually(&mut owner, &own, is_done).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_does_not_answer_is_away() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let config = config(&[&server]).patience(Duration::from_millis(300));
    let tracker = tracker(&network, 0, config).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let registered = owner.register("memory:owner", None).await;
    server.tell(&["CLIENT", "PAUSE", "2000"]).await;
    assert_eq!(
        owner.register("memory:owner", Some(registered.token)).await,
        registered
    );
    until("it is noticed", async || {
        tracker.stats().store.expect("a store").losses > 0
    })
    .await;
    until("it is back", async || {
        tracker.stats().store.expect("a store").away.is_none()
    })
    .await;
    assert_eq!(
        owner.register("memory:owner", Some(registered.token)).await,
        registered
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_was_emptied_is_another_one() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network, 0, config(&[&server])).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let registered = owner.register("memory:owner", None).await;
    server.tell(&["FLUSHALL"]).await;
    let anew = owner.register("memory:owner", Some(registered.token)).await;
    assert_ne!(anew.token, registered.token);
    until("the peer is counted", async || {
        tracker.stats().registry.peers == 1
    })
    .await;
}
