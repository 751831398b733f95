//! A small world for tests of whole peers: a tracker and peers over one
//! network: TCP, TLS or QUIC on loopback, or in memory.

// Each test binary uses only some of these items.
#![allow(dead_code)]

pub(crate) mod identities;
pub(crate) mod moment;
pub(crate) mod policies;
pub(crate) mod reading;
pub(crate) mod storages;
pub(crate) mod strangers;
pub(crate) mod traits;
#[cfg(unix)]
pub(crate) mod trees;
pub(crate) mod wire;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bt_lite::peer::{PeerBuilder, PeerConfig};
use bt_lite::protocol::PeerId;
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::transport::auth::{Authenticator, HandshakeConfig, Identity, Secret, Trust};
use bt_lite::transport::{QuicTransport, TlsTransport};
use bt_lite::{
    Addr, Content, ContentName, MemoryNetwork, MemoryStorage, Peer, ShareSource, Storage,
    TcpTransport, Tracker, Transport,
};
use bytes::Bytes;

/// Runs one test body over TCP and in memory.
#[macro_export]
macro_rules! on_both_networks {
    ($(async fn $name:ident($world:ident: World) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn body($world: World) $body

            #[tokio::test]
            async fn over_tcp() {
                soon(async { body(World::tcp().await).await }).await;
            }

            #[tokio::test(start_paused = true)]
            async fn in_memory() {
                soon(async { body(World::memory(1).await).await }).await;
            }
        }
    )*};
}

/// Runs one test body over every network. In a private one, a peer has the id of its key.
#[macro_export]
macro_rules! on_all_networks {
    ($(async fn $name:ident($world:ident: World) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn body($world: World) $body

            #[tokio::test]
            async fn over_tcp() {
                soon(async { body(World::tcp().await).await }).await;
            }

            #[tokio::test]
            async fn over_tls() {
                soon(async { body(World::tls().await).await }).await;
            }

            #[tokio::test]
            async fn over_quic() {
                soon(async { body(World::quic().await).await }).await;
            }

            #[tokio::test(start_paused = true)]
            async fn in_memory() {
                soon(async { body(World::memory(1).await).await }).await;
            }
        }
    )*};
}

/// Fails a test that hangs. A passing test never waits this long.
pub(crate) async fn soon<T>(something: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(600);
    tokio::time::timeout(limit, something)
        .await
        .expect("the test hangs")
}

/// What a test tries, shown only if it fails there.
pub(crate) struct Case(pub(crate) String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in this case: {}", self.0);
        }
    }
}

/// The network of a test.
pub(crate) enum Net {
    Tcp,
    Tls(Members),
    Quic(Members),
    Memory(MemoryNetwork),
}

/// Who knows the secret of a private network: programs by their names.
pub(crate) struct Members {
    secret: Secret,
    identities: Mutex<HashMap<String, Identity>>,
}

impl Members {
    fn new() -> Self {
        Self {
            secret: Secret::generate().unwrap(),
            identities: Mutex::default(),
        }
    }

    /// The same key for the same name.
    fn auth(&self, name: &str) -> Authenticator {
        let mut identities = self.identities.lock().unwrap();
        let identity = identities.entry(name.into());
        let identity = identity.or_insert_with(|| Identity::generate().unwrap());
        Authenticator::new(identity.clone(), Trust::Secret(self.secret.clone())).unwrap()
    }
}

/// A loopback address where nobody answers costs one over QUIC.
const QUIC_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) tracker: Tracker,
}

/// A peer with a storage in memory.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) storage: MemoryStorage,
}

impl Net {
    fn transport(&self, name: &str) -> Box<dyn Transport> {
        match self {
            Self::Tcp => Box::new(TcpTransport::new()),
            Self::Tls(members) => {
                let auth = members.auth(name);
                Box::new(TlsTransport::new(TcpTransport::new(), auth))
            }
            Self::Quic(members) => {
                let patience = HandshakeConfig::default().timeout(QUIC_PATIENCE);
                let quic = QuicTransport::new(members.auth(name));
                Box::new(quic.handshakes(patience))
            }
            Self::Memory(network) => Box::new(network.endpoint(name)),
        }
    }
}

impl World {
    pub(crate) async fn tcp() -> Self {
        let tracker = Tracker::builder(TcpTransport::new());
        let tracker = tracker.bind("127.0.0.1:0").await.unwrap();
        let net = Net::Tcp;
        Self { net, tracker }
    }

    pub(crate) async fn tls() -> Self {
        Self::private(Net::Tls(Members::new())).await
    }

    pub(crate) async fn quic() -> Self {
        Self::private(Net::Quic(Members::new())).await
    }

    /// One over each transport with sockets, for tests that need several threads.
    pub(crate) async fn on_loopback() -> [Self; 3] {
        [Self::tcp().await, Self::tls().await, Self::quic().await]
    }

    async fn private(net: Net) -> Self {
        let tracker = Tracker::builder(net.transport("tracker"));
        let tracker = tracker.bind("127.0.0.1:0").await.unwrap();
        Self { net, tracker }
    }

    pub(crate) async fn memory(seed: u64) -> Self {
        let network = MemoryNetwork::new(seed);
        let tracker = bind_tracker(&network, 1).await;
        let net = Net::Memory(network);
        Self { net, tracker }
    }

    /// The network of a world in memory.
    pub(crate) fn network(&self) -> &MemoryNetwork {
        match &self.net {
            Net::Memory(network) => network,
            _ => panic!("this world is on loopback"),
        }
    }

    pub(crate) fn transport(&self, name: &str) -> Box<dyn Transport> {
        self.net.transport(name)
    }

    /// The address that a peer with this name listens on.
    pub(crate) fn at(&self, name: &str) -> Addr {
        let text = match &self.net {
            Net::Memory(_) => format!("memory:{name}"),
            _ => "127.0.0.1:0".into(),
        };
        text.parse().unwrap()
    }

    /// An address that no process listens on.
    pub(crate) fn nowhere(&self) -> Addr {
        let text = match &self.net {
            Net::Memory(_) => "memory:nowhere",
            // Port 9 is "discard", which is not served here.
            _ => "127.0.0.1:9",
        };
        text.parse().unwrap()
    }

    /// The builder of a peer that listens and uses the tracker.
    pub(crate) fn builder(&self, name: &str, storage: impl Storage) -> PeerBuilder {
        self.mute(name, storage).listen(self.at(name))
    }

    /// The builder of a peer that does not listen.
    pub(crate) fn mute(&self, name: &str, storage: impl Storage) -> PeerBuilder {
        let transport = self.transport(name);
        let id = match transport.identity() {
            Some(identity) => identity.peer_id(),
            None => PeerId(u128::from(seed_of(name)).to_be_bytes()),
        };
        Peer::builder(transport, storage)
            .tracker(self.tracker.local_addr())
            .id(id)
            .seed(seed_of(name))
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        self.node_with(name, PeerConfig::default()).await
    }

    pub(crate) async fn node_with(&self, name: &str, config: PeerConfig) -> Node {
        let storage = MemoryStorage::new();
        let builder = self.builder(name, storage.clone()).config(config);
        let peer = builder.start().await.unwrap();
        Node { peer, storage }
    }

    /// Peers that all share the same bytes.
    pub(crate) async fn owners(&self, count: usize, name: &str, bytes: &Bytes) -> Vec<Node> {
        let mut owners = Vec::new();
        for number in 0..count {
            let owner = self.node(&format!("owner-{number}")).await;
            owner.share(name, bytes).await;
            owners.push(owner);
        }
        owners
    }

    /// Waits until the tracker lists this many owners of a content, complete or
    /// partial.
    pub(crate) async fn listed(&self, content: &Content, owners: usize) {
        let mut config = ClientConfig::default();
        config.seed = Some(1);
        let transport = self.transport("asker").into();
        let trackers = vec![self.tracker.local_addr().clone()];
        let client = TrackerClient::start(transport, trackers, None, config);
        loop {
            let found = client.need(content.id.into(), 50).await;
            if found.map_or(0, |found| found.owners.len()) == owners {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.shutdown().await;
    }
}

impl Node {
    pub(crate) async fn share(&self, name: &str, bytes: &Bytes) -> Content {
        let source = ShareSource::bytes(named(name), bytes.clone());
        self.peer.share(source).await.unwrap()
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<Bytes> {
        self.storage.bytes(named(name))
    }

    pub(crate) fn addr(&self) -> Addr {
        self.peer.local_addr().unwrap().clone()
    }
}

pub(crate) async fn bind_tracker(network: &MemoryNetwork, epoch: u8) -> Tracker {
    Tracker::builder(network.endpoint("tracker"))
        .key_and_epoch([epoch; 32], epoch.into())
        .bind("memory:tracker")
        .await
        .unwrap()
}

pub(crate) fn named(name: &str) -> ContentName {
    name.parse().unwrap()
}

/// Random bytes that are the same in every run.
pub(crate) fn content(len: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes.into()
}

/// A seed for a peer with this name.
pub(crate) fn seed_of(name: &str) -> u64 {
    let seed = |seed: u64, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, seed)
}

/// How many tasks the runtime has now.
pub(crate) fn alive_tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Yields until the runtime has this many tasks again. Fails if that does not
/// happen without time passing.
pub(crate) async fn tasks_settle(expected: usize) {
    for _ in 0..10_000 {
        if alive_tasks() == expected {
            return;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(alive_tasks(), expected, "tasks are left behind");
}
