//! The errors of the codec.

use thiserror::Error;

use super::addr::AddrError;
use super::limits::VERSION;
use crate::content::NameError;

/// Why a frame is not a message, or why a message does not fit into a frame. The
/// sender of the frame broke the protocol or speaks another version of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The head ends inside a field.
    #[error("the message is too short: {needed} more bytes are needed, but only {left} are left")]
    Truncated {
        /// How many bytes the field needs, or the entries of a list at least.
        needed: usize,
        /// How many bytes are left.
        left: usize,
    },
    /// Something follows the message, in the head or as a body.
    #[error("{extra} unexpected bytes after the message")]
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
    /// An opening message does not start with the protocol's magic bytes.
    #[error("the other side does not speak this protocol")]
    Magic,
    /// The other side speaks another version. The fields after the version were
    /// not read.
    #[error("the other side speaks protocol version {found}, this side version {VERSION}")]
    Version {
        /// The version of the other side.
        found: u8,
    },
    /// A number, a length, or the size of a list is out of range.
    #[error("{field} must be {min} to {max}, but is {found}")]
    Range {
        /// The name of the field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The smallest value allowed.
        min: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// A byte that encodes one of several choices has an unknown value.
    #[error("invalid {field} {found}")]
    Choice {
        /// The name of the field.
        field: &'static str,
        /// Its value.
        found: u8,
    },
    /// The length of a body of hashes is not a multiple of the length of a hash.
    #[error("{len} bytes are not a whole number of hashes")]
    Hashes {
        /// The body's length in bytes.
        len: usize,
    },
    /// A text is not a content name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A text is not an address.
    #[error(transparent)]
    Addr(#[from] AddrError),
}
