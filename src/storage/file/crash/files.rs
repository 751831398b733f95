//! The model as the seam has it: each operation is counted, may fail, and
//! reaches the cache; a sync reaches the disk.

use std::fs::TryLockError;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::super::dir::{Kind, Refused};
use super::super::disk::{Disk, DiskFile, FileStat};
use super::super::journal;
use super::model::{FOREIGN, Failure, FileOp, Model, NameOp, Planted, State, Trouble};

impl Disk for Model {
    type File = ModelFile;

    fn kind(&self, name: &str) -> io::Result<Option<Kind>> {
        let mut state = self.state();
        state.whole_step(false)?;
        Ok(state.names.get(name).map(|_| Kind::File))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.whole_step(false)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open_existing(&self, name: &str) -> Result<ModelFile, Refused> {
        let mut state = self.state();
        state.whole_step(false)?;
        match state.names.get(name) {
            Some(&inode) => Ok(ModelFile::new(self, inode, name)),
            None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }

    fn open_or_create(&self, name: &str) -> Result<ModelFile, Refused> {
        let mut state = self.state();
        let there = state.names.get(name).copied();
        state.whole_step(there.is_none())?;
        let inode = there.unwrap_or_else(|| state.create(name, &[]));
        Ok(ModelFile::new(self, inode, name))
    }

    fn is_at(&self, name: &str, file: &ModelFile) -> Result<bool, Refused> {
        let mut state = self.state();
        state.whole_step(false)?;
        match state.names.get(name) == Some(&file.inode) {
            true if state.names_of(file.inode) > 1 => Err(Refused::Kind(Kind::SharedFile)),
            is_at => Ok(is_at),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.two_steps {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let inode = state.new_name(from, to)?;
        state.change_names(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.new_name(from, to)?;
        state.change_names(NameOp::Link(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_step(true)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameOp::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let failure = state.step(true)?;
        match (state.planted, failure) {
            (Some(Planted::NoDirectorySync), _) => Ok(()),
            (_, None) => {
                // What a failed sync dropped stays dropped.
                let mut names = std::mem::take(&mut state.durable_names);
                state
                    .pending_names
                    .drain(..)
                    .for_each(|op| op.apply(&mut names));
                state.durable_names = names;
                Ok(())
            }
            (planted, Some(failure)) => {
                state.pending_names.clear();
                match planted {
                    Some(Planted::RetriesFailedSync) => Ok(()),
                    _ => Err(failure.error()),
                }
            }
        }
    }

    fn sync_above(&self) -> io::Result<()> {
        let mut state = self.state();
        state.whole_step(true)?;
        state.placed = state.planted != Some(Planted::NoSyncAbove);
        Ok(())
    }

    fn available(&self) -> Option<u64> {
        Some(self.state().room)
    }
}

impl State {
    /// Begins to give a file another name, which must be free.
    fn new_name(&mut self, from: &str, to: &str) -> io::Result<usize> {
        self.whole_step(true)?;
        if self.trouble == Trouble::NameTaken("publish") {
            self.create(to, FOREIGN);
            self.sync_names();
        }
        let replaces = self.planted == Some(Planted::RenameReplaces);
        if self.names.contains_key(to) && !replaces {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.names.get(from).copied();
        inode.ok_or(io::ErrorKind::NotFound.into())
    }
}

/// An open file of the model.
#[derive(Debug)]
pub(super) struct ModelFile {
    disk: Model,
    inode: usize,
    journal: bool,
    locks: Mutex<bool>,
}

impl ModelFile {
    fn new(disk: &Model, inode: usize, name: &str) -> Self {
        Self {
            disk: disk.clone(),
            inode,
            journal: name.ends_with(".journal"),
            locks: Mutex::new(false),
        }
    }

    fn locks(&self) -> MutexGuard<'_, bool> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an operation, which may fail half way.
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
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        if *self.locks() {
            self.disk.state().inodes[self.inode].locked = false;
        }
    }
}

impl DiskFile for ModelFile {
    fn stat(&self) -> io::Result<FileStat> {
        let mut state = self.disk.state();
        state.whole_step(false)?;
        let inode = &state.inodes[self.inode];
        Ok(FileStat {
            len: inode.cache.len() as u64,
            allocated: 0,
            modified: inode.modified,
        })
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        let mut state = self.disk.state();
        state.whole_step(false).map_err(TryLockError::Error)?;
        let inode = &mut state.inodes[self.inode];
        if inode.locked {
            return Err(TryLockError::WouldBlock);
        }
        inode.locked = true;
        *self.locks() = true;
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.whole_step(false)?;
        if std::mem::take(&mut *self.locks()) {
            state.inodes[self.inode].locked = false;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut state = self.disk.state();
        state.whole_step(false)?;
        let read = state.inodes[self.inode].cache.read(offset as usize, len);
        let read = read.ok_or(io::ErrorKind::UnexpectedEof)?;
        match state.planted {
            Some(Planted::TrustsTornRecord) if self.journal => {
                Ok(journal::sealed_anew(read).into())
            }
            _ => Ok(read.into()),
        }
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let bytes = match pieces {
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        };
        if self.journal {
            let state = self.disk.state();
            let same = state.inodes[self.inode].cache.has(offset as usize, &bytes);
            if same && state.planted == Some(Planted::KeepsUnsyncedJournal) {
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
        let mut state = self.disk.state();
        if state.planted == Some(Planted::RecordBeforeSync) {
            match (self.journal, state.deferred.take()) {
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

    fn sync_all(&self) -> io::Result<()> {
        self.disk.state().sync_file(self.inode)
    }
}
