//! The unfinished file of a content, from its first byte to its final name.
//! Everything here blocks.
//!
//! The order of steps is what makes it durable, and is the same everywhere:
//! bytes are synced before the journal claims them; a claim is withdrawn before
//! its bytes are touched; the file has its name synced before the journal is
//! dropped. A sync that failed is never tried again: the operating system may
//! have dropped what it could not write, and then calls it clean. The file
//! takes nothing more, and whoever opens it again starts at the last commit.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;

use super::dir::{Kind, Refused};
use super::disk::{Disk, DiskFile, FileStat, Stamp};
use super::ledger::Ledger;
use super::place::{Place, failed, refused};
use super::stamp::FileStamp;
use super::writers::Turn;
use crate::content::{Bitfield, ChunkIndex, ContentId, ContentName, Manifest};
use crate::storage::StorageError;

/// The names beside a content's own, while it is unfinished.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) part: String,
    pub(super) journal: String,
}

impl Names {
    pub(super) fn of(id: ContentId) -> Self {
        Self {
            part: format!("{id}.part"),
            journal: format!("{id}.journal"),
        }
    }
}

/// The unfinished file. Closing it gives up the lock.
pub(super) struct Part<D: Disk> {
    file: D::File,
    place: Arc<Place<D>>,
    name: ContentName,
    names: Names,
    manifest: Manifest,
    stage: RwLock<Stage>,
    /// Held while anything is synced: the operating system tells a failure to
    /// one sync only, so none may succeed beside the one that fails.
    syncing: Mutex<Syncing<D>>,
    known: Mutex<Known>,
    /// The file as it was published, and whether any change since must show in
    /// its modification time.
    published: OnceLock<(FileStat, bool)>,
    /// Behind the files, so that the locks are gone when the next one starts.
    turn: Mutex<Option<Turn>>,
}

struct Syncing<D: Disk> {
    ledger: Ledger<D::File>,
    /// Whether the names of the file and of its journal are durable.
    named: bool,
}

/// What is known of the chunks.
struct Known {
    /// Those that the journal claims.
    claimed: Bitfield,
    /// Those that are here by the journal's word only, where the file has been
    /// written to since. Looked at before the file gets its name.
    unproven: Bitfield,
}

/// Where a file is on its way. Writes hold it for reading, so that none runs
/// when it is published.
enum Stage {
    Writing,
    /// Under its name, which is durable.
    Finished,
    /// A sync failed, or the bytes are not what was claimed: what was not
    /// committed before counts as lost.
    Failed(StorageError),
}

/// What a part is made of.
pub(super) struct Opened<D: Disk> {
    pub(super) file: D::File,
    pub(super) names: Names,
    pub(super) ledger: Ledger<D::File>,
    pub(super) claimed: Bitfield,
    pub(super) unproven: Bitfield,
}

impl<D: Disk> Part<D> {
    pub(super) fn new(
        place: Arc<Place<D>>,
        name: ContentName,
        manifest: Manifest,
        opened: Opened<D>,
        turn: Option<Turn>,
    ) -> Self {
        Self {
            file: opened.file,
            place,
            name,
            names: opened.names,
            manifest,
            stage: RwLock::new(Stage::Writing),
            syncing: Mutex::new(Syncing {
                ledger: opened.ledger,
                named: false,
            }),
            known: Mutex::new(Known {
                claimed: opened.claimed,
                unproven: opened.unproven,
            }),
            published: OnceLock::new(),
            turn: Mutex::new(turn),
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.manifest.geometry().length()
    }

    /// The file under its name as it was published; nothing before.
    pub(super) fn published(&self) -> Option<FileStamp> {
        let &(stat, settled) = self.published.get()?;
        Some(FileStamp {
            path: self.place.path.join(self.name.as_str()),
            stat,
            settled,
        })
    }

    /// The chunks that the journal claims.
    pub(super) fn claimed(&self) -> Bitfield {
        self.known().claimed.clone()
    }

    /// Whether none of what is here by the journal's word need be looked at
    /// before the file gets its name.
    pub(super) fn is_proven(&self) -> bool {
        self.known().unproven.is_empty()
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let read = self.file.read_at(offset, len);
        if let Some(stamp) = self.published() {
            stamp.check(&self.file)?;
        }
        let bytes = read.map_err(|e| failed("reading", &self.path(), 0, &e))?;
        // Who reads a chunk as a whole looks at what was left behind: then it
        // need not be read once more to be proven.
        let range = offset..offset + len as u64;
        let chunk = self.chunks_in(offset, len as u64).next();
        let whole = chunk.filter(|&chunk| self.manifest.geometry().range_of(chunk) == range);
        if let Some(chunk) = whole
            && self.known().unproven.contains(chunk)
            && self.manifest.verify(chunk, [&bytes[..]])
        {
            self.known().unproven.remove(chunk);
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
        let stage = self.stage.read().unwrap_or_else(PoisonError::into_inner);
        stage.check_writing()?;
        self.file
            .write_at(offset, pieces)
            .map_err(|e| failed("writing", &self.path(), len, &e))?;
        let mut known = self.known();
        for chunk in self.chunks_in(offset, len) {
            let range = self.manifest.geometry().range_of(chunk);
            if offset <= range.start && range.end <= offset + len {
                known.unproven.remove(chunk);
            }
        }
        Ok(())
    }

    /// Takes back what the journal claims of these bytes, before they change.
    fn withdraw(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        let claimed = |known: &Known| {
            let mut chunks = self.chunks_in(offset, len);
            chunks.any(|chunk| known.claimed.contains(chunk))
        };
        if !claimed(&self.known()) {
            return Ok(());
        }
        let mut syncing = self.syncing();
        self.stage
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .check_writing()?;
        let mut kept = self.claimed();
        for chunk in self.chunks_in(offset, len) {
            kept.remove(chunk);
        }
        self.record(&mut syncing, &kept)
    }

    pub(super) fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let mut syncing = self.syncing();
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Writing => {}
            Stage::Finished => return Ok(()),
            Stage::Failed(error) => return Err(error.clone()),
        }
        // Writes go on meanwhile: only those before the call are promised.
        let synced = self.file.sync_data();
        synced.map_err(|e| self.fail(failed("syncing", &self.path(), 0, &e)))?;
        if !syncing.named {
            self.sync_names()?;
            syncing.named = true;
        }
        self.record(&mut syncing, verified)
    }

    /// Writes down what is claimed from now on, durably.
    fn record(&self, syncing: &mut Syncing<D>, claimed: &Bitfield) -> Result<(), StorageError> {
        let before = self.claimed();
        // A stamp of its own makes any later change show, as in `finish`.
        let _ = self.file.set_modified(SystemTime::now());
        let done = self
            .file
            .stat()
            .and_then(|stat| syncing.ledger.append(&before, claimed, stat.modified));
        let journal = self.place.path.join(&self.names.journal);
        done.map_err(|e| self.fail(failed("writing", &journal, 0, &e)))?;
        let mut known = self.known();
        known.claimed = claimed.clone();
        for chunk in self.manifest.geometry().indices() {
            if !claimed.contains(chunk) {
                known.unproven.remove(chunk);
            }
        }
        Ok(())
    }

    /// Proves what is unproven, syncs, publishes, syncs the name, and drops the
    /// journal. What is no sync may be repeated when it failed.
    pub(super) fn finish(&self) -> Result<(), StorageError> {
        let mut syncing = self.syncing();
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Writing => {}
            Stage::Finished => return Ok(()),
            Stage::Failed(error) => return Err(error.clone()),
        }
        self.prove(&mut syncing)?;
        // To the end of publishing nothing is written.
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        // The system's own stamps stand still for some milliseconds, within
        // which a change would not show; a stamp between two of them makes any
        // change show. Where that fails it is only harder to tell.
        let now = SystemTime::now();
        let stamped = self.file.set_modified(now).is_ok();
        if let Err(e) = self.file.sync_all() {
            let error = failed("syncing", &self.path(), 0, &e);
            *stage = Stage::Failed(error.clone());
            return Err(error);
        }
        let stat = match self.file.stat() {
            Ok(stat) => stat,
            Err(e) => return Err(failed("looking at", &self.path(), 0, &e)),
        };
        if let Err(error) = self.publish() {
            drop(stage);
            // All is synced, so none of it need be fetched again if the name
            // cannot be had now. A failure here changes nothing in that.
            let all = Bitfield::all(self.manifest.geometry().chunks());
            if syncing.named || self.sync_names().is_ok() {
                syncing.named = true;
                let _ = self.record(&mut syncing, &all);
            }
            return Err(error);
        }
        if let Err(e) = self.place.sync() {
            let error = failed("syncing", &self.place.path, 0, &e);
            *stage = Stage::Failed(error.clone());
            // The new name may never reach the disk, whatever a later sync
            // says; under the old one the file can be finished again.
            let (name, part) = (self.name.as_str(), &self.names.part);
            if let Err(error) = self.place.publish(name, part, &self.file) {
                tracing::debug!(name, %error, "name not taken back");
            }
            return Err(error);
        }
        let settled = stamped && stat.modified == Stamp::from(now);
        let _ = self.published.set((stat, settled));
        *stage = Stage::Finished;
        drop(stage);
        self.tidy(&syncing);
        Ok(())
    }

    /// Drops the journal and gives up the locks. The content is safe already,
    /// and a journal without its file is dropped when somebody meets it.
    fn tidy(&self, syncing: &Syncing<D>) {
        let dropped = self.place.dir.remove(&self.names.journal);
        let unlocked = syncing.ledger.file().unlock().and(self.file.unlock());
        if let Err(error) = dropped.and(unlocked) {
            tracing::debug!(name = %self.name, %error, "journal not dropped");
        }
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Looks at the chunks that are here by the journal's word, where somebody
    /// may have written to the file since.
    fn prove(&self, syncing: &mut Syncing<D>) -> Result<(), StorageError> {
        let unproven: Vec<ChunkIndex> = self.known().unproven.iter().collect();
        let mut bad = Vec::new();
        for chunk in unproven {
            let range = self.manifest.geometry().range_of(chunk);
            self.read(range.start, (range.end - range.start) as usize)?;
            if self.known().unproven.contains(chunk) {
                bad.push(chunk);
            }
        }
        let Some(&chunk) = bad.first() else {
            return Ok(());
        };
        let mut kept = self.claimed();
        for &chunk in &bad {
            kept.remove(chunk);
        }
        self.record(syncing, &kept)?;
        let path = self.path();
        Err(self.fail(StorageError::Altered { path, chunk }))
    }

    fn publish(&self) -> Result<(), StorageError> {
        let (dir, part, path) = (&self.place.dir, &self.names.part, self.path());
        // What is published must be what was written and synced.
        match dir.is_at(part, &self.file) {
            // Another name that it has besides is no matter: nobody writes any
            // more, and publishing in two steps gives it one.
            Ok(true) | Err(Refused::Kind(Kind::SharedFile)) => {}
            Ok(false) => {
                let gone = io::Error::new(io::ErrorKind::NotFound, "somebody removed it");
                return Err(failed("publishing", &path, 0, &gone));
            }
            Err(error) => return Err(refused(&path, "publishing", error)),
        }
        match self.place.publish(part, self.name.as_str(), &self.file) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(self.place.exists(&self.name))
            }
            done => done.map_err(|e| failed("publishing", &path, 0, &e)),
        }
    }

    /// Makes the names of the unfinished file and its journal durable.
    fn sync_names(&self) -> Result<(), StorageError> {
        let dir = &self.place.dir;
        let Err(error) = self.place.sync() else {
            return Ok(());
        };
        if self.known().claimed.is_empty() {
            // These names may never reach the disk, whatever a later sync says,
            // and nothing is lost with them; new ones will.
            for name in [&self.names.part, &self.names.journal] {
                if let Err(error) = dir.remove(name) {
                    tracing::debug!(name, %error, "unfinished file not dropped");
                }
            }
        }
        Err(self.fail(failed("syncing", &self.place.path, 0, &error)))
    }

    /// Takes nothing more from now on.
    fn fail(&self, error: StorageError) -> StorageError {
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = Stage::Failed(error.clone());
        error
    }

    /// The chunks that have bytes of this range.
    fn chunks_in(&self, offset: u64, len: u64) -> impl Iterator<Item = ChunkIndex> + use<D> {
        let chunk_len = self.manifest.geometry().chunk_len();
        let first = offset / chunk_len;
        let behind = match len {
            0 => first,
            len => (offset + len).div_ceil(chunk_len),
        };
        (first..behind).map(|chunk| ChunkIndex(chunk as u32))
    }

    fn path(&self) -> PathBuf {
        self.place.path.join(&self.names.part)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn syncing(&self) -> MutexGuard<'_, Syncing<D>> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> Drop for Part<D> {
    /// Gives up the locks by name: closing the files does not while a child
    /// process that was just forked still has them.
    fn drop(&mut self) {
        let syncing = self.syncing.get_mut();
        let syncing = syncing.unwrap_or_else(PoisonError::into_inner);
        let unlocked = syncing.ledger.file().unlock().and(self.file.unlock());
        if let Err(error) = unlocked {
            tracing::debug!(name = %self.name, %error, "not unlocked");
        }
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
}
