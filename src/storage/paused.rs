//! What a peer has a storage keep of a download that was paused.
//!
//! The storage keeps the bytes and does not read them, so it need not change when a peer
//! remembers more.

use std::fmt;

use bytes::Bytes;

/// The record of a download that was paused, so that it is there after a restart; see
/// [`Storage::remember_paused`](crate::Storage::remember_paused).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedDownload {
    /// Which record it is.
    pub id: PausedId,
    /// What it says, at most [`MAX_LEN`](Self::MAX_LEN) bytes. The peer that wrote it
    /// reads it.
    pub bytes: Bytes,
}

/// Tells the records of paused downloads apart. It is chosen at random, and says nothing of
/// the content: that may not be known yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PausedId(pub [u8; 32]);

impl PausedDownload {
    /// The longest record in bytes: a thousand addresses, two paths and some names have
    /// room in it.
    pub const MAX_LEN: usize = 1 << 20;

    /// The record with these bytes.
    pub const fn new(id: PausedId, bytes: Bytes) -> Self {
        Self { id, bytes }
    }
}

impl fmt::Display for PausedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PausedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PausedId({self})")
    }
}
