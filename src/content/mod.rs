//! What is shared: its identity, its name, how it is cut into chunks, and how
//! a chunk is verified.
//!
//! Everything here is pure: no socket, file, thread, clock or ambient
//! randomness. The one thing that reads is [`Manifest::from_reader`], and it
//! reads what it is handed.

mod bitfield;
mod geometry;
mod id;
mod manifest;
mod name;

pub use bitfield::{Bitfield, BitfieldError};
pub use geometry::{
    BlockRange, ChunkIndex, Geometry, MAX_CHUNK_LEN, MAX_CHUNKS, MAX_CONTENT_LEN, MIN_CHUNK_LEN,
    TARGET_CHUNKS, TooLong, split_evenly,
};
pub use id::{ContentId, ParseIdError};
pub use manifest::{ChunkHash, LengthProof, Manifest, ManifestBuilder, ManifestError, ReadError};
pub use name::{ContentName, MAX_NAME_LEN, NameError, UnsafeName};

/// One shared content, as its owners describe it: what a share or a finished
/// download returns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Content {
    /// What it is: the BLAKE3 hash of its bytes.
    pub id: ContentId,
    /// What people call it.
    pub name: ContentName,
    /// Its length in bytes.
    pub length: u64,
}

impl Content {
    /// A content of `length` bytes with this identity and name.
    pub fn new(id: ContentId, name: ContentName, length: u64) -> Self {
        Self { id, name, length }
    }
}
