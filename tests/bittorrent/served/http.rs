//! Over HTTP: what real programs send, and every form of answer.

use std::net::SocketAddr;
use std::time::Duration;

use bt_lite::bittorrent::InfoHashV1;
use bt_lite::bittorrent::tracker::http::{AnnounceAnswer, PeersForm, ScrapeAnswer, ScrapeQuery};
use bt_lite::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use bt_lite::tracker::{AddressRule, RegistryConfig};

use super::{Http, RECORDED, addrs, builder, info_hash, over_http, query};

/// As aria2 1.36.0, libtorrent 2.1.1, Transmission 3.00 and rqbit 9.1.0 have sent them, and
/// the port in each.
const STARTED: [(&str, u16); 4] = [
    (
        "GET /announce?info_hash=%AA%D0%1A%B8%F9I%9B%8E%9ER%20%DE%5B.cm.%BD%93n&peer_id=A2-1-36-0-f%05%8BI%16%94%99%D4%D6%1C&uploaded=0&downloaded=0&left=3000000&compact=1&key=%8BI%16%94%99%D4%D6%1C&numwant=50&no_peer_id=1&port=7811&event=started&supportcrypto=1 HTTP/1.1\r\nUser-Agent: aria2/1.36.0\r\nAccept: */*\r\nHost: 192.0.2.1:7801\r\nWant-Digest: SHA-512;q=1, SHA-256;q=1, SHA;q=0.1\r\n\r\n",
        7811,
    ),
    (
        "GET /announce?info_hash=%aa%d0%1a%b8%f9I%9b%8e%9eR%20%de%5b.cm.%bd%93n&peer_id=-LT2110-e0hCCggjMIxu&port=7812&uploaded=0&downloaded=0&left=3000000&corrupt=0&key=F1CD2B09&event=started&numwant=200&compact=1&no_peer_id=1&supportcrypto=1&redundant=0 HTTP/1.1\r\nHost: 192.0.2.1:7801\r\nUser-Agent: libtorrent/2.1.1.0\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
        7812,
    ),
    (
        "GET /announce?info_hash=%aa%d0%1a%b8%f9I%9b%8e%9eR%20%de%5b.cm.%bd%93n&peer_id=-TR3000-sieyt252irqd&port=7813&uploaded=0&downloaded=0&left=3000000&numwant=80&key=59786e39&compact=1&supportcrypto=1&event=started HTTP/1.1\r\nHost: 192.0.2.1:7801\r\nUser-Agent: Transmission/3.00\r\nAccept: */*\r\nAccept-Encoding: deflate, gzip, br, zstd\r\n\r\n",
        7813,
    ),
    (
        "GET /announce?info_hash=%AA%D0%1A%B8%F9I%9B%8E%9ER%20%DE%5B.cm.%BD%93n&peer_id=-rQ9100-AXC%AF%92%8CMK%D4%14%2F%B2&event=started&port=39085&uploaded=0&downloaded=0&left=3000000&compact=1&no_peer_id=0&key=2157949850 HTTP/1.1\r\naccept: */*\r\nuser-agent: rqbit 9.1.0\r\nhost: 192.0.2.1:7801\r\n\r\n",
        39085,
    ),
];

const SCRAPED: &str = "GET /scrape?info_hash=%aa%d0%1a%b8%f9I%9b%8e%9eR%20%de%5b.cm.%bd%93n HTTP/1.1\r\nHost: 192.0.2.1:7801\r\nUser-Agent: libtorrent/2.1.1.0\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[tokio::test]
async fn real_programs_find_each_other_and_leave() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut before: Vec<SocketAddr> = Vec::new();
    for (request, port) in STARTED {
        let mut client = Http::connect(addr).await;
        client.send(request).await;
        let (status, head, body) = client.response().await.unwrap();
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain"), "{head}");
        let answer = AnnounceAnswer::decode(&body).unwrap();
        let mut named = addrs(&answer);
        named.sort();
        assert_eq!(named, before);
        assert_eq!(answer.incomplete, Some(before.len() as u32 + 1));
        assert_eq!((answer.complete, answer.downloaded), (Some(0), Some(0)));
        assert!((1620..=1980).contains(&answer.interval));
        assert_eq!(answer.min_interval, Some(answer.interval / 2));
        assert_eq!(answer.external_ip, Some(local(1).ip()));
        before.push(local(port));
    }
    let figures = async || {
        let mut client = Http::connect(addr).await;
        client.send(SCRAPED).await;
        let (_, _, body) = client.response().await.unwrap();
        assert!(client.response().await.is_none(), "it was asked to close");
        let answer = ScrapeAnswer::decode(&body).unwrap();
        answer.files.get(&InfoHashV1::from_bytes(RECORDED)).copied()
    };
    let all = ScrapeFigures {
        complete: 0,
        downloaded: 0,
        incomplete: 4,
    };
    assert_eq!(figures().await, Some(all));
    for (request, _) in STARTED {
        let mut client = Http::connect(addr).await;
        let stopped = request.replace("event=started", "event=stopped");
        client.send(stopped).await;
        let (_, _, body) = client.response().await.unwrap();
        assert_eq!(AnnounceAnswer::decode(&body).unwrap().peers, []);
    }
    assert_eq!(figures().await, None);
    let stats = tracker.stats();
    assert_eq!(stats.registry.peers, 0);
    assert_eq!(stats.registry.requests.announce, 8);
    assert_eq!(stats.registry.requests.scrape, 2);
    tracker.shutdown().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests_until_the_tracker_stops() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    for port in 1..=20 {
        let answer = client.announce(&query(1, port)).await;
        assert_eq!(answer.peers.len(), usize::from(port) - 1);
    }
    // Also those that come together.
    let targets = (21..=30).map(|port| query(1, port).to_query());
    let requests = targets.map(|query| format!("GET /announce?{query} HTTP/1.1\r\n\r\n"));
    client.send(requests.collect::<String>()).await;
    for port in 21..=30 {
        let (_, _, body) = client.response().await.unwrap();
        let answer = AnnounceAnswer::decode(&body).unwrap();
        assert_eq!(answer.peers.len(), port - 1);
    }
    assert_eq!(tracker.stats().accepted, 1);
    tracker.shutdown().await;
    assert!(client.response().await.is_none());
    assert_eq!(tracker.stats().connections, 0);
}

#[tokio::test]
async fn tracker_that_drains_lets_its_connections_end() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    client.announce(&query(1, 7001)).await;
    // The connection is kept, and the tracker need not wait for the client to close it.
    let left = tracker.drain(Duration::from_secs(60)).await;
    assert_eq!(left, 0);
    assert!(
        client.response().await.is_none(),
        "the connection has ended"
    );
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn every_form_of_answer_is_given() {
    let (_tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    client.announce(&query(1, 1000)).await;
    let mut asker = query(1, 1001);
    for (form, ids) in [
        (PeersForm::Compact, false),
        (PeersForm::Full, true),
        (PeersForm::FullWithoutIds, false),
    ] {
        asker.form = form;
        let target = format!("/announce?{}", asker.to_query());
        let (_, body) = client.get(&target).await;
        let is_list = body.windows(8).any(|part| part == b"5:peersl");
        assert_eq!(is_list, form != PeersForm::Compact);
        let answer = AnnounceAnswer::decode(&body).unwrap();
        assert_eq!(addrs(&answer), [local(1000)]);
        assert_eq!(answer.peers[0].peer_id, ids.then_some([1000_u16 as u8; 20]));
    }
}

#[tokio::test]
async fn seeders_are_counted_and_not_named_to_each_other() {
    let (_tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    let mut first = query(1, 1000);
    client.announce(&first).await;
    (first.left, first.event) = (0, Some(AnnounceEvent::Completed));
    let answer = client.announce(&first).await;
    assert_eq!((answer.complete, answer.downloaded), (Some(1), Some(1)));
    // It says so twice, as its first announce may have been lost.
    assert_eq!(client.announce(&first).await.downloaded, Some(1));
    let mut other = query(1, 1001);
    assert_eq!(addrs(&client.announce(&other).await), [local(1000)]);
    other.left = 0;
    assert!(client.announce(&other).await.peers.is_empty());
    // One that begins may know nothing but a magnet link.
    other.event = Some(AnnounceEvent::Started);
    assert_eq!(addrs(&client.announce(&other).await), [local(1000)]);
    let answer = client.announce(&query(1, 1002)).await;
    assert_eq!((answer.complete, answer.incomplete), (Some(2), Some(1)));
    assert_eq!(answer.peers.len(), 2);
}

#[tokio::test]
async fn one_that_nobody_can_reach_is_told_of_others_and_not_listed() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    client.announce(&query(1, 1000)).await;
    assert_eq!(addrs(&client.announce(&query(1, 0)).await), [local(1000)]);
    assert!(client.announce(&query(1, 1000)).await.peers.is_empty());
    assert_eq!(tracker.stats().registry.peers, 1);
}

#[tokio::test]
async fn client_that_starts_again_is_not_stopped_by_what_it_has_said_before() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    let mut before = query(1, 1000);
    client.announce(&before).await;
    let mut again = before.clone();
    again.peer_id = [9; 20];
    client.announce(&again).await;
    before.event = Some(AnnounceEvent::Stopped);
    client.announce(&before).await;
    assert_eq!(tracker.stats().registry.peers, 1);
    again.event = Some(AnnounceEvent::Stopped);
    client.announce(&again).await;
    assert_eq!(tracker.stats().registry.peers, 0);
}

#[tokio::test]
async fn each_family_hears_of_its_own() {
    let tracker = builder().bind("memory:tracker").await.unwrap();
    let listening = tracker.serve_http("[::]:0").await.unwrap();
    let port = listening.socket_addr().unwrap().port();
    let mut v4 = Http::connect(local(port)).await;
    let v6: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let mut v6 = Http::connect(v6).await;
    for port in [1000, 1001] {
        v4.announce(&query(1, port)).await;
        v6.announce(&query(1, port + 1000)).await;
    }
    assert_eq!(addrs(&v4.announce(&query(1, 1000)).await), [local(1001)]);
    let answer = v6.announce(&query(1, 2000)).await;
    assert_eq!(addrs(&answer), ["[::1]:2001".parse().unwrap()]);
    assert_eq!(answer.incomplete, Some(4));
    assert_eq!(answer.external_ip, Some("::1".parse().unwrap()));
}

#[tokio::test]
async fn scrape_tells_of_the_torrents_that_are_known() {
    let (_tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    for torrent in [1, 3] {
        client.announce(&query(torrent, 1000)).await;
    }
    let info_hashes = [1, 2, 3].map(info_hash).to_vec();
    let target = format!("/scrape?{}", ScrapeQuery { info_hashes }.to_query());
    let (_, body) = client.get(&target).await;
    let answer = ScrapeAnswer::decode(&body).unwrap();
    assert!(answer.files.keys().eq([1, 3].map(info_hash).iter()));
}

#[tokio::test]
async fn client_that_does_not_come_again_is_forgotten() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    client.announce(&query(1, 1000)).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(44 * 60)).await;
    let mut client = Http::connect(addr).await;
    assert_eq!(
        addrs(&client.announce(&query(1, 1001)).await),
        [local(1000)]
    );
    tokio::time::advance(Duration::from_secs(2 * 60)).await;
    while tracker.stats().registry.peers > 1 {
        tokio::task::yield_now().await;
    }
    let mut client = Http::connect(addr).await;
    assert!(client.announce(&query(1, 1001)).await.peers.is_empty());
    assert_eq!(tracker.stats().registry.expired, 1);
}

#[tokio::test]
async fn tracker_that_has_stopped_serves_nobody_any_more() {
    let (tracker, _) = over_http(builder(), "127.0.0.1").await;
    tracker.shutdown().await;
    assert!(tracker.serve_http("127.0.0.1:0").await.is_err());
    assert!(tracker.serve_udp("127.0.0.1:0").await.is_err());
}

#[tokio::test]
async fn address_that_a_client_names_counts_where_everybody_is_trusted() {
    let mut asker = query(1, 1001);
    let mut elsewhere = query(1, 1000);
    elsewhere.ip = Some("192.0.2.9".parse().unwrap());
    for (rule, listed) in [
        (AddressRule::SourceHost, "127.0.0.1:1000"),
        (AddressRule::Any, "192.0.2.9:1000"),
    ] {
        let registry = RegistryConfig::default().addresses(rule);
        let (_tracker, addr) = over_http(builder().registry(registry), "127.0.0.1").await;
        let mut client = Http::connect(addr).await;
        client.announce(&elsewhere).await;
        asker.event = None;
        let answer = client.announce(&asker).await;
        assert_eq!(addrs(&answer), [listed.parse().unwrap()]);
    }
}
