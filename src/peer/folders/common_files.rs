//! The files of a folder that lie in those of another content, while both are being fetched.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::target::FolderTarget;
use crate::content::{ContentId, ContentName, FolderIndex, FolderItem, FolderPath, Manifest};
use crate::peer::contents::common_place::{CommonPlace, CommonTree};
use crate::peer::contents::driver::TargetOptions;
use crate::storage::{Blob, Partial, Storage, StorageError, TreeRoot};

/// Which files of a folder lie in those of another content.
pub(super) struct CommonFiles {
    pub(super) tree: Arc<dyn CommonTree>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// Where each of them is: one place, if it is at several.
    paths: HashMap<ContentId, FolderPath>,
    /// Those that were fetched there.
    fetched: HashSet<ContentId>,
    /// The others that were fetched, to the home of the folder.
    at_home: HashSet<ContentId>,
}

impl CommonFiles {
    pub(super) fn new(tree: Arc<dyn CommonTree>) -> Self {
        Self {
            tree,
            files: Mutex::default(),
        }
    }

    /// This is in the folder, which is to lie in `root`.
    ///
    /// # Errors
    /// [`StorageError::Mismatch`] if a file has another length than that of the other content.
    pub(super) fn know(&self, whole: &FolderIndex, root: &TreeRoot) -> Result<(), StorageError> {
        let mut files = self.files();
        for entry in whole.entries() {
            let (FolderItem::File { id, length, .. }, Some(other)) =
                (&entry.item, self.tree.length_of(&entry.path))
            else {
                continue;
            };
            if *length != other {
                let path = root.path().join(entry.path.as_str());
                return Err(StorageError::Mismatch { path });
            }
            if *length > 0 && self.tree.is_under_way() {
                files.paths.entry(*id).or_insert_with(|| entry.path.clone());
            }
        }
        Ok(())
    }

    /// The place of a file, if it is one of them.
    pub(super) fn place(&self, id: &ContentId) -> Option<CommonPlace> {
        let path = self.files().paths.get(id)?.clone();
        self.tree.place(&path)
    }

    /// A file was fetched there.
    pub(super) fn fetched(&self, id: ContentId) {
        self.files().fetched.insert(id);
    }

    /// A file was fetched, to the home of the folder.
    pub(super) fn is_at_home(&self, id: ContentId) {
        self.files().at_home.insert(id);
    }

    /// Whether a file was fetched to the home of the folder.
    pub(super) fn has_at_home(&self, id: &ContentId) -> bool {
        self.files().at_home.contains(id)
    }

    /// Whether a file was fetched there.
    pub(super) fn is_fetched(&self, id: &ContentId) -> bool {
        self.files().fetched.contains(id)
    }

    /// The files that were fetched there, with their numbers in the index.
    pub(super) fn all_fetched(&self, whole: &FolderIndex) -> Vec<(u32, ContentId)> {
        let files = self.files();
        let number = |path: &FolderPath| {
            let at = whole.entries().partition_point(|entry| entry.path < *path);
            at as u32
        };
        let fetched = files.fetched.iter();
        let all = fetched.filter_map(|id| Some((number(files.paths.get(id)?), *id)));
        all.collect()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a file of the folder is fetched to that lies in those of another content.
pub(super) fn target_of(place: &CommonPlace, target: &Arc<FolderTarget>) -> TargetOptions {
    let storage = CommonTarget {
        place: Arc::clone(&place.storage),
        target: Arc::clone(target),
    };
    let mut target = TargetOptions::to(Arc::new(storage));
    target.sibling = Some(Arc::clone(&place.sibling));
    // It takes no room of its own.
    target.is_private = true;
    target
}

/// The storage of such a file. What it opens can be moved later.
struct CommonTarget {
    place: Arc<dyn Storage>,
    target: Arc<FolderTarget>,
}

#[async_trait]
impl Storage for CommonTarget {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let mut partial = self.place.create(name, manifest).await?;
        partial.blob = self.target.add(manifest.id(), partial.blob);
        Ok(partial)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.place.has_partial(id).await
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        self.place.discard_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.place.open(name).await
    }
}
