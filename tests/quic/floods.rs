//! Handshakes of those who only want to cost: their number is bounded, and members get
//! through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bt_lite::transport::auth::HandshakeConfig;
use bt_lite::transport::{Listener, QuicTransport};
use bt_lite::{Addr, Transport};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::members::Members;

/// How many handshakes a flood begins.
const FLOOD: usize = 400;

/// How many of addresses that may be forged are heard at a time.
const UNPROVEN: u64 = 16;

struct World {
    members: Members,
    server: QuicTransport,
    addr: Addr,
    accepted: mpsc::Receiver<Addr>,
}

async fn world(config: HandshakeConfig) -> World {
    let members = Members::by_secret();
    let server = members.quic().handshakes(config);
    let listener = server
        .listen(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let addr = listener.local_addr().clone();
    let (sender, accepted) = mpsc::channel(64);
    tokio::spawn(accept(listener, sender));
    World {
        members,
        server,
        addr,
        accepted,
    }
}

async fn accept(mut listener: Box<dyn Listener>, accepted: mpsc::Sender<Addr>) {
    while let Ok(connection) = listener.accept().await {
        let _ = accepted.send(connection.remote).await;
    }
}

impl World {
    async fn expect_member_gets_through(&mut self) {
        let connection = self.members.quic().connect(&self.addr).await.unwrap();
        let seen = self.accepted.recv().await.unwrap();
        assert!(seen.same_host(&connection.remote));
    }

    /// Waits until the server has heard of this many handshakes.
    async fn heard(&self, count: u64) -> bt_lite::transport::auth::HandshakeStats {
        loop {
            let stats = self.server.stats();
            if stats.retried + stats.under_way + stats.failed + stats.unheard >= count {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The first datagram of a handshake, as a client sends it.
async fn initial() -> Vec<u8> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut tls = crate::outsider::client_config(None);
    tls.alpn_protocols = vec![b"bt_lite/2".to_vec()];
    let config = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = sink.local_addr().unwrap();
    let _connecting = endpoint.connect_with(config, to, "x").unwrap();
    let mut datagram = vec![0; 2000];
    let len = sink.recv(&mut datagram).await.unwrap();
    datagram.truncate(len);
    datagram
}

#[tokio::test]
async fn flood_of_first_datagrams_has_few_places_and_the_rest_costs_a_datagram_each() {
    let config = HandshakeConfig::default().timeout(Duration::from_secs(600));
    let mut world = world(config).await;
    let to: SocketAddr = world.addr.socket_addr().unwrap();
    let mut sockets = Vec::new();
    for sent in 1..=FLOOD as u64 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&initial().await, to).await.unwrap();
        sockets.push(socket);
        let stats = world.heard(sent).await;
        assert!(stats.under_way <= UNPROVEN, "{stats:?}");
    }
    let stats = world.server.stats();
    assert_eq!(stats.under_way, UNPROVEN, "{stats:?}");
    assert_eq!(stats.retried, FLOOD as u64 - UNPROVEN, "{stats:?}");
    // A member proves its address, and is in.
    world.expect_member_gets_through().await;
    let after = world.server.stats();
    assert_eq!(after.retried, stats.retried + 1);
    assert_eq!((after.accepted, after.failed), (1, 0));
}

#[tokio::test]
async fn host_whose_handshakes_fail_must_prove_its_address_and_is_not_heard_for_a_while() {
    let config = HandshakeConfig::default().max_failures_per_host(5);
    let world = world(config).await;
    for _ in 0..8 {
        let wrong = Members::by_secret().quic();
        assert!(wrong.connect(&world.addr).await.is_err());
    }
    // The first failure may be of a forged address; it is held against nobody.
    let stats = world.heard(8).await;
    assert_eq!((stats.failed, stats.unheard), (6, 2), "{stats:?}");
    assert_eq!(stats.retried, 7, "{stats:?}");
}

#[tokio::test]
async fn silent_handshakes_end_in_time() {
    let config = HandshakeConfig::default().timeout(Duration::from_millis(200));
    let mut world = world(config).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = world.addr.socket_addr().unwrap();
    socket.send_to(&initial().await, to).await.unwrap();
    while world.server.stats().failed == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.server.stats().under_way, 0);
    let patient = world.members.quic().connect(&world.addr).await;
    patient.unwrap();
    world.accepted.recv().await.unwrap();
}

#[tokio::test]
async fn nonsense_is_not_heard() {
    let mut world = world(HandshakeConfig::default()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = world.addr.socket_addr().unwrap();
    for byte in [0, 0x40, 0xc0, 0xff] {
        for len in [1, 20, 1200, 1400] {
            socket.send_to(&vec![byte; len], to).await.unwrap();
        }
    }
    world.expect_member_gets_through().await;
    let stats = world.server.stats();
    assert_eq!((stats.failed, stats.under_way), (0, 0), "{stats:?}");
}
