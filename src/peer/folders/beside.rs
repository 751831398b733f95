//! The end of a folder whose files lie in those of another content: what of it is in its place
//! with that, and what has to be put elsewhere.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::FolderError;
use super::obtain::Obtain;
use super::place::{Base, missing};
use crate::content::{ContentId, ContentName, FolderIndex, FolderItem};
use crate::storage::{Blob, PlacedFiles, Staged, StorageError, TreeRoot, open_file};

impl Obtain {
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
