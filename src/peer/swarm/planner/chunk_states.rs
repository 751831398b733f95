//! The state of every chunk of a download.

use crate::content::{Bitfield, ChunkIndex};

/// How far a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkState {
    /// Nothing was asked for.
    Missing,
    /// Blocks are asked for or here, but not all of them are here.
    Open,
    /// All blocks are here. They are being verified or written.
    Complete,
    /// An earlier download left the chunk behind. It was not verified yet.
    Held,
    /// Verified and written.
    Stored,
    /// Nobody wants it at present.
    Shelved,
}

/// The states of all chunks, and how many chunks are in each.
#[derive(Debug)]
pub(super) struct ChunkStates {
    states: Vec<ChunkState>,
    counts: [u32; 6],
}

impl ChunkStates {
    /// The `present` chunks are stored, the others are missing.
    pub(super) fn new(present: &Bitfield) -> Self {
        let mut states = Self {
            states: vec![ChunkState::Stored; present.chunks() as usize],
            counts: [0; 6],
        };
        states.counts[ChunkState::Stored as usize] = present.chunks();
        for chunk in present.iter_missing() {
            states.set(chunk, ChunkState::Missing);
        }
        states
    }

    /// How many chunks there are.
    pub(super) fn len(&self) -> u32 {
        self.states.len() as u32
    }

    pub(super) fn get(&self, chunk: ChunkIndex) -> ChunkState {
        self.states[chunk.as_usize()]
    }

    pub(super) fn set(&mut self, chunk: ChunkIndex, state: ChunkState) {
        let before = std::mem::replace(&mut self.states[chunk.as_usize()], state);
        self.counts[before as usize] -= 1;
        self.counts[state as usize] += 1;
    }

    /// How many chunks are in a state. O(1).
    pub(super) fn count(&self, state: ChunkState) -> u32 {
        self.counts[state as usize]
    }

    pub(super) fn is_stored(&self, chunk: ChunkIndex) -> bool {
        self.get(chunk) == ChunkState::Stored
    }

    /// Whether a chunk is not here, and is wanted.
    pub(super) fn is_wanted(&self, chunk: ChunkIndex) -> bool {
        !matches!(self.get(chunk), ChunkState::Stored | ChunkState::Shelved)
    }

    /// Whether every chunk is stored, or not wanted at present.
    pub(super) fn are_none_wanted(&self) -> bool {
        let settled = self.count(ChunkState::Stored) + self.count(ChunkState::Shelved);
        settled as usize == self.states.len()
    }

    /// Whether every chunk is stored.
    pub(super) fn are_all_stored(&self) -> bool {
        self.count(ChunkState::Stored) as usize == self.states.len()
    }

    /// Panics if a count is wrong. For tests.
    pub(super) fn check_invariants(&self) {
        let mut counts = [0; 6];
        for &state in &self.states {
            counts[state as usize] += 1;
        }
        assert_eq!(counts, self.counts);
    }
}
