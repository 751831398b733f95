//! Between messages and frames: one byte for the type of a message, then its
//! fields, big-endian; what is long is the frame's body. PROTOCOL.md describes
//! the bytes.
//!
//! What it promises: decoding gives back what was encoded; it refuses whatever
//! a limit or the format forbids, before it reserves memory for it; it never
//! panics; and a body is handed on as it is, never copied. What a message means
//! for a link or a content (whether a chunk exists, say) it does not know.

mod peer;
mod tracker;
mod wire;

use thiserror::Error;

use super::AddrError;
use super::limits::VERSION;
use crate::content::NameError;

/// Why a frame is no message, or a message fits no frame. The frame's sender
/// broke the protocol, or speaks another version of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The head ends inside a field.
    #[error("a message ends early: {needed} more bytes needed, {left} left")]
    Truncated {
        /// How many bytes the field has, or the entries of a list at least.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// Something follows the message, in the head or as a body.
    #[error("{extra} bytes too many behind a message")]
    Trailing {
        /// How many bytes.
        extra: usize,
    },
    /// No message has this type here.
    #[error("unknown message type {found:#04x}")]
    Type {
        /// The first byte of the head.
        found: u8,
    },
    /// An opening message does not carry the protocol's mark.
    #[error("the other side does not speak this protocol")]
    Magic,
    /// The other side speaks another version. What follows the version in its
    /// message was not looked at.
    #[error("the other side speaks version {found}, and this one {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// A number, a length, or the size of a list is out of its bounds.
    #[error("{field} is {found}, not {min} to {max}")]
    Range {
        /// What it counts.
        field: &'static str,
        /// What it is.
        found: u64,
        /// The least that it may be.
        min: u64,
        /// The most that it may be.
        max: u64,
    },
    /// A byte that stands for one of several things stands for none of them.
    #[error("{found} is no {field}")]
    Choice {
        /// What it should be.
        field: &'static str,
        /// What it is.
        found: u8,
    },
    /// A body that should be hashes is no whole number of them.
    #[error("{len} bytes are no whole number of hashes")]
    Hashes {
        /// The body's length in bytes.
        len: usize,
    },
    /// A text is no content name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A text is no address.
    #[error(transparent)]
    Addr(#[from] AddrError),
}
