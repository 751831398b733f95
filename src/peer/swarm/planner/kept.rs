//! What has arrived of chunks that are not whole stays, though nobody can be asked for the
//! rest at present, or no longer; and a link takes back what it has.

use super::super::LinkId;
use super::Planner;
use super::answer::{Arrival, Released};
use super::chunk_states::ChunkState;
use super::source::Source;
use crate::content::{BlockRange, ChunkIndex};

impl Planner {
    /// From now on a chunk of which something is here stays open, whether or not a link
    /// has it: links that are gone are expected back.
    pub fn keep_partial(&mut self) {
        self.open.keep(true);
    }

    /// The opposite. What no link has is given up.
    pub fn keep_no_more(&mut self) -> Released {
        let mut released = Released::default();
        self.open.keep(false);
        self.forget_unobtainable(&mut released);
        released
    }

    /// A block came [late](Arrival::Late), and all that was asked for of its chunk has been
    /// given up. The chunk is opened for it, if there is a place. Returns whether it is
    /// kept.
    pub fn keep_late(&mut self, link: LinkId, block: BlockRange) -> bool {
        let chunk = block.chunk;
        let is_missing = self.layout.position(block).is_some()
            && self.states.get(chunk) == ChunkState::Missing
            && !self.exclusive.contains(&chunk);
        if !is_missing || !self.has_place(0) {
            return false;
        }
        let has = |source: &Source| source.has_chunk(chunk);
        let is_obtainable =
            self.layout.blocks(chunk) == 1 || self.open.keeps() || self.sources.values().any(has);
        if !is_obtainable {
            return false;
        }
        self.open_chunk(chunk);
        self.open.ask(link, block);
        self.open.arrived(link, block, true) == Arrival::Wanted { overtaken: None }
    }

    /// A link has a chunk no longer, by its own word. What it was asked for of that chunk
    /// is free for others; it still answers. Returns also whether it was asked for some.
    pub fn link_withdrew(&mut self, link: LinkId, chunk: ChunkIndex) -> (Released, bool) {
        let Some(source) = self.sources.get(link).filter(|s| s.has_chunk(chunk)) else {
            return (Released::default(), false);
        };
        let was_asked = source.live_asks().any(|ask| ask.block.chunk == chunk);
        self.link_lost(link, chunk);
        let mut released = self.release_lacking(link);
        // It may have been the last one that had what is here in part.
        self.forget_unobtainable(&mut released);
        (released, was_asked)
    }
}
