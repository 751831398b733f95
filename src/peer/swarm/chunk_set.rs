//! A set of chunks, as a link says to have it.

use crate::content::{Bitfield, ChunkIndex};

/// The chunks that the other side of a link has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkSet {
    /// None, or it has not said yet.
    Nothing,
    /// Some: the peer is a leecher.
    Some(Bitfield),
    /// All: the peer is a seeder.
    All,
}

impl ChunkSet {
    /// Whether a chunk is among them.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some(chunks) => chunks.contains(chunk),
            Self::All => true,
        }
    }

    /// How many these are, of a content with `chunks` chunks.
    pub fn count(&self, chunks: u32) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Some(has) => has.count(),
            Self::All => chunks,
        }
    }
}
