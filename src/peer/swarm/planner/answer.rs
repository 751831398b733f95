//! What a planner answers.

use super::super::LinkId;
use crate::content::{BlockRange, ChunkIndex};

/// A request to send, and perhaps an earlier request to cancel for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The block to ask for.
    pub block: BlockRange,
    /// The link whose request for the same block is cancelled.
    pub overtaken: Option<LinkId>,
}

/// Whether an arrived block is useful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The block was wanted.
    Wanted {
        /// The link that was asked for the same block meanwhile. Its request
        /// is cancelled.
        overtaken: Option<LinkId>,
    },
    /// The request was given up before. The block is here already, or comes
    /// from another link.
    Late,
    /// Nobody asked for the block.
    Unasked,
}

/// What the planner gives up when it no longer counts on a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Released {
    /// Chunks whose received blocks are discarded.
    pub forgotten: Vec<ChunkIndex>,
    /// Requests to cancel, and the links that have them.
    pub cancelled: Vec<(LinkId, BlockRange)>,
}

impl Released {
    /// Adds what another step gave up.
    pub(super) fn add(&mut self, other: Self) {
        self.forgotten.extend(other.forgotten);
        self.cancelled.extend(other.cancelled);
    }
}
