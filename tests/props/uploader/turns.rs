//! Whose turn it is, exactly: where no time passes as long as bytes are on their
//! way, no rate is known, and the rules alone decide.

use std::time::{Duration, Instant};

use bt_lite::peer::swarm::{LinkId, Turn, Uploader};
use bt_lite::protocol::HostKey;
use proptest::prelude::*;

use super::model::{Model, Rank, Receiver};
use super::{BLOCK, CHUNK, LIMITS, Op, SEED, block, host_key, ops};

/// How long an invited link is waited for.
const ANSWER: Duration = Duration::from_millis(100);

/// Where no rate is known, those that come last are served when the others have
/// wanted nothing for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// From which turn on who has nothing comes last, and in which it comes first.
const UNESTABLISHED: u64 = 12;
const OPTIMISTIC: u64 = 8;

/// How many that have told of nothing are served at a time, when nobody has and
/// for each that has; and for how long one counts, where no rate is known.
const FIRST_TRIALS: usize = 4;
const TRIALS: usize = 2;
const TRIAL: Duration = Duration::from_secs(8);

/// What decides who may have a turn at present.
#[derive(Debug, Clone, Copy)]
struct Mood {
    calm: bool,
    may_try: bool,
}

impl Model {
    fn is_blank_first(&self) -> bool {
        self.turns < UNESTABLISHED || self.turns.is_multiple_of(OPTIMISTIC)
    }

    /// A link's place among those that want something; the links themselves
    /// decide last, by lots that nobody else has.
    fn place(&self, link: u64) -> (bool, Rank, u64) {
        let receiver = &self.links[&link];
        let blank = receiver.has == 0;
        let behind = blank && receiver.old || blank != self.is_blank_first();
        let lot = (link ^ SEED).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (behind, self.rank(link), lot)
    }

    /// Whether a link comes behind all that are not of its kind, however long it
    /// waits.
    fn is_last(&self, link: u64) -> bool {
        let receiver = &self.links[&link];
        let blank = receiver.has == 0;
        self.is_ahead(link) || blank && (receiver.old || !self.is_blank_first())
    }

    /// Notes whether others want something than those that come last, when some
    /// of these do.
    fn note_calm(&mut self, now: Instant) -> bool {
        let mut links = self.links.iter();
        let waits = links.any(|(&link, r)| r.wants() && self.is_last(link));
        let mut links = self.links.iter();
        let busy = |r: &Receiver| r.wants() || r.bytes() > 0;
        let others = links.any(|(&link, r)| busy(r) && !self.is_last(link));
        self.calm_since = match self.calm_since {
            _ if !waits => None,
            Some(since) if !others => Some(since),
            _ => Some(now),
        };
        self.calm_since.is_some_and(|since| since + PAUSE <= now)
    }

    /// Until when each link that has told of nothing is one that others like it
    /// wait for.
    fn trials(&self, now: Instant) -> Vec<Instant> {
        let blank = self.links.values().filter(|r| r.has == 0);
        let ends = blank.filter_map(|r| {
            let begun = r.mute.is_some() || r.turn > 0 || r.bytes() > 0;
            let since = r.mute.or(r.moved).filter(|_| begun)?;
            Some(since + TRIAL)
        });
        ends.filter(|end| *end > now).collect()
    }

    fn may_try(&self, now: Instant) -> bool {
        let told = self.links.values().filter(|r| r.has > 0).count();
        self.trials(now).len() < FIRST_TRIALS + TRIALS * told
    }

    fn mood(&mut self, now: Instant) -> Mood {
        Mood {
            calm: self.note_calm(now),
            may_try: self.may_try(now),
        }
    }

    fn waits(&self, link: u64, mood: Mood) -> bool {
        let blank = self.links[&link].has == 0;
        self.is_last(link) && !mood.calm || blank && !mood.may_try
    }

    /// Whether its turn ends at once: others could have it, and it does not tell
    /// of what it gets, or took nothing yet and is to wait.
    fn is_turned_away(&self, link: u64, mood: Mood) -> bool {
        let receiver = &self.links[&link];
        let unused = receiver.turn == 0 && receiver.bytes() == 0;
        let waits = unused && !receiver.given && self.waits(link, mood);
        receiver.wants() && self.others_lack() && (waits || self.is_silent(link))
    }

    /// Invited links that did not answer let their turn pass. Which others are
    /// waited for: none of a host that let its last one pass.
    fn lapse(&mut self, now: Instant, mood: Mood) -> Vec<u64> {
        let mut expected = Vec::new();
        let links: Vec<u64> = self.links.keys().copied().collect();
        let turned_away = links.iter().map(|&link| self.is_turned_away(link, mood));
        let turned_away: Vec<bool> = turned_away.collect();
        for (link, turned_away) in links.into_iter().zip(turned_away) {
            let receiver = self.links.get_mut(&link).expect("it is there");
            if !receiver.wants() {
                receiver.invited = None;
            } else if !turned_away && receiver.is_invited() {
                let since = *receiver.invited.get_or_insert(now);
                if since + ANSWER <= now {
                    (receiver.invited, receiver.declined) = (None, true);
                    receiver.given = false;
                    self.account_mut(link).passed = true;
                } else if !self.account(link).passed {
                    expected.push(link);
                }
            }
        }
        expected
    }

    fn choke(&mut self, link: u64) -> Turn {
        let receiver = self.links.get_mut(&link).expect("it is there");
        (receiver.choked, receiver.invited) = (true, None);
        let rejected = receiver.waiting.drain(..).collect();
        let link = LinkId(link);
        Turn::Choke { link, rejected }
    }

    fn begin_turn(&mut self, link: u64) {
        self.turns += 1;
        let receiver = self.links.get_mut(&link).expect("it is there");
        (receiver.choked, receiver.turn, receiver.given) = (false, 0, true);
    }

    /// The next turn that begins or ends.
    fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        loop {
            let mood = self.mood(now);
            let expected = self.lapse(now, mood);
            let mut unchoked = self.links.iter().filter(|(_, r)| !r.choked);
            let silent = unchoked.rfind(|(link, _)| self.is_turned_away(**link, mood));
            if let Some((&silent, _)) = silent {
                return Some(self.choke(silent));
            }
            let wanting: Vec<u64> = self.wanting().map(|(link, _)| link).collect();
            let crowded = wanting.len() > LIMITS.slots;
            let (choked, asking): (Vec<u64>, Vec<u64>) =
                wanting.iter().partition(|link| self.links[link].choked);
            let choked = choked.into_iter();
            let next = choked.filter(|&link| !self.waits(link, mood));
            let next = next.min_by_key(|&link| self.place(link));
            let (spent, open): (Vec<u64>, Vec<u64>) = asking
                .iter()
                .partition(|link| self.links[link].turn >= CHUNK);
            let spent = spent.into_iter().max_by_key(|&link| self.place(link));
            let open: Vec<u64> = open
                .into_iter()
                .filter(|link| self.links[link].bytes() < self.links[link].window())
                .collect();
            let waits = |link: &u64| -> u64 {
                let waiting = self.links[link].waiting.iter();
                waiting.map(|block| u64::from(block.len)).sum()
            };
            let ready: u64 = open.iter().map(waits).sum();
            let invited = |link: &u64| self.links[link].is_invited();
            let starved = ready < BLOCK && expected.is_empty();
            if let Some(spent) = spent {
                let is_better = |next: u64| self.place(next) <= self.place(spent);
                if crowded && next.is_some_and(is_better) {
                    return Some(self.choke(spent));
                }
                if starved || !crowded {
                    self.begin_turn(spent);
                    continue;
                }
            }
            if let Some(next) = next.filter(|_| starved || !crowded) {
                self.begin_turn(next);
                return Some(Turn::Unchoke { link: LinkId(next) });
            }
            let unused = open.iter().copied().filter(|link| {
                let receiver = &self.links[link];
                crowded && receiver.turn == 0 && receiver.bytes() == 0
            });
            let unused = unused.max_by_key(|&link| self.place(link))?;
            let others_wait = ready - waits(&unused) >= BLOCK;
            let others_answer = invited(&unused) && expected.len() > 1;
            return (others_wait || others_answer).then(|| self.choke(unused));
        }
    }

    /// When to look again, if nothing happens before.
    fn looks_again(&self, now: Instant) -> Option<Instant> {
        let invited = self.wanting().filter(|(_, r)| r.is_invited());
        let lapses = invited.filter_map(|(_, r)| Some(r.invited? + ANSWER));
        let calm = self.calm_since.map(|since| since + PAUSE);
        let trial = self.trials(now).into_iter().min();
        let trial = trial.filter(|_| !self.may_try(now));
        let calm = calm.filter(|calm| *calm > now);
        lapses.chain(calm).chain(trial).min()
    }
}

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
                self.model.remove(link);
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
    pair.model.remove(taker);
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
    pair.model.remove(honest);
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
fn newcomer_that_has_nothing_is_served_every_eighth_turn() {
    for established in [0, 20, 33, 50] {
        let mut pair = Pair::new();
        for link in 0..8 {
            pair.add(link, &host(&format!("host{link}")));
            pair.has(link, 1, 100_000);
        }
        while pair.model.turns < established {
            pair.round(|_| true);
        }
        let newcomer = 8;
        pair.add(newcomer, &host("newcomer"));
        pair.has(newcomer, 0, 100_000);
        // It could ask at once, as long as nobody told it otherwise.
        pair.settle();
        let before = pair.model.turns;
        while pair.sent_to(newcomer) == 0 {
            pair.round(|_| true);
            let turns = pair.model.turns - before;
            // Its own counts as well.
            assert!(turns <= OPTIMISTIC + 1, "{turns} turns without a block");
        }
    }
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
