//! Where the bytes of a chunk are.

use bytes::Bytes;

/// Where the bytes of a chunk are, for whoever reads it here.
#[derive(Debug)]
pub(crate) enum ChunkBytes<'a> {
    /// It is not here, or was not verified yet.
    Missing,
    /// It is verified, and not in the storage yet: its bytes, in order.
    Verified(&'a [Bytes]),
    /// It is in the storage. If an earlier download has left it behind, it may not have
    /// been verified since.
    Stored,
}
