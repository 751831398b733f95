//! What can go wrong, by whose fault.
//!
//! Each seam has its own enum beside it ([`TransportError`], [`StorageError`],
//! [`ProtocolError`], [`TrackerError`]); here are those of what users call.
//!
//! [`ProtocolError`]: crate::protocol::ProtocolError

use std::path::PathBuf;

use thiserror::Error;

use crate::content::{ChunkIndex, ContentId, ContentName, ManifestError, NameError};
use crate::protocol::{Addr, AddrError, ContentKey};
use crate::storage::{StorageError, located};
use crate::tracker::TrackerError;
use crate::transport::TransportError;

/// The caller's own mistake, found before anything is sent or touched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Something that is to be an address is none.
    #[error("{text:?} is no address: {source}")]
    Addr {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: AddrError,
    },
    /// A bound that must be at least one is zero.
    #[error("{field} is zero, and must be one at the least")]
    Zero {
        /// The field of the configuration.
        field: &'static str,
    },
    /// A figure with which it cannot work.
    #[error("{field} is {found}, and must be {allowed}")]
    OutOfRange {
        /// The field of the configuration.
        field: &'static str,
        /// What it is set to.
        found: String,
        /// What it may be, in words.
        allowed: String,
    },
}

/// Why a peer did not start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot listen where it should.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// Where it should.
        addr: Addr,
        /// Why it cannot.
        source: TransportError,
    },
    /// None of its trackers took it.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// The storage does not say what it has; see
    /// [`PeerBuilder::share_stored`](crate::peer::PeerBuilder::share_stored).
    #[error("what was shared before is not known: {0}")]
    Storage(#[from] StorageError),
    /// The operating system gives no random bytes, and without them others
    /// could guess the secrets of links.
    #[error("no random bytes: {detail}")]
    Entropy {
        /// What the operating system says.
        detail: String,
    },
}

/// Why a content is not shared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The file's name is no content name; share it under another one.
    #[error("{name:?} is no content name: {source}")]
    Name {
        /// The file's name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// It cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is too long, or changed its length while it was read.
    #[error("{name}: {source}")]
    Content {
        /// The content's name.
        name: ContentName,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// This peer is downloading that content at present.
    #[error("{id} is being downloaded here")]
    Downloading {
        /// The content.
        id: ContentId,
    },
    /// No tracker took it.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// The peer was shut down.
    #[error("the peer is shut down")]
    ShutDown,
}

/// Why a download did not complete. Whatever it is, the storage shows nothing
/// under the content's name that it did not show before; only a peer that was
/// stopped while its storage hung cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The text that was asked for is neither a content id nor a content name.
    #[error("invalid content name {name:?}: {source}")]
    Name {
        /// The text.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The trackers know no such content.
    #[error("nobody is known to own {key}")]
    NotFound {
        /// What was asked for.
        key: ContentKey,
    },
    /// Several contents bear this name: ask by id.
    #[error("{name} is the name of {} contents; ask for one by its id: {}", candidates.len(), list(candidates))]
    Ambiguous {
        /// The name.
        name: ContentName,
        /// Their ids, and their lengths in bytes as their owners say.
        candidates: Vec<(ContentId, u64)>,
    },
    /// The content is known, and no other peer is there that owns it.
    #[error("no owner of {id} is there")]
    NoOwners {
        /// The content.
        id: ContentId,
    },
    /// Owners ran out, or none of them sent anything for too long.
    #[error("{id}: nothing has come from any owner for too long ({missing} chunks missing)")]
    GaveUp {
        /// The content.
        id: ContentId,
        /// How many chunks are missing; 0 when not even the manifest came.
        missing: u32,
    },
    /// No tracker could be asked.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// This peer downloads the content already.
    #[error("{id} is being downloaded already")]
    AlreadyRunning {
        /// The content.
        id: ContentId,
    },
    /// Something else has the content's name in the storage. It is left alone.
    #[error("{} exists already, and is not {id}", located(path, name))]
    TargetExists {
        /// The name.
        name: ContentName,
        /// Where it stands, in a storage that has paths.
        path: Option<PathBuf>,
        /// The content that was to get it.
        id: ContentId,
    },
    /// The storage failed.
    #[error("{id}{}: {source}", at(chunk))]
    Storage {
        /// The content.
        id: ContentId,
        /// The chunk, where it is about one.
        chunk: Option<ChunkIndex>,
        /// What the storage says.
        source: StorageError,
    },
    /// It was cancelled, by call or by dropping its handle.
    #[error("the download was cancelled")]
    Cancelled,
    /// The peer was shut down.
    #[error("the peer is shut down")]
    ShutDown,
}

fn list(candidates: &[(ContentId, u64)]) -> String {
    let each = candidates
        .iter()
        .map(|(id, length)| format!("{id} ({length} bytes)"));
    each.collect::<Vec<_>>().join(", ")
}

fn at(chunk: &Option<ChunkIndex>) -> String {
    chunk.map_or(String::new(), |chunk| format!(", chunk {chunk}"))
}
