//! Over UDP: what real programs send, and every kind of answer.

use std::net::SocketAddr;

use bt_lite::bittorrent::tracker::ScrapeFigures;
use bt_lite::bittorrent::tracker::udp::{MAX_SCRAPE, UdpRequest, UdpResponse};

use super::{Udp, builder, info_hash, over_udp};

/// The announces of libtorrent 2.1.1 (with an option of BEP 41) and of Transmission 3.00,
/// behind the connection id; the event is at byte 80.
const STARTED: [&str; 2] = [
    "000000011557ccadaad01ab8f9499b8e9e5220de5b2e636d2ebd936e2d4c54323131302d66713945396b58214f2a5233000000000000000000000000002dc6c000000000000000000000000200000000f498f610000000c81e8402092f616e6e6f756e6365",
    "00000001dc472f29aad01ab8f9499b8e9e5220de5b2e636d2ebd936e2d5452333030302d626865317a6e707939313832000000000000000000000000002dc6c00000000000000000000000020000000044ab186f000000501e85",
];

/// Their scrapes, and their ports.
const SCRAPES: [&str; 2] = [
    "00000002c1d5a4f5aad01ab8f9499b8e9e5220de5b2e636d2ebd936e",
    "0000000293c97a33aad01ab8f9499b8e9e5220de5b2e636d2ebd936e",
];
const PORTS: [u16; 2] = [7812, 7813];

fn packet(connection_id: u64, hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let bytes = digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16));
    let mut packet = connection_id.to_be_bytes().to_vec();
    packet.extend(bytes.map(Result::unwrap));
    packet
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[tokio::test]
async fn real_programs_find_each_other_and_leave() {
    let (tracker, addr) = over_udp(builder(), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    let id = client.connection_id().await;
    for (at, started) in STARTED.iter().enumerate() {
        let started = packet(id, started);
        client.send(&started).await;
        let answer = client.receive().await;
        assert_eq!(answer[4..8], started[12..16], "the transaction is repeated");
        let UdpResponse::Announce {
            interval,
            leechers,
            seeders,
            peers,
            ..
        } = UdpResponse::decode(&answer, false).unwrap()
        else {
            panic!("{answer:?}");
        };
        assert!((1620..=1980).contains(&interval));
        assert_eq!((leechers, seeders), (at as u32 + 1, 0));
        assert!(peers.into_iter().eq(PORTS[..at].iter().copied().map(local)));
    }
    let all = ScrapeFigures {
        complete: 0,
        downloaded: 0,
        incomplete: 2,
    };
    for scrape in SCRAPES {
        client.send(&packet(id, scrape)).await;
        let answer = UdpResponse::decode(&client.receive().await, false);
        let Ok(UdpResponse::Scrape { figures, .. }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(figures, [all]);
    }
    for started in STARTED {
        let mut stopped = packet(id, started);
        stopped[83] = 3;
        client.send(&stopped).await;
        let answer = UdpResponse::decode(&client.receive().await, false);
        assert!(matches!(answer, Ok(UdpResponse::Announce { peers, .. }) if peers.is_empty()));
    }
    let registry = tracker.stats().registry;
    assert_eq!((registry.peers, registry.contents), (0, 0));
    assert_eq!(
        (registry.requests.announce, registry.requests.scrape),
        (4, 2)
    );
    tracker.shutdown().await;
}

#[tokio::test]
async fn scrape_of_as_many_torrents_as_fit_is_answered_in_order() {
    let (_tracker, addr) = over_udp(builder(), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    for torrent in [3, 70] {
        client.announce(torrent, 1000).await;
    }
    let hashes = (0..MAX_SCRAPE as u8).map(info_hash);
    let request = UdpRequest::Scrape {
        connection_id: client.connection_id().await,
        transaction_id: 9,
        info_hashes: hashes.collect(),
    };
    let UdpResponse::Scrape { figures, .. } = client.ask(&request).await else {
        panic!("it is answered");
    };
    assert_eq!(figures.len(), MAX_SCRAPE);
    for (torrent, figures) in figures.iter().enumerate() {
        assert_eq!(figures.incomplete, u32::from([3, 70].contains(&torrent)));
    }
}

#[tokio::test]
async fn clients_of_ipv6_hear_of_each_other_and_of_no_others() {
    let tracker = builder().bind("memory:tracker").await.unwrap();
    let mut addrs = Vec::new();
    for ip in ["127.0.0.1", "[::1]"] {
        let addr = tracker.serve_udp(format!("{ip}:0")).await.unwrap();
        addrs.push(addr.socket_addr().unwrap());
    }
    let v4 = Udp::connect(addrs[0]).await;
    let v6 = Udp::connect(addrs[1]).await;
    v4.announce(1, 1000).await;
    v6.announce(1, 1001).await;
    let UdpResponse::Announce {
        peers, leechers, ..
    } = v6.announce(1, 1002).await
    else {
        panic!("it is answered");
    };
    assert_eq!(peers, ["[::1]:1001".parse().unwrap()]);
    assert_eq!(leechers, 3);
    let answer = v4.announce(1, 1003).await;
    assert!(matches!(answer, UdpResponse::Announce { peers, .. } if peers == [local(1000)]));
}

#[tokio::test]
async fn what_clients_of_udp_and_http_announce_is_one_swarm() {
    let (tracker, addr) = over_udp(builder(), "127.0.0.1").await;
    let http = tracker.serve_http("127.0.0.1:0").await.unwrap();
    let mut http = super::Http::connect(http.socket_addr().unwrap()).await;
    http.announce(&super::query(1, 1000)).await;
    let client = Udp::connect(addr).await;
    let answer = client.announce(1, 1001).await;
    assert!(matches!(answer, UdpResponse::Announce { peers, .. } if peers == [local(1000)]));
    let answer = http.announce(&super::query(1, 1000)).await;
    assert_eq!(super::addrs(&answer), [local(1001)]);
    // The same client over both is one peer.
    client.announce(1, 1000).await;
    assert_eq!(tracker.stats().registry.peers, 2);
}
