//! Extensions, unknown messages, keep-alives, and what BitTorrent has no word for.

use std::time::Duration;

use bt_lite::bittorrent::wire::{
    ExtendedHandshake, HashRange, Message, MetadataMessage, OWN_EXTENSIONS, PexMessage, PexPeer,
    Reserved,
};
use bt_lite::content::ChunkIndex;
use bt_lite::protocol::{LinkProof, PeerMessage, RefuseReason};
use bt_lite::testing::bittorrent::{LinkEnd, LinkEvent, LinkFacts, Violation};
use bytes::Bytes;

use crate::link_desk::{Desk, FAST, NOT_FAST, about, config};

const MINUTE: Duration = Duration::from_secs(60);

fn metadata(message: &MetadataMessage) -> Message {
    Message::Extended {
        id: OWN_EXTENSIONS.ut_metadata.unwrap(),
        payload: message.encode(),
    }
}

fn peers(port: u16) -> PexMessage {
    PexMessage {
        added: vec![PexPeer {
            addr: ([1, 2, 3, 4], port).into(),
            flags: 0,
        }],
        dropped: vec![],
    }
}

fn pex(peers: &PexMessage) -> Message {
    Message::Extended {
        id: OWN_EXTENSIONS.ut_pex.unwrap(),
        payload: peers.encode(),
    }
}

/// What the first message of a link says of itself.
fn own_about(config: LinkFacts) -> ExtendedHandshake {
    let mut desk = Desk::fresh(config);
    let (_, out) = desk.follows();
    let [Message::Extended { id: 0, payload }] = &out[..] else {
        panic!("an extended handshake, not {out:?}");
    };
    ExtendedHandshake::decode(payload).unwrap()
}

#[test]
fn extended_handshake_is_not_said_where_it_was_not_agreed_on() {
    let mut desk = Desk::fresh(LinkFacts {
        agreed: Reserved::FAST,
        ..config(FAST)
    });
    assert_eq!(desk.follows().1, []);
    let about = about(|about| about.reqq = Some(1));
    assert_eq!(desk.hears_about(&about).0, []);
    assert_eq!((desk.others.len(), desk.link.figures().unknown), (0, 1));
}

#[test]
fn extended_handshake_late_and_twice_is_told_each_time() {
    let mut desk = Desk::asking(config(FAST));
    desk.hears_about(&about(|about| about.port = Some(1)));
    desk.hears_about(&about(|about| about.port = Some(2)));
    let ports = desk.others.iter().map(|event| match event {
        LinkEvent::About(about) => about.port,
        other => panic!("{other:?}"),
    });
    assert_eq!(ports.collect::<Vec<_>>(), [Some(1), Some(2)]);
}

#[test]
fn own_extended_handshake_says_what_is_served() {
    let own = own_about(LinkFacts {
        info: Some(Bytes::from_static(b"de")),
        about: about(|about| about.port = Some(9)),
        ..config(FAST)
    });
    assert_eq!(own.extensions, OWN_EXTENSIONS);
    assert_eq!(
        (own.metadata_size, own.reqq, own.port),
        (Some(2), Some(512), Some(9))
    );
    assert_eq!(own_about(config(FAST)).metadata_size, None);
}

#[test]
fn unknown_messages_are_passed_over_up_to_a_bound() {
    let payload = Bytes::new();
    for message in [
        Message::Unknown { id: 200 },
        Message::Extended { id: 77, payload },
    ] {
        let mut desk = Desk::asking(config(FAST));
        for _ in 0..64 {
            assert_eq!(desk.hears(message.clone()), (vec![], vec![]));
        }
        assert_eq!(desk.end, None);
        desk.hears(message);
        assert_eq!(desk.end, Some(LinkEnd::Violation(Violation::Unknown)));
    }
}

#[test]
fn keep_alive_is_sent_before_two_quiet_minutes_are_over() {
    let mut desk = Desk::asking(config(FAST));
    let due = desk.link.poll_timeout().unwrap() - desk.now;
    assert!(due > MINUTE && due < 2 * MINUTE);
    assert_eq!(desk.waits(due - Duration::from_millis(1)).1, []);
    assert_eq!(desk.waits(Duration::from_millis(1)).1, [Message::KeepAlive]);
    // What is sent for another reason does as well.
    desk.waits(MINUTE);
    desk.says(PeerMessage::Have(ChunkIndex(0)));
    let next = desk.link.poll_timeout().unwrap() - desk.now;
    assert!(next > MINUTE, "{next:?}");
}

#[test]
fn silent_peer_is_given_up_and_a_keep_alive_is_no_silence() {
    let mut desk = Desk::asking(config(FAST));
    for _ in 0..10 {
        desk.waits(3 * MINUTE);
        assert_eq!(desk.hears(Message::KeepAlive), (vec![], vec![]));
    }
    assert_eq!(desk.end, None);
    desk.waits(4 * MINUTE);
    assert_eq!(desk.end, Some(LinkEnd::Silent));
    assert_eq!(desk.link.poll_timeout(), None);
}

#[test]
fn peers_are_exchanged_once_a_minute_at_most() {
    let mut desk = Desk::asking(config(FAST));
    let now = desk.now;
    assert!(
        !desk.link.tell_peers(now, &peers(1)),
        "it does not listen yet"
    );
    desk.hears_of_extensions();
    desk.others.clear();
    assert!(desk.link.tell_peers(now, &peers(1)));
    assert_eq!(desk.follows().1, [pex(&peers(1))]);
    assert!(!desk.link.tell_peers(now + MINUTE / 2, &peers(2)));
    assert!(desk.link.tell_peers(now + MINUTE, &peers(2)));
    desk.hears(pex(&peers(3)));
    desk.hears(pex(&peers(4)));
    assert_eq!(desk.others, [LinkEvent::Peers(peers(3))]);
    desk.now += MINUTE;
    desk.hears(pex(&peers(5)));
    assert_eq!(desk.others.len(), 2);
}

#[test]
fn private_torrent_neither_says_nor_hears_of_peers() {
    let private = LinkFacts {
        private: true,
        ..config(FAST)
    };
    assert_eq!(own_about(private.clone()).extensions.ut_pex, None);
    let mut desk = Desk::asking(private);
    desk.hears_of_extensions();
    desk.others.clear();
    let now = desk.now;
    assert!(!desk.link.tell_peers(now, &peers(1)));
    assert_eq!(desk.hears(pex(&peers(1))), (vec![], vec![]));
    assert_eq!(desk.others, []);
}

#[test]
fn info_dictionary_is_served_in_pieces() {
    let info: Bytes = (0..20_000_u32).map(|at| at as u8).collect();
    let mut desk = Desk::asking(LinkFacts {
        info: Some(info.clone()),
        ..config(FAST)
    });
    let request = |piece| metadata(&MetadataMessage::Request { piece });
    assert_eq!(desk.hears(request(0)).1, [], "it takes no answer");
    desk.hears_of_extensions();
    let data = |piece, range: std::ops::Range<usize>| {
        metadata(&MetadataMessage::Data {
            piece,
            total_size: Some(20_000),
            data: info.slice(range),
        })
    };
    let reject = |piece| metadata(&MetadataMessage::Reject { piece });
    assert_eq!(desk.hears(request(1)).1, [data(1, 16_384..20_000)]);
    assert_eq!(desk.hears(request(0)).1, [data(0, 0..16_384)]);
    assert_eq!(desk.hears(request(2)).1, [reject(2)]);
    assert_eq!(desk.hears(request(u32::MAX)).1, [reject(u32::MAX)]);
    // Twice the whole is enough for one connection.
    desk.hears(request(0));
    desk.hears(request(0));
    assert_eq!(desk.hears(request(0)).1, [reject(0)]);
}

#[test]
fn info_dictionary_does_not_fill_the_memory_of_who_serves_it() {
    let mut desk = Desk::asking(LinkFacts {
        info: Some(vec![0; 100 * 16_384].into()),
        ..config(FAST)
    });
    desk.hears_of_extensions();
    for piece in 0..100 {
        let request = metadata(&MetadataMessage::Request { piece });
        desk.link.handle_message(desk.now, request);
    }
    let (_, out) = desk.follows();
    let long = out.iter().filter(|message| match message {
        Message::Extended { payload, .. } => payload.len() > 1000,
        _ => false,
    });
    assert_eq!((out.len(), long.count()), (100, 16));
    let request = metadata(&MetadataMessage::Request { piece: 99 });
    let (_, out) = desk.hears(request);
    assert!(matches!(&out[..], [Message::Extended { payload, .. }] if payload.len() > 1000));
}

#[test]
fn info_dictionary_is_asked_for_of_those_who_know_of_it() {
    let mut desk = Desk::asking(config(FAST));
    assert!(!desk.link.ask_metadata(0));
    desk.hears_of_extensions();
    assert!(desk.link.ask_metadata(3));
    let request = MetadataMessage::Request { piece: 3 };
    assert_eq!(desk.follows().1, [metadata(&request)]);
    desk.others.clear();
    let answer = MetadataMessage::Reject { piece: 3 };
    desk.hears(metadata(&answer));
    assert_eq!(desk.others, [LinkEvent::Metadata(answer)]);
}

#[test]
fn who_asks_and_does_not_read_is_given_up() {
    let mut desk = Desk::asking(config(FAST));
    let range = HashRange {
        root: [0; 32],
        base_layer: 0,
        index: 0,
        length: 1,
        proof_layers: 0,
    };
    let (_, out) = desk.hears(Message::HashRequest(range));
    assert_eq!(out, [Message::HashReject(range)]);
    for _ in 0..=8192 {
        desk.link
            .handle_message(desk.now, Message::HashRequest(range));
    }
    desk.follows();
    assert_eq!(desk.end, Some(LinkEnd::Violation(Violation::DoesNotRead)));
}

#[test]
fn hashes_are_served_as_often_as_a_client_needs_them() {
    let range = |index| HashRange {
        root: [7; 32],
        base_layer: 0,
        index,
        length: 2,
        proof_layers: 0,
    };
    let mut facts = config(FAST);
    facts.hash_requests = 10;
    let mut desk = Desk::asking(facts);
    let mut served = 0;
    loop {
        let (_, out) = desk.hears(Message::HashRequest(range(served)));
        let wanted = std::mem::take(&mut desk.others);
        if wanted.is_empty() {
            assert_eq!(out, [Message::HashReject(range(served))]);
            break;
        }
        assert_eq!(wanted, [LinkEvent::HashesWanted(range(served))]);
        // There may be none.
        let hashes = (served % 2 == 0).then(|| Bytes::from_static(&[1; 64]));
        desk.link.answer_hashes(range(served), hashes.clone());
        let range = range(served);
        let answer = match hashes {
            Some(hashes) => Message::Hashes { range, hashes },
            None => Message::HashReject(range),
        };
        assert_eq!(desk.follows().1, [answer]);
        served += 1;
    }
    assert_eq!(served, 20);
    // Who does not wait for answers is not answered.
    let mut facts = config(FAST);
    facts.hash_requests = 1000;
    let mut desk = Desk::asking(facts);
    for index in 0..20 {
        desk.hears(Message::HashRequest(range(index)));
    }
    assert_eq!(desk.others.len(), 16);
    for index in 0..16 {
        desk.link.answer_hashes(range(index), Some(Bytes::new()));
    }
    desk.follows();
    desk.hears(Message::HashRequest(range(30)));
    assert_eq!(desk.others.len(), 17);
}

#[test]
fn machine_that_has_no_place_refuses() {
    let mut desk = Desk::fresh(config(NOT_FAST));
    desk.says(PeerMessage::Queued { position: 1 });
    assert_eq!(desk.end, Some(LinkEnd::Refused(RefuseReason::Busy)));
    let mut desk = Desk::fresh(config(NOT_FAST));
    desk.says(PeerMessage::Refuse(RefuseReason::ShuttingDown));
    assert_eq!(desk.end, Some(LinkEnd::Refused(RefuseReason::ShuttingDown)));
}

#[test]
fn what_bittorrent_has_no_word_for_is_not_said() {
    let mut desk = Desk::asking(config(NOT_FAST));
    for message in [
        PeerMessage::KeepAlive,
        PeerMessage::SamePeer(LinkProof([0; 16])),
        PeerMessage::Suggest(ChunkIndex(0)),
        PeerMessage::DontHave(ChunkIndex(0)),
        PeerMessage::ManifestReject { page: 0 },
    ] {
        assert_eq!(desk.says(message), (vec![], vec![]));
    }
    let asked = desk.says(PeerMessage::ManifestRequest { page: 2 });
    assert_eq!(asked.0, [PeerMessage::ManifestReject { page: 2 }]);
}

#[test]
fn suggestion_goes_both_ways_with_fast() {
    let mut desk = Desk::asking(config(FAST));
    let chunk = ChunkIndex(1);
    assert_eq!(
        desk.says(PeerMessage::Suggest(chunk)).1,
        [Message::Suggest(chunk)]
    );
    assert_eq!(
        desk.hears(Message::Suggest(chunk)).0,
        [PeerMessage::Suggest(chunk)]
    );
    assert_eq!(desk.hears(Message::Suggest(ChunkIndex(99))).0, []);
}
