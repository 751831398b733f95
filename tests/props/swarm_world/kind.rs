//! The ingredients of a whole swarm: how its nodes behave, which faults occur,
//! and counts of what happened.

/// How a node behaves towards others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// Corrupts every block (`true`), or about every second block (`false`).
    Liar(bool),
    /// Never sends a block.
    Silent,
    /// Rejects every request.
    Rejecting,
    /// Honest, but gone for good after this many milliseconds.
    Dies(u64),
    /// Honest. Gone after the first number of milliseconds, and back after the
    /// second with what it had stored.
    Returns(u64, u64),
}

impl Kind {
    /// Whether the node is reliable: it is honest and stays, or comes back.
    pub(super) fn stays(self) -> bool {
        matches!(self, Self::Honest | Self::Returns(..))
    }
}

/// Faults that no node causes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The longest delay of a message, in milliseconds. 0 means 30.
    pub(crate) latency: u64,
    /// The extra delay of messages from every third node, in milliseconds.
    pub(crate) lag: u64,
    /// The average time between two broken links, in milliseconds.
    pub(crate) cuts: Option<u64>,
    /// The average time between two stalls of a node, and the longest stall, in
    /// milliseconds.
    pub(crate) stalls: Option<(u64, u64)>,
    /// One in this many reads fails.
    pub(crate) bad_reads: Option<u32>,
    /// How many chunks may be open at once.
    pub(crate) max_open: Option<usize>,
}

/// Counts of what happened, to show that the cases under test occurred.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Bad chunks with several senders.
    pub(crate) co_sent: u64,
    /// Chunks that were fetched again from a single peer.
    pub(crate) exclusive: u64,
    /// Liars that were identified among several senders.
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
