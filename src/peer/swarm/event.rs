//! What the machine tells of the peers around a content, for those who watch: what its
//! driver cannot know otherwise.

use std::fmt;

use crate::content::ChunkIndex;
use crate::protocol::{Addr, PeerId, RefuseReason};

/// Another peer, as a link knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RemotePeer {
    /// The id that it says it has. It proves nothing.
    pub peer: PeerId,
    /// Where it listens, if it does. It is proven only if this side dialled it.
    pub addr: Option<Addr>,
}

/// Something that happened around a content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwarmEvent {
    /// A linked peer said for the first time that it has something of the content.
    OwnerJoined(RemotePeer),
    /// The link with an owner is gone. Each one joined before.
    OwnerLeft {
        /// Which one.
        owner: RemotePeer,
        /// Why.
        why: LeaveReason,
    },
    /// A peer lied, and is not admitted to this content any more.
    Banned(BannedPeer),
}

/// A peer that is banned from a content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BannedPeer {
    /// Who.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub peer: RemotePeer,
    /// Why.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub why: BanReason,
}

/// Why a link with an owner is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "why", rename_all = "snake_case")
)]
pub enum LeaveReason {
    /// Its connection ended.
    Ended,
    /// This side ended it.
    Refused {
        /// What the other side was told.
        reason: RefuseReason,
    },
    /// The other side ended it.
    Left {
        /// What it said.
        reason: RefuseReason,
    },
    /// The other side broke the protocol.
    Violation {
        /// How, in words.
        what: &'static str,
    },
    /// The other side owed blocks for too long.
    Silent,
}

/// Why a peer is banned from a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "why", rename_all = "snake_case")
)]
pub enum BanReason {
    /// It sent wrong bytes.
    BadChunk {
        /// The chunk to which they belong.
        chunk: ChunkIndex,
    },
    /// It sent a wrong manifest.
    BadManifest,
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ended => f.write_str("the connection ended"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::Left { reason } => write!(f, "left: {reason}"),
            Self::Violation { what } => write!(f, "broke the protocol: {what}"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

impl fmt::Display for BanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadChunk { chunk } => write!(f, "wrong bytes of chunk {chunk}"),
            Self::BadManifest => f.write_str("a wrong manifest"),
        }
    }
}
