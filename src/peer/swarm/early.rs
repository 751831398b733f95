//! What is asked for before the manifest is here, on the word of a tracker that names the
//! length and who has everything.
//!
//! ```text
//!             the proven length is the one that was named
//!  expecting ───────────────────────────────────────────▶ the beginning of a Transfer
//!      │ another one, or a part of the content is here already
//!      ▼
//!  given up: answers still come, and are dropped
//! ```
//! Nothing is verified here. Blocks are kept as if the chunks were being transferred, and
//! within the same bounds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::assembler::{Assembled, Assembler, Inserted};
use super::block_layout::BlockLayout;
use super::contributor::Contributor;
use super::planner::Planner;
use super::{LinkId, SwarmConfig};
use crate::content::{Bitfield, BlockRange, ChunkIndex, ContentId, Geometry, Manifest};

/// How long the only chunk of a short content is waited for before the manifest is asked
/// for as well: more than a round trip between most hosts.
const SHORT: Duration = Duration::from_millis(500);

/// What was asked for before the manifest is here.
#[derive(Debug)]
pub(super) struct Early {
    geometry: Geometry,
    pub(super) planner: Planner,
    pub(super) assembler: Assembler<Arc<Contributor>>,
    /// Chunks of which all blocks are here.
    pub(super) whole: Vec<Assembled<Arc<Contributor>>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Expecting,
    /// Somebody would not send a block, or takes long: the length may be another one.
    Doubted,
    GivenUp,
}

impl Early {
    /// A content that is said to have this layout.
    pub(super) fn new(layout: BlockLayout, config: &SwarmConfig) -> Self {
        let geometry = layout.geometry();
        let none = Bitfield::none(geometry.chunks());
        Self {
            geometry,
            planner: planner(layout, &none, config),
            assembler: Assembler::new(layout),
            whole: Vec::new(),
            state: State::Expecting,
        }
    }

    /// Cuts the chunks in another way, if nothing is here yet. Call this while there are no
    /// links.
    pub(super) fn cut_anew(&mut self, layout: BlockLayout, config: &SwarmConfig) {
        let is_new = self.state == State::Expecting && self.whole.is_empty();
        if is_new && self.assembler.bytes() == 0 {
            *self = Self::new(layout, config);
        }
    }

    /// How the content should be cut into chunks.
    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether this is the beginning of the transfer of a content.
    pub(super) fn fits(&self, geometry: Geometry) -> bool {
        self.state != State::GivenUp && self.geometry == geometry
    }

    /// Whether blocks are asked for.
    pub(super) fn is_asking(&self) -> bool {
        self.state != State::GivenUp
    }

    /// A block arrived that was wanted.
    pub(super) fn insert(
        &mut self,
        sender: Arc<Contributor>,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
    ) {
        let inserted = self.assembler.insert(sender, chunk, offset, data);
        if let Inserted::Complete(assembled) = inserted {
            self.planner.chunk_complete(chunk);
            self.whole.push(assembled);
        }
    }

    /// Forgets the blocks of a chunk. Returns how many bytes are lost.
    pub(super) fn forget(&mut self, chunk: ChunkIndex) -> u64 {
        let blocks = self.assembler.discard(chunk);
        blocks.iter().map(|(_, data)| data.len() as u64).sum()
    }

    /// Somebody would not send a block, or takes long.
    pub(super) fn doubt(&mut self) {
        if self.state == State::Expecting {
            self.state = State::Doubted;
        }
    }

    /// Until when the manifest need not be asked for: the content has a single chunk,
    /// whose hash is the id, and it is on its way.
    pub(super) fn spares_manifest_until(&self) -> Option<Instant> {
        let is_short = self.geometry.chunks() == 1 && self.state == State::Expecting;
        let asked = self.planner.oldest_live_ask().filter(|_| is_short);
        asked.map(|asked| asked + SHORT)
    }

    /// The manifest of a content with a single chunk, which is here. `None` also if that
    /// chunk does not have the content's hash: it is a lie, or the length is another one,
    /// as the manifest will show.
    pub(super) fn short_manifest(&self, id: ContentId) -> Option<Manifest> {
        let assembled = self.whole.first().filter(|_| self.geometry.chunks() == 1)?;
        let manifest = Manifest::of(&assembled.pieces.concat()).ok()?;
        (manifest.id() == id).then_some(manifest)
    }

    /// Nothing is asked for any more, and what is here is dropped. Returns the requests
    /// that are still to be answered, and how many bytes are lost.
    pub(super) fn give_up(&mut self) -> (Vec<(LinkId, BlockRange)>, u64) {
        if self.state == State::GivenUp {
            return (Vec::new(), 0);
        }
        self.state = State::GivenUp;
        let whole = std::mem::take(&mut self.whole);
        let whole = whole.iter().flat_map(|assembled| &assembled.pieces);
        let lost = self.assembler.bytes() + whole.map(|piece| piece.len() as u64).sum::<u64>();
        self.assembler = Assembler::new(BlockLayout::of(self.geometry));
        (self.planner.give_all_up(), lost)
    }

    /// What a link was asked for and has not answered, and when.
    pub(super) fn unanswered(&self, link: LinkId) -> Vec<(BlockRange, Instant)> {
        self.planner.unanswered_asks(link)
    }

    /// Panics where the state contradicts itself. For tests.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self, config: &SwarmConfig) {
        self.planner.check_invariants();
        let whole = self.whole.iter().flat_map(|assembled| &assembled.pieces);
        let held = self.assembler.bytes() + whole.map(|piece| piece.len() as u64).sum::<u64>();
        // One chunk more for a reader.
        let chunk_len = self.geometry.chunk_len();
        let bound = config.max_unverified.max(chunk_len * 2) + chunk_len;
        assert!(held <= bound);
    }
}

/// Plans the chunks that are not present. What has arrived and is not stored stays within
/// the bounds of the configuration.
pub(super) fn planner(layout: BlockLayout, present: &Bitfield, config: &SwarmConfig) -> Planner {
    let mut planner = config.planner.clone();
    let in_memory = config.max_unverified / layout.geometry().chunk_len();
    let in_memory = usize::try_from(in_memory).unwrap_or(usize::MAX);
    planner.max_open = planner.max_open.min(in_memory).max(2);
    Planner::new(layout, present, planner)
}
