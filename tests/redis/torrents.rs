//! BitTorrent clients of several trackers: whoever announces at one is named by the others.

use std::net::SocketAddr;

use bt_lite::bittorrent::InfoHashV1;
use bt_lite::bittorrent::tracker::http::{AnnounceAnswer, AnnounceQuery, PeersForm, ScrapeAnswer};
use bt_lite::bittorrent::tracker::udp::{UdpAnnounce, UdpRequest, UdpResponse};
use bt_lite::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use bt_lite::protocol::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::*;
use crate::nodes::Cluster;

const REQUESTS: usize = 300;
const TORRENTS: u8 = 5;
const CLIENTS: u16 = 12;

fn info_hash(torrent: u8) -> InfoHashV1 {
    InfoHashV1::from_bytes([torrent; 20])
}

fn query(torrent: u8, port: u16, left: u64) -> AnnounceQuery {
    let mut query = AnnounceQuery::new(info_hash(torrent), [port as u8; 20], port);
    query.left = left;
    query
}

async fn get(to: SocketAddr, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    let request = format!("GET {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it answers");
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    answer.split_off(head.expect("a head") + 4)
}

async fn announce(to: SocketAddr, query: &AnnounceQuery) -> AnnounceAnswer {
    let body = get(to, &format!("/announce?{}", query.to_query())).await;
    AnnounceAnswer::decode(&body).unwrap_or_else(|error| panic!("{query:?}: {error:?}"))
}

async fn scrape(to: SocketAddr, torrent: u8) -> Option<ScrapeFigures> {
    let hash: String = [torrent; 20].map(|byte| format!("%{byte:02x}")).concat();
    let body = get(to, &format!("/scrape?info_hash={hash}")).await;
    let answer = ScrapeAnswer::decode(&body).expect("an answer");
    answer.files.get(&info_hash(torrent)).copied()
}

/// The ports of those that are named, in order.
fn ports(answer: &AnnounceAnswer) -> Vec<u16> {
    let mut ports: Vec<u16> = answer.peers.iter().map(|peer| peer.addr.port()).collect();
    ports.sort_unstable();
    ports
}

/// Where a tracker serves over HTTP.
async fn over_http(tracker: &Tracker) -> SocketAddr {
    let addr = tracker.serve_http("127.0.0.1:0").await.expect("it serves");
    addr.socket_addr().expect("an IP")
}

#[tokio::test(flavor = "multi_thread")]
async fn torrents_of_a_store_are_answered_as_by_one_tracker() {
    let server = Server::start().await;
    compare(config(&[&server])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrents_of_a_cluster_are_answered_as_by_one_tracker() {
    let cluster = Cluster::start().await;
    compare(RedisConfig::new(cluster.urls([0, 5]), KEY)).await;
}

/// Announces the same at three trackers over a store, and at one that has its own memory.
async fn compare(store: RedisConfig) {
    let network = MemoryNetwork::new(1);
    let mut trackers = Vec::new();
    let mut addrs = Vec::new();
    for number in 0..4 {
        let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
        let builder = builder.registry(registry());
        let builder = match number {
            3 => builder,
            _ => builder.redis(store.clone()),
        };
        let bound = builder.bind(format!("memory:t{number}")).await;
        let tracker = bound.expect("it starts");
        addrs.push(over_http(&tracker).await);
        trackers.push(tracker);
    }
    let seed = 1;
    let mut rng = fastrand::Rng::with_seed(seed);
    for at in 0..REQUESTS {
        let torrent = rng.u8(..TORRENTS);
        let mut query = query(torrent, 1000 + rng.u16(..CLIENTS), rng.u64(..2));
        query.event = match rng.u8(..6) {
            0 => Some(AnnounceEvent::Stopped),
            1 => Some(AnnounceEvent::Completed),
            2 => Some(AnnounceEvent::Started),
            _ => None,
        };
        if rng.u8(..4) == 0 {
            query.form = PeersForm::Full;
        }
        // Another one at the same address.
        if rng.u8(..8) == 0 {
            query.peer_id = [99; 20];
        }
        let expected = announce(addrs[3], &query).await;
        let found = announce(addrs[at % 3], &query).await;
        let said = |answer: &AnnounceAnswer| {
            let ids = answer.peers.iter().map(|peer| (peer.addr, peer.peer_id));
            let mut ids: Vec<_> = ids.collect();
            ids.sort();
            (answer.complete, answer.incomplete, answer.downloaded, ids)
        };
        assert_eq!(
            said(&found),
            said(&expected),
            "seed {seed}, request {at}: {query:?}"
        );
        let figures = scrape(addrs[(at + 1) % 3], torrent).await;
        assert_eq!(figures, scrape(addrs[3], torrent).await, "request {at}");
    }
    let expected = trackers[3].stats().registry;
    until("the same is counted", async || {
        let found = trackers[0].stats().registry;
        let count = |stats: &bt_lite::tracker::RegistryStats| {
            [stats.peers, stats.contents, stats.ownerships]
        };
        count(&found) == count(&expected)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_udp_and_http_and_peers_are_one_swarm_at_all_trackers() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let [first, second] = [
        tracker(&network, 0, config(&[&server])).await,
        tracker(&network, 1, config(&[&server])).await,
    ];
    let udp = first.serve_udp("127.0.0.1:0").await.expect("it serves");
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client
        .connect(udp.socket_addr().expect("an IP"))
        .await
        .expect("loopback");
    let ask = async |request: UdpRequest| {
        client.send(&request.encode()).await.expect("it is sent");
        let mut answer = [0; 2048];
        let len = client.recv(&mut answer).await.expect("an answer");
        UdpResponse::decode(&answer[..len], false).expect("an answer")
    };
    let transaction_id = 1;
    let UdpResponse::Connect { connection_id, .. } =
        ask(UdpRequest::Connect { transaction_id }).await
    else {
        panic!("it is let in");
    };
    let announce_of = |port, left| {
        let announce = UdpAnnounce {
            info_hash: info_hash(1),
            peer_id: [port as u8; 20],
            downloaded: 0,
            left,
            uploaded: 0,
            event: None,
            ip: 0,
            key: 0,
            num_want: None,
            port,
            url_data: Vec::new(),
        };
        UdpRequest::Announce {
            connection_id,
            transaction_id,
            announce,
        }
    };
    let UdpResponse::Announce { leechers, .. } = ask(announce_of(1001, 5)).await else {
        panic!("it is answered");
    };
    assert_eq!(leechers, 1);
    let http = over_http(&second).await;
    let answer = announce(http, &query(1, 1002, 0)).await;
    assert_eq!(ports(&answer), [1001]);
    assert_eq!((answer.complete, answer.incomplete), (Some(1), Some(1)));

    // It is a content of this crate's own protocol as well.
    let mut raw = Raw::connect(&network, "peer", 1).await;
    let token = raw.register("memory:peer", None).await.token;
    let torrent = ContentId::of_torrent_v1(info_hash(1).as_bytes());
    let request = TrackerRequest::Need {
        token,
        key: torrent.into(),
        max_owners: 50,
    };
    let TrackerReply::Found(found) = raw.ask(&request).await else {
        panic!("the torrent is known");
    };
    assert_eq!(found.id, torrent);

    // Each of them leaves at the other tracker.
    let mut stop = query(1, 1001, 5);
    stop.event = Some(AnnounceEvent::Stopped);
    announce(http, &stop).await;
    let UdpResponse::Announce { peers, seeders, .. } = ask(announce_of(1003, 5)).await else {
        panic!("it is answered");
    };
    let ports: Vec<u16> = peers.iter().map(SocketAddr::port).collect();
    assert_eq!((ports, seeders), (vec![1002], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_comes_no_more_is_forgotten_and_leaves_no_key() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let mut trackers = Vec::new();
    for number in 0..2 {
        let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
        let config_of = registry().announce_interval(Duration::from_secs(2));
        let builder = builder.registry(config_of).redis(config(&[&server]));
        let bound = builder.bind(format!("memory:t{number}")).await;
        trackers.push(bound.expect("it starts"));
    }
    let http = over_http(&trackers[0]).await;
    for torrent in 0..40 {
        announce(http, &query(torrent, 1000, 1)).await;
    }
    until("all are counted", async || {
        trackers[1].stats().registry.peers == 40
    })
    .await;
    until("all are forgotten", async || {
        let expired = trackers.iter().map(|one| one.stats().registry.expired);
        expired.sum::<u64>() == 40
    })
    .await;
    let redis::Value::Array(keys) = server.tell(&["KEYS", "*"]).await else {
        panic!("keys");
    };
    let keys = keys.into_iter().map(nodes::text);
    let left = keys.filter(|key| !key.ends_with(":sum") && key != "bt_lite:meta");
    assert_eq!(left.collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_may_announce_is_bounded_over_all_trackers() {
    /// Of each host.
    const MOST: u32 = 16;
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let mut https = Vec::new();
    let mut trackers = Vec::new();
    for number in 0..2 {
        let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
        let config_of = registry().max_announcers_per_host(MOST);
        let builder = builder.registry(config_of).redis(config(&[&server]));
        let bound = builder.bind(format!("memory:t{number}")).await;
        let tracker = bound.expect("it starts");
        https.push(over_http(&tracker).await);
        trackers.push(tracker);
    }
    // One torrent is in one shard, which has twice its part.
    for port in 0..2 {
        announce(https[usize::from(port % 2)], &query(1, 1000 + port, 1)).await;
    }
    for http in &https {
        let refused = get(
            *http,
            &format!("/announce?{}", query(1, 2000, 1).to_query()),
        )
        .await;
        let text = String::from_utf8_lossy(&refused).into_owned();
        let reason = Refusal::PeersPerHost { max: MOST }.to_string();
        assert!(text.contains(&reason), "{text}");
    }
    // Over all of them it is no more than twice as many.
    for torrent in 0..100 {
        let target = format!("/announce?{}", query(torrent, 1000, 1).to_query());
        get(https[usize::from(torrent % 2)], &target).await;
    }
    until("they are counted", async || {
        let peers = trackers[0].stats().registry.peers;
        assert!(peers <= u64::from(2 * MOST), "{peers}");
        peers > u64::from(MOST)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_a_client_is_told_to_come_again() {
    let mut server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network, 0, config(&[&server])).await;
    let http = over_http(&tracker).await;
    announce(http, &query(1, 1000, 1)).await;
    server.kill();
    let target = format!("/announce?{}", query(1, 1001, 1).to_query());
    let refused = String::from_utf8_lossy(&get(http, &target).await).into_owned();
    assert!(refused.contains(&Refusal::Busy.to_string()), "{refused}");
    server.run().await;
    until("it is served again", async || {
        let body = get(http, &target).await;
        AnnounceAnswer::decode(&body).is_ok_and(|answer| ports(&answer) == [1000])
    })
    .await;
}
