//! Why a torrent cannot be added.

use crate::content::{FolderPathError, PieceDigestsError, PieceLenError};
use crate::transport::TransportError;

/// Why a torrent session cannot be started, or a torrent not be added to it.
#[derive(Debug, thiserror::Error)]
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
}
