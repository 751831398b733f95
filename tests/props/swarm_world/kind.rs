//! What a whole swarm is made of: how its nodes behave, what goes wrong, and
//! what came of it.

/// How a node behaves towards others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// Corrupts every block, or about every other.
    Liar(bool),
    /// Never sends a block.
    Silent,
    /// Rejects every request.
    Rejecting,
    /// Honest, and gone for good after so many milliseconds.
    Dies(u64),
    /// Honest, gone after so many milliseconds, and back after so many more
    /// with what it had stored.
    Returns(u64, u64),
}

impl Kind {
    /// Whether it can be counted on, sooner or later.
    pub(super) fn stays(self) -> bool {
        matches!(self, Self::Honest | Self::Returns(..))
    }
}

/// What goes wrong without anybody's fault.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The longest way of a message, in milliseconds; 0 for 30.
    pub(crate) latency: u64,
    /// How much longer the ways from every third node are.
    pub(crate) lag: u64,
    /// A link breaks about so often, in milliseconds.
    pub(crate) cuts: Option<u64>,
    /// A node stands still about so often, and for how long at the most.
    pub(crate) stalls: Option<(u64, u64)>,
    /// One in so many reads fails.
    pub(crate) bad_reads: Option<u32>,
    /// Chunks of which blocks may be on their way.
    pub(crate) max_open: Option<usize>,
}

/// What happened, to tell that the case was one at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Bad chunks to which several had contributed.
    pub(crate) co_sent: u64,
    /// Chunks that came again, from one peer.
    pub(crate) exclusive: u64,
    /// Liars that were found among several senders.
    pub(crate) convicted: u64,
    pub(crate) bans: u64,
    /// Links that ended because two nodes had dialled each other.
    pub(crate) merged: u64,
    pub(crate) cuts: u64,
    pub(crate) returns: u64,
    pub(crate) cancels: u64,
    /// Blocks that leechers sent.
    pub(crate) shared: u64,
}
