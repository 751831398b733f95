//! What can be wrong with an index.

use thiserror::Error;

use super::path::{FolderPath, FolderPathError, MAX_PATH_LEN};
use crate::content::ContentId;

/// Why entries, or bytes, are not a [`FolderIndex`](super::FolderIndex).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FolderIndexError {
    /// The bytes do not begin as an index does. The content is something else.
    #[error("the content is not a folder")]
    NotAFolder,
    /// The format is a later one.
    #[error("the index of the folder has the unknown version {found}")]
    Version {
        /// The version.
        found: u32,
    },
    /// There are more entries than [`MAX_FOLDER_ENTRIES`](super::MAX_FOLDER_ENTRIES).
    #[error("a folder cannot have {found} entries")]
    TooManyEntries {
        /// How many.
        found: u64,
    },
    /// The index is longer than [`MAX_INDEX_LEN`](super::MAX_INDEX_LEN).
    #[error("the index of a folder cannot have {len} bytes")]
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// The bytes end within an entry, or an entry has an unknown kind, or
    /// something follows the last entry.
    #[error("the index of the folder is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A path is not valid.
    #[error("{path:?}: {source}")]
    Path {
        /// The text.
        path: String,
        /// What is wrong with it.
        source: FolderPathError,
    },
    /// The entries are not sorted by path, or a path occurs twice.
    #[error("{path} does not come after {previous}")]
    Order {
        /// The entry before.
        previous: FolderPath,
        /// The entry that should come later.
        path: FolderPath,
    },
    /// Two paths are the same where case does not count.
    #[error("{first} and {second} are the same where upper and lower case are")]
    Case {
        /// One of them, or a folder on the way to it.
        first: String,
        /// The other.
        second: String,
    },
    /// Something lies in what is no folder, or in an empty one.
    #[error("{path} cannot lie in {within}, which is not a folder with something in it")]
    Within {
        /// The entry.
        path: FolderPath,
        /// The entry that it lies in.
        within: FolderPath,
    },
    /// The target of a symbolic link is refused.
    #[error("the symbolic link {path} to {target:?}: {source}")]
    Symlink {
        /// The link.
        path: FolderPath,
        /// What it refers to.
        target: String,
        /// Why it is refused.
        source: LinkTargetError,
    },
    /// A file is longer than a content can be.
    #[error("{path} cannot have {length} bytes")]
    FileTooLong {
        /// The file.
        path: FolderPath,
        /// Its length in bytes.
        length: u64,
    },
    /// One id has two lengths.
    #[error("{path}: {id} has another length as well")]
    Lengths {
        /// The file with the second length.
        path: FolderPath,
        /// Its id.
        id: ContentId,
    },
}

/// Why the target of a symbolic link is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkTargetError {
    /// It is longer than [`MAX_PATH_LEN`] bytes.
    #[error("a target can have at most {MAX_PATH_LEN} bytes, not {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It is an absolute path.
    #[error("the target is an absolute path")]
    Absolute,
    /// It lies outside the folder.
    #[error("the target is outside the folder")]
    Outside,
    /// It leads through another symbolic link, or through a file.
    #[error("the target leads through {through}, which is not a folder")]
    Through {
        /// The path on the way.
        through: String,
    },
    /// An element of it is neither `.` nor `..` nor a valid one.
    #[error(transparent)]
    Element(#[from] FolderPathError),
}
