//! Where a download goes: a new content of the storage, or one that is there.

use std::sync::Arc;

use crate::content::{ContentName, Manifest};
use crate::peer::contents::hashing::{HashError, manifest_of};
use crate::storage::{Blob, Partial, Storage, StorageError};

/// The target of a download.
pub(super) enum Target {
    /// A content that is open for writing.
    Partial(Partial),
    /// The same content, which the storage has under this name already.
    Whole(Arc<dyn Blob>),
}

/// Opens a content for writing, or takes what the storage has. Where something
/// else has the name, `fallback` is tried instead. Returns the name used.
pub(super) async fn open_target(
    storage: &dyn Storage,
    name: ContentName,
    fallback: Option<ContentName>,
    manifest: &Manifest,
) -> Result<(ContentName, Target), StorageError> {
    let opened = open_named(storage, &name, manifest).await;
    match (opened, fallback) {
        (Err(StorageError::Exists { .. }), Some(fallback)) => {
            let target = open_named(storage, &fallback, manifest).await?;
            Ok((fallback, target))
        }
        (opened, _) => Ok((name, opened?)),
    }
}

async fn open_named(
    storage: &dyn Storage,
    name: &ContentName,
    manifest: &Manifest,
) -> Result<Target, StorageError> {
    match storage.create(name, manifest).await {
        Ok(partial) => Ok(Target::Partial(partial)),
        Err(taken @ StorageError::Exists { .. }) => existing(storage, name, manifest, taken).await,
        Err(error) => Err(error),
    }
}

/// Opens what has the name in the storage. Returns the error `taken` if that
/// is another content.
async fn existing(
    storage: &dyn Storage,
    name: &ContentName,
    manifest: &Manifest,
    taken: StorageError,
) -> Result<Target, StorageError> {
    let blob = match storage.open(name).await {
        Ok(blob) => blob,
        Err(error @ (StorageError::Io { .. } | StorageError::NotFound { .. })) => {
            return Err(error);
        }
        Err(_) => return Err(taken),
    };
    if blob.length() != manifest.geometry().length() {
        return Err(taken);
    }
    match manifest_of(&*blob).await {
        Ok(found) if found.id() == manifest.id() => Ok(Target::Whole(blob)),
        Err(HashError::Storage(error)) => Err(error),
        Ok(_) | Err(HashError::Manifest(_)) => Err(taken),
    }
}
