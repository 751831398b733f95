//! The files of a folder that lie in those of another content, while both are being fetched.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::error::FolderError;
use super::obtain::{Obtain, Obtained};
use super::place::{Base, missing};
use super::target::FolderTarget;
use crate::content::{ContentId, ContentName, FolderIndex, FolderItem, FolderPath, Manifest};
use crate::peer::contents::common_place::{CommonPlace, CommonTree};
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::pour::pour;
use crate::storage::{
    Blob, Partial, PlacedFiles, Staged, Storage, StorageError, TreeRoot, open_file,
};

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

    fn is_fetched(&self, id: &ContentId) -> bool {
        self.files().fetched.contains(id)
    }

    /// The files that were fetched there, with their numbers in the index.
    fn all_fetched(&self, whole: &FolderIndex) -> Vec<(u32, ContentId)> {
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

impl Obtain {
    /// The place of a file in another content, if it has one.
    pub(super) fn common_place(&self, id: &ContentId) -> Option<CommonPlace> {
        self.common.as_ref()?.place(id)
    }

    /// The other content gets the bytes of a file that is here already.
    pub(super) async fn poured(&self, id: ContentId, found: Obtained) -> Obtained {
        if let Some(place) = self.common_place(&id)
            && let Err(error) = pour(&*found.blob, id, &*place.storage).await
        {
            // Then it is fetched there. If the two differ, the folder finds no place.
            tracing::warn!(%id, %error, "the other content does not get what is here");
        }
        found
    }

    /// What of the folder lies in the other content, which is complete; and what of the folder
    /// is missing there.
    ///
    /// # Errors
    /// [`FolderError::TargetExists`] if something else is there.
    pub(super) async fn beside(
        &self,
        (root, name): (TreeRoot, ContentName),
        (whole, part): (&FolderIndex, &FolderIndex),
    ) -> Result<(Base, FolderIndex), FolderError> {
        let mut placed = PlacedFiles::none(root.clone(), true);
        let fetched = self.common.as_ref().map(|common| common.all_fetched(whole));
        for (number, id) in fetched.unwrap_or_default() {
            let path = &whole.entries()[number as usize].path;
            if let Some(blob) = self.target.opened(&id) {
                // An error if the other content had other bytes after all.
                blob.now().finish().await?;
            }
            let there = open_file(root.path().join(path.as_str())).await?;
            placed.add((number, id), &*there, &Staged::default());
        }
        let mut base = Some(Base {
            name,
            overwrites: false,
            inherited: Staged::default(),
            placed,
        });
        let missing = missing(&self.shared, &self.home, whole, part, &mut base).await?;
        let base = base.expect("it was just set");
        Ok((base, missing))
    }

    /// Has these files in the home as well: they were fetched to the other content, and are to
    /// be put elsewhere.
    pub(super) async fn copy_home(
        &self,
        wanted: &FolderIndex,
        blobs: &mut HashMap<ContentId, Arc<dyn Blob>>,
    ) -> Result<(), StorageError> {
        let Some(common) = &self.common else {
            return Ok(());
        };
        let mut copied = HashSet::new();
        for entry in wanted.entries() {
            let FolderItem::File { id, .. } = entry.item else {
                continue;
            };
            let Some(blob) = blobs.get(&id).filter(|_| common.is_fetched(&id)).cloned() else {
                continue;
            };
            if !copied.insert(id) {
                continue;
            }
            let copy = self.home.adopt(id, &*blob).await?;
            let changed = || {
                let path = blob.path().unwrap_or_else(|| entry.path.as_str().into());
                StorageError::Changed { path }
            };
            let (copy, _) = copy.ok_or_else(changed)?;
            if let Some(opened) = self.target.opened(&id) {
                opened.move_to(Arc::clone(&copy));
            }
            blobs.insert(id, copy);
        }
        Ok(())
    }
}
