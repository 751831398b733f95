//! Trackers and their clients, over the in-memory network in virtual time, and once
//! over TCP.

mod access;
mod access_unsure;
mod client;
mod drain;
mod fleet;
#[path = "../world/identities.rs"]
mod identities;
mod many;
mod other_family;
mod pipeline;
#[path = "../world/policies.rs"]
mod policies;
mod restart;
mod server;
mod spans;
mod stats;
mod strangers;
mod zones;

use std::sync::Arc;

use bt_lite::protocol::{Found, OwnEntry, OwnState, Token, TrackerReply, TrackerRequest};
use bt_lite::tracker::{ClientConfig, Tracker, TrackerClient};
use bt_lite::transport::Connection;
use bt_lite::{Addr, ContentId, MemoryNetwork, Transport};
use futures::{SinkExt, StreamExt};

const TRACKER: &str = "memory:tracker";

fn addr(text: &str) -> Addr {
    text.parse().expect("an address")
}

fn id(number: u8) -> ContentId {
    ContentId::from_bytes([number; 32])
}

fn entry(number: u8, state: OwnState) -> OwnEntry {
    OwnEntry::new(
        id(number),
        format!("name-{number}").parse().expect("a name"),
        1000,
        state,
    )
}

async fn tracker(network: &MemoryNetwork) -> Tracker {
    let builder = Tracker::builder(network.endpoint("tracker")).key_and_epoch([5; 32], 1);
    builder.bind(TRACKER).await.expect("it binds")
}

fn client_of(network: &MemoryNetwork, name: &str, trackers: &[&str]) -> TrackerClient {
    let mut config = ClientConfig::default();
    config.seed = Some(1);
    TrackerClient::start(
        Arc::new(network.endpoint(name)),
        trackers.iter().map(|text| addr(text)).collect(),
        Some(addr(&format!("memory:{name}"))),
        config,
    )
}

fn client(network: &MemoryNetwork, name: &str) -> TrackerClient {
    client_of(network, name, &[TRACKER])
}

fn addrs(found: &Found) -> Vec<&str> {
    found
        .owners
        .iter()
        .map(|owner| owner.addr.as_str())
        .collect()
}

/// A client that follows no rules.
struct Raw(Connection);

impl Raw {
    async fn connect(network: &MemoryNetwork, name: &str) -> Self {
        let connection = network.endpoint(name).connect(&addr(TRACKER)).await;
        Self(connection.expect("the tracker accepts"))
    }

    async fn send(&mut self, request: &TrackerRequest) {
        let frame = request.encode().expect("it fits");
        self.0.sink.send(frame).await.expect("it is sent");
    }

    /// The next reply, or `None` at the end of the connection.
    async fn reply(&mut self) -> Option<TrackerReply> {
        let frame = self.0.stream.next().await?.ok()?;
        Some(TrackerReply::decode(frame).expect("a reply"))
    }

    async fn ask(&mut self, request: &TrackerRequest) -> TrackerReply {
        self.send(request).await;
        self.reply().await.expect("an answer")
    }

    async fn register(&mut self, listen: Option<&str>) -> Token {
        let listen = listen.map(addr);
        let request = TrackerRequest::Register {
            listen,
            token: None,
        };
        match self.ask(&request).await {
            TrackerReply::Registered(registered) => registered.token,
            other => panic!("{other:?}"),
        }
    }
}
