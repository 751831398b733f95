//! The chunks that an earlier download left behind, and that are not verified again yet.
//!
//! They are read and hashed a few at a time, beside everything else. Only a good one is
//! offered to others.

use crate::content::{Bitfield, ChunkIndex};

/// How many chunks are read at a time: one is hashed while the next is read, and the
/// disk is left to the chunks that arrive.
const MAX_RECHECKS: usize = 2;

/// The chunks that an earlier download left behind.
#[derive(Debug)]
pub(super) struct Leftover {
    unchecked: Bitfield,
    /// Those before this one are being read.
    next: u32,
    /// The storage says that nobody has changed them since. Then publishing need not
    /// wait until all of them are verified.
    untouched: bool,
}

impl Leftover {
    pub(super) fn new(unchecked: Bitfield) -> Self {
        Self {
            unchecked,
            next: 0,
            untouched: false,
        }
    }

    pub(super) fn unchecked(&self) -> &Bitfield {
        &self.unchecked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unchecked.is_empty()
    }

    /// How many chunks are being read.
    fn reading(&self) -> usize {
        let given_out = |chunk: &ChunkIndex| chunk.0 < self.next;
        self.unchecked.iter().take_while(given_out).count()
    }

    /// The next chunks to read.
    pub(super) fn next_rechecks(&mut self) -> Vec<ChunkIndex> {
        if self.unchecked.is_empty() {
            return Vec::new();
        }
        let room = MAX_RECHECKS.saturating_sub(self.reading());
        let rest = self.unchecked.iter_from(self.next);
        let chunks: Vec<ChunkIndex> = rest.take(room).collect();
        if let Some(last) = chunks.last() {
            self.next = last.0 + 1;
        }
        chunks
    }

    /// A chunk was read and hashed. Returns whether it was to be read.
    pub(super) fn rechecked(&mut self, chunk: ChunkIndex, good: bool) -> bool {
        if chunk.0 >= self.next || !self.unchecked.remove(chunk) {
            return false;
        }
        // A bad one shows that somebody has changed them after all.
        self.untouched &= good;
        true
    }

    /// Nobody has changed what an earlier download left behind.
    pub(super) fn left_untouched(&mut self) {
        self.untouched = true;
    }

    /// Whether these chunks are all that is not among the `stored` ones, and nobody has
    /// changed them.
    pub(super) fn completes(&self, stored: u32) -> bool {
        let here = stored + self.unchecked.count();
        self.untouched && !self.unchecked.is_empty() && here == self.unchecked.chunks()
    }

    /// All of them, if they [complete](Self::completes) the content: they are taken for
    /// good.
    pub(super) fn trust(&mut self, stored: u32) -> Option<Bitfield> {
        // A chunk that is being read may prove bad in a moment.
        if !self.completes(stored) || self.reading() > 0 {
            return None;
        }
        let none = Bitfield::none(self.unchecked.chunks());
        Some(std::mem::replace(&mut self.unchecked, none))
    }
}
