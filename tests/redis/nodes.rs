//! A Redis Cluster of its own for a test: three masters, with a replica each.

use std::process::{Command, Stdio};
use std::time::Duration;

use futures::future::join_all;
use redis::Value;

use super::server::Server;
use super::until;

/// After how long without an answer a master counts as gone. A machine that is busy with other
/// things does not hold one up for so long.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(3);

/// How many nodes there are: half of them are masters.
const NODES: usize = 6;

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let nodes = (0..NODES).map(|_| Server::of_cluster(NODE_TIMEOUT));
        let cluster = Self {
            nodes: join_all(nodes).await,
        };
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        let addrs = cluster.nodes.iter();
        create.args(addrs.map(|node| format!("127.0.0.1:{}", node.port())));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        create.stdin(Stdio::null()).stdout(Stdio::null());
        let created = tokio::task::spawn_blocking(move || create.status()).await;
        let created = created.expect("no panic").expect("redis-cli can be run");
        assert!(created.success(), "redis-cli creates the cluster");
        cluster.until_whole().await;
        cluster
    }

    fn running(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    /// Waits until all nodes agree that all slots are served, and all replicas have heard of
    /// everything.
    pub(crate) async fn until_whole(&self) {
        until("the cluster is whole", async || {
            for node in self.running() {
                let info = text(node.tell(&["CLUSTER", "INFO"]).await);
                let replication = text(node.tell(&["INFO", "replication"]).await);
                let is_synced = !replication.contains("role:slave")
                    || replication.contains("master_link_status:up");
                if !info.contains("cluster_state:ok") || !is_synced {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// The URLs of these nodes.
    pub(crate) fn urls(&self, nodes: impl IntoIterator<Item = usize>) -> Vec<String> {
        let urls = nodes.into_iter().map(|node| self.nodes[node].url());
        urls.collect()
    }

    /// The ports of the masters, by who has which slots.
    async fn slots(&self) -> Vec<(i64, i64, i64)> {
        let node = self.running().next().expect("one runs");
        let Value::Array(ranges) = node.tell(&["CLUSTER", "SLOTS"]).await else {
            panic!("slots");
        };
        let ranges = ranges.into_iter().map(|range| match range {
            Value::Array(range) => match range.as_slice() {
                [
                    Value::Int(first),
                    Value::Int(last),
                    Value::Array(master),
                    ..,
                ] => match master.get(1) {
                    Some(Value::Int(port)) => (*first, *last, *port),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
        ranges.collect()
    }

    /// The slot of a key, and the number of the master that has it.
    pub(crate) async fn master_of(&self, key: &str) -> (i64, usize) {
        let node = self.running().next().expect("one runs");
        let Value::Int(slot) = node.tell(&["CLUSTER", "KEYSLOT", key]).await else {
            panic!("a slot");
        };
        let slots = self.slots().await;
        let mut slots = slots.iter();
        let has_it = slots.find(|(first, last, _)| (*first..=*last).contains(&slot));
        let (_, _, port) = *has_it.expect("somebody has it");
        (slot, self.at_port(port))
    }

    /// The numbers of all masters.
    pub(crate) async fn masters(&self) -> Vec<usize> {
        let slots = self.slots().await.into_iter();
        let mut masters: Vec<usize> = slots.map(|(_, _, port)| self.at_port(port)).collect();
        masters.sort_unstable();
        masters.dedup();
        masters
    }

    fn at_port(&self, port: i64) -> usize {
        let mut nodes = self.nodes.iter();
        let at = nodes.position(|node| i64::from(node.port()) == port);
        at.expect("a node of this cluster")
    }

    /// Kills a master, without waiting until its replica takes its place.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Waits until none of the masters is this one.
    pub(crate) async fn until_replaced(&self, node: usize) {
        until("a replica takes its place", async || {
            !self.masters().await.contains(&node)
        })
        .await;
        self.until_whole().await;
    }

    async fn id_of(&self, node: usize) -> String {
        text(self.nodes[node].tell(&["CLUSTER", "MYID"]).await)
    }

    /// Begins to move a slot from one master to another one. Its keys are still where they
    /// were.
    pub(crate) async fn begin_to_move(&self, slot: i64, from: usize, to: usize) {
        let slot = slot.to_string();
        let [from_id, to_id] = [self.id_of(from).await, self.id_of(to).await];
        let importing = ["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id];
        self.nodes[to].tell(&importing).await;
        let migrating = ["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id];
        self.nodes[from].tell(&migrating).await;
    }

    /// Moves its keys.
    pub(crate) async fn move_keys(&self, slot: i64, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].port().to_string());
        loop {
            let some = ["CLUSTER", "GETKEYSINSLOT", &slot, "100"];
            let Value::Array(keys) = self.nodes[from].tell(&some).await else {
                panic!("keys");
            };
            if keys.is_empty() {
                return;
            }
            let keys: Vec<String> = keys.into_iter().map(text).collect();
            let to = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let mut words = to.to_vec();
            words.extend(keys.iter().map(String::as_str));
            self.nodes[from].tell(&words).await;
        }
    }

    /// Ends the move.
    pub(crate) async fn end_move(&self, slot: i64, to: usize) {
        let (slot, id) = (slot.to_string(), self.id_of(to).await);
        let masters = self.masters().await;
        // First who gets it, so that it is at any time somebody's.
        let others = masters.into_iter().filter(|master| *master != to);
        for node in std::iter::once(to).chain(others) {
            let node = &self.nodes[node];
            node.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await;
        }
    }
}

pub(crate) fn text(value: Value) -> String {
    redis::from_redis_value(value).expect("a text")
}
