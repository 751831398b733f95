//! The owners of one content in one array. A short array is in no order; a
//! long one is ordered by levels of speed, the fastest first, so that the best
//! are found without looking at the others.

use std::cmp::Reverse;

use fastrand::Rng;

/// From how many owners on the array is ordered. Below, all are looked at.
pub(super) const ORDERED_FROM: usize = 64;

/// Below how many owners the order is given up again: not at once, so that an
/// owner who comes and goes does not cost a sort each time.
const ORDERED_UNTIL: usize = 32;

/// How many levels are told apart, counted from the fastest. All that are
/// slower by more doublings share the last one.
const LEVELS: usize = 32;

/// One listed owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) peer: u32,
    /// Where the peer's list of what it owns has this content.
    pub(super) place: u32,
}

/// What the owners' array must know of the peers in it, and tell them.
pub(super) trait Book {
    /// The [`level`](super::rate::level) of any listed peer.
    fn level(&self, peer: u32) -> i32;

    /// The owner is at this position from now on.
    fn moved(&mut self, owner: Owner, pos: u32);
}

/// The owners. Positions change; whoever is moved is reported to the [`Book`].
#[derive(Debug, Default)]
pub(super) struct Owners {
    list: Vec<Owner>,
    levels: Option<Box<Levels>>,
}

/// Level `i` is the owners in `ends[i - 1]..ends[i]`.
#[derive(Debug)]
struct Levels {
    /// The [`level`](super::rate::level) that `ends[0]` stands for.
    top: i32,
    ends: [u32; LEVELS],
}

impl Levels {
    fn index(&self, level: i32) -> usize {
        (i64::from(self.top) - i64::from(level)).clamp(0, LEVELS as i64 - 1) as usize
    }

    /// Makes room for a faster level than all so far.
    fn raise(&mut self, level: i32) {
        let by = i64::from(level) - i64::from(self.top);
        if by <= 0 {
            return;
        }
        let by = by.min(LEVELS as i64) as usize;
        let all = self.ends[LEVELS - 1];
        self.ends.copy_within(..LEVELS - by, by);
        self.ends[..by].fill(0);
        self.ends[LEVELS - 1] = all;
        self.top = level;
    }
}

impl Owners {
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn as_slice(&self) -> &[Owner] {
        &self.list
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.levels.is_some()
    }

    /// The other direction of [`Ownership::pos`](super::peers::Ownership::pos).
    pub(super) fn set_place(&mut self, pos: u32, place: u32) {
        self.list[pos as usize].place = place;
    }

    /// Lists an owner. Costs a move per level, and once in a while a sort of
    /// [`ORDERED_FROM`] owners.
    pub(super) fn insert(&mut self, owner: Owner, book: &mut impl Book) {
        self.list.push(owner);
        let pos = self.list.len() as u32 - 1;
        book.moved(owner, pos);
        match &mut self.levels {
            Some(levels) => {
                levels.ends[LEVELS - 1] += 1;
                self.shift(pos, LEVELS - 1, book.level(owner.peer), book);
            }
            None if self.list.len() >= ORDERED_FROM => self.order(book),
            None => {}
        }
    }

    /// Takes an owner off the list.
    pub(super) fn remove(&mut self, pos: u32, book: &mut impl Book) {
        let pos = self.shift(pos, self.index_at(pos), i32::MIN, book);
        self.list.swap_remove(pos as usize);
        if let Some(&owner) = self.list.get(pos as usize) {
            book.moved(owner, pos);
        }
        if let Some(levels) = &mut self.levels {
            levels.ends[LEVELS - 1] -= 1;
            if self.list.len() < ORDERED_UNTIL {
                self.levels = None;
            }
        }
    }

    /// Puts an owner where its new level belongs.
    pub(super) fn relevel(&mut self, pos: u32, level: i32, book: &mut impl Book) {
        self.shift(pos, self.index_at(pos), level, book);
    }

    fn index_at(&self, pos: u32) -> usize {
        let ends = self.levels.as_ref().map_or(&[][..], |levels| &levels.ends);
        ends.partition_point(|&end| end <= pos)
    }

    /// Moves the owner at `pos`, which is in level `from`, from level to level
    /// until it is where `level` belongs. Returns where it is then.
    fn shift(&mut self, mut pos: u32, from: usize, level: i32, book: &mut impl Book) -> u32 {
        let Some(levels) = &mut self.levels else {
            return pos;
        };
        let before = levels.top;
        levels.raise(level);
        let raised = (i64::from(levels.top) - i64::from(before)).min(LEVELS as i64) as usize;
        let mut at = (from + raised).min(LEVELS - 1);
        let to = levels.index(level);
        while at != to {
            // Swaps with the first of this level, or with its last one, and
            // moves the boundary over it.
            let other = if to < at {
                at -= 1;
                levels.ends[at] += 1;
                levels.ends[at] - 1
            } else {
                levels.ends[at] -= 1;
                at += 1;
                levels.ends[at - 1]
            };
            if other != pos {
                self.list.swap(pos as usize, other as usize);
                book.moved(self.list[pos as usize], pos);
                book.moved(self.list[other as usize], other);
                pos = other;
            }
        }
        pos
    }

    fn order(&mut self, book: &mut impl Book) {
        self.list
            .sort_by_key(|owner| Reverse(book.level(owner.peer)));
        let fastest = self.list.first().map_or(0, |owner| book.level(owner.peer));
        let mut levels = Box::new(Levels {
            // Far above the level of those who were never credited, so that
            // they are in the last one.
            top: fastest.max(0),
            ends: [0; LEVELS],
        });
        for (pos, &owner) in self.list.iter().enumerate() {
            book.moved(owner, pos as u32);
            let index = levels.index(book.level(owner.peer));
            levels.ends[index..].iter_mut().for_each(|end| *end += 1);
        }
        self.levels = Some(levels);
    }

    /// Offers owners to `take` until it has taken `fast` of the fastest, level
    /// by level and at random within a level, and then until it has taken
    /// `rest` others of any speed at random. `take` tells whether it took the
    /// owner; who is not fit is passed over. In a short array everybody is
    /// offered; in a long one a bounded number, so that fewer may be taken
    /// than there are where many are not fit.
    pub(super) fn choose(
        &self,
        rng: &mut Rng,
        fast: usize,
        rest: usize,
        book: &impl Book,
        mut take: impl FnMut(Owner) -> bool,
    ) {
        let Some(levels) = &self.levels else {
            let mut all = self.list.clone();
            rng.shuffle(&mut all);
            all.sort_by_key(|owner| Reverse(book.level(owner.peer)));
            let mut wanted = fast;
            let mut others = Vec::with_capacity(all.len());
            for owner in all {
                match wanted {
                    0 => others.push(owner),
                    _ => wanted -= usize::from(take(owner)),
                }
            }
            rng.shuffle(&mut others);
            let mut wanted = rest + wanted;
            for owner in others {
                if wanted == 0 {
                    break;
                }
                wanted -= usize::from(take(owner));
            }
            return;
        };
        let mut offered = Vec::with_capacity(2 * (fast + rest) + SPARE);
        let mut wanted = fast;
        let mut start = 0;
        for &end in &levels.ends {
            if wanted == 0 || offered.len() > 2 * fast + SPARE {
                break;
            }
            wanted -= self.sample(rng, start..end, wanted, &mut offered, &mut take);
            start = end;
        }
        let wanted = rest + wanted;
        self.sample(
            rng,
            0..self.list.len() as u32,
            wanted,
            &mut offered,
            &mut take,
        );
    }

    /// Offers different positions of a range at random until `wanted` were
    /// taken, none that is among the `offered` already. Returns how many were.
    fn sample(
        &self,
        rng: &mut Rng,
        range: std::ops::Range<u32>,
        wanted: usize,
        offered: &mut Vec<u32>,
        take: &mut impl FnMut(Owner) -> bool,
    ) -> usize {
        let tries = 2 * wanted + SPARE;
        let mut taken = 0;
        let mut offer = |pos: u32, taken: &mut usize| {
            if *taken < wanted && !offered.contains(&pos) {
                offered.push(pos);
                *taken += usize::from(take(self.list[pos as usize]));
            }
        };
        if range.len() <= 2 * tries {
            let mut all: Vec<u32> = range.collect();
            rng.shuffle(&mut all);
            all.into_iter().for_each(|pos| offer(pos, &mut taken));
        } else {
            // Of more than twice as many, most draws are new ones.
            for _ in 0..2 * tries {
                offer(rng.u32(range.clone()), &mut taken);
            }
        }
        taken
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self, book: &impl Book) {
        let Some(levels) = &self.levels else {
            assert!(self.list.len() < ORDERED_FROM);
            return;
        };
        assert!(self.list.len() >= ORDERED_UNTIL);
        assert_eq!(levels.ends[LEVELS - 1] as usize, self.list.len());
        assert!(levels.ends.is_sorted());
        for (pos, owner) in self.list.iter().enumerate() {
            assert_eq!(
                levels.index(book.level(owner.peer)),
                self.index_at(pos as u32),
                "the owner at {pos} is in the wrong level"
            );
        }
    }
}

/// How many more positions than twice the wanted ones are looked at.
const SPARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Notes {
        levels: BTreeMap<u32, i32>,
        positions: BTreeMap<u32, u32>,
    }

    impl Book for Notes {
        fn level(&self, peer: u32) -> i32 {
            self.levels[&peer]
        }

        fn moved(&mut self, owner: Owner, pos: u32) {
            self.positions.insert(owner.peer, pos);
        }
    }

    fn step(rng: &mut Rng, owners: &mut Owners, notes: &mut Notes) {
        let peer = rng.u32(..150);
        match notes.levels.get(&peer).copied() {
            None => {
                notes.levels.insert(peer, i32::MIN);
                owners.insert(Owner { peer, place: 0 }, notes);
            }
            Some(_) if rng.u8(..3) == 0 => {
                owners.remove(notes.positions[&peer], notes);
                notes.levels.remove(&peer);
                notes.positions.remove(&peer);
            }
            Some(old) => {
                let new = old.max(rng.i32(-50..50));
                notes.levels.insert(peer, new);
                owners.relevel(notes.positions[&peer], new, notes);
            }
        }
        owners.check(notes);
        assert_eq!(owners.len(), notes.levels.len());
        for (&peer, &pos) in &notes.positions {
            assert_eq!(owners.list[pos as usize].peer, peer);
        }
    }

    #[test]
    fn order_holds_whatever_comes_goes_and_speeds_up() {
        for seed in 0..20 {
            let mut rng = Rng::with_seed(seed);
            let (mut owners, mut notes) = (Owners::default(), Notes::default());
            for _ in 0..1000 {
                step(&mut rng, &mut owners, &mut notes);
            }
        }
    }

    fn listed(count: u32, level_of: impl Fn(u32) -> i32) -> (Owners, Notes) {
        let (mut owners, mut notes) = (Owners::default(), Notes::default());
        for peer in 0..count {
            notes.levels.insert(peer, level_of(peer));
            owners.insert(Owner { peer, place: 0 }, &mut notes);
        }
        (owners, notes)
    }

    #[test]
    fn fastest_are_always_chosen_and_the_others_all_get_their_chance() {
        for count in [20, 63, 64, 500] {
            // Peers 0 to 5 are fast.
            let level_of = |peer: u32| if peer < 6 { 20 } else { i32::MIN };
            let (owners, notes) = listed(count, level_of);
            assert_eq!(owners.is_ordered(), count >= 64);
            let mut rng = Rng::with_seed(1);
            let mut seen = vec![0u32; count as usize];
            for _ in 0..20_000 {
                let mut chosen = Vec::new();
                owners.choose(&mut rng, 6, 2, &notes, |owner| {
                    chosen.push(owner.peer);
                    true
                });
                assert_eq!(chosen.len(), 8);
                chosen.iter().for_each(|&peer| seen[peer as usize] += 1);
                chosen.sort_unstable();
                chosen.dedup();
                assert_eq!(chosen.len(), 8, "one was chosen twice");
                assert!(chosen.starts_with(&[0, 1, 2, 3, 4, 5]), "{chosen:?}");
            }
            // Each of the others is expected this often; none less than a
            // third of it.
            let expected = 20_000 * 2 / (count - 6);
            assert!(seen.iter().all(|&n| n > expected / 3), "{seen:?}");
        }
    }

    #[test]
    fn unfit_owners_are_passed_over() {
        for count in [40, 400] {
            let (owners, notes) = listed(count, |_| i32::MIN);
            let mut chosen = 0;
            owners.choose(&mut Rng::with_seed(1), 6, 2, &notes, |owner| {
                let fit = owner.peer % 5 != 0;
                chosen += u32::from(fit);
                fit
            });
            assert_eq!(chosen, 8);
        }
    }
}
