//! Why a torrent cannot be added, or not be fetched.

use crate::bittorrent::metainfo::MetainfoError;
use crate::content::{FolderPath, FolderPathError, PieceDigestsError, PieceLenError};
use crate::transport::TransportError;

/// Why a torrent session cannot be started, or a torrent not be added to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TorrentError {
    /// The session cannot listen there.
    #[error("cannot listen for BitTorrent connections at {addr}: {source}")]
    Listen {
        /// The address.
        addr: crate::protocol::Addr,
        /// Why not.
        source: TransportError,
    },
    /// The session cannot join the multicast group of its local network.
    #[error("cannot look for peers in the local network: {source}")]
    LocalDiscovery {
        /// Why not.
        source: TransportError,
    },
    /// The session cannot start its node of the distributed hash table.
    #[cfg(feature = "bittorrent-dht")]
    #[error("cannot start a node of the distributed hash table: {source}")]
    Dht {
        /// Why not.
        source: TransportError,
    },
    /// The pieces of the torrent are too long or too many for a peer.
    #[error(transparent)]
    Pieces(#[from] PieceLenError),
    /// The hashes are not those of the pieces.
    #[error(transparent)]
    Digests(#[from] PieceDigestsError),
    /// A path that no file of this peer may have.
    #[error(transparent)]
    Path(#[from] FolderPathError),
    /// No directory was given, and the storage of the peer has none.
    #[error("it is not known where the torrent is to be stored")]
    NoDirectory,
    /// The magnet link names no torrent.
    #[error("the magnet link names no torrent")]
    NoInfoHash,
    /// What the peers of a magnet link have has its hash, and cannot be taken as a torrent.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The torrent has no file of this number.
    #[error("there is no file {file} in a torrent of {files} files, the first of which is 0")]
    NoSuchFile {
        /// The number.
        file: usize,
        /// How many files it has, padding included.
        files: usize,
    },
    /// The torrent has nothing at a path.
    #[error("there is nothing at {path} in the torrent")]
    NoSuchPath {
        /// The path.
        path: FolderPath,
    },
    /// The files of the torrent are to be [another content as well](super::TorrentOptions::also), which
    /// has all of them, and only some are wanted.
    #[error("a torrent of which only some files are wanted cannot be another content as well")]
    PartIsNoOther,
    /// The torrent is neither fetched nor shared any more. To choose other files of it, add it
    /// again.
    #[error("the torrent has ended")]
    Ended,
    /// The two hashes in the magnet link are those of different torrents.
    #[error("the two hashes in the magnet link are those of different torrents")]
    OtherHash,
}
