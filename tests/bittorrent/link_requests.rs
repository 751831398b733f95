//! Requests of this side and of the other: how long, how many, over padding, and what ends.

use bt_lite::bittorrent::wire::{ClientId, MAX_ASKED_LEN, Message};
use bt_lite::content::Geometry;
use bt_lite::protocol::PeerMessage;
use bt_lite::testing::bittorrent::{LinkEnd, LinkFacts, MAX_SERVED_LEN, OWN_REQQ, Violation};

use crate::link_desk::{Desk, FAST, NOT_FAST, about, block, config, padded, sent, told, whole};

fn request(block: bt_lite::content::BlockRange) -> PeerMessage {
    PeerMessage::Request(block)
}

/// A torrent with chunks of 256 KiB.
fn long_chunks(config: LinkFacts) -> LinkFacts {
    LinkFacts {
        geometry: Geometry::of(256 << 20).unwrap(),
        ..config
    }
}

fn asking_for_long_chunks() -> Desk {
    let mut desk = Desk::new(long_chunks(config(FAST)));
    desk.hears(Message::HaveAll);
    desk.hears(Message::Unchoke);
    desk
}

#[test]
fn request_for_more_than_16_kib_is_cut_and_answered_as_one() {
    let mut desk = asking_for_long_chunks();
    let asked = block(1, 10, 40_000);
    let parts = [(10, 16_384), (16_394, 16_384), (32_778, 7_232)];
    let parts = parts.map(|(offset, len)| block(1, offset, len));
    assert!(parts.iter().all(|part| part.len <= MAX_ASKED_LEN));
    assert_eq!(desk.says(request(asked)).1, parts.map(Message::Request));
    assert_eq!(desk.hears(sent(parts[2])).0, []);
    assert_eq!(desk.hears(sent(parts[0])).0, []);
    assert_eq!(desk.hears(sent(parts[1])).0, [told(asked)]);
}

#[test]
fn rejected_part_loses_the_block_and_cancels_the_others() {
    let mut desk = asking_for_long_chunks();
    let asked = block(1, 0, 32_768);
    let parts = [block(1, 0, 16_384), block(1, 16_384, 16_384)];
    desk.says(request(asked));
    let follows = desk.hears(Message::Reject(parts[0]));
    assert_eq!(
        follows,
        (
            vec![PeerMessage::Reject(asked)],
            vec![Message::Cancel(parts[1])]
        )
    );
    assert_eq!(desk.hears(sent(parts[1])).0, []);
    assert_eq!(desk.link.figures().unasked, 0);
}

#[test]
fn overlapping_blocks_share_their_parts() {
    let mut desk = asking_for_long_chunks();
    let (long, short) = (block(0, 0, 32_768), block(0, 16_384, 16_384));
    assert_eq!(desk.says(request(long)).1.len(), 2);
    assert_eq!(desk.says(request(short)).1, []);
    assert_eq!(desk.hears(sent(short)).0, [told(short)]);
    assert_eq!(desk.hears(sent(block(0, 0, 16_384))).0, [told(long)]);
}

#[test]
fn no_more_requests_are_under_way_than_the_other_side_lets_wait() {
    let mut desk = Desk::asking(config(FAST));
    desk.hears_about(&about(|about| about.reqq = Some(2)));
    let sent_of = |chunk| [Message::Request(whole(chunk))];
    assert_eq!(desk.says(request(whole(0))).1, sent_of(0));
    assert_eq!(desk.says(request(whole(1))).1, sent_of(1));
    for chunk in 2..6 {
        assert_eq!(desk.says(request(whole(chunk))).1, []);
    }
    // One that waits is cancelled here, and nobody hears of it.
    let rejected = vec![PeerMessage::Reject(whole(2))];
    assert_eq!(desk.says(PeerMessage::Cancel(whole(2))), (rejected, vec![]));
    assert_eq!(
        desk.hears(sent(whole(1))),
        (vec![told(whole(1))], sent_of(3).into())
    );
    let rejected = vec![PeerMessage::Reject(whole(0))];
    assert_eq!(
        desk.hears(Message::Reject(whole(0))),
        (rejected, sent_of(4).into())
    );
    // An update lets more of them go.
    let out = desk.hears_about(&about(|about| about.reqq = Some(3))).1;
    assert_eq!(out, sent_of(5));
}

#[test]
fn requests_that_wait_here_are_lost_with_a_choke() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::asking(config(fast));
        desk.hears_about(&about(|about| about.reqq = Some(1)));
        desk.says(request(whole(0)));
        desk.says(request(whole(1)));
        let heard = desk.hears(Message::Choke).0;
        let lost = |chunk| PeerMessage::Reject(whole(chunk));
        match fast == FAST {
            true => assert_eq!(heard, [PeerMessage::Choke, lost(1)]),
            false => assert_eq!(heard, [PeerMessage::Choke, lost(0), lost(1)]),
        }
    }
}

#[test]
fn clients_that_do_not_say_how_many_wait_have_a_number_of_their_own() {
    for (id, expected) in [
        (b"-XX1200-abcdefghijkl", 250),
        (b"-rQ9010-abcdefghijkl", 128),
        (b"A2-1-36-0-abcdefghij", 96),
    ] {
        let client = ClientId(*id);
        let mut desk = Desk::asking(LinkFacts {
            client,
            ..config(NOT_FAST)
        });
        let blocks = (0..300).map(|at| block(0, at, 1));
        let out: Vec<Message> = blocks.flat_map(|b| desk.says(request(b)).1).collect();
        assert_eq!(out.len(), expected);
    }
}

#[test]
fn cancel_is_said_and_the_block_that_crosses_it_is_no_fault() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::asking(config(fast));
        desk.says(request(whole(0)));
        let follows = desk.says(PeerMessage::Cancel(whole(0)));
        let lost = vec![PeerMessage::Reject(whole(0))];
        assert_eq!(follows, (lost, vec![Message::Cancel(whole(0))]));
        assert_eq!(desk.hears(sent(whole(0))).0, []);
        assert_eq!(desk.link.figures().unasked, 0);
    }
}

#[test]
fn rejection_of_a_cancelled_request_does_not_hit_the_next_one() {
    let mut desk = Desk::asking(config(FAST));
    desk.says(request(whole(0)));
    desk.says(PeerMessage::Cancel(whole(0)));
    desk.says(request(whole(0)));
    assert_eq!(desk.hears(Message::Reject(whole(0))).0, []);
    assert_eq!(desk.hears(sent(whole(0))).0, [told(whole(0))]);
}

#[test]
fn answers_to_what_was_not_asked_for_are_passed_over_up_to_a_bound() {
    for answer in [sent(whole(0)), Message::Reject(whole(0))] {
        let mut desk = Desk::asking(config(FAST));
        for _ in 0..64 {
            assert_eq!(desk.hears(answer.clone()).0, []);
        }
        assert_eq!(desk.end, None);
        desk.hears(answer);
        assert_eq!(desk.end, Some(LinkEnd::Violation(Violation::Unasked)));
    }
}

#[test]
fn block_of_another_length_is_not_the_answer() {
    let mut desk = Desk::asking(config(FAST));
    desk.says(request(whole(0)));
    assert_eq!(desk.hears(sent(block(0, 0, 16_383))).0, []);
    assert_eq!(desk.link.figures().unasked, 1);
    assert_eq!(desk.hears(sent(whole(0))).0, [told(whole(0))]);
}

#[test]
fn padding_is_never_asked_for_and_comes_as_zeros() {
    // The second half of chunk 1, all of chunk 2, and some bytes of chunk 3.
    let ranges = [24_576..49_152, 50_000..50_100];
    let mut desk = Desk::asking(padded(FAST, &ranges));
    let data = block(1, 0, 8_192);
    assert_eq!(desk.says(request(whole(1))).1, [Message::Request(data)]);
    let mut bytes = vec![2; 8_192];
    bytes.resize(16_384, 0);
    let completed = |chunk, data: Vec<u8>| PeerMessage::Block {
        chunk: whole(chunk).chunk,
        offset: 0,
        data: data.into(),
    };
    assert_eq!(desk.hears(sent(data)).0, [completed(1, bytes)]);
    let zeros = vec![completed(2, vec![0; 16_384])];
    assert_eq!(desk.says(request(whole(2))), (zeros, vec![]));
    let parts = [block(3, 0, 848), block(3, 948, 15_436)];
    assert_eq!(desk.says(request(whole(3))).1, parts.map(Message::Request));
    desk.hears(sent(parts[1]));
    let bytes = [vec![4; 848], vec![0; 100], vec![4; 15_436]].concat();
    assert_eq!(desk.hears(sent(parts[0])).0, [completed(3, bytes)]);
}

#[test]
fn padding_that_others_ask_for_is_served_as_anything_else() {
    let mut desk = Desk::fresh(padded(FAST, &[0..16_384]));
    desk.says(PeerMessage::HaveAll);
    let heard = desk.hears(Message::Request(whole(0))).0;
    assert_eq!(heard.last(), Some(&request(whole(0))));
}

#[test]
fn request_of_the_other_side_is_answered_up_to_64_kib() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::fresh(long_chunks(config(fast)));
        desk.says(PeerMessage::HaveAll);
        desk.hears(Message::Interested);
        let longest = block(0, 0, MAX_SERVED_LEN);
        let heard = desk.hears(Message::Request(longest)).0;
        assert_eq!(heard, [request(longest)]);
        assert_eq!(desk.says(told(longest)).1, [sent(longest)]);
        let longer = block(0, 0, MAX_SERVED_LEN + 1);
        let (heard, out) = desk.hears(Message::Request(longer));
        assert_eq!((heard, desk.end), (vec![], None));
        match fast == FAST {
            true => assert_eq!(out, [Message::Reject(longer)]),
            false => assert_eq!(out, []),
        }
    }
}

#[test]
fn requests_beyond_what_was_offered_to_wait_are_refused() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::serving(config(fast));
        for at in 0..OWN_REQQ {
            assert_eq!(desk.hears(Message::Request(block(0, at, 1))).0.len(), 1);
        }
        let extra = block(1, 0, 1);
        let (heard, out) = desk.hears(Message::Request(extra));
        assert_eq!((heard.len(), out.len()), (0, usize::from(fast == FAST)));
        desk.says(told(block(0, 7, 1)));
        assert_eq!(desk.hears(Message::Request(extra)).0, [request(extra)]);
    }
}

#[test]
fn duplicate_of_an_open_request_is_answered_once() {
    let mut desk = Desk::serving(config(FAST));
    desk.hears(Message::Request(whole(0)));
    assert_eq!(desk.hears(Message::Request(whole(0))), (vec![], vec![]));
    assert_eq!(desk.says(told(whole(0))).1, [sent(whole(0))]);
    assert_eq!(
        desk.hears(Message::Request(whole(0))).0,
        [request(whole(0))]
    );
}

#[test]
fn requests_that_cannot_be_meant_end_the_link() {
    for asked in [
        block(0, 0, 0),
        block(0, 1, 16_384),
        block(19, 0, 16_384),
        block(20, 0, 1),
        block(0, u32::MAX, u32::MAX),
    ] {
        let mut desk = Desk::serving(config(FAST));
        desk.hears(Message::Request(asked));
        let is_violation = matches!(
            desk.end,
            Some(LinkEnd::Violation(Violation::Request { .. }))
        );
        assert!(is_violation, "{asked:?}");
    }
}

#[test]
fn request_before_this_side_has_said_anything_is_refused() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::fresh(config(fast));
        desk.follows();
        let (heard, out) = desk.hears(Message::Request(whole(0)));
        assert_eq!(heard, [PeerMessage::HaveNone]);
        assert_eq!(out.len(), usize::from(fast == FAST));
    }
}

#[test]
fn cancel_of_the_other_side_reaches_the_machine_if_it_can_do_something() {
    for fast in [FAST, NOT_FAST] {
        let mut desk = Desk::serving(config(fast));
        assert_eq!(desk.hears(Message::Cancel(whole(0))).0, []);
        desk.hears(Message::Request(whole(0)));
        let heard = desk.hears(Message::Cancel(whole(0))).0;
        assert_eq!(heard, [PeerMessage::Cancel(whole(0))]);
        let out = desk.says(PeerMessage::Reject(whole(0))).1;
        match fast == FAST {
            true => assert_eq!(out, [Message::Reject(whole(0))]),
            false => assert_eq!(out, []),
        }
    }
}

#[test]
fn each_message_of_the_machine_is_settled_once() {
    let mut desk = Desk::fresh(config(FAST));
    let said = [
        PeerMessage::HaveNone,
        PeerMessage::Choke,
        request(whole(0)),
        PeerMessage::Cancel(whole(0)),
        PeerMessage::Have(whole(0).chunk),
        PeerMessage::DontHave(whole(0).chunk),
        PeerMessage::KeepAlive,
        PeerMessage::ManifestRequest { page: 1 },
        told(whole(3)),
        PeerMessage::Refuse(bt_lite::protocol::RefuseReason::Busy),
        PeerMessage::Have(whole(1).chunk),
    ];
    let count = said.len();
    said.into_iter()
        .for_each(|message| desk.link.handle_peer_message(message));
    let mut settled = desk.link.take_settled();
    while let Some(outgoing) = desk.link.poll_message(desk.now) {
        settled += outgoing.of_machine;
    }
    assert_eq!(settled, count);
}
