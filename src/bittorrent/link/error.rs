//! Why a BitTorrent connection ends.

use thiserror::Error;

use crate::bittorrent::wire::WireError;
use crate::content::{BitfieldError, ChunkIndex};
use crate::protocol::RefuseReason;

/// What the other side did that no client may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A bitfield of another torrent.
    #[error(transparent)]
    Bitfield(#[from] BitfieldError),
    /// A chunk that the torrent lacks.
    #[error("the torrent has no chunk {chunk}")]
    NoSuchChunk {
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// A message of the Fast extension, which was not agreed on.
    #[error("a message of the Fast extension, which was not agreed on")]
    NotFast,
    /// A request that cannot be meant.
    #[error("{what}")]
    Request {
        /// What is wrong with it.
        what: &'static str,
    },
    /// More answers to what was not asked for than can be a misunderstanding.
    #[error("too many answers to what was not asked for")]
    Unasked,
    /// More messages that nobody knows than can be a misunderstanding.
    #[error("too many messages of unknown types")]
    Unknown,
    /// It asks more than it reads answers.
    #[error("more questions than it reads answers")]
    DoesNotRead,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Violation(Violation),
    /// Both sides want nothing.
    #[error("neither side wants anything")]
    NotNeeded,
    /// This side does not want it.
    #[error("refused: {0}")]
    Refused(RefuseReason),
    /// The other side has not said anything for too long.
    #[error("the other side was silent for too long")]
    Silent,
}
