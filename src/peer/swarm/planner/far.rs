//! Which chunks are asked of links with other zones.
//!
//! What some near link has comes from near links. Of the rest, each chunk should come into the
//! zone once: whoever asks for it first [tells](super::Planner::take_coming) the others, and
//! they wait for it. If it does not come in time, the next one asks.
//!
//! A near link is every link that has not said that it is in another zone. Without far links
//! nothing of this is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::chunk_set::ChunkSet;
use crate::content::{Bitfield, ChunkIndex};

/// A chunk that comes to another peer of the zone may need as long as it takes on such a line
/// between zones, in bytes per second.
const SLOW_LINE: f64 = 1e6;

/// What near links send is measured over times of this length: several turns of each.
const MEASURED: Duration = Duration::from_secs(5);

/// Near links are slower if all of them together have less than this part of the rate of a far
/// one: of two that are equally fast, one always seems a little slower.
pub(super) const CLEARLY_SLOWER: f64 = 0.8;

/// Where links take turns, near ones are slower if all of them together send less than this part
/// of what one far link does. A near link that serves many has a small rate for each, and what
/// it sends to the others comes from them.
const SLOWER: f64 = 0.25;

/// How long a chunk that comes to another peer is waited for beyond that: a few round trips, and
/// turns at its owner.
const WAIT: Duration = Duration::from_secs(5);

/// For how long a chunk is waited for in all, beyond the time on a slow line. After that it is
/// asked for as if nobody had said anything: whoever says over and over that it comes may not
/// keep it from others for ever.
const MAX_WAITED: Duration = Duration::from_secs(15);

/// If nothing at all arrives for this long, far links are asked for what near ones have as well:
/// these are there and do not serve.
pub(super) const NEAR_PATIENCE: Duration = Duration::from_secs(2);

/// What far links are not asked for.
#[derive(Debug)]
pub(super) struct FarRule {
    /// How many near links that have a part of the content have each chunk.
    copies: Vec<u16>,
    /// How many near links have everything.
    seeders: u32,
    /// The chunks that some near link with a part has, or that come.
    withheld: Bitfield,
    /// The chunks that come to others of the zone.
    coming: Bitfield,
    /// For how long chunks that are not here were waited for.
    waits: BTreeMap<ChunkIndex, Wait>,
    /// Until when which chunk is waited for.
    due: BTreeSet<(Instant, ChunkIndex)>,
    /// Chunks that come to this peer, and of which others were not told yet.
    untold: Vec<ChunkIndex>,
    /// How long a chunk takes on a slow line.
    slow: Duration,
    near: NearRate,
}

/// For how long a chunk was waited for.
#[derive(Debug, Clone, Copy)]
struct Wait {
    /// Since when it is, or was last.
    since: Instant,
    /// How long that took before.
    before: Duration,
}

/// How fast near links together are.
#[derive(Debug)]
struct NearRate {
    since: Instant,
    /// Bytes since then.
    bytes: u64,
    /// Bytes per second of the time before.
    before: Option<f64>,
}

impl NearRate {
    /// Bytes per second of the last whole time.
    fn rate(&self, now: Instant) -> Option<f64> {
        let time = now.saturating_duration_since(self.since);
        match time >= MEASURED {
            true => Some(self.bytes as f64 / time.as_secs_f64()),
            false => self.before,
        }
    }

    fn arrived(&mut self, now: Instant, bytes: u64) {
        if now.saturating_duration_since(self.since) >= MEASURED {
            self.before = self.rate(now);
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes += bytes;
    }
}

/// Whether near links are as fast as a far one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nearness {
    /// What near links have comes from them.
    Counts,
    /// Near links are slower: only what comes to others of the zone is left to them.
    IsSlower,
}

impl FarRule {
    /// No near link has anything.
    pub(super) fn new(now: Instant, chunks: u32, chunk_len: u64) -> Self {
        Self {
            copies: vec![0; chunks as usize],
            seeders: 0,
            withheld: Bitfield::none(chunks),
            coming: Bitfield::none(chunks),
            waits: BTreeMap::new(),
            due: BTreeSet::new(),
            untold: Vec::new(),
            slow: Duration::from_secs_f64(chunk_len as f64 / SLOW_LINE),
            near: NearRate {
                since: now,
                bytes: 0,
                before: None,
            },
        }
    }

    /// A near link has these chunks.
    pub(super) fn near_has(&mut self, has: &ChunkSet) {
        match has {
            ChunkSet::Nothing => {}
            ChunkSet::All => self.seeders += 1,
            ChunkSet::Some(chunks) => chunks.iter().for_each(|chunk| self.near_gained(chunk)),
        }
    }

    /// The opposite: it has them no longer, or is not near.
    pub(super) fn near_had(&mut self, had: &ChunkSet) {
        match had {
            ChunkSet::Nothing => {}
            ChunkSet::All => self.seeders -= 1,
            ChunkSet::Some(chunks) => chunks.iter().for_each(|chunk| self.near_lost(chunk)),
        }
    }

    /// A near link that has a part has one more chunk.
    pub(super) fn near_gained(&mut self, chunk: ChunkIndex) {
        self.copies[chunk.as_usize()] += 1;
        self.withheld.insert(chunk);
    }

    /// A near link that has a part has a chunk no longer.
    pub(super) fn near_lost(&mut self, chunk: ChunkIndex) {
        self.copies[chunk.as_usize()] -= 1;
        if self.copies[chunk.as_usize()] == 0 && !self.coming.contains(chunk) {
            self.withheld.remove(chunk);
        }
    }

    /// Whether some near link has a chunk.
    pub(super) fn is_near(&self, chunk: ChunkIndex) -> bool {
        self.seeders > 0 || self.copies[chunk.as_usize()] > 0
    }

    /// A near link has sent a block.
    pub(super) fn near_sent(&mut self, now: Instant, bytes: u64) {
        self.near.arrived(now, bytes);
    }

    /// Whether near links that take turns are slower than a far one with this rate, in bytes per
    /// second.
    pub(super) fn is_slower(&self, now: Instant, far: f64) -> bool {
        self.near.rate(now).is_some_and(|near| near < far * SLOWER)
    }

    /// A chunk comes to another peer of the zone. Returns whether that is news.
    pub(super) fn comes(&mut self, now: Instant, chunk: ChunkIndex) -> bool {
        let before = self.waits.get(&chunk).map_or(Duration::ZERO, |w| w.before);
        let is_enough = before >= MAX_WAITED + self.slow;
        if self.coming.contains(chunk) || is_enough || self.is_near(chunk) {
            return false;
        }
        self.waits.insert(chunk, Wait { since: now, before });
        self.due.insert((now + self.slow + WAIT, chunk));
        self.coming.insert(chunk);
        self.withheld.insert(chunk);
        true
    }

    /// A chunk is here: nothing is kept of it.
    pub(super) fn is_here(&mut self, chunk: ChunkIndex) {
        if self.waits.remove(&chunk).is_some() {
            self.withheld_no_more(chunk);
        }
    }

    fn comes_no_more(&mut self, now: Instant, chunk: ChunkIndex) {
        if let Some(wait) = self.waits.get_mut(&chunk) {
            wait.before += now.saturating_duration_since(wait.since);
        }
        self.withheld_no_more(chunk);
    }

    fn withheld_no_more(&mut self, chunk: ChunkIndex) {
        self.coming.remove(chunk);
        if self.copies[chunk.as_usize()] == 0 {
            self.withheld.remove(chunk);
        }
    }

    /// This peer asks a far link for a chunk. The others are told, unless a near link has it.
    pub(super) fn fetches(&mut self, chunk: ChunkIndex) {
        if !self.is_near(chunk) {
            self.untold.push(chunk);
        }
    }

    /// The chunks that others have to be told of.
    pub(super) fn take_untold(&mut self) -> Vec<ChunkIndex> {
        std::mem::take(&mut self.untold)
    }

    /// When the next chunk has been waited for long enough.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    /// Those that did not come in time are not waited for any more.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(until, _)| *until <= now)
            && let Some((until, chunk)) = self.due.pop_first()
        {
            let wait = self.slow + WAIT;
            let is_this = |wait_of: &Wait| wait_of.since + wait == until;
            // It may have come meanwhile, or be waited for anew.
            if self.coming.contains(chunk) && self.waits.get(&chunk).is_some_and(is_this) {
                self.comes_no_more(now, chunk);
            }
        }
    }

    /// What far links are not asked for; `None` if that is everything.
    pub(super) fn withheld(&self, nearness: Nearness) -> Option<&Bitfield> {
        match nearness {
            Nearness::Counts if self.seeders > 0 => None,
            Nearness::Counts => Some(&self.withheld),
            Nearness::IsSlower => Some(&self.coming),
        }
    }

    /// Whether a chunk may be asked of far links.
    pub(super) fn allows(&self, chunk: ChunkIndex, nearness: Nearness) -> bool {
        let withheld = self.withheld(nearness);
        withheld.is_some_and(|withheld| !withheld.contains(chunk))
    }

    /// Panics if the counts contradict each other. For tests.
    pub(super) fn check_invariants<'a>(&self, near: impl Iterator<Item = &'a ChunkSet>) {
        let mut expected = Self::new(self.near.since, self.withheld.chunks(), 0);
        near.for_each(|has| expected.near_has(has));
        assert_eq!(self.copies, expected.copies);
        assert_eq!(self.seeders, expected.seeders);
        for chunk in (0..self.withheld.chunks()).map(ChunkIndex) {
            let held = expected.withheld.contains(chunk) || self.coming.contains(chunk);
            assert_eq!(self.withheld.contains(chunk), held);
            let waits = self.due.iter().any(|(_, waits)| *waits == chunk);
            assert!(!self.coming.contains(chunk) || waits);
        }
    }
}
