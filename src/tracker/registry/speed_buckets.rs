//! The speed buckets of a list of owners. They lie beside the list's own
//! address in memory, so that finding the fastest owners needs no further line.

use std::ops::{Deref, DerefMut};

/// How many levels of speed are told apart, counted from the fastest one. All
/// owners that are slower by more doublings share the last bucket.
pub(super) const LEVELS: usize = 15;

/// Owners of one level: from the end of the bucket before up to `end`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SpeedBucket {
    pub(super) level: i32,
    pub(super) end: u32,
}

/// Up to [`LEVELS`] buckets, and one more while an owner moves.
#[derive(Debug, Default)]
pub(super) struct SpeedBuckets {
    buckets: [SpeedBucket; LEVELS + 1],
    len: u32,
}

impl SpeedBuckets {
    /// Reads one number of each line that they are on.
    pub(super) fn touch(&self) -> u32 {
        let [.., last] = &self.buckets;
        let (middle, last) = (self.buckets[LEVELS / 2], last);
        self.len.wrapping_add(middle.end).wrapping_add(last.end)
    }

    pub(super) fn insert(&mut self, at: usize, bucket: SpeedBucket) {
        let len = self.len as usize;
        self.buckets.copy_within(at..len, at + 1);
        self.buckets[at] = bucket;
        self.len += 1;
    }

    /// Removes the last bucket, if there is one.
    pub(super) fn pop(&mut self) -> Option<SpeedBucket> {
        self.len = self.len.checked_sub(1)?;
        Some(self.buckets[self.len as usize])
    }

    pub(super) fn drop_empty(&mut self) {
        let (mut before, mut kept) = (0, 0);
        for at in 0..self.len as usize {
            let bucket = self.buckets[at];
            if bucket.end != before {
                self.buckets[kept] = bucket;
                kept += 1;
            }
            before = bucket.end;
        }
        self.len = kept as u32;
    }
}

impl Deref for SpeedBuckets {
    type Target = [SpeedBucket];

    fn deref(&self) -> &[SpeedBucket] {
        &self.buckets[..self.len as usize]
    }
}

impl DerefMut for SpeedBuckets {
    fn deref_mut(&mut self) -> &mut [SpeedBucket] {
        &mut self.buckets[..self.len as usize]
    }
}
