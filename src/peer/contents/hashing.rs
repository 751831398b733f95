//! Hashing that does not hold up the async threads.

use bytes::Bytes;

use crate::content::{Manifest, ManifestBuilder, ManifestError};
use crate::storage::{Blob, StorageError};

/// Up to this many bytes are hashed on the calling thread. That takes less
/// time than to find another thread, and keeps small runs deterministic.
pub(in crate::peer) const INLINE_HASH_LEN: usize = 64 << 10;

/// How many bytes are read at a time, while the piece before is hashed.
const READ_LEN: u64 = 1 << 20;

/// Why a blob has no manifest.
pub(in crate::peer) enum HashError {
    Storage(StorageError),
    Manifest(ManifestError),
}

/// Hashes a whole blob. The next piece is read while one is hashed.
///
/// In a box: the state of the hash is large, and most of those who may hash never do.
pub(in crate::peer) async fn manifest_of(blob: &dyn Blob) -> Result<Manifest, HashError> {
    Box::pin(hash_all(blob)).await
}

async fn hash_all(blob: &dyn Blob) -> Result<Manifest, HashError> {
    let length = blob.length();
    let mut builder = ManifestBuilder::new(length).map_err(HashError::Manifest)?;
    let read = |at: u64| blob.read_at(at, READ_LEN.min(length - at) as usize);
    let mut at = 0;
    let mut piece = read(0).await.map_err(HashError::Storage)?;
    while at < length {
        if piece.is_empty() {
            // The storage returned less than it was asked for; the builder
            // reports the wrong length.
            break;
        }
        at += piece.len() as u64;
        let next = async {
            match at < length {
                true => read(at).await,
                false => Ok(Bytes::new()),
            }
        };
        let (hashed, next) = futures::join!(add_piece(builder, piece), next);
        builder = hashed.map_err(HashError::Manifest)?;
        piece = next.map_err(HashError::Storage)?;
    }
    builder.finish().map_err(HashError::Manifest)
}

async fn add_piece(
    mut builder: ManifestBuilder,
    piece: Bytes,
) -> Result<ManifestBuilder, ManifestError> {
    let len = piece.len();
    hash(len, move || builder.update(&piece).map(|()| builder)).await
}

/// Runs `work`, which hashes `len` bytes: here if they are few, otherwise on a
/// thread that may block.
pub(in crate::peer) async fn hash<T: Send + 'static>(
    len: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match len <= INLINE_HASH_LEN {
        true => work(),
        false => off_thread(work).await,
    }
}

/// Runs work that would hold up an async thread on a thread that may block.
pub(in crate::peer) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and drops this future with it.
            Err(_) => std::future::pending().await,
        },
    }
}
