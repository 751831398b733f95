//! Over UDP: packets that mean harm.

use std::time::Duration;

use bt_lite::bittorrent::tracker::udp::{PROTOCOL_ID, UdpRequest, UdpResponse};
use bt_lite::tracker::{RegistryConfig, TrackerConfig};

use super::{Udp, announce, builder, info_hash, over_udp};

/// What is answered to a packet, if anything: the answer to a connect that is sent behind it
/// comes after it.
async fn answer_to(client: &Udp, packet: &[u8]) -> Option<Vec<u8>> {
    client.send(packet).await;
    let transaction_id = 0xfeed;
    let connect = UdpRequest::Connect { transaction_id };
    client.send(&connect.encode()).await;
    let first = client.receive().await;
    let is_end = |packet: &[u8]| packet[..8] == [0, 0, 0, 0, 0, 0, 0xfe, 0xed];
    if is_end(&first) {
        return None;
    }
    assert!(is_end(&client.receive().await), "one answer at most");
    Some(first)
}

#[tokio::test]
async fn who_has_not_proven_its_address_is_sent_no_more_than_it_has_sent() {
    let (tracker, addr) = over_udp(builder(), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    client.announce(1, 1000).await;
    let real = client.connection_id().await;
    let requests = |connection_id| {
        let announce = UdpRequest::Announce {
            connection_id,
            transaction_id: 1,
            announce: announce(1, 1001),
        };
        let info_hashes = vec![info_hash(1)];
        let scrape = UdpRequest::Scrape {
            connection_id,
            transaction_id: 1,
            info_hashes,
        };
        [announce, scrape]
    };
    let forged = (0..64).map(|bit| real ^ 1 << bit);
    for id in forged.chain([0, u64::MAX, PROTOCOL_ID]) {
        for request in requests(id) {
            let packet = request.encode();
            let answer = answer_to(&client, &packet).await.unwrap();
            assert!(answer.len() <= packet.len());
            let answer = UdpResponse::decode(&answer, false).unwrap();
            assert!(matches!(
                answer,
                UdpResponse::Error {
                    transaction_id: 1,
                    ..
                }
            ));
        }
    }
    assert_eq!(tracker.stats().registry.peers, 1);
    let connect = UdpRequest::Connect { transaction_id: 1 }.encode();
    assert!(answer_to(&client, &connect).await.unwrap().len() <= connect.len());
    for request in requests(real) {
        let answer = client.ask(&request).await;
        assert!(!matches!(answer, UdpResponse::Error { .. }));
    }
}

#[tokio::test]
async fn connection_id_is_good_for_two_minutes_and_not_for_four() {
    let (_tracker, addr) = over_udp(builder(), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    let request = UdpRequest::Announce {
        connection_id: client.connection_id().await,
        transaction_id: 1,
        announce: announce(1, 1000),
    };
    tokio::time::pause();
    for is_good in [true, false] {
        tokio::time::advance(Duration::from_secs(120)).await;
        let answer = client.ask(&request).await;
        assert_eq!(matches!(answer, UdpResponse::Announce { .. }), is_good);
    }
}

#[tokio::test]
async fn what_is_no_request_is_not_answered_to_strangers() {
    let (tracker, addr) = over_udp(builder(), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    let id = client.connection_id().await;
    let request = UdpRequest::Announce {
        connection_id: id,
        transaction_id: 1,
        announce: announce(1, 1000),
    };
    let whole = request.encode();
    let mut of_stranger = whole.clone();
    of_stranger[..8].copy_from_slice(&7_u64.to_be_bytes());
    for len in 0..whole.len() {
        let answer = answer_to(&client, &of_stranger[..len]).await;
        assert_eq!(answer, None, "{len} bytes");
    }
    // Who has proven its address is told what is wrong.
    for len in 0..whole.len() {
        let answer = answer_to(&client, &whole[..len]).await;
        assert_eq!(answer.is_some(), len >= 16, "{len} bytes");
        if let Some(answer) = answer {
            let answer = UdpResponse::decode(&answer, false).unwrap();
            assert!(matches!(
                answer,
                UdpResponse::Error {
                    transaction_id: 1,
                    ..
                }
            ));
        }
    }
    for action in [3_u32, 4, 255, u32::MAX] {
        for (packet, told) in [(&whole, true), (&of_stranger, false)] {
            let mut packet = packet.clone();
            packet[8..12].copy_from_slice(&action.to_be_bytes());
            assert_eq!(answer_to(&client, &packet).await.is_some(), told);
        }
    }
    let mut event = whole.clone();
    event[83] = 9;
    assert!(answer_to(&client, &event).await.is_some());
    let mut long = whole.clone();
    long.resize(5000, 0xff);
    let answer = answer_to(&client, &long).await.unwrap();
    let answer = UdpResponse::decode(&answer, false).unwrap();
    assert!(matches!(answer, UdpResponse::Announce { .. }));
    let registry = tracker.stats().registry;
    assert_eq!(registry.peers, 1);
    assert_eq!(registry.refusals.malformed, (98 - 16) + 4 + 1);
}

#[tokio::test]
async fn host_that_sends_too_much_is_not_answered_for_a_while() {
    let config = TrackerConfig::default().max_announces_per_host(1);
    let (tracker, addr) = over_udp(builder().config(config), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    let connection_id = client.connection_id().await;
    let mut answered = 0;
    for port in 1..=40 {
        let request = UdpRequest::Announce {
            connection_id,
            transaction_id: 1,
            announce: announce(1, port),
        };
        answered += u32::from(answer_to(&client, &request.encode()).await.is_some());
    }
    // Ten in ten seconds, and a new ten seconds may begin meanwhile.
    assert!((10..=20).contains(&answered), "{answered}");
    let registry = tracker.stats().registry;
    assert_eq!(registry.refusals.busy, u64::from(40 - answered));
    assert_eq!(registry.peers, u64::from(answered));
}

#[tokio::test]
async fn as_many_peers_are_named_as_a_packet_holds() {
    let registry = RegistryConfig::default();
    for (ip, most) in [("127.0.0.1", 200), ("[::1]", 67)] {
        let (_tracker, addr) = over_udp(builder().registry(registry.clone()), ip).await;
        let client = Udp::connect(addr).await;
        for port in 1..=250 {
            client.announce(1, port).await;
        }
        let mut announce = announce(1, 1);
        announce.num_want = Some(i32::MAX as u32);
        let request = UdpRequest::Announce {
            connection_id: client.connection_id().await,
            transaction_id: 5,
            announce,
        };
        client.send(&request.encode()).await;
        let packet = client.receive().await;
        assert!(packet.len() <= 1232, "{}", packet.len());
        let answer = UdpResponse::decode(&packet, client.is_v6).unwrap();
        let UdpResponse::Announce {
            peers, leechers, ..
        } = answer
        else {
            panic!("it is answered");
        };
        assert_eq!((peers.len(), leechers), (most, 250), "{ip}");
    }
}

#[tokio::test]
async fn refusal_of_the_registry_is_told() {
    let registry = RegistryConfig::default().max_announcers_per_host(1);
    let (_tracker, addr) = over_udp(builder().registry(registry), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    client.announce(1, 1000).await;
    let answer = client.announce(1, 1001).await;
    assert!(matches!(answer, UdpResponse::Error { message, .. } if message.contains('1')));
}
