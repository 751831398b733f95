//! The two contents of a [`Twin`], as their drivers see them: a storage, and a blob.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::blocking::{run, run_on};
use super::super::stamp::FileStamp;
use super::super::storage::open_file;
use super::SpannedStorage;
use super::tree::SpannedTree;
use super::twin::{Side, Twin};
use crate::content::{Bitfield, ChunkIndex, ContentId, ContentName, Manifest};
use crate::storage::sibling::Sibling;
use crate::storage::{Blob, Partial, Storage, StorageError, WriteJob, check_range};

/// The storage of one of two contents that lie in one file.
#[derive(Debug, Clone)]
pub(crate) struct TwinStorage {
    twin: Arc<Twin>,
    side: Side,
    /// Where the file is.
    of: SpannedStorage,
}

impl TwinStorage {
    /// The storages of the two: the owner of the file of this storage, which is the only one
    /// there, and the guest.
    pub(crate) fn pair(of: SpannedStorage) -> (Self, Self) {
        let path = of.files.first().map(|file| file.path.as_str());
        let path = of.root.join(path.unwrap_or_default());
        let twin = Arc::new(Twin::new(path, of.length));
        let storage = |side| Self {
            twin: Arc::clone(&twin),
            side,
            of: of.clone(),
        };
        (storage(Side::Owner), storage(Side::Guest))
    }

    /// Where the file is when it is complete.
    pub(crate) fn file_path(&self) -> PathBuf {
        self.twin.path.clone()
    }

    /// Waits until the owner has opened the file.
    ///
    /// Cancel safe.
    pub(crate) async fn owner_is_there(&self) {
        self.twin.owner_is_there().await;
    }

    async fn open_owner(&self, manifest: &Manifest) -> Result<Partial, StorageError> {
        let (tree, left) = self.of.open_tree(manifest).await?;
        let (tree, geometry) = (Arc::new(tree), manifest.geometry());
        let there = (&left.present, &left.verified);
        self.twin.open_owner(Arc::clone(&tree), geometry, there);
        let blob = Arc::new(self.blob(tree));
        Ok(Partial::resumed(blob, left.present).verified(left.verified))
    }

    fn open_guest(&self, manifest: &Manifest) -> Result<Partial, StorageError> {
        let geometry = manifest.geometry();
        if geometry.length() != self.twin.length {
            let path = self.twin.path.clone();
            self.twin.evict(StorageError::Mismatch { path });
        }
        let (tree, present) = self.twin.open_guest(geometry)?;
        Ok(Partial::resumed(Arc::new(self.blob(tree)), present))
    }

    fn blob(&self, tree: Arc<SpannedTree>) -> TwinBlob {
        let open = Open {
            twin: Arc::clone(&self.twin),
            side: self.side,
            tree,
        };
        TwinBlob {
            length: self.twin.length,
            path: self.twin.path.clone(),
            place: Mutex::new(Place::Open(Arc::new(open))),
        }
    }
}

#[async_trait]
impl Storage for TwinStorage {
    async fn create(
        &self,
        _name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        match self.side {
            Side::Owner => self.open_owner(manifest).await,
            Side::Guest => self.open_guest(manifest),
        }
    }

    fn path(&self, name: &ContentName) -> Option<PathBuf> {
        self.of.path(name)
    }

    async fn has_partial(&self, _id: &ContentId) -> bool {
        true
    }

    /// The file is the owner's.
    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        match self.side {
            Side::Owner => {
                self.twin.evict(StorageError::Tampered {
                    path: self.twin.path.clone(),
                    how: "removed",
                });
                self.of.discard_partial(id).await
            }
            Side::Guest => Ok(false),
        }
    }

    /// What lies there may be another content, so nothing is opened by its name.
    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        Err(StorageError::NotFound { name: name.clone() })
    }
}

#[async_trait]
impl Sibling for TwinStorage {
    async fn changed(&self) {
        self.twin.changed(self.side).await;
    }

    fn take_found(&self) -> Vec<ChunkIndex> {
        self.twin.take_found(self.side)
    }

    fn elsewhere(&self, since: Option<Instant>) -> (Bitfield, Option<Instant>) {
        self.twin.elsewhere(self.side, since)
    }

    fn fetches(&self, now: Instant, chunks: &[ChunkIndex]) {
        self.twin.fetches(self.side, now, chunks);
    }

    fn checked(&self, chunk: ChunkIndex, good: bool) -> bool {
        self.twin.checked(self.side, chunk, good)
    }

    fn eviction(&self) -> Option<StorageError> {
        self.twin.eviction(self.side)
    }
}

/// The file, as long as one of the two has it open.
struct Open {
    twin: Arc<Twin>,
    side: Side,
    tree: Arc<SpannedTree>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.twin.leave(self.side);
    }
}

/// The bytes of one of the two.
struct TwinBlob {
    length: u64,
    path: PathBuf,
    place: Mutex<Place>,
}

/// Where they are read.
#[derive(Clone)]
enum Place {
    Open(Arc<Open>),
    /// The published file, as the guest reads it.
    Finished(Arc<dyn Blob>),
}

impl TwinBlob {
    fn place(&self) -> Place {
        let place = self.place.lock();
        place.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file, as long as it is written.
    fn open(&self) -> Result<Arc<Open>, StorageError> {
        match self.place() {
            Place::Open(open) => Ok(open),
            Place::Finished(_) => Err(StorageError::ReadOnly),
        }
    }
}

#[async_trait]
impl Blob for TwinBlob {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length)?;
        match self.place() {
            Place::Finished(file) => file.read_at(offset, len).await,
            Place::Open(open) => {
                run_on(len, move || {
                    open.twin.read(open.side, &open.tree, offset, len)
                })
                .await
            }
        }
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        check_range(offset, len as u64, self.length).ok()?;
        match self.place() {
            Place::Finished(file) => file.read_now(offset, len),
            Place::Open(open) => open.twin.read_cached(open.side, &open.tree, offset, len),
        }
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        check_range(offset, len as u64, self.length)?;
        let open = self.open()?;
        run_on(len, move || {
            open.twin.write(open.side, &open.tree, offset, &pieces)
        })
        .await
    }

    fn write_job(&self, offset: u64, pieces: &[Bytes]) -> Option<WriteJob> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length).ok()?;
        let (open, pieces) = (self.open().ok()?, pieces.to_vec());
        Some(Box::new(move || {
            open.twin.write(open.side, &open.tree, offset, &pieces)
        }))
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let open = self.open()?;
        // The record is of the chunks of the owner.
        let verified = (open.side == Side::Owner).then(|| verified.clone());
        run(move || {
            let Open { twin, side, tree } = &*open;
            twin.commit(*side, tree, verified.as_ref())
        })
        .await
    }

    /// The guest waits until the owner is complete, or has ended.
    async fn finish(&self) -> Result<(), StorageError> {
        let Ok(open) = self.open() else {
            return Ok(());
        };
        if open.side == Side::Owner {
            return run(move || open.twin.finish_owner(&open.tree)).await;
        }
        open.twin.owner_is_done().await;
        let path = open.twin.path.clone();
        run(move || open.twin.finish_guest(&open.tree)).await?;
        let file = open_file(path).await?;
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Place::Finished(file);
        Ok(())
    }

    fn file(&self) -> Option<FileStamp> {
        match self.place() {
            Place::Finished(file) => file.file(),
            Place::Open(_) => None,
        }
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    fn release(&self) {
        match self.place() {
            Place::Finished(file) => file.release(),
            Place::Open(open) => open.tree.release(),
        }
    }
}
