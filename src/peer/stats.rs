//! Figures of a peer, for those who watch it.

use crate::content::{ContentId, ContentName};
use crate::peer::swarm::{FarBytes, Waste};
use crate::storage::FilePoolStats;

/// What a peer has and does at one moment: the result of
/// [`Peer::stats`](crate::Peer::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerStats {
    /// Contents that are complete here, and shared.
    pub contents: usize,
    /// Contents that have a task at present: those that are downloaded, and those
    /// of the complete ones that somebody is linked about.
    pub awake: usize,
    /// Downloads that are active.
    pub active_downloads: usize,
    /// Downloads that wait: until others have ended, or until a tracker answers.
    pub queued_downloads: usize,
    /// Connections to other peers, without those that are shaking hands.
    pub connections: usize,
    /// How many connections there may be:
    /// [`PeerConfig::max_connections`](crate::peer::PeerConfig::max_connections),
    /// or fewer if the system allows the process fewer descriptors.
    pub max_connections: usize,
    /// The files of the storage, if it counts them. The storages of one process
    /// may share a bound.
    pub files: Option<FilePoolStats>,
    /// Bytes of blocks per second that arrive, used or not, over
    /// [`RATE_WINDOW`](crate::peer::swarm::RATE_WINDOW).
    pub download_rate: u64,
    /// Bytes of blocks per second that are sent, over the same window.
    pub upload_rate: u64,
    /// Bytes of blocks that arrived since the start, used or not.
    pub downloaded: u64,
    /// Bytes of blocks that were sent since the start.
    pub uploaded: u64,
    /// Bytes that arrived in vain since the start.
    pub waste: Waste,
    /// Bytes that went from one zone to another since the start.
    #[cfg_attr(feature = "serde", serde(default))]
    pub far: FarBytes,
}

/// What a peer has and does of one complete content at one moment: the result of
/// [`Peer::content_stats`](crate::Peer::content_stats).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ContentStats {
    /// The content.
    pub id: ContentId,
    /// Its length in bytes.
    pub length: u64,
    /// The names that it has here, at most eight. The first one is that of
    /// [`Peer::contents`](crate::Peer::contents).
    pub names: Vec<ContentName>,
    /// Bytes of blocks that were sent since this peer has the content, and while it was
    /// downloaded.
    pub uploaded: u64,
}
