//! What one entry of a folder is.

use super::path::FolderPath;
use crate::content::ContentId;

/// An entry of a [`FolderIndex`](super::FolderIndex).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderEntry {
    /// Where it is in the folder.
    pub path: FolderPath,
    /// What it is.
    pub item: FolderItem,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FolderItem {
    /// A file.
    File {
        /// The content id of its bytes.
        id: ContentId,
        /// Its length in bytes.
        length: u64,
        /// Whether its owner may run it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// The path that it refers to, from the folder that it lies in.
        target: String,
    },
    /// A folder in which there is nothing. The others follow from the paths.
    EmptyFolder,
}

impl FolderEntry {
    /// A file with this id and length in bytes, which is not executable.
    pub fn file(path: FolderPath, id: ContentId, length: u64) -> Self {
        let executable = false;
        let item = FolderItem::File {
            id,
            length,
            executable,
        };
        Self { path, item }
    }

    /// A file that can be run.
    pub fn executable(path: FolderPath, id: ContentId, length: u64) -> Self {
        let executable = true;
        let item = FolderItem::File {
            id,
            length,
            executable,
        };
        Self { path, item }
    }

    /// A symbolic link.
    pub fn symlink(path: FolderPath, target: impl Into<String>) -> Self {
        let target = target.into();
        let item = FolderItem::Symlink { target };
        Self { path, item }
    }

    /// An empty folder.
    pub fn empty_folder(path: FolderPath) -> Self {
        let item = FolderItem::EmptyFolder;
        Self { path, item }
    }
}
