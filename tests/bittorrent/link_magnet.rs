//! A connection before the torrent is known, and what it becomes.

use std::time::{Duration, Instant};

use bt_lite::bittorrent::wire::{
    ExtendedHandshake, HashRange, Message, MetadataMessage, OWN_EXTENSIONS, Reserved,
};
use bt_lite::content::ChunkIndex;
use bt_lite::protocol::PeerMessage;
use bt_lite::testing::bittorrent::{LinkEnd, LinkEvent, LinkFacts, MagnetLink, Violation};
use bytes::Bytes;

use crate::link_desk::{Desk, FAST, NOT_FAST, about, config, whole};

fn magnet(agreed: Reserved) -> MagnetLink {
    let agreed = agreed.with(Reserved::EXTENDED);
    MagnetLink::new(Instant::now(), agreed, ExtendedHandshake::default())
}

fn hear(link: &mut MagnetLink, message: Message) {
    link.handle_message(Instant::now(), message);
}

fn out(link: &mut MagnetLink) -> Vec<Message> {
    std::iter::from_fn(|| link.poll_message(Instant::now())).collect()
}

fn handshake() -> Message {
    let about = about(|about| {
        about.extensions = OWN_EXTENSIONS;
        about.metadata_size = Some(2);
    });
    Message::Extended {
        id: 0,
        payload: about.encode(),
    }
}

#[test]
fn unknown_torrent_is_begun_with_have_none_where_fast_asks_for_it() {
    for (agreed, count) in [(FAST, 2), (NOT_FAST, 1)] {
        let out = out(&mut magnet(agreed));
        assert!(matches!(out[0], Message::Extended { id: 0, .. }));
        assert_eq!(out.len(), count);
        assert_eq!(out.contains(&Message::HaveNone), agreed == FAST);
    }
}

#[test]
fn info_dictionary_is_asked_for_and_arrives() {
    let mut link = magnet(FAST);
    assert!(!link.ask_metadata(0));
    hear(&mut link, handshake());
    let Some(LinkEvent::About(about)) = link.poll_event() else {
        panic!("what the other side says of itself");
    };
    assert_eq!(about.metadata_size, Some(2));
    out(&mut link);
    assert!(link.ask_metadata(0));
    let extended = |message: &MetadataMessage| Message::Extended {
        id: OWN_EXTENSIONS.ut_metadata.unwrap(),
        payload: message.encode(),
    };
    let request = MetadataMessage::Request { piece: 0 };
    assert_eq!(out(&mut link), [extended(&request)]);
    let answer = MetadataMessage::Data {
        piece: 0,
        total_size: Some(2),
        data: Bytes::from_static(b"de"),
    };
    hear(&mut link, extended(&answer));
    assert_eq!(link.poll_event(), Some(LinkEvent::Metadata(answer)));
    // The other side may know as little.
    hear(&mut link, extended(&request));
    assert_eq!(
        out(&mut link),
        [extended(&MetadataMessage::Reject { piece: 0 })]
    );
}

#[test]
fn what_was_said_meanwhile_is_heard_by_the_link_that_follows() {
    let mut link = magnet(FAST);
    let bits = Bytes::from_static(b"\x80\0\0");
    for message in [
        handshake(),
        Message::Bitfield(bits.clone()),
        Message::Have(ChunkIndex(1)),
        Message::Unchoke,
        Message::Interested,
    ] {
        hear(&mut link, message);
    }
    out(&mut link);
    let mut desk = Desk::fresh(LinkFacts {
        said_none: true,
        ..config(FAST)
    });
    desk.follows();
    assert_eq!(desk.says(PeerMessage::HaveNone).1, [Message::Interested]);
    let heard = link.into_heard().into_iter();
    let heard: Vec<PeerMessage> = heard.flat_map(|message| desk.hears(message).0).collect();
    let (_, heard) = heard.split_first().expect("that it takes chunks back");
    let expected = [
        PeerMessage::Bitfield(bits),
        PeerMessage::Have(ChunkIndex(1)),
        PeerMessage::Unchoke,
        PeerMessage::Interested,
    ];
    assert_eq!(heard, expected);
    assert_eq!(desk.says(PeerMessage::Request(whole(0))).1.len(), 1);
}

#[test]
fn side_that_had_something_after_all_says_so_by_a_whole_bitfield() {
    let said_none = LinkFacts {
        said_none: true,
        ..config(FAST)
    };
    let mut desk = Desk::fresh(said_none);
    desk.follows();
    let whole = Bytes::from_static(b"\xff\xff\xf0");
    let out = desk.says(PeerMessage::HaveAll).1;
    assert_eq!(out, [Message::Bitfield(whole)]);
}

#[test]
fn memory_of_an_unknown_torrent_is_bounded() {
    let mut link = magnet(FAST);
    for at in 0..10_000 {
        hear(&mut link, Message::Have(ChunkIndex(at)));
        hear(&mut link, handshake());
    }
    assert!(link.into_heard().len() < 4200);
    let mut link = magnet(FAST);
    for _ in 0..300 {
        hear(&mut link, Message::Unknown { id: 99 });
    }
    let end = LinkEnd::Violation(Violation::Unknown);
    assert_eq!(link.poll_event(), Some(LinkEvent::End(end)));
    let mut link = magnet(FAST);
    for _ in 0..2000 {
        hear(&mut link, Message::Request(whole(0)));
    }
    let end = LinkEnd::Violation(Violation::DoesNotRead);
    assert_eq!(link.poll_event(), Some(LinkEvent::End(end)));
}

#[test]
fn connection_about_an_unknown_torrent_is_kept_alive_and_given_up() {
    let mut link = magnet(NOT_FAST);
    out(&mut link);
    let due = link.poll_timeout().unwrap();
    link.handle_timeout(due);
    assert_eq!(out(&mut link), [Message::KeepAlive]);
    link.handle_timeout(due + Duration::from_secs(240));
    assert_eq!(link.poll_event(), Some(LinkEvent::End(LinkEnd::Silent)));
    assert_eq!(link.poll_timeout(), None);
}

#[test]
fn messages_of_fast_need_it_before_the_torrent_is_known_as_well() {
    let mut link = magnet(NOT_FAST);
    hear(&mut link, Message::HaveAll);
    let end = LinkEnd::Violation(Violation::NotFast);
    assert_eq!(link.poll_event(), Some(LinkEvent::End(end)));
}

#[test]
fn hashes_are_asked_for_and_come_or_do_not() {
    let range = HashRange {
        root: [7; 32],
        base_layer: 2,
        index: 0,
        length: 4,
        proof_layers: 1,
    };
    let mut link = magnet(FAST);
    out(&mut link);
    let hashes = Bytes::from_static(&[1; 4 * 32]);
    let answer = Message::Hashes {
        range,
        hashes: hashes.clone(),
    };
    // Nobody asked.
    hear(&mut link, answer.clone());
    assert_eq!(link.poll_event(), None);
    link.ask_hashes(range);
    link.ask_hashes(range);
    let request = Message::HashRequest(range);
    assert_eq!(out(&mut link), [request.clone(), request]);
    hear(&mut link, answer.clone());
    hear(&mut link, Message::HashReject(range));
    hear(&mut link, answer);
    assert_eq!(link.poll_event(), Some(LinkEvent::Hashes { range, hashes }));
    let rejected = LinkEvent::HashesRejected(range);
    assert_eq!(link.poll_event(), Some(rejected));
    assert_eq!(link.poll_event(), None);
}

#[test]
fn talk_that_nobody_asked_for_ends_the_connection_at_last() {
    let extended = |id, payload: Bytes| Message::Extended { id, payload };
    let id = OWN_EXTENSIONS.ut_metadata.unwrap();
    let answer = MetadataMessage::Reject { piece: 0 }.encode();
    for talk in [
        extended(0, ExtendedHandshake::default().encode()),
        extended(id, answer),
    ] {
        let mut link = magnet(FAST);
        for _ in 0..300 {
            hear(&mut link, talk.clone());
        }
        let events = std::iter::from_fn(|| link.poll_event());
        let last = events.last();
        let end = LinkEvent::End(LinkEnd::Violation(Violation::Unknown));
        assert_eq!(last, Some(end), "{talk:?}");
    }
}
