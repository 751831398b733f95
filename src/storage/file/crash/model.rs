//! A disk in memory that promises nothing but what was synced.
//!
//! Files and names are seen through a cache at once, and survive a crash only
//! as far as they were synced; of everything else a crash keeps, loses, tears
//! and reorders what it likes, by a seed. A sync that fails writes some of what
//! it was to write and forgets the rest, as operating systems do.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use fastrand::Rng;

use super::super::dir::{Kind, Refused};
use super::super::disk::{Disk, DiskFile, FileStat, Stamp};
use super::super::journal;
use super::blocks::{Blocks, PAGE};
use crate::content::Bitfield;

/// What a crash tears a write into, in bytes: less than any disk does, so that
/// every field of a record in the journal is torn off the others.
const JOURNAL_UNIT: usize = 4;
const GARBAGE: [[u8; PAGE]; 2] = [[1; PAGE], [0xff; PAGE]];

/// The disk. A clone is the same one.
#[derive(Debug, Clone)]
pub(super) struct Model(Arc<Mutex<State>>);

#[derive(Debug, Clone)]
pub(super) struct State {
    inodes: Vec<Inode>,
    names: Names,
    durable_names: Names,
    pending_names: Vec<NameOp>,
    /// The next modification time.
    clock: i64,
    /// Operations so far, and how many of them changed something.
    ops: u64,
    changes: u64,
    pub(super) trouble: Trouble,
    pub(super) planted: Option<Planted>,
    /// Of the file that is synced too late, if that is planted.
    deferred: Option<usize>,
    pub(super) promise: Promise,
    pub(super) room: u64,
}

type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone)]
struct Inode {
    cache: Blocks,
    durable: Blocks,
    pending: Vec<FileOp>,
    modified: Stamp,
    durable_modified: Stamp,
    locked: bool,
    unit: usize,
}

#[derive(Debug, Clone)]
enum FileOp {
    Write { at: u64, bytes: Bytes },
    SetLen(u64),
}

#[derive(Debug, Clone)]
enum NameOp {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

/// What was reported durable so far.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) chunks: Bitfield,
    pub(super) finished: bool,
}

/// What happens to operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// The power fails when so many operations have changed something.
    PowerOff(u64),
    /// One operation fails, by its number among all.
    Fails(u64, Failure),
    /// Something takes this name just before the content does.
    NameTaken(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Io,
    NoSpace,
    /// A write gets half way.
    Short,
}

/// A mistake that the storage could make, made for it by the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    RecordBeforeSync,
    NoDirectorySync,
    RenameReplaces,
    TrustsTornRecord,
    RetriesFailedSync,
    /// The journal is appended to as it was read, and not written again.
    KeepsUnsyncedJournal,
}

/// The bytes of a file that is not the storage's.
pub(super) const FOREIGN: &[u8] = b"somebody else's";

impl Model {
    pub(super) fn new(chunks: u32) -> Self {
        Self::of(State {
            inodes: Vec::new(),
            names: Names::new(),
            durable_names: Names::new(),
            pending_names: Vec::new(),
            clock: 1,
            ops: 0,
            changes: 0,
            trouble: Trouble::None,
            planted: None,
            deferred: None,
            promise: Promise {
                chunks: Bitfield::none(chunks),
                finished: false,
            },
            room: u64::MAX,
        })
    }

    pub(super) fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what goes wrong from now on, counting operations from here.
    pub(super) fn set_trouble(&self, trouble: Trouble) {
        let mut state = self.state();
        (state.ops, state.changes, state.trouble) = (0, 0, trouble);
    }
}

impl State {
    /// How many operations there were since the trouble was set, and how many
    /// of them changed something.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.ops, self.changes)
    }

    /// The bytes under a name.
    pub(super) fn file(&self, name: &str) -> Option<&Blocks> {
        let inode = *self.names.get(name)?;
        Some(&self.inodes[inode].cache)
    }

    /// The bytes that are durable, under a name that is.
    pub(super) fn durable_file(&self, name: &str) -> Option<&Blocks> {
        let inode = *self.durable_names.get(name)?;
        Some(&self.inodes[inode].durable)
    }

    /// What the disk may hold after the power failed now.
    pub(super) fn crashed(&self, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut names = self.durable_names.clone();
        for op in survivors(&self.pending_names, &mut rng) {
            op.apply(&mut names);
        }
        let inodes = self.inodes.iter().map(|inode| inode.crashed(&mut rng));
        Self {
            inodes: inodes.collect(),
            durable_names: names.clone(),
            names,
            pending_names: Vec::new(),
            deferred: None,
            trouble: Trouble::None,
            promise: self.promise.clone(),
            ..*self
        }
    }

    /// What is seen after the process was killed, and the machine went on.
    pub(super) fn killed(&self) -> Self {
        let mut state = self.clone();
        for inode in &mut state.inodes {
            inode.locked = false;
        }
        state
    }

    /// Counts an operation, and lets it fail if that is due.
    fn step(&mut self, changes: bool) -> io::Result<Option<Failure>> {
        self.ops += 1;
        self.changes += u64::from(changes);
        match self.trouble {
            Trouble::PowerOff(at) if self.changes > at => Err(io::Error::other("the power is off")),
            Trouble::Fails(at, failure) if self.ops == at => Ok(Some(failure)),
            _ => Ok(None),
        }
    }

    /// The same for an operation that fails as a whole.
    fn whole_step(&mut self, changes: bool) -> io::Result<()> {
        self.step(changes)?.map_or(Ok(()), |f| Err(f.error()))
    }

    fn tick(&mut self) -> Stamp {
        self.clock += 1;
        Stamp {
            seconds: self.clock,
            nanos: 1,
        }
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> usize {
        let modified = self.tick();
        self.inodes.push(Inode {
            cache: Blocks::of(bytes),
            durable: Blocks::of(bytes),
            pending: Vec::new(),
            modified,
            durable_modified: modified,
            locked: false,
            unit: if name.ends_with(".journal") {
                JOURNAL_UNIT
            } else {
                PAGE
            },
        });
        let inode = self.inodes.len() - 1;
        self.change_names(NameOp::Link(name.to_owned(), inode));
        inode
    }

    fn change_names(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending_names.push(op);
    }

    fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.pending_names.clear();
    }

    fn sync_file(&mut self, inode: usize) -> io::Result<()> {
        let failure = self.step(true)?;
        let retries = self.planted == Some(Planted::RetriesFailedSync);
        let file = &mut self.inodes[inode];
        match failure {
            Some(failure) => {
                // Some of it arrives; the rest counts as clean from now on.
                let half = file.pending.len() / 2;
                file.pending.truncate(half);
                let durable = &mut file.durable;
                file.pending.drain(..).for_each(|op| op.apply(durable));
                if retries {
                    Ok(())
                } else {
                    Err(failure.error())
                }
            }
            None => {
                // What a failed sync dropped is in the cache only, so this
                // cannot simply take the cache over.
                let durable = &mut file.durable;
                file.pending.drain(..).for_each(|op| op.apply(durable));
                file.durable_modified = file.modified;
                Ok(())
            }
        }
    }
}

impl Failure {
    fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::other("the disk is broken"),
            Self::NoSpace | Self::Short => io::ErrorKind::StorageFull.into(),
        }
    }
}

impl NameOp {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl FileOp {
    fn apply(&self, bytes: &mut Blocks) {
        match self {
            Self::Write { at, bytes: new } => bytes.put(*at as usize, new),
            Self::SetLen(len) => bytes.set_len(*len as usize),
        }
    }

    /// Applies some parts of it, and garbage for others where nothing was.
    fn tear(&self, bytes: &mut Blocks, unit: usize, rng: &mut Rng) {
        let Self::Write { at, bytes: new } = self else {
            return self.apply(bytes);
        };
        let mut at = *at as usize;
        for part in new.chunks(unit) {
            let hole = bytes.is_hole(at);
            match rng.u8(..3) {
                0 => bytes.put(at, part),
                1 if hole => bytes.put(at, &GARBAGE[rng.usize(..2)][..part.len()]),
                _ => {}
            }
            at += part.len();
        }
    }
}

/// Which of the operations that were not synced a crash keeps, in which order.
fn survivors<T: Clone>(pending: &[T], rng: &mut Rng) -> Vec<T> {
    let mut kept = pending.to_vec();
    match rng.u8(..5) {
        0 => {}
        1 => kept.clear(),
        2 => kept.truncate(rng.usize(..=pending.len())),
        3 => kept.retain(|_| rng.bool()),
        _ => {
            kept.retain(|_| rng.u8(..4) > 0);
            rng.shuffle(&mut kept);
        }
    }
    kept
}

impl Inode {
    fn crashed(&self, rng: &mut Rng) -> Self {
        let mut image = self.durable.clone();
        if !self.pending.is_empty() {
            let bytes = &mut image;
            let tears = rng.bool();
            for op in survivors(&self.pending, rng) {
                match tears && rng.bool() {
                    true => op.tear(bytes, self.unit, rng),
                    false => op.apply(bytes),
                }
            }
        }
        let modified = match rng.bool() {
            true => self.modified,
            false => self.durable_modified,
        };
        Self {
            cache: image.clone(),
            durable: image,
            pending: Vec::new(),
            modified,
            durable_modified: modified,
            locked: false,
            unit: self.unit,
        }
    }

    fn change(&mut self, op: FileOp, modified: Stamp) {
        op.apply(&mut self.cache);
        self.pending.push(op);
        self.modified = modified;
    }
}

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
        Ok(state.names.get(name) == Some(&file.inode))
    }

    fn publish(&self, part: &str, name: &str, file: &ModelFile) -> io::Result<()> {
        let mut state = self.state();
        state.whole_step(true)?;
        if state.trouble == Trouble::NameTaken("publish") {
            state.create(name, FOREIGN);
            state.sync_names();
        }
        let replaces = state.planted == Some(Planted::RenameReplaces);
        if state.names.contains_key(name) && !replaces {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let op = NameOp::Rename(part.to_owned(), name.to_owned(), file.inode);
        state.change_names(op);
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

    fn available(&self) -> Option<u64> {
        Some(self.state().room)
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
