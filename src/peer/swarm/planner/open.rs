//! Chunks as they open and close, and who leads them.

use std::collections::BTreeSet;

use super::super::LinkId;
use super::super::source::Has;
use super::{Block, Open, Planner, Released, State};
use crate::content::{BlockRange, ChunkIndex};

impl Planner {
    pub(super) fn open_chunk(&mut self, chunk: ChunkIndex) {
        self.take(chunk);
        self.states[chunk.as_usize()] = State::Open;
        let blocks = self.grid.blocks(chunk);
        self.free += blocks;
        self.open.insert(
            chunk,
            Open {
                blocks: vec![Block::Free; blocks as usize],
                free: blocks,
                exclusive: self.exclusive.contains(&chunk),
                lead: None,
            },
        );
    }

    pub(super) fn lead(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let (Some(open), Some(source)) = (self.open.get_mut(&chunk), self.sources.get_mut(link))
        {
            let before = source.lead.replace(chunk);
            open.lead = Some(link);
            // The chunk that it led before has no free block left. It stays
            // its leader there, by which an exclusive chunk knows its sender.
            debug_assert_ne!(before, Some(chunk));
        }
    }

    pub(super) fn led_by(&self, link: LinkId) -> Vec<ChunkIndex> {
        let led = self.open.iter().filter(|(_, open)| open.lead == Some(link));
        led.map(|(&chunk, _)| chunk).collect()
    }

    pub(super) fn drop_lead(&mut self, chunk: ChunkIndex, lead: Option<LinkId>) {
        if let Some(source) = lead.and_then(|link| self.sources.get_mut(link))
            && source.lead == Some(chunk)
        {
            source.lead = None;
        }
    }

    /// A block is no longer expected from a link; the caller decides from whom
    /// it is.
    pub(super) fn give_up(&mut self, link: LinkId, block: BlockRange) {
        self.with_source(link, |source| source.take_back(block));
    }

    /// Makes blocks free that were asked of a link, and leaves chunks that it
    /// led to others. Chunks of which nothing is left are missing again.
    pub(super) fn release(
        &mut self,
        link: LinkId,
        blocks: impl IntoIterator<Item = BlockRange>,
        led: Vec<ChunkIndex>,
    ) -> Released {
        let mut released = Released::default();
        let mut touched: BTreeSet<ChunkIndex> = led.into_iter().collect();
        for block in blocks {
            let position = self.grid.position(block);
            if let (Some(position), Some(open)) = (position, self.open.get_mut(&block.chunk)) {
                let state = &mut open.blocks[position as usize];
                if *state == Block::Asked(link) {
                    *state = Block::Free;
                    open.free += 1;
                    self.free += 1;
                    touched.insert(block.chunk);
                }
            }
        }
        for chunk in touched {
            let Some(open) = self.open.get_mut(&chunk) else {
                continue;
            };
            if open.lead == Some(link) {
                open.lead = None;
            }
            let orphaned_exclusive = open.exclusive && open.lead.is_none();
            if orphaned_exclusive || open.free as usize == open.blocks.len() {
                self.close(chunk, &mut released);
            }
        }
        released
    }

    /// Open chunks that no link has, and of which nothing is on its way, would
    /// hold their places for ever.
    pub(super) fn forget_unobtainable(&mut self, released: &mut Released) {
        let stuck = self.open.iter().filter(|(chunk, open)| {
            let asked = |block: &Block| matches!(block, Block::Asked(_));
            !open.blocks.iter().any(asked)
                && !self.sources.values().any(|s| s.has.contains(**chunk))
        });
        let stuck: Vec<ChunkIndex> = stuck.map(|(&chunk, _)| chunk).collect();
        for chunk in stuck {
            self.close(chunk, released);
        }
    }

    /// An open chunk is missing again, with all that was asked for it.
    pub(super) fn close(&mut self, chunk: ChunkIndex, released: &mut Released) {
        let Some(open) = self.open.remove(&chunk) else {
            return;
        };
        self.free -= open.free;
        self.drop_lead(chunk, open.lead);
        for (position, state) in open.blocks.iter().enumerate() {
            if let Block::Asked(link) = *state {
                let block = self.grid.block(chunk, position as u32);
                self.give_up(link, block);
                released.cancelled.push((link, block));
            }
        }
        self.states[chunk.as_usize()] = State::Missing;
        self.put(chunk);
        released.forgotten.push(chunk);
    }

    /// A chunk waits again to be asked for. O(links).
    pub(super) fn put(&mut self, chunk: ChunkIndex) {
        self.picker.put(chunk);
        self.count_candidate(chunk, true);
    }

    pub(super) fn take(&mut self, chunk: ChunkIndex) {
        self.picker.take(chunk);
        self.count_candidate(chunk, false);
    }

    pub(super) fn count_candidate(&mut self, chunk: ChunkIndex, more: bool) {
        for source in self.sources.values_mut() {
            if let Has::Some(has) = &source.has
                && has.contains(chunk)
            {
                source.candidates = if more {
                    source.candidates + 1
                } else {
                    source.candidates - 1
                };
            }
        }
    }
}
