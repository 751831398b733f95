//! What only a storage of files has, in a build without one: the methods of the traits
//! that return it are the same, and always return `None`.

use std::convert::Infallible;
use std::path::Path;

/// What a storage of files tells a file by. Only one of the feature `file-storage` has
/// it, so without the feature there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp(Infallible);

impl FileStamp {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        match self.0 {}
    }

    /// Whether two stamps are of one file that has not changed between.
    pub fn is_same(&self, _other: &Self) -> bool {
        match self.0 {}
    }
}

/// Where a storage of files keeps folders. Only one of the feature `file-storage` keeps
/// them, so without the feature there is none.
#[derive(Debug, Clone)]
pub struct Folders(Infallible);
