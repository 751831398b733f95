//! Positions in a content: a chunk, and a block in a chunk.

use std::fmt;

/// The index of a chunk in its content, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChunkIndex(pub u32);

impl ChunkIndex {
    /// The index as a `usize`, to index a slice.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of bytes in a chunk, which can be requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRange {
    /// The chunk.
    pub chunk: ChunkIndex,
    /// Where the range starts, in bytes from the start of the chunk.
    pub offset: u32,
    /// The length of the range in bytes.
    pub len: u32,
}
