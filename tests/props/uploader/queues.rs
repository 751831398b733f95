//! The uploader against naive queues: windows, ranks, and that nothing is lost.

use std::time::Instant;

use bt_lite::peer::swarm::LinkId;
use bt_lite::testing::machine::{Turn, Uploader};
use proptest::prelude::*;

use super::model::Receiver;
use super::pair::Pair;
use super::script::{BLOCK, CHUNK, LIMITS, LINKS, Op, SEED, block, host_of, ops};

fn apply(pair: &mut Pair, op: Op) {
    match op {
        Op::Next => next(pair),
        Op::Turns => take_turns(pair),
        op => pair.apply(op),
    }
    check(pair);
}

/// Begins a block: it goes to the first of the links that may be sent one.
fn next(pair: &mut Pair) {
    let model = &pair.model;
    let may = model.links.iter();
    let may = may.filter(|(_, r)| r.may_be_sent(pair.now));
    let may: Vec<_> = may.map(|(&link, _)| (link, model.rank(link))).collect();
    let best = may.iter().map(|(_, rank)| *rank).min();
    let under_way = model.under_way();
    match pair.next() {
        Some(link) => {
            let best = best.expect("a link that may be sent a block");
            assert!(may.contains(&(link, best)));
            assert!(under_way < LIMITS.window);
        }
        None if best.is_some() => {
            let moving = under_way - model_stalled(pair);
            let full = under_way >= LIMITS.window;
            assert!(
                full || moving >= BLOCK,
                "there is room, but nothing is sent"
            );
            // A link that holds the window up counts as stalled some day, and
            // is in the way then.
            take_turns(pair);
            let due = pair.uploader.poll_timeout();
            let again = due.is_some_and(|at| at > pair.now);
            assert!(again || pair.model.is_held_up(pair.now));
        }
        None => {}
    }
}

fn model_stalled(pair: &Pair) -> u64 {
    pair.model.stalled(pair.now).0
}

/// Takes all turns and checks each with the model.
fn take_turns(pair: &mut Pair) {
    for turns in 0.. {
        assert!(turns < 10 * LINKS, "turns change without end");
        match pair.uploader.next_turn(pair.now) {
            Some(Turn::Choke { link, rejected }) => {
                let receiver = pair.model.links.get_mut(&link.0).unwrap();
                assert!(!receiver.choked);
                assert_eq!(rejected, Vec::from_iter(receiver.waiting.drain(..)));
                receiver.choked = true;
            }
            Some(Turn::Unchoke { link }) => {
                check_unchoked(pair, link.0);
                pair.model.links.get_mut(&link.0).unwrap().choked = false;
            }
            None => break,
        }
    }
    check_turns(pair);
}

/// Which link's turn it is depends on the number of turns before and on the
/// rate. But it is the first of its kind.
fn check_unchoked(pair: &Pair, link: u64) {
    let model = &pair.model;
    let receiver = &model.links[&link];
    assert!(receiver.choked && receiver.wants());
    let kind = |link: u64| {
        let receiver = &model.links[&link];
        let blank = receiver.has == 0;
        (blank, blank && receiver.old)
    };
    let choked = model.wanting().filter(|(_, r)| r.choked);
    let alike = choked.map(|(other, _)| other);
    let alike = alike.filter(|&other| kind(other) == kind(link));
    let calm = model.is_ahead(link);
    let alike = alike.filter(|&other| calm || !model.is_ahead(other));
    let deprived = alike.map(|other| model.rank(other)).min();
    assert_eq!(Some(model.rank(link)), deprived);
}

/// What holds when no more turns change.
fn check_turns(pair: &Pair) {
    let model = &pair.model;
    // All links that want something may ask. Or there are too many, and another
    // one does or could ask. Or those that may not are last: their host had more
    // than its share only now, or they have told of nothing yet.
    let (turned_away, invited): (Vec<_>, Vec<_>) = model.wanting().partition(|(_, r)| r.choked);
    let crowded = turned_away.len() + invited.len() > LIMITS.slots;
    let is_last = |(link, r): &(u64, &Receiver)| r.has == 0 || model.is_ahead(*link);
    let all_last = turned_away.iter().all(is_last);
    assert!(turned_away.is_empty() || crowded && !invited.is_empty() || all_last);
    // The last ones wait for a moment that comes.
    let waits = !turned_away.is_empty() && invited.is_empty();
    assert!(!waits || pair.uploader.poll_timeout().is_some());
    // A link that does not tell has no turn as long as others lack something.
    let mut served = model.links.iter().filter(|(_, r)| r.wants() && !r.choked);
    assert!(!model.others_lack() || !served.any(|(&link, _)| model.is_silent(link)));
}

/// Compares all that the uploader says with the model.
fn check(pair: &Pair) {
    let Pair {
        uploader,
        model,
        now,
    } = pair;
    uploader.check_invariants();
    assert_eq!(uploader.under_way(), model.under_way());
    assert!(model.under_way() < LIMITS.window + BLOCK);
    let in_the_way = uploader.in_the_way(*now);
    assert_eq!(in_the_way.is_some(), model.is_held_up(*now));
    if let Some(link) = in_the_way {
        let receiver = &model.links[&link.0];
        assert!(receiver.is_stalled(*now));
        assert_eq!(receiver.moved, model.stalled(*now).1);
    }
    for (&link, receiver) in &model.links {
        assert_eq!(uploader.is_choked(LinkId(link)), receiver.choked);
        assert_eq!(uploader.sent_to(LinkId(link)), receiver.sent);
        let (mute_for, is_mute) = receiver.mute_for(*now);
        assert_eq!(uploader.mute_for(*now, LinkId(link)), mute_for);
        assert_eq!(uploader.is_mute(*now, LinkId(link)), is_mute);
        assert!(receiver.bytes() < receiver.window() + BLOCK);
    }
}

/// All that waits goes out in order, link by link, as room is made.
fn drain(pair: &mut Pair) {
    loop {
        let links: Vec<u64> = pair.model.links.keys().copied().collect();
        for link in links {
            pair.misreported(link, 0);
        }
        if pair.next().is_none() {
            break;
        }
    }
    assert!(pair.model.links.values().all(|r| r.waiting.is_empty()));
}

proptest! {
    #[test]
    fn uploader_after_any_script_agrees_with_queues(ops in ops()) {
        let mut pair = Pair::new();
        for op in ops {
            apply(&mut pair, op);
        }
        drain(&mut pair);
    }
}

/// Six links want something, and none of them ever asks: the turn goes round.
#[test]
fn turn_that_nobody_uses_passes_on_to_all() {
    let mut uploader = Uploader::new(LIMITS, SEED);
    uploader.set_lengths(BLOCK, CHUNK);
    let mut now = Instant::now();
    for link in 0..LINKS {
        uploader.link_added(now, LinkId(link), &host_of(link));
        uploader.link_has(LinkId(link), link as u32, 9);
    }
    let turns = |uploader: &mut Uploader, now| -> Vec<Turn> {
        std::iter::from_fn(|| uploader.next_turn(now)).collect()
    };
    // All may ask at first. Only the most deprived link keeps its turn.
    let chokes = turns(&mut uploader, now);
    assert_eq!(chokes.len() as u64, LINKS - 1);
    assert!(!uploader.is_choked(LinkId(0)));
    let mut unchoked = Vec::new();
    while unchoked.len() < chokes.len() {
        now = uploader
            .poll_timeout()
            .expect("an invited link is waited for");
        unchoked.extend(turns(&mut uploader, now));
    }
    let in_order = (1..LINKS).map(|link| Turn::Unchoke { link: LinkId(link) });
    assert_eq!(unchoked, Vec::from_iter(in_order));
    // A link that let its turn pass may still ask, and counts again.
    assert!(uploader.requested(LinkId(0), block(100)));
    assert_eq!(uploader.next_block(now), Some((LinkId(0), block(100))));
}

/// A turn is good for one chunk when others wait, and goes on if they are less
/// deprived.
#[test]
fn turn_ends_with_its_chunk_if_another_link_is_more_deprived() {
    let mut uploader = Uploader::new(LIMITS, SEED);
    uploader.set_lengths(BLOCK, CHUNK);
    let now = Instant::now();
    for link in 0..4 {
        uploader.link_added(now, LinkId(link), &host_of(link));
        uploader.link_has(LinkId(link), 5 * link as u32, 9);
    }
    while uploader.next_turn(now).is_some() {}
    let serve_chunk = |uploader: &mut Uploader, link: LinkId| {
        for _ in 0..CHUNK / BLOCK {
            assert!(uploader.requested(link, block(BLOCK as u32)));
        }
        for _ in 0..CHUNK / BLOCK {
            let sent = uploader.next_block(now).map(|(to, _)| to);
            assert_eq!(sent, Some(link));
            uploader.sent(now, link, BLOCK);
        }
    };
    serve_chunk(&mut uploader, LinkId(0));
    uploader.link_gained(LinkId(0), true);
    assert_eq!(uploader.next_turn(now), None, "it goes on");
    for _ in 0..9 {
        uploader.link_gained(LinkId(0), false);
    }
    serve_chunk(&mut uploader, LinkId(0));
    let over = Turn::Choke {
        link: LinkId(0),
        rejected: Vec::new(),
    };
    assert_eq!(uploader.next_turn(now), Some(over));
    let next = Turn::Unchoke { link: LinkId(1) };
    assert_eq!(uploader.next_turn(now), Some(next));
    assert_eq!(uploader.next_turn(now), None);
}
