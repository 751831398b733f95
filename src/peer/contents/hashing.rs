//! Hashing that does not hold up the async threads.

use std::num::NonZero;
use std::thread::available_parallelism;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::content::{
    ChunkHash, Geometry, Manifest, ManifestBuilder, ManifestError, merge_parts, subtree_hash,
};
use crate::peer::contents::whole_reads::read_whole;
use crate::storage::{Blob, StorageError};

/// Up to this many bytes are hashed on the calling thread. That takes less
/// time than to find another thread, and keeps small runs deterministic.
pub(in crate::peer) const INLINE_HASH_LEN: usize = 64 << 10;

/// How many bytes are read at a time, while others are hashed. A chunk is a power of two
/// of these long, or a power of two of chunks are as long as this.
const READ_LEN: u64 = 1 << 20;

/// Contents up to this length, in bytes, are hashed by one thread at a time: it takes a
/// millisecond or two, and small runs stay deterministic.
const ONE_THREAD_LEN: u64 = 4 << 20;

/// How many pieces may be read or hashed at a time, whatever the number of cores. They are
/// in memory.
const MAX_PIECES: usize = 32;

/// Why a blob has no manifest.
pub(in crate::peer) enum HashError {
    Storage(StorageError),
    Manifest(ManifestError),
}

/// Hashes a whole blob, a long one on all cores.
///
/// In a box: the state of the hash is large, and most of those who may hash never do.
pub(in crate::peer) async fn manifest_of(blob: &dyn Blob) -> Result<Manifest, HashError> {
    Box::pin(hash_all(blob)).await
}

async fn hash_all(blob: &dyn Blob) -> Result<Manifest, HashError> {
    let length = blob.length();
    let too_long = |error| HashError::Manifest(ManifestError::TooLong(error));
    let geometry = Geometry::of(length).map_err(too_long)?;
    let hashes = match length <= ONE_THREAD_LEN {
        true => Vec::new(),
        false => hash_side_by_side(blob, geometry, READ_LEN).await?,
    };
    let builder = ManifestBuilder::behind(length, hashes).map_err(HashError::Manifest)?;
    hash_rest(blob, builder).await
}

/// Hashes all pieces but the last, on all cores. Returns the hashes of the chunks that are
/// whole in them, which are the first ones.
async fn hash_side_by_side(
    blob: &dyn Blob,
    geometry: Geometry,
    read_len: u64,
) -> Result<Vec<ChunkHash>, HashError> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let part_len = read_len.min(geometry.chunk_len());
    let whole = geometry.length().saturating_sub(1) / read_len;
    let pieces = (0..whole).map(|n| hash_piece(blob, (n * read_len, read_len), part_len));
    // Some are read while others are hashed.
    let hashed = stream::iter(pieces).buffered((2 * cores).min(MAX_PIECES));
    let parts: Vec<_> = hashed.try_concat().await?;
    let per_chunk = (geometry.chunk_len() / part_len) as usize;
    let chunks = parts.chunks_exact(per_chunk).map(merge_parts);
    Ok(chunks.take(geometry.chunks() as usize - 1).collect())
}

/// The hashes of the parts of a piece, each of which is as long as a chunk, or shorter.
async fn hash_piece(
    blob: &dyn Blob,
    (offset, len): (u64, u64),
    part_len: u64,
) -> Result<Vec<ChunkHash>, HashError> {
    let piece = read_whole(blob, offset, len as usize).await;
    let piece = piece.map_err(HashError::Storage)?;
    let hash = move || {
        let parts = piece.chunks(part_len as usize).zip(0..);
        parts
            .map(|(part, n)| subtree_hash(offset + n * part_len, part))
            .collect()
    };
    Ok(off_thread(hash).await)
}

/// Hashes what is left. The next piece is read while one is hashed.
async fn hash_rest(blob: &dyn Blob, mut builder: ManifestBuilder) -> Result<Manifest, HashError> {
    let length = blob.length();
    let read = |at: u64| blob.read_at(at, READ_LEN.min(length - at) as usize);
    let mut at = builder.position();
    let mut piece = read(at).await.map_err(HashError::Storage)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentName;
    use crate::storage::{MemoryStorage, Storage};

    #[tokio::test]
    async fn hash_on_all_cores_is_that_of_one_thread() {
        let storage = MemoryStorage::new();
        let lens = [0, 1, 15, 16, 17, 31, 32, 33, 64, 65, 100, 128, 129].map(|kib| kib << 10);
        for len in lens.into_iter().flat_map(|len| [len, len + 1, len + 1027]) {
            let bytes: Vec<u8> = (0..len as u32).map(|n| (n % 251) as u8).collect();
            let manifest = Manifest::of(&bytes).unwrap();
            let name: ContentName = format!("of {len}").parse().unwrap();
            storage.insert(name.clone(), bytes).unwrap();
            let blob = storage.open(&name).await.unwrap();
            // Shorter than a chunk, as long, and longer.
            for read_len in [4 << 10, 16 << 10, 64 << 10] {
                let geometry = manifest.geometry();
                let hashed = hash_side_by_side(&*blob, geometry, read_len).await;
                let hashes = hashed.unwrap_or_else(|_| panic!("{len} bytes cannot be read"));
                let builder = ManifestBuilder::behind(len as u64, hashes).unwrap();
                let found = hash_rest(&*blob, builder).await;
                assert!(
                    found.is_ok_and(|found| found == manifest),
                    "{len} by {read_len}"
                );
            }
        }
    }
}
