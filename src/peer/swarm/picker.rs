//! Which chunk next: rarest first, with random ties.
//!
//! The chunks that wait to be asked for are in one array, sorted by the number
//! of copies: how many partial links (that have some chunks and not all) have
//! them. Chunks with the same number of copies form a level. A change of one
//! copy costs one swap. Adding or taking a chunk costs one swap per level above
//! it, and there are at most as many levels as links. Links that have everything
//! would not change the order, and are not counted.

use std::ops::Range;

use crate::content::{Bitfield, ChunkIndex};

/// The waiting chunks by rarity.
#[derive(Debug)]
pub struct Picker {
    /// The waiting chunks, level by level from the rarest.
    order: Vec<u32>,
    /// The index of each chunk in `order`; [`ABSENT`] if it does not wait.
    place: Vec<u32>,
    /// How many partial links have each chunk.
    copies: Vec<u16>,
    /// The index in `order` at which each level starts. The last entry is the
    /// length of `order`.
    levels: Vec<u32>,
    /// The waiting chunks.
    waiting: Bitfield,
    /// Chunks that are asked for in another order, and not found here.
    reserved: Option<Bitfield>,
    /// Chunks that come in another way, as it seems. Not found either.
    elsewhere: Option<Bitfield>,
    rng: fastrand::Rng,
}

const ABSENT: u32 = u32::MAX;

/// How many chunks are looked at in order of rarity to find one that a link has.
/// After that, a sample of the link's chunks is looked at instead.
const SCAN: usize = 1024;

/// How many chunks are in that sample.
const SAMPLE: usize = 64;

/// How many chunks are looked at where there are few, or any of them will do.
const FEW: usize = 16;

impl Picker {
    /// A picker in which no chunk waits yet.
    pub fn new(chunks: u32, seed: u64) -> Self {
        Self {
            order: Vec::with_capacity(chunks as usize),
            place: vec![ABSENT; chunks as usize],
            copies: vec![0; chunks as usize],
            levels: vec![0, 0],
            waiting: Bitfield::none(chunks),
            reserved: None,
            elsewhere: None,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// How many chunks wait.
    pub fn len(&self) -> u32 {
        self.order.len() as u32
    }

    /// How many waiting chunks some partial link has.
    pub fn held_in_part(&self) -> u32 {
        self.len() - self.levels[1]
    }

    /// Whether no chunk waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether a chunk waits.
    pub fn is_waiting(&self, chunk: ChunkIndex) -> bool {
        self.waiting.contains(chunk)
    }

    /// The waiting chunks.
    pub fn waiting(&self) -> &Bitfield {
        &self.waiting
    }

    /// Some chunks are asked for in another order: they wait, and are not found.
    pub fn reserve(&mut self, chunks: Option<&Bitfield>) {
        self.reserved = chunks.cloned();
    }

    /// These chunks come in another way, as it seems: they wait, and are not found. Returns
    /// whether they are others than before.
    pub fn set_elsewhere(&mut self, chunks: Option<Bitfield>) -> bool {
        let chunks = chunks.filter(|chunks| !chunks.is_empty());
        let changed = self.elsewhere != chunks;
        self.elsewhere = chunks;
        changed
    }

    /// Whether a chunk may be found.
    pub fn is_unreserved(&self, chunk: ChunkIndex) -> bool {
        let mut others = self.reserved.iter().chain(&self.elsewhere);
        !others.any(|chunks| chunks.contains(chunk))
    }

    /// How many partial links have a chunk.
    pub fn copies(&self, chunk: ChunkIndex) -> u16 {
        self.copies[chunk.as_usize()]
    }

    /// Adds a chunk that waits. O(levels).
    pub fn put(&mut self, chunk: ChunkIndex) {
        if !self.waiting.insert(chunk) {
            return;
        }
        let level = self.copies(chunk).into();
        self.ensure_level(level);
        // Open a hole at the end of the level: move the first chunk of each
        // level above to that level's end.
        let mut hole = self.order.len();
        self.order.push(chunk.0);
        for above in (level + 1..self.levels.len()).rev() {
            let start = self.levels[above] as usize;
            self.levels[above] += 1;
            // An empty level has no first chunk: the hole is already there.
            if above + 1 < self.levels.len() && start != hole {
                self.set(hole, self.order[start]);
                hole = start;
            }
        }
        self.set(hole, chunk.0);
        self.shuffle_into(level, hole);
    }

    /// Takes a chunk out that no longer waits. O(levels).
    pub fn take(&mut self, chunk: ChunkIndex) {
        if !self.waiting.remove(chunk) {
            return;
        }
        let level = usize::from(self.copies(chunk));
        let mut hole = self.place[chunk.as_usize()] as usize;
        for above in level + 1..self.levels.len() {
            self.levels[above] -= 1;
            let last = self.levels[above] as usize;
            if last != hole {
                self.set(hole, self.order[last]);
                hole = last;
            }
        }
        self.order.pop();
        self.place[chunk.as_usize()] = ABSENT;
    }

    /// One more partial link has a chunk. O(1).
    pub fn gained(&mut self, chunk: ChunkIndex) {
        let level = usize::from(self.copies(chunk));
        self.copies[chunk.as_usize()] += 1;
        if !self.is_waiting(chunk) {
            return;
        }
        self.ensure_level(level + 1);
        self.levels[level + 1] -= 1;
        let last = self.levels[level + 1] as usize;
        self.swap(self.place[chunk.as_usize()] as usize, last);
        self.shuffle_into(level + 1, last);
    }

    /// One partial link fewer has a chunk. O(1).
    pub fn lost(&mut self, chunk: ChunkIndex) {
        let level = usize::from(self.copies(chunk));
        self.copies[chunk.as_usize()] -= 1;
        if !self.is_waiting(chunk) {
            return;
        }
        let first = self.levels[level] as usize;
        self.levels[level] += 1;
        self.swap(self.place[chunk.as_usize()] as usize, first);
        self.shuffle_into(level - 1, first);
    }

    /// The rarest waiting chunk in `has`, or of all without it, that is not reserved. Ties are broken
    /// at random. `has` must belong to a partial link, whose chunks count as
    /// copies.
    ///
    /// O(1) without `has`. With it, a chunk of a level is found after about
    /// `links / level` steps. If that takes too many steps, the answer is the
    /// rarest chunk of a sample, after at most `chunks / 64` more.
    pub fn rarest(&mut self, has: Option<&Bitfield>) -> Option<ChunkIndex> {
        let Some(has) = has else {
            let mut order = self.order.iter().copied().map(ChunkIndex);
            return order.find(|&chunk| self.is_unreserved(chunk));
        };
        // No partial link has a chunk of the first level.
        let held = &self.order[self.levels[1] as usize..];
        let mut chunks = held.iter().copied().map(ChunkIndex);
        let fits = |&chunk: &ChunkIndex| has.contains(chunk) && self.is_unreserved(chunk);
        let found = chunks.by_ref().take(SCAN).find(fits);
        if found.is_some() || held.len() <= SCAN {
            return found;
        }
        let start = self.rng.u32(0..self.waiting.chunks());
        let behind = self.waiting.iter_common(has, start);
        let before = self.waiting.iter_common(has, 0);
        let before = before.take_while(|chunk| chunk.0 < start);
        behind
            .chain(before)
            .filter(|&chunk| self.is_unreserved(chunk))
            .take(SAMPLE)
            .min_by_key(|&chunk| self.place[chunk.as_usize()])
    }

    /// A rare waiting chunk in `has`, or of all without it, that is not in `but` and not
    /// reserved: the rarest of a few, from a random one on.
    pub fn rare_but(&mut self, has: Option<&Bitfield>, but: &Bitfield) -> Option<ChunkIndex> {
        let has = has.unwrap_or(&self.waiting);
        let start = self.rng.u32(0..self.waiting.chunks());
        let behind = self.waiting.iter_common_but(has, but, start);
        let before = self.waiting.iter_common_but(has, but, 0);
        let before = before.take_while(|chunk| chunk.0 < start);
        behind
            .chain(before)
            .filter(|&chunk| self.is_unreserved(chunk))
            .take(FEW)
            .min_by_key(|&chunk| self.copies(chunk))
    }

    /// The first waiting chunk of a range that is in `has`, or of all without it, and that
    /// is not reserved.
    pub fn first_in(&self, range: Range<u32>, has: Option<&Bitfield>) -> Option<ChunkIndex> {
        let fits = |chunk: &ChunkIndex| chunk.0 >= range.end || self.is_unreserved(*chunk);
        let found = match has {
            Some(has) => self.waiting.iter_common(has, range.start).find(fits),
            None => self.waiting.iter_from(range.start).find(fits),
        };
        found.filter(|chunk| chunk.0 < range.end)
    }

    fn ensure_level(&mut self, level: usize) {
        while self.levels.len() < level + 2 {
            self.levels.push(self.order.len() as u32);
        }
    }

    /// Moves the chunk at `place`, which has just entered `level`, to a random
    /// place in it.
    fn shuffle_into(&mut self, level: usize, place: usize) {
        let range = self.levels[level] as usize..self.levels[level + 1] as usize;
        let other = self.rng.usize(range);
        self.swap(place, other);
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (chunk_a, chunk_b) = (self.order[a], self.order[b]);
        self.set(a, chunk_b);
        self.set(b, chunk_a);
    }

    fn set(&mut self, place: usize, chunk: u32) {
        self.order[place] = chunk;
        self.place[chunk as usize] = place as u32;
    }

    /// Panics if the order contradicts itself. For tests.
    pub fn check_invariants(&self) {
        assert_eq!(self.waiting.count(), self.len());
        assert_eq!(self.levels[0], 0);
        assert_eq!(
            *self.levels.last().expect("there is at least one level"),
            self.len()
        );
        for (level, bounds) in self.levels.windows(2).enumerate() {
            for place in bounds[0]..bounds[1] {
                let chunk = ChunkIndex(self.order[place as usize]);
                assert_eq!(self.place[chunk.as_usize()], place);
                assert_eq!(usize::from(self.copies(chunk)), level);
                assert!(self.is_waiting(chunk));
            }
        }
    }
}
