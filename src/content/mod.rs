//! Contents: their ids, their names, how they are cut into chunks, and how a
//! chunk is verified.
//!
//! This module is pure: it uses no sockets, files, threads, clocks or ambient
//! randomness. Only [`Manifest::from_reader`] reads, from the reader that it is
//! given.

mod bitfield;
mod chunk;
mod description;
mod folder;
mod geometry;
mod id;
mod manifest;
#[cfg(feature = "bittorrent")]
pub(crate) mod merkle;
mod name;
#[cfg(feature = "bittorrent")]
mod piece_digests;
mod streamed_manifest;
pub(crate) mod subtrees;

pub use bitfield::{Bitfield, BitfieldError};
pub use chunk::{BlockRange, ChunkIndex};
pub use description::Content;
pub use folder::{
    FolderEntry, FolderIndex, FolderIndexError, FolderItem, FolderPath, FolderPathError,
    LinkTargetError, MAX_FOLDER_ENTRIES, MAX_INDEX_LEN, MAX_PATH_DEPTH, MAX_PATH_LEN,
};
#[cfg(feature = "bittorrent")]
pub use geometry::PieceLenError;
pub use geometry::{
    Geometry, MAX_CHUNK_LEN, MAX_CHUNKS, MAX_CONTENT_LEN, MIN_CHUNK_LEN, TARGET_CHUNKS, TooLong,
    split_evenly,
};
pub use id::{ContentId, ParseIdError};
pub use manifest::{ChunkHash, LengthProof, Manifest, ManifestBuilder, ManifestError, ReadError};
#[cfg(feature = "bittorrent")]
pub use merkle::TORRENT_LEAF_LEN;
pub use name::{ContentName, MAX_NAME_LEN, NameError, UnsafeName};
#[cfg(feature = "bittorrent")]
pub use piece_digests::{PieceDigests, PieceDigestsError, PieceRoot};
pub(crate) use streamed_manifest::StreamedManifest;
