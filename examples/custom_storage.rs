//! A storage of your own: it keeps contents in a map of vectors.
//!
//! ```text
//! cargo run --example custom_storage
//! ```
//!
//! runs the conformance suite on it, which passes. Break the storage (leave out a
//! check, for example) to see the suite fail.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bt_lite::storage::{Blob, Partial, check_range};
use bt_lite::testing::storage::conformance;
use bt_lite::{Bitfield, ContentId, ContentName, Manifest, Storage, StorageError};
use bytes::Bytes;

/// The storage. A clone is a handle to the same storage.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    finished: HashMap<ContentName, Arc<Mutex<Vec<u8>>>>,
    being_written: HashSet<ContentId>,
}

/// A content in the storage. Dropping it while it is being written lets others
/// write it.
struct Book {
    shelf: Shelf,
    name: ContentName,
    bytes: Arc<Mutex<Vec<u8>>>,
    /// The id that it will have, while it is being written.
    draft: Mutex<Option<ContentId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

impl Shelf {
    fn book(&self, name: &ContentName, bytes: Arc<Mutex<Vec<u8>>>, id: Option<ContentId>) -> Book {
        Book {
            shelf: self.clone(),
            name: name.clone(),
            bytes,
            draft: Mutex::new(id),
        }
    }
}

#[async_trait]
impl Storage for Shelf {
    async fn create(&self, name: &ContentName, of: &Manifest) -> Result<Partial, StorageError> {
        let mut contents = lock(&self.0);
        if contents.finished.contains_key(name) {
            return Err(StorageError::Exists {
                name: name.clone(),
                path: None,
            });
        }
        if !contents.being_written.insert(of.id()) {
            return Err(StorageError::Locked {
                id: of.id(),
                path: None,
            });
        }
        let bytes = vec![0; of.geometry().length() as usize];
        let book = self.book(name, Arc::new(Mutex::new(bytes)), Some(of.id()));
        // This storage cannot resume an interrupted download.
        Ok(Partial::empty(Arc::new(book), of.geometry().chunks()))
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        match lock(&self.0).finished.get(name) {
            Some(bytes) => Ok(Arc::new(self.book(name, bytes.clone(), None))),
            None => Err(StorageError::NotFound { name: name.clone() }),
        }
    }
}

#[async_trait]
impl Blob for Book {
    fn length(&self) -> u64 {
        lock(&self.bytes).len() as u64
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length())?;
        let part = &lock(&self.bytes)[offset as usize..][..len];
        Ok(Bytes::copy_from_slice(part))
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let new = pieces.concat();
        check_range(offset, new.len() as u64, self.length())?;
        let draft = lock(&self.draft);
        if draft.is_none() {
            return Err(StorageError::ReadOnly);
        }
        lock(&self.bytes)[offset as usize..][..new.len()].copy_from_slice(&new);
        Ok(())
    }

    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        Ok(())
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let mut draft = lock(&self.draft);
        let Some(id) = *draft else { return Ok(()) };
        let mut contents = lock(&self.shelf.0);
        let name = self.name.clone();
        if contents.finished.contains_key(&name) {
            return Err(StorageError::Exists { name, path: None });
        }
        contents.finished.insert(name, self.bytes.clone());
        contents.being_written.remove(&id);
        *draft = None;
        Ok(())
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        if let Some(id) = *lock(&self.draft) {
            lock(&self.shelf.0).being_written.remove(&id);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    conformance(|| {
        let shelf = Shelf::default();
        async move || shelf.clone()
    })
    .await;
    println!("the storage passes the conformance suite");
}
