//! The contents that lie in the same files, as their drivers see them: a storage, and a blob.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::blocking::{run, run_on};
use super::super::stamp::FileStamp;
use super::super::storage::open_file;
use super::SpannedStorage;
use super::common::{Common, GuestNumber, Side};
use super::tree::SpannedTree;
use crate::content::{Bitfield, ChunkIndex, ContentId, ContentName, FolderPath, Manifest};
use crate::storage::sibling::Sibling;
use crate::storage::{Blob, Partial, Storage, StorageError, WriteJob, check_range};

/// A guest of this length or less is fetched again after a crash if the owner has not recorded
/// it, in bytes. So a folder of many short files is not synced for each of them.
const SHORT_GUEST: u64 = 256 << 10;

/// The storage of a content that lies in several files, in which others may have their bytes as
/// well.
#[derive(Debug, Clone)]
pub(crate) struct CommonStorage {
    common: Arc<Common>,
    of: SpannedStorage,
}

/// The storage of a content that has its bytes in one file of another one.
#[derive(Debug, Clone)]
pub(crate) struct GuestStorage {
    guest: Arc<Guest>,
    /// Where its file is.
    of: SpannedStorage,
}

/// A guest, which is there until nobody knows it.
#[derive(Debug)]
struct Guest {
    common: Arc<Common>,
    number: GuestNumber,
    range: Range<u64>,
    path: PathBuf,
    /// Whether it has all files of the owner, and publishes them if that one is gone.
    is_all: bool,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.common.remove_guest(self.number);
    }
}

impl CommonStorage {
    /// The files of this storage, with no guests yet.
    pub(crate) fn new(of: SpannedStorage) -> Self {
        Self {
            common: Arc::new(Common::new()),
            of,
        }
    }

    /// The storage of a content that has its bytes in one of the files.
    fn guest(&self, number: usize, is_all: bool) -> Option<GuestStorage> {
        let file = self.of.files.get(number)?;
        let (range, path) = (file.range.clone(), self.of.root.join(file.path.as_str()));
        let guest = Guest {
            number: self.common.add_guest(range.clone(), path.clone()),
            common: Arc::clone(&self.common),
            range,
            path,
            is_all,
        };
        Some(GuestStorage {
            guest: Arc::new(guest),
            of: self.of.clone(),
        })
    }

    /// The storage of a content that is the only file.
    pub(crate) fn only_guest(&self) -> Option<GuestStorage> {
        self.guest(0, true).filter(|_| self.of.files.len() == 1)
    }

    /// The storage of a content that has its bytes in the file of this number.
    pub(crate) fn guest_in(&self, number: usize) -> Option<GuestStorage> {
        self.guest(number, false)
    }

    /// The paths of all files, in the order of their numbers, and their lengths in bytes.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&FolderPath, u64)> {
        let files = self.of.files.iter();
        files.map(|file| (&file.path, file.range.end - file.range.start))
    }

    /// Makes durable what the owner has, and publishes the files that are wanted and of which
    /// all chunks are among these.
    pub(crate) async fn finish_chosen(&self, verified: Bitfield) -> Result<(), StorageError> {
        let closed = StorageError::Unsupported {
            what: "publishing what nobody has open",
        };
        let tree = self.common.tree().ok_or(closed)?;
        run(move || tree.finish_chosen(&verified)).await
    }

    /// The directory that the files are in.
    pub(crate) fn root(&self) -> &Path {
        &self.of.root
    }

    /// Reads bytes of the owner, which are there as far as it has verified them.
    ///
    /// Cancel safe.
    pub(crate) async fn read(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let closed = StorageError::Unsupported {
            what: "reading what nobody has open",
        };
        let tree = self.common.tree().ok_or(closed)?;
        run_on(len, move || tree.read(offset, len)).await
    }

    /// Waits until the owner has opened the files.
    ///
    /// Cancel safe.
    pub(crate) async fn owner_is_there(&self) {
        self.common.owner_is_there().await;
    }

    /// Waits until the owner has ended. Returns whether it is complete.
    ///
    /// Cancel safe.
    pub(crate) async fn owner_is_done(&self) -> bool {
        self.common.owner_is_done(None).await
    }
}

impl GuestStorage {
    /// Where the file is when it is complete.
    pub(crate) fn file_path(&self) -> PathBuf {
        self.guest.path.clone()
    }

    fn side(&self) -> Side {
        Side::Guest(self.guest.number)
    }
}

#[async_trait]
impl Storage for CommonStorage {
    async fn create(
        &self,
        _name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let (tree, left) = self.of.open_tree(manifest).await?;
        let (tree, geometry) = (Arc::new(tree), manifest.geometry());
        let there = (&left.present, &left.verified);
        self.common.open_owner(Arc::clone(&tree), geometry, there);
        let path = tree.path();
        let open = Open {
            common: Arc::clone(&self.common),
            guest: None,
            tree,
        };
        let blob = Arc::new(CommonBlob::new(open, 0, geometry.length(), path));
        Ok(Partial::resumed(blob, left.present).verified(left.verified))
    }

    fn path(&self, name: &ContentName) -> Option<PathBuf> {
        self.of.path(name)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.of.has_partial(id).await
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        let how = "removed";
        self.common
            .evict_all(|path| StorageError::Tampered { path, how });
        self.of.discard_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.of.open(name).await
    }
}

#[async_trait]
impl Storage for GuestStorage {
    async fn create(
        &self,
        _name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let (guest, geometry) = (Arc::clone(&self.guest), manifest.geometry());
        let length = guest.range.end - guest.range.start;
        if geometry.length() != length {
            guest.common.differ(guest.number);
        }
        let opened = run(move || {
            let (tree, present) = guest.common.open_guest(guest.number, geometry)?;
            let open = Open {
                common: Arc::clone(&guest.common),
                guest: Some(guest),
                tree,
            };
            Ok((open, present))
        });
        let (open, present) = opened.await?;
        let (offset, path) = (self.guest.range.start, self.guest.path.clone());
        let blob = Arc::new(CommonBlob::new(open, offset, length, path));
        Ok(Partial::resumed(blob, present))
    }

    fn path(&self, name: &ContentName) -> Option<PathBuf> {
        self.of.path(name)
    }

    async fn has_partial(&self, _id: &ContentId) -> bool {
        true
    }

    /// The file is the owner's.
    async fn discard_partial(&self, _id: &ContentId) -> Result<bool, StorageError> {
        Ok(false)
    }

    /// What lies there may be another content, so nothing is opened by its name.
    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        Err(StorageError::NotFound { name: name.clone() })
    }
}

/// Both are siblings by the same functions.
macro_rules! sibling {
    ($storage:ident, $this:ident, $common:expr, $side:expr) => {
        #[async_trait]
        impl Sibling for $storage {
            fn is_alone(&self) -> bool {
                let $this = self;
                $side == Side::Owner && $common.is_alone()
            }

            async fn changed(&self) {
                let $this = self;
                match $common.news($side) {
                    Some(news) => news.notified().await,
                    None => std::future::pending().await,
                }
            }

            fn take_found(&self) -> Vec<ChunkIndex> {
                let $this = self;
                $common.take_found($side)
            }

            fn elsewhere(&self, since: Option<Instant>) -> (Bitfield, Option<Instant>) {
                let $this = self;
                $common.elsewhere($side, since)
            }

            fn fetches(&self, now: Instant, chunks: &[ChunkIndex]) {
                let $this = self;
                $common.fetches($side, now, chunks);
            }

            fn checked(&self, chunk: ChunkIndex, good: bool) -> bool {
                let $this = self;
                $common.checked($side, chunk, good)
            }

            fn eviction(&self) -> Option<StorageError> {
                let $this = self;
                $common.eviction($side)
            }
        }
    };
}

sibling!(CommonStorage, this, this.common, Side::Owner);
sibling!(GuestStorage, this, this.guest.common, this.side());

/// The files, as long as one of the contents has them open.
struct Open {
    common: Arc<Common>,
    /// `None` for the owner.
    guest: Option<Arc<Guest>>,
    tree: Arc<SpannedTree>,
}

impl Open {
    fn side(&self) -> Side {
        match &self.guest {
            Some(guest) => Side::Guest(guest.number),
            None => Side::Owner,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.common.leave(self.side());
    }
}

/// The bytes of one of the contents.
struct CommonBlob {
    /// Where they begin in the owner.
    offset: u64,
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

impl CommonBlob {
    fn new(open: Open, offset: u64, length: u64, path: PathBuf) -> Self {
        Self {
            offset,
            length,
            path,
            place: Mutex::new(Place::Open(Arc::new(open))),
        }
    }

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
impl Blob for CommonBlob {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length)?;
        match self.place() {
            Place::Finished(file) => file.read_at(offset, len).await,
            Place::Open(open) => {
                let at = self.offset + offset;
                run_on(len, move || {
                    open.common.read(open.side(), &open.tree, at, len)
                })
                .await
            }
        }
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        check_range(offset, len as u64, self.length).ok()?;
        match self.place() {
            Place::Finished(file) => file.read_now(offset, len),
            Place::Open(open) => {
                let at = self.offset + offset;
                open.common.read_cached(open.side(), &open.tree, at, len)
            }
        }
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        check_range(offset, len as u64, self.length)?;
        let open = self.open()?;
        let at = self.offset + offset;
        run_on(len, move || {
            open.common.write(open.side(), &open.tree, at, &pieces)
        })
        .await
    }

    fn write_job(&self, offset: u64, pieces: &[Bytes]) -> Option<WriteJob> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length).ok()?;
        let (open, pieces) = (self.open().ok()?, pieces.to_vec());
        let at = self.offset + offset;
        Some(Box::new(move || {
            open.common.write(open.side(), &open.tree, at, &pieces)
        }))
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let open = self.open()?;
        let is_owner = open.side() == Side::Owner;
        if !is_owner && self.length <= SHORT_GUEST {
            return Ok(());
        }
        // The record is of the chunks of the owner.
        let verified = is_owner.then(|| verified.clone());
        run(move || {
            let (common, side) = (&open.common, open.side());
            common.commit(side, &open.tree, verified.as_ref())
        })
        .await
    }

    /// A guest that has all files waits until the owner is complete, or has ended. Others leave
    /// that to whoever shares all of them.
    async fn finish(&self) -> Result<(), StorageError> {
        let Ok(open) = self.open() else {
            return Ok(());
        };
        let Some(guest) = open.guest.clone() else {
            return run(move || open.common.finish_owner(&open.tree)).await;
        };
        if !guest.is_all {
            return open.common.eviction(open.side()).map_or(Ok(()), Err);
        }
        open.common.owner_is_done(Some(open.side())).await;
        let path = guest.path.clone();
        run(move || open.common.finish_guest(guest.number, &open.tree)).await?;
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
