//! A place where a complete content is: one of its names, and the bytes there.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use crate::content::{ContentId, ContentName};
use crate::protocol::{OwnEntry, OwnState};
use crate::storage::{Blob, Storage, StorageError};

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
    /// Whether this peer has written the bytes, as far as is known. What it has only found
    /// is not its own to remove.
    pub(in crate::peer) written_here: bool,
}

impl Place {
    /// What the user has, under the same name at trackers.
    pub(in crate::peer) fn of_user(name: ContentName, blob: Arc<dyn Blob>) -> Self {
        Self {
            listed_as: name.clone(),
            name,
            blob,
            written_here: false,
        }
    }

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

    /// Whether it lies in this storage, under its name.
    pub(in crate::peer) async fn is_in(&self, storage: &dyn Storage) -> bool {
        match (self.blob.file(), storage.path(&self.name)) {
            (Some(file), Some(path)) => is_same_path(file.path(), &path),
            (None, None) => {
                let opened = storage.open(&self.name).await;
                opened.is_ok_and(|stored| stored.length() == self.blob.length())
            }
            _ => false,
        }
    }

    /// Whether its file lies in the directory of this storage, under whatever name.
    pub(in crate::peer) fn is_beside(&self, storage: &dyn Storage) -> bool {
        let (file, there) = (self.blob.path(), storage.path(&self.name));
        match (file, there) {
            (Some(file), Some(there)) => match (file.parent(), there.parent()) {
                (Some(at), Some(dir)) => is_same_path(at, dir),
                _ => false,
            },
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

/// Whether two paths are one, as far as their text tells.
fn is_same_path(one: &Path, other: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    one == other || absolute(one) == absolute(other)
}

/// Checks that the bytes of a blob are still there, as far as that is seen without
/// reading them. A file that is open is looked up again.
pub(in crate::peer) async fn check_present(blob: &dyn Blob) -> Result<(), StorageError> {
    blob.release();
    blob.read_at(0, 0).await.map(drop)
}
