//! Choke and interest, both ways, with the Fast extension and without.

use std::time::Duration;

use bt_lite::bittorrent::wire::Message;
use bt_lite::protocol::PeerMessage;

use crate::link_desk::{Desk, FAST, NOT_FAST, config, sent, told, whole};

fn request(chunk: u32) -> PeerMessage {
    PeerMessage::Request(whole(chunk))
}

fn reject(chunk: u32) -> PeerMessage {
    PeerMessage::Reject(whole(chunk))
}

#[test]
fn choke_without_fast_loses_what_is_under_way() {
    let mut desk = Desk::asking(config(NOT_FAST));
    desk.says(request(0));
    desk.says(request(1));
    let heard = desk.hears(Message::Choke).0;
    assert_eq!(heard, [PeerMessage::Choke, reject(0), reject(1)]);
    // What crossed the choke is no fault, and is not used.
    assert_eq!(desk.hears(sent(whole(0))), (vec![], vec![]));
    assert_eq!(desk.link.figures().late_bytes, 16_384);
    assert_eq!(desk.link.figures().unasked, 0);
    // It may be asked for again.
    desk.hears(Message::Unchoke);
    assert_eq!(desk.says(request(0)).1, [Message::Request(whole(0))]);
    assert_eq!(desk.hears(sent(whole(0))).0, [told(whole(0))]);
}

#[test]
fn choke_with_fast_loses_nothing() {
    let mut desk = Desk::asking(config(FAST));
    desk.says(request(0));
    desk.says(request(1));
    assert_eq!(desk.hears(Message::Choke).0, [PeerMessage::Choke]);
    assert_eq!(desk.hears(sent(whole(0))).0, [told(whole(0))]);
    assert_eq!(desk.hears(Message::Reject(whole(1))).0, [reject(1)]);
    assert_eq!(desk.link.figures().unasked, 0);
}

#[test]
fn request_while_choked_is_rejected_here() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::asking(config(fast));
        desk.hears(Message::Choke);
        assert_eq!(desk.says(request(0)), (vec![reject(0)], vec![]));
    }
}

#[test]
fn unchoke_twice_is_heard_once() {
    let mut desk = Desk::new(config(FAST));
    desk.hears(Message::HaveAll);
    assert_eq!(desk.hears(Message::Unchoke).0, [PeerMessage::Unchoke]);
    assert_eq!(desk.hears(Message::Unchoke).0, []);
    assert_eq!(desk.hears(Message::Choke).0, [PeerMessage::Choke]);
    assert_eq!(desk.hears(Message::Choke).0, []);
}

#[test]
fn allowed_fast_is_counted_and_not_used() {
    let mut desk = Desk::new(config(FAST));
    desk.hears(Message::HaveAll);
    let chunk = whole(0).chunk;
    assert_eq!(desk.hears(Message::AllowedFast(chunk)), (vec![], vec![]));
    assert_eq!(desk.link.figures().allowed_fast, 1);
    assert_eq!(desk.says(request(0)), (vec![reject(0)], vec![]));
}

#[test]
fn own_choke_with_fast_rejects_one_by_one() {
    let mut desk = Desk::serving(config(FAST));
    desk.hears(Message::Request(whole(0)));
    desk.hears(Message::Request(whole(1)));
    assert_eq!(desk.says(PeerMessage::Choke).1, [Message::Choke]);
    assert_eq!(desk.says(reject(1)).1, [Message::Reject(whole(1))]);
    // The machine was reading this one.
    assert_eq!(desk.says(told(whole(0))).1, [sent(whole(0))]);
    assert_eq!(desk.says(PeerMessage::Unchoke).1, [Message::Unchoke]);
}

#[test]
fn own_choke_without_fast_comes_behind_what_is_being_sent() {
    let mut desk = Desk::serving(config(NOT_FAST));
    desk.hears(Message::Request(whole(0)));
    desk.hears(Message::Request(whole(1)));
    assert_eq!(desk.says(PeerMessage::Choke).1, []);
    assert_eq!(desk.says(reject(1)).1, []);
    // The other side forgets this one with the rest.
    assert_eq!(desk.hears(Message::Request(whole(2))), (vec![], vec![]));
    assert_eq!(
        desk.says(told(whole(0))).1,
        [sent(whole(0)), Message::Choke]
    );
    assert_eq!(desk.says(PeerMessage::Unchoke).1, [Message::Unchoke]);
}

#[test]
fn own_choke_without_fast_is_said_though_an_unchoke_follows() {
    let mut desk = Desk::serving(config(NOT_FAST));
    desk.hears(Message::Request(whole(0)));
    desk.hears(Message::Request(whole(1)));
    desk.says(PeerMessage::Choke);
    desk.says(reject(1));
    assert_eq!(desk.says(PeerMessage::Unchoke).1, []);
    let out = desk.says(told(whole(0))).1;
    assert_eq!(out, [sent(whole(0)), Message::Choke, Message::Unchoke]);
}

#[test]
fn own_choke_without_fast_is_said_at_once_if_nothing_is_open() {
    let mut desk = Desk::serving(config(NOT_FAST));
    assert_eq!(desk.says(PeerMessage::Choke).1, [Message::Choke]);
}

#[test]
fn choke_before_the_greeting_takes_the_unchoke_out_of_it() {
    let mut desk = Desk::fresh(config(FAST));
    desk.follows();
    desk.says(PeerMessage::Choke);
    assert_eq!(desk.says(PeerMessage::HaveAll).1, [Message::HaveAll]);
    desk.hears(Message::Interested);
    assert_eq!(desk.says(PeerMessage::Unchoke).1, [Message::Unchoke]);
}

#[test]
fn interest_is_said_once_and_changes() {
    let mut desk = Desk::new(config(FAST));
    assert_eq!(desk.says(PeerMessage::Interested).1, []);
    assert_eq!(
        desk.says(PeerMessage::NotInterested).1,
        [Message::NotInterested]
    );
    assert_eq!(desk.says(PeerMessage::NotInterested).1, []);
    assert_eq!(desk.says(PeerMessage::Interested).1, [Message::Interested]);
}

#[test]
fn request_after_all_is_said_with_the_interest_that_it_shows() {
    let mut desk = Desk::asking(config(FAST));
    desk.says(PeerMessage::NotInterested);
    let said = desk.says(request(0)).1;
    assert_eq!(said, [Message::Interested, Message::Request(whole(0))]);
    assert_eq!(desk.says(request(1)).1, [Message::Request(whole(1))]);
}

#[test]
fn request_of_one_that_said_it_is_not_interested_shows_that_it_is() {
    let mut desk = Desk::serving(config(FAST));
    assert_eq!(
        desk.hears(Message::NotInterested).0,
        [PeerMessage::NotInterested]
    );
    let heard = desk.hears(Message::Request(whole(0))).0;
    assert_eq!(heard, [PeerMessage::Interested, request(0)]);
}

#[test]
fn interest_is_heard_again_as_long_as_the_peer_waits_for_a_turn() {
    let mut desk = Desk::serving(config(NOT_FAST));
    let again = Duration::from_secs(10);
    desk.hears(Message::HaveAll);
    let mut desk = Desk::serving(config(FAST));
    desk.hears(Message::HaveNone);
    assert_eq!(desk.waits(again).0, []);
    desk.says(PeerMessage::Choke);
    assert_eq!(desk.waits(again).0, [PeerMessage::Interested]);
    assert_eq!(desk.waits(again / 2).0, []);
    assert_eq!(desk.waits(again / 2).0, [PeerMessage::Interested]);
    desk.hears(Message::NotInterested);
    assert_eq!(desk.waits(again).0, []);
}

#[test]
fn unchoke_waits_until_the_other_side_can_use_it() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::new(config(fast));
        let greeting = desk.says(PeerMessage::HaveAll).1;
        assert!(!greeting.contains(&Message::Unchoke), "{greeting:?}");
        assert_eq!(desk.hears(Message::Interested).1, [Message::Unchoke]);
        // It is said once, and from then on when it changes.
        desk.hears(Message::NotInterested);
        assert_eq!(desk.hears(Message::Interested).1, []);
        assert_eq!(desk.says(PeerMessage::Choke).1, [Message::Choke]);
        assert_eq!(desk.says(PeerMessage::Unchoke).1, [Message::Unchoke]);
    }
}

#[test]
fn choke_takes_back_an_unchoke_that_was_not_said() {
    let mut desk = Desk::new(config(FAST));
    desk.says(PeerMessage::HaveAll);
    assert_eq!(desk.says(PeerMessage::Choke).1, []);
    assert_eq!(desk.hears(Message::Interested).1, []);
    assert_eq!(desk.says(PeerMessage::Unchoke).1, [Message::Unchoke]);
}
