//! Which chunks are asked of links with other zones, by a peer that fetches for its zone: by an
//! importer.
//!
//! What some near link has comes from near links. The rest is shared out among the importers of
//! the zone: each chunk belongs to one of them, by rendezvous hashing over those that this peer is
//! linked with, so each can tell which are its own without asking. Whoever begins to fetch a chunk
//! claims it, and the others leave it alone until the claim is old. An importer that has nothing of
//! its own to fetch takes chunks of the others that they have left lying for a while, though a far
//! link has been waiting to be asked for them. What only busy links have lies for all.
//!
//! A near link is every link that has not said that it is in another zone. Without far links
//! nothing of this is kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::LinkId;
use super::super::chunk_set::ChunkSet;
use crate::content::{Bitfield, ChunkIndex};

/// A chunk that comes to another importer may need as long as it takes on such a line between
/// zones, in bytes per second.
const SLOW_LINE: f64 = 1e6;

/// Of two that are equally fast, one always seems a little slower: near links are slower if all
/// of them together have less than this part of the rate of a far one.
pub(super) const CLEARLY_SLOWER: f64 = 0.8;

/// For how long a claim counts beyond the time on a slow line: a few round trips, and turns at
/// the owner.
const CLAIM: Duration = Duration::from_secs(5);

/// An importer whose claims came to nothing this many times in a row is none: it may be slow, or
/// say that it fetches and never do it.
const MAX_FAILED: u32 = 3;

/// How many claims of one importer count at a time. Each importer fetches a few chunks from each
/// of some tens of links.
const MAX_CLAIMS: u32 = 64;

/// How many other importers count: as many as keep their places.
const MAX_RIVALS: usize = 16;

/// How often it is looked for chunks that others leave lying. Whoever comes next where a chunk is
/// concerned takes it when it lies there for the second time in a row, and so on: that is many
/// round trips each time, so that no two take it.
const LOOK: Duration = Duration::from_millis(500);

/// How many links with one zone an importer asks at a time at first. Where nothing is known of
/// the line, all importers of a zone together ask for a few tens of chunks.
const FIRST_WINDOW: f64 = 2.0;

/// How many it asks at least, however long the queue is.
const LEAST_WINDOW: f64 = 1.0;

/// A line between zones has a long queue if a block takes so many times as long as the quickest,
/// and this much longer.
const QUEUED: u32 = 4;
const QUEUE: Duration = Duration::from_millis(500);

/// Of so many other zones the lines are told apart. If there are more, some share what is asked.
pub(super) const FLOWS: usize = 16;

/// What is left of the window then, as CUBIC has it (RFC 9438).
const CUT: f64 = 0.7;

/// If nothing at all arrives for this long, importers ask far links for what near ones have as
/// well: these are there and do not serve.
pub(super) const NEAR_PATIENCE: Duration = Duration::from_secs(2);

/// A peer that is linked with nobody near for this long becomes an importer: in that time those
/// that a tracker has named would have answered.
pub(super) const ALONE: Duration = Duration::from_millis(500);

/// A peer that is no importer, and gets nothing at all for this long, becomes one: a few chunks
/// of its importers may be late, and then there are others.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What far links are not asked for.
#[derive(Debug)]
pub(super) struct FarRule {
    /// What this peer is called where chunks are shared out.
    me: u64,
    /// How many near links that have a part of the content have each chunk.
    copies: Vec<u16>,
    /// How many near links have everything.
    seeders: u32,
    /// How many of them had a part first.
    late_seeders: u32,
    /// The chunks that some near link with a part has, or that come, or belong to others.
    withheld: Bitfield,
    /// The chunks that come to others of the zone, or belong to them.
    others: Bitfield,
    /// The chunks that belong to others and were not taken over.
    foreign: Bitfield,
    /// The other importers of the zone.
    rivals: BTreeMap<LinkId, Rival>,
    /// The chunks that come to others.
    claims: BTreeMap<ChunkIndex, Claim>,
    /// How often in a row each chunk was seen that belongs to others, and that this peer could
    /// have asked for.
    lying: Vec<u8>,
    /// What was taken over in the last look.
    taken: Vec<ChunkIndex>,
    /// When it is looked next.
    look: Instant,
    /// The chunks that this peer has claimed and that are not here. If what it asked is rejected,
    /// it asks again, whoever else has claimed them meanwhile: two claims at the same time must
    /// not wait for each other.
    mine: Bitfield,
    /// Those of which others were not told yet.
    untold: Vec<ChunkIndex>,
    /// For how long a claim counts.
    claim: Duration,
    /// What is asked of each other zone at a time, by its number: each has a line of its own.
    flows: [Flow; FLOWS],
}

/// Another importer.
#[derive(Debug, Clone, Copy)]
struct Rival {
    name: u64,
    /// How many claims it has.
    claims: u32,
    /// How many of its claims in a row have come to nothing.
    failed: u32,
}

impl Rival {
    fn is_trusted(&self) -> bool {
        self.failed < MAX_FAILED
    }
}

/// How much is asked of far links at a time. Lines between zones are shared by many, and a line
/// with a long queue makes requests time out that are under way.
#[derive(Debug, Clone, Copy)]
struct Flow {
    /// How many far links may owe something.
    window: f64,
    /// The shortest time in which a block came.
    base: Option<Duration>,
    /// The window is not cut again before.
    cut_until: Instant,
    /// How long a block took lately, as a smoothed mean.
    typical: Option<Duration>,
}

impl Flow {
    /// A far link has sent a block, so long after it was asked, while so many owed something.
    fn delivered(&mut self, now: Instant, took: Duration, busy: usize) {
        let base = self.base.map_or(took, |base| base.min(took));
        self.base = Some(base);
        let before = self.typical.unwrap_or(took);
        self.typical = Some((before * 7 + took) / 8);
        if took > base * QUEUED + QUEUE {
            self.cut(now, took);
        } else if busy as f64 + 1.0 >= self.window {
            self.window += 1.0 / self.window;
        }
    }

    fn cut(&mut self, now: Instant, took: Duration) {
        if now >= self.cut_until {
            self.window = (self.window * CUT).max(LEAST_WINDOW);
            self.cut_until = now + took;
        }
    }
}

/// Somebody fetches a chunk.
#[derive(Debug, Clone, Copy)]
struct Claim {
    link: LinkId,
    until: Instant,
}

/// What a far link may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nearness {
    /// Nothing: this peer is no importer.
    Suffices,
    /// What no near link has that has a part. Those that have everything have to serve all of the
    /// zone, and what one of them has given to another zone comes back from there.
    Shares,
    /// What no near link has.
    Counts,
    /// Near links are slower: everything that is not left to other importers.
    IsSlower,
}

impl FarRule {
    /// No near link has anything.
    pub(super) fn new(now: Instant, me: u64, chunks: u32, chunk_len: u64) -> Self {
        let slow = Duration::from_secs_f64(chunk_len as f64 / SLOW_LINE);
        Self {
            me,
            copies: vec![0; chunks as usize],
            seeders: 0,
            late_seeders: 0,
            withheld: Bitfield::none(chunks),
            others: Bitfield::none(chunks),
            foreign: Bitfield::none(chunks),
            rivals: BTreeMap::new(),
            claims: BTreeMap::new(),
            lying: vec![0; chunks as usize],
            taken: Vec::new(),
            look: now + LOOK,
            mine: Bitfield::none(chunks),
            untold: Vec::new(),
            claim: slow + CLAIM,
            flows: [Flow {
                window: FIRST_WINDOW,
                base: None,
                cut_until: now,
                typical: None,
            }; FLOWS],
        }
    }

    // What near links have.

    /// A near link has these chunks.
    pub(super) fn near_has(&mut self, has: &ChunkSet) {
        match has {
            ChunkSet::Nothing => {}
            ChunkSet::All => self.seeders += 1,
            ChunkSet::Some(chunks) => chunks.iter().for_each(|chunk| {
                self.copies[chunk.as_usize()] += 1;
                self.withheld.insert(chunk);
            }),
        }
    }

    /// The opposite: it has them no longer, or is not near.
    pub(super) fn near_had(&mut self, had: &ChunkSet) {
        match had {
            ChunkSet::Nothing => {}
            ChunkSet::All => {
                self.seeders -= 1;
                self.late_seeders = self.late_seeders.min(self.seeders);
            }
            ChunkSet::Some(chunks) => chunks.iter().for_each(|chunk| self.near_lost(chunk)),
        }
    }

    /// A near link that has a part has one more chunk.
    pub(super) fn near_gained(&mut self, link: LinkId, chunk: ChunkIndex) {
        self.copies[chunk.as_usize()] += 1;
        self.withheld.insert(chunk);
        if self
            .claims
            .get(&chunk)
            .is_some_and(|claim| claim.link == link)
        {
            self.unclaim(chunk, false);
        }
    }

    /// A near link that had a part has everything now.
    pub(super) fn near_completed(&mut self) {
        self.late_seeders += 1;
    }

    /// A near link that has a part has a chunk no longer.
    pub(super) fn near_lost(&mut self, chunk: ChunkIndex) {
        self.copies[chunk.as_usize()] -= 1;
        self.refresh(chunk);
    }

    /// Whether a chunk belongs to others, or comes to them.
    fn is_others(&self, chunk: ChunkIndex) -> bool {
        let is_left = self.foreign.contains(chunk) || self.claims.contains_key(&chunk);
        is_left && !self.mine.contains(chunk)
    }

    fn refresh(&mut self, chunk: ChunkIndex) {
        let is_others = self.is_others(chunk);
        let is_withheld = is_others || self.copies[chunk.as_usize()] > 0;
        set(&mut self.others, chunk, is_others);
        set(&mut self.withheld, chunk, is_withheld);
    }

    // Who fetches what.

    /// This peer is called so where chunks are shared out. O(chunks * importers).
    pub(super) fn set_name(&mut self, name: u64) {
        if self.me != name {
            self.me = name;
            self.share_out();
        }
    }

    /// A near link is with another importer of this name. O(chunks * importers).
    pub(super) fn rival_added(&mut self, link: LinkId, name: u64) {
        if self.rivals.len() < MAX_RIVALS && !self.rivals.contains_key(&link) {
            let rival = Rival {
                name,
                claims: 0,
                failed: 0,
            };
            self.rivals.insert(link, rival);
            self.share_out();
        }
    }

    /// It is gone, or has everything.
    pub(super) fn rival_removed(&mut self, link: LinkId) {
        let Some(rival) = self.rivals.remove(&link) else {
            return;
        };
        if rival.claims > 0 {
            let claims = self.claims.iter();
            let claimed = claims.filter(|(_, claim)| claim.link == link);
            let claimed: Vec<ChunkIndex> = claimed.map(|(chunk, _)| *chunk).collect();
            claimed
                .into_iter()
                .for_each(|chunk| self.unclaim(chunk, false));
        }
        self.share_out();
    }

    fn trusted(&self) -> impl Iterator<Item = &Rival> {
        self.rivals.values().filter(|rival| rival.is_trusted())
    }

    /// Tells which chunks are whose.
    fn share_out(&mut self) {
        self.taken.clear();
        let names: Vec<u64> = self.trusted().map(|rival| rival.name).collect();
        for chunk in (0..self.foreign.chunks()).map(ChunkIndex) {
            let mine = weight(self.me, chunk);
            // Most chunks need few of them: whoever shares out often must not cost much.
            let is_foreign = names.iter().any(|name| weight(*name, chunk) > mine);
            if is_foreign != self.foreign.contains(chunk) {
                set(&mut self.foreign, chunk, is_foreign);
                self.refresh(chunk);
            }
        }
    }

    /// Another importer says that it fetches a chunk.
    pub(super) fn claimed(&mut self, now: Instant, link: LinkId, chunk: ChunkIndex) {
        let Some(rival) = self.rivals.get_mut(&link) else {
            return;
        };
        let may = rival.is_trusted() && rival.claims < MAX_CLAIMS;
        if !may || self.claims.contains_key(&chunk) {
            return;
        }
        rival.claims += 1;
        let until = now + self.claim + self.typical() * 2;
        self.claims.insert(chunk, Claim { link, until });
        self.refresh(chunk);
    }

    /// How long a block takes lately on the slowest line.
    fn typical(&self) -> Duration {
        let typical = self.flows.iter().filter_map(|flow| flow.typical);
        typical.max().unwrap_or_default()
    }

    /// A claim is over: it has come to nothing, or not.
    fn unclaim(&mut self, chunk: ChunkIndex, failed: bool) {
        let Some(claim) = self.claims.remove(&chunk) else {
            return;
        };
        if let Some(rival) = self.rivals.get_mut(&claim.link) {
            rival.claims -= 1;
            rival.failed = if failed { rival.failed + 1 } else { 0 };
        }
        self.refresh(chunk);
    }

    /// A chunk is here: nothing is kept of it.
    pub(super) fn is_here(&mut self, chunk: ChunkIndex) {
        // Whether the one who claims it gets it as well is not seen any more.
        let claim = self.claims.remove(&chunk);
        self.mine.remove(chunk);
        if let Some(rival) = claim.and_then(|claim| self.rivals.get_mut(&claim.link)) {
            rival.claims -= 1;
        }
        self.refresh(chunk);
    }

    /// This peer asks a far link for a chunk.
    pub(super) fn fetches(&mut self, chunk: ChunkIndex) {
        if self.mine.insert(chunk) {
            self.untold.push(chunk);
            self.refresh(chunk);
        }
    }

    /// The chunks that others have to be told of.
    pub(super) fn take_untold(&mut self) -> Vec<ChunkIndex> {
        std::mem::take(&mut self.untold)
    }

    /// A far link has sent a block, so long after it was asked, while so many owed something.
    pub(super) fn delivered(&mut self, now: Instant, zone: usize, took: Duration, busy: usize) {
        self.flows[zone % FLOWS].delivered(now, took, busy);
    }

    /// A far link was silent for so long.
    pub(super) fn was_silent(&mut self, now: Instant, zone: usize) {
        self.flows[zone % FLOWS].cut(now, QUEUE);
    }

    /// Whether one more far link may be asked while so many owe something.
    pub(super) fn has_room(&self, zone: usize, busy: usize) -> bool {
        (busy as f64) < self.flows[zone % FLOWS].window.floor()
    }

    // Time.

    /// When it is looked next for what others leave lying. Only importers look.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let is_shared = !self.rivals.is_empty();
        is_shared.then_some(self.look)
    }

    /// Whether it is time for that.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|look| look <= now)
    }

    /// Looks for what others leave lying, of what is `waiting` here and what far links `have` that
    /// would be asked at once. Until the next look it may be asked for: if this peer does not ask
    /// now, all others that look may find it as well.
    pub(super) fn handle_timeout(&mut self, now: Instant, waiting: &Bitfield, have: &[&ChunkSet]) {
        self.look = now + LOOK;
        for chunk in std::mem::take(&mut self.taken) {
            self.foreign.insert(chunk);
            self.refresh(chunk);
        }
        self.end_claims(now);
        let is_obtainable = |chunk: ChunkIndex| have.iter().any(|has| has.contains(chunk));
        let names: Vec<u64> = self.trusted().map(|rival| rival.name).collect();
        let none = vec![0; self.lying.len()];
        let before = std::mem::replace(&mut self.lying, none);
        let (mut has_own, mut overdue) = (false, Vec::new());
        for chunk in waiting.iter().filter(|chunk| is_obtainable(*chunk)) {
            has_own |= !self.withheld.contains(chunk);
            let lies = self.foreign.contains(chunk)
                && self.copies[chunk.as_usize()] == 0
                && !self.claims.contains_key(&chunk);
            if !lies {
                continue;
            }
            let age = before[chunk.as_usize()].saturating_add(1);
            self.lying[chunk.as_usize()] = age;
            if u32::from(age) > rank(self.me, &names, chunk) {
                overdue.push(chunk);
            }
        }
        if has_own || self.late_seeders > 0 {
            return;
        }
        for &chunk in &overdue {
            self.foreign.remove(chunk);
            self.refresh(chunk);
        }
        self.taken = overdue;
    }

    /// Ends the claims that are old.
    fn end_claims(&mut self, now: Instant) {
        let due = self.claims.iter().filter(|(_, claim)| claim.until <= now);
        let due: Vec<ChunkIndex> = due.map(|(chunk, _)| *chunk).collect();
        let before = self.trusted().count();
        due.iter().for_each(|chunk| self.unclaim(*chunk, true));
        if self.trusted().count() != before {
            self.share_out();
        }
    }

    // What may be asked for.

    /// What far links are not asked for; `None` if that is everything.
    pub(super) fn withheld(&self, nearness: Nearness) -> Option<&Bitfield> {
        match nearness {
            Nearness::Suffices => None,
            Nearness::Shares if self.late_seeders > 0 => None,
            Nearness::Counts if self.seeders > 0 => None,
            Nearness::Shares | Nearness::Counts => Some(&self.withheld),
            Nearness::IsSlower => Some(&self.others),
        }
    }

    /// Whether a chunk may be asked of far links.
    pub(super) fn allows(&self, chunk: ChunkIndex, nearness: Nearness) -> bool {
        let withheld = self.withheld(nearness);
        withheld.is_some_and(|withheld| !withheld.contains(chunk))
    }

    /// Panics if the counts contradict each other. For tests.
    pub(super) fn check_invariants<'a>(&self, near: impl Iterator<Item = &'a ChunkSet>) {
        let mut expected = Self::new(self.look, self.me, self.withheld.chunks(), 0);
        near.for_each(|has| expected.near_has(has));
        assert_eq!(self.copies, expected.copies);
        assert_eq!(self.seeders, expected.seeders);
        assert!(self.late_seeders <= self.seeders);
        for chunk in (0..self.withheld.chunks()).map(ChunkIndex) {
            let others = self.is_others(chunk);
            assert_eq!(self.others.contains(chunk), others);
            let held = expected.withheld.contains(chunk) || others;
            assert_eq!(self.withheld.contains(chunk), held);
        }
        let mut claims = BTreeMap::new();
        for claim in self.claims.values() {
            *claims.entry(claim.link).or_insert(0) += 1;
        }
        for (link, rival) in &self.rivals {
            assert_eq!(rival.claims, claims.remove(link).unwrap_or(0));
        }
        assert!(claims.is_empty(), "a claim of nobody");
    }
}

fn set(chunks: &mut Bitfield, chunk: ChunkIndex, is_in: bool) {
    match is_in {
        true => chunks.insert(chunk),
        false => chunks.remove(chunk),
    };
}

/// How many of the others come before this peer where a chunk is concerned.
fn rank(me: u64, others: &[u64], chunk: ChunkIndex) -> u32 {
    let mine = weight(me, chunk);
    let before = others.iter().filter(|name| weight(**name, chunk) > mine);
    before.count() as u32
}

/// A chunk belongs to the importer for whom this is highest: mixed as in SplitMix64.
fn weight(name: u64, chunk: ChunkIndex) -> u64 {
    let mixed = name ^ u64::from(chunk.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
