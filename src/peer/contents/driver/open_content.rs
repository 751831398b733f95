//! The bytes of a content in the storage, and what they must be.

use std::sync::Arc;

use bytes::Bytes;

use super::read_queue::{BatchRead, BlockRead, ReadBatch};
use crate::content::{Bitfield, BlockRange, ChunkIndex, Content, ContentName, Geometry, Manifest};
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::complete_bytes::CompleteBytes;
use crate::peer::contents::hashing::{INLINE_HASH_LEN, hash};
use crate::peer::contents::place::Place;
use crate::peer::contents::whole_reads::read_whole;
use crate::storage::{Blob, StorageError, Stored, WriteJob};

/// A content that is open in the storage. A cheap handle for jobs.
#[derive(Clone)]
pub(in crate::peer) struct OpenContent {
    pub(super) manifest: Arc<Manifest>,
    blob: Arc<dyn Blob>,
    /// Whether this peer has written it.
    written_here: bool,
    /// All of a content of a single chunk, verified, until it is read for the first
    /// time.
    bytes: Option<Bytes>,
}

/// How a content becomes durable under its name.
pub(super) enum PublishBy {
    /// It was written here, and is not visible yet.
    Finishing,
    /// It was found under its name, which says nothing of its durability.
    Syncing,
}

impl OpenContent {
    /// A content that this peer writes or has `written_here`, or has found.
    pub(in crate::peer) fn new(
        manifest: Arc<Manifest>,
        blob: Arc<dyn Blob>,
        written_here: bool,
    ) -> Self {
        Self {
            manifest,
            blob,
            written_here,
            bytes: None,
        }
    }

    /// The same with the bytes of a content of a single chunk, which were just read
    /// and verified.
    pub(in crate::peer) fn with_bytes(mut self, bytes: Option<Bytes>) -> Self {
        self.bytes = bytes;
        self
    }

    /// Reads blocks from memory, if the bytes are there. They are given up: they may be
    /// in memory only as long as they are expected to be read.
    pub(super) fn read_at_once(&mut self, batch: &ReadBatch) -> Option<Vec<BlockRead>> {
        let bytes = self.bytes.take()?;
        Some(batch.cut_out_of(&bytes))
    }

    /// Reads a block without waiting, if it is in memory.
    pub(super) fn read_now(&self, block: BlockRange) -> Option<Bytes> {
        let offset = self.manifest.geometry().offset_of(block.chunk) + u64::from(block.offset);
        let len = block.len as usize;
        self.blob.read_now(offset, len).filter(|b| b.len() == len)
    }

    pub(super) async fn write(
        &self,
        chunk: ChunkIndex,
        pieces: Vec<Bytes>,
    ) -> Result<(), StorageError> {
        let offset = self.manifest.geometry().offset_of(chunk);
        self.blob.write_at(offset, pieces).await
    }

    /// What writes a chunk on a thread that may block, if there is such a way.
    pub(super) fn write_job(&self, chunk: ChunkIndex, pieces: &[Bytes]) -> Option<WriteJob> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        // A few bytes are written where short operations are.
        if len <= INLINE_HASH_LEN {
            return None;
        }
        let offset = self.manifest.geometry().offset_of(chunk);
        self.blob.write_job(offset, pieces)
    }

    /// Makes these chunks durable, and returns how many bytes they have.
    pub(super) async fn commit(&self, verified: &Bitfield) -> Result<u64, StorageError> {
        let bytes = self.manifest.geometry().bytes_of(verified);
        self.blob.commit(verified).await?;
        Ok(bytes)
    }

    pub(super) async fn publish(&self, by: PublishBy) -> Result<(), StorageError> {
        match by {
            PublishBy::Finishing => self.blob.finish().await,
            PublishBy::Syncing => self.blob.sync().await,
        }
    }

    /// Reads a whole chunk, and returns whether it is right.
    pub(super) async fn verify(&self, chunk: ChunkIndex) -> Result<bool, StorageError> {
        let range = self.manifest.geometry().range_of(chunk);
        let len = (range.end - range.start) as usize;
        let bytes = self.blob.read_at(range.start, len).await?;
        let manifest = Arc::clone(&self.manifest);
        Ok(hash(len, move || manifest.verify(chunk, [&bytes[..]])).await)
    }

    pub(super) async fn read(&self, batch: ReadBatch) -> BatchRead {
        batch.read(&*self.blob, self.manifest.geometry()).await
    }

    pub(super) async fn read_part(&self, from: u64, len: usize) -> Result<Bytes, StorageError> {
        read_whole(&*self.blob, from, len).await
    }

    /// Whether it is read from this blob.
    pub(super) fn is_at(&self, blob: &Arc<dyn Blob>) -> bool {
        Arc::ptr_eq(&self.blob, blob)
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.manifest.geometry()
    }

    /// The same for readers here, when it is complete. The `unchecked` chunks have to be
    /// verified before they are given to anybody.
    pub(super) fn complete(&self, unchecked: Option<&Bitfield>) -> CompleteBytes {
        let bytes = CompleteBytes::new(self.manifest.id(), Arc::clone(&self.blob));
        match unchecked {
            Some(chunks) => bytes.unverified(chunks.clone(), Arc::clone(&self.manifest)),
            None => bytes,
        }
    }

    /// The error of a chunk that is not what was written. `content` is how the
    /// user calls this content.
    pub(super) fn altered(&self, content: &Content, chunk: ChunkIndex) -> StorageError {
        let path = match self.blob.file() {
            Some(file) => file.path().to_path_buf(),
            None => content.name.as_str().into(),
        };
        StorageError::Altered { path, chunk }
    }

    /// The same as it sleeps.
    pub(super) fn asleep(
        &self,
        content: Content,
        listed_as: ContentName,
        recorded: bool,
    ) -> Asleep {
        let place = Place {
            name: content.name,
            listed_as,
            blob: Arc::clone(&self.blob),
            written_here: self.written_here,
        };
        Asleep::new(content.id, place, &self.manifest, recorded)
    }

    /// It is not read for a while.
    pub(super) fn release(&self) {
        self.blob.release();
    }

    /// What the storage is to remember of it.
    pub(super) fn stored(&self, content: Content) -> Stored {
        let manifest = (*self.manifest).clone();
        let stored = Stored::new(content.name, manifest, Arc::clone(&self.blob));
        stored.written_here(self.written_here)
    }
}
