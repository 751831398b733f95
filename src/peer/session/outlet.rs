//! What a driver holds of a link: the way out.

use crate::protocol::{PeerMessage, RefuseReason};

/// Sends the messages of one link. Dropping it ends the link without a reason.
pub(in crate::peer) trait Outlet: Send + Sync {
    /// Queues a message. Returns `false` if that is impossible: too much waits
    /// already, or the link has ended. The link ends then.
    fn send(&self, message: PeerMessage) -> bool;

    /// From now on nothing that arrives on this link is delivered.
    fn mute(&self);

    /// Ends the link behind what is queued.
    fn end(&self, end: LinkEnd);
}

/// Why this side ends a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peer) enum LinkEnd {
    /// The other side is told the reason. It may have other links by the same
    /// session.
    Refused(RefuseReason),
    /// The other side has broken the protocol: its session ends.
    Violation,
    /// The other side has ended it.
    Left,
}
