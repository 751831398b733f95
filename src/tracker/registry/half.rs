//! The registry has two halves, the sessions and the catalog, and each may be
//! split into shards. Whoever holds a shard of sessions may take one of the
//! catalog, never the other way round, and nobody takes two of one half: so
//! shards can stand behind locks, and no two callers wait for each other.

use std::ops::DerefMut;

/// All shards of one half, and how many entries there are in all of them.
pub(crate) trait Half<T> {
    /// Access to one shard.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;
    /// Access to the count.
    type Total<'a>: Total
    where
        Self: 'a;

    /// A shard by its number.
    fn at(&mut self, shard: u32) -> (Self::Guard<'_>, Self::Total<'_>);

    /// How many shards there are: a power of two.
    fn shards(&self) -> u32;

    /// By which bits of a number its shard is chosen.
    fn mask(&self) -> u32 {
        self.shards() - 1
    }
}

/// What is counted over all shards of a half together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Peers or contents, by the half.
    Entries,
    /// Pairs of a peer and a content: the catalog's.
    Ownerships,
}

/// The counts of all shards together.
pub(crate) trait Total {
    /// One more, unless there are `max`. Returns whether there was room.
    fn add(&mut self, what: Counted, max: u32) -> bool;
    /// One less.
    fn sub(&mut self, what: Counted);
    /// How many there are.
    fn count(&self, what: Counted) -> u32;
}

/// A half in one shard, for one caller.
#[derive(Debug)]
pub(super) struct Lone<T> {
    pub(super) one: T,
    pub(super) total: [u32; 2],
}

impl<T> Lone<T> {
    pub(super) fn new(one: T) -> Self {
        Self { one, total: [0; 2] }
    }
}

impl<T> Half<T> for &mut Lone<T> {
    type Guard<'a>
        = &'a mut T
    where
        Self: 'a;
    type Total<'a>
        = &'a mut [u32; 2]
    where
        Self: 'a;

    fn at(&mut self, _shard: u32) -> (&mut T, &mut [u32; 2]) {
        (&mut self.one, &mut self.total)
    }

    fn shards(&self) -> u32 {
        1
    }
}

impl Total for &mut [u32; 2] {
    fn add(&mut self, what: Counted, max: u32) -> bool {
        let count = &mut self[what as usize];
        let room = *count < max;
        *count += u32::from(room);
        room
    }

    fn sub(&mut self, what: Counted) {
        self[what as usize] -= 1;
    }

    fn count(&self, what: Counted) -> u32 {
        self[what as usize]
    }
}
