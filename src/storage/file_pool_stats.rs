//! The figures of the open files of a storage.

/// How many files a [`FilePool`](crate::storage::FilePool) has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilePoolStats {
    /// How many places are taken by files that are open, or are about to be.
    pub open: usize,
    /// How many places there are.
    pub max_open: usize,
    /// How many reads and downloads wait for a place.
    pub waiting: usize,
}
