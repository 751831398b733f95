//! The listed owners of one content in one array, in buckets of equal speed, the
//! fastest first. The fastest are found without looking at the others, and an
//! entry holds all that a reply says of an owner.

use fastrand::Rng;

use super::owner::Owner;
use super::speed_buckets::{LEVELS, SpeedBucket, SpeedBuckets};

/// How many owners beyond the wanted ones are offered, because some of them may
/// not be fit. A list that is not longer is shuffled.
const SPARE: usize = 64;

/// A list that shrinks is copied if it has up to this many owners, and shortened
/// in place otherwise. When thousands of lists are shortened in place, some
/// allocators merge the remainders all at once, while a request waits.
const COPIED: usize = 4096;

/// How many owners are drawn ahead: as many as one reply names at random, by
/// default.
const AHEAD: usize = 12;

/// How many owners lie on a line of the processor's cache.
const PER_LINE: usize = 64 / size_of::<Owner>();

/// The random draws for one choice of owners.
pub(super) struct Drawn {
    /// For further draws.
    rng: Rng,
    /// Decides where to begin in each bucket.
    turn: u64,
    /// The owners with which to begin in the first bucket, and in the last one if
    /// that is another.
    first: Owner,
    last: Owner,
    owners: [Owner; AHEAD],
    len: usize,
}

impl Drawn {
    /// Where to begin in a bucket of this length.
    fn start(&self, bucket: usize, len: usize) -> usize {
        start(self.turn, bucket, len)
    }
}

/// Where to begin in a bucket of this length, in this turn.
fn start(turn: u64, bucket: usize, len: usize) -> usize {
    // Neighbouring buckets use different bits.
    let turn = turn.rotate_left(13 * bucket as u32);
    (((turn & u64::from(u32::MAX)) * len as u64) >> 32) as usize
}

/// The owners of a content. An owner's position may change with every call. Each
/// call reports the owners that it moves to `moved`, with their new positions.
#[derive(Debug, Default)]
pub(super) struct Owners {
    list: Vec<Owner>,
    buckets: SpeedBuckets,
}

impl Owners {
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn as_slice(&self) -> &[Owner] {
        &self.list
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn at(&self, pos: u32) -> &Owner {
        &self.list[pos as usize]
    }

    pub(super) fn at_mut(&mut self, pos: u32) -> &mut Owner {
        &mut self.list[pos as usize]
    }

    /// Lists an owner. Costs one move per bucket after its own.
    pub(super) fn insert(&mut self, owner: Owner, level: i32, moved: &mut impl FnMut(Owner, u32)) {
        if self.list.len() == self.list.capacity() {
            // Only an eighth more, because the reserve counts for every peer.
            self.list.reserve_exact((self.list.len() / 8).max(1));
        }
        self.list.push(owner);
        let pos = self.list.len() as u32 - 1;
        moved(owner, pos);
        match self.buckets.last_mut() {
            Some(last) => last.end += 1,
            None => {
                self.buckets.insert(0, SpeedBucket { level, end: 1 });
                return;
            }
        }
        self.shift(pos, self.buckets.len() - 1, level, moved);
    }

    /// Removes an owner from the list. Costs as much as [`insert`](Self::insert).
    pub(super) fn remove(&mut self, pos: u32, moved: &mut impl FnMut(Owner, u32)) {
        let last = self.buckets.len() - 1;
        let mut pos = pos;
        for at in self.bucket_at(pos)..last {
            self.buckets[at].end -= 1;
            pos = self.swap(pos, self.buckets[at].end, moved);
        }
        self.buckets[last].end -= 1;
        self.list.swap_remove(pos as usize);
        if let Some(&owner) = self.list.get(pos as usize) {
            moved(owner, pos);
        }
        self.buckets.drop_empty();
        if self.list.capacity() > 2 * self.list.len() + 8 {
            let room = self.list.len() + self.list.len() / 8;
            if self.list.len() <= COPIED {
                let mut list = Vec::with_capacity(room);
                list.extend_from_slice(&self.list);
                self.list = list;
            } else {
                self.list.shrink_to(room);
            }
        }
    }

    /// Moves an owner to the bucket of its new level. Costs one move per bucket
    /// between.
    pub(super) fn relevel(&mut self, pos: u32, level: i32, moved: &mut impl FnMut(Owner, u32)) {
        self.shift(pos, self.bucket_at(pos), level, moved);
    }

    fn bucket_at(&self, pos: u32) -> usize {
        self.buckets.partition_point(|bucket| bucket.end <= pos)
    }

    fn swap(&mut self, one: u32, other: u32, moved: &mut impl FnMut(Owner, u32)) -> u32 {
        if one != other {
            self.list.swap(one as usize, other as usize);
            moved(self.list[one as usize], one);
            moved(self.list[other as usize], other);
        }
        other
    }

    /// Moves the owner at `pos`, which is in bucket `at`, to the bucket of
    /// `level`. Bucket by bucket, it swaps with the owner at the edge, and the
    /// edge moves over it.
    fn shift(
        &mut self,
        mut pos: u32,
        mut at: usize,
        level: i32,
        moved: &mut impl FnMut(Owner, u32),
    ) {
        let mut to = self.buckets.partition_point(|bucket| bucket.level > level);
        let found = self
            .buckets
            .get(to)
            .is_some_and(|bucket| bucket.level == level);
        // All that are slower than the levels told apart share the last bucket.
        if !found && to == self.buckets.len() && to >= LEVELS {
            to -= 1;
        } else if !found {
            let end = to
                .checked_sub(1)
                .map_or(0, |before| self.buckets[before].end);
            self.buckets.insert(to, SpeedBucket { level, end });
            at += usize::from(to <= at);
        }
        while to < at {
            let first = self.buckets[at - 1].end;
            pos = self.swap(pos, first, moved);
            self.buckets[at - 1].end += 1;
            at -= 1;
        }
        while to > at {
            self.buckets[at].end -= 1;
            pos = self.swap(pos, self.buckets[at].end, moved);
            at += 1;
        }
        self.buckets.drop_empty();
        while self.buckets.len() > LEVELS {
            let last = self.buckets.pop().map_or(0, |bucket| bucket.end);
            if let Some(bucket) = self.buckets.last_mut() {
                bucket.end = last;
            }
        }
    }

    /// Reads one number of each line of the buckets.
    pub(super) fn touch_buckets(&self) -> u32 {
        self.buckets.touch().wrapping_add(self.list.len() as u32)
    }

    /// Reads one number of each line that a choice of so many owners from this seed
    /// most likely needs, and nothing that depends on what it reads: so the memory
    /// fetches the lines of several lists at once. Returns a number made of them.
    pub(super) fn touch(&self, seed: u64, (fast, rest): (usize, usize)) -> u32 {
        let len = self.list.len();
        let [first, others @ ..] = &*self.buckets else {
            return 0;
        };
        let mut rng = Rng::with_seed(seed);
        let turn = rng.u64(..);
        let read = |at: usize| self.list.get(at).map_or(0, |owner| owner.peer);
        let mut sum = 0_u32;
        // The fastest, bucket by bucket.
        let from = match first.end as usize {
            end if end < fast => 0,
            end => start(turn, 0, end),
        };
        for at in (from..from + fast).step_by(PER_LINE) {
            sum = sum.wrapping_add(read(at));
        }
        // Lists do not begin where lines do.
        sum = sum.wrapping_add(read(from + fast));
        if let [.., last] = others {
            let begin = self.buckets[others.len() - 1].end as usize;
            let at = begin + start(turn, others.len(), last.end as usize - begin);
            let next = at + PER_LINE - 1;
            sum = sum.wrapping_add(read(at)).wrapping_add(read(next));
        }
        if len > SPARE {
            for _ in 0..rest.min(AHEAD).div_ceil(2) {
                let at = rng.usize(..len);
                sum = sum.wrapping_add(read(at)).wrapping_add(read(at + 1));
            }
        }
        sum
    }

    /// Makes the random draws for a choice of `rest` owners beside the fastest, which
    /// follow from the seed. It reads the entries that [`choose`](Self::choose) needs
    /// first, so that the memory fetches them all at once.
    pub(super) fn draw_ahead(&self, seed: u64, rest: usize) -> Drawn {
        let mut rng = Rng::with_seed(seed);
        let mut drawn = Drawn {
            turn: rng.u64(..),
            rng: Rng::with_seed(0),
            first: Owner::default(),
            last: Owner::default(),
            owners: [Owner::default(); AHEAD],
            len: 0,
        };
        if let [first, others @ ..] = &*self.buckets {
            drawn.first = self.list[drawn.start(0, first.end as usize)];
            if let [.., last] = others {
                let start = self.buckets[others.len() - 1].end as usize;
                let at = drawn.start(others.len(), last.end as usize - start);
                drawn.last = self.list[start + at];
            }
        }
        let len = self.list.len();
        if len > SPARE {
            drawn.len = rest.min(AHEAD);
            // In pairs of neighbours, which are mostly on one cache line.
            for pair in drawn.owners[..drawn.len].chunks_mut(2) {
                let at = rng.usize(..len);
                pair[0] = self.list[at];
                if let Some(next) = pair.get_mut(1) {
                    *next = self.list[if at + 1 < len { at + 1 } else { 0 }];
                }
            }
        }
        drawn.rng = rng;
        drawn
    }

    /// Offers owners to `take` until it has taken `fast` of the fastest, bucket
    /// by bucket and from a random one on within a bucket. Then offers owners of
    /// any speed at random until it has taken `rest` of them. `take` tells
    /// whether it took the owner. It must not take an owner twice, nor one that
    /// is not fit. The number of owners offered is bounded, so where many are
    /// not fit, fewer may be taken than there are.
    pub(super) fn choose(
        &self,
        mut drawn: Drawn,
        (fast, rest): (usize, usize),
        mut take: impl FnMut(&Owner) -> bool,
    ) {
        let mut wanted = fast;
        let mut tries = 2 * (fast + rest) + SPARE;
        let mut start = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            let owners = &self.list[start..bucket.end as usize];
            start = bucket.end as usize;
            if wanted == 0 || tries == 0 {
                break;
            }
            let (front, mut back) = owners.split_at(drawn.start(at, owners.len()));
            let ahead = match at {
                0 => Some(&drawn.first),
                _ => (at + 1 == self.buckets.len()).then_some(&drawn.last),
            };
            if let Some(owner) = ahead {
                tries -= 1;
                wanted -= usize::from(take(owner));
                back = &back[1..];
            }
            for owners in [back, front] {
                for owner in &owners[..owners.len().min(tries)] {
                    if wanted == 0 {
                        break;
                    }
                    tries -= 1;
                    wanted -= usize::from(take(owner));
                }
            }
        }
        wanted += rest;
        for owner in &drawn.owners[..drawn.len] {
            if wanted > 0 {
                wanted -= usize::from(take(owner));
            }
        }
        self.draw(&mut drawn.rng, wanted, &mut take);
    }

    /// Offers owners at random until `wanted` of them were taken.
    fn draw(&self, rng: &mut Rng, mut wanted: usize, take: &mut impl FnMut(&Owner) -> bool) {
        let len = self.list.len();
        if wanted == 0 {
            return;
        }
        if len <= SPARE {
            let mut order: [u8; SPARE] = std::array::from_fn(|at| at as u8);
            for left in (1..=len).rev() {
                let at = rng.usize(..left);
                wanted -= usize::from(take(&self.list[usize::from(order[at])]));
                if wanted == 0 {
                    return;
                }
                order.swap(at, left - 1);
            }
            return;
        }
        // There are more owners than are ever wanted, so most draws are new.
        for _ in 0..4 * wanted + SPARE {
            wanted -= usize::from(take(&self.list[rng.usize(..len)]));
            if wanted == 0 {
                return;
            }
        }
    }

    /// Checks the buckets against the level of each owner.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self, level: impl Fn(&Owner) -> i32) {
        assert!(self.buckets.len() <= LEVELS);
        assert!(self.buckets.is_sorted_by(|a, b| a.level > b.level));
        assert!(self.buckets.is_sorted_by(|a, b| a.end < b.end));
        assert_eq!(
            self.buckets.last().map_or(0, |run| run.end as usize),
            self.list.len()
        );
        for (pos, owner) in self.list.iter().enumerate() {
            // Where buckets were merged, some owners are slower than their bucket.
            let bucket = self.buckets[self.bucket_at(pos as u32)];
            assert!(
                level(owner) <= bucket.level,
                "the owner at {pos} is in the wrong bucket"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Positions = BTreeMap<u32, u32>;

    fn owner(peer: u32) -> Owner {
        Owner::new(peer, peer, 0, false)
    }

    fn step(
        rng: &mut Rng,
        owners: &mut Owners,
        levels: &mut BTreeMap<u32, i32>,
        at: &mut Positions,
    ) {
        let peer = rng.u32(..150);
        match levels.get(&peer).copied() {
            None => {
                let level = if rng.bool() { i32::MIN } else { rng.i32(-9..9) };
                levels.insert(peer, level);
                owners.insert(owner(peer), level, &mut |o, pos| {
                    at.insert(o.peer, pos);
                });
            }
            Some(_) if rng.u8(..3) == 0 => {
                let pos = at[&peer];
                owners.remove(pos, &mut |o, pos| {
                    at.insert(o.peer, pos);
                });
                levels.remove(&peer);
                at.remove(&peer);
            }
            Some(old) => {
                let new = old.max(rng.i32(-50..50));
                levels.insert(peer, new);
                owners.relevel(at[&peer], new, &mut |o, pos| {
                    at.insert(o.peer, pos);
                });
            }
        }
        owners.check_bounds();
        assert_eq!(owners.len(), levels.len());
        for (&peer, &pos) in at.iter() {
            assert_eq!(owners.list[pos as usize].peer, peer);
        }
    }

    impl Owners {
        fn check_bounds(&self) {
            assert!(self.buckets.len() <= LEVELS);
            assert!(self.buckets.is_sorted_by(|a, b| a.end < b.end));
        }
    }

    #[test]
    fn order_holds_after_random_inserts_removals_and_speed_ups() {
        for seed in 0..20 {
            let mut rng = Rng::with_seed(seed);
            let (mut owners, mut levels) = (Owners::default(), BTreeMap::new());
            let mut at = Positions::new();
            for _ in 0..1000 {
                step(&mut rng, &mut owners, &mut levels, &mut at);
            }
        }
    }

    #[test]
    fn fastest_come_first_and_the_slow_share_the_last_bucket() {
        let (mut owners, mut at) = (Owners::default(), Positions::new());
        let mut rng = Rng::with_seed(3);
        let mut numbers: Vec<u32> = (0..100).collect();
        rng.shuffle(&mut numbers);
        for &number in &numbers {
            owners.insert(owner(number), number as i32, &mut |o, pos| {
                at.insert(o.peer, pos);
            });
        }
        let fast = owners.list[..LEVELS - 1].iter().map(|o| o.peer);
        assert!(fast.eq((101 - LEVELS as u32..100).rev()));
        assert_eq!(owners.buckets.len(), LEVELS);
    }

    fn listed(count: u32, level_of: impl Fn(u32) -> i32) -> Owners {
        let mut owners = Owners::default();
        for peer in 0..count {
            owners.insert(owner(peer), level_of(peer), &mut |_, _| {});
        }
        owners.check(|owner| level_of(owner.peer));
        owners
    }

    fn chosen(owners: &Owners, rng: &mut Rng, fit: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut chosen = Vec::new();
        let drawn = owners.draw_ahead(rng.u64(..), 2);
        owners.choose(drawn, (6, 2), |owner| {
            let new = fit(owner.peer) && !chosen.contains(&owner.peer);
            if new {
                chosen.push(owner.peer);
            }
            new
        });
        chosen
    }

    #[test]
    fn fastest_are_always_chosen_and_the_others_equally_often() {
        for count in [20, 63, 64, 65, 500] {
            // Peers 0 to 5 are fast.
            let owners = listed(count, |peer| if peer < 6 { 20 } else { i32::MIN });
            let mut rng = Rng::with_seed(1);
            let mut seen = vec![0u32; count as usize];
            for _ in 0..20_000 {
                let mut chosen = chosen(&owners, &mut rng, |_| true);
                assert_eq!(chosen.len(), 8);
                chosen.iter().for_each(|&peer| seen[peer as usize] += 1);
                chosen.sort_unstable();
                assert!(chosen.starts_with(&[0, 1, 2, 3, 4, 5]), "{chosen:?}");
            }
            // How often each of the others is expected. None may come less than
            // half as often, or twice as often.
            let expected = 20_000 * 2 / (count - 6);
            let others = &seen[6..];
            assert!(others.iter().all(|&n| n > expected / 2), "{seen:?}");
            assert!(others.iter().all(|&n| n < expected * 2), "{seen:?}");
        }
    }

    #[test]
    fn unfit_owners_are_passed_over() {
        for count in [40, 400] {
            let owners = listed(count, |_| i32::MIN);
            let chosen = chosen(&owners, &mut Rng::with_seed(1), |peer| peer % 5 != 0);
            assert_eq!(chosen.len(), 8);
        }
    }
}
