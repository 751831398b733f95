//! The directory of one storage: its names, its locks, and the steps that
//! publish a file. Everything here blocks.

use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::failure::{failed, refused};
use super::group_sync::{GroupSync, Mark};
use super::names::{PartialNames, probe_names};
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
    /// How files get their final names here, once that is known.
    naming: OnceLock<Naming>,
}

/// How a file gets another name, from the safest way to the weakest. A weaker one is
/// used only where the file system has no safer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Naming {
    /// A rename that replaces nothing.
    Rename,
    /// A second name, and then the first is removed.
    Link,
    /// An empty file takes the name, if that is free, and then is replaced. What
    /// another program puts in its place at that very moment is lost.
    Reserve,
}

/// What becomes of something that has the name of a content when that is finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Taken {
    /// It stays, and the content is not published.
    #[default]
    Refused,
    /// The content takes its place in one step, if it is a file.
    Replaced,
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
            naming: OnceLock::new(),
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

    /// Creates a file, and locks it. Returns nothing if something has the name, or if
    /// somebody else was faster to lock the new file.
    pub(super) fn create_locked(&self, name: &str) -> Result<Option<D::File>, StorageError> {
        let created = {
            let _one = self.one_name();
            self.disk.create_new(name)
        };
        match created {
            Ok(file) => Ok(match self.lock(name, file)? {
                LockAttempt::Acquired(file) => Some(file),
                LockAttempt::Held | LockAttempt::Replaced => None,
            }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(failed("opening", &self.path_of(name), e)),
        }
    }

    fn lock(&self, name: &str, file: D::File) -> Result<LockAttempt<D::File>, StorageError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(LockAttempt::Held),
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                self.remove_empty(name, &file);
                return Err(StorageError::NoLocks {
                    path: self.path.clone(),
                    source: e.into(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(failed("locking", &self.path_of(name), e)),
        }
        match self.disk.is_at(name, &file) {
            Ok(true) => Ok(LockAttempt::Acquired(file)),
            Ok(false) => Ok(LockAttempt::Replaced),
            Err(error) => Err(refused("opening", &self.path_of(name), error)),
        }
    }

    /// Removes a file of the storage that turned out to be of no use, unless there
    /// is something in it.
    fn remove_empty(&self, name: &str, file: &D::File) {
        let removed = match file.stat() {
            Ok(stat) if stat.len == 0 => self.disk.remove(name),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::debug!(name, %error, "failed to remove an empty file");
        }
    }

    /// Removes a name.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let _one = self.one_name();
        self.disk.remove(name)
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

    /// Finds out how files get their final names here, unless that is known: before
    /// the first byte of a content is written, as it cannot be published otherwise.
    /// The caller has the lock of this content, whose unfinished file this is.
    ///
    /// # Errors
    /// The error of the weakest way, if there is none. Then the unfinished file is
    /// removed if it is empty.
    pub(super) fn find_naming(&self, id: ContentId, file: &D::File) -> Result<(), StorageError> {
        if self.naming.get().is_some() {
            return Ok(());
        }
        let probes = probe_names(id);
        let mut found = self.probe(&probes);
        if found
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        {
            // Another process has taken the probe for one that was left behind.
            found = self.probe(&probes);
        }
        match found {
            Ok(naming) => {
                tracing::debug!(?naming, "how files get their names");
                let _ = self.naming.set(naming);
                Ok(())
            }
            Err(error) => {
                self.remove_empty(&PartialNames::of(id).data, file);
                Err(failed("renaming", &self.path_of(&probes[0]), error))
            }
        }
    }

    /// Gives an empty file another name, and removes it.
    fn probe(&self, [from, to]: &[String; 2]) -> io::Result<Naming> {
        let _one = self.one_name();
        let remove = |name: &str| match self.disk.remove(name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        // An earlier probe may have been interrupted.
        remove(from)?;
        remove(to)?;
        drop(self.disk.create_new(from)?);
        let found = self.probe_from(Naming::Rename, from, to);
        let removed = remove(from).and(remove(to));
        found.and_then(|naming| removed.map(|()| naming))
    }

    fn probe_from(&self, naming: Naming, from: &str, to: &str) -> io::Result<Naming> {
        let (renamed, next) = match naming {
            Naming::Rename => (self.disk.rename(from, to), Some(Naming::Link)),
            Naming::Link => (self.disk.link(from, to), Some(Naming::Reserve)),
            Naming::Reserve => {
                let reserved = self.disk.create_new(to);
                let replace = |reserved| self.replace_reserved(from, to, &reserved);
                (reserved.and_then(replace), None)
            }
        };
        match (renamed, next) {
            (Err(e), Some(next)) if e.kind() == io::ErrorKind::Unsupported => {
                self.probe_from(next, from, to)
            }
            (renamed, _) => renamed.map(|()| naming),
        }
    }

    /// Renames `file` and replaces nothing, by the safest way that there is
    /// ([`Naming`]). Where this takes two steps with a second name, and an earlier
    /// call stopped between them, it continues from there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something else has the name `to`.
    pub(super) fn publish(&self, from: &str, to: &str, file: &D::File) -> io::Result<()> {
        let known = self.naming.get().copied().unwrap_or(Naming::Rename);
        let unsupported = |e: &io::Error| e.kind() == io::ErrorKind::Unsupported;
        let mark = self.mark();
        if known == Naming::Rename {
            let _one = self.one_name();
            match self.disk.rename(from, to) {
                Err(e) if unsupported(&e) => {}
                done => return done,
            }
        }
        if known <= Naming::Link {
            match self.publish_in_two_steps(from, to, file, mark) {
                Err(e) if unsupported(&e) => {}
                done => return done,
            }
        }
        self.publish_reserved(from, to)
    }

    /// Renames `file` in one step, in the place of a file that has the name `to`.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something that is not a file has that name.
    pub(super) fn publish_over(&self, from: &str, to: &str, file: &D::File) -> io::Result<()> {
        {
            let _one = self.one_name();
            match self.disk.kind(to)? {
                None => {}
                Some(EntryKind::File) => return self.disk.replace(from, to),
                Some(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            }
        }
        self.publish(from, to, file)
    }

    /// Gives a file its unfinished name back, because a sync of its final name
    /// failed.
    pub(super) fn take_back(&self, from: &str, to: &str, file: &D::File) -> io::Result<()> {
        if self.naming.get() != Some(&Naming::Reserve) {
            return self.publish(from, to, file);
        }
        // To reserve this name as well could replace on the disk what the failed sync
        // did not rename there. It is the storage's own.
        let _one = self.one_name();
        match self.disk.kind(to)? {
            None => self.disk.replace(from, to),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn publish_in_two_steps(
        &self,
        from: &str,
        to: &str,
        file: &D::File,
        mark: Mark,
    ) -> io::Result<()> {
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

    /// Takes the name `to` with an empty file, which replaces nothing, and replaces
    /// that. After a crash between the two, the empty file remains.
    fn publish_reserved(&self, from: &str, to: &str) -> io::Result<()> {
        let mark = self.mark();
        let reserved = {
            let _one = self.one_name();
            self.disk.create_new(to)?
        };
        // If the file were replaced before this sync, a power failure could keep the
        // empty file and lose the other.
        let synced = self.sync(mark);
        let _one = self.one_name();
        synced
            .and_then(|()| self.replace_reserved(from, to, &reserved))
            .inspect_err(|_| {
                if self.is_reserved(to, &reserved).is_ok_and(|ours| ours) {
                    let _ = self.disk.remove(to);
                }
            })
    }

    fn replace_reserved(&self, from: &str, to: &str, reserved: &D::File) -> io::Result<()> {
        match self.is_reserved(to, reserved)? {
            true => self.disk.replace(from, to),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// Whether a name refers to this file, and nothing was written to it: another
    /// program may have put its own there.
    fn is_reserved(&self, name: &str, reserved: &D::File) -> io::Result<bool> {
        match self.disk.is_at(name, reserved) {
            Ok(true) => Ok(reserved.stat()?.len == 0),
            Ok(false) | Err(Refused::Kind(_)) => Ok(false),
            Err(Refused::Io(error)) => Err(error),
        }
    }

    /// Fails if something has the name that a content may not replace.
    pub(super) fn check_target(
        &self,
        name: &ContentName,
        id: ContentId,
        taken: Taken,
    ) -> Result<(), StorageError> {
        match taken {
            Taken::Refused => self.check_free(name, id),
            Taken::Replaced => match self.kind(name.as_str())? {
                None => Ok(()),
                Some(EntryKind::File) => {
                    // It may be this content, which a crash has left with both names.
                    self.drop_second_name(name, id);
                    Ok(())
                }
                Some(other) => Err(StorageError::NotAFile {
                    path: self.path_of(name.as_str()),
                    found: other.describe(),
                }),
            },
        }
    }

    /// Fails if something has the name.
    pub(super) fn check_free(&self, name: &ContentName, id: ContentId) -> Result<(), StorageError> {
        if self.kind(name.as_str())?.is_none() {
            return Ok(());
        }
        // It may be this content, finished just before a crash.
        self.drop_second_name(name, id);
        self.drop_orphaned_journal(id);
        self.drop_probes(id);
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
                let path = self.path_of(name);
                let what = path.display().to_string();
                Err(StorageError::full(what, needed, Some(available)).at(path))
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

    /// Removes a draft or a record that a crash left behind. One that is being written is
    /// locked.
    pub(super) fn drop_draft(&self, name: &str) {
        let dropped = || -> Result<(), Refused> {
            let file = self.disk.open_existing(name)?;
            if file.try_lock().is_ok() {
                self.remove(name)?;
                file.unlock()?;
            }
            Ok(())
        };
        if let Err(error) = dropped() {
            tracing::debug!(name, ?error, "failed to remove a draft");
        }
    }

    /// Removes the probe of a content without an unfinished file, which a crash left
    /// behind.
    pub(super) fn drop_probes(&self, id: ContentId) {
        let dropped = || -> io::Result<()> {
            if self.disk.kind(&PartialNames::of(id).data)?.is_some() {
                return Ok(());
            }
            for name in probe_names(id) {
                if self.disk.kind(&name)? == Some(EntryKind::File) {
                    self.disk.remove(&name)?;
                }
            }
            Ok(())
        };
        if let Err(error) = dropped() {
            tracing::debug!(%id, %error, "failed to remove a probe");
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
    fn new_file_is_locked_and_an_old_one_is_not_taken_for_new() {
        let root = tempfile::tempdir().unwrap();
        let dir = open(root.path());
        let file = dir.create_locked("p").unwrap().unwrap();
        assert!(matches!(dir.open_locked("p"), Ok(LockAttempt::Held)));
        assert!(dir.create_locked("p").unwrap().is_none());
        drop(file);
        assert!(dir.create_locked("p").unwrap().is_none());
        std::fs::create_dir(root.path().join("d")).unwrap();
        assert!(dir.create_locked("d").unwrap().is_none());
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

    #[cfg(unix)]
    #[test]
    fn final_name_is_durable_before_the_unfinished_one_of_an_interrupted_publication_goes() {
        use crate::storage::file::dir::times;

        let root = tempfile::tempdir().unwrap();
        let (dir, id) = (open(root.path()), ContentId::of(b"x"));
        let (name, data): (ContentName, _) = ("x".parse().unwrap(), PartialNames::of(id).data);
        dir.disk.open_or_create(&data).unwrap();
        dir.disk.link(&data, name.as_str()).unwrap();
        let linked = times(root.path());
        assert!(!linked.is_durable());
        let taken = dir.check_free(&name, id);
        assert!(matches!(taken, Err(StorageError::Exists { .. })));
        assert_eq!(dir.kind(&data), Ok(None));
        assert!(times(root.path()).synced > linked.changed);
    }
}
