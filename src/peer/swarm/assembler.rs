//! Reassembly: blocks come in any order, a whole chunk goes out.
//!
//! Holds what is not verified yet and knows who sent each block of it. It does
//! not know who was asked, and copies nothing: a chunk is the list of the
//! buffers in which its blocks arrived.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::BlockGrid;
use crate::content::{BlockRange, ChunkIndex};

/// Collects the blocks of the chunks that are on their way. `S` is whatever
/// tells one sender from another.
#[derive(Debug)]
pub struct Assembler<S> {
    grid: BlockGrid,
    chunks: BTreeMap<ChunkIndex, Pieces<S>>,
    bytes: u64,
}

#[derive(Debug)]
struct Pieces<S> {
    blocks: Vec<Option<(S, Bytes)>>,
    missing: u32,
}

/// A chunk of which every block is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled<S> {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// Its bytes, in order.
    pub pieces: Vec<Bytes>,
    /// Who sent each of the pieces.
    pub senders: Vec<S>,
}

/// What became of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted<S> {
    /// Kept; the chunk still lacks others.
    Kept,
    /// It was the last one of its chunk, which is handed out.
    Complete(Assembled<S>),
    /// That block is there already; these bytes are dropped.
    Duplicate,
    /// No block of the grid; these bytes are dropped.
    OffGrid,
}

impl<S> Assembler<S> {
    /// An assembler for the chunks of one content.
    pub fn new(grid: BlockGrid) -> Self {
        Self {
            grid,
            chunks: BTreeMap::new(),
            bytes: 0,
        }
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
        let Some(position) = block.ok().and_then(|block| self.grid.position(block)) else {
            return Inserted::OffGrid;
        };
        let pieces = self.chunks.entry(chunk).or_insert_with(|| {
            let blocks = self.grid.blocks(chunk);
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

    /// Forgets what came of a chunk, and returns it in order.
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

    /// How many bytes are held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of how many chunks blocks are held.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }
}
