//! What goes into the machine beside messages, and what comes out of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{LinkId, ManifestClaim};
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
    /// Connect, shake hands, and report [`link_up`](super::Swarm::link_up) or
    /// [`dial_failed`](super::Swarm::dial_failed).
    Dial {
        /// Where to.
        addr: Addr,
    },
    /// Close a link, which the machine has forgotten already.
    Drop {
        /// Which.
        link: LinkId,
        /// Why.
        reason: DropReason,
    },
    /// Ask the trackers; report [`owners_found`](super::Swarm::owners_found).
    FindOwners,
    /// Check a long manifest, which takes as long as hashing some megabytes
    /// ([`ManifestClaim::check`]); report
    /// [`manifest_checked`](super::Swarm::manifest_checked).
    CheckManifest {
        /// Who sent it.
        link: LinkId,
        /// What it sent.
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
    },
    /// Write; report [`chunk_stored`](super::Swarm::chunk_stored).
    Store {
        /// Which chunk.
        chunk: ChunkIndex,
        /// Its bytes, in order.
        pieces: Vec<Bytes>,
    },
    /// Read a chunk that an earlier download left behind, and hash it; report
    /// [`chunk_rechecked`](super::Swarm::chunk_rechecked). It may take its time.
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
        /// All chunks that are stored, and those of an earlier download that
        /// are still to be looked at.
        verified: Bitfield,
    },
    /// Publish; report [`finished`](super::Swarm::finished).
    Finish,
    /// Tell the trackers how much of the content is here now.
    Announce(OwnState),
    /// Tell the trackers who sent so many verified bytes.
    Credit {
        /// Who.
        owner: Addr,
        /// How many.
        bytes: u64,
    },
    /// Nothing has come for longer than the configured patience.
    GaveUp,
}

/// Why the machine dropped a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// This side wants it no longer; the other side is told.
    Refused(RefuseReason),
    /// The other side said that it ends the link.
    Left(RefuseReason),
    /// The other side broke the protocol.
    Violation(&'static str),
    /// The other side owed blocks for too long.
    Silent,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Left(reason) => write!(f, "left: {reason}"),
            Self::Violation(what) => write!(f, "broke the protocol: {what}"),
            Self::Silent => f.write_str("silent"),
        }
    }
}
