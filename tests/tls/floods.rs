//! Handshakes of those who only want to cost: their number is bounded, and members get
//! through.

use std::time::Duration;

use bt_lite::protocol::limits::HANDSHAKE_TIMEOUT;
use bt_lite::transport::TlsTransport;
use bt_lite::transport::auth::{Authenticator, HandshakeConfig, Identity, Secret, Trust};
use bt_lite::transport::{Listener, StreamTransport};
use bt_lite::{Addr, MemoryNetwork, MemoryTransport, Transport};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

type Tls = TlsTransport<MemoryTransport>;

struct World {
    network: MemoryNetwork,
    secret: Secret,
    server: Tls,
    addr: Addr,
    accepted: mpsc::Receiver<Addr>,
}

async fn world(config: HandshakeConfig) -> World {
    let network = MemoryNetwork::new(1);
    let secret = Secret::generate().unwrap();
    let server = member(&network, "server", &secret).handshakes(config);
    let addr: Addr = "memory:server".parse().unwrap();
    let listener = server.listen(&addr).await.unwrap();
    let (sender, accepted) = mpsc::channel(1024);
    tokio::spawn(accept(listener, sender));
    World {
        network,
        secret,
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

fn member(network: &MemoryNetwork, name: &str, secret: &Secret) -> Tls {
    let trust = Trust::Secret(secret.clone());
    let auth = Authenticator::new(Identity::generate().unwrap(), trust).unwrap();
    TlsTransport::new(network.endpoint(name), auth)
}

impl World {
    async fn expect_member_gets_through(&mut self) {
        let tls = member(&self.network, "member", &self.secret);
        tls.connect(&self.addr).await.unwrap();
        let remote = self.accepted.recv().await.unwrap();
        assert!(remote.as_str().starts_with("memory:member:"), "{remote}");
    }

    /// Opens connections from a host, and keeps them.
    async fn open(
        &self,
        host: &str,
        count: usize,
    ) -> Vec<bt_lite::transport::memory::MemoryStream> {
        let endpoint = self.network.endpoint(host);
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(endpoint.connect_stream(&self.addr).await.unwrap().io);
        }
        held
    }

    /// Lets the server do all that it can do at this time.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_bounded_by_host_and_in_all_and_keep_nobody_out() {
    let config = HandshakeConfig::default().max(40).max_per_host(10);
    let mut world = world(config).await;
    let mut held = world.open("flood", 300).await;
    world.settle().await;
    let stats = world.server.stats();
    // Those that give way have failed, and so the host is not heard in the end.
    assert_eq!((stats.under_way, stats.gave_way), (10, 64), "{stats:?}");
    assert_eq!(stats.unheard, 226, "{stats:?}");
    world.expect_member_gets_through().await;

    for host in 0..20 {
        held.extend(world.open(&format!("flood-{host}"), 20).await);
    }
    world.settle().await;
    assert_eq!(world.server.stats().under_way, 40);
    world.expect_member_gets_through().await;

    // All that is left ends in time.
    tokio::time::sleep(HANDSHAKE_TIMEOUT).await;
    let stats = world.server.stats();
    assert_eq!(stats.under_way, 0, "{stats:?}");
    assert_eq!(stats.accepted, 2);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn host_whose_handshakes_fail_is_not_heard_for_a_while() {
    let config = HandshakeConfig::default().max_failures_per_host(20);
    let mut world = world(config).await;
    let wrong = member(&world.network, "flood", &Secret::generate().unwrap());
    for _ in 0..30 {
        assert!(wrong.connect(&world.addr).await.is_err());
    }
    world.settle().await;
    let stats = world.server.stats();
    assert_eq!((stats.failed, stats.unheard), (20, 10), "{stats:?}");
    world.expect_member_gets_through().await;
    // A member of that host is heard again later.
    let late = member(&world.network, "flood", &world.secret);
    assert!(late.connect(&world.addr).await.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    late.connect(&world.addr).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_not_kept() {
    let mut world = world(HandshakeConfig::default()).await;
    for byte in [0, 0x16, 0xff] {
        for mut io in world.open("flood", 10).await {
            let _ = io.write_all(&[byte; 20_000]).await;
        }
    }
    world.settle().await;
    let stats = world.server.stats();
    assert_eq!((stats.failed, stats.under_way), (30, 0), "{stats:?}");
    world.expect_member_gets_through().await;
}

#[tokio::test(start_paused = true)]
async fn byte_a_second_does_not_hold_a_place() {
    let mut world = world(HandshakeConfig::default()).await;
    let mut held = world.open("slow", 1).await;
    let mut io = held.remove(0);
    // A record of a handshake that says that it is long.
    let _ = io.write_all(&[0x16, 3, 1, 0x40, 0]).await;
    let mut seconds = 0;
    while io.write_all(&[1]).await.is_ok() && seconds < 60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        seconds += 1;
    }
    assert!(seconds <= 11, "{seconds}");
    assert_eq!(world.server.stats().failed, 1);
    world.expect_member_gets_through().await;
}

#[tokio::test(start_paused = true)]
async fn member_behind_an_address_that_fails_all_the_time_goes_on_being_heard() {
    let config = HandshakeConfig::default().max_failures_per_host(20);
    let mut world = world(config).await;
    let good = member(&world.network, "nat", &world.secret);
    good.connect(&world.addr).await.unwrap();
    world.accepted.recv().await.unwrap();
    let wrong = member(&world.network, "nat", &Secret::generate().unwrap());
    for _ in 0..40 {
        for _ in 0..5 {
            assert!(wrong.connect(&world.addr).await.is_err());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        good.connect(&world.addr).await.unwrap();
    }
    world.settle().await;
    let stats = world.server.stats();
    assert_eq!((stats.accepted, stats.unheard), (41, 0), "{stats:?}");
    // A host of which nobody was let in is still shut out.
    let stranger = member(&world.network, "flood", &Secret::generate().unwrap());
    for _ in 0..30 {
        assert!(stranger.connect(&world.addr).await.is_err());
    }
    world.settle().await;
    assert_eq!(world.server.stats().unheard, 10);
}
