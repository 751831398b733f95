//! Contents in memory.
//!
//! Everything happens inside the call, with no thread, timer or clock, so a
//! program over this storage runs the same way every time. Pieces are kept as
//! they came and read back without a copy where one piece covers the read.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Blob, Partial, Storage, StorageError, Stored, check_range};
use crate::content::{Bitfield, ContentId, ContentName, Geometry, Manifest};

/// Contents in memory, for as long as the storage or a clone of it lives. A
/// clone is the same storage.
///
/// It takes any name. It keeps what it promises within that time: the chunks that were committed
/// outlive the blob of an interrupted download. A piece is kept as it was
/// handed over, so a small slice of a large buffer holds all of the buffer.
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
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    finished: HashMap<ContentName, Arc<Body>>,
    /// In order of the names, so that a catalogue is the same every time.
    remembered: BTreeMap<ContentName, Remembered>,
    unfinished: HashMap<ContentId, Unfinished>,
    /// The most bytes of content, if there is a bound.
    capacity: Option<u64>,
    /// The lengths of all contents, finished or not.
    reserved: u64,
}

#[derive(Debug)]
struct Remembered {
    listed_as: ContentName,
    manifest: Manifest,
}

#[derive(Debug)]
struct Unfinished {
    body: Arc<Body>,
    committed: Bitfield,
    /// Whether a blob writes it.
    open: bool,
}

#[derive(Debug)]
struct Body {
    length: u64,
    pieces: RwLock<Pieces>,
}

impl MemoryStorage {
    /// An empty storage without a bound.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty storage for at most `bytes` bytes of content. A download takes
    /// its whole length when it starts; an interrupted one keeps it if
    /// anything was committed.
    pub fn with_capacity(bytes: u64) -> Self {
        let state = State {
            capacity: Some(bytes),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Puts a finished content into the storage.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when the name is taken, and
    /// [`StorageError::Full`].
    pub fn insert(&self, name: ContentName, bytes: impl Into<Bytes>) -> Result<(), StorageError> {
        let bytes = bytes.into();
        let mut state = self.state();
        state.check_free(&name)?;
        let length = bytes.len() as u64;
        state.reserve(&name, length)?;
        let body = Body::empty(length);
        body.pieces().insert(0, bytes);
        state.finished.insert(name, Arc::new(body));
        Ok(())
    }

    /// The bytes of a finished content, if there is one of this name. Copies
    /// unless the content was inserted, or written, in one piece.
    pub fn bytes(&self, name: &ContentName) -> Option<Bytes> {
        let body = self.state().finished.get(name).cloned()?;
        Some(body.read(0, body.length))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_free(&self, name: &ContentName) -> Result<(), StorageError> {
        if self.finished.contains_key(name) {
            return Err(StorageError::Exists {
                name: name.clone(),
                path: None,
            });
        }
        Ok(())
    }

    fn reserve(&mut self, name: &ContentName, length: u64) -> Result<(), StorageError> {
        let reserved = self.reserved.saturating_add(length);
        if self.capacity.is_some_and(|capacity| reserved > capacity) {
            return Err(StorageError::Full {
                what: name.to_string(),
                needed: length,
                available: self.capacity.map(|capacity| capacity - self.reserved),
            });
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
        let (id, geometry) = (manifest.id(), manifest.geometry());
        let mut state = self.state();
        state.check_free(name)?;
        let (body, present) = match state.unfinished.get_mut(&id) {
            Some(unfinished) if unfinished.open => {
                return Err(StorageError::Locked { id, path: None });
            }
            Some(unfinished) => {
                unfinished.open = true;
                (unfinished.body.clone(), unfinished.committed.clone())
            }
            None => {
                state.reserve(name, geometry.length())?;
                let body = Arc::new(Body::empty(geometry.length()));
                let committed = Bitfield::none(geometry.chunks());
                state.unfinished.insert(
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
            id,
            geometry,
            body,
            finished: Mutex::new(false),
        });
        Ok(Partial {
            blob,
            // Nobody else can reach the memory.
            verified: present.clone(),
            present,
            untouched: true,
        })
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        match self.state().finished.get(name) {
            Some(body) => Ok(Arc::new(ReadBlob(body.clone()))),
            None => Err(StorageError::NotFound { name: name.clone() }),
        }
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        let mut state = self.state();
        let length = stored.manifest.geometry().length();
        // A blob from elsewhere cannot be found again.
        let ours = state.finished.get(&stored.name);
        if stored.blob.length() == length && ours.is_some_and(|body| body.length == length) {
            let remembered = Remembered {
                listed_as: stored.listed_as.clone(),
                manifest: stored.manifest.clone(),
            };
            state.remembered.insert(stored.name.clone(), remembered);
        }
        Ok(())
    }

    async fn forget(&self, name: &ContentName) -> Result<(), StorageError> {
        self.state().remembered.remove(name);
        Ok(())
    }

    async fn catalogue(&self) -> Result<Vec<Stored>, StorageError> {
        let state = self.state();
        let stored = |(name, remembered): (&ContentName, &Remembered)| {
            let blob = Arc::new(ReadBlob(state.finished.get(name)?.clone()));
            let stored = Stored::new(name.clone(), remembered.manifest.clone(), blob);
            Some(stored.listed_as(remembered.listed_as.clone()))
        };
        Ok(state.remembered.iter().filter_map(stored).collect())
    }
}

/// A content that is open for writing.
struct MemoryBlob {
    storage: MemoryStorage,
    name: ContentName,
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
        Ok(self.body.read(offset, len as u64))
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.body.length)?;
        // Held to the end, so that no write runs when the content is finished.
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
        let mut state = self.storage.state();
        // A finished content is not among them, and is kept as a whole.
        if let Some(unfinished) = state.unfinished.get_mut(&self.id)
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
        let mut state = self.storage.state();
        state.check_free(&self.name)?;
        state.unfinished.remove(&self.id);
        state.finished.insert(self.name.clone(), self.body.clone());
        *finished = true;
        Ok(())
    }
}

impl Drop for MemoryBlob {
    /// Gives up the right to write; what was not committed goes.
    fn drop(&mut self) {
        if *self.finished() {
            return;
        }
        let mut state = self.storage.state();
        let Some(unfinished) = state.unfinished.get_mut(&self.id) else {
            return;
        };
        let mut pieces = self.body.pieces();
        pieces.retain(&self.geometry, &mut unfinished.committed);
        unfinished.open = false;
        if unfinished.committed.is_empty() {
            state.unfinished.remove(&self.id);
            state.reserved -= self.body.length;
        }
    }
}

/// A content that is open for reading.
struct ReadBlob(Arc<Body>);

#[async_trait]
impl Blob for ReadBlob {
    fn length(&self) -> u64 {
        self.0.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.0.length)?;
        Ok(self.0.read(offset, len as u64))
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
    fn empty(length: u64) -> Self {
        Self {
            length,
            pieces: RwLock::default(),
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

/// Pieces by their offset; none is empty and no two overlap. What no piece
/// covers reads as zeros.
#[derive(Debug, Default)]
struct Pieces(BTreeMap<u64, Bytes>);

impl Pieces {
    fn insert(&mut self, offset: u64, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.remove(offset..offset + piece.len() as u64);
        self.0.insert(offset, piece);
    }

    fn remove(&mut self, range: Range<u64>) {
        let touched: Vec<u64> = self.overlapping(&range).map(|(at, _)| at).collect();
        for at in touched {
            let Some(mut piece) = self.0.remove(&at) else {
                continue;
            };
            if range.end < at + piece.len() as u64 {
                let behind = piece.split_off((range.end - at) as usize);
                self.0.insert(range.end, behind);
            }
            if at < range.start {
                piece.truncate((range.start - at) as usize);
                self.0.insert(at, piece);
            }
        }
    }

    /// The pieces that have bytes of the range, with their offsets, in order.
    fn overlapping<'a>(
        &'a self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (u64, &'a Bytes)> + use<'a> {
        let before = self.0.range(..range.start).next_back();
        let start = range.start;
        before
            .filter(|(at, piece)| **at + piece.len() as u64 > start)
            .into_iter()
            .chain(self.0.range(range.clone()))
            .map(|(&at, piece)| (at, piece))
    }

    fn read(&self, range: Range<u64>) -> Bytes {
        if range.is_empty() {
            return Bytes::new();
        }
        let part = |at: u64, piece: &Bytes| {
            let end = range.end.min(at + piece.len() as u64);
            piece.slice((range.start.max(at) - at) as usize..(end - at) as usize)
        };
        if let Some((at, piece)) = self.overlapping(&range).next()
            && at <= range.start
            && range.end <= at + piece.len() as u64
        {
            return part(at, piece);
        }
        let mut whole = BytesMut::zeroed((range.end - range.start) as usize);
        for (at, piece) in self.overlapping(&range) {
            let part = part(at, piece);
            let from = (range.start.max(at) - range.start) as usize;
            whole[from..from + part.len()].copy_from_slice(&part);
        }
        whole.freeze()
    }

    fn covers(&self, range: &Range<u64>) -> bool {
        let mut covered = range.start;
        for (at, piece) in self.overlapping(range) {
            if at > covered {
                return false;
            }
            covered = at + piece.len() as u64;
        }
        covered >= range.end
    }

    /// Drops all but the chunks in `kept`, and takes out of `kept` the chunks
    /// that are not here as a whole.
    fn retain(&mut self, geometry: &Geometry, kept: &mut Bitfield) {
        for chunk in geometry.indices() {
            let range = geometry.range_of(chunk);
            if kept.contains(chunk) && !self.covers(&range) {
                kept.remove(chunk);
            }
            if !kept.contains(chunk) {
                self.remove(range);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_read_like_one_array(
            writes in prop::collection::vec((0u64..64, 0usize..24, 1u8..), 0..24),
            reads in prop::collection::vec((0u64..64, 0u64..24), 1..12),
        ) {
            let mut model = [0u8; 96];
            let mut pieces = Pieces::default();
            for (at, len, fill) in writes {
                model[at as usize..][..len].fill(fill);
                pieces.insert(at, Bytes::from(vec![fill; len]));
            }
            for (at, len) in reads {
                let expected = &model[at as usize..][..len as usize];
                prop_assert_eq!(&pieces.read(at..at + len)[..], expected);
                let covered = expected.iter().all(|&byte| byte != 0);
                prop_assert_eq!(pieces.covers(&(at..at + len)), covered);
            }
        }
    }

    #[test]
    fn read_inside_one_piece_copies_nothing() {
        let piece = Bytes::from(vec![7; 100]);
        let mut pieces = Pieces::default();
        pieces.insert(50, piece.clone());
        pieces.insert(60, Bytes::from(vec![8; 10]));
        let before = pieces.read(50..60);
        let behind = pieces.read(80..150);
        assert_eq!(before.as_ptr(), piece.as_ptr());
        assert_eq!(behind.as_ptr(), piece[30..].as_ptr());
    }
}
