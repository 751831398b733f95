//! What each side has: said once, never, late, or again and again.

use std::time::Duration;

use bt_lite::bittorrent::wire::{Message, OWN_EXTENSIONS, Reserved};
use bt_lite::content::{BitfieldError, ChunkIndex};
use bt_lite::protocol::{DONT_HAVE_MARK, PeerMessage};
use bt_lite::testing::bittorrent::{LinkEnd, LinkFacts, Violation};
use bytes::Bytes;

use crate::link_desk::{Desk, FAST, NOT_FAST, about, config, whole};

fn bits(bytes: &'static [u8]) -> Message {
    Message::Bitfield(Bytes::from_static(bytes))
}

fn have(chunk: u32) -> PeerMessage {
    PeerMessage::Have(ChunkIndex(chunk))
}

#[test]
fn machine_hears_a_choke_first() {
    let mut desk = Desk::fresh(config(FAST));
    assert_eq!(desk.follows().0, [PeerMessage::Choke]);
}

#[test]
fn greeting_with_fast_is_have_all_or_none_or_bitfield() {
    for (greeting, message) in [
        (PeerMessage::HaveAll, Message::HaveAll),
        (PeerMessage::HaveNone, Message::HaveNone),
        (
            PeerMessage::Bitfield(Bytes::from_static(b"\x80\0\0")),
            bits(b"\x80\0\0"),
        ),
    ] {
        let mut desk = Desk::fresh(config(FAST));
        desk.follows();
        let is_complete = message == Message::HaveAll;
        let mut expected = vec![message];
        expected.extend((!is_complete).then_some(Message::Interested));
        assert_eq!(desk.says(greeting).1, expected);
    }
}

#[test]
fn greeting_without_fast_is_a_bitfield_or_nothing() {
    let mut desk = Desk::fresh(config(NOT_FAST));
    desk.follows();
    let out = desk.says(PeerMessage::HaveAll).1;
    assert_eq!(out, [bits(b"\xff\xff\xf0")]);
    let mut desk = Desk::fresh(config(NOT_FAST));
    desk.follows();
    let out = desk.says(PeerMessage::HaveNone).1;
    assert_eq!(out, [Message::Interested]);
    assert_eq!(desk.link.take_settled(), 1);
}

#[test]
fn extended_handshake_is_the_first_message() {
    let mut desk = Desk::fresh(config(FAST));
    desk.says(PeerMessage::HaveNone);
    let mut desk = Desk::fresh(config(FAST));
    let (_, out) = desk.follows();
    assert!(matches!(out[..], [Message::Extended { id: 0, .. }]));
}

#[test]
fn whole_bitfield_is_heard_as_have_all_and_an_empty_one_as_have_none() {
    for (message, greeting) in [
        (bits(b"\xff\xff\xf0"), PeerMessage::HaveAll),
        (bits(b"\0\0\0"), PeerMessage::HaveNone),
        (
            bits(b"\x40\0\0"),
            PeerMessage::Bitfield(Bytes::from_static(b"\x40\0\0")),
        ),
    ] {
        assert_eq!(Desk::new(config(NOT_FAST)).hears(message).0, [greeting]);
    }
}

#[test]
fn missing_bitfield_is_heard_as_have_none_at_the_first_other_message() {
    let mut desk = Desk::new(config(NOT_FAST));
    assert_eq!(
        desk.hears_of_extensions().0,
        [PeerMessage::Cancel(DONT_HAVE_MARK)]
    );
    assert_eq!(desk.hears(Message::KeepAlive).0, []);
    assert_eq!(desk.hears(Message::Port(1)).0, []);
    let heard = desk.hears(Message::Unchoke).0;
    assert_eq!(heard, [PeerMessage::HaveNone, PeerMessage::Unchoke]);
    assert_eq!(desk.hears(Message::Interested).0, [PeerMessage::Interested]);
}

#[test]
fn missing_bitfield_is_heard_as_have_none_after_a_while() {
    let mut desk = Desk::new(config(NOT_FAST));
    let due = desk.link.poll_timeout().unwrap() - desk.now;
    assert_eq!(desk.waits(due - Duration::from_millis(1)).0, []);
    assert_eq!(
        desk.waits(Duration::from_millis(1)).0,
        [PeerMessage::HaveNone]
    );
}

#[test]
fn interested_before_the_bitfield_makes_its_chunks_come_one_by_one() {
    let mut desk = Desk::new(config(FAST));
    let heard = desk.hears(Message::Interested).0;
    assert_eq!(heard, [PeerMessage::HaveNone, PeerMessage::Interested]);
    assert_eq!(desk.hears(bits(b"\x80\0\x10")).0, [have(0), have(19)]);
}

#[test]
fn bitfield_again_and_again_is_heard_as_what_is_new() {
    let mut desk = Desk::new(config(FAST));
    assert_eq!(desk.hears(Message::HaveNone).0, [PeerMessage::HaveNone]);
    assert_eq!(desk.hears(bits(b"\x80\0\0")).0, [have(0)]);
    assert_eq!(desk.hears(bits(b"\x80\0\0")).0, []);
    assert_eq!(desk.hears(bits(b"\xa0\0\x10")).0, [have(2), have(19)]);
    assert_eq!(desk.hears(Message::Have(ChunkIndex(2))).0, []);
    assert_eq!(desk.hears(Message::HaveAll).0.len(), 17);
}

#[test]
fn chunks_that_a_later_bitfield_lacks_are_heard_as_lost() {
    let mut desk = Desk::new(config(FAST));
    desk.hears(bits(b"\xc0\0\0"));
    let heard = desk.hears(bits(b"\x20\0\0")).0;
    let lost = |chunk| PeerMessage::DontHave(ChunkIndex(chunk));
    let mark = PeerMessage::Cancel(DONT_HAVE_MARK);
    // The machine believes it only of who knows of such things, and says so itself.
    assert_eq!(heard, [have(2), mark, lost(0), lost(1)]);
    assert_eq!(desk.says(PeerMessage::Cancel(DONT_HAVE_MARK)).1, []);
    assert_eq!(desk.hears(bits(b"\0\0\0")).0, [lost(2)]);
}

#[test]
fn lost_chunk_is_said_and_heard_by_lt_donthave() {
    let mut desk = Desk::new(config(FAST));
    desk.hears(Message::HaveAll);
    let lost = PeerMessage::DontHave(ChunkIndex(3));
    assert_eq!(
        desk.says(lost.clone()).1,
        [],
        "the other side would not understand"
    );
    desk.hears_of_extensions();
    let id = OWN_EXTENSIONS.lt_donthave.unwrap();
    let payload = Bytes::from_static(b"\0\0\0\x03");
    let message = Message::Extended { id, payload };
    let out = desk.says(lost.clone()).1;
    assert_eq!(out, std::slice::from_ref(&message));
    assert_eq!(desk.hears(message.clone()).0, [lost]);
    assert_eq!(desk.hears(message).0, []);
    assert_eq!(desk.hears(Message::Have(ChunkIndex(3))).0, [have(3)]);
}

#[test]
fn bitfield_of_another_torrent_ends_the_link() {
    for (bytes, error) in [
        (&b"\xff\xff\xf8"[..], BitfieldError::SpareBits),
        (
            &b"\xff\xff"[..],
            BitfieldError::Length {
                len: 2,
                expected: 3,
            },
        ),
    ] {
        let mut desk = Desk::new(config(FAST));
        desk.hears(bits(bytes));
        assert_eq!(desk.end, Some(LinkEnd::Violation(error.into())));
        assert_eq!(desk.hears(Message::HaveAll), (vec![], vec![]));
    }
}

#[test]
fn chunk_that_the_torrent_lacks_ends_the_link() {
    let chunk = ChunkIndex(20);
    let mut desk = Desk::new(config(FAST));
    desk.hears(Message::Have(chunk));
    assert_eq!(
        desk.end,
        Some(LinkEnd::Violation(Violation::NoSuchChunk { chunk }))
    );
}

#[test]
fn messages_of_fast_that_was_not_agreed_on_end_the_link() {
    for message in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Reject(whole(0)),
        Message::Suggest(ChunkIndex(0)),
        Message::AllowedFast(ChunkIndex(0)),
    ] {
        let mut desk = Desk::new(config(NOT_FAST));
        desk.hears(message);
        assert_eq!(desk.end, Some(LinkEnd::Violation(Violation::NotFast)));
    }
}

#[test]
fn two_that_want_nothing_part_politely() {
    use bt_lite::protocol::RefuseReason::NotNeeded;
    let refuse = PeerMessage::Refuse(NotNeeded);
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::serving(config(fast));
        assert!(desk.hears(bits(b"\xff\xff\xf0")).0.contains(&refuse));
        assert_eq!(desk.end, Some(LinkEnd::NotNeeded));
    }
    // One that has a part and wants no more.
    let mut desk = Desk::serving(config(FAST));
    desk.hears(bits(b"\x80\0\0"));
    let heard = desk
        .hears_about(&about(|about| about.upload_only = Some(true)))
        .0;
    assert!(heard.ends_with(&[refuse]));
    assert_eq!(desk.end, Some(LinkEnd::NotNeeded));
}

#[test]
fn side_that_has_become_complete_says_so_and_parts() {
    let mut desk = Desk::new(config(FAST));
    desk.hears_of_extensions();
    desk.hears(bits(b"\x80\0\0"));
    desk.link.handle_complete();
    let id = OWN_EXTENSIONS.upload_only.unwrap();
    let payload = Bytes::from_static(&[1]);
    let upload_only = Message::Extended { id, payload };
    assert_eq!(
        desk.follows().1,
        [upload_only.clone(), Message::NotInterested]
    );
    assert_eq!(desk.end, None);
    desk.hears(upload_only);
    assert_eq!(desk.end, Some(LinkEnd::NotNeeded));
}

#[test]
fn peer_that_wants_nothing_is_not_interested() {
    let mut desk = Desk::new(config(FAST));
    desk.hears(Message::HaveAll);
    let heard = desk
        .hears_about(&about(|about| about.upload_only = Some(true)))
        .0;
    assert_eq!(heard, [PeerMessage::NotInterested]);
    assert_eq!(desk.end, None);
}

#[test]
fn node_of_the_table_is_told_to_those_who_have_one_after_what_this_side_has() {
    let with = |agreed: Reserved, port| LinkFacts {
        dht_port: port,
        ..config(agreed)
    };
    let both = FAST.with(Reserved::DHT);
    for (facts, told) in [
        (with(both, Some(7)), vec![Message::Port(7)]),
        (with(FAST, Some(7)), vec![]),
        (with(both, None), vec![]),
    ] {
        let mut desk = Desk::fresh(facts);
        let (_, out) = desk.says(PeerMessage::HaveNone);
        let at = |of: &Message| out.iter().position(|message| message == of);
        let ports = out.iter().filter(|out| matches!(out, Message::Port(_)));
        assert_eq!(ports.cloned().collect::<Vec<_>>(), told);
        if let Some(port) = told.first() {
            assert!(at(&Message::HaveNone).unwrap() < at(port).unwrap());
        }
        assert_eq!(desk.hears(Message::Port(9)).0, []);
        assert_eq!(desk.end, None);
    }
}
