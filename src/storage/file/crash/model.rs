//! A disk in memory that promises nothing but what was synced.
//!
//! Files and names are seen through a cache at once, and survive a crash only
//! as far as they were synced; of everything else a crash keeps, loses, tears
//! and reorders what it likes, by a seed. A sync that fails writes some of what
//! it was to write and forgets the rest, as operating systems do.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fastrand::Rng;

use super::super::disk::Stamp;
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
    pub(super) inodes: Vec<Inode>,
    pub(super) names: Names,
    pub(super) durable_names: Names,
    pub(super) pending_names: Vec<NameOp>,
    /// The next modification time.
    clock: i64,
    /// Operations so far, and how many of them changed something.
    ops: u64,
    changes: u64,
    pub(super) trouble: Trouble,
    pub(super) planted: Option<Planted>,
    /// Of the file that is synced too late, if that is planted.
    pub(super) deferred: Option<usize>,
    pub(super) promise: Promise,
    pub(super) room: u64,
    /// The name of the directory itself is durable.
    pub(super) placed: bool,
    /// A file gets its name by a second one, and loses the first.
    pub(super) two_steps: bool,
}

pub(super) type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) cache: Blocks,
    durable: Blocks,
    pending: Vec<FileOp>,
    pub(super) modified: Stamp,
    durable_modified: Stamp,
    pub(super) locked: bool,
    unit: usize,
}

#[derive(Debug, Clone)]
pub(super) enum FileOp {
    Write { at: u64, bytes: Bytes },
    SetLen(u64),
}

#[derive(Debug, Clone)]
pub(super) enum NameOp {
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
    /// The directory itself is new, and not synced in the one above.
    NoSyncAbove,
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
            placed: false,
            two_steps: false,
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
        if !self.placed && rng.bool() {
            // With the directory goes all that is in it.
            names.clear();
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

    /// How many names a file has.
    pub(super) fn names_of(&self, inode: usize) -> usize {
        self.names.values().filter(|&&other| other == inode).count()
    }

    /// Counts an operation, and lets it fail if that is due.
    pub(super) fn step(&mut self, changes: bool) -> io::Result<Option<Failure>> {
        self.ops += 1;
        self.changes += u64::from(changes);
        match self.trouble {
            Trouble::PowerOff(at) if self.changes > at => Err(io::Error::other("the power is off")),
            Trouble::Fails(at, failure) if self.ops == at => Ok(Some(failure)),
            _ => Ok(None),
        }
    }

    /// The same for an operation that fails as a whole.
    pub(super) fn whole_step(&mut self, changes: bool) -> io::Result<()> {
        self.step(changes)?.map_or(Ok(()), |f| Err(f.error()))
    }

    pub(super) fn tick(&mut self) -> Stamp {
        self.clock += 1;
        Stamp {
            seconds: self.clock,
            nanos: 1,
        }
    }

    pub(super) fn create(&mut self, name: &str, bytes: &[u8]) -> usize {
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

    pub(super) fn change_names(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending_names.push(op);
    }

    pub(super) fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.pending_names.clear();
    }

    pub(super) fn sync_file(&mut self, inode: usize) -> io::Result<()> {
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
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::other("the disk is broken"),
            Self::NoSpace | Self::Short => io::ErrorKind::StorageFull.into(),
        }
    }
}

impl NameOp {
    pub(super) fn apply(&self, names: &mut Names) {
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

    pub(super) fn change(&mut self, op: FileOp, modified: Stamp) {
        op.apply(&mut self.cache);
        self.pending.push(op);
        self.modified = modified;
    }
}
