//! What a sybil may ask for.

use std::collections::BTreeSet;

use crate::content::{Bitfield, BlockRange};

/// Blocks to ask for, by chunk.
#[derive(Debug)]
pub(super) struct Wanted {
    blocks: BTreeSet<BlockRange>,
    /// The chunks that they are of.
    chunks: Bitfield,
}

impl Wanted {
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

    /// Takes out a block of one of these chunks, of the first from `start` on
    /// if there is one.
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
