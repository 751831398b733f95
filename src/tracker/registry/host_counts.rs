//! How many peers each host has, by the host's hash, in 4 bytes per host. A hash table
//! of small parts, each of which grows by itself and a little at a time, so that no
//! request waits. Where a host is says ten bits of its hash at least, so the others and
//! the number fit into a word. A host with very many peers has its number elsewhere.

use std::collections::BTreeMap;

/// How many parts the tables of all shards have together: with a million hosts, one
/// part is small enough to grow within microseconds.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 10;

/// How many parts one table has at least.
const LEAST_PARTS: usize = 16;

/// At least one in this number of slots of a part stays empty.
const CROWD: usize = 8;

/// How many bits of a slot are for the number. The others are for what of a hash neither
/// the shard nor the part tells.
const COUNT_BITS: u32 = PART_BITS;

/// The highest number that fits. It stands for one that is elsewhere.
const MANY: u32 = (1 << COUNT_BITS) - 1;

/// The position of the bits of a hash that tell its shard.
const SHARD_AT: u32 = 16;

/// How many peers the hosts of one shard have.
#[derive(Debug)]
pub(super) struct HostCounts {
    parts: Box<[Part]>,
    part_bits: u32,
    shard_bits: u32,
    #[cfg(any(test, feature = "testing"))]
    shard: u32,
    /// The hosts with [`MANY`] peers or more.
    many: BTreeMap<u32, u32>,
}

#[derive(Debug, Default)]
struct Part {
    /// The rest of a hash, and a number. Zero if it is empty.
    slots: Vec<u32>,
    used: usize,
}

impl HostCounts {
    /// An empty table for this one of `1 << bits` shards.
    pub(super) fn new(bits: u32, shard: u32) -> Self {
        let _ = shard;
        let parts = (PARTS >> bits).max(LEAST_PARTS);
        Self {
            part_bits: parts.ilog2(),
            parts: (0..parts).map(|_| Part::default()).collect(),
            shard_bits: bits,
            #[cfg(any(test, feature = "testing"))]
            shard,
            many: BTreeMap::new(),
        }
    }

    /// The part of a host, and the rest of its hash.
    fn split(&self, host: u32) -> (usize, u32) {
        let part = host as usize & (self.parts.len() - 1);
        let low = SHARD_AT - self.part_bits;
        let high = u64::from(host) >> (SHARD_AT + self.shard_bits);
        let middle = host >> self.part_bits & ((1 << low) - 1);
        (part, (high as u32) << low | middle)
    }

    /// How many peers a host has.
    pub(super) fn of(&self, host: u32) -> u32 {
        let (part, rest) = self.split(host);
        let part = &self.parts[part];
        match part.find(rest).map(|at| part.slots[at] & MANY) {
            None => 0,
            Some(MANY) => self.many.get(&host).copied().unwrap_or(MANY),
            Some(count) => count,
        }
    }

    /// A host has one peer more. Constant, except when a part grows.
    pub(super) fn add(&mut self, host: u32) {
        let (part, rest) = self.split(host);
        let part = &mut self.parts[part];
        let Some(at) = part.find(rest) else {
            part.insert(rest << COUNT_BITS | 1);
            return;
        };
        if part.slots[at] & MANY < MANY {
            part.slots[at] += 1;
        }
        if part.slots[at] & MANY == MANY {
            *self.many.entry(host).or_insert(MANY - 1) += 1;
        }
    }

    /// Reverts [`add`](Self::add). Returns how many peers are left.
    pub(super) fn sub(&mut self, host: u32) -> u32 {
        let (part, rest) = self.split(host);
        let part = &mut self.parts[part];
        let Some(at) = part.find(rest) else {
            return 0;
        };
        if part.slots[at] & MANY == MANY
            && let Some(count) = self.many.get_mut(&host)
        {
            *count -= 1;
            let left = *count;
            if left < MANY {
                self.many.remove(&host);
                part.slots[at] -= 1;
            }
            return left;
        }
        part.slots[at] -= 1;
        let left = part.slots[at] & MANY;
        if left == 0 {
            part.remove(at);
        }
        left
    }

    /// All hosts with their numbers, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let low = SHARD_AT - self.part_bits;
        (0_u32..).zip(&self.parts).flat_map(move |(part, slots)| {
            let taken = slots.slots.iter().filter(|slot| **slot != 0);
            taken.map(move |slot| {
                let rest = slot >> COUNT_BITS;
                let high = u64::from(rest >> low) << (SHARD_AT + self.shard_bits);
                let middle = (rest & ((1 << low) - 1)) << self.part_bits;
                let host = high as u32 | self.shard << SHARD_AT | middle | part;
                (host, self.of(host))
            })
        })
    }
}

impl Part {
    /// The slot that a rest of a hash asks for.
    fn ideal(&self, rest: u32) -> usize {
        // The high bits of the product depend on all bits of the rest.
        let mixed = rest.wrapping_mul(0x9e37_79b1);
        ((u64::from(mixed) * self.slots.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    fn find(&self, rest: u32) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.ideal(rest);
        while self.slots[at] != 0 {
            if self.slots[at] >> COUNT_BITS == rest {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    fn insert(&mut self, slot: u32) {
        if CROWD * (self.used + 1) > (CROWD - 1) * self.slots.len() {
            self.resize((self.slots.len() * 9 / 8).max(CROWD));
        }
        self.put(slot);
        self.used += 1;
    }

    fn put(&mut self, slot: u32) {
        let mut at = self.ideal(slot >> COUNT_BITS);
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; len]);
        for slot in old.into_iter().filter(|slot| *slot != 0) {
            self.put(slot);
        }
    }

    /// Empties a slot, and moves the entries up that had to evade it.
    fn remove(&mut self, mut gap: usize) {
        let len = self.slots.len();
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let distance = |to: usize| (to + len - self.ideal(slot >> COUNT_BITS)) % len;
            if distance(gap) < distance(at) {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = 0;
        self.used -= 1;
        if 4 * self.used < len && len > CROWD {
            self.resize(self.used * 2 + CROWD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_a_map_in_each_shard() {
        let mut rng = fastrand::Rng::with_seed(1);
        for bits in 0..=8 {
            let shard = rng.u32(..1 << bits);
            let (mut counts, mut map) = (HostCounts::new(bits, shard), BTreeMap::new());
            let mask = ((1_u32 << bits) - 1) << SHARD_AT;
            let host_of = |number: u32| {
                let hash = number.wrapping_mul(0x85eb_ca6b).rotate_left(13);
                hash & !mask | shard << SHARD_AT
            };
            let mut hosts: Vec<u32> = (0..3000).map(host_of).collect();
            // Hashes that differ in one bit.
            hosts.extend((0..32).map(|bit| (1 << bit) & !mask | shard << SHARD_AT));
            for round in 0..40_000_u32 {
                // A few hosts have very many peers.
                let few = rng.u8(..8) == 0;
                let host = hosts[rng.usize(..if few { 2 } else { hosts.len() })];
                let entry: &mut u32 = map.entry(host).or_default();
                assert_eq!(counts.of(host), *entry);
                if few || rng.u32(..40_000) > round {
                    counts.add(host);
                    *entry += 1;
                } else if *entry > 0 {
                    *entry -= 1;
                    assert_eq!(counts.sub(host), *entry);
                }
            }
            map.retain(|_, count| *count > 0);
            assert!(map.values().any(|count| *count > MANY));
            assert_eq!(counts.iter().collect::<BTreeMap<_, _>>(), map);
            for (host, count) in map {
                for left in (0..count).rev() {
                    assert_eq!(counts.sub(host), left);
                }
                assert_eq!(counts.of(host), 0);
            }
            assert_eq!(counts.iter().count(), 0);
            assert!(counts.many.is_empty());
        }
    }
}
