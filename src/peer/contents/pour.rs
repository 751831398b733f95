//! Bytes that this peer has of a content, given to whoever has them in common with another one.

use std::sync::Arc;

use super::hashing::{HashError, hash, manifest_of};
use crate::content::ContentId;
use crate::storage::{Blob, Storage, StorageError};

/// Writes a content that is here to another place of its bytes, in which a part of it may be.
/// Nothing is made durable: the bytes stay where they are as well.
pub(in crate::peer) async fn pour(
    from: &dyn Blob,
    id: ContentId,
    to: &dyn Storage,
) -> Result<(), StorageError> {
    let manifest = match manifest_of(from).await {
        Ok(manifest) if manifest.id() == id => Arc::new(manifest),
        Err(HashError::Storage(error)) => return Err(error),
        // It is something else by now.
        Ok(_) | Err(HashError::Manifest(_)) => return Ok(()),
    };
    let place = to.create(&id.into(), &manifest).await?;
    for chunk in manifest.geometry().indices() {
        let range = manifest.geometry().range_of(chunk);
        let len = (range.end - range.start) as usize;
        let bytes = from.read_at(range.start, len).await?;
        let (known, read) = (Arc::clone(&manifest), bytes.clone());
        if hash(len, move || known.verify(chunk, [&read[..]])).await {
            place.blob.write_at(range.start, vec![bytes]).await?;
        }
    }
    Ok(())
}
