//! The tracker of this crate, as BitTorrent clients see it: over HTTP and UDP.

mod http;
mod http_limits;
// Elsewhere what the system trusts is not in files.
#[cfg(target_os = "linux")]
mod https;
mod permitted;
mod sessions;
mod udp;
mod udp_limits;

use std::net::SocketAddr;

use bt_lite::bittorrent::InfoHashV1;
use bt_lite::bittorrent::tracker::http::{AnnounceAnswer, AnnounceQuery};
use bt_lite::bittorrent::tracker::udp::{UdpAnnounce, UdpRequest, UdpResponse};
use bt_lite::tracker::{Tracker, TrackerBuilder};
use bt_lite::{Addr, MemoryNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// The info hash in what was recorded of real programs.
const RECORDED: [u8; 20] = [
    0xaa, 0xd0, 0x1a, 0xb8, 0xf9, 0x49, 0x9b, 0x8e, 0x9e, 0x52, 0x20, 0xde, 0x5b, 0x2e, 0x63, 0x6d,
    0x2e, 0xbd, 0x93, 0x6e,
];

fn builder() -> TrackerBuilder {
    let network = MemoryNetwork::new(1);
    Tracker::builder(network.endpoint("tracker"))
}

/// A tracker with what is set up, and where it serves over HTTP at this IP.
async fn over_http(builder: TrackerBuilder, ip: &str) -> (Tracker, SocketAddr) {
    let tracker = builder.bind("memory:tracker").await.unwrap();
    let addr = tracker.serve_http(format!("{ip}:0")).await.unwrap();
    (tracker, addr.socket_addr().unwrap())
}

/// The same over UDP.
async fn over_udp(builder: TrackerBuilder, ip: &str) -> (Tracker, SocketAddr) {
    let tracker = builder.bind("memory:tracker").await.unwrap();
    let addr: Addr = tracker.serve_udp(format!("{ip}:0")).await.unwrap();
    (tracker, addr.socket_addr().unwrap())
}

fn info_hash(number: u8) -> InfoHashV1 {
    InfoHashV1::from_bytes([number; 20])
}

fn query(torrent: u8, port: u16) -> AnnounceQuery {
    let mut query = AnnounceQuery::new(info_hash(torrent), [port as u8; 20], port);
    query.left = 1;
    query
}

/// A connection of an HTTP client.
struct Http(TcpStream);

impl Http {
    async fn connect(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next response: its status, its head and its body. `None` at the end.
    async fn response(&mut self) -> Option<(u16, String, Vec<u8>)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return None,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let len = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; len.map_or(0, |len| len.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        Some((status, head, body))
    }

    /// What is answered to a request for this path and query.
    async fn get(&mut self, target: &str) -> (u16, Vec<u8>) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: tracker\r\n\r\n"))
            .await;
        let (status, _, body) = self.response().await.unwrap();
        (status, body)
    }

    async fn announce(&mut self, query: &AnnounceQuery) -> AnnounceAnswer {
        let (status, body) = self.get(&format!("/announce?{}", query.to_query())).await;
        assert_eq!(status, 200);
        AnnounceAnswer::decode(&body).unwrap()
    }
}

fn addrs(answer: &AnnounceAnswer) -> Vec<SocketAddr> {
    answer.peers.iter().map(|peer| peer.addr).collect()
}

/// A UDP client.
struct Udp {
    socket: UdpSocket,
    is_v6: bool,
}

impl Udp {
    async fn connect(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((to.ip(), 0)).await.unwrap();
        socket.connect(to).await.unwrap();
        let is_v6 = to.is_ipv6();
        Self { socket, is_v6 }
    }

    async fn send(&self, packet: &[u8]) {
        self.socket.send(packet).await.unwrap();
    }

    async fn receive(&self) -> Vec<u8> {
        let mut packet = [0; 2048];
        let len = self.socket.recv(&mut packet).await.unwrap();
        packet[..len].to_vec()
    }

    async fn ask(&self, request: &UdpRequest) -> UdpResponse {
        self.send(&request.encode()).await;
        UdpResponse::decode(&self.receive().await, self.is_v6).unwrap()
    }

    async fn connection_id(&self) -> u64 {
        let request = UdpRequest::Connect { transaction_id: 77 };
        match self.ask(&request).await {
            UdpResponse::Connect {
                transaction_id: 77,
                connection_id,
            } => connection_id,
            other => panic!("{other:?}"),
        }
    }

    /// Announces a leecher.
    async fn announce(&self, torrent: u8, port: u16) -> UdpResponse {
        let request = UdpRequest::Announce {
            connection_id: self.connection_id().await,
            transaction_id: 5,
            announce: announce(torrent, port),
        };
        self.ask(&request).await
    }
}

fn announce(torrent: u8, port: u16) -> UdpAnnounce {
    UdpAnnounce {
        info_hash: info_hash(torrent),
        peer_id: [port as u8; 20],
        downloaded: 0,
        left: 1,
        uploaded: 0,
        event: None,
        ip: 0,
        key: 0,
        num_want: None,
        port,
        url_data: Vec::new(),
    }
}
