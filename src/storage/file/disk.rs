//! The seam under the file storage: every operation that reaches the disk goes
//! through [`Disk`] and [`DiskFile`], and there is no other way to one.
//!
//! Two things implement it: the operating system (`dir`), and in tests a model
//! of a disk that can crash after any operation (`crash`). What stands above
//! must be right over both, so it must not rely on more than is written here:
//! what was not synced may be kept, lost or torn in any order, and when a sync
//! fails, what it was to make durable may be gone, whatever a later sync says.

use std::fmt;
use std::fs::TryLockError;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::dir::{Kind, Refused};

/// A directory. A name is looked up in it and nowhere else, and no link is
/// followed.
pub(super) trait Disk: fmt::Debug + Send + Sync + Sized + 'static {
    type File: DiskFile;

    /// What stands under a name; a link counts as itself.
    fn kind(&self, name: &str) -> io::Result<Option<Kind>>;

    /// All names that are UTF-8, in any order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading.
    fn open_existing(&self, name: &str) -> Result<Self::File, Refused>;

    /// Opens a file for reading and writing, or creates it.
    fn open_or_create(&self, name: &str) -> Result<Self::File, Refused>;

    /// Whether the name stands for this very file.
    ///
    /// # Errors
    /// [`Kind::SharedFile`] if it does, and another name too.
    fn is_at(&self, name: &str, file: &Self::File) -> Result<bool, Refused>;

    /// Gives what has the name `from` the name `to` instead, in one step that
    /// replaces nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has that name, and
    /// [`io::ErrorKind::Unsupported`] where there is no such step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives what has the name `from` the name `to` as well.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has that name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;

    /// Makes the name of the directory itself durable, in the one above, as far
    /// as that one can be reached.
    fn sync_above(&self) -> io::Result<()>;

    /// How many bytes there is room for, if that can be told.
    fn available(&self) -> Option<u64>;
}

/// An open file, which is read and written by position.
pub(super) trait DiskFile: Send + Sync + 'static {
    fn stat(&self) -> io::Result<FileStat>;

    /// Takes the lock of the file, against every other opening of it.
    fn try_lock(&self) -> Result<(), TryLockError>;

    fn unlock(&self) -> io::Result<()>;

    /// Reads exactly `len` bytes.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;

    /// Writes all pieces one behind the other.
    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()>;

    /// Cuts the file, or extends it by a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Takes the room for `len` bytes from the start on, where the file system
    /// can do that.
    fn allocate(&self, len: u64) -> io::Result<()>;

    fn set_modified(&self, time: SystemTime) -> io::Result<()>;

    /// Makes the bytes durable, and the length.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the bytes durable, the length, and the times.
    fn sync_all(&self) -> io::Result<()>;
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStat {
    pub(super) len: u64,
    /// How many bytes of room it takes; holes take none.
    pub(super) allocated: u64,
    pub(super) modified: Stamp,
}

/// A modification time, as it is recorded: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

impl Stamp {
    pub(super) const LEN: usize = 12;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.seconds.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nanos.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let (seconds, nanos) = bytes.split_at(8);
        Self {
            seconds: i64::from_le_bytes(seconds.try_into().expect("split at its length")),
            nanos: u32::from_le_bytes(nanos.try_into().expect("split at its length")),
        }
    }

    /// How much later than this the time is; nothing if it is earlier.
    pub(super) fn until(self, later: SystemTime) -> Duration {
        let nanos =
            |stamp: Self| i128::from(stamp.seconds) * 1_000_000_000 + i128::from(stamp.nanos);
        let elapsed = nanos(later.into()) - nanos(self);
        Duration::from_nanos(u64::try_from(elapsed.max(0)).unwrap_or(u64::MAX))
    }
}

impl From<SystemTime> for Stamp {
    fn from(time: SystemTime) -> Self {
        let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (since.as_secs() as i64, since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => (-(before.as_secs() as i64), 0),
                    nanos => (-(before.as_secs() as i64) - 1, 1_000_000_000 - nanos),
                }
            }
        };
        Self { seconds, nanos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_keeps_order_and_nanoseconds_around_1970() {
        let at = |nanos: i64| -> Stamp {
            let step = Duration::from_nanos(nanos.unsigned_abs());
            match nanos < 0 {
                true => (UNIX_EPOCH - step).into(),
                false => (UNIX_EPOCH + step).into(),
            }
        };
        let times = [-2_000_000_001, -2_000_000_000, -1, 0, 1, 1_500_000_000];
        let stamps = times.map(at);
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        for stamp in stamps {
            assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
        }
        let later = UNIX_EPOCH + Duration::from_secs(3);
        assert_eq!(at(1_500_000_000).until(later), Duration::from_millis(1500));
        assert_eq!(at(4_000_000_000).until(later), Duration::ZERO);
    }
}
