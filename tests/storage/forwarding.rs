//! A storage behind a pointer does what the storage does: every method of the trait is
//! forwarded, also those with a default.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::storage::{
    Blob, Catalogue, Draft, FilePoolStats, FileStamp, Folders, Partial, PausedDownload, PausedId,
    Stored,
};
use bt_lite::{ContentId, ContentName, Manifest, MemoryStorage, Storage, StorageError};

use crate::traits::methods;

/// Writes down which of its methods were called.
#[derive(Clone, Default)]
struct Written {
    calls: Arc<Mutex<Vec<&'static str>>>,
    inner: MemoryStorage,
}

impl Written {
    fn called(&self, method: &'static str) {
        self.calls.lock().unwrap().push(method);
    }
}

#[async_trait]
impl Storage for Written {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.called("create");
        self.inner.create(name, manifest).await
    }

    async fn create_replacing(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.called("create_replacing");
        self.inner.create_replacing(name, manifest).await
    }

    async fn draft(&self, name: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
        self.called("draft");
        self.inner.draft(name).await
    }

    async fn in_directory(&self, path: &Path) -> Result<Arc<dyn Storage>, StorageError> {
        self.called("in_directory");
        let path = path.to_path_buf();
        Err(StorageError::NotADirectory { path })
    }

    fn path(&self, name: &ContentName) -> Option<PathBuf> {
        self.called("path");
        Some(name.as_str().into())
    }

    fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
        self.called("check_name");
        Err(StorageError::Reserved { name: name.clone() })
    }

    async fn has_partial(&self, _: &ContentId) -> bool {
        self.called("has_partial");
        true
    }

    async fn discard_partial(&self, _: &ContentId) -> Result<bool, StorageError> {
        self.called("discard_partial");
        Ok(true)
    }

    fn folders(&self) -> Option<Folders> {
        self.called("folders");
        None
    }

    fn open_files(&self) -> Option<FilePoolStats> {
        self.called("open_files");
        None
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.called("open");
        self.inner.open(name).await
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        self.called("remember");
        self.inner.remember(stored).await
    }

    async fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
        self.called("forget");
        self.inner.forget(name, id).await
    }

    async fn remember_paused(&self, paused: &PausedDownload) -> Result<(), StorageError> {
        self.called("remember_paused");
        self.inner.remember_paused(paused).await
    }

    async fn forget_paused(&self, id: &PausedId) -> Result<(), StorageError> {
        self.called("forget_paused");
        self.inner.forget_paused(id).await
    }

    async fn paused(&self) -> Result<Vec<PausedDownload>, StorageError> {
        self.called("paused");
        self.inner.paused().await
    }

    async fn remove(
        &self,
        name: &ContentName,
        id: &ContentId,
        known: Option<&FileStamp>,
    ) -> Result<(), StorageError> {
        self.called("remove");
        self.inner.remove(name, id, known).await
    }

    async fn catalogue(&self) -> Result<Catalogue, StorageError> {
        self.called("catalogue");
        self.inner.catalogue().await
    }

    async fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        self.called("manifest");
        self.inner.manifest(name, id).await
    }
}

/// The source of the trait.
const SOURCE: &str = include_str!("../../src/storage/traits.rs");

async fn every_method_is_forwarded<S: Storage>(wrap: impl Fn(Written) -> S) {
    let written = Written::default();
    let storage = wrap(written.clone());
    let (bytes, name) = (b"bytes", "x".parse::<ContentName>().unwrap());
    let manifest = Manifest::of(bytes).unwrap();
    let id = manifest.id();
    written.inner.insert(name.clone(), &bytes[..]).unwrap();

    let taken = storage.create(&name, &manifest).await.unwrap_err();
    assert!(matches!(taken, StorageError::Exists { .. }), "{taken}");
    drop(storage.create_replacing(&name, &manifest).await.unwrap());
    let draft = storage.draft(&name).await.err().unwrap();
    assert!(matches!(draft, StorageError::Exists { .. }), "{draft}");
    let elsewhere = storage.in_directory(Path::new("d")).await.err();
    let path = "d".into();
    assert_eq!(elsewhere, Some(StorageError::NotADirectory { path }));
    assert_eq!(storage.path(&name), Some("x".into()));
    let reserved = StorageError::Reserved { name: name.clone() };
    assert_eq!(storage.check_name(&name), Err(reserved));
    assert!(storage.has_partial(&id).await);
    assert_eq!(storage.discard_partial(&id).await, Ok(true));
    assert!(storage.folders().is_none());
    assert_eq!(storage.open_files(), None);
    let blob = storage.open(&name).await.unwrap();
    let stored = Stored::new(name.clone(), manifest, blob);
    storage.remember(&stored).await.unwrap();
    let manifest = storage.manifest(&name, &id).await.unwrap();
    assert_eq!(manifest.unwrap().id(), id);
    assert_eq!(storage.catalogue().await.unwrap().remembered.len(), 1);
    storage.forget(&name, &id).await.unwrap();
    assert_eq!(storage.catalogue().await.unwrap().remembered.len(), 0);
    storage.remove(&name, &id, None).await.unwrap();
    let paused = PausedDownload::new(PausedId([7; 32]), bytes::Bytes::from_static(b"x"));
    storage.remember_paused(&paused).await.unwrap();
    assert_eq!(storage.paused().await, Ok(vec![paused.clone()]));
    storage.forget_paused(&paused.id).await.unwrap();

    let calls = written.calls.lock().unwrap();
    let called: BTreeSet<String> = calls.iter().map(|call| call.to_string()).collect();
    let methods = methods(SOURCE, "Storage");
    assert_eq!(called, methods);
    assert_eq!(calls.len(), methods.len() + 1, "catalogue is called twice");
}

#[tokio::test]
async fn storage_behind_a_pointer_is_the_storage() {
    every_method_is_forwarded(|written| written).await;
    every_method_is_forwarded(Arc::new).await;
    every_method_is_forwarded(Box::new).await;
    every_method_is_forwarded(|written| Arc::new(written) as Arc<dyn Storage>).await;
    every_method_is_forwarded(|written| Box::new(written) as Box<dyn Storage>).await;
}
