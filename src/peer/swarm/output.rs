//! The outputs of the machine.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{LeaveReason, LinkId, ManifestClaim, StallReason, SwarmEvent};
use crate::content::{Bitfield, BlockRange, ChunkIndex, Manifest};
use crate::protocol::{Addr, OwnState, PeerMessage, RefuseReason};

/// Something that the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a message; report it with [`messages_sent`](super::Swarm::messages_sent).
    Send {
        /// Where to.
        link: LinkId,
        /// What.
        message: PeerMessage,
    },
    /// Connect, say Hello, and report [`link_up`](super::Swarm::link_up) or
    /// [`dial_failed`](super::Swarm::dial_failed).
    Dial {
        /// Where to.
        addr: Addr,
    },
    /// Close a link. The machine has forgotten it already.
    Drop {
        /// Which.
        link: LinkId,
        /// Why.
        reason: DropReason,
    },
    /// Ask the trackers; report [`owners_found`](super::Swarm::owners_found).
    FindOwners,
    /// Check a long manifest ([`ManifestClaim::check`]), which takes as long as hashing
    /// some megabytes; report
    /// [`manifest_checked`](super::Swarm::manifest_checked).
    CheckManifest {
        /// The link that sent it.
        link: LinkId,
        /// The manifest.
        claim: ManifestClaim,
    },
    /// Open the storage; report [`opened`](super::Swarm::opened).
    Open(Arc<Manifest>),
    /// Hash; report [`chunk_verified`](super::Swarm::chunk_verified).
    Verify {
        /// Which chunk.
        chunk: ChunkIndex,
        /// Its bytes, in order.
        pieces: Vec<Bytes>,
        /// Whether a good chunk may be written at once. Then report
        /// [`chunk_written`](super::Swarm::chunk_written) instead.
        may_write: bool,
    },
    /// Write; report [`chunk_stored`](super::Swarm::chunk_stored).
    Store {
        /// Which chunk.
        chunk: ChunkIndex,
        /// Its bytes, in order.
        pieces: Vec<Bytes>,
    },
    /// Read a chunk that an earlier download left behind, and hash it; report
    /// [`chunk_rechecked`](super::Swarm::chunk_rechecked). There is no hurry.
    Recheck {
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// Read; report [`block_read`](super::Swarm::block_read).
    Read {
        /// For whom.
        link: LinkId,
        /// What.
        block: BlockRange,
    },
    /// Make durable; report [`committed`](super::Swarm::committed).
    Commit {
        /// All chunks that are stored, and those of an earlier download that are not
        /// verified yet.
        verified: Bitfield,
    },
    /// Publish; report [`finished`](super::Swarm::finished).
    Finish,
    /// All that is [wanted](super::Swarm::set_wanted) is here: make it durable, and publish it;
    /// report
    /// [`part_finished`](super::Swarm::part_finished).
    FinishPart {
        /// All chunks that are verified and stored.
        verified: Bitfield,
    },
    /// Tell the trackers whether this peer has some or all of the content.
    Announce(OwnState),
    /// Tell the trackers that an owner sent verified bytes.
    Credit {
        /// Its address.
        owner: Addr,
        /// How many bytes.
        bytes: u64,
    },
    /// Nothing has arrived for a while, or nobody is left to ask. Comes again when the
    /// reason changes.
    Stalled(StallReason),
    /// Something arrives again.
    Resumed,
    /// Something to tell those who watch. Nothing has to be done.
    Event(SwarmEvent),
    /// Nothing has arrived for longer than [`SwarmConfig::patience`](super::SwarmConfig::patience).
    GaveUp(StallReason),
}

/// Why the machine dropped a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// This side ended it, and tells the other side why.
    Refused(RefuseReason),
    /// The other side said that it ends the link.
    Left(RefuseReason),
    /// The other side broke the protocol.
    Violation(&'static str),
    /// The other side owed blocks for too long.
    Silent,
}

impl From<DropReason> for LeaveReason {
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::Refused(reason) => Self::Refused { reason },
            DropReason::Left(reason) => Self::Left { reason },
            DropReason::Violation(what) => Self::Violation { what },
            DropReason::Silent => Self::Silent,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LeaveReason::from(*self).fmt(f)
    }
}
