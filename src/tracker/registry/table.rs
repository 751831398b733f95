//! A hash table of numbers by 32-bit hashes, in 8 bytes per slot. It consists of
//! small parts, each of which grows by itself and a little at a time: what it
//! holds in reserve counts for every peer, and growing must not make a request
//! wait. It does not know what the numbers stand for.

/// How many parts the tables of all shards have together. With a million
/// entries, one part is small enough to grow within microseconds.
const PARTS: usize = 1024;

/// How many parts one table has at least.
const LEAST_PARTS: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// Zero in an empty slot.
    number: u32,
}

/// Open addressing: in each part, an entry is in the slot that its hash asks for
/// or, if that is taken, in a later one without a gap between.
#[derive(Debug)]
pub(super) struct Table {
    parts: Box<[Part]>,
    /// At least one in this number of slots stays empty.
    crowd: usize,
}

#[derive(Debug, Default)]
struct Part {
    slots: Vec<Slot>,
    used: usize,
}

impl Table {
    /// An empty table for one of `1 << bits` shards. At least one in `crowd`
    /// slots stays empty: with a higher `crowd` the table is smaller and a
    /// look-up takes longer.
    pub(super) fn new(crowd: usize, bits: u32) -> Self {
        let parts = (PARTS >> bits).max(LEAST_PARTS);
        let parts = (0..parts).map(|_| Part::default());
        Self {
            parts: parts.collect(),
            crowd,
        }
    }

    /// The number with this hash that `fits`.
    pub(super) fn find(&self, hash: u32, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let part = &self.parts[hash as usize % self.parts.len()];
        part.find(hash, fits).map(|at| part.slots[at].number)
    }

    /// Reads the slot in which the number with this hash should be.
    pub(super) fn touch(&self, hash: u32) -> u32 {
        let part = &self.parts[hash as usize % self.parts.len()];
        let slot = part.slots.get(part.ideal(hash));
        slot.map_or(0, |slot| slot.number)
    }

    /// The number with this hash that `fits`. It must not be changed to zero.
    pub(super) fn find_mut(&mut self, hash: u32, fits: impl Fn(u32) -> bool) -> Option<&mut u32> {
        let at = hash as usize % self.parts.len();
        let part = &mut self.parts[at];
        let found = part.find(hash, fits)?;
        Some(&mut part.slots[found].number)
    }

    /// Stores one more number, which is not zero. Constant, except when a part
    /// grows.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        debug_assert_ne!(number, 0);
        let at = hash as usize % self.parts.len();
        let part = &mut self.parts[at];
        if self.crowd * (part.used + 1) > (self.crowd - 1) * part.slots.len() {
            part.resize((part.slots.len() * 5 / 4).max(8));
        }
        part.put(Slot { hash, number });
        part.used += 1;
    }

    /// Removes the number with this hash that `fits`.
    pub(super) fn remove(&mut self, hash: u32, fits: impl Fn(u32) -> bool) {
        let at = hash as usize % self.parts.len();
        let part = &mut self.parts[at];
        let Some(found) = part.find(hash, fits) else {
            return;
        };
        part.close_gap(found);
        part.used -= 1;
        if 4 * part.used < part.slots.len() && part.slots.len() > 8 {
            part.resize(part.used * 2 + 8);
        }
    }

    /// All hashes with their numbers, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let slots = self.parts.iter().flat_map(|part| &part.slots);
        slots
            .filter(|slot| slot.number > 0)
            .map(|slot| (slot.hash, slot.number))
    }
}

impl Part {
    fn ideal(&self, hash: u32) -> usize {
        // Some bits are the same in all entries of a part or of a shard. The high
        // bits of the product depend on all bits of the hash.
        let mixed = hash.wrapping_mul(0x9e37_79b1);
        ((u64::from(mixed) * self.slots.len() as u64) >> 32) as usize
    }

    fn find(&self, hash: u32, fits: impl Fn(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.ideal(hash);
        loop {
            let slot = self.slots[at];
            if slot.number == 0 {
                return None;
            }
            if slot.hash == hash && fits(slot.number) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.ideal(slot.hash);
        while self.slots[at].number > 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); len]);
        for slot in old.into_iter().filter(|slot| slot.number > 0) {
            self.put(slot);
        }
    }

    /// Empties a slot, and moves the entries up that had to evade it.
    fn close_gap(&mut self, mut gap: usize) {
        let len = self.slots.len();
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot.number == 0 {
                break;
            }
            let distance = |to: usize| (to + len - self.ideal(slot.hash)) % len;
            if distance(gap) < distance(at) {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = Slot::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_agree_with_a_set_after_random_inserts_and_removals() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut table, mut set) = (Table::new(8, 3), BTreeSet::<(u32, u32)>::new());
        for round in 0..60_000 {
            // Few different hashes, so that many entries want the same slots. At
            // first most steps insert, later most remove.
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
