//! Where the files of a folder are fetched to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::move_blob::MoveBlob;
use crate::content::{ContentId, ContentName, Manifest};
use crate::storage::{Blob, FileStorage, Partial, Storage, StorageError};

/// The storage in the home of a folder. Each file is in it under its id. What it
/// opens can be moved later.
pub(super) struct FolderTarget {
    files: FileStorage,
    opened: Mutex<HashMap<ContentId, Arc<MoveBlob>>>,
}

impl FolderTarget {
    pub(super) fn new(files: FileStorage) -> Arc<Self> {
        Arc::new(Self {
            files,
            opened: Mutex::default(),
        })
    }

    /// The blob of a file that was opened last, or was added.
    pub(super) fn opened(&self, id: &ContentId) -> Option<Arc<MoveBlob>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.get(id).cloned()
    }

    /// Wraps a blob of this file.
    pub(super) fn add(&self, id: ContentId, blob: Arc<dyn Blob>) -> Arc<MoveBlob> {
        let blob = MoveBlob::new(blob);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.insert(id, Arc::clone(&blob));
        blob
    }
}

#[async_trait]
impl Storage for FolderTarget {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let mut partial = self.files.create(name, manifest).await?;
        partial.blob = self.add(manifest.id(), partial.blob);
        Ok(partial)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.files.has_partial(id).await
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        self.files.discard_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        let blob = self.files.open(name).await?;
        match name.as_str().parse() {
            Ok(id) => Ok(self.add(id, blob)),
            Err(_) => Ok(blob),
        }
    }
}
