//! The chunks that an earlier download left behind, or that somebody else has put there, and
//! that are not verified yet.
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
    /// Those of them that are being read.
    reading: Vec<ChunkIndex>,
    /// Some of them were put there since the download began.
    is_found: bool,
    /// The storage says that nobody has changed them since. Then publishing need not
    /// wait until all of them are verified.
    untouched: bool,
}

impl Leftover {
    pub(super) fn new(unchecked: Bitfield) -> Self {
        Self {
            unchecked,
            reading: Vec::new(),
            is_found: false,
            untouched: false,
        }
    }

    pub(super) fn unchecked(&self) -> &Bitfield {
        &self.unchecked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unchecked.is_empty()
    }

    /// Somebody else may have put a chunk there.
    pub(super) fn found(&mut self, chunk: ChunkIndex) {
        self.unchecked.insert(chunk);
        self.is_found = true;
        self.untouched = false;
    }

    /// Whether some were put there since the download began: then they are verified at once.
    pub(super) fn is_found(&self) -> bool {
        self.is_found && !self.is_empty()
    }

    /// The next chunks to read.
    pub(super) fn next_rechecks(&mut self) -> Vec<ChunkIndex> {
        if self.unchecked.is_empty() {
            return Vec::new();
        }
        let room = MAX_RECHECKS.saturating_sub(self.reading.len());
        let rest = self.unchecked.iter();
        let rest = rest.filter(|chunk| !self.reading.contains(chunk));
        let chunks: Vec<ChunkIndex> = rest.take(room).collect();
        self.reading.extend(&chunks);
        chunks
    }

    /// A chunk was read and hashed. Returns whether it was to be read.
    pub(super) fn rechecked(&mut self, chunk: ChunkIndex, good: bool) -> bool {
        let Some(at) = self.reading.iter().position(|reading| *reading == chunk) else {
            return false;
        };
        self.reading.swap_remove(at);
        self.unchecked.remove(chunk);
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
        if !self.completes(stored) || !self.reading.is_empty() {
            return None;
        }
        let none = Bitfield::none(self.unchecked.chunks());
        Some(std::mem::replace(&mut self.unchecked, none))
    }
}
