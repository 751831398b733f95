//! How a file is told to be the same as before, without reading it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::disk::{DiskFile, FileStat, Stamp};
use super::place::failed;
use crate::storage::StorageError;

/// How long a modification time may stand still: twice the slowest tick of a
/// kernel.
const FINE_STEP: Duration = Duration::from_millis(20);
/// The same where the file system keeps whole seconds, or every second one.
const COARSE_STEP: Duration = Duration::from_secs(2);

/// A file as it was when a [`Blob`](crate::storage::Blob) of it was opened or
/// finished: where, how long, and when modified. By this a storage that
/// [remembers](crate::Storage::remember) the content tells later whether the
/// file is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    pub(super) path: PathBuf,
    pub(super) stat: FileStat,
    /// Whether every later change must show in the modification time.
    pub(super) settled: bool,
}

impl FileStamp {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn of(file: &impl DiskFile, path: PathBuf) -> Result<Self, StorageError> {
        match file.stat() {
            Ok(stat) => Ok(Self {
                path,
                settled: is_settled(stat.modified, SystemTime::now()),
                stat,
            }),
            Err(e) => Err(failed("looking at", &path, 0, &e)),
        }
    }

    /// Whether the file is as it was, by its length and modification time.
    pub(super) fn check(&self, file: &impl DiskFile) -> Result<(), StorageError> {
        match file.stat() {
            Ok(now) if self.fits(&now) => Ok(()),
            Ok(_) => Err(StorageError::Changed {
                path: self.path.clone(),
            }),
            Err(e) => Err(failed("looking at", &self.path, 0, &e)),
        }
    }

    pub(super) fn fits(&self, now: &FileStat) -> bool {
        (now.len, now.modified) == (self.stat.len, self.stat.modified)
    }
}

/// Whether a file that was modified then, and is looked at now, cannot be
/// modified any more without that showing in its modification time.
fn is_settled(modified: Stamp, now: SystemTime) -> bool {
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
    fn stamp_is_settled_when_the_clock_of_the_file_system_has_moved_on() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        for (modified, now, settled) in [
            (1_001, 1_001, false),
            (1_001, 1_021, false),
            (1_001, 1_022, true),
            (1_001, 900, false),
            // Whole seconds: a file system that keeps no finer ones.
            (2_000, 2_500, false),
            (2_000, 4_001, true),
        ] {
            let found = is_settled(at(modified).into(), at(now));
            assert_eq!(found, settled, "{modified} {now}");
        }
    }
}
