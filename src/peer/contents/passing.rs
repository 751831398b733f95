//! A storage for one content that passes through: it holds what was not read yet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::content::{Bitfield, ContentName, Geometry, Manifest};
use crate::storage::{Blob, Partial, Storage, StorageError, check_range};

/// Where a stream keeps what is ahead of its reader. A clone is the same one.
#[derive(Debug, Clone)]
pub(in crate::peer) struct PassingStorage(Arc<Passing>);

#[derive(Debug)]
struct Passing {
    /// How many bytes of the content are in memory at most, or two chunks.
    window: u64,
    max_len: u64,
    held: Mutex<Held>,
    /// The most bytes that were held at a time.
    most: AtomicU64,
}

#[derive(Debug, Default)]
struct Held {
    /// By their offsets. Each lies in one chunk, and no two overlap.
    pieces: BTreeMap<u64, Bytes>,
    bytes: u64,
    /// How the content is cut, once it is known.
    geometry: Option<Geometry>,
}

/// The content.
struct PassingBlob {
    of: PassingStorage,
    length: u64,
}

impl PassingStorage {
    pub(in crate::peer) fn new(window: u64, max_len: u64) -> Self {
        Self(Arc::new(Passing {
            window,
            max_len,
            held: Mutex::default(),
            most: AtomicU64::new(0),
        }))
    }

    /// In bytes.
    pub(in crate::peer) fn window(&self) -> u64 {
        self.0.window
    }

    /// The reader has come to this position: the chunks before it are dropped.
    pub(in crate::peer) fn passed(&self, position: u64) {
        let mut held = self.held();
        let Some(geometry) = held.geometry else {
            return;
        };
        let chunk_len = geometry.chunk_len();
        let end = match position >= geometry.length() {
            true => geometry.length(),
            false => position / chunk_len * chunk_len,
        };
        let rest = held.pieces.split_off(&end);
        let passed = std::mem::replace(&mut held.pieces, rest);
        held.bytes -= passed.values().map(|piece| piece.len() as u64).sum::<u64>();
    }

    /// How many bytes are held, and how many were at most.
    pub(in crate::peer) fn held_bytes(&self) -> (u64, u64) {
        (self.held().bytes, self.0.most.load(Ordering::Relaxed))
    }

    /// Ignores poison: no change under this lock is left half done.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for PassingStorage {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let geometry = manifest.geometry();
        let (length, max) = (geometry.length(), self.0.max_len);
        if length > max {
            return Err(StorageError::full(name.as_str(), length, Some(max)));
        }
        self.held().geometry = Some(geometry);
        let of = self.clone();
        let blob = Arc::new(PassingBlob { of, length });
        Ok(Partial::empty(blob, geometry.chunks()))
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        Err(StorageError::NotFound { name: name.clone() })
    }
}

#[async_trait]
impl Blob for PassingBlob {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length)?;
        let held = self.of.held();
        let first = held.pieces.range(..=offset).next_back();
        if let Some((at, piece)) = first {
            let from = (offset - at) as usize;
            if from + len <= piece.len() {
                return Ok(piece.slice(from..from + len));
            }
        }
        let mut bytes = BytesMut::with_capacity(len);
        let start = first.map_or(offset, |(at, _)| *at);
        for (at, piece) in held.pieces.range(start..) {
            let next = offset + bytes.len() as u64;
            if bytes.len() == len || next < *at {
                break;
            }
            let from = ((next - at) as usize).min(piece.len());
            let end = piece.len().min(from + len - bytes.len());
            bytes.extend_from_slice(&piece[from..end]);
        }
        match bytes.len() == len {
            true => Ok(bytes.freeze()),
            false => Err(StorageError::Unsupported {
                what: "reading again what a stream has passed",
            }),
        }
    }

    async fn write_at(&self, mut offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length)?;
        let mut held = self.of.held();
        for piece in pieces {
            let len = piece.len() as u64;
            if len > 0 && held.pieces.insert(offset, piece).is_none() {
                held.bytes += len;
            }
            offset += len;
        }
        self.of.0.most.fetch_max(held.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Nothing is durable, and nothing is to be.
    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        Ok(())
    }

    async fn finish(&self) -> Result<(), StorageError> {
        Ok(())
    }
}
