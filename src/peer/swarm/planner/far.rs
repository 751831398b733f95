//! Which chunks are asked of links with other zones.
//!
//! What some near link has comes from near links. Of the rest, each chunk should come into the
//! zone once: whoever asks for it first [tells](super::Planner::take_coming) the others, and
//! they wait for it. If it does not come in time, the next one asks.
//!
//! A near link is every link that has not said that it is in another zone. Without far links
//! nothing of this is kept.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::chunk_set::ChunkSet;
use crate::content::{Bitfield, ChunkIndex};

/// How long a chunk that comes to another peer of the zone is waited for, beyond the time that
/// it takes at [`SLOW_LINE`]: a few round trips, and turns at its owner.
const COMES_IN: Duration = Duration::from_secs(5);

/// A chunk may need as long as it takes on such a line between zones, in bytes per second.
const SLOW_LINE: f64 = 1e6;

/// How often a chunk is waited for, as it did not come. After that it is asked for as if
/// nobody had said anything: whoever says so may not keep it from others for ever.
const MAX_WAITS: u8 = 2;

/// If nothing at all arrives for this long, far links are asked for anything: near ones are
/// there and do not serve.
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
    /// How often a chunk that is not here was waited for.
    waits: BTreeMap<ChunkIndex, u8>,
    /// Until when which chunk is waited for, in order.
    due: VecDeque<(Instant, ChunkIndex)>,
    /// Chunks that come to this peer, and of which others were not told yet.
    untold: Vec<ChunkIndex>,
    comes_in: Duration,
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
    pub(super) fn new(chunks: u32, chunk_len: u64) -> Self {
        let slow = Duration::from_secs_f64(chunk_len as f64 / SLOW_LINE);
        Self {
            copies: vec![0; chunks as usize],
            seeders: 0,
            withheld: Bitfield::none(chunks),
            coming: Bitfield::none(chunks),
            waits: BTreeMap::new(),
            due: VecDeque::new(),
            untold: Vec::new(),
            comes_in: COMES_IN + slow,
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

    /// A chunk comes to another peer of the zone. Returns whether that is news.
    pub(super) fn comes(&mut self, now: Instant, chunk: ChunkIndex) -> bool {
        let times = self.waits.get(&chunk).copied().unwrap_or(0);
        if self.coming.contains(chunk) || times == MAX_WAITS || self.is_near(chunk) {
            return false;
        }
        self.waits.insert(chunk, times + 1);
        self.due.push_back((now + self.comes_in, chunk));
        self.coming.insert(chunk);
        self.withheld.insert(chunk);
        true
    }

    /// A chunk is here: nothing is kept of it.
    pub(super) fn is_here(&mut self, chunk: ChunkIndex) {
        if self.waits.remove(&chunk).is_some() {
            self.comes_no_more(chunk);
        }
    }

    fn comes_no_more(&mut self, chunk: ChunkIndex) {
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
        self.due.front().map(|(until, _)| *until)
    }

    /// Those that did not come in time are not waited for any more.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, chunk)) = self.due.pop_front_if(|(until, _)| *until <= now) {
            self.comes_no_more(chunk);
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
        let mut expected = Self::new(self.withheld.chunks(), 0);
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
