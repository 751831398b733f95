//! A store that is a cluster: nodes die, their replicas take their places, and slots move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bt_lite::protocol::Refusal;
use tokio::time::Instant;

use super::crowd::{GRACE, HEARTBEAT, LOOK, Model, gather, kill, look, report, start};
use super::*;
use crate::nodes::{Cluster, NODE_TIMEOUT};

/// How many clients there are.
const PEERS: usize = 120;

fn store(cluster: &Cluster) -> RedisConfig {
    RedisConfig::new(cluster.urls(0..cluster.nodes.len()), KEY)
}

/// A tracker whose peers have a lease that no test outlasts.
async fn patient(network: &MemoryNetwork, number: usize, config: RedisConfig) -> Tracker {
    let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
    let builder = builder.registry(registry().grace(Duration::from_secs(600)));
    let bound = builder
        .redis(config)
        .bind(format!("memory:t{number}"))
        .await;
    bound.expect("it starts")
}

/// The key of the first content, and one of all keys of its slot.
fn key_of(number: u8) -> String {
    format!("bt_lite:{{c{:02x}}}:{}", number % 16, id(number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowd_outlives_a_master() {
    let mut cluster = Cluster::start().await;
    let network = MemoryNetwork::new(1);
    let mut trackers = Vec::new();
    for number in 0..3 {
        trackers.push(Some(start(&network, number, store(&cluster)).await));
    }
    let (mut crowd, asker) = gather(&network, PEERS).await;
    let mut model = Model::default();
    let stop = Arc::new(AtomicBool::new(false));
    let reporting = tokio::spawn(report(network.clone(), PEERS, stop.clone()));
    look(&asker.client, &mut model, PEERS, Duration::from_secs(2)).await;

    let (_, victim) = cluster.master_of("bt_lite:{c00}:x").await;
    let on_victim = credited(&cluster.nodes[victim]).await;
    let on_victim: Vec<String> = on_victim.into_iter().map(|(addr, _)| addr).collect();
    assert!(!on_victim.is_empty(), "it has a part of the peers");
    cluster.kill(victim);
    let died = Instant::now();
    trackers[0] = None;
    kill(&mut crowd, &mut model, 1);
    look(&asker.client, &mut model, PEERS, NODE_TIMEOUT).await;
    cluster.until_replaced(victim).await;
    let outage = died.elapsed();
    look(&asker.client, &mut model, PEERS, LOOK).await;
    println!(
        "{outage:?} without a master, missing for {:?} at most, listed for {:?} after death",
        model.longest, model.ghost
    );
    assert_eq!(model.missing.len(), 0, "{:?}", model.missing.keys());
    assert!(
        model.longest <= HEARTBEAT,
        "missing for {:?}",
        model.longest
    );
    // Of those that the dead master knew nobody can tell who has died while it was away.
    let lease = HEARTBEAT + GRACE;
    assert!(
        model.ghost <= lease + outage + Duration::from_secs(2),
        "listed for {:?}",
        model.ghost
    );

    // Each report counts once: none twice, and none is lost but for what the dead master had
    // not told its replica.
    stop.store(true, Ordering::Relaxed);
    let reported = reporting.await.expect("it ends");
    assert!(reported.len() > 2, "{reported:?}");
    until("all credits have counted", async || {
        let mut counted = Vec::new();
        for master in cluster.masters().await {
            counted.extend(credited(&cluster.nodes[master]).await);
        }
        let of = |addr: &String| {
            let mut counted = counted.iter();
            counted.find_map(|(at, bytes)| (at == addr).then_some(*bytes))
        };
        for (addr, bytes) in &reported {
            let counted = of(addr).unwrap_or(0);
            assert!(counted <= *bytes, "{addr}: {counted} of {bytes}");
        }
        let of_all = reported
            .iter()
            .map(|(addr, bytes)| (addr, of(addr), *bytes));
        println!("{:?}", of_all.collect::<Vec<_>>());
        let mut safe = reported
            .iter()
            .filter(|(addr, _)| !on_victim.contains(addr));
        safe.all(|(addr, bytes)| of(addr) == Some(*bytes))
    })
    .await;
    let away = trackers
        .iter()
        .flatten()
        .map(|tracker| tracker.stats().store);
    assert!(away.flatten().all(|store| store.away.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_has_is_answered_while_another_one_is_away() {
    let mut cluster = Cluster::start().await;
    for node in &cluster.nodes {
        let alone = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        node.tell(&alone).await;
    }
    let network = MemoryNetwork::new(1);
    let tracker = patient(&network, 0, store(&cluster)).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let registered = owner.register("memory:owner", None).await;
    let token = registered.token;
    let entries = (1..=16).map(|number| entry(number, OwnState::Complete));
    let entries: Vec<OwnEntry> = entries.collect();
    assert_eq!(owner.own(token, entries).await, TrackerReply::Done);
    let mut of_master = Vec::new();
    for number in 1..=16 {
        of_master.push(cluster.master_of(&key_of(number)).await.1);
    }
    let mut asker = Raw::connect(&network, "asker", 0).await;
    let asking = asker.register("memory:asker", None).await.token;
    // One whose going hurts neither the owner nor who asks.
    let mut hurt = Vec::new();
    for master in cluster.masters().await {
        let peers = credited(&cluster.nodes[master]).await;
        if !peers.is_empty() {
            hurt.push(master);
        }
    }
    let victim = of_master.iter().find(|master| !hurt.contains(master));
    let victim = *victim.expect("two peers are on two nodes at most");
    cluster.kill(victim);
    until("it is noticed", async || {
        tracker.stats().store.expect("a store").away.is_some()
    })
    .await;
    for (number, master) in (1..=16).zip(&of_master) {
        let reply = asker.need(asking, number).await;
        match &reply {
            TrackerReply::Found(_) if *master != victim => {}
            TrackerReply::Refused(Refusal::Busy) if *master == victim => {}
            // On a machine that is busy with other things its replica may be there by now.
            _ => assert!(
                !cluster.masters().await.contains(&victim),
                "{number}: {reply:?}"
            ),
        }
    }
    cluster.until_replaced(victim).await;
    until("the tracker is whole again", async || {
        tracker.stats().store.expect("a store").away.is_none()
    })
    .await;
    for number in 1..=16 {
        assert_eq!(addrs(&asker.owners(asking, number).await), ["memory:owner"]);
    }
    let after = owner.register("memory:owner", Some(token)).await;
    assert_eq!(after.token, token);
    assert_ne!(after.epoch, registered.epoch, "something may be lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn slot_moves_while_trackers_work() {
    let cluster = Cluster::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = patient(&network, 0, store(&cluster)).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let token = owner.register("memory:owner", None).await.token;
    let one = || vec![entry(1, OwnState::Complete)];
    assert_eq!(owner.own(token, one()).await, TrackerReply::Done);
    let (slot, from) = cluster.master_of(&key_of(1)).await;
    let masters = cluster.masters().await;
    let to = *masters
        .iter()
        .find(|master| **master != from)
        .expect("another");

    cluster.begin_to_move(slot, from, to).await;
    // Its keys are where they were.
    assert_eq!(addrs(&owner.owners(token, 1).await), [""; 0]);
    cluster.move_keys(slot, from, to).await;
    // They are not, and neither knows yet whose the slot is.
    let mut asker = Raw::connect(&network, "asker", 0).await;
    let asking = asker.register("memory:asker", None).await.token;
    assert_eq!(addrs(&asker.owners(asking, 1).await), ["memory:owner"]);
    cluster.end_move(slot, to).await;
    assert_eq!(cluster.master_of(&key_of(1)).await.1, to);
    // The next one hears where it is.
    assert_eq!(addrs(&asker.owners(asking, 1).await), ["memory:owner"]);
    let gone = vec![entry(1, OwnState::Gone)];
    assert_eq!(owner.own(token, gone).await, TrackerReply::Done);
    let unknown = TrackerReply::Refused(Refusal::UnknownContent);
    assert_eq!(asker.need(asking, 1).await, unknown);
    assert_eq!(owner.own(token, one()).await, TrackerReply::Done);
    // Each redirection was followed at once.
    let store = tracker.stats().store.expect("a store");
    assert_eq!((store.losses, store.answered_without), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_that_its_own_node_has_forgotten_is_listed_no_more() {
    let cluster = Cluster::start().await;
    let network = MemoryNetwork::new(1);
    let _tracker = patient(&network, 0, store(&cluster)).await;
    let mut peers = Vec::new();
    for name in ["lost", "kept"] {
        let mut raw = Raw::connect(&network, name, 0).await;
        let token = raw.register(&format!("memory:{name}"), None).await.token;
        let owned = raw.own(token, vec![entry(1, OwnState::Complete)]).await;
        assert_eq!(owned, TrackerReply::Done);
        peers.push((raw, token));
    }
    // What a replica does that had not heard of one peer, and of what the other one owns.
    for master in cluster.masters().await {
        let node = &cluster.nodes[master];
        let redis::Value::Array(keys) = node.tell(&["KEYS", "bt_lite:{p*"]).await else {
            panic!("keys");
        };
        for key in keys.into_iter().map(nodes::text) {
            let peer = key.strip_suffix(":own");
            let Some(peer) = peer else {
                continue;
            };
            node.tell(&["DEL", &key]).await;
            let at = nodes::text(node.tell(&["HGET", peer, "addr"]).await);
            if at == "memory:lost" {
                node.tell(&["DEL", peer]).await;
            }
        }
    }
    let mut asker = Raw::connect(&network, "asker", 0).await;
    let asking = asker.register("memory:asker", None).await.token;
    let found = asker.owners(asking, 1).await;
    assert_eq!(addrs(&found), ["memory:kept", "memory:lost"]);
    // Another history.
    let replica = (0..cluster.nodes.len()).collect::<Vec<_>>();
    let masters = cluster.masters().await;
    let replica = replica.into_iter().find(|node| !masters.contains(node));
    let replica = &cluster.nodes[replica.expect("there are three")];
    replica.tell(&["CLUSTER", "FAILOVER"]).await;
    until("who is lost is listed no more", async || {
        let found = asker.need(asking, 1).await;
        matches!(found, TrackerReply::Found(found) if addrs(&found) == ["memory:kept"])
    })
    .await;
    // What the other one owns ends with it.
    let (kept, token) = &mut peers[1];
    assert_eq!(kept.exit(*token).await, TrackerReply::Done);
    let unknown = TrackerReply::Refused(Refusal::UnknownContent);
    until("nobody is listed", async || {
        asker.need(asking, 1).await == unknown
    })
    .await;
}
