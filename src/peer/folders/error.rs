//! What can go wrong with a folder.

use std::path::PathBuf;

use thiserror::Error;

use crate::advice::Advice;
use crate::content::{ContentId, ContentName, FolderIndexError, FolderPath, FolderPathError};
use crate::error::{DownloadError, ShareError};
#[cfg(feature = "file-storage")]
use crate::storage::ScanError;
use crate::storage::StorageError;

/// Why a folder is not shared, or not downloaded. A folder that is not downloaded is
/// not visible; what was fetched of it is kept, and a later download goes on from
/// there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The storage of this peer cannot keep folders. Only a
    /// [`FileStorage`](crate::FileStorage) can.
    #[error("the storage of this peer cannot keep folders")]
    Unsupported,
    /// Something in the folder has a name, or is a link to one, that cannot be shared:
    /// not every system could have it.
    #[error("{} cannot be shared: {source}", path.display())]
    Name {
        /// Its path.
        path: PathBuf,
        /// What is wrong with the name.
        source: FolderPathError,
    },
    /// What is in the folder cannot be one folder on every system; or the content that
    /// was downloaded is no folder, or one that could reach out of itself.
    #[error(transparent)]
    Index(#[from] FolderIndexError),
    /// The text of [`FolderOptions::path`](crate::FolderOptions::path) is not a path in
    /// a folder.
    #[error("invalid path {path:?}: {source}")]
    Path {
        /// The text.
        path: String,
        /// What is wrong with it.
        source: FolderPathError,
    },
    /// The folder has nothing at a path that was selected.
    #[error("the folder has no {path}")]
    NoSuchPath {
        /// The path.
        path: FolderPath,
    },
    /// Something else has the folder's name in the storage. It is not changed.
    #[error("{} already exists and is not the folder {id}", path.display())]
    TargetExists {
        /// The name.
        name: ContentName,
        /// Where it is.
        path: PathBuf,
        /// The folder that should have got it.
        id: ContentId,
    },
    /// This peer is downloading the folder already, or has it or a part of it, under another
    /// name or in another directory; or what it has lies where it was shared from, and is not
    /// changed.
    #[error("the folder {id}, or a part of it, is here already")]
    AlreadyHere {
        /// The folder.
        id: ContentId,
    },
    /// A file could not be fetched.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: FolderPath,
        /// Why not.
        source: DownloadError,
    },
    /// The folder was not found, its index could not be fetched, or the download was
    /// cancelled.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The index could not be shared, or the name is not a content name.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The storage failed, or what is in the folder cannot be read: it is neither a
    /// file nor a folder nor a link, or has changed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl FolderError {
    /// The same for a file in the folder.
    #[cfg(feature = "file-storage")]
    pub(super) fn at(self, path: &FolderPath) -> Self {
        match self {
            Self::Download(source) => Self::File {
                path: path.clone(),
                source,
            },
            error => error,
        }
    }

    /// What to do about it. What a cause says, and [`Advice::AskUser`] for a storage, a
    /// path or an index that cannot be used.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unsupported
            | Self::Name { .. }
            | Self::Index(_)
            | Self::Path { .. }
            | Self::NoSuchPath { .. }
            | Self::TargetExists { .. }
            | Self::AlreadyHere { .. } => Advice::AskUser,
            Self::File { source, .. } | Self::Download(source) => source.advice(),
            Self::Share(source) => source.advice(),
            Self::Storage(source) => source.advice(),
        }
    }
}

is_transient!(FolderError);

#[cfg(feature = "file-storage")]
impl From<ScanError> for FolderError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Storage(error) => error.into(),
            ScanError::Path { path, source } => Self::Name { path, source },
            ScanError::TooManyEntries { found } => {
                FolderIndexError::TooManyEntries { found }.into()
            }
        }
    }
}
