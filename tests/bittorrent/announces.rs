//! Sessions that find each other by a tracker, over HTTP and over UDP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::routing::get;
use bt_lite::bittorrent::tracker::http::{AnnounceAnswer, AnnounceQuery};
use bt_lite::bittorrent::tracker::udp::{UdpRequest, UdpResponse};
use bt_lite::bittorrent::tracker::{AnnounceEvent, ConnectionIds};
use bt_lite::bittorrent::{Magnet, Metainfo, MetainfoFormat, TorrentOptions, TorrentSessionConfig};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::sessions::{check_files, peer, session, torrent, write_files};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a peer has told a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    port: u16,
    event: Option<AnnounceEvent>,
    left: u64,
    wanted: Option<u32>,
}

/// A tracker for one torrent.
#[derive(Clone)]
struct Tracker {
    peers: Arc<Mutex<Vec<u16>>>,
    said: mpsc::Sender<Said>,
}

impl Tracker {
    fn new() -> (Self, mpsc::Receiver<Said>) {
        let (said, heard) = mpsc::channel(100);
        let peers = Arc::default();
        (Self { peers, said }, heard)
    }

    /// Returns the other peers.
    fn announced(&self, said: Said) -> Vec<SocketAddr> {
        let mut peers = self.peers.lock().unwrap();
        peers.retain(|port| *port != said.port);
        let others = peers.iter().map(|port| (LOCAL, *port).into()).collect();
        if said.event != Some(AnnounceEvent::Stopped) {
            peers.push(said.port);
        }
        self.said.try_send(said).unwrap();
        others
    }
}

async fn http(State(tracker): State<Tracker>, RawQuery(query): RawQuery) -> Vec<u8> {
    let query = AnnounceQuery::from_query(&query.unwrap()).unwrap();
    let mut answer = AnnounceAnswer::default();
    answer.interval = 1800;
    let peers = tracker.announced(Said {
        port: query.port,
        event: query.event,
        left: query.left,
        wanted: query.num_want,
    });
    answer.peers = peers.into_iter().map(Into::into).collect();
    answer.encode(query.form)
}

async fn udp(tracker: Tracker, socket: UdpSocket) {
    let ids = ConnectionIds::new([7; 32]);
    let mut packet = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut packet).await.unwrap();
        let response = match UdpRequest::decode(&packet[..len]).unwrap() {
            UdpRequest::Connect { transaction_id } => UdpResponse::Connect {
                transaction_id,
                connection_id: ids.issue(from.ip(), Duration::ZERO),
            },
            UdpRequest::Announce {
                connection_id,
                transaction_id,
                announce,
            } => {
                assert!(ids.is_valid(connection_id, from.ip(), Duration::ZERO));
                assert_eq!(announce.url_data, b"/announce?pass=1");
                let peers = tracker.announced(Said {
                    port: announce.port,
                    event: announce.event,
                    left: announce.left,
                    wanted: announce.num_want,
                });
                UdpResponse::Announce {
                    transaction_id,
                    interval: 1800,
                    leechers: 0,
                    seeders: 0,
                    peers,
                }
            }
            other => panic!("{other:?}"),
        };
        socket.send_to(&response.encode(), from).await.unwrap();
    }
}

/// One peer has all of it and one has nothing, and both know only the trackers.
async fn find_each_other(trackers: Vec<Vec<String>>, mut heard: mpsc::Receiver<Said>) {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let mut metainfo: Metainfo = torrent(here.path(), MetainfoFormat::Hybrid);
    metainfo.set_trackers(trackers);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let port = |session: &bt_lite::bittorrent::TorrentSession| {
        session.local_addr().unwrap().socket_addr().unwrap().port()
    };
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    let mut said = heard.recv().await.unwrap();
    let event = Some(AnnounceEvent::Started);
    assert_eq!((said.port, said.event), (port(&seeds), event));
    // It may be announced before what it has is verified, and is then once more.
    while said.left > 0 {
        said = heard.recv().await.unwrap();
        assert_eq!((said.port, said.event), (port(&seeds), None));
    }

    let options = TorrentOptions::new().directory(there.path());
    fetches.add(&metainfo, options).unwrap().await.unwrap();
    check_files(there.path());
    for (event, left) in [
        (AnnounceEvent::Started, metainfo.total_length()),
        (AnnounceEvent::Completed, 0),
    ] {
        let said = Said {
            port: port(&fetches),
            event: Some(event),
            left,
            wanted: Some(TorrentSessionConfig::default().peers_wanted),
        };
        assert_eq!(heard.recv().await, Some(said));
    }
    for (peer, port) in [(owner, port(&seeds)), (fetcher, port(&fetches))] {
        peer.shutdown().await;
        let event = Some(AnnounceEvent::Stopped);
        assert_eq!(
            heard.recv().await,
            Some(Said {
                port,
                event,
                left: 0,
                wanted: Some(0),
            })
        );
    }
}

#[tokio::test]
async fn peers_find_each_other_by_an_http_tracker_of_the_second_tier() {
    let (tracker, heard) = Tracker::new();
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    // Nobody answers there.
    let dead = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let tiers = vec![
        vec![format!("http://{}/", dead.local_addr().unwrap())],
        vec![url],
    ];
    drop(dead);
    let router = Router::new()
        .route("/announce", get(http))
        .with_state(tracker);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    find_each_other(tiers, heard).await;
    server.abort();
}

#[tokio::test]
async fn peers_find_each_other_by_a_udp_tracker() {
    let (tracker, heard) = Tracker::new();
    let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let url = format!("udp://{}/announce?pass=1", socket.local_addr().unwrap());
    let server = tokio::spawn(udp(tracker, socket));
    find_each_other(vec![vec![url]], heard).await;
    server.abort();
}

#[tokio::test]
async fn torrent_of_a_magnet_link_is_found_by_its_tracker_and_lacks_something_from_the_start() {
    let (tracker, mut heard) = Tracker::new();
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/announce", get(http))
        .with_state(tracker);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let mut metainfo = torrent(here.path(), MetainfoFormat::V1);
    metainfo.set_trackers(vec![vec![url]]);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    heard.recv().await.unwrap();
    let options = TorrentOptions::new().directory(there.path());
    let magnet = Magnet::of(&metainfo);
    fetches.add_magnet(&magnet, options).unwrap().await.unwrap();
    check_files(there.path());
    fetcher.shutdown().await;
    // One who joins is told of as one who has begun, and stays the same one.
    for (event, left) in [
        (AnnounceEvent::Started, 16 << 10),
        (AnnounceEvent::Completed, 0),
        (AnnounceEvent::Stopped, 0),
    ] {
        let said = loop {
            let said = heard.recv().await.unwrap();
            // The owner says without an event that it has verified all.
            if said.event.is_some() {
                break said;
            }
        };
        assert_eq!((said.event, said.left), (Some(event), left));
    }
    owner.shutdown().await;
    server.abort();
}

#[tokio::test]
async fn partial_seed_is_told_apart_by_the_tracker() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let mut metainfo: Metainfo = torrent(here.path(), MetainfoFormat::V1);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    let (tracker, mut heard) = Tracker::new();
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let routes = Router::new().route("/announce", get(http));
    let served = axum::serve(listener, routes.with_state(tracker));
    tokio::spawn(served.into_future());
    metainfo.set_trackers(vec![vec![url]]);
    let options = TorrentOptions::new().directory(there.path()).path("b");
    let options = options.peer(crate::sessions::addr(&seeds));
    let _download = fetches.add(&metainfo, options).unwrap();
    let said = heard.recv().await.unwrap();
    assert_eq!(said.event, Some(AnnounceEvent::Started));
    let said = heard.recv().await.unwrap();
    // Four of its pieces are here. What is left is so of the whole torrent.
    let left = metainfo.total_length() - 4 * u64::from(metainfo.piece_length());
    assert_eq!((said.event, said.left), (Some(AnnounceEvent::Paused), left));
    owner.shutdown().await;
    fetcher.shutdown().await;
}
