//! Storages that are broken on purpose. The conformance suite must detect each
//! fault with the check for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::storage::{Blob, Catalogue, Lost, Partial, Stored};
use bt_lite::testing::storage::conformance;
use bt_lite::{Bitfield, ContentId, ContentName, Manifest, MemoryStorage, Storage, StorageError};
use bytes::Bytes;

/// The fault of a [`BrokenStorage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    LosesPieces,
    VisibleEarly,
    NeverVisible,
    ReplacesOnFinish,
    FinishesOnce,
    NeverUnlocks,
    LeaksDroppedCreate,
    LetsTwoWrite,
    ClaimsAllPresent,
    ClaimsUncommitted,
    TakesWritesWhenFinished,
    ReadsPastTheEnd,
    VerifiedIsNotPresent,
    KeepsBadCommit,
    NeverForgets,
    RemembersOthers,
    RemembersOtherIds,
    LosesContents,
    LosesManifests,
    ForgetsListedName,
    ClaimsWhatWasFound,
    ForgetsWhoWrote,
    ChecksNamesDifferently,
}

#[derive(Clone)]
struct BrokenStorage {
    inner: MemoryStorage,
    fault: Fault,
    shown: Arc<Mutex<HashMap<ContentName, Arc<dyn Blob>>>>,
    kept: Arc<Mutex<Vec<Arc<dyn Blob>>>>,
}

struct BrokenBlob {
    inner: Arc<dyn Blob>,
    name: ContentName,
    storage: BrokenStorage,
    finished: Mutex<bool>,
}

impl BrokenStorage {
    fn new(fault: Fault) -> Self {
        Self {
            inner: MemoryStorage::new(),
            fault,
            shown: Arc::default(),
            kept: Arc::default(),
        }
    }
}

#[async_trait]
impl Storage for BrokenStorage {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let created = match self.inner.create(name, manifest).await {
            Err(StorageError::Locked { .. }) if self.fault == Fault::LetsTwoWrite => {
                MemoryStorage::new().create(name, manifest).await
            }
            created => created,
        };
        let mut partial = created?;
        let (blob, chunks) = (partial.blob.clone(), partial.present.chunks());
        let keep = || self.kept.lock().unwrap().push(blob.clone());
        match self.fault {
            Fault::NeverUnlocks => keep(),
            Fault::LeaksDroppedCreate => {
                keep();
                tokio::task::yield_now().await;
                self.kept.lock().unwrap().pop();
            }
            Fault::VisibleEarly => {
                let mut shown = self.shown.lock().unwrap();
                shown.insert(name.clone(), blob.clone());
            }
            Fault::ClaimsAllPresent => partial.present = Bitfield::all(chunks),
            Fault::VerifiedIsNotPresent => partial.verified = Bitfield::all(chunks),
            _ => {}
        }
        partial.blob = Arc::new(BrokenBlob {
            inner: blob,
            name: name.clone(),
            storage: self.clone(),
            finished: Mutex::new(false),
        });
        Ok(partial)
    }

    fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
        match self.fault {
            Fault::ChecksNamesDifferently => Err(StorageError::Reserved { name: name.clone() }),
            _ => self.inner.check_name(name),
        }
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.inner.has_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        let shown = self.shown.lock().unwrap().get(name).cloned();
        match (shown, self.fault) {
            (Some(blob), _) => Ok(blob),
            (None, Fault::NeverVisible) => Err(StorageError::NotFound { name: name.clone() }),
            (None, _) => self.inner.open(name).await,
        }
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        self.inner.remember(stored).await
    }

    async fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
        match self.fault {
            Fault::NeverForgets => Ok(()),
            _ => self.inner.forget(name, id).await,
        }
    }

    async fn catalogue(&self) -> Result<Catalogue, StorageError> {
        let mut catalogue = self.inner.catalogue().await?;
        match self.fault {
            Fault::ClaimsWhatWasFound => mark_all(&mut catalogue, true),
            Fault::ForgetsWhoWrote => mark_all(&mut catalogue, false),
            _ => {}
        }
        if let Some(first) = catalogue.remembered.first_mut() {
            match self.fault {
                Fault::ForgetsListedName => first.listed_as = first.name.clone(),
                Fault::RemembersOtherIds => first.id = ContentId::of(b"another"),
                Fault::LosesContents => {
                    let error = StorageError::ReadOnly;
                    let lost = Lost::new(first.id, first.name.clone(), error);
                    catalogue.lost.push(lost);
                }
                _ => {}
            }
        }
        Ok(catalogue)
    }

    async fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        let manifest = self.inner.manifest(name, id).await?;
        Ok(match self.fault {
            Fault::RemembersOthers => Some(Manifest::of(b"another").unwrap()),
            Fault::LosesManifests => None,
            _ => manifest,
        })
    }
}

fn mark_all(catalogue: &mut Catalogue, written_here: bool) {
    for entry in &mut catalogue.remembered {
        entry.written_here = written_here;
    }
}

#[async_trait]
impl Blob for BrokenBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let read = self.inner.read_at(offset, len).await;
        if self.storage.fault == Fault::ReadsPastTheEnd && read.is_err() {
            return Ok(Bytes::new());
        }
        read
    }

    async fn write_at(&self, offset: u64, mut pieces: Vec<Bytes>) -> Result<(), StorageError> {
        if self.storage.fault == Fault::LosesPieces && pieces.len() > 1 {
            pieces.pop();
        }
        let written = self.inner.write_at(offset, pieces).await;
        match self.storage.fault {
            Fault::TakesWritesWhenFinished if written == Err(StorageError::ReadOnly) => Ok(()),
            Fault::ClaimsUncommitted => {
                let len = self.length().div_ceil(16 << 10).max(1);
                self.inner.commit(&Bitfield::all(len as u32)).await?;
                written
            }
            _ => written,
        }
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let nearly_all = verified.count() + 1 == verified.chunks();
        match self.storage.fault {
            Fault::KeepsBadCommit if nearly_all => Ok(()),
            _ => self.inner.commit(verified).await,
        }
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let again = std::mem::replace(&mut *self.finished.lock().unwrap(), true);
        match self.inner.finish().await {
            Ok(()) if again && self.storage.fault == Fault::FinishesOnce => {
                Err(StorageError::Exists {
                    name: self.name.clone(),
                    path: None,
                })
            }
            Err(_) if self.storage.fault == Fault::ReplacesOnFinish => {
                let mut shown = self.storage.shown.lock().unwrap();
                shown.insert(self.name.clone(), self.inner.clone());
                Ok(())
            }
            done => done,
        }
    }
}

/// The panic message of the suite; nothing if the storage passes.
fn complaint(fault: Fault) -> Option<String> {
    let suite = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(conformance(|| {
            let storage = BrokenStorage::new(fault);
            async move || storage.clone()
        }));
    });
    let panic = suite.join().err()?;
    Some(match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().unwrap().to_string(),
    })
}

fn check_caught(fault: Fault, expected: &str) {
    let found = complaint(fault).unwrap_or_else(|| panic!("{fault:?} was not detected"));
    assert!(found.contains(expected), "{fault:?} gave: {found}");
}

#[test]
fn wrapper_without_a_fault_conforms() {
    assert_eq!(complaint(Fault::None), None);
}

#[test]
fn lost_write_is_caught() {
    check_caught(Fault::LosesPieces, "reading overlapping writes");
}

#[test]
fn early_visibility_is_caught() {
    check_caught(
        Fault::VisibleEarly,
        "must not be found right after it was created",
    );
}

#[test]
fn finish_without_effect_is_caught() {
    check_caught(Fault::NeverVisible, "reading a finished content");
}

#[test]
fn replacing_on_finish_is_caught() {
    check_caught(
        Fault::ReplacesOnFinish,
        "finishing under a name that was taken must fail because the name exists",
    );
}

#[test]
fn second_finish_that_fails_is_caught() {
    check_caught(Fault::FinishesOnce, "finishing again must succeed");
}

#[test]
fn lock_that_is_never_released_is_caught() {
    check_caught(Fault::NeverUnlocks, "is being written by another download");
}

#[test]
fn lock_of_a_dropped_create_is_caught() {
    check_caught(
        Fault::LeaksDroppedCreate,
        "creating after a dropped create must succeed",
    );
}

#[test]
fn two_writers_at_once_are_caught() {
    check_caught(
        Fault::LetsTwoWrite,
        "must fail because the content is locked",
    );
}

#[test]
fn present_chunks_that_are_not_there_are_caught() {
    check_caught(Fault::ClaimsAllPresent, "is reported as present");
}

#[test]
fn present_chunks_that_were_never_verified_are_caught() {
    check_caught(Fault::ClaimsUncommitted, "chunk 4 is reported as present");
}

#[test]
fn writes_to_a_finished_content_are_caught() {
    check_caught(
        Fault::TakesWritesWhenFinished,
        "writing to a content that is finished must be refused",
    );
}

#[test]
fn reads_past_the_end_are_caught() {
    check_caught(Fault::ReadsPastTheEnd, "must be out of bounds");
}

#[test]
fn verified_chunks_that_are_not_present_are_caught() {
    check_caught(
        Fault::VerifiedIsNotPresent,
        "a verified chunk must be present",
    );
}

#[test]
fn commit_that_cannot_be_withdrawn_is_caught() {
    check_caught(Fault::KeepsBadCommit, "chunk 2 is reported as present");
}

#[test]
fn content_that_is_never_forgotten_is_caught() {
    check_caught(Fault::NeverForgets, "catalogue must contain every");
}

#[test]
fn manifest_of_another_content_is_caught() {
    check_caught(Fault::RemembersOthers, "the manifest that was remembered");
}

#[test]
fn manifest_that_is_not_returned_is_caught() {
    check_caught(Fault::LosesManifests, "the manifest that was remembered");
}

#[test]
fn wrong_id_in_the_catalogue_is_caught() {
    check_caught(Fault::RemembersOtherIds, "the id of the content");
}

#[test]
fn content_that_is_said_to_be_lost_is_caught() {
    check_caught(Fault::LosesContents, "no content is lost");
}

#[test]
fn lost_name_at_trackers_is_caught() {
    check_caught(
        Fault::ForgetsListedName,
        "the name at trackers that was remembered",
    );
    for fault in [Fault::ClaimsWhatWasFound, Fault::ForgetsWhoWrote] {
        check_caught(fault, "whether the peer has written the bytes");
    }
}

#[test]
fn check_name_that_disagrees_with_create_is_caught() {
    check_caught(
        Fault::ChecksNamesDifferently,
        "must agree with checking the name",
    );
}
