//! The chunks that are being asked for, block by block.
//!
//! Each block of an open chunk is free, asked of exactly one link, or here.

use std::collections::BTreeMap;

use super::super::LinkId;
use super::super::block_layout::BlockLayout;
use super::super::chunk_set::ChunkSet;
use super::answer::Arrival;
use crate::content::{BlockRange, ChunkIndex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Free,
    Asked(LinkId),
    Here,
}

#[derive(Debug)]
struct OpenChunk {
    blocks: Vec<Block>,
    /// How many are free.
    free: u32,
    /// Only one link may send it: an earlier copy was bad, and several links
    /// had sent it.
    exclusive: bool,
    /// The link that asks for its blocks first.
    leader: Option<LinkId>,
}

impl OpenChunk {
    /// Changes a block, and with it the number of free blocks here and in all
    /// chunks.
    fn set(&mut self, position: u32, state: Block, all_free: &mut u32) {
        let before = std::mem::replace(&mut self.blocks[position as usize], state);
        let was_free = u32::from(before == Block::Free);
        let is_free = u32::from(state == Block::Free);
        self.free = self.free - was_free + is_free;
        *all_free = *all_free - was_free + is_free;
    }

    fn is_asked(&self) -> bool {
        let asked = |block: &Block| matches!(block, Block::Asked(_));
        self.blocks.iter().any(asked)
    }
}

/// A chunk that is open no longer.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) leader: Option<LinkId>,
    /// The requests for those of its blocks that are not here.
    pub(super) asked: Vec<(LinkId, BlockRange)>,
}

/// Whether a chunk has a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    Free,
    Taken,
}

/// All open chunks.
#[derive(Debug)]
pub(super) struct OpenChunks {
    layout: BlockLayout,
    chunks: BTreeMap<ChunkIndex, OpenChunk>,
    /// How many blocks are free, over all chunks.
    free: u32,
    /// Chunks stay open, whether or not a link has them.
    keeps: bool,
}

impl OpenChunks {
    pub(super) fn new(layout: BlockLayout) -> Self {
        Self {
            layout,
            chunks: BTreeMap::new(),
            free: 0,
            keeps: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Opens a chunk, with all blocks free.
    pub(super) fn open(&mut self, chunk: ChunkIndex, exclusive: bool) {
        let blocks = self.layout.blocks(chunk);
        self.free += blocks;
        let open = OpenChunk {
            blocks: vec![Block::Free; blocks as usize],
            free: blocks,
            exclusive,
            leader: None,
        };
        self.chunks.insert(chunk, open);
    }

    /// Whether all blocks of an open chunk are here.
    pub(super) fn is_whole(&self, chunk: ChunkIndex) -> bool {
        let is_here = |block: &Block| *block == Block::Here;
        let open = self.chunks.get(&chunk);
        open.is_some_and(|open| open.blocks.iter().all(is_here))
    }

    /// A chunk is open no longer, because it is whole or given up.
    pub(super) fn close(&mut self, chunk: ChunkIndex) -> Option<Closed> {
        let open = self.chunks.remove(&chunk)?;
        self.free -= open.free;
        let blocks = (0..).zip(&open.blocks);
        let asked = blocks.filter_map(|(position, block)| match *block {
            Block::Asked(link) => Some((link, self.layout.block(chunk, position))),
            Block::Free | Block::Here => None,
        });
        Some(Closed {
            leader: open.leader,
            asked: asked.collect(),
        })
    }

    /// A block is asked of a link from now on.
    pub(super) fn ask(&mut self, link: LinkId, block: BlockRange) {
        let position = self.layout.position(block);
        if let (Some(position), Some(open)) = (position, self.chunks.get_mut(&block.chunk)) {
            open.set(position, Block::Asked(link), &mut self.free);
        }
    }

    /// A block arrived that a link was asked for. `live` says whether the
    /// request was still counted on.
    pub(super) fn arrived(&mut self, link: LinkId, block: BlockRange, live: bool) -> Arrival {
        // Another plan may have asked for what is no block of this one.
        let position = self.layout.position(block);
        let (Some(position), Some(open)) = (position, self.chunks.get_mut(&block.chunk)) else {
            return Arrival::Late;
        };
        let overtaken = match open.blocks[position as usize] {
            Block::Here => return Arrival::Late,
            // Blocks of other links must not be mixed into an exclusive chunk.
            _ if open.exclusive && open.leader != Some(link) => return Arrival::Late,
            Block::Asked(holder) if holder == link && live => None,
            // The holder may be the same link: it was asked again after its
            // first request had been given up, and need not answer twice.
            Block::Asked(holder) => Some(holder),
            Block::Free => None,
        };
        open.set(position, Block::Here, &mut self.free);
        Arrival::Wanted { overtaken }
    }

    /// Makes a block free, if it was asked of a link. Returns whether it was.
    pub(super) fn release(&mut self, link: LinkId, block: BlockRange) -> bool {
        let position = self.layout.position(block);
        let (Some(position), Some(open)) = (position, self.chunks.get_mut(&block.chunk)) else {
            return false;
        };
        let asked = open.blocks[position as usize] == Block::Asked(link);
        if asked {
            open.set(position, Block::Free, &mut self.free);
        }
        asked
    }

    /// Whether any block is free.
    pub(super) fn has_free(&self) -> bool {
        self.free > 0
    }

    /// The first free block of a chunk.
    pub(super) fn first_free(&self, chunk: ChunkIndex) -> Option<BlockRange> {
        let open = self.chunks.get(&chunk).filter(|open| open.free > 0)?;
        let position = open.blocks.iter().position(|b| *b == Block::Free)?;
        Some(self.layout.block(chunk, position as u32))
    }

    /// The blocks of an open chunk that are not here, each with the link that was asked
    /// for it. Nothing if the chunk is not open.
    pub(super) fn missing(
        &self,
        chunk: ChunkIndex,
    ) -> impl Iterator<Item = (BlockRange, Option<LinkId>)> {
        let open = self.chunks.get(&chunk).into_iter();
        let blocks = open.flat_map(|open| (0..).zip(&open.blocks));
        blocks.filter_map(move |(position, block)| {
            let holder = match *block {
                Block::Free => None,
                Block::Asked(link) => Some(link),
                Block::Here => return None,
            };
            Some((self.layout.block(chunk, position), holder))
        })
    }

    /// The first chunk with a free block that the owner of `has` could send, and that
    /// `may` be asked for.
    pub(super) fn joinable(
        &self,
        has: &ChunkSet,
        lead: Lead,
        may: impl Fn(ChunkIndex) -> bool,
    ) -> Option<ChunkIndex> {
        if !self.has_free() {
            return None;
        }
        let is_led = lead == Lead::Taken;
        let mut chunks = self.chunks.iter();
        chunks.find_map(|(&chunk, open)| {
            let fits = open.free > 0
                && !open.exclusive
                && open.leader.is_some() == is_led
                && has.contains(chunk)
                && may(chunk);
            fits.then_some(chunk)
        })
    }

    /// Whether another link may take over a request for a block of this chunk.
    pub(super) fn is_shared(&self, chunk: ChunkIndex) -> bool {
        self.chunks.get(&chunk).is_some_and(|open| !open.exclusive)
    }

    /// A link leads a chunk from now on.
    pub(super) fn set_leader(&mut self, chunk: ChunkIndex, link: LinkId) {
        if let Some(open) = self.chunks.get_mut(&chunk) {
            open.leader = Some(link);
        }
    }

    /// A link leads a chunk no longer, if it did.
    pub(super) fn drop_leader(&mut self, chunk: ChunkIndex, link: LinkId) {
        if let Some(open) = self.chunks.get_mut(&chunk) {
            open.leader = open.leader.filter(|leader| *leader != link);
        }
    }

    /// The chunks that a link leads.
    pub(super) fn led_by(&self, link: LinkId) -> Vec<ChunkIndex> {
        let led = self.chunks.iter();
        let led = led.filter(|(_, open)| open.leader == Some(link));
        led.map(|(&chunk, _)| chunk).collect()
    }

    /// Whether a chunk need not stay open: nothing is asked for and nothing is
    /// here, or its only possible sender is gone.
    pub(super) fn is_abandoned(&self, chunk: ChunkIndex) -> bool {
        self.chunks.get(&chunk).is_some_and(|open| {
            let lost_sender = open.exclusive && open.leader.is_none();
            lost_sender || open.free as usize == open.blocks.len()
        })
    }

    /// Sets whether chunks stay open though no link has them.
    pub(super) fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Whether they do.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// The chunks of which nothing is on its way, and that stay open only if a link has
    /// them.
    pub(super) fn unasked(&self) -> impl Iterator<Item = ChunkIndex> {
        let unasked = self.chunks.iter();
        let unasked = unasked.filter(|(_, open)| !self.keeps && !open.is_asked());
        unasked.map(|(&chunk, _)| chunk)
    }

    /// The chunks of which something is on its way.
    pub(super) fn asked_chunks(&self) -> impl Iterator<Item = ChunkIndex> {
        let asked = self.chunks.iter().filter(|(_, open)| open.is_asked());
        asked.map(|(&chunk, _)| chunk)
    }

    /// All open chunks, and their leaders.
    pub(super) fn leaders(&self) -> impl Iterator<Item = (ChunkIndex, Option<LinkId>)> {
        self.chunks
            .iter()
            .map(|(&chunk, open)| (chunk, open.leader))
    }

    /// The leader of a chunk.
    pub(super) fn leader(&self, chunk: ChunkIndex) -> Option<LinkId> {
        self.chunks.get(&chunk)?.leader
    }

    /// Whether only the leader may send the rest of a chunk.
    pub(super) fn needs_leader(&self, chunk: ChunkIndex) -> bool {
        let open = self.chunks.get(&chunk);
        open.is_some_and(|open| open.exclusive && open.free > 0)
    }

    /// The requests for all blocks that are on their way.
    pub(super) fn asked(&self) -> impl Iterator<Item = (LinkId, BlockRange)> {
        self.chunks.iter().flat_map(move |(&chunk, open)| {
            let blocks = (0..).zip(&open.blocks);
            blocks.filter_map(move |(position, block)| match *block {
                Block::Asked(link) => Some((link, self.layout.block(chunk, position))),
                Block::Free | Block::Here => None,
            })
        })
    }

    /// Panics if a chunk contradicts itself. For tests.
    pub(super) fn check_invariants(&self) {
        for open in self.chunks.values() {
            let free = open.blocks.iter().filter(|b| **b == Block::Free).count();
            assert_eq!(free, open.free as usize);
            assert!(free < open.blocks.len(), "a chunk is open for nothing");
            let by_leader = |block: &Block| match *block {
                Block::Asked(link) => open.leader == Some(link),
                Block::Free | Block::Here => true,
            };
            assert!(!open.exclusive || open.blocks.iter().all(by_leader));
        }
        let free: u32 = self.chunks.values().map(|open| open.free).sum();
        assert_eq!(free, self.free);
    }
}
