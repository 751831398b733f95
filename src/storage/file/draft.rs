//! A file that is written from its start to its end before anybody knows what content it
//! is. It has a name of its own until it is published.
//!
//! Nobody finds it by its content, so it is not resumed: what a crash leaves of it is
//! removed the next time that the catalogue is read.

use std::io;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::{run, run_on};
use super::dir::Dir;
use super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::failure::{failed, failed_to_store};
use super::names::draft_name;
use super::pool::WriterPlaces;
use super::read_blob::{Located, ReadBlob};
use super::stamp::Stamp;
use super::storage_dir::{LockAttempt, StorageDir};
use super::timestamp::Timestamp;
use crate::content::{ContentId, ContentName};
use crate::storage::{Blob, Draft, StorageError};

/// Tells the drafts of one process apart.
static NEXT_DRAFT: AtomicU64 = AtomicU64::new(0);

/// The file, locked. Everything in it blocks.
pub(super) struct DraftFile<D: Disk> {
    dir: Arc<StorageDir<D>>,
    file: D::File,
    /// Its name until it is published.
    draft: String,
    name: ContentName,
    stage: Mutex<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Draft,
    Published,
    Removed,
}

impl<D: Disk> DraftFile<D> {
    /// Makes the file, if nothing has the name that it is to get.
    pub(super) fn begin(dir: Arc<StorageDir<D>>, name: ContentName) -> Result<Self, StorageError> {
        if dir.kind(name.as_str())?.is_some() {
            return Err(dir.exists(&name));
        }
        let id = unique();
        let draft = draft_name(id);
        let LockAttempt::Acquired(file) = dir.open_locked(&draft)? else {
            return Err(dir.locked(id));
        };
        let begun = Self {
            dir,
            file,
            draft,
            name,
            stage: Mutex::new(Stage::Draft),
        };
        begun.dir.find_naming(id, &begun.file)?;
        Ok(begun)
    }

    pub(super) fn write(&self, offset: u64, bytes: Bytes) -> Result<(), StorageError> {
        let (len, path) = (bytes.len() as u64, self.dir.path_of(&self.draft));
        let written = self.file.write_at(offset, &[bytes]);
        written.map_err(|e| failed_to_store("writing", &path, len, e))
    }

    /// Gives the file, which has `len` bytes, its final name, durably.
    pub(super) fn publish(&self, len: u64) -> Result<Stamp, StorageError> {
        let mut stage = self.stage();
        let path = self.dir.path_of(&self.draft);
        // As for any finished file: every later change shows.
        let now = SystemTime::now();
        let stamped = self.file.set_modified(now).is_ok();
        let synced = self.file.sync_all().and_then(|()| self.file.stat());
        let stat = synced.map_err(|e| failed("syncing", &path, e))?;
        let is_there = match self.dir.disk.is_at(&self.draft, &self.file) {
            Ok(is_there) => is_there,
            Err(Refused::Kind(kind)) => kind == EntryKind::SharedFile,
            Err(Refused::Io(error)) => return Err(failed("examining", &path, error)),
        };
        if stat.len != len || !is_there {
            let how = if is_there { "truncated" } else { "removed" };
            return Err(StorageError::Tampered { path, how });
        }
        let mark = self.dir.mark();
        match self
            .dir
            .publish(&self.draft, self.name.as_str(), &self.file)
        {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.dir.exists(&self.name));
            }
            done => done.map_err(|e| failed("publishing", &path, e))?,
        }
        if let Err(error) = self.dir.sync(mark) {
            // After a failed sync the name may never reach the disk.
            let name = self.name.as_str();
            let _ = self.dir.take_back(name, &self.draft, &self.file);
            return Err(failed("syncing", self.dir.path(), error));
        }
        *stage = Stage::Published;
        let _ = self.file.unlock();
        Ok(Stamp {
            len,
            modified: stat.modified,
            settled: stamped && stat.modified == Timestamp::from(now),
        })
    }

    /// Removes the file, unless it is published.
    pub(super) fn remove(&self) -> Result<(), StorageError> {
        let mut stage = self.stage();
        if *stage != Stage::Draft {
            return Ok(());
        }
        *stage = Stage::Removed;
        let removed = self.dir.remove(&self.draft);
        let _ = self.file.unlock();
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing", &self.dir.path_of(&self.draft), e))
            }
            _ => Ok(()),
        }
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> Drop for DraftFile<D> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::debug!(name = %self.name, %error, "failed to remove a draft");
        }
    }
}

/// A number that no other draft has.
pub(super) fn unique() -> ContentId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.as_nanos());
    let number = NEXT_DRAFT.fetch_add(1, Ordering::Relaxed);
    ContentId::of(format!("{nanos} {} {number}", process::id()).as_bytes())
}

/// A draft in a directory.
pub(super) struct FileDraft {
    file: Arc<DraftFile<Dir>>,
    len: u64,
    target: Located,
    /// Released when the file is closed.
    _places: WriterPlaces,
}

impl FileDraft {
    pub(super) fn new(file: DraftFile<Dir>, target: Located, places: WriterPlaces) -> Self {
        Self {
            file: Arc::new(file),
            len: 0,
            target,
            _places: places,
        }
    }
}

#[async_trait]
impl Draft for FileDraft {
    async fn append(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        let (file, at, len) = (Arc::clone(&self.file), self.len, bytes.len());
        run_on(len, move || file.write(at, bytes)).await?;
        self.len += len as u64;
        Ok(())
    }

    async fn publish(self: Box<Self>, _id: &ContentId) -> Result<Arc<dyn Blob>, StorageError> {
        let (file, len) = (Arc::clone(&self.file), self.len);
        let published = run(move || file.publish(len).inspect_err(|_| drop(file.remove()))).await;
        let blob = ReadBlob::new(self.target.clone(), published?);
        Ok(Arc::new(blob))
    }

    async fn discard(self: Box<Self>) -> Result<(), StorageError> {
        let file = Arc::clone(&self.file);
        run(move || file.remove()).await
    }
}
