//! Behaviour that is specific to TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use bt_lite::tracker::ClientConfig;
use bt_lite::{MemoryStorage, Peer, ShareSource, TcpTransport, Tracker, TrackerClient, Transport};
use tokio::net::{TcpSocket, TcpStream};

use crate::world::soon;

/// More than the common backlog of 128, but within the limit of open files of a
/// process.
const BURST: usize = 300;

#[tokio::test]
async fn burst_of_connections_waits_to_be_accepted() {
    #[cfg(target_os = "linux")]
    {
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        if most.trim().parse::<usize>().unwrap() <= BURST {
            return;
        }
    }
    let (transport, any) = (TcpTransport::new(), "127.0.0.1:0".parse().unwrap());
    let listener = transport.listen(&any).await.unwrap();
    let addr = listener.local_addr().as_str().to_owned();
    // Nobody accepts. If the backlog were full, connecting would wait.
    let mut waiting = Vec::new();
    for _ in 0..BURST {
        waiting.push(soon(TcpStream::connect(&addr)).await.unwrap());
    }
}

/// An address of this machine at which others reach it, if there is one. Nothing is sent.
fn address_of_this_machine() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn owner_beside_its_tracker_is_reached_by_others() {
    let Some(here) = address_of_this_machine() else {
        // Nobody else is there.
        return;
    };
    let tracker = Tracker::builder(TcpTransport::new());
    let tracker = tracker.bind("[::]:0").await.unwrap();
    let port = tracker.local_addr().socket_addr().unwrap().port();
    let peer = |tracker: String| {
        let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new());
        peer.tracker(tracker)
    };
    // The most usual first set-up: the tracker and the first owner on one machine.
    let beside = peer(format!("127.0.0.1:{port}")).listen("0.0.0.0:0");
    let beside = beside.start().await.unwrap();
    let source = ShareSource::bytes("x", "some bytes");
    let shared = beside.share(source).await.unwrap();

    let client = |tracker: String| {
        let trackers = vec![tracker.parse().unwrap()];
        let transport = Arc::new(TcpTransport::new());
        TrackerClient::start(transport, trackers, None, ClientConfig::default())
    };
    let far = client(format!("{here}:{port}"));
    let found = soon(far.need(shared.id.into(), 50)).await.unwrap();
    let owner_port = beside.local_addr().unwrap().socket_addr().unwrap().port();
    let named: Vec<SocketAddr> = found
        .owners
        .iter()
        .filter_map(|o| o.addr.socket_addr())
        .collect();
    assert_eq!(named, [SocketAddr::new(here, owner_port)]);
    let other = peer(format!("{here}:{port}")).start().await.unwrap();
    soon(other.download(&shared.name)).await.unwrap();
    // Over loopback it is still found at loopback.
    let near = peer(format!("127.0.0.1:{port}")).start().await.unwrap();
    soon(near.download(shared.id)).await.unwrap();
}

#[tokio::test]
async fn listener_at_all_addresses_serves_both_families() {
    let transport = TcpTransport::new();
    let listener = transport.listen(&"[::]:0".parse().unwrap()).await.unwrap();
    let local = listener.local_addr().socket_addr().unwrap();
    let v4 = (Ipv4Addr::LOCALHOST, local.port());
    soon(TcpStream::connect(v4)).await.unwrap();
    if local.is_ipv6() {
        soon(TcpStream::connect((Ipv6Addr::LOCALHOST, local.port())))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn addresses_that_nobody_can_be_reached_at_are_told_by_their_text() {
    let transport = TcpTransport::new();
    let check = |text: &str| transport.check(&text.parse().unwrap());
    for good in [
        "127.0.0.1:7",
        "[::1]:7",
        "localhost:7",
        "[fe80::1%1]:7",
        "[fe80::1%lo]:7",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "127.0.0.1:0",
        "localhost:0",
        "::1:7x",
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}

/// The addresses of `two.example`: one that swallows everything, and that of a tracker.
static TWO: OnceLock<[SocketAddr; 2]> = OnceLock::new();

#[tokio::test]
async fn peer_starts_though_the_first_address_of_its_tracker_swallows_everything() {
    let tracker = Tracker::builder(TcpTransport::new());
    let tracker = tracker.bind("127.0.0.1:0").await.unwrap();
    let good = tracker.local_addr().socket_addr().unwrap();
    // Nobody accepts, and there is no room for more who wait.
    let full = TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(1).unwrap();
    let bad = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        let mut connecting = Box::pin(TcpStream::connect(bad));
        // On one machine, what connects at all has connected before the next one.
        let early = futures::poll!(&mut connecting);
        soon(TcpStream::connect(good)).await.unwrap();
        match early.is_pending() && futures::poll!(&mut connecting).is_pending() {
            true => break,
            false => waiting.push(connecting),
        }
    }
    TWO.set([bad, good]).unwrap();
    let transport = TcpTransport::with_lookup(|name, port| {
        assert_eq!((name, port), ("two.example", 7000));
        Ok(TWO.get().unwrap().to_vec())
    });
    let peer = Peer::builder(transport, MemoryStorage::new()).tracker("two.example:7000");
    let peer = soon(peer.start()).await.unwrap();
    assert_eq!(tracker.stats().registry.peers, 1);
    peer.shutdown().await;
}
