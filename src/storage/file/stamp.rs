//! How to tell that a file has not changed, without reading it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::disk::{DiskFile, FileStat};
use super::failure::failed;
use super::timestamp::Timestamp;
use crate::storage::StorageError;

/// For how long a file may change without a new modification time, at most:
/// twice the slowest tick of a kernel.
const FINE_STEP: Duration = Duration::from_millis(20);
/// The same for a file system that stores times in units of one or two seconds.
const COARSE_STEP: Duration = Duration::from_secs(2);

/// The path, length and modification time of a file at the moment when a
/// [`Blob`](crate::storage::Blob) of it was opened or finished. A storage that
/// [remembers](crate::Storage::remember) the content compares them later to
/// tell whether the file has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
}

impl FileStamp {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether two stamps are of one file that has not changed between, as far as its
    /// path, its length and its modification time tell.
    pub fn is_same(&self, other: &Self) -> bool {
        let stat = |stamp: &Stamp| (stamp.len, stamp.modified);
        self.path == other.path && stat(&self.stamp) == stat(&other.stamp)
    }
}

/// The same without the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) len: u64,
    pub(super) modified: Timestamp,
    /// Whether every later change gives the file another modification time.
    pub(super) settled: bool,
}

impl Stamp {
    /// The stamp of a file that was just examined.
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            len: stat.len,
            modified: stat.modified,
            settled: is_settled(stat.modified, SystemTime::now()),
        }
    }

    /// Whether a file with this stamp could have been examined now.
    pub(super) fn is_of(&self, now: &FileStat) -> bool {
        (now.len, now.modified) == (self.len, self.modified)
    }

    /// The error of a file that has this stamp, and reads as something of another
    /// length.
    pub(super) fn wrong_length(&self, path: PathBuf) -> StorageError {
        StorageError::WrongLength {
            path,
            length: self.len,
        }
    }

    /// Checks that a file still has this length and modification time. Returns what it
    /// has now.
    ///
    /// # Errors
    /// [`StorageError::Changed`] if it does not.
    pub(super) fn check(
        &self,
        file: &impl DiskFile,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<FileStat, StorageError> {
        match file.stat() {
            Ok(now) if self.is_of(&now) => Ok(now),
            Ok(_) => Err(StorageError::Changed { path: path() }),
            Err(e) => Err(failed("examining", &path(), e)),
        }
    }
}

/// Whether a file with this modification time cannot be modified at `now` or
/// later without getting another one.
fn is_settled(modified: Timestamp, now: SystemTime) -> bool {
    let step = match modified.nanos {
        0 => COARSE_STEP,
        _ => FINE_STEP,
    };
    modified.until(now) > step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_settled_after_the_clock_of_the_file_system_has_advanced() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        for (modified, now, settled) in [
            (1_001, 1_001, false),
            (1_001, 1_021, false),
            (1_001, 1_022, true),
            (1_001, 900, false),
            // Whole seconds: the file system may store nothing finer.
            (2_000, 2_500, false),
            (2_000, 4_001, true),
        ] {
            let found = is_settled(at(modified).into(), at(now));
            assert_eq!(found, settled, "{modified} {now}");
        }
    }
}
