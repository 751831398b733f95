//! The disk in memory behind the interface of the storage. Every operation is
//! counted, may fail, and reaches the cache; a sync reaches the disk.

use std::fmt;
use std::fs::TryLockError;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::super::disk::{Disk, DiskFile, EntryKind, FileStat, Refused};
use super::super::journal;
use super::disk_state::{Ability, DiskState, Failure, PlantedBug, Trouble};
use super::inode::FileOp;
use super::name_table::NameOp;

/// The disk. A clone is the same disk.
#[derive(Debug, Clone)]
pub(super) struct CrashDisk(Arc<Mutex<DiskState>>, Arc<Meanwhile>);

/// What happens while the next file is synced.
#[derive(Default)]
struct Meanwhile(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

impl CrashDisk {
    /// An empty disk.
    pub(super) fn new(chunks: u32) -> Self {
        Self::of(DiskState::new(chunks))
    }

    pub(super) fn of(state: DiskState) -> Self {
        Self(Arc::new(Mutex::new(state)), Arc::default())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something happen while the next file is synced.
    pub(super) fn during_sync(&self, happens: impl FnOnce() + Send + 'static) {
        *self.1.0.lock().unwrap() = Some(Box::new(happens));
    }

    /// Sets what goes wrong from now on. Operations are counted from here.
    pub(super) fn set_trouble(&self, trouble: Trouble) {
        self.state().set_trouble(trouble);
    }
}

impl Disk for CrashDisk {
    type File = CrashFile;

    fn kind(&self, name: &str) -> io::Result<Option<EntryKind>> {
        let mut state = self.state();
        state.whole_step(false)?;
        Ok(state.names.get(name).map(|_| EntryKind::File))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.whole_step(false)?;
        Ok(state.names.iter().cloned().collect())
    }

    fn open_existing(&self, name: &str) -> Result<CrashFile, Refused> {
        let mut state = self.state();
        state.whole_step(false)?;
        match state.names.get(name) {
            Some(inode) => Ok(CrashFile::new(self, inode, name)),
            None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }

    fn open_or_create(&self, name: &str) -> Result<CrashFile, Refused> {
        let mut state = self.state();
        let there = state.names.get(name);
        state.whole_step(there.is_none())?;
        let inode = there.unwrap_or_else(|| state.create(name, &[]));
        Ok(CrashFile::new(self, inode, name))
    }

    fn is_at(&self, name: &str, file: &CrashFile) -> Result<bool, Refused> {
        let mut state = self.state();
        state.whole_step(false)?;
        match state.names.get(name) == Some(file.inode) {
            true if state.names.count_of(file.inode) > 1 => {
                Err(Refused::Kind(EntryKind::SharedFile))
            }
            is_at => Ok(is_at),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if !matches!(state.ability, Ability::Full | Ability::NoLocks) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let inode = state.new_name(from, to)?;
        state
            .names
            .change(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn create_new(&self, name: &str) -> io::Result<CrashFile> {
        let mut state = self.state();
        state.whole_step(true)?;
        state.take_name(name);
        if state.names.get(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.create(name, &[]);
        Ok(CrashFile::new(self, inode, name))
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_step(true)?;
        if state.ability == Ability::NoNaming {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let inode = state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state
            .names
            .change(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if matches!(state.ability, Ability::NoLinks | Ability::NoNaming) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let inode = state.new_name(from, to)?;
        state.names.change(NameOp::Link(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_step(true)?;
        if state.names.get(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.names.change(NameOp::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.state().sync_names()
    }

    fn sync_parent(&self) -> io::Result<()> {
        let mut state = self.state();
        state.whole_step(true)?;
        state.directory_is_durable = state.planted != Some(PlantedBug::NoParentSync);
        Ok(())
    }

    fn available(&self) -> Option<u64> {
        Some(self.state().room)
    }
}

/// An open file of the disk.
#[derive(Debug)]
pub(super) struct CrashFile {
    disk: CrashDisk,
    inode: usize,
    is_journal: bool,
    /// Whether this handle has the lock of the file.
    has_lock: Mutex<bool>,
}

impl CrashFile {
    fn new(disk: &CrashDisk, inode: usize, name: &str) -> Self {
        Self {
            disk: disk.clone(),
            inode,
            is_journal: name.ends_with(".journal"),
            has_lock: Mutex::new(false),
        }
    }

    fn has_lock(&self) -> MutexGuard<'_, bool> {
        self.has_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an operation, which may stop half way.
    fn change(&self, op: FileOp) -> io::Result<()> {
        let mut state = self.disk.state();
        let failure = state.step(true)?;
        let modified = state.tick();
        let inode = &mut state.inodes[self.inode];
        match (failure, op) {
            (None, op) => inode.change(op, modified),
            (Some(failure), FileOp::Write { at, bytes }) if failure != Failure::NoSpace => {
                let bytes = bytes.slice(..bytes.len() / 2);
                inode.change(FileOp::Write { at, bytes }, modified);
                return Err(failure.error());
            }
            (Some(failure), _) => return Err(failure.error()),
        }
        Ok(())
    }

    fn sync_now(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.planted == Some(PlantedBug::RecordBeforeSync) {
            match (self.is_journal, state.deferred.take()) {
                (false, _) => {
                    state.deferred = Some(self.inode);
                    return Ok(());
                }
                (true, Some(data)) => {
                    state.sync_file(self.inode)?;
                    return state.sync_file(data);
                }
                (true, None) => {}
            }
        }
        state.sync_file(self.inode)
    }
}

impl Drop for CrashFile {
    fn drop(&mut self) {
        if *self.has_lock() {
            self.disk.state().inodes[self.inode].locked = false;
        }
    }
}

impl DiskFile for CrashFile {
    fn stat(&self) -> io::Result<FileStat> {
        let mut state = self.disk.state();
        state.whole_step(false)?;
        let inode = &state.inodes[self.inode];
        Ok(FileStat {
            len: inode.bytes().len() as u64,
            allocated: 0,
            modified: inode.modified,
            linked: true,
        })
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        let mut state = self.disk.state();
        state.whole_step(false).map_err(TryLockError::Error)?;
        if state.ability == Ability::NoLocks {
            return Err(TryLockError::Error(io::ErrorKind::Unsupported.into()));
        }
        let inode = &mut state.inodes[self.inode];
        if inode.locked {
            return Err(TryLockError::WouldBlock);
        }
        inode.locked = true;
        *self.has_lock() = true;
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.whole_step(false)?;
        if std::mem::take(&mut *self.has_lock()) {
            state.inodes[self.inode].locked = false;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut state = self.disk.state();
        state.whole_step(false)?;
        let read = state.inodes[self.inode].bytes().read(offset as usize, len);
        let read = read.ok_or(io::ErrorKind::UnexpectedEof)?;
        match state.planted {
            Some(PlantedBug::TrustsTornRecord) if self.is_journal => {
                Ok(journal::with_new_checksums(read).into())
            }
            _ => Ok(read.into()),
        }
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let bytes = match pieces {
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        };
        if self.is_journal {
            let state = self.disk.state();
            let same = state.inodes[self.inode]
                .bytes()
                .has(offset as usize, &bytes);
            if same && state.planted == Some(PlantedBug::KeepsUnsyncedJournal) {
                return Ok(());
            }
        }
        self.change(FileOp::Write { at: offset, bytes })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(FileOp::SetLen(len))
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        self.disk.state().whole_step(false)
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        let mut state = self.disk.state();
        state.whole_step(true)?;
        state.inodes[self.inode].modified = time.into();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let meanwhile = self.disk.1.0.lock().unwrap().take();
        // What it changes is not what this sync has begun with.
        let synced = self.sync_now();
        if let Some(happens) = meanwhile {
            happens();
        }
        synced
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.planted == Some(PlantedBug::PublishesUnsynced) {
            return Ok(());
        }
        state.sync_file(self.inode)
    }
}
