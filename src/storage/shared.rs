//! A storage behind a pointer is a storage: `Box<dyn Storage>`, `Arc<dyn Storage>`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::error::StorageError;
use super::paused::{PausedDownload, PausedId};
use super::traits::{Blob, Catalogue, Draft, Partial, Storage, Stored};
use super::{FilePoolStats, FileStamp, Folders};
use crate::content::{ContentId, ContentName, Manifest};

/// Forwards every method, also those with a default.
macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: Storage + ?Sized> Storage for $pointer<T> {
            async fn create(
                &self,
                name: &ContentName,
                manifest: &Manifest,
            ) -> Result<Partial, StorageError> {
                (**self).create(name, manifest).await
            }

            async fn create_replacing(
                &self,
                name: &ContentName,
                manifest: &Manifest,
            ) -> Result<Partial, StorageError> {
                (**self).create_replacing(name, manifest).await
            }

            async fn draft(&self, name: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
                (**self).draft(name).await
            }

            async fn in_directory(&self, path: &Path) -> Result<Arc<dyn Storage>, StorageError> {
                (**self).in_directory(path).await
            }

            fn path(&self, name: &ContentName) -> Option<PathBuf> {
                (**self).path(name)
            }

            fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
                (**self).check_name(name)
            }

            async fn has_partial(&self, id: &ContentId) -> bool {
                (**self).has_partial(id).await
            }

            async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
                (**self).discard_partial(id).await
            }

            fn folders(&self) -> Option<Folders> {
                (**self).folders()
            }

            fn open_files(&self) -> Option<FilePoolStats> {
                (**self).open_files()
            }

            async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
                (**self).open(name).await
            }

            async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
                (**self).remember(stored).await
            }

            async fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
                (**self).forget(name, id).await
            }

            async fn remove(
                &self,
                name: &ContentName,
                id: &ContentId,
                known: Option<&FileStamp>,
            ) -> Result<(), StorageError> {
                (**self).remove(name, id, known).await
            }

            async fn remember_paused(&self, paused: &PausedDownload) -> Result<(), StorageError> {
                (**self).remember_paused(paused).await
            }

            async fn forget_paused(&self, id: &PausedId) -> Result<(), StorageError> {
                (**self).forget_paused(id).await
            }

            async fn paused(&self) -> Result<Vec<PausedDownload>, StorageError> {
                (**self).paused().await
            }

            async fn catalogue(&self) -> Result<Catalogue, StorageError> {
                (**self).catalogue().await
            }

            async fn manifest(
                &self,
                name: &ContentName,
                id: &ContentId,
            ) -> Result<Option<Manifest>, StorageError> {
                (**self).manifest(name, id).await
            }
        }
    };
}

forward!(Arc);
forward!(Box);
