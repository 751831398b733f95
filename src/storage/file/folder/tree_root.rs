//! Where the tree of a folder lies. Whatever is opened in it is opened without
//! following a link, from the root on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::dir::{DataFile, Dir};
use super::super::disk::{Looked, Refused};
use super::super::storage_dir::StorageDir;
use crate::content::{ContentName, FolderPath};
use crate::storage::StorageError;

/// Where the tree of a folder lies. A clone is the same place.
#[derive(Debug, Clone)]
pub(crate) struct TreeRoot(Arc<Place>);

#[derive(Debug)]
enum Place {
    /// In the directory of a storage, under this name.
    Stored(Arc<StorageDir<Dir>>, ContentName),
    /// Anywhere. Links on the way to it are followed: the user has named it.
    Anywhere(PathBuf),
}

impl TreeRoot {
    /// A directory of the user.
    pub(crate) fn at(path: &Path) -> Self {
        // The working directory may be another one later.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Self(Arc::new(Place::Anywhere(absolute)))
    }

    pub(super) fn stored(dir: Arc<StorageDir<Dir>>, name: ContentName) -> Self {
        Self(Arc::new(Place::Stored(dir, name)))
    }

    /// Its path, for messages: a storage may have moved.
    pub(crate) fn path(&self) -> PathBuf {
        match &*self.0 {
            Place::Stored(dir, name) => dir.path_of(name.as_str()),
            Place::Anywhere(path) => path.clone(),
        }
    }

    /// Its path, unless it is in the directory of a storage.
    pub(super) fn outside(&self) -> Option<&Path> {
        match &*self.0 {
            Place::Stored(..) => None,
            Place::Anywhere(path) => Some(path),
        }
    }

    /// The path of something in it, for messages.
    pub(in super::super) fn path_of(&self, path: &FolderPath) -> PathBuf {
        self.path().join(path.as_str())
    }

    pub(super) fn open(&self) -> Result<Dir, Refused> {
        match &*self.0 {
            Place::Stored(dir, name) => dir.disk.enter(name.as_str().as_ref()),
            Place::Anywhere(path) => Ok(Dir::open(path)?),
        }
    }

    /// Whether something is there, of whatever kind.
    pub(super) fn is_taken(&self) -> Result<bool, StorageError> {
        match &*self.0 {
            Place::Stored(dir, name) => Ok(dir.kind(name.as_str())?.is_some()),
            Place::Anywhere(path) => Ok(path.symlink_metadata().is_ok()),
        }
    }

    /// Removes it, if nothing is in it.
    pub(super) fn remove_empty(&self) -> io::Result<()> {
        let removed = match &*self.0 {
            Place::Stored(dir, name) => dir.disk.remove_dir(name.as_str().as_ref()),
            Place::Anywhere(path) => std::fs::remove_dir(path),
        };
        match removed {
            Err(e) if !is_in_use(&e) => Err(e),
            _ => Ok(()),
        }
    }

    /// Opens a file in it for reading.
    pub(in super::super) fn open_file(&self, path: &FolderPath) -> Result<DataFile, Refused> {
        self.open()?.open_within(path.as_str())
    }

    /// What is known about a file in it without reading it.
    pub(super) fn look(&self, path: &FolderPath) -> Result<Option<Looked>, Refused> {
        let mut at = self.open()?;
        if let Some(parent) = path.parent() {
            for folder in parent.elements() {
                at = at.enter(folder.as_ref())?;
            }
        }
        Ok(at.look(path.name().as_ref())?)
    }
}

/// Whether a folder was not removed since it is none any more, or something is in it.
pub(super) fn is_in_use(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
    )
}
