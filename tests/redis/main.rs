//! Several trackers over one Redis, which is a real one, and so is the time: whether peers
//! are found, forgotten and credited as by one tracker, also while trackers and stores die.

mod access;
mod away;
mod cluster;
mod crowd;
mod drain;
mod errors;
mod figures;
mod nodes;
#[path = "../world/policies.rs"]
#[allow(dead_code)] // Some policies are not needed here.
mod policies;
mod same_as_memory;
mod server;
mod several;
mod torrents;

use std::time::Duration;

use bt_lite::protocol::{
    Found, OwnEntry, OwnState, Registered, Token, TrackerReply, TrackerRequest, Upload,
};
use bt_lite::tracker::{RedisConfig, RegistryConfig, Tracker};
use bt_lite::transport::Connection;
use bt_lite::{Addr, ContentId, MemoryNetwork, Transport};
use futures::{SinkExt, StreamExt};
use server::Server;
use tokio::time::sleep;

/// The secret of the trackers of all tests.
const KEY: [u8; 32] = [7; 32];

/// How long a test looks for what must happen. It happens within a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

fn addr(text: &str) -> Addr {
    text.parse().expect("an address")
}

fn id(number: u8) -> ContentId {
    ContentId::from_bytes([number; 32])
}

fn entry(number: u8, state: OwnState) -> OwnEntry {
    let name = format!("name-{number}").parse().expect("a name");
    OwnEntry::new(id(number), name, 1000, state)
}

/// One that forgets within seconds.
fn registry() -> RegistryConfig {
    let config = RegistryConfig::default().heartbeat(Duration::from_secs(3));
    config.grace(Duration::from_secs(2))
}

fn config(servers: &[&Server]) -> RedisConfig {
    RedisConfig::new(servers.iter().map(|server| server.url()), KEY)
}

/// The tracker with this number, at `memory:tNUMBER`.
async fn tracker(network: &MemoryNetwork, number: usize, config: RedisConfig) -> Tracker {
    let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
    let builder = builder.registry(registry()).redis(config);
    let tracker = builder.bind(format!("memory:t{number}")).await;
    tracker.expect("it starts")
}

/// Looks again and again until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, look).await;
    assert!(found.is_ok(), "it never came about that {what}");
}

/// A client that does what it is told, at one tracker.
struct Raw(Connection);

impl Raw {
    async fn connect(network: &MemoryNetwork, name: &str, tracker: usize) -> Self {
        let at = addr(&format!("memory:t{tracker}"));
        let connection = network.endpoint(name).connect(&at).await;
        Self(connection.expect("the tracker accepts"))
    }

    async fn send(&mut self, request: &TrackerRequest) {
        let frame = request.encode().expect("it fits");
        self.0.sink.send(frame).await.expect("it is sent");
    }

    async fn reply(&mut self) -> TrackerReply {
        let frame = self.0.stream.next().await.expect("an answer");
        TrackerReply::decode(frame.expect("an answer")).expect("a reply")
    }

    async fn ask(&mut self, request: &TrackerRequest) -> TrackerReply {
        self.send(request).await;
        self.reply().await
    }

    async fn register(&mut self, listen: &str, token: Option<Token>) -> Registered {
        let listen = Some(addr(listen));
        match self.ask(&TrackerRequest::Register { listen, token }).await {
            TrackerReply::Registered(registered) => registered,
            other => panic!("{other:?}"),
        }
    }

    async fn own(&mut self, token: Token, entries: Vec<OwnEntry>) -> TrackerReply {
        self.ask(&TrackerRequest::Own { token, entries }).await
    }

    async fn need(&mut self, token: Token, number: u8) -> TrackerReply {
        let key = id(number).into();
        let max_owners = 50;
        let request = TrackerRequest::Need {
            token,
            key,
            max_owners,
        };
        self.ask(&request).await
    }

    /// The owners of a content that is known.
    async fn owners(&mut self, token: Token, number: u8) -> Found {
        match self.need(token, number).await {
            TrackerReply::Found(found) => found,
            other => panic!("{other:?}"),
        }
    }

    async fn update(&mut self, token: Token, uploads: Vec<Upload>) -> TrackerReply {
        self.ask(&TrackerRequest::Update { token, uploads }).await
    }

    async fn exit(&mut self, token: Token) -> TrackerReply {
        self.ask(&TrackerRequest::Exit { token }).await
    }
}

/// The addresses of owners, in order.
fn addrs(found: &Found) -> Vec<&str> {
    let owners = found.owners.iter();
    let mut addrs: Vec<&str> = owners.map(|owner| owner.addr.as_str()).collect();
    addrs.sort_unstable();
    addrs
}

/// All bytes with which each peer was credited, by its address. Of a cluster it is what one
/// node has.
async fn credited(server: &Server) -> Vec<(String, u64)> {
    let mut connection = server.connection().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("bt_lite:{p*}:????????????????")
        .query_async(&mut connection)
        .await
        .expect("keys");
    let mut pipe = redis::pipe();
    for key in &keys {
        pipe.cmd("HMGET").arg(key).arg(&["addr", "bytes"]);
    }
    let peers: Vec<(Option<String>, Option<u64>)> = match keys.is_empty() {
        true => Vec::new(),
        false => pipe.query_async(&mut connection).await.expect("peers"),
    };
    // Some may have gone by now.
    let peers = peers.into_iter();
    let credited = peers.filter_map(|(addr, bytes)| Some((addr?, bytes.unwrap_or(0))));
    let mut credited: Vec<(String, u64)> = credited.collect();
    credited.sort();
    credited
}
