//! The interface to the file system. Every operation of the file storage that
//! reaches the disk goes through [`Disk`] and [`DiskFile`].
//!
//! There are two implementations: the operating system (`dir`), and in tests a
//! model of a disk that can crash after any operation (`crash`). The code above
//! must be correct over both, so it must not rely on more than is written here:
//! whatever was not synced may be kept, lost or torn in any order; and when a
//! sync fails, the data that it should have made durable may be lost, whatever
//! a later sync says.

use std::fmt;
use std::fs::{FileType, TryLockError};
use std::io;
use std::time::SystemTime;

use bytes::Bytes;

use super::timestamp::Timestamp;

/// A directory. A name is looked up in it and nowhere else, and no link is
/// followed.
pub(super) trait Disk: fmt::Debug + Send + Sync + Sized + 'static {
    type File: DiskFile;

    /// The kind of the entry under a name; a link counts as a link.
    fn kind(&self, name: &str) -> io::Result<Option<EntryKind>>;

    /// All names that are UTF-8, in any order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading.
    fn open_existing(&self, name: &str) -> Result<Self::File, Refused>;

    /// Opens a file for reading and writing, or creates it.
    fn open_or_create(&self, name: &str) -> Result<Self::File, Refused>;

    /// Whether the name refers to this very file.
    ///
    /// # Errors
    /// [`EntryKind::SharedFile`] if it does, and another name does as well.
    fn is_at(&self, name: &str, file: &Self::File) -> Result<bool, Refused>;

    /// Renames an entry in one step that replaces nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has the name `to`, and
    /// [`io::ErrorKind::Unsupported`] where the file system has no such step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives the entry `from` a second name.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has the name `to`, and
    /// [`io::ErrorKind::Unsupported`] where the file system has no hard links.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Creates an empty file.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has the name.
    fn create_new(&self, name: &str) -> io::Result<Self::File>;

    /// Renames an entry in one step that replaces what has the name `to`.
    fn replace(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;

    /// Makes the name of the directory itself durable, in its parent, as far as
    /// the parent can be opened.
    fn sync_parent(&self) -> io::Result<()>;

    /// How many bytes are available, if that is known.
    fn available(&self) -> Option<u64>;
}

/// An open file with positional reads and writes.
pub(super) trait DiskFile: Send + Sync + 'static {
    fn stat(&self) -> io::Result<FileStat>;

    /// Locks the file against all other open handles of it.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system has no locks.
    fn try_lock(&self) -> Result<(), TryLockError>;

    fn unlock(&self) -> io::Result<()>;

    /// Reads exactly `len` bytes.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;

    /// Reads exactly `len` bytes, if they are in memory. `None` tells nothing.
    fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes> {
        let _ = (offset, len);
        None
    }

    /// Writes all pieces one after the other.
    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()>;

    /// Fills the next `len` bytes of the file with the next ones of another file, as the
    /// system can do it best. The first call begins at the start of both. Returns whether
    /// it did. Nobody else may do so with either handle.
    fn copy_next(&self, source: &Self, len: u64) -> io::Result<bool> {
        let _ = (source, len);
        Ok(false)
    }

    /// Truncates the file, or extends it with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves the space of the first `len` bytes, if the file system can do
    /// that.
    fn allocate(&self, len: u64) -> io::Result<()>;

    fn set_modified(&self, time: SystemTime) -> io::Result<()>;

    /// Begins to bring to the disk the first `len` bytes, which were just written, and
    /// waits for nothing. So the syncs of several files, one after the other, wait for
    /// the disk together. It may do nothing.
    fn start_sync(&self, len: u64) {
        let _ = len;
    }

    /// Makes the bytes and the length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the bytes, the length and the times durable.
    fn sync_all(&self) -> io::Result<()>;
}

/// What the file system knows about a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStat {
    pub(super) len: u64,
    /// How many bytes it occupies; a hole occupies none.
    pub(super) allocated: u64,
    pub(super) modified: Timestamp,
    /// Whether it has a name. Some file systems say of every file that it has none.
    pub(super) linked: bool,
}

/// What is known about an entry of a folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub(super) kind: EntryKind,
    pub(super) stat: FileStat,
    /// Whether the owner of the file may run it. Only Unix knows that.
    pub(super) executable: bool,
}

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code))]
pub(super) enum EntryKind {
    File,
    /// A regular file with a second name. Writing to it could change a file
    /// outside the storage.
    SharedFile,
    Link,
    Directory,
    Pipe,
    Socket,
    Device,
    Other,
}

impl EntryKind {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::SharedFile => "a file with more than one hard link",
            Self::Link => "a symbolic link",
            Self::Directory => "a directory",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Other => "an unknown kind of file",
        }
    }
}

impl From<FileType> for EntryKind {
    fn from(kind: FileType) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            if kind.is_fifo() {
                return Self::Pipe;
            }
            if kind.is_socket() {
                return Self::Socket;
            }
            if kind.is_block_device() || kind.is_char_device() {
                return Self::Device;
            }
        }
        if kind.is_file() {
            Self::File
        } else if kind.is_symlink() {
            Self::Link
        } else if kind.is_dir() {
            Self::Directory
        } else {
            Self::Other
        }
    }
}

/// Why an entry was not opened.
#[derive(Debug)]
pub(super) enum Refused {
    /// The storage does not use entries of this kind.
    Kind(EntryKind),
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

/// How many bytes are available on a volume with this many blocks in total. A
/// volume without blocks does not know: some network and user-space file systems
/// state zeros.
#[cfg_attr(not(unix), allow(dead_code))]
pub(super) fn available_bytes(blocks: u64, available: u64, block_len: u64) -> Option<u64> {
    match blocks == 0 || block_len == 0 {
        true => None,
        false => available.checked_mul(block_len),
    }
}

/// The file ended where bytes were expected.
pub(super) fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file is too short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_that_states_no_size_is_not_full() {
        assert_eq!(available_bytes(0, 0, 4096), None);
        assert_eq!(available_bytes(0, 0, 0), None);
        assert_eq!(available_bytes(100, 7, 0), None);
        assert_eq!(available_bytes(100, 0, 4096), Some(0));
        assert_eq!(available_bytes(100, 7, 4096), Some(7 * 4096));
        assert_eq!(available_bytes(u64::MAX, u64::MAX, 2), None);
    }
}
