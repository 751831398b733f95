//! The finished contents that a storage remembers, so that they are offered again
//! after a restart without being hashed or opened. Everything here blocks.
//!
//! The log has one record for each content under each of its names. A record names a
//! file and its stamp. Whether the file is still the same is seen without opening it.

use std::collections::HashSet;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::dir::{DataFile, Dir, examine_path, open_path};
use super::disk::{Disk, DiskFile, EntryKind, FileStat, Refused};
use super::failure::{failed, refused};
use super::names::{ReservedFile, parse_reserved, record_name};
use super::old_record::{MAX_OLD_RECORD_LEN, read_old_record};
use super::pool::Pool;
use super::read_blob::{Located, Location, ReadBlob};
use super::record::Record;
use super::record_log::RecordLog;
use super::removal::remove_file;
use super::stamp::{FileStamp, Stamp};
use super::storage_dir::StorageDir;
use crate::content::{ContentId, ContentName, Manifest};
use crate::storage::{Catalogue, Lost, Remembered, StorageError, Stored};

/// How many threads look at the files of records at a time.
const MAX_CHECKERS: usize = 8;

/// How many files a thread looks at, at least: to start it takes as long as some of
/// them.
const MIN_CHECKS: usize = 512;

/// How much of a file is read at a time when it is hashed, in bytes.
const READ_LEN: usize = 1 << 20;

/// The contents that are remembered in the directory of a storage.
#[derive(Debug)]
pub(super) struct FileCatalogue {
    dir: Arc<StorageDir<Dir>>,
    log: RecordLog<Dir>,
}

/// What became of the file of a record.
enum Checked {
    /// It has this stamp.
    Same(Stamp),
    /// It is not the content any more.
    Lost(StorageError),
    /// It cannot be examined now, or its volume may be away. It may be the content
    /// the next time.
    Unavailable(StorageError),
}

impl FileCatalogue {
    pub(super) fn new(dir: Arc<StorageDir<Dir>>) -> Self {
        let log = RecordLog::new(Arc::clone(&dir));
        Self { dir, log }
    }

    /// Records durably that a file is this content.
    pub(super) fn remember(&self, stored: &Stored, file: &FileStamp) -> Result<(), StorageError> {
        let path = match file.path == self.dir.path_of(stored.name.as_str()) {
            true => None,
            false => Some(std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone())),
        };
        let mut record = Record {
            id: stored.manifest.id(),
            name: stored.name.clone(),
            listed_as: stored.listed_as.clone(),
            path,
            stamp: file.stamp,
            written_here: stored.written_here,
        };
        // It is no less the peer's when it is found again.
        record.written_here = record.written_here || self.has_written(&record);
        match self.log.remember(record, &stored.manifest)? {
            Some(appended) => self.log.make_durable(&appended),
            None => Ok(()),
        }
    }

    /// Whether it is recorded that the peer has written this very file.
    fn has_written(&self, found: &Record) -> bool {
        // A record that cannot be read proves nothing.
        let known = self.log.record(&found.name, &found.id).unwrap_or_default();
        known.is_some_and(|known| {
            let is_same = known.path == found.path
                && known.stamp.len == found.stamp.len
                && known.stamp.modified == found.stamp.modified;
            known.written_here && is_same
        })
    }

    /// Removes the record of a content under a name.
    pub(super) fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
        for appended in self.log.forget(name, id)? {
            self.log.make_durable(&appended)?;
        }
        // An earlier version may have kept one.
        let record = record_name(name);
        if !self.is_old_record_of(&record, id) {
            return Ok(());
        }
        let mark = self.dir.mark();
        match self.dir.disk.remove(&record) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done
                .and_then(|()| self.dir.sync(mark))
                .map_err(|e| failed("removing", &self.dir.path_of(&record), e)),
        }
    }

    /// Removes a finished content from the directory: its file under this name, and its
    /// record.
    pub(super) fn remove(
        &self,
        name: &ContentName,
        id: &ContentId,
        known: Option<&FileStamp>,
    ) -> Result<(), StorageError> {
        let removed = self.remove_file(name, id, known);
        // If the file is still there, so is its record: it can be removed again.
        if !matches!(removed, Err(StorageError::Io { .. })) {
            self.forget(name, id)?;
        }
        removed
    }

    fn remove_file(
        &self,
        name: &ContentName,
        id: &ContentId,
        known: Option<&FileStamp>,
    ) -> Result<(), StorageError> {
        let path = self.dir.path_of(name.as_str());
        let not_found = || StorageError::NotFound { name: name.clone() };
        if known.is_some_and(|known| !is_same_path(&known.path, &path)) {
            return Err(not_found());
        }
        let file = match self.dir.disk.open_existing(name.as_str()) {
            Ok(file) => file,
            Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Err(not_found()),
            Err(error) => return Err(refused("opening", &path, error)),
        };
        let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
        // One that cannot be read proves nothing.
        let record = self.log.record(name, id).unwrap_or_default();
        let recorded = record.filter(|record| record.path.is_none());
        let recorded = recorded.map(|record| record.stamp);
        let mut stamps = known.map(|known| known.stamp).into_iter().chain(recorded);
        let is_proven = stamps.any(|stamp| stamp.settled && stamp.is_of(&stat));
        if !is_proven {
            let read = SequentialRead { file: &file, at: 0 };
            let found = Manifest::from_reader(read, stat.len);
            if found.is_ok_and(|found| found.id() == *id) {
                Stamp::of(&stat).check(&file, || path.clone())?;
            } else {
                return Err(StorageError::Changed { path });
            }
        }
        remove_file(&self.dir, name, *id, &file)
    }

    /// The manifest of a content that is remembered under a name.
    pub(super) fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        self.log.manifest(name, id)
    }

    /// All remembered contents: those that have not changed, and the others. Forgets
    /// those that are lost for good, and removes journals without a file.
    pub(super) fn contents(&self, pool: &Arc<Pool<DataFile>>) -> Result<Catalogue, StorageError> {
        let names = self.dir.disk.names();
        let names = names.map_err(|e| failed("listing", self.dir.path(), e))?;
        self.tidy(&names)?;
        let records = self.log.records(names)?;
        let mut catalogue = Catalogue::default();
        catalogue.remembered.reserve(records.len());
        let checked = self.check_all(&records);
        let any_changed = checked
            .iter()
            .any(|checked| matches!(checked, Checked::Lost(_)));
        let (mut same, mut changed) = (HashSet::new(), Vec::new());
        for (record, checked) in records.into_iter().zip(checked) {
            match checked {
                Checked::Same(stamp) => {
                    if any_changed {
                        same.insert(self.path_of(&record));
                    }
                    let at = match record.path {
                        None => Location::InDir(Arc::clone(&self.dir), record.name.clone()),
                        Some(path) => Location::AtPath(path.into()),
                    };
                    let pool = Arc::clone(pool);
                    let blob = Arc::new(ReadBlob::new(Located { pool, at }, stamp));
                    let remembered = Remembered::new(record.id, record.name, blob);
                    let remembered = remembered
                        .listed_as(record.listed_as)
                        .written_here(record.written_here);
                    catalogue.remembered.push(remembered);
                }
                Checked::Lost(error) => {
                    // Not synced: at worst it is reported again.
                    if let Err(error) = self.log.forget(&record.name, &record.id) {
                        tracing::debug!(name = %record.name, %error, "failed to forget it");
                    }
                    let path = self.path_of(&record);
                    changed.push((path, Lost::new(record.id, record.name, error)));
                }
                Checked::Unavailable(error) => {
                    let lost = Lost::new(record.id, record.name, error).recorded(true);
                    catalogue.lost.push(lost);
                }
            }
        }
        // A file that is remembered as what it is now was replaced by the user.
        let lost = changed.into_iter().filter(|(path, _)| !same.contains(path));
        catalogue.lost.extend(lost.map(|(_, lost)| lost));
        Ok(catalogue)
    }

    /// Looks whether the files of all records are still the same. Returns the outcomes
    /// in their order.
    fn check_all(&self, records: &[Record]) -> Vec<Checked> {
        let check = |part: &[Record]| -> Vec<Checked> {
            part.iter().map(|record| self.check(record)).collect()
        };
        if records.len() < 2 * MIN_CHECKS {
            return check(records);
        }
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = threads.clamp(1, MAX_CHECKERS);
        let part = records.len().div_ceil(threads).max(MIN_CHECKS);
        thread::scope(|scope| {
            let parts = records.chunks(part);
            let parts: Vec<_> = parts.map(|part| scope.spawn(|| check(part))).collect();
            let parts = parts.into_iter().map(|part| match part.join() {
                Ok(checked) => checked,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            parts.flatten().collect()
        })
    }

    /// Looks whether the file of a record is still the same.
    fn check(&self, record: &Record) -> Checked {
        let found = match &record.path {
            None => self.dir.disk.examine(record.name.as_str()),
            Some(path) => examine_path(path),
        };
        match found {
            Ok(Some((EntryKind::File, stat))) if record.stamp.is_of(&stat) => {
                self.check_settled(record, &stat)
            }
            Ok(Some(_)) => Checked::Lost(StorageError::Changed {
                path: self.path_of(record),
            }),
            Ok(None) => {
                let name = record.name.clone();
                let error = StorageError::NotFound { name };
                match &record.path {
                    // This directory is here, and the file is not.
                    None => Checked::Lost(error),
                    Some(_) => Checked::Unavailable(error),
                }
            }
            Err(error) => Checked::Unavailable(failed("examining", &self.path_of(record), error)),
        }
    }

    /// The path of the file of a record.
    fn path_of(&self, record: &Record) -> PathBuf {
        match &record.path {
            None => self.dir.path_of(record.name.as_str()),
            Some(path) => path.clone(),
        }
    }

    /// Hashes a file that may have changed without a new modification time.
    fn check_settled(&self, record: &Record, stat: &FileStat) -> Checked {
        if record.stamp.settled {
            return Checked::Same(record.stamp);
        }
        let (stamp, path) = (Stamp::of(stat), self.path_of(record));
        match self.hash(record, &path) {
            Ok(Some(manifest)) => {
                // From now on the modification time is enough, if it has settled by
                // now. If this cannot be recorded, the file is hashed again the next
                // time.
                let record = Record {
                    stamp,
                    ..record.clone()
                };
                if let Err(error) = self.log.remember(record, &manifest) {
                    tracing::debug!(%error, "failed to update the record");
                }
                Checked::Same(stamp)
            }
            Ok(None) => Checked::Lost(StorageError::Changed { path }),
            Err(error) => Checked::Unavailable(error),
        }
    }

    /// The manifest of the file of a record; nothing if its bytes have changed.
    fn hash(&self, record: &Record, path: &Path) -> Result<Option<Manifest>, StorageError> {
        let opened = match &record.path {
            None => self.dir.disk.open_existing(record.name.as_str()),
            Some(path) => open_path(path),
        };
        let file = opened.map_err(|e| refused("opening", path, e))?;
        let read = SequentialRead { file: &file, at: 0 };
        let found = Manifest::from_reader(read, record.stamp.len);
        record.stamp.check(&file, || path.to_path_buf())?;
        Ok(found.ok().filter(|manifest| manifest.id() == record.id))
    }

    /// Moves records of earlier versions to the log, and removes journals without a
    /// file. `names` are those in the directory.
    fn tidy(&self, names: &[String]) -> Result<(), StorageError> {
        let (mut moved, mut last) = (Vec::new(), None);
        for name in names {
            match parse_reserved(name) {
                Some((id, ReservedFile::Journal)) => self.dir.drop_orphaned_journal(id),
                Some((id, ReservedFile::Probe)) => self.dir.drop_probes(id),
                Some((_, ReservedFile::Draft)) => self.dir.drop_draft(name),
                Some((_, ReservedFile::Record)) => match self.move_record(name) {
                    Ok(appended) => {
                        moved.push(name);
                        last = appended.or(last);
                    }
                    // It stays: it may be readable the next time.
                    Err(error) => {
                        tracing::warn!(record = name, %error, "failed to read the record");
                    }
                },
                _ => {}
            }
        }
        if let Some(appended) = last {
            self.log.make_durable(&appended)?;
        }
        for name in moved {
            if let Err(error) = self.dir.disk.remove(name) {
                tracing::debug!(record = name, %error, "failed to remove the record");
            }
        }
        Ok(())
    }

    /// Reads an old record; nothing if it is damaged.
    fn old_record(&self, name: &str) -> Result<Option<(Record, Manifest)>, Refused> {
        let file = self.dir.disk.open_existing(name)?;
        let len = file.stat()?.len.min(MAX_OLD_RECORD_LEN);
        let old = read_old_record(file.read_at(0, len as usize)?);
        Ok(old.filter(|(old, _)| record_name(&old.name) == name))
    }

    /// Whether there is an old record, and not of another content.
    fn is_old_record_of(&self, name: &str, id: &ContentId) -> bool {
        match self.old_record(name) {
            Ok(Some((old, _))) => old.id == *id,
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Writes an old record to the log, if it is valid and the log has none of the
    /// same.
    fn move_record(&self, name: &str) -> Result<Option<Appended>, StorageError> {
        let old = self.old_record(name);
        let old = old.map_err(|e| refused("reading", &self.dir.path_of(name), e))?;
        let Some((record, manifest)) = old else {
            tracing::debug!(record = name, "the record is damaged");
            return Ok(None);
        };
        match self.log.remembers(&record.name, &record.id)? {
            true => Ok(None),
            false => self.log.remember(record, &manifest),
        }
    }
}

/// Whether two paths are one, as far as their text tells.
fn is_same_path(one: &Path, other: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    one == other || absolute(one) == absolute(other)
}

type Appended = super::record_log::Appended<DataFile>;

/// Reads a file from its start to its end.
struct SequentialRead<'a> {
    file: &'a DataFile,
    at: u64,
}

impl io::Read for SequentialRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.stat()?.len.saturating_sub(self.at);
        let len = buffer
            .len()
            .min(READ_LEN)
            .min(left.min(READ_LEN as u64) as usize);
        let bytes = self.file.read_at(self.at, len)?;
        buffer[..len].copy_from_slice(&bytes);
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures::FutureExt;

    #[cfg(unix)]
    use super::super::dir::times;
    use super::super::log_entry::{Change, body_of, old_segment};
    use super::super::names::segment_name;
    use super::super::old_record::old_record;
    use super::super::pool::FilePool;
    use super::*;
    use crate::storage::{MemoryStorage, Storage};

    struct Old {
        root: tempfile::TempDir,
        record: Record,
        manifest: Manifest,
    }

    impl Old {
        /// A content that an earlier version has remembered.
        fn new(version: u32) -> Self {
            let root = tempfile::tempdir().unwrap();
            let (name, bytes): (ContentName, _) = ("a".parse().unwrap(), vec![5; 40_000]);
            fs::write(root.path().join("a"), &bytes).unwrap();
            let file = open_path(&root.path().join("a")).unwrap();
            let manifest = Manifest::of(&bytes).unwrap();
            let mut stamp = Stamp::of(&file.stat().unwrap());
            stamp.settled = true;
            let record = Record {
                id: manifest.id(),
                listed_as: name.clone(),
                name,
                path: None,
                stamp,
                written_here: false,
            };
            let old = Self {
                root,
                record,
                manifest,
            };
            fs::write(old.path(), old_record(version, &old.record, &old.manifest)).unwrap();
            old
        }

        fn path(&self) -> PathBuf {
            self.root.path().join(record_name(&self.record.name))
        }

        fn open(&self) -> FileCatalogue {
            let dir = Dir::open(self.root.path()).unwrap();
            FileCatalogue::new(Arc::new(StorageDir::new(dir, self.root.path().into())))
        }

        fn remembered(&self, catalogue: &FileCatalogue) -> Vec<Remembered> {
            let pool = FilePool::new(8);
            let found = catalogue.contents(pool.pool()).unwrap();
            assert_eq!(found.lost, []);
            found.remembered
        }
    }

    #[test]
    fn records_of_earlier_versions_are_moved_to_the_log() {
        for version in [1, 2] {
            let old = Old::new(version);
            for _ in 0..2 {
                let catalogue = old.open();
                let found = old.remembered(&catalogue);
                assert_eq!(found.len(), 1);
                assert_eq!(
                    (found[0].id, &found[0].name),
                    (old.manifest.id(), &old.record.name)
                );
                let manifest = catalogue.manifest(&found[0].name, &found[0].id);
                assert_eq!(manifest, Ok(Some(old.manifest.clone())));
                assert!(!old.path().exists());
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn old_record_is_removed_when_the_log_has_it_durably() {
        let old = Old::new(2);
        // The last one read is in the log already.
        let mut second = old.record.clone();
        second.name = "b".parse().unwrap();
        let path = old.root.path().join(record_name(&second.name));
        let catalogue = old.open();
        let remembered = catalogue.log.remember(second.clone(), &old.manifest);
        let appended = remembered.unwrap().unwrap();
        catalogue.log.make_durable(&appended).unwrap();
        fs::write(&path, old_record(2, &second, &old.manifest)).unwrap();
        let names = [&old.path(), &path].map(|path| {
            let name = path.file_name().unwrap();
            name.to_str().unwrap().to_owned()
        });
        let segment = times(&old.root.path().join(segment_name(0)));
        assert!(segment.is_durable());
        catalogue.tidy(&names).unwrap();
        assert!(!old.path().exists() && !path.exists());
        let moved = times(&old.root.path().join(segment_name(0)));
        assert!(moved.changed > segment.changed && moved.is_durable());
        assert!(moved.synced < times(old.root.path()).changed);
    }

    #[cfg(unix)]
    #[test]
    fn removal_of_an_old_record_is_durable() {
        let old = Old::new(2);
        old.open().forget(&old.record.name, &old.record.id).unwrap();
        assert!(!old.path().exists());
        assert!(times(old.root.path()).is_durable());
    }

    #[test]
    fn log_of_version_2_does_not_say_who_has_written_a_file() {
        let old = Old::new(2);
        fs::remove_file(old.path()).unwrap();
        let body = body_of(&old.manifest).unwrap();
        let entries = [(1, Change::Remembered(old.record.clone()), body)];
        let segment = old_segment(2, 0, &entries);
        fs::write(old.root.path().join(segment_name(0)), segment).unwrap();
        let found = old.remembered(&old.open());
        assert_eq!(found.len(), 1);
        assert!(!found[0].written_here);
    }

    #[test]
    fn file_stays_written_here_as_long_as_it_is_the_same() {
        let old = Old::new(2);
        fs::remove_file(old.path()).unwrap();
        let (path, name) = (old.root.path().join("a"), old.record.name.clone());
        let remember = |written_here| {
            let blob = MemoryStorage::new();
            blob.insert(name.clone(), vec![5; 40_000]).unwrap();
            let blob = blob.open(&name).now_or_never().unwrap().unwrap();
            let stored = Stored::new(name.clone(), old.manifest.clone(), blob);
            let file = FileStamp {
                path: path.clone(),
                stamp: Stamp::of(&open_path(&path).unwrap().stat().unwrap()),
            };
            let catalogue = old.open();
            let stored = stored.written_here(written_here);
            catalogue.remember(&stored, &file).unwrap();
            old.remembered(&old.open()).remove(0).written_here
        };
        assert!(!remember(false));
        assert!(remember(true));
        assert!(remember(false));
        // Somebody else puts the same bytes there.
        let file = fs::File::options().write(true).open(&path).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        file.set_modified(long_ago).unwrap();
        assert!(!remember(false));
    }

    #[test]
    fn forgotten_or_damaged_record_of_an_earlier_version_is_not_moved() {
        let old = Old::new(2);
        let bytes = fs::read(old.path()).unwrap();
        old.open().forget(&old.record.name, &old.record.id).unwrap();
        assert!(!old.path().exists());
        assert!(old.remembered(&old.open()).is_empty());

        // It was remembered and forgotten since.
        fs::write(old.path(), &bytes).unwrap();
        let catalogue = old.open();
        assert_eq!(old.remembered(&catalogue).len(), 1);
        catalogue.forget(&old.record.name, &old.record.id).unwrap();
        assert!(old.remembered(&catalogue).is_empty());

        fs::write(old.path(), &bytes[1..]).unwrap();
        assert!(old.remembered(&old.open()).is_empty());
        assert!(!old.path().exists());
        // Of another name.
        let other = record_name(&"b".parse().unwrap());
        fs::write(old.root.path().join(other), &bytes).unwrap();
        assert!(old.remembered(&old.open()).is_empty());
    }

    /// The ids that a storage has under the names, in their order.
    fn names(old: &Old) -> Vec<(String, ContentId)> {
        let remembered = old.remembered(&old.open());
        let each = remembered.into_iter();
        let mut names: Vec<_> = each.map(|r| (r.name.to_string(), r.id)).collect();
        names.sort();
        names
    }

    #[test]
    fn log_of_version_1_is_read_and_forgotten_and_its_rules_hold_in_it() {
        let old = Old::new(2);
        fs::remove_file(old.path()).unwrap();
        let (id, body) = (old.record.id, body_of(&old.manifest).unwrap());
        // Another content that had the name before, and would still be found.
        let path = old.root.path().join("elsewhere");
        fs::write(&path, b"before").unwrap();
        let before = Manifest::of(b"before").unwrap();
        let mut stamp = Stamp::of(&open_path(&path).unwrap().stat().unwrap());
        stamp.settled = true;
        let hidden = Record {
            id: before.id(),
            path: Some(path.clone()),
            stamp,
            ..old.record.clone()
        };
        let other = Record {
            name: "b".parse().unwrap(),
            ..hidden.clone()
        };
        let before_body = || body_of(&before).unwrap();
        let gone = Record {
            name: "gone".parse().unwrap(),
            ..hidden.clone()
        };
        let forgotten = Change::NameForgotten(gone.name.clone());
        let entries = [
            (1, Change::NameRemembered(hidden), before_body()),
            (2, Change::NameRemembered(old.record.clone()), body),
            (3, Change::NameRemembered(other.clone()), before_body()),
            (4, Change::NameRemembered(gone), before_body()),
            (5, forgotten, Vec::new()),
        ];
        fs::write(
            old.root.path().join(segment_name(0)),
            old_segment(1, 0, &entries),
        )
        .unwrap();
        let (a, b) = (("a".to_owned(), id), ("b".to_owned(), before.id()));
        assert_eq!(names(&old), [a.clone(), b.clone()]);
        let found = old.open().manifest(&old.record.name, &id);
        assert_eq!(found, Ok(Some(old.manifest.clone())));
        // Not by the id of another content.
        old.open().forget(&other.name, &id).unwrap();
        assert_eq!(names(&old), [a.clone(), b.clone()]);
        // One more content under a name that version 1 has.
        let second = Stored::new(
            old.record.name.clone(),
            before.clone(),
            old.remembered(&old.open()).remove(0).blob,
        );
        let file = FileStamp { path, stamp };
        old.open().remember(&second, &file).unwrap();
        let both = ("a".to_owned(), before.id());
        let mut all = vec![a, both.clone(), b];
        all.sort();
        assert_eq!(names(&old), all);
        old.open().forget(&old.record.name, &id).unwrap();
        old.open().forget(&other.name, &other.id).unwrap();
        assert_eq!(names(&old), [both]);
    }
}
