//! The bytes of a complete content, for those who read it here.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::content::{Bitfield, ChunkIndex, ContentId, Manifest};
use crate::error::DownloadError;
use crate::peer::contents::hashing::hash;
use crate::peer::contents::whole_reads::read_whole;
use crate::storage::{Blob, StorageError};

/// Hears of complete contents whose bytes cannot be read where they were.
pub(in crate::peer) trait ReadFaults: Send + Sync {
    /// The bytes of this blob cannot be read any more. Returns from where the content is
    /// read on, if it has another place; without one it is no longer shared when this
    /// returns. `None` as well for a content that is not shared.
    ///
    /// Cancel safe: what follows for the content goes on.
    fn unreadable(
        &self,
        id: ContentId,
        blob: Arc<dyn Blob>,
        error: StorageError,
    ) -> BoxFuture<'static, Option<CompleteBytes>>;
}

/// The bytes of a complete content. A clone is a cheap handle, but for the set of
/// chunks that are not verified.
#[derive(Clone)]
pub(in crate::peer) struct CompleteBytes {
    id: ContentId,
    blob: Arc<dyn Blob>,
    unverified: Option<Unverified>,
    /// Who is told when they cannot be read, if the content is shared.
    faults: Option<Arc<dyn ReadFaults>>,
}

/// Chunks that an earlier download left behind, and that were not read since.
#[derive(Clone)]
struct Unverified {
    chunks: Bitfield,
    manifest: Arc<Manifest>,
}

/// A part of a content that was read.
pub(in crate::peer) struct PartRead {
    pub(in crate::peer) bytes: Bytes,
    /// The chunk that was verified for it.
    verified: Option<ChunkIndex>,
    /// Where it was read, if that is another place than before.
    moved: Option<CompleteBytes>,
}

/// A read that failed.
struct Failed {
    /// The chunk that was to be verified.
    chunk: Option<ChunkIndex>,
    error: StorageError,
}

impl CompleteBytes {
    /// A content all of whose chunks were verified.
    pub(in crate::peer) fn new(id: ContentId, blob: Arc<dyn Blob>) -> Self {
        Self {
            id,
            blob,
            unverified: None,
            faults: None,
        }
    }

    /// The content is shared: these are told when it cannot be read.
    pub(in crate::peer) fn shared(mut self, faults: &Arc<dyn ReadFaults>) -> Self {
        self.faults = Some(Arc::clone(faults));
        self
    }

    /// These chunks have to be verified before they are given to anybody.
    pub(in crate::peer) fn unverified(mut self, chunks: Bitfield, manifest: Arc<Manifest>) -> Self {
        self.unverified = Some(Unverified { chunks, manifest });
        self
    }

    pub(in crate::peer) fn length(&self) -> u64 {
        self.blob.length()
    }

    /// Reads at most `len` bytes from a position inside the content on. Fewer are
    /// returned at its end, and where a chunk begins or ends that has to be verified. If
    /// they cannot be read, they are read at the next place of the content.
    ///
    /// # Errors
    /// [`DownloadError::Storage`], when there is no other place.
    pub(in crate::peer) async fn read(
        mut self,
        from: u64,
        len: usize,
    ) -> Result<PartRead, DownloadError> {
        let mut has_moved = false;
        // Each time with one place less.
        loop {
            let Failed { chunk, error } = match self.read_here(from, len).await {
                Ok((bytes, verified)) => {
                    return Ok(PartRead {
                        bytes,
                        verified,
                        moved: has_moved.then_some(self),
                    });
                }
                Err(failed) => failed,
            };
            let faults = self.faults.as_ref().filter(|_| error.is_loss());
            let next = faults.map(|faults| {
                let blob = Arc::clone(&self.blob);
                faults.unreadable(self.id, blob, error.clone())
            });
            match async { next?.await }.await {
                Some(next) => (self, has_moved) = (next, true),
                None => {
                    let (id, source) = (self.id, error);
                    return Err(DownloadError::Storage { id, chunk, source });
                }
            }
        }
    }

    /// Reads a part in this place, and returns the chunk that was verified for it.
    async fn read_here(
        &self,
        from: u64,
        len: usize,
    ) -> Result<(Bytes, Option<ChunkIndex>), Failed> {
        let rest = self.length().saturating_sub(from);
        let len = rest.min(len as u64) as usize;
        let Some(unverified) = &self.unverified else {
            let chunk = None;
            let read = read_whole(&*self.blob, from, len).await;
            let bytes = read.map_err(|error| Failed { chunk, error })?;
            return Ok((bytes, None));
        };
        let geometry = unverified.manifest.geometry();
        let chunk = ChunkIndex((from / geometry.chunk_len()) as u32);
        let range = geometry.range_of(chunk);
        let len = len.min((range.end - from) as usize);
        let failed = |error| {
            let chunk = Some(chunk);
            Failed { chunk, error }
        };
        if !unverified.chunks.contains(chunk) {
            let read = read_whole(&*self.blob, from, len).await;
            return Ok((read.map_err(failed)?, None));
        }
        let whole = (range.end - range.start) as usize;
        let read = read_whole(&*self.blob, range.start, whole).await;
        let all = read.map_err(failed)?;
        let (manifest, bytes) = (Arc::clone(&unverified.manifest), all.clone());
        if !hash(whole, move || manifest.verify(chunk, [&bytes[..]])).await {
            let path = self.blob.path();
            let path = path.unwrap_or_else(|| self.id.to_string().into());
            return Err(failed(StorageError::Altered { path, chunk }));
        }
        let start = (from - range.start) as usize;
        Ok((all.slice(start..start + len), Some(chunk)))
    }

    /// Notes where a part was read, and what was verified for it.
    pub(in crate::peer) fn note(&mut self, part: &PartRead) {
        if let Some(moved) = &part.moved {
            *self = moved.clone();
        }
        if let (Some(unverified), Some(chunk)) = (&mut self.unverified, part.verified) {
            unverified.chunks.remove(chunk);
            if unverified.chunks.is_empty() {
                self.unverified = None;
            }
        }
    }
}
