//! A storage of your own: contents in a map, written into plain vectors.
//!
//! ```text
//! cargo run --example custom_storage
//! ```
//!
//! runs the conformance suite on it, and tells that it keeps every promise of a
//! storage; break one (leave out a check, say) to see the suite complain.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::storage::{Blob, Partial, check_range};
use bt_lite::testing::storage::conformance;
use bt_lite::{Bitfield, ContentId, ContentName, Manifest, Storage, StorageError};
use bytes::Bytes;

/// The storage. A clone is the same one.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    finished: HashMap<ContentName, Bytes>,
    being_written: HashSet<ContentId>,
}

#[async_trait]
impl Storage for Shelf {
    async fn create(&self, name: &ContentName, of: &Manifest) -> Result<Partial, StorageError> {
        let mut contents = self.0.lock().expect("no holder panics");
        if contents.finished.contains_key(name) {
            return Err(StorageError::Exists { name: name.clone() });
        }
        if !contents.being_written.insert(of.id()) {
            return Err(StorageError::Locked { id: of.id() });
        }
        let bytes = vec![0; of.geometry().length() as usize];
        let blob = Arc::new(Draft {
            shelf: self.clone(),
            name: name.clone(),
            id: of.id(),
            state: Mutex::new(State::Writing(bytes)),
        });
        // It keeps nothing of an interrupted download.
        let present = Bitfield::none(of.geometry().chunks());
        Ok(Partial {
            blob,
            verified: present.clone(),
            present,
        })
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        match self.0.lock().expect("no holder panics").finished.get(name) {
            Some(bytes) => Ok(Arc::new(Finished(bytes.clone()))),
            None => Err(StorageError::NotFound { name: name.clone() }),
        }
    }
}

/// A content that is being written. Dropping it lets others write.
struct Draft {
    shelf: Shelf,
    name: ContentName,
    id: ContentId,
    state: Mutex<State>,
}

enum State {
    Writing(Vec<u8>),
    Finished(Bytes),
}

impl State {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Writing(bytes) => bytes,
            Self::Finished(bytes) => bytes,
        }
    }
}

#[async_trait]
impl Blob for Draft {
    fn length(&self) -> u64 {
        self.state.lock().expect("no holder panics").bytes().len() as u64
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length())?;
        let state = self.state.lock().expect("no holder panics");
        Ok(Bytes::copy_from_slice(
            &state.bytes()[offset as usize..][..len],
        ))
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let pieces = pieces.concat();
        check_range(offset, pieces.len() as u64, self.length())?;
        match &mut *self.state.lock().expect("no holder panics") {
            State::Writing(bytes) => {
                bytes[offset as usize..][..pieces.len()].copy_from_slice(&pieces);
                Ok(())
            }
            State::Finished(_) => Err(StorageError::ReadOnly),
        }
    }

    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        Ok(())
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock().expect("no holder panics");
        let State::Writing(bytes) = &mut *state else {
            return Ok(());
        };
        let mut contents = self.shelf.0.lock().expect("no holder panics");
        if contents.finished.contains_key(&self.name) {
            let name = self.name.clone();
            return Err(StorageError::Exists { name });
        }
        let bytes = Bytes::from(std::mem::take(bytes));
        contents.finished.insert(self.name.clone(), bytes.clone());
        *state = State::Finished(bytes);
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let mut contents = self.shelf.0.lock().expect("no holder panics");
        contents.being_written.remove(&self.id);
    }
}

/// A content that is there.
struct Finished(Bytes);

#[async_trait]
impl Blob for Finished {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length())?;
        Ok(self.0.slice(offset as usize..offset as usize + len))
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length())?;
        Err(StorageError::ReadOnly)
    }

    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    async fn finish(&self) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    conformance(|| {
        let shelf = Shelf::default();
        async move || shelf.clone()
    })
    .await;
    println!("the storage keeps every promise that the suite checks");
}
