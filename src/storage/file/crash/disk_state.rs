//! A disk in memory on which only synced data is safe.
//!
//! A reader sees files and names through a cache, at once. They survive a crash
//! only as far as they were synced. A crash keeps, loses, tears and reorders
//! everything else at random, by a seed. A sync that fails writes some of its
//! data and forgets the rest, as operating systems do.

use std::io;

use fastrand::Rng;

use super::super::names::parse_reserved;
use super::super::timestamp::Timestamp;
use super::blocks::Blocks;
use super::inode::Inode;
use super::name_table::{NameOp, NameTable};
use crate::content::Bitfield;

#[derive(Debug, Clone)]
pub(super) struct DiskState {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: NameTable,
    /// The last modification time that was given to a file.
    clock: i64,
    /// How many operations there were, and how many of them changed something.
    ops: u64,
    changes: u64,
    trouble: Trouble,
    pub(super) planted: Option<PlantedBug>,
    /// The file that is synced too late, if this bug is planted.
    pub(super) deferred: Option<usize>,
    pub(super) promise: Promise,
    /// How many bytes are available.
    pub(super) room: u64,
    /// Whether the name of the directory itself is durable.
    pub(super) directory_is_durable: bool,
    /// What the file system can do.
    pub(super) ability: Ability,
}

/// What a file system can do, and others cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ability {
    /// Everything.
    Full,
    /// A file gets another name without replacing anything in two steps: a second
    /// name is added, then the first is removed.
    NoRename,
    /// There are no second names either.
    NoLinks,
    /// Names do not change at all.
    NoNaming,
    /// Files cannot be locked.
    NoLocks,
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
    /// The power fails after this number of changes.
    PowerOff(u64),
    /// The operation with this number fails, counted from 1.
    Fails(u64, Failure),
    /// Another file takes the final name just before the content gets it.
    NameTaken,
    /// Another file takes the place of an empty one that reserves the final name.
    ReservationTaken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Io,
    NoSpace,
    /// A write stops half way.
    Short,
}

/// A bug that the storage could have. The disk simulates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlantedBug {
    RecordBeforeSync,
    NoDirectorySync,
    /// The directory itself is new, and not synced in its parent.
    NoParentSync,
    RenameReplaces,
    /// A file gets its final name before its bytes are synced.
    PublishesUnsynced,
    TrustsTornRecord,
    RetriesFailedSync,
    /// The journal is appended to after it was read, without being written
    /// again first.
    KeepsUnsyncedJournal,
}

/// The bytes of a file that does not belong to the storage.
pub(super) const FOREIGN: &[u8] = b"somebody else's";

impl DiskState {
    /// An empty disk.
    pub(super) fn new(chunks: u32) -> Self {
        Self {
            inodes: Vec::new(),
            names: NameTable::default(),
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
            directory_is_durable: false,
            ability: Ability::Full,
        }
    }

    /// Sets what goes wrong from now on. Operations are counted from here.
    pub(super) fn set_trouble(&mut self, trouble: Trouble) {
        (self.ops, self.changes, self.trouble) = (0, 0, trouble);
    }

    /// How many operations there were since the trouble was set.
    pub(super) fn ops(&self) -> u64 {
        self.ops
    }

    /// How many of them changed something.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The bytes under a name.
    pub(super) fn file(&self, name: &str) -> Option<&Blocks> {
        Some(self.inodes[self.names.get(name)?].bytes())
    }

    /// The durable bytes under a durable name.
    pub(super) fn durable_file(&self, name: &str) -> Option<&Blocks> {
        Some(self.inodes[self.names.durable(name)?].durable_bytes())
    }

    /// One state in which a power failure at this moment can leave the disk.
    pub(super) fn crashed(&self, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let names = self.names.crashed(self.directory_is_durable, &mut rng);
        let inodes = self.inodes.iter().map(|inode| inode.crashed(&mut rng));
        Self {
            inodes: inodes.collect(),
            names,
            deferred: None,
            trouble: Trouble::None,
            promise: self.promise.clone(),
            ..*self
        }
    }

    /// The state after the process was killed, without a power failure.
    pub(super) fn killed(&self) -> Self {
        let mut state = self.clone();
        for inode in &mut state.inodes {
            inode.locked = false;
        }
        state
    }

    /// Counts an operation, and fails if it is its turn to fail.
    pub(super) fn step(&mut self, changes: bool) -> io::Result<Option<Failure>> {
        self.ops += 1;
        self.changes += u64::from(changes);
        match self.trouble {
            Trouble::PowerOff(at) if self.changes > at => Err(io::Error::other("the power is off")),
            Trouble::Fails(at, failure) if self.ops == at => Ok(Some(failure)),
            _ => Ok(None),
        }
    }

    /// The same for an operation that cannot stop half way.
    pub(super) fn whole_step(&mut self, changes: bool) -> io::Result<()> {
        self.step(changes)?.map_or(Ok(()), |f| Err(f.error()))
    }

    /// The modification time of a change that happens now.
    pub(super) fn tick(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp {
            seconds: self.clock,
            nanos: 1,
        }
    }

    pub(super) fn create(&mut self, name: &str, bytes: &[u8]) -> usize {
        let modified = self.tick();
        self.inodes.push(Inode::new(name, bytes, modified));
        let inode = self.inodes.len() - 1;
        self.names.change(NameOp::Link(name.to_owned(), inode));
        inode
    }

    /// Begins to give a file another name, which must be free. Returns its
    /// inode.
    pub(super) fn new_name(&mut self, from: &str, to: &str) -> io::Result<usize> {
        self.whole_step(true)?;
        self.take_name(to);
        let replaces = self.planted == Some(PlantedBug::RenameReplaces);
        if self.names.get(to).is_some() && !replaces {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.names
            .get(from)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Another file takes a final name now, if that is the trouble.
    pub(super) fn take_name(&mut self, name: &str) {
        if self.trouble == Trouble::NameTaken && parse_reserved(name).is_none() {
            self.create(name, FOREIGN);
            self.names.make_durable();
        }
    }

    pub(super) fn sync_names(&mut self) -> io::Result<()> {
        let is_final = |name: &&String| parse_reserved(name).is_none();
        let reserved = self.names.iter().find(is_final).cloned();
        if let Some(name) = reserved.filter(|_| self.trouble == Trouble::ReservationTaken) {
            self.create(&name, FOREIGN);
        }
        let failure = self.step(true)?;
        match (self.planted, failure) {
            (Some(PlantedBug::NoDirectorySync), _) => Ok(()),
            (_, None) => {
                self.names.sync();
                Ok(())
            }
            (planted, Some(failure)) => {
                self.names.fail_sync();
                match planted {
                    Some(PlantedBug::RetriesFailedSync) => Ok(()),
                    _ => Err(failure.error()),
                }
            }
        }
    }

    pub(super) fn sync_file(&mut self, inode: usize) -> io::Result<()> {
        let failure = self.step(true)?;
        let retries = self.planted == Some(PlantedBug::RetriesFailedSync);
        let file = &mut self.inodes[inode];
        match failure {
            Some(failure) => {
                file.fail_sync();
                match retries {
                    true => Ok(()),
                    false => Err(failure.error()),
                }
            }
            None => {
                file.sync();
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
