//! Reassembly: blocks come in in any order, and whole chunks go out.
//!
//! The assembler holds blocks of incomplete chunks, and the sender of each. It
//! does not know who was asked for them. It copies nothing: a chunk is the list
//! of the buffers in which its blocks arrived.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::block_layout::BlockLayout;
use crate::content::{BlockRange, ChunkIndex};

/// Collects the blocks of chunks that are on their way. `S` identifies the sender
/// of a block.
#[derive(Debug)]
pub struct Assembler<S> {
    layout: BlockLayout,
    chunks: BTreeMap<ChunkIndex, Pieces<S>>,
    bytes: u64,
}

#[derive(Debug)]
struct Pieces<S> {
    blocks: Vec<Option<(S, Bytes)>>,
    missing: u32,
}

/// A chunk of which every block is here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assembled<S> {
    /// The chunk.
    pub chunk: ChunkIndex,
    /// Its bytes, as blocks in order.
    pub pieces: Vec<Bytes>,
    /// The sender of each piece.
    pub senders: Vec<S>,
}

/// What was done with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted<S> {
    /// It was kept. The chunk lacks more blocks.
    Kept,
    /// It was the last missing block of its chunk, which is handed out.
    Complete(Assembled<S>),
    /// The block is here already. These bytes were dropped.
    Duplicate,
    /// The bytes are not a block that this peer asks for. They were dropped.
    Misaligned,
}

impl<S> Assembler<S> {
    /// An assembler for the chunks of one content.
    pub fn new(layout: BlockLayout) -> Self {
        Self {
            layout,
            chunks: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// How the chunks are cut into blocks.
    pub fn layout(&self) -> BlockLayout {
        self.layout
    }

    /// Takes a block that came from `sender`.
    pub fn insert(
        &mut self,
        sender: S,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
    ) -> Inserted<S> {
        let block = u32::try_from(data.len()).map(|len| BlockRange { chunk, offset, len });
        let Some(position) = block.ok().and_then(|block| self.layout.position(block)) else {
            return Inserted::Misaligned;
        };
        let pieces = self.chunks.entry(chunk).or_insert_with(|| {
            let blocks = self.layout.blocks(chunk);
            Pieces {
                blocks: (0..blocks).map(|_| None).collect(),
                missing: blocks,
            }
        });
        let slot = &mut pieces.blocks[position as usize];
        if slot.is_some() {
            return Inserted::Duplicate;
        }
        self.bytes += data.len() as u64;
        *slot = Some((sender, data));
        pieces.missing -= 1;
        if pieces.missing > 0 {
            return Inserted::Kept;
        }
        let pieces = self.discard(chunk);
        let (senders, pieces) = pieces.into_iter().unzip();
        Inserted::Complete(Assembled {
            chunk,
            pieces,
            senders,
        })
    }

    /// Forgets the blocks of a chunk, and returns them in order.
    pub fn discard(&mut self, chunk: ChunkIndex) -> Vec<(S, Bytes)> {
        let pieces = self.chunks.remove(&chunk);
        let blocks: Vec<_> = pieces
            .into_iter()
            .flat_map(|pieces| pieces.blocks)
            .flatten()
            .collect();
        self.bytes -= blocks
            .iter()
            .map(|(_, data)| data.len() as u64)
            .sum::<u64>();
        blocks
    }

    /// The number of bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of chunks of which blocks are held.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }
}
