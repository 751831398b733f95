//! A peer whose tracker is reached over both families of IP addresses is found over
//! both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use bt_lite::protocol::ListedOwner;
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::transport::{Connection, Listener};
use bt_lite::{
    Addr, Content, MemoryStorage, Peer, ShareSource, TcpTransport, Tracker, Transport,
    TransportError,
};

use crate::world::{content, named, soon};

/// The addresses of this machine as the peers and the tracker know them: nobody is on
/// loopback.
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The name of the tracker's machine, which has both.
const NAME: &str = "both.test";

/// TCP on loopback under other addresses.
#[derive(Clone)]
struct Elsewhere(TcpTransport);

fn mapped(addr: &Addr, ips: [(IpAddr, IpAddr); 2]) -> Addr {
    let Some(socket) = addr.socket_addr() else {
        return addr.clone();
    };
    let ip = socket.ip().to_canonical();
    let found = ips.into_iter().find(|(from, _)| *from == ip);
    found.map_or(addr.clone(), |(_, to)| {
        SocketAddr::new(to, socket.port()).into()
    })
}

/// The address that others know.
fn outward(addr: &Addr) -> Addr {
    let ips = [
        (Ipv4Addr::LOCALHOST.into(), V4),
        (Ipv6Addr::LOCALHOST.into(), V6),
    ];
    mapped(addr, ips)
}

/// The address on loopback.
fn inward(addr: &Addr) -> Addr {
    let ips = [
        (V4, Ipv4Addr::LOCALHOST.into()),
        (V6, Ipv6Addr::LOCALHOST.into()),
    ];
    mapped(addr, ips)
}

fn elsewhere(mut connection: Connection) -> Connection {
    connection.remote = outward(&connection.remote);
    connection.local = connection.local.as_ref().map(outward);
    connection
}

/// The addresses of a name.
fn addresses(addr: &Addr) -> Option<Vec<Addr>> {
    let port = addr.as_str().strip_prefix(NAME)?.strip_prefix(':')?;
    let port = port.parse().unwrap();
    Some([V4, V6].map(|ip| SocketAddr::new(ip, port).into()).to_vec())
}

#[async_trait]
impl Transport for Elsewhere {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        let first = addresses(addr).and_then(|found| found.first().cloned());
        let addr = first.unwrap_or(addr.clone());
        Ok(elsewhere(self.0.connect(&inward(&addr)).await?))
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        Ok(Box::new(Acceptor(self.0.listen(addr).await?)))
    }

    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        Ok(addresses(addr).unwrap_or(vec![addr.clone()]))
    }
}

struct Acceptor(Box<dyn Listener>);

#[async_trait]
impl Listener for Acceptor {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        Ok(elsewhere(self.0.accept().await?))
    }

    fn local_addr(&self) -> &Addr {
        self.0.local_addr()
    }
}

fn transport() -> Elsewhere {
    Elsewhere(TcpTransport::new())
}

fn at(ip: IpAddr, port: u16) -> Addr {
    SocketAddr::new(ip, port).into()
}

/// The owners that the tracker names to one who reaches it here, as soon as there are as
/// many as this.
async fn named_to(tracker: Addr, shared: &Content, count: usize) -> Vec<ListedOwner> {
    let config = ClientConfig::default();
    let client = TrackerClient::start(transport().into_arc(), vec![tracker], None, config);
    loop {
        let found = client.need(shared.id.into(), 50).await.unwrap();
        if found.owners.len() == count {
            client.shutdown().await;
            return found.owners;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

impl Elsewhere {
    fn into_arc(self) -> std::sync::Arc<dyn Transport> {
        std::sync::Arc::new(self)
    }
}

#[tokio::test]
async fn owner_behind_a_tracker_of_both_families_is_reached_over_both() {
    let tracker = Tracker::builder(transport()).bind("[::]:0").await.unwrap();
    let port = tracker.local_addr().socket_addr().unwrap().port();
    let owner = Peer::builder(transport(), MemoryStorage::new())
        .tracker(format!("{NAME}:{port}"))
        .listen("[::]:0");
    let owner = owner.start().await.unwrap();
    let listens = owner.local_addr().unwrap().socket_addr().unwrap().port();
    let bytes = content(100_000, 1);
    let source = ShareSource::bytes(named("x"), bytes.clone());
    let shared = owner.share(source).await.unwrap();
    for ip in [V4, V6] {
        let reached = async {
            loop {
                let owners = named_to(at(ip, port), &shared, 1).await;
                if owners[0].addr == at(ip, listens) {
                    return;
                }
            }
        };
        soon(reached).await;
        let storage = MemoryStorage::new();
        let leecher = Peer::builder(transport(), storage.clone()).tracker(at(ip, port));
        let leecher = leecher.start().await.unwrap();
        soon(leecher.download(named("x"))).await.unwrap();
        assert_eq!(storage.bytes(named("x")).unwrap(), bytes);
        leecher.shutdown().await;
    }
    let registered = tracker.stats().registry.peers;
    assert!(registered <= 2, "the owner is one peer: {registered}");

    // Who uses both as well gets both, and they are one peer.
    let storage = MemoryStorage::new();
    let leecher = Peer::builder(transport(), storage.clone())
        .tracker(format!("{NAME}:{port}"))
        .listen("[::]:0");
    let leecher = leecher.start().await.unwrap();
    soon(leecher.download(named("x"))).await.unwrap();
    let both = async {
        loop {
            // The leecher is an owner by now, too.
            let owners = named_to(at(V6, port), &shared, 2).await;
            if owners
                .iter()
                .all(|owner| owner.addr.as_str().starts_with('['))
            {
                return;
            }
        }
    };
    soon(both).await;
    owner.shutdown().await;
    leecher.shutdown().await;
    assert_eq!(tracker.stats().registry.ownerships, 0);
}
