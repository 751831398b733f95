//! What can go wrong in a storage.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::advice::Advice;
use crate::content::{ChunkIndex, ContentId, ContentName, UnsafeName};
use crate::descriptors::is_exhausted;
use crate::io_error::IoError;

/// An error of a local storage. No peer is ever blamed for one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageError {
    /// Something else has the name. It is left alone.
    Exists {
        /// The name.
        name: ContentName,
        /// Its path, if the storage has paths.
        path: Option<PathBuf>,
    },
    /// Another download is writing this content to the same storage.
    Locked {
        /// The content.
        id: ContentId,
        /// The path of the unfinished file, if the storage has paths.
        path: Option<PathBuf>,
    },
    /// There is no such content.
    NotFound {
        /// The name.
        name: ContentName,
    },
    /// The storage uses this name for a file of its own.
    Reserved {
        /// The name.
        name: ContentName,
    },
    /// The name is not safe as a file name.
    UnsafeName {
        /// The name.
        name: ContentName,
        /// Why it is not safe.
        reason: UnsafeName,
    },
    /// A read or write reaches past the end of the content. All fields are in
    /// bytes.
    OutOfBounds {
        /// Where the read or write starts.
        offset: u64,
        /// How long it is.
        len: u64,
        /// How long the content is.
        length: u64,
    },
    /// The storage does not read or write this kind of directory entry: a link,
    /// a directory, a pipe, a device, or an unfinished file with a second hard
    /// link. It is left alone.
    NotAFile {
        /// The path of the entry.
        path: PathBuf,
        /// What the entry is, in words.
        found: &'static str,
    },
    /// A directory was expected, and something else has its path.
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A file reads shorter or longer than the system says it is, as those of
    /// procfs and sysfs do. It is not a file with a content of its own.
    WrongLength {
        /// The path of the file.
        path: PathBuf,
        /// The length that the system states, in bytes.
        length: u64,
    },
    /// The file system cannot lock files, so nothing would keep two downloads
    /// apart. Nothing is left behind. Locks can often be turned on where the
    /// file system is mounted.
    NoLocks {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the operating system.
        source: IoError,
    },
    /// A write to a content that is open for reading, or is finished.
    ReadOnly,
    /// The storage cannot do this at all.
    Unsupported {
        /// What it cannot do, in words, as in "removing a content".
        what: &'static str,
    },
    /// Somebody else removed, replaced or truncated a file of a download that
    /// runs. The blob cannot be written any more. The next download keeps what
    /// is left.
    Tampered {
        /// The path of the file.
        path: PathBuf,
        /// What happened to it, in words.
        how: &'static str,
    },
    /// The file of a finished content has changed since it was opened, or is
    /// gone. What is there is left alone.
    Changed {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file of an interrupted download has been altered. The wrong chunks
    /// no longer count as present: the next download fetches them again, and
    /// keeps the others.
    Altered {
        /// The path of the file.
        path: PathBuf,
        /// The first wrong chunk.
        chunk: ChunkIndex,
    },
    /// The content was to lie in one file with a torrent that should be the same
    /// (`TorrentOptions::also`), and is another one. The file is the torrent's.
    Mismatch {
        /// The path of the file.
        path: PathBuf,
    },
    /// The storage is full, or a quota is used up.
    Full {
        /// What did not fit: a content, a path, or an action.
        what: String,
        /// How many bytes were needed; 0 if that is not known.
        needed: u64,
        /// How many bytes were available, if that is known.
        available: Option<u64>,
        /// The path, if it is about one and the storage has paths.
        path: Option<PathBuf>,
        /// The error of the operating system, if there was one.
        source: Option<IoError>,
    },
    /// The operating system, or another backend of the storage, failed.
    Io {
        /// The action that failed, and its path.
        what: String,
        /// The path, if it is about one and the storage has paths.
        path: Option<PathBuf>,
        /// The error, with its kind and its number.
        source: IoError,
    },
}

impl StorageError {
    /// `what` (an action and its path, as in "writing /tmp/a") failed.
    pub fn io(what: impl Into<String>, error: impl Into<IoError>) -> Self {
        Self::Io {
            what: what.into(),
            path: None,
            source: error.into(),
        }
    }

    /// There is not enough space for `what`.
    pub fn full(what: impl Into<String>, needed: u64, available: Option<u64>) -> Self {
        Self::Full {
            what: what.into(),
            needed,
            available,
            path: None,
            source: None,
        }
    }

    /// Sets the [path](Self::path) of an error of [`io`](Self::io) or
    /// [`full`](Self::full). The text stays the same. Other errors are not changed.
    #[must_use]
    pub fn at(mut self, at: impl Into<PathBuf>) -> Self {
        if let Self::Io { path, .. } | Self::Full { path, .. } = &mut self {
            *path = Some(at.into());
        }
        self
    }

    /// Whether a read that failed like this shows that a finished content can no
    /// longer be served: it is gone or another one, or its disk fails. What may
    /// pass by itself, such as a lack of memory, does not.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            Self::Io { source, .. } => !passes(source),
            Self::NotFound { .. }
            | Self::NotAFile { .. }
            | Self::WrongLength { .. }
            | Self::Changed { .. }
            | Self::Altered { .. } => true,
            _ => false,
        }
    }

    /// Whether it is certain that a content is gone, or another one by now. A disk
    /// that fails may work again later.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_loss() && !matches!(self, Self::Io { .. })
    }

    /// What to do about it. [`Advice::Retry`] where the next call finds other conditions
    /// or repairs what is wrong: while another download writes the content, for an
    /// unfinished file that somebody else has changed, and when the system lacked
    /// memory or descriptors. [`Advice::GiveUp`] for calls that no blob accepts, for what the
    /// storage cannot do, and for two contents that are not the same.
    /// [`Advice::AskUser`] for all others.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Locked { .. } | Self::Tampered { .. } | Self::Altered { .. } => Advice::Retry,
            Self::Io { source, .. } if passes(source) => Advice::Retry,
            Self::OutOfBounds { .. }
            | Self::ReadOnly
            | Self::Unsupported { .. }
            | Self::Mismatch { .. } => Advice::GiveUp,
            _ => Advice::AskUser,
        }
    }

    /// The path that it is about, if the storage has paths and knows which one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Exists { path, .. }
            | Self::Locked { path, .. }
            | Self::Full { path, .. }
            | Self::Io { path, .. } => path.as_deref(),
            Self::NotAFile { path, .. }
            | Self::NotADirectory { path }
            | Self::WrongLength { path, .. }
            | Self::NoLocks { path, .. }
            | Self::Tampered { path, .. }
            | Self::Changed { path }
            | Self::Mismatch { path }
            | Self::Altered { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The error of the operating system, if there was one.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } | Self::NoLocks { source, .. } => Some(source),
            Self::Full { source, .. } => source.as_deref(),
            _ => None,
        }
    }
}

is_transient!(StorageError);

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { name, path } => write!(f, "{} already exists", located(path, name)),
            Self::Locked { id, path } => {
                write!(
                    f,
                    "{} is being written by another download",
                    located(path, id)
                )
            }
            Self::NotFound { name } => write!(f, "{name} is not in the storage"),
            Self::Reserved { name } => write!(f, "the name {name} is reserved by the storage"),
            Self::UnsafeName { name, reason } => {
                write!(f, "{name:?} is not a safe file name: {reason}")
            }
            Self::OutOfBounds {
                offset,
                len,
                length,
            } => write!(
                f,
                "{len} bytes at offset {offset} are out of bounds: the content has {length} bytes"
            ),
            Self::NotAFile { path, found } => {
                write!(f, "cannot use {}: it is {found}", path.display())
            }
            Self::NotADirectory { path } => {
                write!(f, "{} is not a directory", path.display())
            }
            Self::WrongLength { path, length } => write!(
                f,
                "cannot use {}: it does not read as the {length} bytes that the system says it has",
                path.display()
            ),
            Self::NoLocks { path, source } => {
                write!(f, "files cannot be locked in {}: {source}", path.display())
            }
            Self::ReadOnly => f.write_str("the content is read-only"),
            Self::Unsupported { what } => write!(f, "this storage does not support {what}"),
            Self::Tampered { path, how } => {
                write!(f, "{} was {how} during the download", path.display())
            }
            Self::Changed { path } => {
                write!(
                    f,
                    "{} has changed since it was opened, or is gone",
                    path.display()
                )
            }
            Self::Altered { path, chunk } => write!(
                f,
                "chunk {chunk} of {} has been altered since it was written",
                path.display()
            ),
            Self::Mismatch { path } => write!(
                f,
                "{} is a torrent's that is not the same content",
                path.display()
            ),
            Self::Full {
                what,
                needed,
                available,
                ..
            } => {
                write!(f, "{what}: not enough space")?;
                match (needed, available) {
                    (0, None) => Ok(()),
                    (needed, None) => write!(f, " ({needed} bytes needed)"),
                    (needed, Some(available)) => {
                        write!(f, " ({needed} bytes needed, {available} available)")
                    }
                }
            }
            Self::Io { what, source, .. } => write!(f, "{what} failed: {source}"),
        }
    }
}

impl Error for StorageError {
    /// The [`io::Error`], if there was one.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::UnsafeName { reason, .. } => Some(reason),
            other => other.io_error().map(|error| error as _),
        }
    }
}

/// Whether an error of the operating system may pass by itself.
fn passes(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::Interrupted,
        io::ErrorKind::WouldBlock,
        io::ErrorKind::TimedOut,
        io::ErrorKind::OutOfMemory,
    ];
    kinds.contains(&error.kind()) || is_exhausted(error)
}

/// What a message is about: its path if it has one.
pub(crate) fn located(path: &Option<PathBuf>, what: impl fmt::Display) -> String {
    match path {
        Some(path) => path.display().to_string(),
        None => what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_the_system_keeps_its_source_kind_and_number() {
        let os = || io::Error::from_raw_os_error(13);
        let error = StorageError::io("opening /a", os());
        assert_eq!(error.to_string(), format!("opening /a failed: {}", os()));
        let kept = error.io_error().unwrap();
        assert_eq!(kept.kind(), os().kind());
        assert_eq!(kept.raw_os_error(), Some(13));
        let source = error.source().unwrap().downcast_ref::<io::Error>();
        assert_eq!(source.unwrap().raw_os_error(), Some(13));
        assert_eq!(error, error.clone());
        assert_ne!(error, StorageError::io("opening /a", io::ErrorKind::Other));
    }

    #[test]
    fn missing_space_is_reported_in_bytes_if_known() {
        let full = |needed, available| StorageError::full("a", needed, available).to_string();
        assert_eq!(full(0, None), "a: not enough space");
        assert_eq!(full(7, None), "a: not enough space (7 bytes needed)");
        assert_eq!(
            full(7, Some(3)),
            "a: not enough space (7 bytes needed, 3 available)"
        );
    }
}
