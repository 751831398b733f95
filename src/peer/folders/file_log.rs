//! The files of a folder that are here, in the order in which they came.
//!
//! What it promises: nothing is ever taken out, and no file is in it twice. So whoever reads
//! it at their own pace misses none, and it has as many entries as the folder at most.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peer) struct LoggedFile {
    /// Its number among the entries of the index.
    pub(in crate::peer) entry: usize,
    /// Whether it did not have to be fetched.
    pub(in crate::peer) found: bool,
}

/// The files of one download. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::peer) struct FileLog(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    files: Vec<LoggedFile>,
    entries: HashSet<usize>,
}

impl FileLog {
    /// A file is here. No effect if it was already.
    pub(in crate::peer) fn add(&self, file: LoggedFile) {
        let mut log = self.log();
        if log.entries.insert(file.entry) {
            log.files.push(file);
        }
    }

    /// The file that came after so many others.
    pub(in crate::peer) fn get(&self, position: usize) -> Option<LoggedFile> {
        self.log().files.get(position).copied()
    }

    /// All of them.
    #[cfg(feature = "file-storage")]
    pub(in crate::peer) fn all(&self) -> Vec<LoggedFile> {
        self.log().files.clone()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
