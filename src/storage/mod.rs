//! Where contents live on this side: the seam, and the storages that come with
//! the crate.
//!
//! What holds when a call has returned `Ok`:
//!
//! | call | readable here | visible by name | survives the process | survives the machine |
//! |---|---|---|---|---|
//! | [`Blob::write_at`] | yes | no | the storage's choice | no |
//! | [`Blob::commit`] | yes | no | yes, if the storage can resume | the same |
//! | [`Blob::finish`] | yes | yes, whole | yes | yes |
//!
//! [`MemoryStorage`] keeps for its own lifetime what others keep for good. A
//! storage is told which chunks are verified, and trusts that whoever calls
//! [`Blob::finish`] has verified all that came since it was opened. What it
//! found there from an earlier download it answers for itself, by
//! [`Partial::verified`].
//!
//! Sharing survives a restart by [`Storage::remember`] and
//! [`Storage::catalogue`], for storages that keep such a list.
//!
//! To bring your own (a database, an object store), implement [`Storage`] and
//! [`Blob`], and run the conformance suite `bt_lite::testing::storage` on it
//! (feature `testing`).

mod file;
mod memory;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::content::{Bitfield, ChunkIndex, ContentId, ContentName, Manifest, UnsafeName};

pub use file::{FileStamp, FileStorage, FileStorageBuilder, open_file};
pub use memory::MemoryStorage;

/// A place that holds contents by name.
///
/// All methods may be called from any task at any time; none may block the
/// thread that it is polled on.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Opens a content for writing: the target of a download, which is not
    /// visible under its name until [`finish`](Blob::finish). What an earlier,
    /// interrupted download of the same content left behind is taken up again
    /// if the storage can vouch for it.
    ///
    /// Nobody else can open the same content for writing until the returned
    /// blob is dropped.
    ///
    /// Cancel safe: a dropped future leaves at most an unfinished target
    /// behind, and no lock.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when the name is taken (by whatever),
    /// [`StorageError::Locked`] while another download writes this content,
    /// what [`check_name`](Self::check_name) says of the name, and whatever
    /// opening and reserving may meet.
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError>;

    /// Whether [`create`](Self::create) takes a name, free or not: asked before
    /// anything is fetched, and with names that strangers have chosen. A storage
    /// that keeps files refuses what
    /// [`ContentName::check_file_name`] does. Who wraps a storage passes this
    /// on. By default any name is taken.
    ///
    /// # Errors
    /// [`StorageError::UnsafeName`] and [`StorageError::Reserved`].
    fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
        let _ = name;
        Ok(())
    }

    /// Opens a finished content for reading, by its name.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is none.
    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError>;

    /// Keeps in mind, durably, that this blob is this content under these
    /// names, so that [`catalogue`](Self::catalogue) gives the same after a
    /// restart without hashing it again. Replaces what was kept under the name.
    ///
    /// The blob is one that was opened for reading or is finished, and the
    /// manifest is that of the bytes read from it. What the storage has no
    /// means to find again is not kept, which is no error. By default nothing
    /// is kept.
    ///
    /// Cancel safe: it is kept, or not.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::Io`].
    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        let _ = stored;
        Ok(())
    }

    /// Drops what was kept under a name; the content stays. Nothing happens if
    /// there is none.
    ///
    /// Cancel safe: it is dropped, or not.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    async fn forget(&self, name: &ContentName) -> Result<(), StorageError> {
        let _ = name;
        Ok(())
    }

    /// All contents that were [remembered](Self::remember) and are still there,
    /// unchanged as far as can be told without reading them. Each is open. By
    /// default none.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the list cannot be had at all; a single content
    /// that fails is left out.
    async fn catalogue(&self) -> Result<Vec<Stored>, StorageError> {
        Ok(Vec::new())
    }
}

/// A content that is open for writing.
pub struct Partial {
    /// Where its bytes go.
    pub blob: Arc<dyn Blob>,
    /// The chunks that are there already, which the storage vouches for: they
    /// need not be fetched, and [`Blob::finish`] does not make a wrong content
    /// visible because of them.
    pub present: Bitfield,
    /// Those of them whose bytes are known to be right, because they were
    /// verified since the storage was opened. The others are here by the word
    /// of a record from before a restart: verify one before it is served to
    /// anybody for the first time, and write it again if it is wrong.
    pub verified: Bitfield,
    /// Whether nobody has touched the bytes of those present since they were
    /// recorded, as far as the storage can tell: then finishing need not wait
    /// until all of them were looked at. `false` is always right.
    pub untouched: bool,
}

/// A finished content that a storage keeps in mind.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Its name in the storage.
    pub name: ContentName,
    /// What trackers are told that it is called: another name than in the
    /// storage if it was downloaded under one of the user's own.
    pub listed_as: ContentName,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its bytes, open for reading. If they change, reading fails with
    /// [`StorageError::Changed`].
    pub blob: Arc<dyn Blob>,
}

impl Stored {
    /// A content that bears the same name here and at trackers.
    pub fn new(name: ContentName, manifest: Manifest, blob: Arc<dyn Blob>) -> Self {
        Self {
            listed_as: name.clone(),
            name,
            manifest,
            blob,
        }
    }

    /// Trackers are told another name.
    #[must_use]
    pub fn listed_as(mut self, name: ContentName) -> Self {
        self.listed_as = name;
        self
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("name", &self.name)
            .field("listed_as", &self.listed_as)
            .field("id", &self.manifest.id())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial")
            .field("present", &self.present)
            .field("verified", &self.verified)
            .field("untouched", &self.untouched)
            .finish_non_exhaustive()
    }
}

/// The bytes of one content. Reads and writes name their position; many may
/// run at once, on different parts.
///
/// Dropping a future of a method neither tears what another method sees nor
/// keeps a lock; whether and when a dropped write happens is open.
#[async_trait]
pub trait Blob: Send + Sync + 'static {
    /// The length in bytes.
    fn length(&self) -> u64;

    /// Reads exactly `len` bytes from `offset` on.
    ///
    /// # Errors
    /// [`StorageError::OutOfBounds`] past the end,
    /// [`StorageError::Changed`] when somebody changed a finished content, and
    /// [`StorageError::Io`] when reading fails or the bytes are gone.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError>;

    /// Writes the pieces one behind the other, from `offset` on. When it
    /// returns, [`read_at`](Self::read_at) gives them back.
    ///
    /// # Errors
    /// [`StorageError::OutOfBounds`] past the end, [`StorageError::ReadOnly`]
    /// for a content that was opened for reading or is finished,
    /// [`StorageError::Full`], and [`StorageError::Io`].
    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError>;

    /// Makes durable what was written before the call, and that these chunks
    /// (all that are verified so far) and no others may be trusted when the
    /// content is opened again.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::Io`]. The blob is of no use
    /// for writing then: nothing that was written since the last successful
    /// commit counts as durable, and to go on from there the content has to be
    /// created again.
    ///
    /// # Panics
    /// May panic if `verified` is of another number of chunks.
    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError>;

    /// Makes the content, which is whole now, visible under its name, never
    /// replacing anything; durable when it returns. May be repeated.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when the name was taken meanwhile,
    /// [`StorageError::Altered`] when a chunk that was there when the content
    /// was created, and was not [untouched](Partial::untouched), is wrong, and what [`commit`](Self::commit) may meet.
    async fn finish(&self) -> Result<(), StorageError>;

    /// Makes a content durable, with its name, that was
    /// [opened](Storage::open) for reading: it was found there, and whoever put
    /// it there may have done so a moment ago. By default nothing is done, for
    /// storages in which what can be opened is durable. Who wraps a blob passes
    /// this on.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// The file behind a content that was opened for reading or is finished, if
    /// there is one: by what [`Storage::remember`] can find it again. Who wraps
    /// a blob passes this on. By default there is none.
    fn file(&self) -> Option<FileStamp> {
        None
    }
}

/// What can go wrong on this side's storage. Never blamed on a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The name is taken by something else, which is left alone.
    #[error("{} exists already", located(path, name))]
    Exists {
        /// The name.
        name: ContentName,
        /// Where it stands, in a storage that has paths.
        path: Option<PathBuf>,
    },
    /// Another download writes this content in this place.
    #[error("{} is being written by another download", located(path, id))]
    Locked {
        /// The content.
        id: ContentId,
        /// The unfinished file, in a storage that has paths.
        path: Option<PathBuf>,
    },
    /// There is no such content.
    #[error("{name} is not in the storage")]
    NotFound {
        /// The name.
        name: ContentName,
    },
    /// The storage keeps this name for itself.
    #[error("{name} is a name that the storage keeps for itself")]
    Reserved {
        /// The name.
        name: ContentName,
    },
    /// The name is not safe as a file name.
    #[error("{name:?} is no safe file name: {reason}")]
    UnsafeName {
        /// The name.
        name: ContentName,
        /// Why it is not.
        reason: UnsafeName,
    },
    /// A read or write past the end of the content, in bytes.
    #[error("{len} bytes at {offset} of a content of {length}")]
    OutOfBounds {
        /// Where it starts.
        offset: u64,
        /// How long it is.
        len: u64,
        /// How long the content is.
        length: u64,
    },
    /// What stands under the name is nothing that the storage reads or writes:
    /// a link, a directory, a pipe, a device, or an unfinished file that has
    /// another name too. It is left alone.
    #[error("{} is {found}", path.display())]
    NotAFile {
        /// Where it is.
        path: PathBuf,
        /// What it is, in words.
        found: &'static str,
    },
    /// The content was opened for reading.
    #[error("the content is open for reading only")]
    ReadOnly,
    /// A finished content is not what it was when it was opened: somebody
    /// changed its file. It is left alone.
    #[error("{} has changed since it was opened", path.display())]
    Changed {
        /// Where it is.
        path: PathBuf,
    },
    /// What an earlier download left behind is not what it was. The chunks that
    /// are wrong are no longer counted as present: a new download fetches them
    /// again, and keeps the others.
    #[error("chunk {chunk} of {} was altered since it was written", path.display())]
    Altered {
        /// Where it is.
        path: PathBuf,
        /// The first chunk that is wrong.
        chunk: ChunkIndex,
    },
    /// There is no room.
    #[error("no space for {what}{}", room(*needed, *available))]
    Full {
        /// What did not fit.
        what: String,
        /// How many bytes are needed; 0 if that is not known.
        needed: u64,
        /// How many bytes there are, if that is known.
        available: Option<u64>,
    },
    /// The operating system, or whatever is behind the storage, failed.
    #[error("{what}: {detail}")]
    Io {
        /// What was tried, and where.
        what: String,
        /// The kind of failure.
        kind: io::ErrorKind,
        /// What the operating system says.
        detail: String,
    },
}

impl StorageError {
    /// A failure of the operating system while doing `what`.
    pub fn io(what: impl Into<String>, error: &io::Error) -> Self {
        Self::Io {
            what: what.into(),
            kind: error.kind(),
            detail: error.to_string(),
        }
    }
}

/// What a message is about: its path where it has one.
pub(crate) fn located(path: &Option<PathBuf>, what: impl fmt::Display) -> String {
    match path {
        Some(path) => path.display().to_string(),
        None => what.to_string(),
    }
}

/// The end of a message about room.
fn room(needed: u64, available: Option<u64>) -> String {
    match (needed, available) {
        (0, None) => String::new(),
        (needed, None) => format!(": {needed} bytes needed"),
        (needed, Some(available)) => format!(": {needed} bytes needed, {available} available"),
    }
}

/// Checks that `len` bytes from `offset` on lie in a content of `length`
/// bytes: what every blob does before it reads or writes.
///
/// # Errors
/// [`StorageError::OutOfBounds`].
pub fn check_range(offset: u64, len: u64, length: u64) -> Result<(), StorageError> {
    match offset.checked_add(len) {
        Some(end) if end <= length => Ok(()),
        _ => Err(StorageError::OutOfBounds {
            offset,
            len,
            length,
        }),
    }
}
