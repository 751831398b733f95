//! A place where a complete content is: one of its names, and the bytes there.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use crate::content::{ContentId, ContentName};
use crate::protocol::{OwnEntry, OwnState};
use crate::storage::{Blob, StorageError};

/// How many places a content has at most, each with a name: as many as a tracker takes
/// names from one peer.
pub(in crate::peer) const MAX_PLACES: usize = 8;

/// A name that a complete content has here, and where the bytes are. All places of a
/// content have the same bytes; each was verified when it was added.
#[derive(Clone)]
pub(in crate::peer) struct Place {
    pub(in crate::peer) name: ContentName,
    /// Its name at trackers.
    pub(in crate::peer) listed_as: ContentName,
    pub(in crate::peer) blob: Arc<dyn Blob>,
}

impl Place {
    /// Whether the two are one: a name, and the same unchanged file.
    pub(in crate::peer) fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.listed_as == other.listed_as
            && match (self.blob.file(), other.blob.file()) {
                (Some(file), Some(other)) => file.is_same(&other),
                (file, other) => file.is_none() && other.is_none(),
            }
    }

    /// Whether this one takes the place of another: the same name, and the same path.
    pub(in crate::peer) fn replaces(&self, other: &Self) -> bool {
        let (file, other_file) = (self.blob.file(), other.blob.file());
        let path = file.as_ref().map(|file| file.path());
        self.name == other.name && path == other_file.as_ref().map(|file| file.path())
    }

    /// Whether this may be a file with this name, as far as is known without looking.
    pub(in crate::peer) fn may_lie_at(&self, name: &ContentName) -> bool {
        let path = self.blob.path();
        let file_name = path.as_deref().and_then(Path::file_name);
        self.name == *name || file_name == Some(OsStr::new(name.as_str()))
    }

    /// Whether this blob is that of this place.
    pub(in crate::peer) fn is_at(&self, blob: &Arc<dyn Blob>) -> bool {
        Arc::ptr_eq(&self.blob, blob) || self.is_file_of(&**blob)
    }

    /// Whether a blob that was just opened is the file of this place, unchanged.
    pub(in crate::peer) fn is_file_of(&self, blob: &dyn Blob) -> bool {
        match (self.blob.file(), blob.file()) {
            (Some(file), Some(other)) => file.is_same(&other),
            _ => false,
        }
    }

    /// What to tell trackers.
    pub(in crate::peer) fn entry(&self, id: ContentId) -> OwnEntry {
        OwnEntry {
            id,
            name: self.listed_as.clone(),
            length: self.blob.length(),
            state: OwnState::Complete,
        }
    }
}

/// Checks that the bytes of a blob are still there, as far as that is seen without
/// reading them. A file that is open is looked up again.
pub(in crate::peer) async fn check_present(blob: &dyn Blob) -> Result<(), StorageError> {
    blob.release();
    blob.read_at(0, 0).await.map(drop)
}
