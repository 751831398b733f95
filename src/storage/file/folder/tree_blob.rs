//! The bytes of a file in the tree of a folder.

use std::sync::Arc;

use super::super::pool::FilePool;
use super::super::read_blob::{Located, Location, ReadBlob};
use super::super::stamp::Stamp;
use super::tree_root::TreeRoot;
use crate::content::FolderPath;
use crate::storage::Blob;

/// A file in a tree that must still have this stamp when it is read.
pub(super) fn tree_blob(
    root: &TreeRoot,
    path: &FolderPath,
    stamp: Stamp,
    pool: &FilePool,
) -> Arc<dyn Blob> {
    let location = Located {
        pool: Arc::clone(pool.pool()),
        at: Location::InTree(root.clone(), path.clone()),
    };
    Arc::new(ReadBlob::new(location, stamp))
}
