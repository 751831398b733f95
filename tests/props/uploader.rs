//! The uploader: windows, slots, fairness, and that nothing is lost.

mod model;
mod rules;
mod turns;

use std::time::{Duration, Instant};

use bt_lite::ChunkIndex;
use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, Turn, UploadLimits, Uploader};
use bt_lite::protocol::HostKey;
use proptest::collection::vec;
use proptest::prelude::*;

use self::model::{Model, Receiver};

const SEED: u64 = 1;
const LIMITS: UploadLimits = UploadLimits::new(1200, 4, 2);
const BLOCK: u64 = 100;
const CHUNK: u64 = 400;
const LINKS: u64 = 6;
/// Half of the links come from one host, and each other from its own.
const CROWD: u64 = LINKS / 2;

#[derive(Debug, Clone)]
enum Op {
    Add(u64),
    Has(u64, u32, u32),
    Gained(u64, bool),
    Lacks(u64),
    Declined(u64, bool),
    Request(u64, u32),
    Cancel(u64, u32),
    Next,
    Turns,
    Sent(u64),
    Failed(u64),
    Misreported(u64, u64),
    Remove(u64),
    Old(u64),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let link = || 0..LINKS;
    let op = prop_oneof![
        4 => link().prop_map(Op::Add),
        4 => (link(), 0u32..9, 0u32..5).prop_map(|(l, has, lacks)| Op::Has(l, has, lacks)),
        1 => (link(), any::<bool>()).prop_map(|(l, here)| Op::Gained(l, here)),
        1 => link().prop_map(Op::Lacks),
        1 => (link(), any::<bool>()).prop_map(|(l, d)| Op::Declined(l, d)),
        9 => (link(), 1u32..=BLOCK as u32).prop_map(|(l, n)| Op::Request(l, n)),
        2 => (link(), 1u32..=BLOCK as u32).prop_map(|(l, n)| Op::Cancel(l, n)),
        9 => Just(Op::Next),
        5 => Just(Op::Turns),
        5 => link().prop_map(Op::Sent),
        1 => link().prop_map(Op::Failed),
        1 => (link(), any::<u64>()).prop_map(|(l, n)| Op::Misreported(l, n)),
        1 => link().prop_map(Op::Remove),
        1 => link().prop_map(Op::Old),
        3 => (1u64..1500).prop_map(Op::Wait),
    ];
    vec(op, 0..250)
}

fn host(link: u64) -> u64 {
    link.saturating_sub(CROWD - 1)
}

fn host_key(link: u64) -> HostKey {
    let addr = format!("host{}:1", host(link)).parse().unwrap();
    HostKey::of(&addr)
}

fn block(len: u32) -> BlockRange {
    BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len,
    }
}

/// Takes all turns and checks each against the model.
fn take_turns(
    uploader: &mut Uploader,
    model: &mut Model,
    now: Instant,
) -> Result<(), TestCaseError> {
    for turns in 0.. {
        prop_assert!(turns < 10 * LINKS, "slots go round without end");
        match uploader.next_turn(now) {
            Some(Turn::Choke { link, rejected }) => {
                let receiver = model.links.get_mut(&link.0).unwrap();
                prop_assert!(!receiver.choked);
                prop_assert_eq!(&rejected, &Vec::from_iter(receiver.waiting.drain(..)));
                receiver.choked = true;
            }
            Some(Turn::Unchoke { link }) => {
                let receiver = &model.links[&link.0];
                prop_assert!(receiver.choked && receiver.wants());
                // Which of them it is depends on how many turns there were and how
                // fast the line is; but it is the first of its kind.
                let kind = |link: u64| {
                    let receiver = &model.links[&link];
                    let blank = receiver.has == 0;
                    (blank, blank && receiver.old)
                };
                let choked = model.wanting().filter(|(_, r)| r.choked);
                let alike = choked.map(|(other, _)| other);
                let alike = alike.filter(|&other| kind(other) == kind(link.0));
                let calm = model.is_ahead(link.0);
                let alike = alike.filter(|&other| calm || !model.is_ahead(other));
                let deprived = alike.map(|other| model.rank(other)).min();
                prop_assert_eq!(Some(model.rank(link.0)), deprived);
                model.links.get_mut(&link.0).unwrap().choked = false;
            }
            None => break,
        }
    }
    // All who want something may ask, or they are too many and somebody else
    // does or could, or their host had more than its share only now, or they have
    // told of nothing yet.
    let (turned_away, invited): (Vec<_>, Vec<_>) = model.wanting().partition(|(_, r)| r.choked);
    let crowded = turned_away.len() + invited.len() > LIMITS.slots;
    let last = |(link, r): &(u64, &Receiver)| r.has == 0 || model.is_ahead(*link);
    let last = turned_away.iter().all(last);
    prop_assert!(turned_away.is_empty() || crowded && !invited.is_empty() || last);
    // Who comes last waits for a moment that comes.
    let waits = !turned_away.is_empty() && invited.is_empty();
    prop_assert!(!waits || uploader.poll_timeout().is_some());
    // Who does not tell has no turn as long as others lack something.
    let mut silent = model.links.iter().filter(|(_, r)| r.wants() && !r.choked);
    prop_assert!(!model.others_lack() || !silent.any(|(&link, _)| model.is_silent(link)));
    Ok(())
}

proptest! {
    #[test]
    fn uploader_after_any_script_agrees_with_queues(ops in ops()) {
        let mut uploader = Uploader::new(LIMITS, SEED);
        uploader.measures(BLOCK, CHUNK);
        let mut model = Model::default();
        let mut now = Instant::now();
        for op in ops {
            match op {
                Op::Add(link) => {
                    if !model.links.contains_key(&link) {
                        model.add(now, link, &host_key(link));
                        uploader.link_added(now, LinkId(link), &host_key(link));
                    }
                }
                Op::Has(link, has, lacks) => {
                    uploader.link_has(LinkId(link), has, lacks);
                    model.has(link, has, lacks);
                }
                Op::Gained(link, here) => {
                    uploader.link_gained(LinkId(link), here);
                    model.gained(link, here);
                }
                Op::Lacks(link) => {
                    uploader.link_lacks(LinkId(link));
                    if let Some(receiver) = model.links.get_mut(&link) {
                        receiver.lacks += 1;
                    }
                }
                Op::Declined(link, declined) => {
                    uploader.link_declined(LinkId(link), declined);
                    if let Some(receiver) = model.links.get_mut(&link) {
                        receiver.declined = declined;
                    }
                }
                Op::Request(link, len) => {
                    let receiver = model.links.get_mut(&link);
                    let fits = receiver.as_ref().is_some_and(|r| {
                        !r.choked && r.waiting.len() < LIMITS.requests
                    });
                    prop_assert_eq!(uploader.requested(LinkId(link), block(len)), fits);
                    if let Some(receiver) = receiver {
                        receiver.declined = false;
                        receiver.waiting.extend(fits.then_some(block(len)));
                    }
                }
                Op::Cancel(link, len) => {
                    let receiver = model.links.get_mut(&link);
                    let at = receiver.as_ref().and_then(|r| {
                        r.waiting.iter().position(|b| *b == block(len))
                    });
                    prop_assert_eq!(uploader.cancelled(LinkId(link), block(len)), at.is_some());
                    if let (Some(receiver), Some(at)) = (receiver, at) {
                        receiver.waiting.remove(at);
                    }
                }
                Op::Next => {
                    let may = model.links.iter().filter(|(_, r)| r.may_be_sent(now));
                    let best = may.map(|(&link, _)| model.rank(link)).min();
                    match uploader.next_block(now) {
                        Some((link, block)) => {
                            prop_assert!(model.links[&link.0].may_be_sent(now));
                            prop_assert_eq!(Some(model.rank(link.0)), best);
                            prop_assert!(model.under_way() < LIMITS.window);
                            let receiver = model.links.get_mut(&link.0).unwrap();
                            prop_assert_eq!(receiver.waiting.pop_front(), Some(block));
                            if receiver.bytes() == 0 {
                                receiver.moved = Some(now);
                            }
                            receiver.under_way.push_back(block.len.into());
                        }
                        None if best.is_some() => {
                            let moving = model.under_way() - model.stalled(now).0;
                            let full = model.under_way() >= LIMITS.window;
                            prop_assert!(full || moving >= BLOCK, "room, and nothing is sent");
                            // Whoever holds the window up counts as stalled some day,
                            // and is in the way then.
                            take_turns(&mut uploader, &mut model, now)?;
                            let again = uploader.poll_timeout().is_some_and(|at| at > now);
                            prop_assert!(again || model.is_held_up(now));
                        }
                        None => {}
                    }
                }
                Op::Turns => take_turns(&mut uploader, &mut model, now)?,
                Op::Sent(link) => {
                    let receiver = model.links.get_mut(&link);
                    if let Some(len) = receiver.and_then(|r| r.under_way.pop_front()) {
                        uploader.sent(now, LinkId(link), len);
                        model.sent(now, link, len);
                    }
                }
                Op::Failed(link) => {
                    let len = model.links.get_mut(&link).and_then(|r| r.under_way.pop_front());
                    if let Some(len) = len {
                        uploader.failed(now, LinkId(link), len);
                    }
                }
                Op::Misreported(link, more) => {
                    if let Some(receiver) = model.links.get_mut(&link) {
                        let bytes = receiver.bytes();
                        receiver.under_way.clear();
                        uploader.sent(now, LinkId(link), bytes.saturating_add(more));
                        model.sent(now, link, bytes);
                    }
                }
                Op::Remove(link) => {
                    uploader.link_removed(now, LinkId(link));
                    model.remove(now, link);
                }
                Op::Old(link) => {
                    uploader.never_told(LinkId(link));
                    if let Some(receiver) = model.links.get_mut(&link) {
                        receiver.old = true;
                    }
                }
                Op::Wait(ms) => now += Duration::from_millis(ms),
            }
            uploader.check_invariants();
            prop_assert_eq!(uploader.under_way(), model.under_way());
            prop_assert!(model.under_way() < LIMITS.window + BLOCK);
            let in_the_way = uploader.in_the_way(now);
            prop_assert_eq!(in_the_way.is_some(), model.is_held_up(now));
            if let Some(link) = in_the_way {
                let receiver = &model.links[&link.0];
                prop_assert!(receiver.is_stalled(now));
                prop_assert_eq!(receiver.moved, model.stalled(now).1);
            }
            for (&link, receiver) in &model.links {
                prop_assert_eq!(uploader.is_choked(LinkId(link)), receiver.choked);
                prop_assert_eq!(uploader.sent_to(LinkId(link)), receiver.sent);
                let (mute_for, is_mute) = receiver.mute_for(now);
                prop_assert_eq!(uploader.mute_for(now, LinkId(link)), mute_for);
                prop_assert_eq!(uploader.is_mute(now, LinkId(link)), is_mute);
                prop_assert!(receiver.bytes() < receiver.window() + BLOCK);
            }
        }
        // What still waits goes out in order, link by link, as room is made.
        loop {
            for (&link, receiver) in &mut model.links {
                uploader.sent(now, LinkId(link), receiver.bytes());
                receiver.under_way.clear();
            }
            let Some((link, block)) = uploader.next_block(now) else {
                break;
            };
            let receiver = model.links.get_mut(&link.0).unwrap();
            prop_assert_eq!(receiver.waiting.pop_front(), Some(block));
            receiver.under_way.push_back(block.len.into());
        }
        prop_assert!(model.links.values().all(|r| r.waiting.is_empty()));
    }
}

/// Six links want something, and nobody ever asks: the turn goes round.
#[test]
fn turn_that_nobody_uses_passes_on_to_all() {
    let mut uploader = Uploader::new(LIMITS, SEED);
    uploader.measures(BLOCK, CHUNK);
    let mut now = Instant::now();
    for link in 0..LINKS {
        uploader.link_added(now, LinkId(link), &host_key(link));
        uploader.link_has(LinkId(link), link as u32, 9);
    }
    let turns = |uploader: &mut Uploader, now| -> Vec<Turn> {
        std::iter::from_fn(|| uploader.next_turn(now)).collect()
    };
    // All could ask at first; one is left its turn, the most deprived.
    let chokes = turns(&mut uploader, now);
    assert_eq!(chokes.len() as u64, LINKS - 1);
    assert!(!uploader.is_choked(LinkId(0)));
    let mut unchoked = Vec::new();
    while unchoked.len() < chokes.len() {
        now = uploader.poll_timeout().expect("nobody answers for ever");
        unchoked.extend(turns(&mut uploader, now));
    }
    let in_order = (1..LINKS).map(|link| Turn::Unchoke { link: LinkId(link) });
    assert_eq!(unchoked, Vec::from_iter(in_order));
    // Whoever let its turn pass may still ask, and counts again.
    assert!(uploader.requested(LinkId(0), block(100)));
    assert_eq!(uploader.next_block(now), Some((LinkId(0), block(100))));
}

/// A turn is good for one chunk when others wait, and goes on when they are
/// less deprived.
#[test]
fn turn_ends_with_its_chunk_for_whoever_is_no_longer_the_most_deprived() {
    let mut uploader = Uploader::new(LIMITS, SEED);
    uploader.measures(BLOCK, CHUNK);
    let now = Instant::now();
    for link in 0..4 {
        uploader.link_added(now, LinkId(link), &host_key(link));
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
