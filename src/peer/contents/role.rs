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
}

impl Role {
    /// What trackers are told when this peer has so much of it. `has_files` says
    /// whether it has all files of the folder as well.
    pub(in crate::peer) fn announced(
        self,
        state: OwnState,
        has_files: impl FnOnce() -> bool,
    ) -> Option<OwnState> {
        match (self, state) {
            (Self::File, _) => None,
            (Self::Index, OwnState::Complete) if !has_files() => Some(OwnState::Partial),
            _ => Some(state),
        }
    }
}
