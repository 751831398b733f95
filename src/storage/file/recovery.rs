//! Opens the unfinished file of a content, and finds out what an earlier
//! download left in it. Everything here blocks.

use std::io;
use std::path::PathBuf;

use super::disk::{Disk, DiskFile};
use super::failure::{failed, failed_to_store};
use super::journal_file::JournalFile;
use super::names::PartialNames;
use super::storage_dir::{LockAttempt, StorageDir, Taken};
use super::timestamp::Timestamp;
use crate::content::{Bitfield, ContentName, Manifest};
use crate::storage::StorageError;

/// How often opening an unfinished file starts again because another process
/// finished it between the opening and the lock.
const OPEN_ATTEMPTS: u32 = 8;

/// How an unfinished file is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RecoveryOptions {
    /// Reserve the space of the whole content.
    pub(super) preallocate: bool,
    /// Read and verify all chunks, whatever the journal says.
    pub(super) verify: bool,
    /// The content has one chunk, which is about to be written as a whole.
    pub(super) written_whole: bool,
    /// What becomes of something that has the name already.
    pub(super) taken: Taken,
}

/// An unfinished file that was opened and locked, and what is known about its
/// chunks.
pub(super) struct Recovered<D: Disk> {
    pub(super) file: D::File,
    /// Nothing for a content of one chunk.
    pub(super) journal: Option<JournalFile<D::File>>,
    /// The chunks that the journal commits.
    pub(super) committed: Bitfield,
    /// The committed chunks that were not verified, although the file was
    /// written to after the last record.
    pub(super) unproven: Bitfield,
    /// The correct chunks, if all were verified.
    pub(super) verified: Option<Bitfield>,
}

/// Whether unfinished files of this content have a journal. One chunk is written
/// and published in one go: there is nothing to resume.
pub(super) fn has_journal(manifest: &Manifest) -> bool {
    manifest.geometry().chunks() > 1
}

/// Opens the unfinished file of a content and its journal, and locks them.
pub(super) fn recover<D: Disk>(
    dir: &StorageDir<D>,
    name: &ContentName,
    manifest: &Manifest,
    options: RecoveryOptions,
) -> Result<Recovered<D>, StorageError> {
    let id = manifest.id();
    let names = PartialNames::of(id);
    if options.written_whole
        && let Some(created) = create_whole(dir, name, manifest, &names, options.taken)?
    {
        return Ok(created);
    }
    for _ in 0..OPEN_ATTEMPTS {
        dir.check_target(name, id, options.taken)?;
        if dir.kind(&names.data)?.is_none() {
            dir.check_room(&names.data, manifest.geometry().length())?;
        }
        let file = match dir.open_locked(&names.data)? {
            LockAttempt::Acquired(file) => file,
            LockAttempt::Held => break,
            LockAttempt::Replaced => continue,
        };
        // The last holder of the lock may have published the file. Then it is
        // finished, and must not be touched.
        dir.check_target(name, id, options.taken)?;
        dir.find_naming(id, &file)?;
        let journal = match has_journal(manifest) {
            true => match dir.open_locked(&names.journal)? {
                LockAttempt::Acquired(journal) => Some(journal),
                // A journal is locked without its file only for the moment in
                // which it is removed.
                LockAttempt::Held | LockAttempt::Replaced => continue,
            },
            false => None,
        };
        let recovery = Recovery::start(dir, &names, manifest, file, journal)?;
        return recovery.complete(options);
    }
    Err(dir.locked(id))
}

/// Creates and locks the file of a content that is about to be written as a whole, and
/// need not have its length before. Returns nothing if there is one, or if it may not
/// have room: then that is looked at more closely.
///
/// Nobody has published a file that was just created, so only its name is looked up
/// after it was locked. If something has the final name by now, that shows in the end.
fn create_whole<D: Disk>(
    dir: &StorageDir<D>,
    name: &ContentName,
    manifest: &Manifest,
    names: &PartialNames,
    taken: Taken,
) -> Result<Option<Recovered<D>>, StorageError> {
    let (id, geometry) = (manifest.id(), manifest.geometry());
    dir.check_target(name, id, taken)?;
    if dir.check_room(&names.data, geometry.length()).is_err() {
        return Ok(None);
    }
    let Some(file) = dir.create_locked(&names.data)? else {
        return Ok(None);
    };
    dir.find_naming(id, &file)?;
    Ok(Some(Recovered {
        file,
        journal: None,
        committed: Bitfield::none(geometry.chunks()),
        unproven: Bitfield::none(geometry.chunks()),
        verified: None,
    }))
}

/// The recovery of one file, after it was locked.
struct Recovery<'a, D: Disk> {
    manifest: &'a Manifest,
    file: D::File,
    /// The length and modification time of the file before the recovery.
    len: u64,
    modified: Timestamp,
    journal: Option<JournalFile<D::File>>,
    committed: Bitfield,
    /// The modification time of the file at the last record.
    recorded: Option<Timestamp>,
    path: PathBuf,
    journal_path: PathBuf,
}

impl<'a, D: Disk> Recovery<'a, D> {
    fn start(
        dir: &StorageDir<D>,
        names: &PartialNames,
        manifest: &'a Manifest,
        file: D::File,
        journal: Option<D::File>,
    ) -> Result<Self, StorageError> {
        let (path, journal_path) = (dir.path_of(&names.data), dir.path_of(&names.journal));
        let geometry = manifest.geometry();
        let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
        let missing = geometry.length().saturating_sub(stat.allocated);
        dir.check_room(&names.data, missing)?;
        let (journal, committed, modified) = match journal {
            None => (None, Bitfield::none(geometry.chunks()), None),
            Some(journal) => {
                let opened = JournalFile::open(journal, manifest.id(), &geometry);
                let opened = opened.map_err(|e| failed("opening", &journal_path, e))?;
                (Some(opened.journal), opened.committed, opened.modified)
            }
        };
        Ok(Self {
            manifest,
            file,
            len: stat.len,
            modified: stat.modified,
            journal,
            committed,
            recorded: modified,
            path,
            journal_path,
        })
    }

    fn complete(mut self, options: RecoveryOptions) -> Result<Recovered<D>, StorageError> {
        self.withdraw_missing()?;
        self.resize(options.preallocate)?;
        let verified = match options.verify {
            true => Some(self.verify()?),
            false => None,
        };
        let unproven = match verified.is_some() || self.is_untouched() {
            true => Bitfield::none(self.committed.chunks()),
            false => self.committed.clone(),
        };
        Ok(Recovered {
            file: self.file,
            journal: self.journal,
            committed: self.committed,
            unproven,
            verified,
        })
    }

    /// Whether the file was not written to since the last record.
    fn is_untouched(&self) -> bool {
        self.len == self.manifest.geometry().length() && self.recorded == Some(self.modified)
    }

    /// Withdraws the chunks that reach past the end of the file. They must not
    /// be committed any more when the file is extended again.
    fn withdraw_missing(&mut self) -> Result<(), StorageError> {
        let geometry = self.manifest.geometry();
        let mut kept = self.committed.clone();
        for chunk in self.committed.iter() {
            if geometry.range_of(chunk).end > self.len {
                kept.remove(chunk);
            }
        }
        self.record(kept)
    }

    /// Brings the file to the length of the content.
    fn resize(&self, preallocate: bool) -> Result<(), StorageError> {
        let length = self.manifest.geometry().length();
        let failed = |error| failed_to_store("reserving", &self.path, length, error);
        if self.len != length {
            self.file.set_len(length).map_err(failed)?;
        }
        if preallocate {
            self.file.allocate(length).map_err(failed)?;
        }
        Ok(())
    }

    /// Reads all chunks, withdraws the wrong ones, and returns the correct ones.
    fn verify(&mut self) -> Result<Bitfield, StorageError> {
        let found = self.correct_chunks();
        let correct = found.map_err(|e| failed("verifying", &self.path, e))?;
        let mut kept = self.committed.clone();
        kept.intersect(&correct);
        self.record(kept)?;
        Ok(correct)
    }

    fn correct_chunks(&self) -> io::Result<Bitfield> {
        let geometry = self.manifest.geometry();
        let mut correct = Bitfield::none(geometry.chunks());
        for chunk in geometry.indices() {
            let range = geometry.range_of(chunk);
            if range.end > self.len {
                break;
            }
            let len = (range.end - range.start) as usize;
            let bytes = self.file.read_at(range.start, len)?;
            if self.manifest.verify(chunk, [&bytes[..]]) {
                correct.insert(chunk);
                // A sync of an uncommitted chunk may have failed. Then only
                // bytes that are written again are certain to be synced.
                if !self.committed.contains(chunk) {
                    self.file.write_at(range.start, &[bytes])?;
                }
            }
        }
        Ok(correct)
    }

    fn record(&mut self, committed: Bitfield) -> Result<(), StorageError> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let appended = journal.append(&self.committed, &committed, self.modified);
        appended.map_err(|e| failed("writing", &self.journal_path, e))?;
        self.committed = committed;
        Ok(())
    }
}
