//! The speed buckets of a list of owners. Where they end lies beside the list's own address
//! in memory, so that finding the fastest owners needs no further line.

/// How many levels of speed are told apart, counted from the fastest one. All
/// owners that are slower by more doublings share the last bucket.
pub(super) const LEVELS: usize = 15;

/// Up to [`LEVELS`] buckets, and one more while an owner moves. A bucket has the owners of one
/// level, from the end of the bucket before on. The ends come first: an answer needs the first
/// few of them, and no level.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct SpeedBuckets {
    len: u32,
    ends: [u32; LEVELS + 1],
    levels: [i32; LEVELS + 1],
}

impl SpeedBuckets {
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Where each bucket ends, the fastest first.
    pub(super) fn ends(&self) -> &[u32] {
        &self.ends[..self.len as usize]
    }

    pub(super) fn ends_mut(&mut self) -> &mut [u32] {
        &mut self.ends[..self.len as usize]
    }

    /// The level of each bucket, in the same order.
    pub(super) fn levels(&self) -> &[i32] {
        &self.levels[..self.len as usize]
    }

    /// Where a bucket begins.
    pub(super) fn begin(&self, at: usize) -> u32 {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Adds a bucket without owners.
    pub(super) fn insert(&mut self, at: usize, level: i32) {
        let len = self.len as usize;
        let end = self.begin(at);
        self.ends.copy_within(at..len, at + 1);
        self.levels.copy_within(at..len, at + 1);
        (self.ends[at], self.levels[at]) = (end, level);
        self.len += 1;
    }

    /// Joins the last bucket with the one before.
    pub(super) fn join_last(&mut self) {
        if let [.., before, last] = self.ends_mut() {
            *before = *last;
            self.len -= 1;
        }
    }

    pub(super) fn drop_empty(&mut self) {
        let (mut before, mut kept) = (0, 0);
        for at in 0..self.len as usize {
            let end = self.ends[at];
            if end != before {
                (self.ends[kept], self.levels[kept]) = (end, self.levels[at]);
                kept += 1;
            }
            before = end;
        }
        self.len = kept as u32;
    }
}
