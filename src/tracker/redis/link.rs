//! The connections to the store, which is one server or the masters of a cluster: found, lost
//! and found again, and which call goes to which. It knows nothing of peers.
//!
//! A primary has all slots of the table, so both kinds of stores are the same from there on.
//! What is lost is lost for the calls that needed it: those to other nodes are answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, Value};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::config::{RedisConfig, StoreError};
use super::node::{Answer, Info, Wire};
use super::plan::Present;
use super::schema::{Keys, SCHEMA};
use super::scripts::{Call, Route, Script};
use super::slots::{NodeAddr, SlotMap, SlotTable};
use super::values::{number, parts, text};
use crate::metrics;

/// How many batches are under way at once. So many keep the store busy, and with more it
/// would seem silent to the last of them; those wait for their turn, in order. No more wait
/// than there are connections to the tracker.
const MAX_UNDER_WAY: usize = 128;

/// How often a call is led to another node, or made again as its keys are on their way. A slot
/// moves once at a time; that two nodes do not agree yet passes within a few tries.
const MAX_TURNS: u32 = 5;

/// The pause before a call is made again whose keys are on their way, times the number of the
/// turn: all pauses together are shorter than a client waits.
const PAUSE_OF_TURN: Duration = Duration::from_millis(20);

/// The store is away, or too slow. Who has noticed that it is away has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// The connections to the store, as far as there are any.
#[derive(Debug)]
pub(super) struct Link {
    clients: Vec<Client>,
    wire: Wire,
    keys: Keys,
    fingerprint: String,
    state: Mutex<State>,
    turns: Semaphore,
    /// Notified when a part of the store is lost, or slots have moved.
    pub(super) lost: Notify,
    losses: AtomicU64,
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    slots: SlotTable,
    /// How the nodes of the cluster are reached, if it is one.
    cluster: Option<Client>,
    /// Whether slots have moved since the table was made.
    is_stale: bool,
    /// The number of the next connection.
    serial: u64,
    /// The URL that was used last.
    at: usize,
    present: Present,
    store: String,
    lost_at: Option<Instant>,
}

/// A server of the store.
#[derive(Debug, Clone)]
struct Node {
    /// Where it is, if it is one of a cluster.
    addr: Option<NodeAddr>,
    connection: Option<MultiplexedConnection>,
    /// Of which connection an error tells.
    serial: u64,
    /// When it has answered last, by the clock of the wire.
    answered: Arc<AtomicU64>,
    /// What it has said of its history last.
    history: Arc<str>,
    /// Whether it had slots when the table was made.
    has_slots: bool,
}

/// What the trackers of a store have agreed on.
struct Meta {
    store: String,
    founded: u64,
}

/// Where a call goes on its next turn.
#[derive(Debug, Clone)]
enum Target {
    Routed(Route),
    /// To this node for this once.
    Asking(NodeAddr),
}

/// Calls that go to one node together.
struct Group {
    node: Node,
    is_asking: bool,
    calls: Vec<usize>,
}

impl Link {
    /// A link that is not connected yet.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if a URL is none.
    pub(super) fn new(config: &RedisConfig, keys: Keys) -> Result<Self, StoreError> {
        let clients = config.urls.iter().map(|url| {
            Client::open(url.as_str()).map_err(|error| StoreError::Unreachable {
                message: error.to_string(),
            })
        });
        let fingerprint = blake3::derive_key("bt_lite 2026 key of a shared store", &config.key);
        Ok(Self {
            clients: clients.collect::<Result<_, _>>()?,
            wire: Wire::new(config.patience),
            keys,
            fingerprint: blake3::Hash::from_bytes(fingerprint).to_hex()[..16].to_owned(),
            state: Mutex::new(State {
                nodes: Vec::new(),
                slots: SlotTable::empty(),
                cluster: None,
                is_stale: false,
                serial: 0,
                at: 0,
                present: Present::default(),
                store: String::new(),
                lost_at: None,
            }),
            turns: Semaphore::new(MAX_UNDER_WAY),
            lost: Notify::new(),
            losses: AtomicU64::new(0),
        })
    }

    /// What is true of the store, as far as is known.
    pub(super) fn present(&self) -> Present {
        self.state().present
    }

    pub(super) fn set_totals(&self, totals: [u64; 3]) {
        self.state().present.totals = totals;
    }

    /// For how long the store, or a part of it, has been away, if it is.
    pub(super) fn away(&self) -> Option<Duration> {
        Some(self.state().lost_at?.elapsed())
    }

    /// Whether all of the store is there, as far as is known.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.state();
        let mut nodes = state.nodes.iter();
        let all = nodes.all(|node| node.connection.is_some());
        all && !state.nodes.is_empty() && !state.is_stale && state.lost_at.is_none()
    }

    /// Whether the store is a cluster. Then what one node forgets another one may remember.
    pub(super) fn is_of_cluster(&self) -> bool {
        self.state().cluster.is_some()
    }

    /// How many servers it has.
    pub(super) fn node_count(&self) -> usize {
        self.state().nodes.len()
    }

    /// How often the store was lost, how many pipelines were sent to it, and how many calls.
    pub(super) fn counts(&self) -> [u64; 3] {
        let [round_trips, calls] = self.wire.counts();
        [self.losses.load(Ordering::Relaxed), round_trips, calls]
    }

    /// Makes calls as [`run`](Self::run) does. All of them count as lost if one is.
    pub(super) async fn run_all(&self, calls: &[Call]) -> Result<Vec<Value>, Lost> {
        self.run(calls).await.into_iter().collect()
    }

    /// Makes calls: in one round trip to each node that they are for, all at once, and in
    /// their order at each. Whatever the store refuses for a reason of its own is answered
    /// with nothing.
    ///
    /// Cancel safe: if it is dropped, the calls may have been made.
    pub(super) async fn run(&self, calls: &[Call]) -> Vec<Result<Value, Lost>> {
        let mut answers: Vec<Result<Value, Lost>> = calls.iter().map(|_| Err(Lost)).collect();
        let Ok(_turn) = self.turns.acquire().await else {
            return answers;
        };
        let routed = |(at, call): (usize, &Call)| (at, Target::Routed(call.route()));
        let mut left: Vec<(usize, Target)> = calls.iter().enumerate().map(routed).collect();
        for turn in 1..=MAX_TURNS {
            let mut groups = self.groups(&left);
            let made = groups.iter_mut().map(|group| {
                let Group {
                    node, is_asking, ..
                } = group;
                let of_group: Vec<&Call> = group.calls.iter().map(|&at| &calls[at]).collect();
                let answered = node.answered.clone();
                let connection = node.connection.as_mut();
                async move {
                    match connection {
                        Some(connection) => {
                            let made = self
                                .wire
                                .exchange(connection, &of_group, *is_asking, &answered);
                            made.await
                        }
                        None => Err(None),
                    }
                }
            });
            let made = join_all(made).await;
            left = Vec::new();
            let mut waits = false;
            for (group, made) in groups.iter().zip(made) {
                let made = match made {
                    Ok(made) => made,
                    Err(error) => {
                        self.failed(&group.node, error);
                        continue;
                    }
                };
                for (&at, answer) in group.calls.iter().zip(made) {
                    match answer {
                        Answer::Value(value) => answers[at] = Ok(value),
                        Answer::Again => {
                            waits = true;
                            left.push((at, Target::Routed(calls[at].route())));
                        }
                        Answer::Elsewhere { to, has_moved } => {
                            let target = self.led(&group.node, &to, has_moved, &calls[at]);
                            left.extend(target.map(|target| (at, target)));
                        }
                    }
                }
            }
            if left.is_empty() {
                break;
            }
            self.reach(&left).await;
            if waits {
                sleep(PAUSE_OF_TURN * turn).await;
            }
        }
        answers
    }

    /// Who is to make which of these calls. Those that nobody can make are in no group.
    fn groups(&self, left: &[(usize, Target)]) -> Vec<Group> {
        let state = self.state();
        let mut groups: Vec<Group> = Vec::new();
        for (at, target) in left {
            let (node, is_asking) = match target {
                Target::Routed(Route::Slot(slot)) => (state.slots.node_of(*slot), false),
                Target::Routed(Route::Node(node)) => (Some(*node), false),
                Target::Asking(addr) => (state.node_at(addr), true),
            };
            let Some(node) = node.and_then(|node| state.nodes.get(node)) else {
                continue;
            };
            if node.connection.is_none() {
                continue;
            }
            let mut same = groups.iter_mut();
            let same =
                same.find(|group| group.node.serial == node.serial && group.is_asking == is_asking);
            match same {
                Some(group) => group.calls.push(*at),
                None => groups.push(Group {
                    node: node.clone(),
                    is_asking,
                    calls: vec![*at],
                }),
            }
        }
        groups
    }

    /// Follows a redirection. `None` if it leads nowhere.
    fn led(&self, by: &Node, to: &str, has_moved: bool, call: &Call) -> Option<Target> {
        let said_by = match &by.addr {
            Some(addr) => &addr.host,
            // It was no cluster when it was connected to.
            None => {
                let message = "it has become one of a cluster".into();
                self.lose(by.serial, &StoreError::Unreachable { message });
                return None;
            }
        };
        let to = NodeAddr::parse(to, said_by)?;
        if !has_moved {
            return Some(Target::Asking(to));
        }
        let mut state = self.state();
        state.is_stale = true;
        self.lost.notify_one();
        let node = match state.node_at(&to) {
            Some(node) => node,
            None => state.add(to, None),
        };
        if let Route::Slot(slot) = call.route() {
            state.slots.moved(slot, node);
        }
        Some(Target::Routed(call.route()))
    }

    /// Connects to those nodes that are wanted now and were not known before.
    async fn reach(&self, left: &[(usize, Target)]) {
        let (client, unknown) = {
            let mut state = self.state();
            for (_, target) in left {
                if let Target::Asking(addr) = target
                    && state.node_at(addr).is_none()
                {
                    state.add(addr.clone(), None);
                }
            }
            let new = state.nodes.iter().filter(|node| node.is_new());
            let new: Vec<NodeAddr> = new.filter_map(|node| node.addr.clone()).collect();
            (state.cluster.clone(), new)
        };
        let Some(client) = client.filter(|_| !unknown.is_empty()) else {
            return;
        };
        let opened = unknown.iter().map(|addr| self.open(&client, addr));
        for (addr, opened) in unknown.iter().zip(join_all(opened).await) {
            match opened {
                Ok(opened) => self.state().connected(addr, opened),
                Err(error) => debug!(%error, ?addr, "a new node is out of reach"),
            }
        }
    }

    /// Connects to a master of a cluster.
    async fn open(
        &self,
        client: &Client,
        addr: &NodeAddr,
    ) -> Result<(MultiplexedConnection, Info), StoreError> {
        let client = client_at(client, addr)?;
        let mut connection = self.wire.connect(&client).await?;
        let info = self.wire.greet(&mut connection).await?;
        match info.is_replica() {
            true => Err(replica()),
            false => Ok((connection, info)),
        }
    }

    /// Calls to a node have failed, with nothing if there was no answer in time.
    fn failed(&self, node: &Node, error: Option<StoreError>) {
        match error {
            // Others are answered: it is busy, and not away.
            None if self.wire.is_lately(&node.answered) => {}
            None => self.lose(node.serial, &self.wire.silence()),
            Some(error) => self.lose(node.serial, &error),
        }
    }

    /// Notes that a connection is of no use.
    fn lose(&self, serial: u64, error: &StoreError) {
        let mut state = self.state();
        let mut nodes = state.nodes.iter_mut();
        let Some(node) = nodes.find(|node| node.serial == serial && node.connection.is_some())
        else {
            return;
        };
        node.connection = None;
        let node = node.addr.clone();
        state.lost_at.get_or_insert_with(Instant::now);
        self.losses.fetch_add(1, Ordering::Relaxed);
        metrics::count(metrics::store::LOSSES, 1);
        metrics::set(metrics::store::UP, 0);
        match node {
            None => warn!(%error, "the store is lost: answering from what is known of it"),
            Some(node) => warn!(%error, ?node, "a node of the store is lost"),
        }
        self.lost.notify_one();
    }

    /// Connects to what is not connected: to the first of the URLs that leads to a store that
    /// accepts changes, or to all masters of a cluster.
    ///
    /// # Errors
    /// What the last of them has said. What is connected by then is used all the same.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        let (cluster, first, known) = {
            let state = self.state();
            let known = state.nodes.iter();
            let known =
                known.filter_map(|node| Some((node.addr.clone()?, node.connection.clone()?)));
            (state.cluster.clone(), state.at, known.collect::<Vec<_>>())
        };
        let mut last = None;
        // Who is connected knows best.
        for (addr, mut connection) in known {
            let Some(client) = &cluster else {
                break;
            };
            match self.map_of(&mut connection, &addr.host).await {
                Ok(map) => return self.join(client, map).await,
                Err(error) => last = Some(error),
            }
        }
        for turn in 0..self.clients.len() {
            let at = (first + turn) % self.clients.len();
            match self.begin(at).await {
                Ok(()) => return Ok(()),
                Err(error @ (StoreError::Schema { .. } | StoreError::Key)) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(StoreError::Unreachable {
            message: "there is no URL".into(),
        }))
    }

    /// Connects to a store by a URL.
    async fn begin(&self, at: usize) -> Result<(), StoreError> {
        let client = &self.clients[at];
        let mut connection = self.wire.connect(client).await?;
        let info = self.wire.greet(&mut connection).await?;
        if info.is_of_cluster() {
            let map = self.map_of(&mut connection, host_of(client)).await?;
            self.state().at = at;
            return self.join(client, map).await;
        }
        if info.is_replica() {
            return Err(replica());
        }
        let meta = self.meta(&mut connection).await?;
        let mut state = self.state();
        (state.at, state.cluster) = (at, None);
        state.serial += 1;
        let node = Node {
            addr: None,
            connection: Some(connection),
            serial: state.serial,
            answered: Arc::default(),
            history: info.history().into(),
            has_slots: true,
        };
        (state.nodes, state.slots) = (vec![node], SlotTable::of_one());
        state.opened(meta);
        state.is_back();
        Ok(())
    }

    /// The slots of a cluster, as this node tells.
    async fn map_of(
        &self,
        connection: &mut MultiplexedConnection,
        host: &str,
    ) -> Result<SlotMap, StoreError> {
        let calls = ["INFO", "SLOTS"].map(|what| Call::to_node(0, &["CLUSTER", what]));
        let answers = self.wire.ask(connection, &calls).await?;
        let [state, slots] = answers.as_slice() else {
            return Err(self.wire.silence());
        };
        let is_ok = text(state).is_some_and(|state| state.contains("cluster_state:ok"));
        let map = SlotMap::parse(slots, host);
        match is_ok && map.is_whole() {
            true => Ok(map),
            false => Err(StoreError::Unreachable {
                message: "the cluster is down".into(),
            }),
        }
    }

    /// Uses the masters of this map.
    async fn join(&self, client: &Client, map: SlotMap) -> Result<(), StoreError> {
        let masters = map.masters();
        let mut nodes: Vec<Node> = {
            let mut state = self.state();
            let nodes = masters.iter().map(|addr| match state.node_at(addr) {
                Some(node) => state.nodes[node].clone(),
                None => state.new_node(addr.clone()),
            });
            nodes.collect()
        };
        let closed = (0..nodes.len()).filter(|&node| nodes[node].connection.is_none());
        let closed: Vec<usize> = closed.collect();
        let opened = closed.iter().map(|&node| self.open(client, &masters[node]));
        let opened = join_all(opened).await;
        let mut failed = None;
        for (&node, opened) in closed.iter().zip(opened) {
            match opened {
                Ok((connection, info)) => {
                    let node = &mut nodes[node];
                    node.connection = Some(connection);
                    node.history = info.history().into();
                    node.answered = Arc::default();
                }
                Err(error) => failed = Some(error),
            }
        }
        let slots = SlotTable::of_map(&map, &masters);
        let meta = Call::command("EXISTS", &self.keys.meta());
        let meta = match meta.route() {
            Route::Slot(slot) => slots.node_of(slot),
            Route::Node(node) => Some(node),
        };
        let meta = meta.and_then(|node| nodes.get(node)?.connection.clone());
        let meta = match meta {
            Some(mut connection) => Some(self.meta(&mut connection).await?),
            None => None,
        };
        let mut state = self.state();
        for &node in &closed {
            state.serial += 1;
            nodes[node].serial = state.serial;
        }
        // Meanwhile others may have been lost.
        for node in &mut nodes {
            node.has_slots = true;
            let mut now = state.nodes.iter();
            let is_lost = now.any(|now| now.serial == node.serial && now.connection.is_none());
            if is_lost {
                node.connection = None;
                failed.get_or_insert_with(|| self.wire.silence());
            }
        }
        state.cluster = Some(client.clone());
        (state.nodes, state.slots, state.is_stale) = (nodes, slots, false);
        if let Some(meta) = meta {
            state.opened(meta);
        }
        match failed {
            None => {
                state.is_back();
                Ok(())
            }
            Some(error) => {
                state.lost_at.get_or_insert_with(Instant::now);
                metrics::set(metrics::store::UP, 0);
                Err(error)
            }
        }
    }

    /// Founds the store, if it is empty, and looks whether it is one for this tracker.
    async fn meta(&self, connection: &mut MultiplexedConnection) -> Result<Meta, StoreError> {
        let id = getrandom::u64().map_err(|error| StoreError::Unreachable {
            message: error.to_string(),
        })?;
        let call = Call::new(Script::Meta, &[self.keys.meta()])
            .arg(SCHEMA)
            .arg(format!("{id:016x}"))
            .arg(&self.fingerprint);
        let answers = self.wire.ask(connection, &[call]).await?;
        let [schema, store, key, founded] = answers.first().map_or(&[][..], parts) else {
            let found = "of another kind".into();
            let expected = SCHEMA;
            return Err(StoreError::Schema { found, expected });
        };
        if text(schema) != Some(SCHEMA) {
            return Err(StoreError::Schema {
                found: text(schema).unwrap_or("of another kind").to_owned(),
                expected: SCHEMA,
            });
        }
        if text(key) != Some(&self.fingerprint) {
            return Err(StoreError::Key);
        }
        Ok(Meta {
            store: text(store).unwrap_or_default().to_owned(),
            founded: number(founded).unwrap_or(0),
        })
    }

    /// What each server is asked of itself, and of which connection each is.
    pub(super) fn info_calls(&self) -> (Vec<u64>, Vec<Call>) {
        let state = self.state();
        let serials = state.nodes.iter().map(|node| node.serial);
        let calls = (0..state.nodes.len()).flat_map(Info::calls);
        (serials.collect(), calls.collect())
    }

    /// Looks whether the store is still what it was, from what its servers say of themselves:
    /// one that was promoted, or that has started again, may have lost the last moments.
    pub(super) fn check(&self, serials: &[u64], answers: &[Result<Value, Lost>]) {
        for (serial, answers) in serials.iter().zip(answers.chunks(2)) {
            let [Ok(server), Ok(replication)] = answers else {
                continue;
            };
            let info = Info::of(&[server.clone(), replication.clone()]);
            if info.is_replica() {
                self.lose(*serial, &replica());
                continue;
            }
            let mut state = self.state();
            let mut nodes = state.nodes.iter_mut();
            let node = nodes.find(|node| node.serial == *serial && node.connection.is_some());
            if let Some(node) = node {
                node.history = info.history().into();
            }
        }
        self.state().look_at_history();
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Whether it was heard of, and never connected to.
    fn is_new(&self) -> bool {
        self.connection.is_none() && self.history.is_empty()
    }
}

impl State {
    fn node_at(&self, addr: &NodeAddr) -> Option<usize> {
        let mut nodes = self.nodes.iter();
        nodes.position(|node| node.addr.as_ref() == Some(addr))
    }

    fn new_node(&mut self, addr: NodeAddr) -> Node {
        self.serial += 1;
        Node {
            addr: Some(addr),
            connection: None,
            serial: self.serial,
            answered: Arc::default(),
            history: "".into(),
            has_slots: false,
        }
    }

    fn add(&mut self, addr: NodeAddr, connection: Option<MultiplexedConnection>) -> usize {
        let mut node = self.new_node(addr);
        node.connection = connection;
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// A node was connected to, unless somebody else was faster.
    fn connected(&mut self, addr: &NodeAddr, (connection, info): (MultiplexedConnection, Info)) {
        let Some(node) = self.node_at(addr) else {
            return;
        };
        let node = &mut self.nodes[node];
        if node.is_new() {
            (node.connection, node.history) = (Some(connection), info.history().into());
        }
    }

    fn opened(&mut self, meta: Meta) {
        if self.lost_at.is_some() {
            let is_same = self.store == meta.store;
            debug!(is_same, "the store is found again");
        }
        self.store = meta.store;
        self.present.founded = meta.founded;
    }

    /// All of the store is there.
    fn is_back(&mut self) {
        if self.lost_at.take().is_some() {
            info!("the store is back");
        }
        self.look_at_history();
        metrics::set(metrics::store::UP, 1);
    }

    fn look_at_history(&mut self) {
        let nodes = self.nodes.iter().filter(|node| node.has_slots);
        let mut histories: Vec<&str> = nodes.map(|node| &*node.history).collect();
        // As long as one was never heard, it is what it was.
        if histories.is_empty() || histories.contains(&"") {
            return;
        }
        histories.sort_unstable();
        let epoch = epoch_of(&self.store, &histories);
        if std::mem::replace(&mut self.present.epoch, epoch) != epoch {
            info!("the history of the store has changed");
        }
    }
}

/// What trackers tell as their epoch: the same for all of one store, and another one when the
/// store has another history.
fn epoch_of(store: &str, histories: &[&str]) -> u64 {
    let hash = blake3::hash(format!("{store} {}", histories.join(" ")).as_bytes());
    let (first, _) = hash
        .as_bytes()
        .split_first_chunk::<8>()
        .unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}

fn replica() -> StoreError {
    StoreError::ReadOnly {
        message: "it is a replica".into(),
    }
}

/// The host that a client connects to.
fn host_of(client: &Client) -> &str {
    match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
        _ => "localhost",
    }
}

/// A client of another node, with the same user and the same encryption.
fn client_at(client: &Client, node: &NodeAddr) -> Result<Client, StoreError> {
    let info = client.get_connection_info().clone();
    let addr = match info.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: node.host.clone(),
            port: node.port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(node.host.clone(), node.port),
    };
    Client::open(info.set_addr(addr)).map_err(|error| StoreError::Unreachable {
        message: error.to_string(),
    })
}
