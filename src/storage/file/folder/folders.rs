//! Where a storage keeps folders.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::super::dir::Dir;
use super::super::pool::FilePool;
use super::super::recovery::RecoveryOptions;
use super::super::storage_dir::StorageDir;
use super::tree_root::TreeRoot;
use crate::content::ContentName;

/// The directory in which a storage keeps folders: what
/// [`Storage::folders`](crate::Storage::folders) returns. Only a
/// [`FileStorage`](crate::FileStorage) has one.
#[derive(Clone)]
pub struct Folders {
    pub(in super::super) dir: Arc<StorageDir<Dir>>,
    pub(in super::super) pool: FilePool,
    pub(in super::super) options: RecoveryOptions,
}

impl Folders {
    /// Where the folder with this name lies.
    pub(crate) fn root(&self, name: &ContentName) -> TreeRoot {
        TreeRoot::stored(Arc::clone(&self.dir), name.clone())
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pool(&self) -> &FilePool {
        &self.pool
    }
}

impl fmt::Debug for Folders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Folders").field(&self.dir.path()).finish()
    }
}
