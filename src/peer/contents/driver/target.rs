//! Where a download goes: a new content of the storage, or one that is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::content::{ChunkIndex, ContentName, Manifest};
use crate::peer::contents::hashing::{HashError, hash, manifest_of};
use crate::peer::contents::passing::PassingStorage;
use crate::storage::sibling::Sibling;
use crate::storage::{Blob, Partial, Storage, StorageError, open_file};

/// The target of a download.
pub(super) enum Target {
    /// A content that is open for writing.
    Partial(Partial),
    /// The same content, which the storage has under this name already.
    Whole(Arc<dyn Blob>),
}

/// Where a download goes, and what it finds and replaces there.
#[derive(Clone)]
pub(in crate::peer) struct TargetOptions {
    pub(in crate::peer) storage: Arc<dyn Storage>,
    /// Whether it replaces a file that has its name.
    pub(in crate::peer) overwrites: bool,
    /// A file that may have a part of it.
    pub(in crate::peer) existing: Option<PathBuf>,
    /// Whether it is for one caller only, and does not stay.
    pub(in crate::peer) is_private: bool,
    /// The content that has its bytes in the same place, if there is one.
    pub(in crate::peer) sibling: Option<Arc<dyn Sibling>>,
    /// The storage, if the content only passes through.
    pub(in crate::peer) passing: Option<PassingStorage>,
}

impl TargetOptions {
    /// A download that goes to this storage.
    pub(in crate::peer) fn to(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            overwrites: false,
            existing: None,
            is_private: false,
            sibling: None,
            passing: None,
        }
    }
}

/// Opens a content for writing, or takes what the storage has. Where something
/// else has the name, `fallback` is tried instead. Returns the name used.
pub(super) async fn open_target(
    options: &TargetOptions,
    name: ContentName,
    fallback: Option<ContentName>,
    manifest: &Arc<Manifest>,
) -> Result<(ContentName, Target), StorageError> {
    let opened = open_named(options, &name, manifest).await;
    let (name, target) = match (opened, fallback) {
        (Err(StorageError::Exists { .. }), Some(fallback)) => {
            let target = open_named(options, &fallback, manifest).await?;
            (fallback, target)
        }
        (opened, _) => (name, opened?),
    };
    match (target, &options.existing) {
        (Target::Partial(partial), Some(path)) => {
            let partial = take_over(partial, path, manifest).await?;
            Ok((name, Target::Partial(partial)))
        }
        (target, _) => Ok((name, target)),
    }
}

async fn open_named(
    options: &TargetOptions,
    name: &ContentName,
    manifest: &Arc<Manifest>,
) -> Result<Target, StorageError> {
    let storage = &*options.storage;
    let taken = match storage.create(name, manifest).await {
        Err(taken @ StorageError::Exists { .. }) => taken,
        created => return created.map(Target::Partial),
    };
    match existing(storage, name, manifest, taken).await {
        Err(StorageError::Exists { .. }) if options.overwrites => {
            let partial = storage.create_replacing(name, manifest).await?;
            Ok(Target::Partial(partial))
        }
        found => found,
    }
}

/// Opens what has the name in the storage. Returns the error `taken` if that
/// is another content.
async fn existing(
    storage: &dyn Storage,
    name: &ContentName,
    manifest: &Arc<Manifest>,
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
    if manifest.is_torrent() {
        // Its id is not the hash of the bytes.
        for chunk in manifest.geometry().indices() {
            if right(&*blob, manifest, chunk).await?.is_none() {
                return Err(taken);
            }
        }
        return Ok(Target::Whole(blob));
    }
    match manifest_of(&*blob).await {
        Ok(found) if found.id() == manifest.id() => Ok(Target::Whole(blob)),
        Err(HashError::Storage(error)) => Err(error),
        Ok(_) | Err(HashError::Manifest(_)) => Err(taken),
    }
}

/// Copies what is right in a file of the user to a content that is open for writing. The
/// rest has to be fetched.
async fn take_over(
    mut partial: Partial,
    path: &Path,
    manifest: &Arc<Manifest>,
) -> Result<Partial, StorageError> {
    let source = open_file(path).await?;
    let target = Arc::clone(&partial.blob);
    let shared = partial.present.is_empty() && target.copy_from(&*source).await?;
    let missing: Vec<_> = partial.present.iter_missing().collect();
    let mut any = false;
    for chunk in missing {
        let range = manifest.geometry().range_of(chunk);
        if range.end > source.length() {
            continue;
        }
        // What the storage has copied by itself is verified in its place.
        let from = if shared { &target } else { &source };
        let bytes = match right(&**from, manifest, chunk).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) if !shared => {
                // Somebody still writes it, or its disk fails.
                tracing::warn!(path = %path.display(), %error, "the rest is not taken over");
                break;
            }
            Err(error) => return Err(error),
        };
        if !shared {
            target.write_at(range.start, vec![bytes]).await?;
        }
        partial.present.insert(chunk);
        partial.verified.insert(chunk);
        any = true;
    }
    if any {
        target.commit(&partial.verified).await?;
    }
    Ok(partial)
}

/// A chunk of a blob, if it is right.
async fn right(
    blob: &dyn Blob,
    manifest: &Arc<Manifest>,
    chunk: ChunkIndex,
) -> Result<Option<Bytes>, StorageError> {
    let range = manifest.geometry().range_of(chunk);
    let len = (range.end - range.start) as usize;
    let bytes = blob.read_at(range.start, len).await?;
    let (manifest, read) = (Arc::clone(manifest), bytes.clone());
    let good = hash(len, move || manifest.verify(chunk, [&read[..]])).await;
    Ok(good.then_some(bytes))
}
