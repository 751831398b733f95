//! The errors of what users call. Each seam has its own beside it:
//! [`TransportError`], [`StorageError`], [`ProtocolError`], [`TrackerError`].
//!
//! [`ProtocolError`]: crate::protocol::ProtocolError

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::advice::Advice;
use crate::content::{ChunkIndex, ContentId, ContentName, ManifestError, NameError, ParseIdError};
use crate::io_error::IoError;
use crate::peer::swarm::StallReason;
use crate::protocol::{Addr, AddrError, ContentKey, PeerId};
use crate::storage::{StorageError, located};
use crate::tracker::TrackerError;
use crate::transport::TransportError;

/// A mistake of the caller, found before anything is sent or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A text is not an address.
    #[error("invalid address {text:?}: {source}")]
    Addr {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: AddrError,
    },
    /// Nobody can be reached at the address that others are to be told.
    #[error("cannot advertise {addr}: {source}")]
    Advertise {
        /// The address.
        addr: Addr,
        /// What is wrong with it.
        source: TransportError,
    },
    /// The transport authenticates this peer under another id than that which was set.
    #[error("the id is {fixed}, that of the key of the transport, and cannot be {set}")]
    Id {
        /// The id of the key.
        fixed: PeerId,
        /// The id that was set.
        set: PeerId,
    },
    /// A bound that must be at least one is zero.
    #[error("{field} must be at least 1")]
    Zero {
        /// The field of the configuration.
        field: &'static str,
    },
    /// A value that cannot work.
    #[error("{field} must be {allowed}, not {found}")]
    OutOfRange {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        found: String,
        /// Which values are allowed, in words.
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
    /// The peer cannot listen at its address.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// The address.
        addr: Addr,
        /// Why not.
        source: TransportError,
    },
    /// None of its trackers registered it.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// The storage cannot list what it has; see
    /// [`PeerBuilder::share_stored`](crate::peer::PeerBuilder::share_stored).
    #[error("cannot list the stored contents: {0}")]
    Storage(#[from] StorageError),
    /// The operating system has no random bytes, and without them others could
    /// guess the secrets of links.
    #[error("cannot get random bytes from the operating system: {source}")]
    Entropy {
        /// The error of the operating system.
        source: IoError,
    },
    /// The peer was shut down. Only a call on one that had started fails with this.
    #[error("the peer is shut down")]
    ShutDown,
}

/// Why a content is not shared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The file's name, or the text of a name, is not a content name; share it under
    /// another one.
    #[error("invalid content name {name:?}: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The content cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The content is too long, or its length changed while it was read.
    #[error("{name}: {source}")]
    Content {
        /// The content's name.
        name: ContentName,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The bytes could not be read from where they come from
    /// ([`Peer::share_reader`](crate::Peer::share_reader)).
    #[error("{name}: reading failed: {source}")]
    Reader {
        /// The content's name.
        name: ContentName,
        /// What the reader says.
        source: IoError,
    },
    /// The file has another length than the content that it was
    /// [expected](crate::Peer::verify) to be.
    #[error("{name} is not {id}: it has {length} bytes, and not {expected}")]
    LengthDiffers {
        /// The content's name.
        name: ContentName,
        /// The content that was expected.
        id: ContentId,
        /// How many bytes that has.
        expected: u64,
        /// How many bytes there are.
        length: u64,
    },
    /// The file is another content than the one that it was
    /// [expected](crate::Peer::verify) to be.
    #[error("{name} is not {id}: it is {found}")]
    HashDiffers {
        /// The content's name.
        name: ContentName,
        /// The content that was expected.
        id: ContentId,
        /// What it is.
        found: ContentId,
    },
    /// This peer shares the content under that many names already.
    #[error("{id} has {max} names already")]
    TooManyNames {
        /// The content.
        id: ContentId,
        /// The limit.
        max: usize,
    },
    /// This peer is downloading the content.
    #[error("{id} is being downloaded by this peer")]
    Downloading {
        /// The content.
        id: ContentId,
    },
    /// No tracker accepted it.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// The peer was shut down.
    #[error("the peer is shut down")]
    ShutDown,
}

/// Why a download did not complete. The storage then has under the content's
/// name what it had before. Only if the peer was stopped while its storage hung,
/// the content may have been published all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The text of [`DownloadKey::id`](crate::DownloadKey::id) is not a content id.
    #[error("invalid content id {text:?}: {source}")]
    Id {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: ParseIdError,
    },
    /// The text of [`DownloadKey::name`](crate::DownloadKey::name) or
    /// [`DownloadOptions::name`](crate::DownloadOptions::name) is not a content name.
    #[error("invalid content name {name:?}: {source}")]
    Name {
        /// The text.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// An option is not usable, such as the address of an owner
    /// ([`DownloadOptions::owner`](crate::DownloadOptions::owner)).
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The transport cannot use the address of an owner
    /// ([`DownloadOptions::owners`](crate::DownloadOptions::owners)).
    #[error("cannot ask the owner {addr}: {source}")]
    Owner {
        /// The address.
        addr: Addr,
        /// What is wrong with the address.
        source: TransportError,
    },
    /// No tracker that answers knows such a content. That ends the download, except that
    /// the owners of a content have half a minute to come back to a tracker that was
    /// away.
    #[error("no tracker knows the content {key}")]
    NotFound {
        /// What was asked for.
        key: ContentKey,
    },
    /// Several contents have this name: ask by id.
    #[error("{} contents have the name {name}; ask by id: {}", candidates.len(), list(candidates))]
    Ambiguous {
        /// The name.
        name: ContentName,
        /// Their ids, and their lengths in bytes as their owners state them.
        candidates: Vec<(ContentId, u64)>,
    },
    /// The content is known, but no other peer is sharing it.
    #[error("no peer is sharing {id}")]
    NoOwners {
        /// The content.
        id: ContentId,
    },
    /// Nothing arrived for longer than
    /// [`SwarmConfig::patience`](crate::peer::swarm::SwarmConfig::patience).
    #[error("{id} was given up: {reason}{}", missing_chunks(*missing))]
    GaveUp {
        /// The content.
        id: ContentId,
        /// How many chunks are missing; `None` if not even the manifest arrived.
        missing: Option<u32>,
        /// Why nothing arrived.
        reason: StallReason,
    },
    /// No tracker answered for longer than
    /// [`SwarmConfig::patience`](crate::peer::swarm::SwarmConfig::patience). Without a
    /// patience, the download waits.
    #[error("given up, as none of {trackers} trackers answers: {source}")]
    NoTracker {
        /// How many trackers there are.
        trackers: u32,
        /// The last error.
        source: TrackerError,
    },
    /// No tracker can be asked: there is none, or what it says or is asked makes no
    /// sense. A tracker that is down, busy or full is [waited
    /// for](crate::DownloadEvent::Stalled).
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// Something else has the content's name in the storage. It is not changed.
    #[error("{} already exists and is not {id}", located(path, name))]
    TargetExists {
        /// The name.
        name: ContentName,
        /// Where it is, in a storage that has paths.
        path: Option<PathBuf>,
        /// The content that should have got it.
        id: ContentId,
    },
    /// The directory that it was to go to ([`DownloadOptions::directory`]) cannot be used.
    ///
    /// [`DownloadOptions::directory`]: crate::DownloadOptions::directory
    #[error("cannot download into {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the storage says.
        source: StorageError,
    },
    /// The file that it was to take over ([`DownloadOptions::existing`]) cannot be read.
    ///
    /// [`DownloadOptions::existing`]: crate::DownloadOptions::existing
    #[error("cannot take over {}: {source}", path.display())]
    Existing {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StorageError,
    },
    /// The content is longer than the caller allows
    /// ([`Peer::download_bytes`](crate::Peer::download_bytes)).
    #[error("{id} has {length} bytes, and {max} are allowed")]
    TooLarge {
        /// The content.
        id: ContentId,
        /// Its length in bytes.
        length: u64,
        /// How many bytes are allowed.
        max: u64,
    },
    /// The bytes could not be written to where the caller wants them
    /// ([`Peer::download_to`](crate::Peer::download_to)).
    #[error("writing the content failed: {source}")]
    Writer {
        /// What the writer says.
        source: IoError,
    },
    /// The storage failed.
    #[error("{id}{}: {source}", at(chunk))]
    Storage {
        /// The content.
        id: ContentId,
        /// The chunk, if the error is about one.
        chunk: Option<ChunkIndex>,
        /// What the storage says.
        source: StorageError,
    },
    /// What is read is in no file that is wanted, and is not here. When one of its files is
    /// wanted again, it can be read.
    #[error("chunk {chunk} of {id} is in no file that is wanted")]
    NotWanted {
        /// The content.
        id: ContentId,
        /// The chunk, which is a piece of a torrent.
        chunk: ChunkIndex,
    },
    /// The torrent of a magnet link cannot be fetched.
    #[cfg(feature = "bittorrent")]
    #[error("the torrent {id} cannot be fetched: {source}")]
    Torrent {
        /// The content.
        id: ContentId,
        /// Why not.
        source: crate::bittorrent::TorrentError,
    },
    /// It was cancelled, or its handle was dropped.
    #[error("the download was cancelled")]
    Cancelled,
    /// The peer was shut down.
    #[error("the peer is shut down")]
    ShutDown,
}

/// Why there is no reader of a content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// The key stands for no content here: it is not valid, or a name of none, or of more
    /// than one.
    #[error("{key:?} stands for no content here, or for more than one")]
    Unknown {
        /// The key, as text.
        key: String,
    },
    /// The content is neither complete here nor being downloaded.
    #[error("{id} is neither complete here nor being downloaded")]
    NotHere {
        /// The content.
        id: ContentId,
    },
    /// The content only passes through here ([`Peer::stream`](crate::Peer::stream),
    /// [`Peer::download_to`](crate::Peer::download_to)): what was read of it is dropped, so
    /// nobody else can read it. [`Peer::download`](crate::Peer::download) fetches it to stay,
    /// when that has ended.
    #[error("{id} passes through a stream, which alone can read it")]
    Passing {
        /// The content.
        id: ContentId,
    },
    /// The storage cannot say what the bytes of the content must be.
    #[error("{id}: {source}")]
    Storage {
        /// The content.
        id: ContentId,
        /// What the storage says.
        source: StorageError,
    },
    /// The peer was shut down.
    #[error("the peer is shut down")]
    ShutDown,
}

/// Why a content was not [removed](crate::Peer::remove).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// The key stands for no content here: it is not valid, or a name of none, or of more
    /// than one.
    #[error("{key:?} stands for no content here, or for more than one")]
    Unknown {
        /// The key, as text.
        key: String,
    },
    /// It is not here.
    #[error("{id} is not here")]
    NotHere {
        /// The content.
        id: ContentId,
    },
    /// It is being downloaded: cancel that first.
    #[error("{id} is being downloaded")]
    Downloading {
        /// The content.
        id: ContentId,
    },
    /// It is a file of a folder, and nothing by itself. Only the folder can be removed.
    #[error("{id} belongs to a folder")]
    Folder {
        /// The content.
        id: ContentId,
    },
    /// The peer was shut down.
    #[error("the peer is shut down")]
    ShutDown,
}

impl RemoveError {
    /// What to do about it: [`Advice::AskUser`], and [`Advice::GiveUp`] after a shutdown.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unknown { .. }
            | Self::NotHere { .. }
            | Self::Downloading { .. }
            | Self::Folder { .. } => Advice::AskUser,
            Self::ShutDown => Advice::GiveUp,
        }
    }
}

impl ConfigError {
    /// What to do about it: always [`Advice::AskUser`].
    pub fn advice(&self) -> Advice {
        Advice::AskUser
    }
}

is_transient!(ConfigError);
is_transient!(StartError);
is_transient!(ShareError);
is_transient!(RemoveError);
is_transient!(DownloadError);
is_transient!(ReaderError);

impl StartError {
    /// What to do about it. The causes decide: a tracker that is down is a reason to
    /// [retry](Advice::Retry), a configuration to [ask](Advice::AskUser).
    pub fn advice(&self) -> Advice {
        match self {
            Self::Config(source) => source.advice(),
            Self::ShutDown => Advice::GiveUp,
            Self::Entropy { .. } => Advice::AskUser,
            Self::Listen { source, .. } => source.advice(),
            Self::Tracker(source) => source.advice(),
            Self::Storage(source) => source.advice(),
        }
    }
}

impl ShareError {
    /// What to do about it. [`Advice::Retry`] while the content is being downloaded, and
    /// where a cause says so. [`Advice::AskUser`] for a name or a file that cannot be
    /// shared. [`Advice::GiveUp`] after a shutdown.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Name { .. }
            | Self::Content { .. }
            | Self::LengthDiffers { .. }
            | Self::HashDiffers { .. }
            | Self::TooManyNames { .. } => Advice::AskUser,
            Self::Storage(source) => source.advice(),
            Self::Downloading { .. } | Self::Reader { .. } => Advice::Retry,
            Self::Tracker(source) => source.advice(),
            Self::ShutDown => Advice::GiveUp,
        }
    }
}

impl DownloadError {
    /// What to do about it. [`Advice::Retry`] where an owner or a tracker was missing,
    /// or a cause says so: nothing that was verified is fetched again.
    /// [`Advice::AskUser`] for a key, an option or a name that cannot be used.
    /// [`Advice::GiveUp`] when it was cancelled, and after a shutdown.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Id { .. }
            | Self::Name { .. }
            | Self::Config(_)
            | Self::Ambiguous { .. }
            | Self::TooLarge { .. }
            | Self::NotWanted { .. }
            | Self::Writer { .. }
            | Self::TargetExists { .. } => Advice::AskUser,
            Self::Owner { source, .. } => source.advice(),
            Self::NotFound { .. } | Self::NoOwners { .. } | Self::GaveUp { .. } => Advice::Retry,
            Self::NoTracker { source, .. } | Self::Tracker(source) => source.advice(),
            Self::Storage { source, .. }
            | Self::Directory { source, .. }
            | Self::Existing { source, .. } => source.advice(),
            #[cfg(feature = "bittorrent")]
            Self::Torrent { .. } => Advice::AskUser,
            Self::Cancelled | Self::ShutDown => Advice::GiveUp,
        }
    }
}

impl ReaderError {
    /// What to do about it: [`Advice::AskUser`] for a content that is not here, what the
    /// storage says, and [`Advice::GiveUp`] after a shutdown.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unknown { .. } | Self::NotHere { .. } => Advice::AskUser,
            Self::Passing { .. } => Advice::Retry,
            Self::Storage { source, .. } => source.advice(),
            Self::ShutDown => Advice::GiveUp,
        }
    }
}

/// Reads an address, which may be text.
pub(crate) fn checked_addr<A>(addr: A) -> Result<Addr, ConfigError>
where
    A: TryInto<Addr> + fmt::Display,
    A::Error: Into<AddrError>,
{
    let text = addr.to_string();
    addr.try_into().map_err(|source| ConfigError::Addr {
        text,
        source: source.into(),
    })
}

/// Reads a content name, which may be text.
pub(crate) fn checked_name<N>(name: N) -> Result<ContentName, DownloadError>
where
    N: TryInto<ContentName> + fmt::Display,
    N::Error: Into<NameError>,
{
    let text = name.to_string();
    name.try_into().map_err(|source| DownloadError::Name {
        name: text,
        source: source.into(),
    })
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

/// How many chunks are missing; nothing if that is not known.
fn missing_chunks(missing: Option<u32>) -> String {
    match missing {
        None => String::new(),
        Some(1) => "; 1 chunk is missing".to_owned(),
        Some(missing) => format!("; {missing} chunks are missing"),
    }
}
