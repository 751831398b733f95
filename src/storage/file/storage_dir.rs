//! The directory of one storage: its names, its locks, and the steps that
//! publish a file. Everything here blocks.

use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::failure::{failed, refused};
use super::group_sync::{GroupSync, Mark};
use super::names::PartialNames;
use crate::content::{ContentId, ContentName};
use crate::storage::StorageError;

/// The open directory of a storage.
#[derive(Debug)]
pub(super) struct StorageDir<D> {
    pub(super) disk: D,
    /// For messages only: the directory may be moved while it is open.
    path: PathBuf,
    /// Whether the name of the directory itself is durable.
    is_durable: AtomicBool,
    /// Shares the syncs of the names.
    syncs: GroupSync,
    /// Held while a name is made or changed. The system does one at a time anyway,
    /// and threads that wait for that in the system may spin.
    names: Mutex<()>,
}

/// What an attempt to lock a file gave.
pub(super) enum LockAttempt<F> {
    /// The file, with its lock.
    Acquired(F),
    /// Another open file has the lock.
    Held,
    /// The name refers to another file by now.
    Replaced,
}

impl<D: Disk> StorageDir<D> {
    pub(super) fn new(disk: D, path: PathBuf) -> Self {
        Self {
            disk,
            path,
            is_durable: AtomicBool::new(false),
            syncs: GroupSync::default(),
            names: Mutex::default(),
        }
    }

    /// Ignores poison: the lock protects nothing in memory.
    fn one_name(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file for reading and writing, or creates it, and locks it.
    pub(super) fn open_locked(&self, name: &str) -> Result<LockAttempt<D::File>, StorageError> {
        let opened = {
            let _one = self.one_name();
            self.disk.open_or_create(name)
        };
        let file = opened.map_err(|e| refused("opening", &self.path_of(name), e))?;
        self.lock(name, file)
    }

    fn lock(&self, name: &str, file: D::File) -> Result<LockAttempt<D::File>, StorageError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(LockAttempt::Held),
            Err(TryLockError::Error(e)) => return Err(failed("locking", &self.path_of(name), e)),
        }
        match self.disk.is_at(name, &file) {
            Ok(true) => Ok(LockAttempt::Acquired(file)),
            Ok(false) => Ok(LockAttempt::Replaced),
            Err(error) => Err(refused("opening", &self.path_of(name), error)),
        }
    }

    /// Makes a finished file and its name durable. For files that were found
    /// in the directory: another program may have put one there a moment ago.
    pub(super) fn make_durable(&self, file: &D::File, path: &Path) -> Result<(), StorageError> {
        let mark = self.mark();
        let synced = file.sync_all();
        synced.map_err(|e| failed("syncing", path, e))?;
        self.sync(mark)
            .map_err(|e| failed("syncing", &self.path, e))
    }

    /// The mark of this moment. Taken before names are changed that are to be
    /// synced.
    pub(super) fn mark(&self) -> Mark {
        self.syncs.mark()
    }

    /// Makes the names in the directory durable that were changed since the mark.
    /// All who ask at the same time share one sync, and its failure. The first time
    /// this includes the name of the directory: it may have been created a moment
    /// ago, also by another program.
    pub(super) fn sync(&self, since: Mark) -> io::Result<()> {
        self.syncs.sync(since, || {
            if !self.is_durable.load(Ordering::Acquire) {
                self.disk.sync_parent()?;
                self.is_durable.store(true, Ordering::Release);
            }
            self.disk.sync()
        })
    }

    /// Renames `file` and never replaces anything. Where this takes two steps,
    /// and an earlier call stopped between them, it continues from there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something else has the name `to`.
    pub(super) fn publish(&self, from: &str, to: &str, file: &D::File) -> io::Result<()> {
        let mark = self.mark();
        let renamed = {
            let _one = self.one_name();
            self.disk.rename(from, to)
        };
        match renamed {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            done => return done,
        }
        // Whether the new name refers to this file, and the old one still does.
        let has_both = || matches!(self.disk.is_at(to, file), Err(Refused::Kind(_)));
        match self.disk.link(from, to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && has_both() => {}
            done => done?,
        }
        // If the old name were removed before this sync, a power failure could
        // leave neither name.
        if let Err(error) = self.sync(mark) {
            // After a failed sync the new name may never reach the disk,
            // whatever a later sync says.
            if has_both() {
                self.disk.remove(to)?;
            }
            return Err(error);
        }
        self.disk.remove(from)
    }

    /// Fails if something has the name.
    pub(super) fn check_free(&self, name: &ContentName, id: ContentId) -> Result<(), StorageError> {
        if self.kind(name.as_str())?.is_none() {
            return Ok(());
        }
        // It may be this content, finished just before a crash.
        self.drop_second_name(name, id);
        self.drop_orphaned_journal(id);
        Err(self.exists(name))
    }

    pub(super) fn exists(&self, name: &ContentName) -> StorageError {
        StorageError::Exists {
            name: name.clone(),
            path: Some(self.path_of(name.as_str())),
        }
    }

    pub(super) fn locked(&self, id: ContentId) -> StorageError {
        StorageError::Locked {
            id,
            path: Some(self.path_of(&PartialNames::of(id).data)),
        }
    }

    pub(super) fn kind(&self, name: &str) -> Result<Option<EntryKind>, StorageError> {
        let kind = self.disk.kind(name);
        kind.map_err(|e| failed("looking for", &self.path_of(name), e))
    }

    /// Fails if fewer than `needed` bytes are available for a file.
    pub(super) fn check_room(&self, name: &str, needed: u64) -> Result<(), StorageError> {
        match self.disk.available() {
            Some(available) if available < needed => {
                let path = self.path_of(name).display().to_string();
                Err(StorageError::full(path, needed, Some(available)))
            }
            _ => Ok(()),
        }
    }

    /// Removes the unfinished name of a file that has its final name as well:
    /// the last step of publishing in two steps, if a crash prevented it.
    fn drop_second_name(&self, name: &ContentName, id: ContentId) {
        let (name, data) = (name.as_str(), PartialNames::of(id).data);
        let dropped = || -> Result<(), Refused> {
            let is_file = |name| Ok::<_, io::Error>(self.disk.kind(name)? == Some(EntryKind::File));
            if !is_file(name)? || !is_file(&data)? {
                return Ok(());
            }
            let file = self.disk.open_existing(name)?;
            let same = self.disk.is_at(&data, &file);
            // A process that is between the two steps right now has the lock.
            if matches!(same, Err(Refused::Kind(EntryKind::SharedFile))) && file.try_lock().is_ok()
            {
                self.sync(self.mark())?;
                self.disk.remove(&data)?;
                file.unlock()?;
            }
            Ok(())
        };
        if let Err(error) = dropped() {
            tracing::debug!(%id, ?error, "failed to remove the unfinished name");
        }
    }

    /// Removes the journal of a content without an unfinished file: the last
    /// step of finishing, if a crash prevented it. A process that is about to
    /// write that content locks the journal, and then notices that it is gone.
    pub(super) fn drop_orphaned_journal(&self, id: ContentId) {
        let names = PartialNames::of(id);
        let dropped = || -> Result<(), Refused> {
            if self.disk.kind(&names.data)?.is_some() || self.disk.kind(&names.journal)?.is_none() {
                return Ok(());
            }
            let journal = self.disk.open_existing(&names.journal)?;
            if journal.try_lock().is_ok()
                && self.disk.kind(&names.data)?.is_none()
                && self.disk.is_at(&names.journal, &journal)?
            {
                // If the journal were removed before this sync, a power failure
                // could bring the file back under its old name, without a
                // journal to vouch for it.
                self.sync(self.mark())?;
                self.disk.remove(&names.journal)?;
            }
            Ok(())
        };
        if let Err(error) = dropped() {
            tracing::debug!(%id, ?error, "failed to remove the journal");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::dir::Dir;

    fn open(root: &Path) -> StorageDir<Dir> {
        StorageDir::new(Dir::open(root).unwrap(), root.into())
    }

    #[test]
    fn publishing_replaces_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (dir, at) = (open(root.path()), |name| root.path().join(name));
        let file = dir.disk.open_or_create("p").unwrap();
        std::fs::write(at("taken"), "old").unwrap();
        let error = dir.publish("p", "taken", &file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(at("taken")).unwrap(), b"old");
        assert!(at("p").exists());
        dir.publish("p", "free", &file).unwrap();
        assert!(at("free").exists() && !at("p").exists());
    }

    #[test]
    fn file_that_was_published_before_the_lock_is_not_an_unfinished_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = open(root.path());
        let Ok(LockAttempt::Acquired(holder)) = dir.open_locked("p") else {
            panic!("the file is new");
        };
        let late = dir.disk.open_or_create("p").unwrap();
        assert!(matches!(dir.open_locked("p"), Ok(LockAttempt::Held)));
        dir.publish("p", "a", &holder).unwrap();
        drop(holder);
        assert!(matches!(dir.lock("p", late), Ok(LockAttempt::Replaced)));

        // The same if another file has the name since.
        let late = dir.disk.open_or_create("p").unwrap();
        dir.publish("p", "b", &late).unwrap();
        dir.disk.open_or_create("p").unwrap();
        #[cfg(unix)]
        assert!(matches!(dir.lock("p", late), Ok(LockAttempt::Replaced)));
    }
}
