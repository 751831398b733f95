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
//! storage verifies nothing: it is told which chunks are verified, and trusts
//! that whoever calls [`Blob::finish`] has verified them all.
//!
//! To bring your own (a database, an object store), implement [`Storage`] and
//! [`Blob`], and run the conformance suite `bt_lite::testing::storage` on it
//! (feature `testing`).

mod file;
mod memory;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::content::{Bitfield, ContentId, ContentName, Manifest};

pub use file::{FileStorage, open_file};
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
    /// and whatever opening and reserving may meet.
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError>;

    /// Opens a finished content for reading, by its name.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is none.
    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError>;
}

/// A content that is open for writing.
pub struct Partial {
    /// Where its bytes go.
    pub blob: Arc<dyn Blob>,
    /// The chunks that are there already, which the storage vouches for.
    pub present: Bitfield,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial")
            .field("present", &self.present)
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
    /// [`StorageError::OutOfBounds`] past the end, and
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
    /// (all that are verified so far) may be trusted when the content is
    /// opened again.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::Io`]; nothing that was
    /// written since the last successful commit counts as durable then.
    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError>;

    /// Makes the content, which is whole now, visible under its name, never
    /// replacing anything; durable when it returns. May be repeated.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when the name was taken meanwhile, and what
    /// [`commit`](Self::commit) may meet.
    async fn finish(&self) -> Result<(), StorageError>;
}

/// What can go wrong on this side's storage. Never blamed on a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The name is taken by something else, which is left alone.
    #[error("{name} exists already")]
    Exists {
        /// The name.
        name: ContentName,
    },
    /// Another download writes this content in this place.
    #[error("{id} is being downloaded into this place already")]
    Locked {
        /// The content.
        id: ContentId,
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
    /// There is no room.
    #[error("no space for {what}: {needed} bytes needed")]
    Full {
        /// What did not fit.
        what: String,
        /// How many bytes were to be written.
        needed: u64,
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
