//! Figures of a peer, for those who watch it.

use crate::storage::FilePoolStats;

/// What a peer has and does at one moment: the result of
/// [`Peer::stats`](crate::Peer::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// Contents that are complete here, and shared.
    pub contents: usize,
    /// Contents that have a task at present: those that are downloaded, and those
    /// of the complete ones that somebody is linked about.
    pub awake: usize,
    /// Downloads that are active.
    pub active_downloads: usize,
    /// Downloads that wait until others have ended.
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
}
