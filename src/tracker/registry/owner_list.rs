//! Owners one after the other, four on each line of the processor's cache: a long list begins
//! where a line begins. So four neighbours from a multiple of four on are one look at the
//! memory. Nothing else follows from where the list lies.

use std::ops::{Deref, DerefMut};

use super::owner::Owner;

/// How many owners lie on one line of the cache.
pub(super) const PER_LINE: usize = 64 / size_of::<Owner>();

/// From this many owners on there is room for the few slots that are skipped so that the list
/// begins with a line. A shorter list is on few lines wherever it begins.
const ALIGNED: usize = 4 * PER_LINE;

/// A list that shrinks is copied if it has up to this many owners, and shortened
/// in place otherwise. When thousands of lists are shortened in place, some
/// allocators merge the remainders all at once, while a request waits.
const COPIED: usize = 4096;

/// The reserve of a list that grows, as a part of its length: not more, because it counts
/// for every peer.
const RESERVE: usize = 16;

/// The owners of one content.
#[derive(Debug, Default)]
pub(super) struct OwnerList {
    /// The owners, after those slots that lie before the first line.
    slots: Vec<Owner>,
}

impl OwnerList {
    /// How many slots lie before the first line.
    fn skipped(&self) -> usize {
        match self.slots.capacity() < ALIGNED {
            true => 0,
            false => (self.slots.as_ptr().addr() / size_of::<Owner>()).wrapping_neg() % PER_LINE,
        }
    }

    pub(super) fn push(&mut self, owner: Owner) {
        if self.slots.len() == self.slots.capacity() {
            let skipped = self.skipped();
            let len = self.slots.len() - skipped;
            // As many as may have to be skipped, at least.
            let most = if len + 1 < ALIGNED { 1 } else { PER_LINE };
            self.slots.reserve_exact((len / RESERVE).max(most));
            self.moved(skipped);
        }
        self.slots.push(owner);
    }

    /// The slots lie elsewhere now, and before that so many were skipped.
    fn moved(&mut self, before: usize) {
        let (len, skipped) = (self.slots.len(), self.skipped());
        if skipped > before {
            self.slots.resize(len + skipped - before, Owner::default());
        }
        self.slots.copy_within(before..len, skipped);
        self.slots.truncate(len - before + skipped);
    }

    /// Removes the owner at this position, and puts the last one there. Gives memory back if
    /// there is much more than is needed.
    pub(super) fn swap_remove(&mut self, at: usize) {
        let skipped = self.skipped();
        self.slots.swap_remove(skipped + at);
        let len = self.slots.len() - skipped;
        if self.slots.capacity() <= 2 * len + 2 * PER_LINE {
            return;
        }
        let room = len + (len / RESERVE).max(PER_LINE);
        if len <= COPIED {
            let mut slots = Vec::with_capacity(room);
            slots.extend_from_slice(self);
            self.slots = slots;
            self.moved(0);
        } else {
            self.slots.shrink_to(skipped + room);
            self.moved(skipped);
        }
    }
}

impl Deref for OwnerList {
    type Target = [Owner];

    fn deref(&self) -> &[Owner] {
        self.slots.get(self.skipped()..).unwrap_or_default()
    }
}

impl DerefMut for OwnerList {
    fn deref_mut(&mut self) -> &mut [Owner] {
        let skipped = self.skipped();
        self.slots.get_mut(skipped..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_list_begins_with_a_line_and_keeps_its_owners() {
        let owner = |number: u32| Owner::new(number, number, 0, false);
        let mut others = Vec::new();
        for most in [1, 3, 15, 16, 17, 40, 1000, 6000] {
            let mut list = OwnerList::default();
            for number in 0..most {
                assert_eq!(list.len(), number as usize);
                list.push(owner(number));
                let is_first = |(at, owner): (u32, &Owner)| owner.peer == at;
                assert!((0..).zip(&*list).all(is_first));
                if list.len() > ALIGNED {
                    assert_eq!(list.as_ptr().addr() % 64, 0);
                }
                // So that the next allocation lies elsewhere.
                others.push(vec![0_u8; 1 + number as usize % 100]);
            }
            let reserve = list.slots.capacity() - list.len();
            assert!(reserve <= most as usize / RESERVE + 2 * PER_LINE);
            for left in (0..most as usize).rev() {
                list.swap_remove(left / 2);
                let mut peers: Vec<u32> = list.iter().map(|owner| owner.peer).collect();
                peers.sort_unstable();
                peers.dedup();
                assert_eq!(peers.len(), left);
                assert!(list.slots.capacity() <= 2 * left + 3 * PER_LINE);
            }
        }
    }
}
