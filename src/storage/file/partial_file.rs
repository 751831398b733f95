//! The unfinished file of a content, from its first byte to its final name.
//! Everything here blocks.
//!
//! Durability depends on the order of steps, which is the same everywhere:
//! bytes are synced before the journal commits them; a chunk is withdrawn from
//! the journal before its bytes change; the final name is synced before the
//! journal is removed. A failed sync is never retried: the operating system may
//! have dropped the data that it could not write, and then report success. The
//! file accepts no more writes, and the next download resumes at the last
//! commit.
//!
//! A content of one chunk has no journal: it is committed by being published, and
//! an interrupted one starts anew.

use std::io;
use std::path::PathBuf;
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::SystemTime;

use bytes::Bytes;

use super::disk::{Disk, DiskFile, EntryKind, FileStat, Refused};
use super::failure::{failed, failed_to_store};
use super::group_sync::Mark;
use super::journal_file::JournalFile;
use super::names::PartialNames;
use super::pool::WriterPlaces;
use super::recovery::{Recovered, RecoveryOptions, has_journal, recover};
use super::stamp::Stamp;
use super::storage_dir::{StorageDir, Taken};
use super::timestamp::Timestamp;
use super::writers::FilePermit;
use crate::content::{Bitfield, ChunkIndex, ContentName, Manifest};
use crate::storage::StorageError;

/// The unfinished file. Dropping it releases the locks.
pub(super) struct PartialFile<D: Disk> {
    file: D::File,
    dir: Arc<StorageDir<D>>,
    name: ContentName,
    names: PartialNames,
    /// What becomes of something that has the name when the file is published.
    taken: Taken,
    manifest: Manifest,
    stage: RwLock<Stage>,
    /// Held while anything is synced. The operating system reports a failure to
    /// only one of several concurrent syncs, so no sync may run beside another:
    /// it could succeed although its data is lost.
    sync: Mutex<SyncState<D>>,
    chunks: Mutex<ChunkSets>,
    /// The file as it was published. Not a part of the stage, so that reads do
    /// not wait while the file is being published.
    published: OnceLock<Stamp>,
    /// Declared after the files, so that it is dropped after their locks are
    /// released, and the next holder finds the files unlocked.
    permit: Mutex<Option<Arc<FilePermit>>>,
    /// Declared after the files as well: released when they are closed.
    _places: Option<WriterPlaces>,
}

/// An unfinished file that was just opened.
pub(super) struct Resumed<D: Disk> {
    pub(super) file: PartialFile<D>,
    pub(super) present: Bitfield,
    /// The present chunks that were verified.
    pub(super) verified: Bitfield,
}

struct SyncState<D: Disk> {
    /// Nothing for a content of one chunk.
    journal: Option<JournalFile<D::File>>,
    /// Whether the names of the file and of its journal are durable.
    named: bool,
    /// Taken before the files got these names.
    before_names: Mark,
}

/// What is known about the chunks of the file.
struct ChunkSets {
    /// The chunks that the journal commits.
    committed: Bitfield,
    /// The committed chunks that must be verified before the file is published.
    unproven: Bitfield,
}

/// The stage of a file. Writes hold it for reading, so that none runs while
/// the file is being published.
enum Stage {
    Writing,
    /// The file has its final name, and the name is durable.
    Finished,
    /// A sync failed, a committed chunk is wrong, or somebody else has removed,
    /// replaced or truncated the file. Whatever was not committed
    /// before counts as lost.
    Failed(StorageError),
}

impl<D: Disk> PartialFile<D> {
    /// Opens the unfinished file of a content, or creates it, and locks it.
    pub(super) fn open(
        dir: Arc<StorageDir<D>>,
        name: ContentName,
        manifest: Manifest,
        options: RecoveryOptions,
        (permit, places): (Option<Arc<FilePermit>>, Option<WriterPlaces>),
    ) -> Result<Resumed<D>, StorageError> {
        let before_names = dir.mark();
        let Recovered {
            file,
            journal,
            committed,
            unproven,
            verified,
        } = recover(&dir, &name, &manifest, options)?;
        let (present, verified) = match verified {
            Some(verified) => (verified.clone(), verified),
            None => (committed.clone(), Bitfield::none(committed.chunks())),
        };
        let file = Self {
            file,
            dir,
            name,
            names: PartialNames::of(manifest.id()),
            taken: options.taken,
            manifest,
            stage: RwLock::new(Stage::Writing),
            sync: Mutex::new(SyncState {
                journal,
                named: false,
                before_names,
            }),
            chunks: Mutex::new(ChunkSets {
                committed,
                unproven,
            }),
            published: OnceLock::new(),
            permit: Mutex::new(permit),
            _places: places,
        };
        Ok(Resumed {
            file,
            present,
            verified,
        })
    }

    /// How many files are open for an unfinished content.
    pub(super) fn files(manifest: &Manifest) -> u32 {
        match has_journal(manifest) {
            true => 2,
            false => 1,
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.manifest.geometry().length()
    }

    /// Whether the file can be published without verifying any chunk.
    pub(super) fn is_proven(&self) -> bool {
        self.chunks().unproven.is_empty()
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let read = self.file.read_at(offset, len);
        if let Some(stamp) = self.published.get() {
            stamp.check(&self.file, || self.dir.path_of(self.name.as_str()))?;
        }
        let bytes = read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.fail(self.truncated()),
            _ => failed("reading", &self.path(), e),
        })?;
        // A read of exactly one unproven chunk proves it, so that it need not
        // be read again when the file is finished.
        let range = offset..offset + len as u64;
        let chunk = self.chunks_in(offset, len as u64).next();
        let whole = chunk.filter(|&chunk| self.manifest.geometry().range_of(chunk) == range);
        if let Some(chunk) = whole
            && self.chunks().unproven.contains(chunk)
            && self.manifest.verify(chunk, [&bytes[..]])
        {
            self.chunks().unproven.remove(chunk);
        }
        Ok(bytes)
    }

    pub(super) fn write(
        &self,
        offset: u64,
        len: u64,
        pieces: &[Bytes],
    ) -> Result<(), StorageError> {
        self.withdraw(offset, len)?;
        if offset > 0 && offset + len == self.length() {
            // Only this write could hide that the file was truncated.
            self.check_length().map_err(|e| self.fail(e))?;
        }
        let stage = self.stage();
        stage.check_writing()?;
        self.file
            .write_at(offset, pieces)
            .map_err(|e| failed_to_store("writing", &self.path(), len, e))?;
        let mut chunks = self.chunks();
        for chunk in self.chunks_in(offset, len) {
            let range = self.manifest.geometry().range_of(chunk);
            if offset <= range.start && range.end <= offset + len {
                chunks.unproven.remove(chunk);
            }
        }
        Ok(())
    }

    /// Fills the next `len` bytes of the file, from its start on, with those of another
    /// one, if none of its chunks is committed and the system can do it. Returns whether
    /// it did.
    pub(super) fn copy_next(&self, source: &D::File, len: u64) -> Result<bool, StorageError> {
        let stage = self.stage();
        stage.check_writing()?;
        if !self.chunks().committed.is_empty() {
            return Ok(false);
        }
        let copied = self.file.copy_next(source, len);
        copied.map_err(|e| failed_to_store("writing", &self.path(), len, e))
    }

    /// Withdraws the committed chunks of a range before its bytes change.
    fn withdraw(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        let is_committed = {
            let chunks = self.chunks();
            let mut written = self.chunks_in(offset, len);
            written.any(|chunk| chunks.committed.contains(chunk))
        };
        if !is_committed {
            return Ok(());
        }
        let mut sync = self.lock_sync();
        self.stage().check_writing()?;
        let mut kept = self.chunks().committed.clone();
        for chunk in self.chunks_in(offset, len) {
            kept.remove(chunk);
        }
        self.record(&mut sync, &kept)
    }

    pub(super) fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let mut sync = self.lock_sync();
        match &*self.stage() {
            Stage::Writing => {}
            Stage::Finished => return Ok(()),
            Stage::Failed(error) => return Err(error.clone()),
        }
        if sync.journal.is_none() {
            // Nothing can be recorded, so nothing need be durable yet.
            return Ok(());
        }
        self.check_place(sync.journal.as_ref())
            .map_err(|e| self.fail(e))?;
        // Writes may run during the sync: only those before this call are
        // promised to be durable.
        let synced = self.file.sync_data();
        synced.map_err(|e| self.fail(failed("syncing", &self.path(), e)))?;
        if !sync.named {
            self.sync_names(&sync)?;
            sync.named = true;
        }
        self.record(&mut sync, verified)
    }

    /// Checks that the names still refer to the files that are written, and that
    /// nobody has truncated the unfinished one. What is written would be lost
    /// otherwise.
    fn check_place(&self, journal: Option<&JournalFile<D::File>>) -> Result<(), StorageError> {
        self.check_name(&self.names.data, &self.file)?;
        if let Some(journal) = journal {
            self.check_name(&self.names.journal, journal.file())?;
        }
        self.check_length()
    }

    fn check_name(&self, name: &str, file: &D::File) -> Result<(), StorageError> {
        let path = || self.dir.path_of(name);
        let how = match self.dir.disk.is_at(name, file) {
            // A second name does no harm to what is written.
            Ok(true) | Err(Refused::Kind(EntryKind::SharedFile)) => return Ok(()),
            Ok(false) => match self.dir.kind(name)? {
                Some(_) => "replaced",
                None => "removed",
            },
            Err(Refused::Kind(_)) => "replaced",
            Err(Refused::Io(error)) => return Err(failed("examining", &path(), error)),
        };
        Err(StorageError::Tampered { path: path(), how })
    }

    fn check_length(&self) -> Result<(), StorageError> {
        let stat = self.file.stat();
        let stat = stat.map_err(|e| failed("examining", &self.path(), e))?;
        self.check_stat(&stat)
    }

    fn check_stat(&self, stat: &FileStat) -> Result<(), StorageError> {
        match stat.len < self.length() {
            true => Err(self.truncated()),
            false => Ok(()),
        }
    }

    fn truncated(&self) -> StorageError {
        StorageError::Tampered {
            path: self.path(),
            how: "truncated",
        }
    }

    /// Records the committed chunks durably.
    fn record(&self, sync: &mut SyncState<D>, committed: &Bitfield) -> Result<(), StorageError> {
        let Some(journal) = &mut sync.journal else {
            return Ok(());
        };
        let before = self.chunks().committed.clone();
        // An explicit modification time makes every later change visible; see
        // `seal`. If it cannot be set, changes are only harder to detect.
        let _ = self.file.set_modified(SystemTime::now());
        let appended = self
            .file
            .stat()
            .and_then(|stat| journal.append(&before, committed, stat.modified));
        let path = self.dir.path_of(&self.names.journal);
        appended.map_err(|e| self.fail(failed("writing", &path, e)))?;
        let mut chunks = self.chunks();
        chunks.committed = committed.clone();
        chunks.unproven.intersect(committed);
        Ok(())
    }

    /// Verifies the unproven chunks, syncs the file, publishes it, syncs its
    /// name, and removes the journal. Returns the stamp of the finished file. May
    /// be called again, also after a failure that was not one of a sync.
    pub(super) fn finish(&self) -> Result<Stamp, StorageError> {
        match self.seal()? {
            Finish::Done(stamp) => Ok(stamp),
            Finish::Next(sealed) => sealed.sync()?.publish()?.sync_name(),
        }
    }

    /// The first step: verifies the unproven chunks, and sets the modification time.
    /// From here on nothing is written until the file is published.
    fn seal(&self) -> Result<Finish<Sealed<'_, D>>, StorageError> {
        let mut sync = self.lock_sync();
        if let Some(&stamp) = self.published.get() {
            return Ok(Finish::Done(stamp));
        }
        self.stage().check_writing()?;
        self.prove(&mut sync)?;
        let stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        // The clock of a file system stands still for some milliseconds, and
        // changes within that time leave the modification time as it is. An
        // explicit time lies between two ticks, so it differs from the time of
        // every later change. If it cannot be set, changes are only harder to
        // detect.
        let now = SystemTime::now();
        let stamped = self.file.set_modified(now).is_ok();
        Ok(Finish::Next(Sealed {
            file: self,
            sync,
            stage,
            modified: stamped.then(|| now.into()),
        }))
    }

    /// Reads and verifies the unproven chunks.
    fn prove(&self, sync: &mut SyncState<D>) -> Result<(), StorageError> {
        let unproven: Vec<ChunkIndex> = self.chunks().unproven.iter().collect();
        let mut wrong = Vec::new();
        for chunk in unproven {
            let range = self.manifest.geometry().range_of(chunk);
            // Reading a whole chunk proves it if it is correct.
            self.read(range.start, (range.end - range.start) as usize)?;
            if self.chunks().unproven.contains(chunk) {
                wrong.push(chunk);
            }
        }
        let Some(&chunk) = wrong.first() else {
            return Ok(());
        };
        let mut kept = self.chunks().committed.clone();
        for &chunk in &wrong {
            kept.remove(chunk);
        }
        self.record(sync, &kept)?;
        let path = self.path();
        Err(self.fail(StorageError::Altered { path, chunk }))
    }

    /// Gives the file its final name.
    fn publish(&self) -> Result<(), StorageError> {
        let data = &self.names.data;
        // The file that is published must be the one that was written.
        self.check_name(data, &self.file)?;
        let name = self.name.as_str();
        let published = match self.taken {
            Taken::Refused => self.dir.publish(data, name, &self.file),
            Taken::Replaced => self.dir.publish_over(data, name, &self.file),
        };
        match published {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(self.dir.exists(&self.name)),
            done => done.map_err(|e| failed("publishing", &self.path(), e)),
        }
    }

    /// Commits all chunks of a complete and synced file that could not be
    /// published, so that none of them has to be fetched again. Failures change
    /// nothing for the caller, who has an error already.
    fn commit_all(&self, sync: &mut SyncState<D>) {
        let all = Bitfield::all(self.manifest.geometry().chunks());
        if sync.journal.is_none() {
            return;
        }
        if sync.named || self.sync_names(sync).is_ok() {
            sync.named = true;
            let _ = self.record(sync, &all);
        }
    }

    /// Removes the journal and releases the locks. The content is safe by now,
    /// and a journal that remains without its file is removed later.
    fn remove_journal(&self, sync: &SyncState<D>) {
        let removed = match sync.journal {
            Some(_) => self.dir.disk.remove(&self.names.journal),
            None => Ok(()),
        };
        let unlocked = sync.unlock().and(self.file.unlock());
        if let Err(error) = removed.and(unlocked) {
            tracing::debug!(name = %self.name, %error, "failed to remove the journal");
        }
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes the names of the unfinished file and its journal durable.
    fn sync_names(&self, sync: &SyncState<D>) -> Result<(), StorageError> {
        let Err(error) = self.dir.sync(sync.before_names) else {
            return Ok(());
        };
        if self.chunks().committed.is_empty() {
            // After a failed sync these names may never reach the disk,
            // whatever a later sync says. Nothing is committed, so nothing is
            // lost with them, and new names will reach it.
            for name in [&self.names.data, &self.names.journal] {
                if let Err(error) = self.dir.disk.remove(name) {
                    tracing::debug!(name, %error, "failed to remove the unfinished file");
                }
            }
        }
        Err(self.fail(failed("syncing", self.dir.path(), error)))
    }

    /// Ends all writing with this error.
    fn fail(&self, error: StorageError) -> StorageError {
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        stage.fail(error)
    }

    /// The chunks that have bytes in this range.
    fn chunks_in(&self, offset: u64, len: u64) -> impl Iterator<Item = ChunkIndex> + use<D> {
        let chunk_len = self.manifest.geometry().chunk_len();
        let first = offset / chunk_len;
        let end = match len {
            0 => first,
            len => (offset + len).div_ceil(chunk_len),
        };
        (first..end).map(|chunk| ChunkIndex(chunk as u32))
    }

    fn path(&self) -> PathBuf {
        self.dir.path_of(&self.names.data)
    }

    fn stage(&self) -> RwLockReadGuard<'_, Stage> {
        self.stage.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunks(&self) -> MutexGuard<'_, ChunkSets> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_sync(&self) -> MutexGuard<'_, SyncState<D>> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far [`PartialFile::seal`] has come.
enum Finish<T> {
    /// The file was finished before.
    Done(Stamp),
    Next(T),
}

/// A file that is complete. Nothing else is done with it until it is published, except
/// that it is read.
struct Sealed<'a, D: Disk> {
    file: &'a PartialFile<D>,
    sync: MutexGuard<'a, SyncState<D>>,
    stage: RwLockWriteGuard<'a, Stage>,
    /// The modification time that it was given, if that could be set.
    modified: Option<Timestamp>,
}

impl<'a, D: Disk> Sealed<'a, D> {
    /// Makes all bytes durable.
    fn sync(mut self) -> Result<Synced<'a, D>, StorageError> {
        let file = self.file;
        let stage = &mut self.stage;
        let synced = file.file.sync_all();
        synced.map_err(|e| stage.fail(failed("syncing", &file.path(), e)))?;
        let stat = file.file.stat();
        let stat = stat.map_err(|e| failed("examining", &file.path(), e))?;
        file.check_stat(&stat).map_err(|e| stage.fail(e))?;
        let stamp = Stamp {
            len: stat.len,
            modified: stat.modified,
            settled: self.modified == Some(stat.modified),
        };
        Ok(Synced {
            sealed: self,
            stamp,
        })
    }
}

/// A file whose bytes are durable.
struct Synced<'a, D: Disk> {
    sealed: Sealed<'a, D>,
    stamp: Stamp,
}

impl<'a, D: Disk> Synced<'a, D> {
    /// Gives the file its final name.
    fn publish(self) -> Result<Named<'a, D>, StorageError> {
        let Sealed {
            file,
            mut sync,
            mut stage,
            ..
        } = self.sealed;
        let before_name = file.dir.mark();
        match file.publish() {
            Ok(()) => {}
            Err(tampered @ StorageError::Tampered { .. }) => return Err(stage.fail(tampered)),
            Err(error) => {
                drop(stage);
                file.commit_all(&mut sync);
                return Err(error);
            }
        }
        Ok(Named {
            file,
            sync,
            stage,
            stamp: self.stamp,
            before_name,
        })
    }
}

/// A file whose name is to be made durable. Nothing else is done with it meanwhile,
/// except that it is read.
struct Named<'a, D: Disk> {
    file: &'a PartialFile<D>,
    sync: MutexGuard<'a, SyncState<D>>,
    stage: RwLockWriteGuard<'a, Stage>,
    stamp: Stamp,
    /// Taken before the file got its name.
    before_name: Mark,
}

impl<D: Disk> Named<'_, D> {
    fn sync_name(self) -> Result<Stamp, StorageError> {
        let synced = self.file.dir.sync(self.before_name);
        self.name_synced(synced)
    }

    /// Completes the file, or takes its name back.
    fn name_synced(mut self, synced: io::Result<()>) -> Result<Stamp, StorageError> {
        let file = self.file;
        let Err(e) = synced else {
            let _ = file.published.set(self.stamp);
            *self.stage = Stage::Finished;
            drop(self.stage);
            file.remove_journal(&self.sync);
            return Ok(self.stamp);
        };
        let error = failed("syncing", file.dir.path(), e);
        let error = self.stage.fail(error);
        // After a failed sync the new name may never reach the disk, whatever a
        // later sync says. Under the old name the file can be finished again.
        let (name, data) = (file.name.as_str(), &file.names.data);
        if let Err(error) = file.dir.take_back(name, data, &file.file) {
            tracing::debug!(name, %error, "failed to take the name back");
        }
        Err(error)
    }
}

/// [Finishes](PartialFile::finish) several short files of one directory, which are
/// different ones: they wait for the disk together, and share one sync of their names.
/// Returns their outcomes in their order.
pub(super) fn finish_together<D: Disk>(
    files: &[Arc<PartialFile<D>>],
) -> Vec<Result<Stamp, StorageError>> {
    // Each step is done for all files before the next one. A sync that finds its bytes on
    // the disk already, or in the same transaction of the file system as those of another
    // file, takes a small part of the time.
    let sealed: Vec<_> = files.iter().map(|file| file.seal()).collect();
    for file in files {
        file.file.start_sync(file.length());
    }
    let synced: Vec<_> = each_next(sealed, Sealed::sync);
    let named: Vec<_> = each_next(synced, Synced::publish);
    let first = named.iter().find_map(|step| match step {
        Ok(Finish::Next(named)) => Some(named),
        _ => None,
    });
    // All have their names by now, and the first mark is the oldest.
    let all_synced = first.is_some_and(|named| named.file.dir.sync(named.before_name).is_ok());
    let outcomes = named.into_iter().map(|step| match step? {
        Finish::Done(stamp) => Ok(stamp),
        Finish::Next(named) if all_synced => named.name_synced(Ok(())),
        // Each by its own mark: what has failed may be older than its name.
        Finish::Next(named) => named.sync_name(),
    });
    outcomes.collect()
}

/// Takes one step with each file that has come so far.
fn each_next<T, U>(
    files: Vec<Result<Finish<T>, StorageError>>,
    step: impl Fn(T) -> Result<U, StorageError>,
) -> Vec<Result<Finish<U>, StorageError>> {
    let next = files.into_iter().map(|file| match file? {
        Finish::Done(stamp) => Ok(Finish::Done(stamp)),
        Finish::Next(file) => step(file).map(Finish::Next),
    });
    next.collect()
}

impl<D: Disk> Drop for PartialFile<D> {
    /// Releases the locks explicitly: a child process that was just forked may
    /// still have the files open, and then closing them here does not.
    fn drop(&mut self) {
        if self.published.get().is_some() {
            // They are released already.
            return;
        }
        let sync = self.sync.get_mut();
        let sync = sync.unwrap_or_else(PoisonError::into_inner);
        let unlocked = sync.unlock().and(self.file.unlock());
        if let Err(error) = unlocked {
            tracing::debug!(name = %self.name, %error, "failed to unlock");
        }
    }
}

impl<D: Disk> SyncState<D> {
    fn unlock(&self) -> io::Result<()> {
        self.journal.as_ref().map_or(Ok(()), JournalFile::unlock)
    }
}

impl Stage {
    fn check_writing(&self) -> Result<(), StorageError> {
        match self {
            Self::Writing => Ok(()),
            Self::Finished => Err(StorageError::ReadOnly),
            Self::Failed(error) => Err(error.clone()),
        }
    }

    fn fail(&mut self, error: StorageError) -> StorageError {
        *self = Self::Failed(error.clone());
        error
    }
}
