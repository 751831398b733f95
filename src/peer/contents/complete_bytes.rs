//! The bytes of a complete content, for those who read it here.

use std::sync::Arc;

use bytes::Bytes;

use crate::content::{Bitfield, ChunkIndex, ContentId, Manifest};
use crate::error::DownloadError;
use crate::peer::contents::hashing::hash;
use crate::storage::{Blob, StorageError};

/// The bytes of a complete content. A clone is a cheap handle, but for the set of
/// chunks that are not verified.
#[derive(Clone)]
pub(in crate::peer) struct CompleteBytes {
    id: ContentId,
    blob: Arc<dyn Blob>,
    unverified: Option<Unverified>,
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
}

impl CompleteBytes {
    /// A content all of whose chunks were verified.
    pub(in crate::peer) fn new(id: ContentId, blob: Arc<dyn Blob>) -> Self {
        Self {
            id,
            blob,
            unverified: None,
        }
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
    /// returned at its end, and where a chunk begins or ends that has to be verified.
    ///
    /// # Errors
    /// [`DownloadError::Storage`].
    pub(in crate::peer) async fn read(
        self,
        from: u64,
        len: usize,
    ) -> Result<PartRead, DownloadError> {
        let rest = self.length().saturating_sub(from);
        let len = rest.min(len as u64) as usize;
        let Some(unverified) = &self.unverified else {
            let read = self.blob.read_at(from, len).await;
            let bytes = read.map_err(|source| self.failed(None, source))?;
            let verified = None;
            return Ok(PartRead { bytes, verified });
        };
        let geometry = unverified.manifest.geometry();
        let chunk = ChunkIndex((from / geometry.chunk_len()) as u32);
        let range = geometry.range_of(chunk);
        let len = len.min((range.end - from) as usize);
        let failed = |source| self.failed(Some(chunk), source);
        if !unverified.chunks.contains(chunk) {
            let bytes = self.blob.read_at(from, len).await.map_err(failed)?;
            let verified = None;
            return Ok(PartRead { bytes, verified });
        }
        let whole = (range.end - range.start) as usize;
        let read = self.blob.read_at(range.start, whole).await;
        let all = read.map_err(failed)?;
        let (manifest, bytes) = (Arc::clone(&unverified.manifest), all.clone());
        if !hash(whole, move || manifest.verify(chunk, [&bytes[..]])).await {
            let file = self.blob.file().map(|file| file.path().to_path_buf());
            let path = file.unwrap_or_else(|| self.id.to_string().into());
            return Err(failed(StorageError::Altered { path, chunk }));
        }
        let start = (from - range.start) as usize;
        Ok(PartRead {
            bytes: all.slice(start..start + len),
            verified: Some(chunk),
        })
    }

    /// Notes what was verified for a part.
    pub(in crate::peer) fn note(&mut self, part: &PartRead) {
        if let (Some(unverified), Some(chunk)) = (&mut self.unverified, part.verified) {
            unverified.chunks.remove(chunk);
            if unverified.chunks.is_empty() {
                self.unverified = None;
            }
        }
    }

    fn failed(&self, chunk: Option<ChunkIndex>, source: StorageError) -> DownloadError {
        let id = self.id;
        DownloadError::Storage { id, chunk, source }
    }
}
