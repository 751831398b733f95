//! Contents in memory.
//!
//! Every call completes at once, without threads, timers or clocks, so a
//! program over this storage runs the same way every time.

mod pieces;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Blob, Catalogue, Draft, FileStamp, Partial, PausedDownload, PausedId, Remembered, Storage,
    StorageError, Stored, check_range,
};
use crate::content::{Bitfield, ContentId, ContentName, Geometry, Manifest};
use pieces::Pieces;

/// Contents in memory, for as long as the storage or a clone of it lives. A
/// clone is the same storage.
///
/// It accepts every name. Within its lifetime it keeps the promises of a storage:
/// the committed chunks of an interrupted download outlive its blob. Pieces are
/// kept without a copy, so a small slice of a large buffer keeps the whole
/// buffer alive. A read copies nothing if it lies within one piece.
///
/// ```
/// use bt_lite::{ContentName, MemoryStorage};
///
/// let storage = MemoryStorage::new();
/// let name: ContentName = "greeting".parse()?;
/// storage.insert(name.clone(), "hello")?;
/// assert_eq!(storage.bytes(&name).as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    finished: HashMap<ContentName, Finished>,
    /// Sorted, so that a catalogue is the same every time.
    remembered: BTreeMap<(ContentName, ContentId), RememberedContent>,
    unfinished: HashMap<ContentId, Unfinished>,
    paused: BTreeMap<PausedId, PausedDownload>,
    /// How many bytes of content fit, if there is a limit.
    capacity: Option<u64>,
    /// The length of all contents together, finished or not.
    reserved: u64,
}

/// What becomes of something that has the name of a content when that is finished.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// It stays.
    Refused,
    Replaced,
}

/// A finished content. Its bytes never change.
#[derive(Debug, Clone)]
struct Finished {
    body: Arc<Body>,
    /// What it is, once that is known.
    id: Option<ContentId>,
}

#[derive(Debug)]
struct RememberedContent {
    listed_as: ContentName,
    manifest: Manifest,
    written_here: bool,
}

#[derive(Debug)]
struct Unfinished {
    body: Arc<Body>,
    committed: Bitfield,
    /// Whether a blob is writing it.
    open: bool,
}

#[derive(Debug)]
struct Body {
    length: u64,
    pieces: RwLock<Pieces>,
    /// The name that it had, if another content has replaced it there.
    replaced: OnceLock<ContentName>,
}

impl MemoryStorage {
    /// An empty storage without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty storage for at most `bytes` bytes of content. A download
    /// reserves its whole length when it starts. An interrupted download keeps
    /// its space if a chunk was committed.
    pub fn with_capacity(bytes: u64) -> Self {
        let contents = Contents {
            capacity: Some(bytes),
            ..Contents::default()
        };
        Self(Arc::new(Mutex::new(contents)))
    }

    /// Adds a finished content.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when the name is taken, and
    /// [`StorageError::Full`].
    pub fn insert(&self, name: ContentName, bytes: impl Into<Bytes>) -> Result<(), StorageError> {
        let bytes = bytes.into();
        let mut contents = self.contents();
        contents.check_free(&name)?;
        let length = bytes.len() as u64;
        contents.reserve(&name, length)?;
        let body = Body::empty(length);
        body.pieces().insert(0, bytes);
        let body = Arc::new(body);
        contents.finished.insert(name, Finished { body, id: None });
        Ok(())
    }

    /// The bytes of the finished content with this name. Copies them unless the
    /// content was inserted or written in one piece.
    pub fn bytes(&self, name: impl AsRef<str>) -> Option<Bytes> {
        let Finished { body, .. } = self.contents().finished.get(name.as_ref()).cloned()?;
        Some(body.read(0, body.length))
    }

    /// Opens a content for writing.
    fn create_as(
        &self,
        name: &ContentName,
        manifest: &Manifest,
        taken: Taken,
    ) -> Result<Partial, StorageError> {
        let (id, geometry) = (manifest.id(), manifest.geometry());
        let mut contents = self.contents();
        let (body, present) = match contents.unfinished.get_mut(&id) {
            Some(unfinished) if unfinished.open => {
                return Err(StorageError::Locked { id, path: None });
            }
            Some(unfinished) => {
                unfinished.open = true;
                (unfinished.body.clone(), unfinished.committed.clone())
            }
            None => {
                contents.reserve(name, geometry.length())?;
                let body = Arc::new(Body::empty(geometry.length()));
                let committed = Bitfield::none(geometry.chunks());
                contents.unfinished.insert(
                    id,
                    Unfinished {
                        body: body.clone(),
                        committed: committed.clone(),
                        open: true,
                    },
                );
                (body, committed)
            }
        };
        let blob = Arc::new(MemoryBlob {
            storage: self.clone(),
            name: name.clone(),
            taken,
            id,
            geometry,
            body,
            finished: Mutex::new(false),
        });
        // Nothing else can change the memory, so what was committed is still
        // verified.
        let partial = Partial::resumed(blob, present.clone());
        Ok(partial.verified(present).untouched(true))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.contents();
        f.debug_struct("MemoryStorage")
            .field("finished", &contents.finished.len())
            .field("unfinished", &contents.unfinished.len())
            .field("reserved", &contents.reserved)
            .field("capacity", &contents.capacity)
            .finish()
    }
}

impl Contents {
    fn check_free(&self, name: &ContentName) -> Result<(), StorageError> {
        if self.finished.contains_key(name) {
            return Err(StorageError::Exists {
                name: name.clone(),
                path: None,
            });
        }
        Ok(())
    }

    /// Removes what has a name.
    fn replace(&mut self, name: &ContentName) {
        if let Some(Finished { body, .. }) = self.finished.remove(name) {
            self.reserved -= body.length;
            body.replaced_at(name);
        }
        self.remembered.retain(|(other, _), _| other != name);
    }

    fn reserve(&mut self, name: &ContentName, length: u64) -> Result<(), StorageError> {
        let reserved = self.reserved.saturating_add(length);
        if self.capacity.is_some_and(|capacity| reserved > capacity) {
            let available = self.capacity.map(|capacity| capacity - self.reserved);
            return Err(StorageError::full(name.as_str(), length, available));
        }
        self.reserved = reserved;
        Ok(())
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.contents().check_free(name)?;
        self.create_as(name, manifest, Taken::Refused)
    }

    async fn create_replacing(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.create_as(name, manifest, Taken::Replaced)
    }

    async fn draft(&self, name: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
        self.contents().check_free(name)?;
        Ok(Box::new(MemoryDraft {
            storage: self.clone(),
            name: name.clone(),
            pieces: Pieces::default(),
            len: 0,
        }))
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.contents().unfinished.contains_key(id)
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        let mut contents = self.contents();
        match contents.unfinished.get(id) {
            None => Ok(false),
            Some(unfinished) if unfinished.open => Err(StorageError::Locked {
                id: *id,
                path: None,
            }),
            Some(unfinished) => {
                contents.reserved -= unfinished.body.length;
                contents.unfinished.remove(id);
                Ok(true)
            }
        }
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        match self.contents().finished.get(name) {
            Some(finished) => Ok(Arc::new(MemoryReadBlob(finished.body.clone()))),
            None => Err(StorageError::NotFound { name: name.clone() }),
        }
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        let mut contents = self.contents();
        let length = stored.manifest.geometry().length();
        // A blob that is not in this storage cannot be found again.
        let found = contents.finished.get_mut(&stored.name);
        let found = found.filter(|found| found.body.length == length);
        if let Some(found) = found.filter(|_| stored.blob.length() == length) {
            let id = stored.manifest.id();
            let was_known = found.id.replace(id) == Some(id);
            let key = (stored.name.clone(), id);
            let known = contents.remembered.get(&key).filter(|_| was_known);
            let remembered = RememberedContent {
                listed_as: stored.listed_as.clone(),
                manifest: stored.manifest.clone(),
                // It is no less the peer's when it is found again.
                written_here: stored.written_here || known.is_some_and(|known| known.written_here),
            };
            contents.remembered.insert(key, remembered);
        }
        Ok(())
    }

    async fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
        let key = (name.clone(), *id);
        self.contents().remembered.remove(&key);
        Ok(())
    }

    async fn remember_paused(&self, paused: &PausedDownload) -> Result<(), StorageError> {
        let mut contents = self.contents();
        contents.paused.insert(paused.id, paused.clone());
        Ok(())
    }

    async fn forget_paused(&self, id: &PausedId) -> Result<(), StorageError> {
        self.contents().paused.remove(id);
        Ok(())
    }

    async fn paused(&self) -> Result<Vec<PausedDownload>, StorageError> {
        Ok(self.contents().paused.values().cloned().collect())
    }

    async fn remove(
        &self,
        name: &ContentName,
        id: &ContentId,
        known: Option<&FileStamp>,
    ) -> Result<(), StorageError> {
        let not_found = || StorageError::NotFound { name: name.clone() };
        self.forget(name, id).await?;
        let found = self.contents().finished.get(name).cloned();
        // What has a file is not here.
        let found = found.filter(|_| known.is_none()).ok_or_else(not_found)?;
        let found_id = found.id.or_else(|| found.body.hash());
        if found_id != Some(*id) {
            let path = name.as_str().into();
            return Err(StorageError::Changed { path });
        }
        let mut contents = self.contents();
        let is_same = |there: &Finished| Arc::ptr_eq(&there.body, &found.body);
        if !contents.finished.get(name).is_some_and(is_same) {
            return Err(not_found());
        }
        contents.finished.remove(name);
        contents.reserved -= found.body.length;
        Ok(())
    }

    async fn catalogue(&self) -> Result<Catalogue, StorageError> {
        let contents = self.contents();
        let entry = |((name, id), remembered): (&(ContentName, ContentId), &RememberedContent)| {
            let blob = Arc::new(MemoryReadBlob(contents.finished.get(name)?.body.clone()));
            let entry = Remembered::new(*id, name.clone(), blob);
            let entry = entry.listed_as(remembered.listed_as.clone());
            Some(entry.written_here(remembered.written_here))
        };
        let mut catalogue = Catalogue::default();
        let entries = contents.remembered.iter().filter_map(entry);
        catalogue.remembered.extend(entries);
        Ok(catalogue)
    }

    async fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        let contents = self.contents();
        let kept = contents.remembered.get(&(name.clone(), *id));
        Ok(kept.map(|kept| kept.manifest.clone()))
    }
}

/// A content that is open for writing.
struct MemoryBlob {
    storage: MemoryStorage,
    name: ContentName,
    taken: Taken,
    id: ContentId,
    geometry: Geometry,
    body: Arc<Body>,
    finished: Mutex<bool>,
}

impl MemoryBlob {
    fn finished(&self) -> MutexGuard<'_, bool> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Blob for MemoryBlob {
    fn length(&self) -> u64 {
        self.body.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.body.length)?;
        self.body.read_checked(offset, len as u64)
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        check_range(offset, len as u64, self.body.length).ok()?;
        self.body.read_checked(offset, len as u64).ok()
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.body.length)?;
        // Held to the end, so that the content cannot be finished during the
        // write.
        let finished = self.finished();
        if *finished {
            return Err(StorageError::ReadOnly);
        }
        let mut kept = self.body.pieces();
        let mut at = offset;
        for piece in pieces {
            let len = piece.len() as u64;
            kept.insert(at, piece);
            at += len;
        }
        Ok(())
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let mut contents = self.storage.contents();
        // A finished content is no longer in this map, and stays complete.
        if let Some(unfinished) = contents.unfinished.get_mut(&self.id)
            && Arc::ptr_eq(&unfinished.body, &self.body)
        {
            unfinished.committed = verified.clone();
        }
        Ok(())
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let mut finished = self.finished();
        if *finished {
            return Ok(());
        }
        let mut contents = self.storage.contents();
        match self.taken {
            Taken::Refused => contents.check_free(&self.name)?,
            Taken::Replaced => contents.replace(&self.name),
        }
        contents.unfinished.remove(&self.id);
        let content = Finished {
            body: self.body.clone(),
            id: Some(self.id),
        };
        contents.finished.insert(self.name.clone(), content);
        *finished = true;
        Ok(())
    }
}

impl Drop for MemoryBlob {
    /// Releases the right to write, and removes the chunks that were not
    /// committed.
    fn drop(&mut self) {
        if *self.finished() {
            return;
        }
        let mut contents = self.storage.contents();
        let Some(unfinished) = contents.unfinished.get_mut(&self.id) else {
            return;
        };
        let mut pieces = self.body.pieces();
        pieces.retain(&self.geometry, &mut unfinished.committed);
        unfinished.open = false;
        if unfinished.committed.is_empty() {
            contents.unfinished.remove(&self.id);
            contents.reserved -= self.body.length;
        }
    }
}

/// A content that is written from its start to its end.
struct MemoryDraft {
    storage: MemoryStorage,
    name: ContentName,
    pieces: Pieces,
    /// How many bytes are reserved for it.
    len: u64,
}

#[async_trait]
impl Draft for MemoryDraft {
    async fn append(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        let len = bytes.len() as u64;
        self.storage.contents().reserve(&self.name, len)?;
        self.pieces.insert(self.len, bytes);
        self.len += len;
        Ok(())
    }

    async fn publish(mut self: Box<Self>, id: &ContentId) -> Result<Arc<dyn Blob>, StorageError> {
        let storage = self.storage.clone();
        let mut contents = storage.contents();
        if let Err(error) = contents.check_free(&self.name) {
            // The draft needs the lock to give its space back.
            drop(contents);
            return Err(error);
        }
        let body = Arc::new(Body {
            length: std::mem::take(&mut self.len),
            pieces: RwLock::new(std::mem::take(&mut self.pieces)),
            replaced: OnceLock::new(),
        });
        let finished = Finished {
            body: Arc::clone(&body),
            id: Some(*id),
        };
        contents.finished.insert(self.name.clone(), finished);
        drop(contents);
        Ok(Arc::new(MemoryReadBlob(body)))
    }

    async fn discard(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Drop for MemoryDraft {
    fn drop(&mut self) {
        self.storage.contents().reserved -= self.len;
    }
}

/// A content that is open for reading.
struct MemoryReadBlob(Arc<Body>);

#[async_trait]
impl Blob for MemoryReadBlob {
    fn length(&self) -> u64 {
        self.0.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.0.length)?;
        self.0.read_checked(offset, len as u64)
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        check_range(offset, len as u64, self.0.length).ok()?;
        self.0.read_checked(offset, len as u64).ok()
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.0.length)?;
        Err(StorageError::ReadOnly)
    }

    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    async fn finish(&self) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }
}

impl Body {
    /// What its bytes are.
    fn hash(&self) -> Option<ContentId> {
        let manifest = Manifest::of(&self.read(0, self.length));
        manifest.ok().map(|manifest| manifest.id())
    }

    fn empty(length: u64) -> Self {
        Self {
            length,
            pieces: RwLock::default(),
            replaced: OnceLock::new(),
        }
    }

    /// Another content has its name from now on, and its bytes are dropped.
    fn replaced_at(&self, name: &ContentName) {
        // Nothing is replaced twice.
        let _ = self.replaced.set(name.clone());
        *self.pieces() = Pieces::default();
    }

    /// Fails if its bytes are gone.
    fn read_checked(&self, offset: u64, len: u64) -> Result<Bytes, StorageError> {
        let bytes = self.read(offset, len);
        // After the read: what was dropped reads as zeros.
        match self.replaced.get() {
            Some(name) => {
                let path = name.as_str().into();
                Err(StorageError::Changed { path })
            }
            None => Ok(bytes),
        }
    }

    fn pieces(&self) -> std::sync::RwLockWriteGuard<'_, Pieces> {
        self.pieces.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, offset: u64, len: u64) -> Bytes {
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        pieces.read(offset..offset + len)
    }
}
