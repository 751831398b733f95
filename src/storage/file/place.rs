//! The directory of a storage, and how an unfinished file in it is taken up.
//! Everything here blocks.

use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::dir::{Kind, Refused};
use super::disk::{Disk, DiskFile};
use super::ledger::Ledger;
use super::part::{Names, Opened, Part};
use super::writers::{Turn, Writers};
use crate::content::{Bitfield, ContentId, ContentName, Manifest};
use crate::storage::StorageError;

/// How often opening an unfinished file starts again because somebody finished
/// it between the opening and the lock.
const OPEN_ATTEMPTS: u32 = 8;

/// How a storage treats what it is given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) preallocate: bool,
    pub(super) verify_on_resume: bool,
}

#[derive(Debug)]
pub(super) struct Place<D> {
    pub(super) dir: D,
    /// For messages only: the directory may be moved while it is open.
    pub(super) path: PathBuf,
    pub(super) options: Options,
    pub(super) writers: Writers,
    /// The directory's own name is durable.
    placed: AtomicBool,
}

/// An unfinished file that was taken up.
pub(super) struct Resumed<D: Disk> {
    pub(super) part: Part<D>,
    pub(super) present: Bitfield,
    /// Whether the bytes of those present were looked at.
    pub(super) verified: bool,
}

/// An open file with its lock.
enum Locked<F> {
    Ours(F),
    /// Somebody else has it.
    Theirs,
    /// The name stands for another file by now.
    Gone,
}

impl<D: Disk> Place<D> {
    pub(super) fn new(dir: D, path: PathBuf, options: Options) -> Self {
        Self {
            dir,
            path,
            options,
            writers: Writers::default(),
            placed: AtomicBool::new(false),
        }
    }

    /// Opens the unfinished file of a content and its journal, and locks them.
    pub(super) fn open_part(
        place: Arc<Self>,
        name: ContentName,
        manifest: Manifest,
        turn: Option<Turn>,
    ) -> Result<Resumed<D>, StorageError> {
        let id = manifest.id();
        let names = Names::of(id);
        for _ in 0..OPEN_ATTEMPTS {
            place.check_free(&name, id)?;
            if place.kind(&names.part)?.is_none() {
                place.check_room(&names.part, manifest.geometry().length())?;
            }
            // Before a lock was ours, its holder may have published the file:
            // then it is finished, and not to be touched.
            let file = match place.open_locked(&names.part)? {
                Locked::Ours(file) => file,
                Locked::Theirs => break,
                Locked::Gone => continue,
            };
            place.check_free(&name, id)?;
            // Only one who drops it has it locked, and is done in a moment.
            let Locked::Ours(journal) = place.open_locked(&names.journal)? else {
                continue;
            };
            let (opened, verified) = place.take_up(names, &manifest, file, journal)?;
            let present = match &verified {
                Some(verified) => verified.clone(),
                None => opened.claimed.clone(),
            };
            return Ok(Resumed {
                part: Part::new(place, name, manifest, opened, turn),
                present,
                verified: verified.is_some(),
            });
        }
        Err(place.locked(id))
    }

    fn open_locked(&self, name: &str) -> Result<Locked<D::File>, StorageError> {
        let path = self.path.join(name);
        let opened = self.dir.open_or_create(name);
        let file = opened.map_err(|e| refused(&path, "opening", e))?;
        self.lock(name, file)
    }

    fn lock(&self, name: &str, file: D::File) -> Result<Locked<D::File>, StorageError> {
        let path = self.path.join(name);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Locked::Theirs),
            Err(TryLockError::Error(e)) => return Err(failed("locking", &path, 0, &e)),
        }
        match self.dir.is_at(name, &file) {
            Ok(true) => Ok(Locked::Ours(file)),
            Ok(false) => Ok(Locked::Gone),
            Err(error) => Err(refused(&path, "opening", error)),
        }
    }

    /// Reads the journal, and brings the file to its length. Gives the chunks
    /// that verify, if it was asked to look.
    fn take_up(
        &self,
        names: Names,
        manifest: &Manifest,
        file: D::File,
        journal: D::File,
    ) -> Result<(Opened<D>, Option<Bitfield>), StorageError> {
        let (part, journal_path) = (self.path.join(&names.part), self.path.join(&names.journal));
        let geometry = manifest.geometry();
        let length = geometry.length();
        let stat = file
            .stat()
            .map_err(|e| failed("looking at", &part, 0, &e))?;
        self.check_room(&names.part, length.saturating_sub(stat.allocated))?;

        let opened = Ledger::open(journal, manifest.id(), &geometry);
        let (mut ledger, mut claimed, stamp) =
            opened.map_err(|e| failed("opening", &journal_path, 0, &e))?;
        let mut claim = |from: &mut Bitfield, to: Bitfield| {
            let done = ledger.append(from, &to, stat.modified);
            *from = to;
            done.map_err(|e| failed("writing", &journal_path, 0, &e))
        };
        // What was cut off is no longer there, and must not be claimed when
        // the file is extended again.
        let mut there = claimed.clone();
        for chunk in claimed.iter() {
            if geometry.range_of(chunk).end > stat.len {
                there.remove(chunk);
            }
        }
        claim(&mut claimed, there)?;
        if stat.len != length {
            file.set_len(length)
                .map_err(|e| failed("reserving", &part, length, &e))?;
        }
        if self.options.preallocate {
            file.allocate(length)
                .map_err(|e| failed("reserving", &part, length, &e))?;
        }
        // Nobody has written to the file since the last record.
        let settled = stat.len == length && stamp == Some(stat.modified);
        let mut unproven = match settled {
            true => Bitfield::none(geometry.chunks()),
            false => claimed.clone(),
        };
        let mut verified = None;
        if self.options.verify_on_resume {
            let found = verify(&file, manifest, stat.len, &claimed)
                .map_err(|e| failed("verifying", &part, 0, &e))?;
            let mut right = claimed.clone();
            for chunk in claimed.iter() {
                if !found.contains(chunk) {
                    right.remove(chunk);
                }
            }
            claim(&mut claimed, right)?;
            unproven = Bitfield::none(geometry.chunks());
            verified = Some(found);
        }
        let opened = Opened {
            file,
            names,
            ledger,
            claimed,
            unproven,
        };
        Ok((opened, verified))
    }

    /// Makes a finished file durable that was found under its name: whoever
    /// put it there may have done so a moment ago.
    pub(super) fn make_durable(&self, file: &D::File, path: &Path) -> Result<(), StorageError> {
        let synced = file.sync_all();
        synced.map_err(|e| failed("syncing", path, 0, &e))?;
        self.sync()
            .map_err(|e| failed("syncing", &self.path, 0, &e))
    }

    /// Makes the names durable, and the first time that of the directory too:
    /// it may have been created a moment ago, by whoever.
    pub(super) fn sync(&self) -> io::Result<()> {
        if !self.placed.load(Ordering::Acquire) {
            self.dir.sync_above()?;
            self.placed.store(true, Ordering::Release);
        }
        self.dir.sync()
    }

    /// Gives `file`, which stands under `from`, the name `to` instead, and never
    /// replaces anything. Where that takes two steps, and was cut off between
    /// them, it goes on from there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something else has that name.
    pub(super) fn publish(&self, from: &str, to: &str, file: &D::File) -> io::Result<()> {
        match self.dir.rename(from, to) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            done => return done,
        }
        // This very file, under another name too.
        let has_both = || matches!(self.dir.is_at(to, file), Err(Refused::Kind(_)));
        match self.dir.link(from, to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && has_both() => {}
            done => done?,
        }
        // Were the old name gone first, a power failure could leave neither.
        if let Err(error) = self.sync() {
            // Nor may the new one ever reach the disk, whatever a later sync
            // says.
            if has_both() {
                self.dir.remove(to)?;
            }
            return Err(error);
        }
        self.dir.remove(from)
    }

    /// Fails if something has the name.
    pub(super) fn check_free(&self, name: &ContentName, id: ContentId) -> Result<(), StorageError> {
        if self.kind(name.as_str())?.is_none() {
            return Ok(());
        }
        // It may be this content, finished just before a crash.
        self.drop_twin(name, id);
        self.drop_orphan(id);
        Err(self.exists(name))
    }

    pub(super) fn exists(&self, name: &ContentName) -> StorageError {
        StorageError::Exists {
            name: name.clone(),
            path: Some(self.path.join(name.as_str())),
        }
    }

    pub(super) fn locked(&self, id: ContentId) -> StorageError {
        StorageError::Locked {
            id,
            path: Some(self.path.join(Names::of(id).part)),
        }
    }

    fn kind(&self, name: &str) -> Result<Option<Kind>, StorageError> {
        let kind = self.dir.kind(name);
        kind.map_err(|e| failed("looking for", &self.path.join(name), 0, &e))
    }

    /// Fails if the volume has no room for so many more bytes.
    fn check_room(&self, name: &str, needed: u64) -> Result<(), StorageError> {
        match self.dir.available() {
            Some(available) if available < needed => Err(StorageError::Full {
                what: self.path.join(name).display().to_string(),
                needed,
                available: Some(available),
            }),
            _ => Ok(()),
        }
    }

    /// Drops the unfinished name of a file that has its final name as well:
    /// what the last step of publishing in two would have done.
    fn drop_twin(&self, name: &ContentName, id: ContentId) {
        let (name, part) = (name.as_str(), Names::of(id).part);
        let dropped = || -> Result<(), Refused> {
            let is_file = |name| Ok::<_, io::Error>(self.dir.kind(name)? == Some(Kind::File));
            if !is_file(name)? || !is_file(&part)? {
                return Ok(());
            }
            let file = self.dir.open_existing(name)?;
            let same = self.dir.is_at(&part, &file);
            // Whoever is between the two steps at this moment has the lock.
            if matches!(same, Err(Refused::Kind(Kind::SharedFile))) && file.try_lock().is_ok() {
                self.sync()?;
                self.dir.remove(&part)?;
                file.unlock()?;
            }
            Ok(())
        };
        if let Err(error) = dropped() {
            tracing::debug!(%id, ?error, "unfinished name not dropped");
        }
    }

    /// Drops the journal of a content that has no unfinished file: what the
    /// last step of finishing would have done. Whoever is about to write that
    /// content locks its journal, and notices that it is gone.
    pub(super) fn drop_orphan(&self, id: ContentId) {
        let names = Names::of(id);
        let dropped = || -> Result<(), Refused> {
            if self.dir.kind(&names.part)?.is_some() || self.dir.kind(&names.journal)?.is_none() {
                return Ok(());
            }
            let journal = self.dir.open_existing(&names.journal)?;
            if journal.try_lock().is_ok()
                && self.dir.kind(&names.part)?.is_none()
                && self.dir.is_at(&names.journal, &journal)?
            {
                // Were the journal gone first, a power failure could bring the
                // file back under its old name with nothing that vouches for it.
                self.sync()?;
                self.dir.remove(&names.journal)?;
            }
            Ok(())
        };
        if let Err(error) = dropped() {
            tracing::debug!(%id, ?error, "journal not dropped");
        }
    }
}

/// The chunks of a file of `len` bytes that are right. Those that nobody
/// claimed are written again: a sync of them may have failed, and only what is
/// written anew is sure to be synced the next time.
fn verify<F: DiskFile>(
    file: &F,
    manifest: &Manifest,
    len: u64,
    claimed: &Bitfield,
) -> io::Result<Bitfield> {
    let geometry = manifest.geometry();
    let mut right = Bitfield::none(geometry.chunks());
    for chunk in geometry.indices() {
        let range = geometry.range_of(chunk);
        if range.end > len {
            break;
        }
        let bytes = file.read_at(range.start, (range.end - range.start) as usize)?;
        if manifest.verify(chunk, [&bytes[..]]) {
            right.insert(chunk);
            if !claimed.contains(chunk) {
                file.write_at(range.start, &[bytes])?;
            }
        }
    }
    Ok(right)
}

pub(super) fn refused(path: &Path, doing: &str, error: Refused) -> StorageError {
    match error {
        Refused::Kind(kind) => StorageError::NotAFile {
            path: path.to_path_buf(),
            found: kind.describe(),
        },
        Refused::Io(error) => failed(doing, path, 0, &error),
    }
}

/// What the operating system said, where `needed` bytes were to be written.
pub(super) fn failed(doing: &str, path: &Path, needed: u64, error: &io::Error) -> StorageError {
    let what = format!("{doing} {}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full {
            what,
            needed,
            available: None,
        },
        _ => StorageError::io(what, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::dir::Dir;

    fn place_in(root: &Path) -> Place<Dir> {
        Place::new(Dir::open(root).unwrap(), root.into(), Options::default())
    }

    #[test]
    fn publishing_replaces_nothing_and_goes_on_after_its_first_step() {
        let root = tempfile::tempdir().unwrap();
        let (place, at) = (place_in(root.path()), |name| root.path().join(name));
        let file = place.dir.open_or_create("p").unwrap();
        std::fs::write(at("taken"), "old").unwrap();
        let error = place.publish("p", "taken", &file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(at("taken")).unwrap(), b"old");
        assert!(at("p").exists());
        place.publish("p", "free", &file).unwrap();
        assert!(at("free").exists() && !at("p").exists());
    }

    #[test]
    fn file_that_was_published_before_the_lock_is_no_unfinished_one() {
        let root = tempfile::tempdir().unwrap();
        let place = place_in(root.path());
        let Ok(Locked::Ours(holder)) = place.open_locked("p") else {
            panic!("nobody else has it");
        };
        let late = place.dir.open_or_create("p").unwrap();
        assert!(matches!(place.open_locked("p"), Ok(Locked::Theirs)));
        place.publish("p", "a", &holder).unwrap();
        drop(holder);
        assert!(matches!(place.lock("p", late), Ok(Locked::Gone)));

        // Nor is it the one that stands there since.
        let late = place.dir.open_or_create("p").unwrap();
        place.publish("p", "b", &late).unwrap();
        place.dir.open_or_create("p").unwrap();
        #[cfg(unix)]
        assert!(matches!(place.lock("p", late), Ok(Locked::Gone)));
    }

    #[test]
    fn full_disk_and_quota_are_told_apart_from_other_failures() {
        let path = Path::new("p");
        let full = |e: io::Error| failed("writing", path, 7, &e);
        let expected = StorageError::Full {
            what: "writing p".into(),
            needed: 7,
            available: None,
        };
        #[cfg(unix)]
        for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            assert_eq!(full(errno.into()), expected);
        }
        assert_eq!(full(io::ErrorKind::StorageFull.into()), expected);
        let told = |needed| failed("writing", path, needed, &io::ErrorKind::StorageFull.into());
        assert_eq!(
            told(7).to_string(),
            "no space for writing p: 7 bytes needed"
        );
        assert_eq!(told(0).to_string(), "no space for writing p");
        assert!(matches!(
            full(io::ErrorKind::PermissionDenied.into()),
            StorageError::Io {
                kind: io::ErrorKind::PermissionDenied,
                ..
            }
        ));
    }
}
