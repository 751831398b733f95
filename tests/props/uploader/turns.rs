//! Whose turn it is, exactly. No time passes while bytes are on their way, so no
//! rate is known, and the rules alone decide.

use std::time::Duration;

use bt_lite::peer::swarm::LinkId;
use bt_lite::testing::machine::Turn;
use proptest::prelude::*;

use super::model::PAUSE;
use super::pair::Pair;
use super::script::{BLOCK, CHUNK, Op, host, ops};
use super::trials::{FIRST_TRIALS, TRIAL};

fn apply(pair: &mut Pair, op: Op) {
    match op {
        // Nothing is misreported here: the rules alone decide.
        Op::Misreported(link, _) => pair.remove(link),
        Op::Wait(ms) => {
            pair.sent_all();
            pair.wait(Duration::from_millis(ms));
        }
        op => pair.apply(op),
    }
    pair.uploader.check_invariants();
}

proptest! {
    #[test]
    fn turns_after_any_script_are_as_the_rules_say(ops in ops()) {
        let mut pair = Pair::new();
        for op in ops {
            apply(&mut pair, op);
        }
    }
}

#[test]
fn taker_that_never_tells_gets_one_chunk_as_long_as_others_lack_something() {
    let mut pair = Pair::new();
    let taker = 3;
    for link in 0..6 {
        pair.add(link, &host(&format!("host{link}")));
        pair.has(link, 1, 100_000);
    }
    let tells = |link| link != taker;
    for _ in 0..300 {
        pair.round(tells);
        assert!(pair.sent_to(taker) <= CHUNK);
    }
    assert_eq!(pair.sent_to(taker), CHUNK);
    // A new name does not help: its host still owes the chunk.
    pair.remove(taker);
    let renamed = 9;
    let its_host = host(&format!("host{taker}"));
    pair.add(renamed, &its_host);
    pair.has(renamed, 0, 100_000);
    assert!(pair.uploader.is_mute(pair.now, LinkId(renamed)));
    let tells = |link| link != renamed;
    for _ in 0..100 {
        pair.round(tells);
    }
    assert_eq!(pair.sent_to(renamed), 0);
    // It does if it says that it has what it was sent.
    let honest = 10;
    pair.add(honest, &its_host);
    pair.has(honest, 1, 100_000);
    assert!(!pair.uploader.is_mute(pair.now, LinkId(honest)));
    for _ in 0..100 {
        pair.round(tells);
    }
    assert!(pair.sent_to(honest) > 0);
    pair.remove(honest);
    // When it alone lacks something, serving it costs nobody anything.
    for link in (0..6).filter(|link| *link != taker) {
        pair.has(link, 100_000, 0);
    }
    for _ in 0..100 {
        pair.round(tells);
        // It waits until the others have wanted nothing for a while.
        pair.now = pair.uploader.poll_timeout().unwrap_or(pair.now);
    }
    assert!(pair.sent_to(renamed) > CHUNK);
}

#[test]
fn host_with_many_links_gets_its_share_and_little_more() {
    let mut pair = Pair::new();
    let crowd = 100..110;
    for link in crowd.clone() {
        pair.add(link, &host("crowd"));
        pair.has(link, 1, 100_000);
    }
    for link in 0..10 {
        pair.add(link, &host(&format!("host{link}")));
        pair.has(link, 1, 100_000);
    }
    for _ in 0..3000 {
        pair.round(|_| true);
        let of_crowd: u64 = crowd.clone().map(|link| pair.sent_to(link)).sum();
        let of_others: u64 = (0..10).map(|link| pair.sent_to(link)).sum();
        let share = (of_crowd + of_others) / 11;
        assert!(of_crowd <= share + 3 * CHUNK, "{of_crowd} of {share}");
    }
    let of_crowd = |pair: &Pair| -> u64 { crowd.clone().map(|link| pair.sent_to(link)).sum() };
    let least = (0..10).map(|link| pair.sent_to(link)).min().unwrap();
    assert!(least > 10 * CHUNK && of_crowd(&pair) > 10 * CHUNK);
    // When the others want nothing for a while, it is served all the same.
    while !pair.model.is_ahead(100) {
        pair.round(|_| true);
    }
    (0..10).for_each(|link| pair.declined(link, true));
    let links: Vec<u64> = pair.model.links.keys().copied().collect();
    for link in links {
        while !pair.model.links[&link].waiting.is_empty() {
            pair.cancel(link, BLOCK as u32);
        }
    }
    pair.settle();
    let is_served = |pair: &Pair| {
        let mut links = crowd.clone();
        links.any(|link| !pair.uploader.is_choked(LinkId(link)))
    };
    assert!(!is_served(&pair));
    let due = pair.uploader.poll_timeout().expect("some link waits");
    assert_eq!(due, pair.now + PAUSE);
    pair.now = due;
    pair.settle();
    assert!(is_served(&pair));
}

#[test]
fn link_that_tells_at_last_gets_its_turn_though_nothing_else_happens() {
    let mut pair = Pair::new();
    for link in 0..2 {
        pair.add(link, &host(&format!("host{link}")));
        pair.has(link, 0, 9);
    }
    let late = 0;
    while pair.sent_to(late) < CHUNK {
        pair.round(|link| link != late);
    }
    pair.declined(1, true);
    pair.settle();
    assert!(pair.uploader.is_choked(LinkId(late)));
    assert_eq!(pair.uploader.next_turn(pair.now), None);
    assert!(pair.uploader.link_gained(LinkId(late), true));
    let turn = Turn::Unchoke { link: LinkId(late) };
    assert_eq!(pair.uploader.next_turn(pair.now), Some(turn));
}

#[test]
fn newcomer_that_has_nothing_comes_first_as_long_as_others_like_it_told() {
    for rounds in [0, 20, 33, 50] {
        let mut pair = Pair::new();
        for link in 0..8 {
            pair.add(link, &host(&format!("host{link}")));
            pair.has(link, 1, 100_000);
        }
        for _ in 0..rounds {
            pair.round(|_| true);
        }
        let newcomer = 8;
        pair.add(newcomer, &host("newcomer"));
        pair.has(newcomer, 0, 100_000);
        let before: u64 = (0..8).map(|link| pair.sent_to(link)).sum();
        while pair.sent_to(newcomer) == 0 {
            pair.round(|_| true);
            let others: u64 = (0..8).map(|link| pair.sent_to(link)).sum();
            // The links whose turn it was get what they had asked for.
            assert!(others - before <= 3 * CHUNK);
        }
    }
}

/// Takers under many addresses get one chunk in 18 s in the end, however many
/// they are. The first that tells makes room for more.
#[test]
fn newcomers_that_never_tell_are_tried_more_and_more_rarely() {
    let mut pair = Pair::new();
    for link in 0..4 {
        pair.add(link, &host(&format!("host{link}")));
        pair.has(link, 1, 1_000_000);
    }
    let is_taker = |link: u64| link >= 100;
    let served = |pair: &Pair| {
        let takers = pair.model.links.keys().filter(|link| is_taker(**link));
        takers.filter(|link| pair.sent_to(**link) > 0).count()
    };
    for link in 100..140 {
        pair.add(link, &host(&format!("taker{link}")));
        pair.has(link, 0, 1_000_000);
    }
    let mut by_time = Vec::new();
    for _ in 0..400 {
        pair.round(|link| !is_taker(link));
        pair.now += Duration::from_secs(1);
        by_time.push(served(&pair));
    }
    // 4, 2, 1, and then one after each pause of 8 s or 10 s and the time of a trial.
    assert!(by_time[40] <= 10, "{by_time:?}");
    assert!(by_time[399] <= 7 + 400 / 18, "{by_time:?}");
    assert!(by_time[399] > by_time[200], "no newcomer is tried any more");
    let taker = (100..140).find(|&link| pair.sent_to(link) > 0).unwrap();
    pair.gained(taker, true);
    let before = served(&pair);
    for _ in 0..8 {
        pair.round(|link| !is_taker(link));
    }
    assert!(served(&pair) > before);
}

#[test]
fn links_that_pause_within_their_first_chunk_keep_others_waiting_for_a_while_only() {
    let mut pair = Pair::new();
    for link in 0..6 {
        pair.add(link, &host(&format!("host{link}")));
        pair.has(link, 0, 100_000);
    }
    // Each takes one block as soon as it may, and does not ask for more.
    let mut served = Vec::new();
    while served.len() < FIRST_TRIALS {
        pair.settle();
        let may = (0..6).find(|link| !served.contains(link) && !pair.model.links[link].choked);
        let link = may.expect("the turn goes on");
        pair.request(link, BLOCK as u32);
        pair.settle();
        pair.sent_all();
        served.push(link);
    }
    pair.settle();
    let others: Vec<u64> = (0..6).filter(|link| !served.contains(link)).collect();
    let wait = |pair: &Pair| others.iter().all(|link| pair.model.links[link].choked);
    let start = pair.now;
    while wait(&pair) {
        pair.now = pair
            .uploader
            .poll_timeout()
            .expect("it waits for something");
        pair.settle();
    }
    assert_eq!(pair.now, start + TRIAL);
}

#[test]
fn link_that_tells_of_its_first_chunk_makes_room_for_the_next_at_once() {
    let mut pair = Pair::new();
    for link in 0..5 {
        pair.add(link, &host(&format!("host{link}")));
        pair.has(link, 0, 100_000);
    }
    let waits = |pair: &Pair| (0..5).find(|&link| pair.sent_to(link) == 0);
    for _ in 0..20 {
        pair.round(|_| false);
    }
    let next = waits(&pair).expect("only four are served at first");
    pair.settle();
    let told = (0..5).find(|link| *link != next).expect("there are others");
    assert!(pair.uploader.is_choked(LinkId(next)));
    pair.gained(told, true);
    let turn = Turn::Unchoke { link: LinkId(next) };
    let turns: Vec<Turn> = std::iter::from_fn(|| pair.uploader.next_turn(pair.now)).collect();
    assert!(turns.contains(&turn), "{turns:?}");
}

/// A link alone in its host that had far more than its share comes after the others, but
/// only as long as they want something.
#[test]
fn fast_link_beside_slow_ones_that_want_little_is_served_without_a_pause() {
    let mut pair = Pair::new();
    let fast = 2;
    for link in 0..3 {
        pair.add(link, &host(&format!("host{link}")));
    }
    pair.has(fast, 1, 100_000);
    let all = |pair: &Pair| -> u64 { (0..3).map(|link| pair.sent_to(link)).sum() };
    for round in 0..400 {
        if round % 40 == 0 {
            // Each of the slow ones lacks one chunk, and nothing once it has that.
            (0..2).for_each(|link| pair.has(link, 1, 1));
        }
        // No time passes: nobody waits for a lull.
        let before = all(&pair);
        pair.round(|_| true);
        assert!(all(&pair) > before, "nothing is sent in round {round}");
    }
    let slow = all(&pair) - pair.sent_to(fast);
    assert!(slow >= 2 * 10 * CHUNK, "{slow}");
    assert!(pair.sent_to(fast) > slow);
}

/// The place of the only newcomer that wants something is open, but it does not ask in
/// time: when a trial of another ends, nobody waits for it.
#[test]
fn turns_as_the_rules_say_after_the_last_newcomer_lets_its_turn_pass() {
    let mut pair = Pair::new();
    for link in 2..5 {
        pair.add(link, &host(&format!("host{link}")));
        pair.request(link, 1);
        pair.next().expect("nobody else wants anything");
    }
    // Two trials lapse, so there is room for one, and it is taken.
    pair.remove(2);
    pair.remove(3);
    pair.add(0, &host("host0"));
    pair.lacks(0);
    pair.settle();
    pair.sent_all();
    pair.wait(PAUSE);
    pair.settle();
    assert!(!pair.uploader.is_choked(LinkId(0)), "it is a lull");
    pair.wait(Duration::from_millis(100));
    pair.settle();
    assert!(pair.uploader.has_passed(LinkId(0)));
}
