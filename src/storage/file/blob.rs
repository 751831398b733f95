//! The bytes of one file: being written ([`PartBlob`]), or finished
//! ([`ReadBlob`]).
//!
//! The file operations run on tokio's blocking threads and to their end; each
//! holds the file, and with it the lock, by itself.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;

use super::dir::{DataFile, Kind, Refused};
use super::writers::{Claim, Turn};
use super::{Place, failed, refused};
use crate::content::{Bitfield, ContentName};
use crate::storage::{Blob, StorageError, check_range};

/// Runs file operations where they may block.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StorageError::io(
                "using a file",
                &io::Error::other("the runtime is shutting down"),
            )),
        },
    }
}

/// A content that is open for writing. Its holder has the claim; the part may
/// outlive it by the operations that still run.
pub(super) struct PartBlob {
    part: Arc<Part>,
    claim: Mutex<Option<Claim>>,
}

/// The unfinished file. Closing it gives up the lock.
pub(super) struct Part {
    file: DataFile,
    place: Arc<Place>,
    name: ContentName,
    part_name: String,
    length: u64,
    stage: RwLock<Stage>,
    /// Held while the data is synced: the operating system tells a failure to
    /// one sync only, so none may succeed beside the one that fails.
    syncing: Mutex<()>,
    /// Behind the file, so that the lock is gone when the next one starts.
    turn: Mutex<Option<Turn>>,
}

/// Where a file is on its way. Writes hold it for reading, so that none runs
/// when it is published.
enum Stage {
    Writing,
    /// Under its name, which is not durable yet.
    Visible,
    Finished,
    /// A sync failed: nobody knows which bytes are on the disk.
    Failed(StorageError),
}

impl PartBlob {
    pub(super) fn new(part: Arc<Part>, claim: Claim) -> Self {
        Self {
            part,
            claim: Mutex::new(Some(claim)),
        }
    }
}

#[async_trait]
impl Blob for PartBlob {
    fn length(&self) -> u64 {
        self.part.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.part.length)?;
        let part = self.part.clone();
        run(move || {
            part.file
                .read_at(offset, len)
                .map_err(|e| failed("reading", &part.path(), 0, &e))
        })
        .await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.part.length)?;
        let part = self.part.clone();
        run(move || part.write(offset, len, &pieces)).await
    }

    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        let part = self.part.clone();
        run(move || part.commit()).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let part = self.part.clone();
        run(move || part.finish()).await?;
        // Another download of this content, under another name, may start now.
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

impl Part {
    pub(super) fn new(
        file: File,
        place: Arc<Place>,
        name: ContentName,
        part_name: String,
        length: u64,
        turn: Turn,
    ) -> Self {
        Self {
            file: DataFile::new(file),
            place,
            name,
            part_name,
            length,
            stage: RwLock::new(Stage::Writing),
            syncing: Mutex::new(()),
            turn: Mutex::new(Some(turn)),
        }
    }

    fn path(&self) -> PathBuf {
        self.place.path.join(&self.part_name)
    }

    fn write(&self, offset: u64, len: u64, pieces: &[Bytes]) -> Result<(), StorageError> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Writing => self
                .file
                .write_at(offset, pieces)
                .map_err(|e| failed("writing", &self.path(), len, &e)),
            Stage::Visible | Stage::Finished => Err(StorageError::ReadOnly),
            Stage::Failed(error) => Err(error.clone()),
        }
    }

    fn commit(&self) -> Result<(), StorageError> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Writing => {}
            Stage::Visible | Stage::Finished => return Ok(()),
            Stage::Failed(error) => return Err(error.clone()),
        }
        // Writes go on meanwhile: only those before the call are promised.
        self.file.file().sync_data().map_err(|e| {
            let error = failed("syncing", &self.path(), 0, &e);
            *self.stage.write().unwrap_or_else(PoisonError::into_inner) =
                Stage::Failed(error.clone());
            error
        })
    }

    /// Syncs, publishes, and syncs the name. Each step is taken once, and the
    /// next call goes on behind the last one that succeeded.
    fn finish(&self) -> Result<(), StorageError> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        match &*stage {
            Stage::Writing => {
                if let Err(e) = self.file.file().sync_all() {
                    let error = failed("syncing", &self.path(), 0, &e);
                    *stage = Stage::Failed(error.clone());
                    return Err(error);
                }
                self.publish()?;
                *stage = Stage::Visible;
            }
            Stage::Visible => {}
            Stage::Finished => return Ok(()),
            Stage::Failed(error) => return Err(error.clone()),
        }
        let path = &self.place.path;
        let dir = &self.place.dir;
        dir.sync().map_err(|e| failed("syncing", path, 0, &e))?;
        *stage = Stage::Finished;
        // There is no unfinished file any more that could be locked.
        self.file
            .file()
            .unlock()
            .map_err(|e| failed("unlocking", &self.path(), 0, &e))?;
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn publish(&self) -> Result<(), StorageError> {
        let (dir, file, path) = (&self.place.dir, self.file.file(), self.path());
        // What is published must be what was written and synced.
        match dir.is_at(&self.part_name, file) {
            // Another name that it has besides is no matter: nobody writes any
            // more, and publishing in two steps gives it one.
            Ok(true) | Err(Refused::Kind(Kind::SharedFile)) => {}
            Ok(false) => {
                let gone = io::Error::new(io::ErrorKind::NotFound, "somebody removed it");
                return Err(failed("publishing", &path, 0, &gone));
            }
            Err(error) => return Err(refused(&path, "publishing", error)),
        }
        match dir.publish(&self.part_name, self.name.as_str(), file) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(StorageError::Exists {
                name: self.name.clone(),
            }),
            done => done.map_err(|e| failed("publishing", &path, 0, &e)),
        }
    }
}

/// A content that is open for reading.
pub(super) struct ReadBlob(Arc<ReadFile>);

struct ReadFile {
    file: DataFile,
    path: PathBuf,
    length: u64,
}

impl ReadBlob {
    pub(super) fn new(file: File, path: PathBuf) -> Result<Self, StorageError> {
        let length = length_of(&file, &path)?;
        let file = DataFile::new(file);
        Ok(Self(Arc::new(ReadFile { file, path, length })))
    }
}

fn length_of(file: &File, path: &Path) -> Result<u64, StorageError> {
    match file.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(e) => Err(failed("opening", path, 0, &e)),
    }
}

#[async_trait]
impl Blob for ReadBlob {
    fn length(&self) -> u64 {
        self.0.length
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.0.length)?;
        let this = self.0.clone();
        run(move || {
            this.file
                .read_at(offset, len)
                .map_err(|e| failed("reading", &this.path, 0, &e))
        })
        .await
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

#[cfg(all(test, unix))]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::content::{ContentId, Manifest};
    use crate::storage::{FileStorage, Storage};

    #[tokio::test]
    async fn failed_sync_is_final() {
        let root = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(root.path()).unwrap();
        let claim = storage.0.writers.claim(ContentId::of(b"x")).unwrap();
        let turn = claim.turn().await;
        // A pipe cannot be synced.
        let (reader, _writer) = std::io::pipe().unwrap();
        let name: ContentName = "a".parse().unwrap();
        let part = Part::new(
            OwnedFd::from(reader).into(),
            storage.0.clone(),
            name.clone(),
            "p".into(),
            1,
            turn,
        );
        let blob = PartBlob::new(Arc::new(part), claim);
        let error = blob.commit(&Bitfield::none(1)).await.unwrap_err();
        assert!(error.to_string().starts_with("syncing "), "{error}");
        let written = blob.write_at(0, vec![Bytes::from_static(b"x")]).await;
        assert_eq!(written, Err(error.clone()));
        assert_eq!(blob.commit(&Bitfield::none(1)).await, Err(error.clone()));
        assert_eq!(blob.finish().await, Err(error));
        let manifest = Manifest::of(b"x").unwrap();
        drop(blob);
        storage.create(&name, &manifest).await.unwrap();
    }

    #[tokio::test]
    async fn finish_goes_on_behind_the_step_that_succeeded() {
        let root = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(root.path()).unwrap();
        let id = ContentId::of(b"x");
        let claim = storage.0.writers.claim(id).unwrap();
        let turn = claim.turn().await;
        let place = storage.0.clone();
        let name: ContentName = "a".parse().unwrap();
        let part = Place::open_part(place, name, id, 1, turn).unwrap();
        // As if the sync of the directory had failed.
        part.publish().unwrap();
        *part.stage.write().unwrap() = Stage::Visible;
        let late = part.write(0, 1, &[Bytes::from_static(b"x")]);
        assert_eq!(late, Err(StorageError::ReadOnly));
        part.finish().unwrap();
        assert!(matches!(*part.stage.read().unwrap(), Stage::Finished));
    }
}
