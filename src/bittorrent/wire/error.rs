//! What is wrong with bytes from a BitTorrent peer.

use thiserror::Error;

/// Why bytes are not BitTorrent, or not within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The connection does not begin as BitTorrent does: something else, or encrypted.
    #[error("the connection does not begin with the BitTorrent protocol string")]
    Protocol,
    /// A length that the message cannot have.
    #[error("{what}: {len} bytes, where {least} to {most} are possible")]
    Length {
        /// The message.
        what: &'static str,
        /// The length that was said, in bytes.
        len: u64,
        /// The shortest in bytes.
        least: u64,
        /// The longest in bytes.
        most: u64,
    },
    /// A dictionary that is none, or nests too deeply.
    #[error("{what}: not a dictionary that can be read")]
    Dictionary {
        /// The message.
        what: &'static str,
    },
    /// A field that is missing, or has a value that it cannot have.
    #[error("{what}: the field {field} is missing or wrong")]
    Field {
        /// The message.
        what: &'static str,
        /// Its field.
        field: &'static str,
    },
}
