//! Trackers over UDP: both ends agree on every packet.

use std::net::SocketAddr;
use std::time::Duration;

use bt_lite::bittorrent::InfoHashV1;
use bt_lite::bittorrent::tracker::udp::{
    MAX_ERROR_LEN, MAX_PACKET_LEN, MAX_RETRANSMISSIONS, MAX_SCRAPE, MAX_URL_DATA_LEN, PROTOCOL_ID,
    UdpAnnounce, UdpPacketError, UdpRequest, UdpResponse, timeout,
};
use bt_lite::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use proptest::option::of;
use proptest::prelude::*;

use crate::tracker_http::{addr, event};

prop_compose! {
    fn announce()(
        info_hash: [u8; 20],
        peer_id: [u8; 20],
        numbers: [u64; 3],
        event in of(event().prop_filter("not over UDP", |e| *e != AnnounceEvent::Paused)),
        (ip, key, port) in any::<(u32, u32, u16)>(),
        num_want in of(0..=i32::MAX as u32),
        url_data in prop::collection::vec(any::<u8>(), 0..MAX_URL_DATA_LEN),
    ) -> UdpAnnounce {
        let [downloaded, left, uploaded] = numbers;
        let info_hash = InfoHashV1::from_bytes(info_hash);
        UdpAnnounce {
            info_hash, peer_id, downloaded, left, uploaded, event, ip, key, num_want, port, url_data,
        }
    }
}

fn request() -> impl Strategy<Value = UdpRequest> {
    let hashes = prop::collection::vec(any::<[u8; 20]>(), 1..=MAX_SCRAPE);
    prop_oneof![
        any::<u32>().prop_map(|transaction_id| UdpRequest::Connect { transaction_id }),
        (any::<u64>(), any::<u32>(), announce()).prop_map(
            |(connection_id, transaction_id, announce)| {
                UdpRequest::Announce {
                    connection_id,
                    transaction_id,
                    announce,
                }
            }
        ),
        (any::<u64>(), any::<u32>(), hashes).prop_map(|(connection_id, transaction_id, hashes)| {
            let info_hashes = hashes.into_iter().map(InfoHashV1::from_bytes).collect();
            UdpRequest::Scrape {
                connection_id,
                transaction_id,
                info_hashes,
            }
        }),
    ]
}

fn response() -> impl Strategy<Value = UdpResponse> {
    let peers = prop::collection::vec(addr(), 0..60);
    let figures = prop::collection::vec(any::<(u32, u32, u32)>(), 0..=MAX_SCRAPE);
    prop_oneof![
        any::<(u32, u64)>().prop_map(|(transaction_id, connection_id)| {
            UdpResponse::Connect {
                transaction_id,
                connection_id,
            }
        }),
        (any::<[u32; 4]>(), peers, any::<bool>()).prop_map(|(numbers, mut peers, is_v6)| {
            let [transaction_id, interval, leechers, seeders] = numbers;
            peers.retain(|peer| peer.is_ipv6() == is_v6);
            UdpResponse::Announce {
                transaction_id,
                interval,
                leechers,
                seeders,
                peers,
            }
        }),
        (any::<u32>(), figures).prop_map(|(transaction_id, figures)| {
            let figures = figures
                .into_iter()
                .map(|(complete, downloaded, incomplete)| ScrapeFigures {
                    complete,
                    downloaded,
                    incomplete,
                });
            UdpResponse::Scrape {
                transaction_id,
                figures: figures.collect(),
            }
        }),
        (any::<u32>(), "[a-zé ]{0,200}").prop_map(|(transaction_id, message)| {
            UdpResponse::Error {
                transaction_id,
                message,
            }
        }),
    ]
}

fn is_v6(response: &UdpResponse) -> bool {
    matches!(response, UdpResponse::Announce { peers, .. }
        if peers.first().is_some_and(SocketAddr::is_ipv6))
}

/// The length of the shortest packet of this kind.
fn least(action: u32, is_request: bool) -> usize {
    match (action, is_request) {
        (0, _) => 16,
        (1, true) => 98,
        (1, false) => 20,
        (2, true) => 36,
        _ => 8,
    }
}

proptest! {
    #[test]
    fn request_is_read_as_it_was_written(request in request()) {
        let packet = request.encode();
        prop_assert!(packet.len() <= 1600);
        prop_assert_eq!(UdpRequest::decode(&packet), Ok(request));
        let action = u32::from_be_bytes(packet[8..12].try_into().unwrap());
        for len in 0..least(action, true) {
            prop_assert!(UdpRequest::decode(&packet[..len]).is_err(), "{}", len);
        }
        for len in 0..packet.len() {
            _ = UdpRequest::decode(&packet[..len]);
        }
    }

    #[test]
    fn response_is_read_as_it_was_written(response in response()) {
        let packet = response.encode();
        let is_v6 = is_v6(&response);
        prop_assert!(packet.len() <= MAX_PACKET_LEN);
        let action = u32::from_be_bytes(packet[..4].try_into().unwrap());
        prop_assert_eq!(UdpResponse::decode(&packet, is_v6), Ok(response));
        for len in 0..least(action, false) {
            prop_assert!(UdpResponse::decode(&packet[..len], is_v6).is_err(), "{}", len);
        }
    }
}

fn announce_with(options: &[u8]) -> UdpAnnounce {
    let mut packet = 7_u64.to_be_bytes().to_vec();
    packet.extend(1_u32.to_be_bytes());
    packet.resize(96, 0);
    packet.extend(6881_u16.to_be_bytes());
    packet.extend(options);
    match UdpRequest::decode(&packet).unwrap() {
        UdpRequest::Announce { announce, .. } => announce,
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_have_the_bytes_of_the_specification() {
    let connect = UdpRequest::Connect { transaction_id: 5 }.encode();
    assert_eq!(connect, b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\0\0\0\x05");
    assert_eq!(PROTOCOL_ID, 0x41727101980);
    let announce = announce_with(b"");
    assert_eq!((announce.port, announce.num_want), (6881, Some(0)));
    let request = UdpRequest::Announce {
        connection_id: 1,
        transaction_id: 2,
        announce: UdpAnnounce {
            num_want: None,
            event: Some(AnnounceEvent::Started),
            ..announce
        },
    };
    let packet = request.encode();
    assert_eq!(packet.len(), 98);
    assert_eq!(packet[80..84], [0, 0, 0, 2]);
    assert_eq!(packet[92..], [255, 255, 255, 255, 0x1a, 0xe1]);
    let answer = UdpResponse::Announce {
        transaction_id: 2,
        interval: 3,
        leechers: 4,
        seeders: 5,
        peers: vec!["1.2.3.4:80".parse().unwrap()],
    };
    let packet = answer.encode();
    assert_eq!(packet[..8], [0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(packet[12..], [0, 0, 0, 4, 0, 0, 0, 5, 1, 2, 3, 4, 0, 80]);
    assert_eq!(answer.transaction_id(), 2);
}

#[test]
fn options_are_read_as_far_as_they_are_whole() {
    let url = |options: &[u8]| String::from_utf8(announce_with(options).url_data).unwrap();
    assert_eq!(url(b"\x02\x09/announce"), "/announce");
    assert_eq!(
        url(b"\x01\x01\x02\x02/a\x01\x02\x03?b=\x00\x02\x01x"),
        "/a?b="
    );
    // What is behind the end is no option, whatever it looks like.
    assert_eq!(url(b"\x00\x00\x02\x01x"), "");
    // An unknown option has a length as well.
    assert_eq!(url(b"\x09\x03abc\x02\x02/a"), "/a");
    for cut in [
        &b"\x02"[..],
        b"\x02\x05abc",
        b"\x09",
        b"\x09\xff",
        b"\x00",
        b"\x01",
    ] {
        assert_eq!(url(cut), "");
    }
    let long = [&b"\x02\xff"[..], &[b'a'; 255]].concat().repeat(9);
    assert_eq!(url(&long).len(), 4 * 255);
}

#[test]
fn what_is_no_packet_is_refused() {
    let short = Err(UdpPacketError::TooShort);
    assert_eq!(UdpRequest::decode(b""), short);
    let mut packet = UdpRequest::Connect { transaction_id: 1 }.encode();
    packet[0] = 1;
    assert_eq!(UdpRequest::decode(&packet), Err(UdpPacketError::Protocol));
    packet[11] = 3;
    assert_eq!(
        UdpRequest::decode(&packet),
        Err(UdpPacketError::Action { found: 3 })
    );
    packet[11] = 2;
    assert_eq!(UdpRequest::decode(&packet), Err(UdpPacketError::NoTorrent));
    assert_eq!(
        UdpResponse::decode(b"\0\0\0\x09\0\0\0\x01", false),
        Err(UdpPacketError::Action { found: 9 })
    );
    let mut announce = vec![0; 98];
    announce[11] = 1;
    announce[83] = 4;
    assert_eq!(
        UdpRequest::decode(&announce),
        Err(UdpPacketError::Event { found: 4 })
    );
}

#[test]
fn long_answers_are_cut() {
    let peers = (1..=2000_u16).map(|port| SocketAddr::new([10, 0, 0, 1].into(), port));
    let answer = UdpResponse::Announce {
        transaction_id: 0,
        interval: 0,
        leechers: 0,
        seeders: 0,
        peers: peers.collect(),
    };
    let packet = answer.encode();
    assert_eq!(packet.len(), MAX_PACKET_LEN - (MAX_PACKET_LEN - 20) % 6);
    let error = UdpResponse::Error {
        transaction_id: 0,
        message: "é".repeat(MAX_ERROR_LEN),
    };
    let read = UdpResponse::decode(&error.encode(), false).unwrap();
    let message = "é".repeat(MAX_ERROR_LEN / 2);
    assert_eq!(
        read,
        UdpResponse::Error {
            transaction_id: 0,
            message
        }
    );
    let error = UdpResponse::Error {
        transaction_id: 0,
        message: "a".repeat(MAX_ERROR_LEN + 1),
    };
    assert_eq!(error.encode().len(), 8 + MAX_ERROR_LEN);
}

#[test]
fn error_that_is_no_text_is_cut_as_text() {
    // An action, and a transaction.
    let head = [0, 0, 0, 3, 0, 0, 0, 9];
    // Each byte that is no UTF-8 becomes three.
    let packet = [&head[..], &[0xff; MAX_ERROR_LEN]].concat();
    let message = "\u{fffd}".repeat(MAX_ERROR_LEN / 3);
    let transaction_id = 9;
    assert_eq!(
        UdpResponse::decode(&packet, false),
        Ok(UdpResponse::Error {
            transaction_id,
            message
        })
    );
}

#[test]
fn each_wait_is_twice_as_long_as_the_last_until_there_is_no_more() {
    assert_eq!(timeout(0), Some(Duration::from_secs(15)));
    for sent in 1..=MAX_RETRANSMISSIONS {
        assert_eq!(timeout(sent), timeout(sent - 1).map(|before| 2 * before));
        assert!(timeout(sent).is_some(), "{sent}");
    }
    assert_eq!(timeout(MAX_RETRANSMISSIONS + 1), None);
}
