//! Peers that are found without a tracker: in the local network, and by the distributed hash
//! table.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use bt_lite::Peer;
use bt_lite::bittorrent::local_discovery::{GROUP, LocalAnnounce};
use bt_lite::bittorrent::wire::{Message, Reserved};
use bt_lite::bittorrent::{
    DhtConfig, InfoHashV1, Magnet, Metainfo, MetainfoBuilder, TorrentError, TorrentOptions,
    TorrentSession, TorrentSessionConfig,
};
use futures::{FutureExt, StreamExt};
use mainline::{Dht, Id, Testnet};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::raw_peer::{RawPeer, handshake};
use crate::sessions::{addr, peer};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A torrent that no other test has, and no other run of this one.
fn torrent(root: &Path, is_private: bool) -> Metainfo {
    let mut rng = fastrand::Rng::new();
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(100_000)
        .collect();
    fs::write(root.join("file"), &bytes).unwrap();
    let builder = MetainfoBuilder::file("file", bytes.len() as u64).unwrap();
    let builder = builder.private(is_private);
    builder.build(|_| Ok(&bytes[..])).unwrap()
}

fn listening() -> TorrentSessionConfig {
    TorrentSessionConfig::new().listen((HERE, 0).into())
}

fn hash(metainfo: &Metainfo) -> InfoHashV1 {
    metainfo.info_hash_v1().unwrap()
}

fn into(directory: &Path) -> TorrentOptions {
    TorrentOptions::new().directory(directory)
}

/// Fetches what the other session has, by a link that names nobody.
async fn fetches(fetcher: &Peer, config: TorrentSessionConfig, metainfo: &Metainfo, from: &Path) {
    let there = tempfile::tempdir().unwrap();
    let session = TorrentSession::start(fetcher, config).await.unwrap();
    let link = format!("magnet:?xt=urn:btih:{}", hash(metainfo));
    let magnet: Magnet = link.parse().unwrap();
    let download = session.add_magnet(&magnet, into(there.path())).unwrap();
    download.await.unwrap();
    let [sent, came] = [from, there.path()].map(|root| fs::read(root.join("file")).unwrap());
    assert!(sent == came);
}

/// One of others in the multicast group of this machine.
fn neighbour() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GROUP.port());
    socket.bind(&any.into()).unwrap();
    socket.join_multicast_v4(GROUP.ip(), &HERE).unwrap();
    socket.set_multicast_if_v4(&HERE).unwrap();
    socket.set_nonblocking(true).unwrap();
    UdpSocket::from_std(socket.into()).unwrap()
}

#[tokio::test]
async fn torrent_is_found_in_the_local_network() {
    let here = tempfile::tempdir().unwrap();
    let metainfo = torrent(here.path(), false);
    let (owner, fetcher) = (peer().await, peer().await);
    let config = listening().local_discovery(HERE);
    let seeds = TorrentSession::start(&owner, config.clone()).await.unwrap();
    seeds
        .add(&metainfo, into(here.path()))
        .unwrap()
        .await
        .unwrap();
    fetches(&fetcher, config, &metainfo, here.path()).await;
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test]
async fn private_torrent_is_neither_announced_nor_found_in_the_local_network() {
    let roots = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [private, public] = [true, false].map(|is_private| {
        let root = &roots[usize::from(is_private)];
        torrent(root.path(), is_private)
    });
    let neighbour = neighbour();
    let owner = peer().await;
    let config = listening().local_discovery(HERE);
    let session = TorrentSession::start(&owner, config).await.unwrap();
    let shares = |metainfo: &Metainfo, root: &tempfile::TempDir| {
        session.add(metainfo, into(root.path())).unwrap()
    };
    shares(&private, &roots[1]).await.unwrap();
    shares(&public, &roots[0]).await.unwrap();
    let mut bytes = [0; 1500];
    loop {
        let (len, _) = neighbour.recv_from(&mut bytes).await.unwrap();
        let announce = LocalAnnounce::decode(&bytes[..len]).unwrap();
        assert!(!announce.info_hashes.contains(&hash(&private)));
        if announce.info_hashes.contains(&hash(&public)) {
            assert_eq!(announce.port, addr(&session).port());
            break;
        }
    }
    // One that is no announce, and one of each torrent.
    let listeners = [
        TcpListener::bind((HERE, 0)).await.unwrap(),
        TcpListener::bind((HERE, 0)).await.unwrap(),
    ];
    neighbour.send_to(b"BT-SEARCH", GROUP).await.unwrap();
    for (listener, metainfo) in listeners.iter().zip([&private, &public]) {
        let announce = LocalAnnounce {
            port: listener.local_addr().unwrap().port(),
            info_hashes: vec![hash(metainfo)],
            cookie: None,
        };
        neighbour.send_to(&announce.encode(), GROUP).await.unwrap();
    }
    listeners[1].accept().await.unwrap();
    assert!(listeners[0].accept().now_or_never().is_none());
    owner.shutdown().await;
}

#[tokio::test]
async fn interface_that_is_not_there_is_an_error() {
    let owner = peer().await;
    let config = TorrentSessionConfig::new().local_discovery(Ipv4Addr::new(203, 0, 113, 7));
    let error = TorrentSession::start(&owner, config).await.unwrap_err();
    assert!(
        matches!(error, TorrentError::LocalDiscovery { .. }),
        "{error}"
    );
    owner.shutdown().await;
}

/// A table of its own.
async fn table() -> Testnet {
    let build = || Testnet::builder(5).build().unwrap();
    tokio::task::spawn_blocking(build).await.unwrap()
}

fn by(table: &Testnet) -> TorrentSessionConfig {
    let dht = DhtConfig::new()
        .bootstrap(table.bootstrap.clone())
        .listen(SocketAddrV4::new(HERE, 0));
    listening().dht(dht)
}

/// Those that a table names as peers of a torrent.
async fn named(table: &Testnet, metainfo: &Metainfo) -> BTreeSet<SocketAddr> {
    let node: Dht = table.nodes[0].clone();
    let found = node
        .as_async()
        .get_peers(Id::from(*hash(metainfo).as_bytes()));
    let found: Vec<_> = found.collect().await;
    found.into_iter().flatten().map(SocketAddr::V4).collect()
}

#[tokio::test]
async fn torrent_is_found_in_the_distributed_hash_table_unless_it_is_private() {
    let roots = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [public, private] = [false, true].map(|is_private| {
        let root = &roots[usize::from(is_private)];
        torrent(root.path(), is_private)
    });
    let table = table().await;
    let (owner, fetcher) = (peer().await, peer().await);
    let seeds = TorrentSession::start(&owner, by(&table)).await.unwrap();
    for (metainfo, root) in [&private, &public].into_iter().zip([&roots[1], &roots[0]]) {
        let added = seeds.add(metainfo, into(root.path())).unwrap();
        added.await.unwrap();
    }
    // It announces itself in its own time.
    while named(&table, &public).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(named(&table, &public).await, [addr(&seeds)].into());
    assert_eq!(named(&table, &private).await, [].into());
    // Others hear of the node by the handshake, and by Port after what this side has.
    let own = handshake(*hash(&public).as_bytes(), Reserved::DHT, 7);
    let mut raw = RawPeer::connect(addr(&seeds), own).await;
    assert!(raw.head.reserved.has(Reserved::DHT));
    let said = raw
        .hear_until(|said| matches!(said, Message::Port(_)))
        .await;
    assert!(matches!(said.last(), Some(Message::Port(port)) if *port > 0));
    fetches(&fetcher, by(&table), &public, roots[0].path()).await;
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test]
async fn port_that_is_taken_is_an_error() {
    let taken = UdpSocket::bind((HERE, 0)).await.unwrap();
    let listen = SocketAddrV4::new(HERE, taken.local_addr().unwrap().port());
    let owner = peer().await;
    let config = TorrentSessionConfig::new().dht(DhtConfig::new().listen(listen));
    let error = TorrentSession::start(&owner, config).await.unwrap_err();
    assert!(matches!(error, TorrentError::Dht { .. }), "{error}");
    owner.shutdown().await;
}
