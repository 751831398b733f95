//! The blocks that a sybil may ask for.

use std::collections::BTreeSet;

use crate::content::{Bitfield, BlockRange};

/// A set of blocks, ordered by chunk.
#[derive(Debug)]
pub(super) struct WantedBlocks {
    blocks: BTreeSet<BlockRange>,
    /// The chunks of these blocks.
    chunks: Bitfield,
}

impl WantedBlocks {
    pub(super) fn none(chunks: u32) -> Self {
        Self {
            blocks: BTreeSet::new(),
            chunks: Bitfield::none(chunks),
        }
    }

    pub(super) fn extend(&mut self, blocks: impl IntoIterator<Item = BlockRange>) {
        for block in blocks {
            self.chunks.insert(block.chunk);
            self.blocks.insert(block);
        }
    }

    /// Takes out a block of one of the chunks in `has`: of the first one from
    /// `start` on, or of the first one of all.
    pub(super) fn take(&mut self, has: &Bitfield, start: u32) -> Option<BlockRange> {
        let from = |start| self.chunks.iter_common(has, start).next();
        let chunk = from(start).or_else(|| from(0))?;
        let first = BlockRange {
            chunk,
            offset: 0,
            len: 0,
        };
        let mut blocks = self.blocks.range(first..).copied();
        let block = blocks.next()?;
        if blocks.next().is_none_or(|next| next.chunk != chunk) {
            self.chunks.remove(chunk);
        }
        self.blocks.remove(&block);
        Some(block)
    }
}
