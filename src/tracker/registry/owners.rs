//! The listed owners of one content in one array, in buckets of equal speed, the
//! fastest first. The fastest are found without looking at the others, and an
//! entry holds all that a reply says of an owner.

use fastrand::Rng;

use super::owner::Owner;
use super::owner_list::{OwnerList, PER_LINE};
use super::speed_buckets::{LEVELS, SpeedBuckets};

/// How many owners beyond the wanted ones are offered, because some of them may
/// not be fit. A list that is not longer is shuffled.
const SPARE: usize = 64;

/// How many lines of owners are read ahead: as many as one reply names at random, by
/// default.
const AHEAD: usize = 3;

/// The random draws for one choice of owners, which follow from its seed.
struct Draws {
    rng: Rng,
    /// Decides where to begin in each bucket, and on each line.
    turn: u64,
}

impl Draws {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let turn = rng.u64(..);
        Self { rng, turn }
    }

    /// Where to begin in a bucket of this length.
    fn start(&self, bucket: usize, len: usize) -> usize {
        // Neighbouring buckets use different bits.
        let turn = self.turn.rotate_left(13 * bucket as u32);
        (((turn & u64::from(u32::MAX)) * len as u64) >> 32) as usize
    }

    /// The lines with the first `rest` owners that are offered at random, of a list of this
    /// length: all different, one in each of as many parts of the list, which begin at random.
    fn lines(&mut self, len: usize, rest: usize) -> impl Iterator<Item = usize> {
        let lines = len.div_ceil(PER_LINE).max(1);
        let parts = rest.div_ceil(PER_LINE).min(lines);
        let begin = self.rng.usize(..lines);
        let width = lines / parts.max(1);
        (0..parts).map(move |part| {
            let line = begin + part * width + self.rng.usize(..width);
            if line < lines { line } else { line - lines }
        })
    }
}

/// The owners of a content. An owner's position may change with every call. Each
/// call reports the owners that it moves to `moved`, with their new positions.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Owners {
    list: OwnerList,
    buckets: SpeedBuckets,
}

impl Owners {
    /// How many bytes of it are read to find the fastest owners, as many as one reply names
    /// of them by default: where the list is, and where their buckets end.
    #[cfg(test)]
    pub(super) const READ: usize = std::mem::offset_of!(Self, buckets) + 5 * size_of::<u32>();

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
        self.list.push(owner);
        let pos = self.list.len() as u32 - 1;
        moved(owner, pos);
        match self.buckets.ends_mut().last_mut() {
            Some(last) => *last += 1,
            None => {
                self.buckets.insert(0, level);
                self.buckets.ends_mut()[0] = 1;
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
            pos = self.pass_edge(pos, at, moved);
        }
        self.buckets.ends_mut()[last] -= 1;
        self.list.swap_remove(pos as usize);
        if let Some(&owner) = self.list.get(pos as usize) {
            moved(owner, pos);
        }
        self.buckets.drop_empty();
    }

    /// Moves an owner to the bucket of its new level. Costs one move per bucket
    /// between.
    pub(super) fn relevel(&mut self, pos: u32, level: i32, moved: &mut impl FnMut(Owner, u32)) {
        self.shift(pos, self.bucket_at(pos), level, moved);
    }

    fn bucket_at(&self, pos: u32) -> usize {
        self.buckets.ends().partition_point(|end| *end <= pos)
    }

    fn swap(&mut self, one: u32, other: u32, moved: &mut impl FnMut(Owner, u32)) -> u32 {
        if one != other {
            self.list.swap(one as usize, other as usize);
            moved(self.list[one as usize], one);
            moved(self.list[other as usize], other);
        }
        other
    }

    /// Moves the owner at `pos` to the end of its bucket, and the edge over it: it is the
    /// first of the next bucket then. Returns its new position.
    fn pass_edge(&mut self, pos: u32, bucket: usize, moved: &mut impl FnMut(Owner, u32)) -> u32 {
        let end = &mut self.buckets.ends_mut()[bucket];
        *end -= 1;
        let last = *end;
        self.swap(pos, last, moved)
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
        let levels = self.buckets.levels();
        let mut to = levels.partition_point(|other| *other > level);
        let found = levels.get(to) == Some(&level);
        // All that are slower than the levels told apart share the last bucket.
        if !found && to == self.buckets.len() && to >= LEVELS {
            to -= 1;
        } else if !found {
            self.buckets.insert(to, level);
            at += usize::from(to <= at);
        }
        while to < at {
            let first = self.buckets.begin(at);
            pos = self.swap(pos, first, moved);
            self.buckets.ends_mut()[at - 1] += 1;
            at -= 1;
        }
        while to > at {
            pos = self.pass_edge(pos, at, moved);
            at += 1;
        }
        self.buckets.drop_empty();
        while self.buckets.len() > LEVELS {
            self.buckets.join_last();
        }
    }

    /// Reads one number of each line that a choice of so many owners from this seed
    /// most likely needs, and nothing that depends on what it reads: so the memory
    /// fetches the lines at once, also those of several lists. Returns a number made of them.
    pub(super) fn touch(&self, seed: u64, (fast, rest): (usize, usize)) -> u32 {
        let (list, ends) = (&*self.list, self.buckets.ends());
        let Some(&first) = ends.first() else {
            return 0;
        };
        let mut draws = Draws::new(seed);
        let read = |at: usize| list.get(at).map_or(0, |owner| owner.peer);
        let mut sum = 0_u32;
        // The fastest, as if they were on neighbouring lines, as they mostly are: to look at
        // each bucket would make the processor guess, and it guesses wrong.
        let from = match first as usize {
            end if end < fast => 0,
            end => draws.start(0, end),
        };
        for at in (from..from + fast).step_by(PER_LINE) {
            sum = sum.wrapping_add(read(at));
        }
        sum = sum.wrapping_add(read(from + fast));
        let (last, begin) = (ends.len() - 1, self.buckets.begin(ends.len() - 1) as usize);
        if last > 0 && begin < fast {
            let at = begin + draws.start(last, list.len() - begin);
            let next = at + PER_LINE - 1;
            sum = sum.wrapping_add(read(at)).wrapping_add(read(next));
        }
        if list.len() > SPARE {
            let lines = draws.lines(list.len(), rest).take(AHEAD);
            sum = lines.fold(sum, |sum, line| sum.wrapping_add(read(line * PER_LINE)));
        }
        sum
    }

    /// Offers owners to `take` until it has taken `fast` of the fastest, bucket
    /// by bucket and from a random one on within a bucket. Then offers owners of
    /// any speed at random until it has taken `rest` of them. All draws follow from the seed.
    /// `take` tells whether it took the owner. It must not take an owner twice, nor one that
    /// is not fit. The number of owners offered is bounded, so where many are
    /// not fit, fewer may be taken than there are.
    pub(super) fn choose(
        &self,
        seed: u64,
        (fast, rest): (usize, usize),
        mut take: impl FnMut(&Owner) -> bool,
    ) {
        let list = &*self.list;
        let mut draws = Draws::new(seed);
        let mut wanted = fast;
        let mut tries = 2 * (fast + rest) + SPARE;
        let mut begin = 0;
        for (at, &end) in self.buckets.ends().iter().enumerate() {
            if wanted == 0 || tries == 0 {
                break;
            }
            let owners = &list[begin..end as usize];
            begin = end as usize;
            let (front, back) = owners.split_at(draws.start(at, owners.len()));
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
        if wanted > 0 && list.len() > SPARE {
            wanted = draw_lines(list, &mut draws, (wanted, rest), &mut take);
        }
        if wanted > 0 {
            draw(list, &mut draws, wanted, &mut take);
        }
    }

    /// Checks the buckets against the level of each owner.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self, level: impl Fn(&Owner) -> i32) {
        assert!(self.buckets.len() <= LEVELS);
        assert!(self.buckets.levels().is_sorted_by(|a, b| a > b));
        assert!(self.buckets.ends().is_sorted_by(|a, b| a < b));
        let last = self.buckets.ends().last();
        assert_eq!(last.map_or(0, |end| *end as usize), self.list.len());
        for (pos, owner) in self.list.iter().enumerate() {
            // Where buckets were merged, some owners are slower than their bucket.
            let bucket = self.buckets.levels()[self.bucket_at(pos as u32)];
            assert!(
                level(owner) <= bucket,
                "the owner at {pos} is in the wrong bucket"
            );
        }
    }
}

/// Offers about `rest` owners of a list, four neighbours at a time, as they are on one line
/// of the cache. Returns how many of those wanted are missing.
fn draw_lines(
    list: &[Owner],
    draws: &mut Draws,
    (mut wanted, rest): (usize, usize),
    take: &mut impl FnMut(&Owner) -> bool,
) -> usize {
    let mut left = rest;
    let turn = draws.turn;
    for line in draws.lines(list.len(), rest) {
        // The last line may have fewer owners, and each shall come equally often.
        for at in on_line(turn, line).take(left) {
            if let Some(owner) = list.get(at) {
                wanted -= usize::from(take(owner));
                if wanted == 0 {
                    return 0;
                }
            }
        }
        left = left.saturating_sub(PER_LINE);
    }
    wanted
}

/// Offers owners at random until `wanted` of them were taken. In long lists this is rarely
/// needed.
#[inline(never)]
fn draw(
    list: &[Owner],
    draws: &mut Draws,
    mut wanted: usize,
    take: &mut impl FnMut(&Owner) -> bool,
) {
    let len = list.len();
    if len <= SPARE {
        let mut order: [u8; SPARE] = std::array::from_fn(|at| at as u8);
        for left in (1..=len).rev() {
            let at = draws.rng.usize(..left);
            wanted -= usize::from(take(&list[usize::from(order[at])]));
            if wanted == 0 {
                return;
            }
            order.swap(at, left - 1);
        }
        return;
    }
    // There are more owners than are ever wanted, so most draws are new.
    for _ in 0..wanted + SPARE / PER_LINE {
        let line = draws.rng.usize(..len.div_ceil(PER_LINE));
        for at in on_line(draws.turn, line) {
            if let Some(owner) = list.get(at) {
                wanted -= usize::from(take(owner));
                if wanted == 0 {
                    return;
                }
            }
        }
    }
}

/// The positions on a line, from a random one on.
fn on_line(turn: u64, line: usize) -> impl Iterator<Item = usize> {
    // Other bits than those that the first buckets use.
    let turn = (turn >> 40) as usize;
    (0..PER_LINE).map(move |at| line * PER_LINE + (turn + at) % PER_LINE)
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
            assert!(self.buckets.ends().is_sorted_by(|a, b| a < b));
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
        owners.choose(rng.u64(..), (6, 2), |owner| {
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
    fn lines_of_one_draw_differ_and_each_comes_equally_often() {
        for (len, rest) in [(65, 12), (100, 12), (1000, 50), (65, 400)] {
            let lines = usize::div_ceil(len, PER_LINE);
            let mut seen = vec![0_u32; lines];
            let mut drawn = 0;
            for seed in 0..20_000 {
                let of_one: Vec<usize> = Draws::new(seed).lines(len, rest).collect();
                assert_eq!(of_one.len(), rest.div_ceil(PER_LINE).min(lines));
                let different: std::collections::BTreeSet<_> = of_one.iter().collect();
                assert_eq!(different.len(), of_one.len());
                of_one.iter().for_each(|&line| seen[line] += 1);
                drawn += of_one.len() as u32;
            }
            let expected = drawn / lines as u32;
            let near = expected * 4 / 5..=expected * 5 / 4;
            assert!(seen.iter().all(|n| near.contains(n)), "{seen:?}");
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
