//! The chunks that the other side of a link has taken back.
//!
//! An honest peer takes a chunk back once, or now and then again after it has got it again.
//! One that does so over and over only costs others their requests.

use std::collections::BTreeSet;

use crate::content::ChunkIndex;

/// How many times a link may take back a chunk that it took back before: as many as a reader
/// that goes to and fro causes, and few enough to be no trouble.
const MAX_AGAIN: u32 = 64;

/// How many chunks in a row a link may take back of which it was asked for something: as
/// many as it may [reject](super::planner).
const MAX_ASKED: u32 = 32;

/// What a link has taken back. It has had all of these, so there are no more of them than
/// chunks.
#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    chunks: BTreeSet<ChunkIndex>,
    /// How many times it took back what it had taken back before.
    again: u32,
    /// How many chunks in a row it was asked for in vain.
    in_vain: u32,
}

impl Withdrawals {
    /// A chunk is taken back. Returns whether that is too much.
    pub(super) fn taken_back(&mut self, chunk: ChunkIndex, was_asked: bool) -> bool {
        self.again += u32::from(!self.chunks.insert(chunk));
        self.in_vain += u32::from(was_asked);
        self.again > MAX_AGAIN || self.in_vain > MAX_ASKED
    }

    /// Whether a chunk was taken back before.
    pub(super) fn contains(&self, chunk: ChunkIndex) -> bool {
        self.chunks.contains(&chunk)
    }

    /// The link has sent a block.
    pub(super) fn delivered(&mut self) {
        self.in_vain = 0;
    }
}
