//! A table of numbers by 32-bit hashes: 8 bytes a place, in small parts each of
//! which grows by itself and a little at a time, for it counts for every peer
//! and must not make anybody wait. It knows nothing of what the numbers stand
//! for.

/// How many parts the tables of all shards have together, and each at the least:
/// with a million entries, one is small enough to grow within microseconds.
const PARTS: usize = 1024;
const LEAST_PARTS: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    hash: u32,
    /// None, for an empty place.
    number: u32,
}

/// In each part, an entry is at the place that its hash asks for or, if others
/// are there, at one behind without a gap between.
#[derive(Debug)]
pub(super) struct Table {
    parts: Box<[Part]>,
    /// Of so many places, at most one less is used.
    crowd: usize,
}

#[derive(Debug, Default)]
struct Part {
    places: Vec<Place>,
    used: usize,
}

impl Table {
    /// An empty table for one of `1 << bits` shards, of which one in `crowd`
    /// places stays empty at the least: the more, the smaller, and the longer to
    /// look.
    pub(super) fn new(crowd: usize, bits: u32) -> Self {
        let parts = (PARTS >> bits).max(LEAST_PARTS);
        let parts = (0..parts).map(|_| Part::default());
        Self {
            parts: parts.collect(),
            crowd,
        }
    }

    /// The number of this hash that `fits`.
    pub(super) fn find(&self, hash: u32, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let part = &self.parts[hash as usize % self.parts.len()];
        part.find(hash, fits).map(|at| part.places[at].number)
    }

    /// The number of this hash that `fits`, to be changed to any but zero.
    pub(super) fn find_mut(&mut self, hash: u32, fits: impl Fn(u32) -> bool) -> Option<&mut u32> {
        let at = hash as usize % self.parts.len();
        let part = &mut self.parts[at];
        let found = part.find(hash, fits)?;
        Some(&mut part.places[found].number)
    }

    /// Stores one more number, which is not zero. Constant, but for the growth
    /// of a part.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        debug_assert_ne!(number, 0);
        let at = hash as usize % self.parts.len();
        let part = &mut self.parts[at];
        if self.crowd * (part.used + 1) > (self.crowd - 1) * part.places.len() {
            part.resize((part.places.len() * 5 / 4).max(8));
        }
        part.place(Place { hash, number });
        part.used += 1;
    }

    /// Takes the number of this hash that `fits` out.
    pub(super) fn remove(&mut self, hash: u32, fits: impl Fn(u32) -> bool) {
        let at = hash as usize % self.parts.len();
        let part = &mut self.parts[at];
        let Some(found) = part.find(hash, fits) else {
            return;
        };
        part.close_gap(found);
        part.used -= 1;
        if 4 * part.used < part.places.len() && part.places.len() > 8 {
            part.resize(part.used * 2 + 8);
        }
    }

    /// All hashes with their numbers, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let places = self.parts.iter().flat_map(|part| &part.places);
        places
            .filter(|place| place.number > 0)
            .map(|place| (place.hash, place.number))
    }
}

impl Part {
    fn ideal(&self, hash: u32) -> usize {
        // Some bits are the same in all of a part, or of a shard: the product's
        // high ones hang on all.
        let mixed = hash.wrapping_mul(0x9e37_79b1);
        ((u64::from(mixed) * self.places.len() as u64) >> 32) as usize
    }

    fn find(&self, hash: u32, fits: impl Fn(u32) -> bool) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.ideal(hash);
        loop {
            let place = self.places[at];
            if place.number == 0 {
                return None;
            }
            if place.hash == hash && fits(place.number) {
                return Some(at);
            }
            at = self.behind(at);
        }
    }

    fn behind(&self, at: usize) -> usize {
        if at + 1 == self.places.len() {
            0
        } else {
            at + 1
        }
    }

    fn place(&mut self, place: Place) {
        let mut at = self.ideal(place.hash);
        while self.places[at].number > 0 {
            at = self.behind(at);
        }
        self.places[at] = place;
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.places, vec![Place::default(); len]);
        for place in old.into_iter().filter(|place| place.number > 0) {
            self.place(place);
        }
    }

    /// Empties a place, and moves those up that had to make way for it.
    fn close_gap(&mut self, mut gap: usize) {
        let len = self.places.len();
        let mut at = gap;
        loop {
            at = self.behind(at);
            let place = self.places[at];
            if place.number == 0 {
                break;
            }
            let way = |to: usize| (to + len - self.ideal(place.hash)) % len;
            if way(gap) < way(at) {
                self.places[gap] = place;
                gap = at;
            }
        }
        self.places[gap] = Place::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_agree_with_a_set_whatever_comes_and_goes() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut table, mut set) = (Table::new(8, 3), BTreeSet::<(u32, u32)>::new());
        for round in 0..60_000 {
            // Few hashes, so that many want the same places, some twice; first
            // many come, then many go.
            let entry = (rng.u32(..1500) << 21 | 5, rng.u32(1..3));
            let (hash, number) = entry;
            let found = table.find(hash, |other| other == number);
            assert_eq!(found.is_some(), set.contains(&entry));
            if rng.u32(..60_000) > round {
                if set.insert(entry) {
                    table.insert(hash, number);
                }
            } else {
                table.remove(hash, |other| other == number);
                set.remove(&entry);
            }
        }
        assert_eq!(table.iter().collect::<BTreeSet<_>>(), set);
        for (hash, number) in set {
            *table.find_mut(hash, |other| other == number).unwrap() = 7;
            table.remove(hash, |other| other == 7);
        }
        assert_eq!(table.iter().count(), 0);
    }
}
