//! Hashing that does not hold up the async threads.

use std::num::NonZero;
use std::ops::Range;
use std::pin::pin;
use std::sync::LazyLock;
use std::thread;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::content::subtrees::{self, Joined, PART_LEN};
use crate::content::{Geometry, Manifest, ManifestBuilder, ManifestError};
use crate::storage::{Blob, StorageError};

/// Up to this many bytes are hashed on the calling thread. That takes less
/// time than to find another thread, and keeps small runs deterministic.
pub(in crate::peer) const INLINE_HASH_LEN: usize = 64 << 10;

/// How many parts of one content are read or hashed at once at most, whatever the number of
/// cores: this times [`PART_LEN`] is the memory that it takes. Some more cores would wait for
/// the memory that all of them read.
const MAX_AT_ONCE: usize = 16;

/// How many parts of one content are read or hashed at once: twice as many as there are cores,
/// so that a part is there when a core is free. Some are being read, and some are on their way
/// from one thread to another.
static AT_ONCE: LazyLock<usize> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    (2 * cores + 2).min(MAX_AT_ONCE)
});

/// Why a blob has no manifest.
pub(in crate::peer) enum HashError {
    Storage(StorageError),
    Manifest(ManifestError),
}

/// Hashes a whole blob, on as many cores as there are. What comes next is read meanwhile.
///
/// In a box: the state of the hash is large, and most of those who may hash never do.
pub(in crate::peer) async fn manifest_of(blob: &dyn Blob) -> Result<Manifest, HashError> {
    Box::pin(hash_all(blob)).await
}

async fn hash_all(blob: &dyn Blob) -> Result<Manifest, HashError> {
    let geometry =
        Geometry::of(blob.length()).map_err(|error| HashError::Manifest(error.into()))?;
    let hashed = stream::iter(subtrees::parts(&geometry)).map(|part| async move {
        let bytes = read(blob, &geometry, part.clone()).await?;
        let hashes = hash(bytes.len(), move || {
            subtrees::hash_part(&geometry, part.start, &bytes)
        });
        Ok(hashes.await)
    });
    let mut hashed = pin!(hashed.buffered(*AT_ONCE));
    let mut joined = Joined::new(&geometry);
    while let Some(hashes) = hashed.try_next().await? {
        joined.add(hashes);
    }
    let mut builder = ManifestBuilder::behind(geometry, joined.finish());
    // Also of an empty content something is read: then it is known that it has not changed.
    loop {
        let (start, end) = (builder.hashed(), geometry.length());
        let bytes = read(blob, &geometry, start..end.min(start + PART_LEN)).await?;
        let len = bytes.len();
        let add = move || builder.update(&bytes).map(|()| builder);
        builder = hash(len, add).await.map_err(HashError::Manifest)?;
        if builder.hashed() >= end {
            break;
        }
    }
    builder.finish().map_err(HashError::Manifest)
}

/// A part of a blob.
async fn read(blob: &dyn Blob, geometry: &Geometry, part: Range<u64>) -> Result<Bytes, HashError> {
    let len = (part.end - part.start) as usize;
    let bytes = blob.read_at(part.start, len).await;
    let bytes = bytes.map_err(HashError::Storage)?;
    match bytes.len() == len {
        true => Ok(bytes),
        false => Err(HashError::Manifest(ManifestError::Content {
            found: part.start + bytes.len() as u64,
            expected: geometry.length(),
        })),
    }
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
