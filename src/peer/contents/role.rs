//! What a content is to those who have it.

use crate::protocol::OwnState;

/// What a content is: something by itself, or of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peer) enum Role {
    /// The user shares it, or downloads it. Trackers list it, and the storage
    /// remembers it.
    Alone,
    /// The index of a folder. Trackers list it; the record of the folder says that it
    /// is here.
    Index,
    /// A file of a folder. It is found through the index.
    File,
    /// The user shares or downloads it over another network. Neither the trackers nor the
    /// peers of this one hear of it, and the storage does not remember it.
    #[cfg(feature = "bittorrent")]
    Torrent,
}

impl Role {
    /// Whether the user shares or downloads it by itself.
    pub(in crate::peer) fn is_by_itself(self) -> bool {
        match self {
            Self::Alone => true,
            Self::Index | Self::File => false,
            #[cfg(feature = "bittorrent")]
            Self::Torrent => true,
        }
    }

    /// Whether it is linked by sessions of this crate's own protocol.
    pub(in crate::peer) fn has_sessions(self) -> bool {
        match self {
            Self::Alone | Self::Index | Self::File => true,
            #[cfg(feature = "bittorrent")]
            Self::Torrent => false,
        }
    }

    /// What trackers are told when this peer has so much of it. `has_files` says
    /// whether it has all files of the folder as well.
    pub(in crate::peer) fn announced(
        self,
        state: OwnState,
        has_files: impl FnOnce() -> bool,
    ) -> Option<OwnState> {
        match (self, state) {
            (Self::File, _) => None,
            #[cfg(feature = "bittorrent")]
            (Self::Torrent, _) => None,
            (Self::Index, OwnState::Complete) if !has_files() => Some(OwnState::Partial),
            _ => Some(state),
        }
    }
}
