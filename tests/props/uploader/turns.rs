//! Whose turn it is, exactly: where no time passes as long as bytes are on their
//! way, no rate is known, and the rules alone decide.

use std::time::{Duration, Instant};

use bt_lite::peer::swarm::{LinkId, Turn, Uploader};
use bt_lite::protocol::HostKey;
use proptest::prelude::*;

use super::model::{Model, Trial};
use super::rules::{FIRST_TRIALS, PAUSE, TRIAL};
use super::{BLOCK, CHUNK, LIMITS, Op, SEED, block, host_key, ops};

/// An uploader and its model, fed alike.
struct Pair {
    uploader: Uploader,
    model: Model,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let mut uploader = Uploader::new(LIMITS, SEED);
        uploader.measures(BLOCK, CHUNK);
        Self {
            uploader,
            model: Model::default(),
            now: Instant::now(),
        }
    }

    fn add(&mut self, link: u64, host: &HostKey) {
        if !self.model.links.contains_key(&link) {
            self.model.add(self.now, link, host);
            self.uploader.link_added(self.now, LinkId(link), host);
        }
    }

    fn has(&mut self, link: u64, has: u32, lacks: u32) {
        self.uploader.link_has(LinkId(link), has, lacks);
        self.model.has(link, has, lacks);
    }

    fn gained(&mut self, link: u64, here: bool) {
        self.uploader.link_gained(LinkId(link), here);
        self.model.gained(link, here);
    }

    fn declined(&mut self, link: u64, declined: bool) {
        self.uploader.link_declined(LinkId(link), declined);
        if let Some(receiver) = self.model.links.get_mut(&link) {
            receiver.declined = declined;
        }
    }

    fn request(&mut self, link: u64, len: u32) {
        let fits = self.uploader.requested(LinkId(link), block(len));
        if let Some(receiver) = self.model.links.get_mut(&link) {
            (receiver.declined, receiver.invited) = (false, None);
            receiver.waiting.extend(fits.then_some(block(len)));
            self.model.account_mut(link).passed = false;
        }
    }

    fn cancel(&mut self, link: u64, len: u32) {
        if self.uploader.cancelled(LinkId(link), block(len)) {
            let receiver = self.model.links.get_mut(&link).expect("it is there");
            let at = receiver.waiting.iter().position(|b| *b == block(len));
            receiver.waiting.remove(at.expect("it waits"));
        }
    }

    /// Begins to send a block, if there is one. To whom.
    fn next(&mut self) -> Option<u64> {
        let (LinkId(link), block) = self.uploader.next_block(self.now)?;
        let receiver = self.model.links.get_mut(&link).expect("it is there");
        assert_eq!(receiver.waiting.pop_front(), Some(block));
        if receiver.has == 0 && receiver.trial == Trial::None {
            receiver.trial = Trial::Began(self.now);
        }
        if receiver.bytes() == 0 {
            receiver.moved = Some(self.now);
        }
        receiver.under_way.push_back(block.len.into());
        receiver.turn += u64::from(block.len);
        Some(link)
    }

    fn sent(&mut self, link: u64) {
        let receiver = self.model.links.get_mut(&link);
        if let Some(len) = receiver.and_then(|r| r.under_way.pop_front()) {
            self.uploader.sent(self.now, LinkId(link), len);
            self.model.sent(self.now, link, len);
        }
    }

    fn sent_all(&mut self) {
        let links: Vec<u64> = self.model.links.keys().copied().collect();
        for link in links {
            while !self.model.links[&link].under_way.is_empty() {
                self.sent(link);
            }
        }
    }

    /// What changes only the order of links has nobody look at once. This does.
    fn look(&mut self) {
        let first = self.model.links.iter().next();
        if let Some((link, declined)) = first.map(|(&link, r)| (link, r.declined)) {
            self.declined(link, declined);
        }
    }

    /// Begins all blocks and takes all turns, and compares each.
    fn settle(&mut self) {
        self.look();
        for turns in 0.. {
            while self.next().is_some() {}
            let turn = self.uploader.next_turn(self.now);
            assert_eq!(self.model.next_turn(self.now), turn);
            assert!(turns < 100, "turns go round without end");
            if turn.is_none() {
                break;
            }
        }
        let due = self.uploader.poll_timeout();
        assert!(due.is_none_or(|due| due > self.now), "it spins");
        let expected = self.model.looks_again(self.now);
        assert!(expected.is_none_or(|at| due.is_some_and(|due| due <= at)));
    }

    /// Everybody whose turn it is asks for a chunk and gets what goes out, and
    /// those that do so tell of each chunk.
    fn round(&mut self, tells: impl Fn(u64) -> bool) {
        self.settle();
        let asking = self.model.links.iter();
        let asking = asking.filter(|(_, r)| !r.choked && r.lacks > 0);
        let asking: Vec<u64> = asking.map(|(&link, _)| link).collect();
        for link in asking {
            while self.model.links[&link].waiting.len() < LIMITS.requests {
                self.request(link, BLOCK as u32);
            }
        }
        self.settle();
        self.sent_all();
        let links: Vec<u64> = self.model.links.keys().copied().collect();
        for link in links {
            if tells(link) && self.model.links[&link].untold >= CHUNK {
                self.gained(link, true);
            }
        }
    }

    fn sent_to(&self, link: u64) -> u64 {
        self.uploader.sent_to(LinkId(link))
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Add(link) => self.add(link, &host_key(link)),
            Op::Has(link, has, lacks) => self.has(link, has, lacks),
            Op::Gained(link, here) => self.gained(link, here),
            Op::Lacks(link) => {
                self.uploader.link_lacks(LinkId(link));
                let receiver = self.model.links.get_mut(&link);
                receiver.into_iter().for_each(|r| r.lacks += 1);
            }
            Op::Declined(link, declined) => self.declined(link, declined),
            Op::Request(link, len) => self.request(link, len),
            Op::Cancel(link, len) => self.cancel(link, len),
            Op::Next => {
                self.next();
            }
            Op::Turns => self.settle(),
            Op::Sent(link) => self.sent(link),
            Op::Failed(link) => {
                let receiver = self.model.links.get_mut(&link);
                if let Some(len) = receiver.and_then(|r| r.under_way.pop_front()) {
                    self.uploader.failed(self.now, LinkId(link), len);
                }
            }
            Op::Misreported(link, _) | Op::Remove(link) => {
                self.uploader.link_removed(self.now, LinkId(link));
                self.model.remove(self.now, link);
            }
            Op::Old(link) => {
                self.uploader.never_told(LinkId(link));
                let receiver = self.model.links.get_mut(&link);
                receiver.into_iter().for_each(|r| r.old = true);
            }
            Op::Wait(ms) => {
                self.sent_all();
                self.now += Duration::from_millis(ms);
            }
        }
        self.uploader.check_invariants();
    }
}

proptest! {
    #[test]
    fn turns_after_any_script_are_as_the_rules_say(ops in ops()) {
        let mut pair = Pair::new();
        for op in ops {
            pair.apply(op);
        }
    }
}

fn host(text: &str) -> HostKey {
    HostKey::of(&format!("{text}:1").parse().unwrap())
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
    // Another name is no new beginning: its host owes the chunk.
    pair.uploader.link_removed(pair.now, LinkId(taker));
    pair.model.remove(pair.now, taker);
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
    // Unless it says that it has what it was sent.
    let honest = 10;
    pair.add(honest, &its_host);
    pair.has(honest, 1, 100_000);
    assert!(!pair.uploader.is_mute(pair.now, LinkId(honest)));
    for _ in 0..100 {
        pair.round(tells);
    }
    assert!(pair.sent_to(honest) > 0);
    pair.uploader.link_removed(pair.now, LinkId(honest));
    pair.model.remove(pair.now, honest);
    // When it alone lacks something, nobody loses by serving it.
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
    let due = pair.uploader.poll_timeout().expect("somebody waits");
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
            // What those had asked for whose turn it was.
            assert!(others - before <= 3 * CHUNK);
        }
    }
}

/// Takers under ever new addresses get one chunk in 18 s in the end, however many
/// they are; and the first that tells opens the room.
#[test]
fn newcomers_that_never_tell_are_tried_ever_more_seldom() {
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
    // 4, 2, 1, and then one each after a pause of 8 s or 10 and the time of a trial.
    assert!(by_time[40] <= 10, "{by_time:?}");
    assert!(by_time[399] <= 7 + 400 / 18, "{by_time:?}");
    assert!(by_time[399] > by_time[200], "nobody is tried any more");
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
    // Each takes one block, as soon as it may, and asks for no more.
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
    let next = waits(&pair).expect("four are served at first");
    pair.settle();
    let told = (0..5).find(|link| *link != next).expect("there are others");
    assert!(pair.uploader.is_choked(LinkId(next)));
    pair.gained(told, true);
    let turn = Turn::Unchoke { link: LinkId(next) };
    let turns: Vec<Turn> = std::iter::from_fn(|| pair.uploader.next_turn(pair.now)).collect();
    assert!(turns.contains(&turn), "{turns:?}");
}
