//! The files of a content that lies in several files.
//!
//! As long as the content is not complete, each of its files has [`PART`] behind its name.
//! When all are complete they are made durable, and get their own names. What has the name
//! of a file already is taken for that file, and is read; it is changed only if the user
//! wants that. Which chunks are right is recorded with each commit, so that nobody has to
//! verify them again whose files have not changed. Files that are not wanted are not made: what
//! lies in them of chunks that others need lies [apart](super::apart). Symbolic links are made
//! at the end, when what they refer to is there.

mod apart_bytes;
mod ending;
mod opening;

use std::collections::{BTreeSet, VecDeque};
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use super::super::dir::{DataFile, Dir};
use super::super::disk::{Disk, DiskFile, EntryKind, FileStat, Refused};
use super::super::failure::{failed, failed_to_store, refused};
use super::super::stamp::Stamp;
use super::apart::{Borders, ChosenFiles};
use super::layout::{Layout, Part, SpannedFile, SpannedLink, cut};
use super::ranges::Ranges;
use super::record;
use crate::content::{Bitfield, ChunkIndex, ContentId, FolderPath, Geometry};
use crate::storage::StorageError;

/// Stands behind the name of a file that is not complete.
const PART: &str = ".bt_lite-part";

/// How many files of one content are open at a time: those that are written at its front,
/// and those that others read.
const MAX_OPEN: usize = 32;

/// The files of one content.
#[derive(Debug)]
pub(super) struct SpannedTree {
    root: PathBuf,
    layout: Layout,
    id: ContentId,
    geometry: Geometry,
    overwrites: bool,
    chosen: Arc<ChosenFiles>,
    borders: Borders,
    files: Mutex<Files>,
    /// Held while files are made durable and get their times: one that is finished keeps its
    /// time.
    syncing: Mutex<()>,
    /// The chunks that are recorded as right and durable in this run: once they are, they stay
    /// so.
    durable: Mutex<Bitfield>,
    /// Held while something is written that lies apart, or gets a file of its own.
    moving: Mutex<()>,
    /// The first file that was not complete, and the one for what lies apart, locked against
    /// others who fetch the same. They are not those that are read and written, as these come
    /// and go.
    locks: Mutex<Vec<(usize, DataFile)>>,
}

#[derive(Debug)]
struct Files {
    states: Vec<State>,
    /// Those that were used last are at the end.
    open: VecDeque<(usize, Arc<DataFile>)>,
    /// Written since they were made durable for the last time.
    dirty: BTreeSet<usize>,
    /// What each file was when it was examined, unless it was written since.
    stamps: Vec<Option<Stamp>>,
    /// The record of the content.
    recorded: Option<Vec<u8>>,
    /// The chunks that were there at the start, and were not verified then.
    unsure: Bitfield,
    /// Whether there is a file for what lies apart. It counts as one behind all others.
    has_apart: bool,
    /// The chunks that have bytes apart.
    apart: BTreeSet<ChunkIndex>,
    /// What was found and was written over since: its stamp says nothing any more.
    rewritten: BTreeSet<usize>,
    /// Chunks of which the bytes of a file lie apart though something has the name of that
    /// file: it is not wanted, and has others there.
    displaced: BTreeSet<(usize, ChunkIndex)>,
}

/// What an earlier download has left.
pub(super) struct Left {
    /// The chunks that may be there.
    pub(super) present: Bitfield,
    /// Those of them that are right: they were verified, and their files have not changed.
    pub(super) verified: Bitfield,
}

/// What has the bytes of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A file with [`PART`] behind its name.
    Unfinished,
    /// What had the name of the file when the content was opened.
    Found,
    /// The file, complete and durable. It has changed if it has another stamp.
    Finished(Stamp),
    /// There is no file. What there is of it lies apart.
    Apart,
}

impl SpannedTree {
    pub(super) fn length(&self) -> u64 {
        self.layout.length
    }

    /// What lies in no file.
    pub(super) fn padding(&self) -> Ranges {
        let mut files = Ranges::default();
        let all = self.layout.files.iter();
        all.for_each(|file| files.insert(file.range.clone()));
        let mut padding = Ranges::default();
        let gaps = files.missing(&(0..self.layout.length)).into_iter();
        gaps.for_each(|gap| padding.insert(gap));
        padding
    }

    /// Where the content lies: its only file, or the folder that all have in common.
    pub(super) fn path(&self) -> PathBuf {
        let first = self.layout.files.first();
        let top = first.and_then(|file| file.path.elements().next());
        self.root.join(top.unwrap_or_default())
    }

    /// Checks that nothing else is where a link is to be.
    fn check_link(&self, link: &SpannedLink) -> Result<(), StorageError> {
        let path = self.root.join(link.path.as_str());
        let dir = self.folder_of(&link.path, true)?;
        let found = dir.look(link.path.name().as_ref());
        match found.map_err(|e| failed("examining", &path, e))? {
            None => Ok(()),
            Some(found) if found.kind == EntryKind::Link => {
                match self.overwrites || says(&dir, link) {
                    true => Ok(()),
                    false => Err(self.exists(&link.path)),
                }
            }
            // It is never replaced: it may have something in it.
            Some(_) => Err(self.exists(&link.path)),
        }
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let parts = self.layout.parts(offset, len);
        if let [
            Part {
                file: Some(number),
                at,
                len,
            },
        ] = parts[..]
        {
            return self.read_part(number, at, len);
        }
        let mut bytes = BytesMut::with_capacity(len);
        for part in parts {
            match part.file {
                Some(number) => bytes.extend(self.read_part(number, part.at, part.len)?),
                None => bytes.resize(bytes.len() + part.len, 0),
            }
        }
        Ok(bytes.freeze())
    }

    /// The same without waiting, if all of it lies in one file and in memory.
    pub(super) fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes> {
        let [
            Part {
                file: Some(number),
                at,
                len,
            },
        ] = self.layout.parts(offset, len)[..]
        else {
            return None;
        };
        let (file, state) = self.open_now(number)?;
        if self.is_displaced(number) {
            return None;
        }
        let bytes = file.read_cached(at, len)?;
        if state == State::Apart {
            return None;
        }
        let is_same = match self.stamp_of(number) {
            Some(stamp) => is_as(&file.stat().ok()?, stamp),
            None => true,
        };
        is_same.then_some(bytes)
    }

    /// What a file has to be still, if it was whole once: when it was found, or finished.
    fn stamp_of(&self, number: usize) -> Option<Stamp> {
        let files = self.files();
        match files.states[number] {
            State::Finished(stamp) => Some(stamp),
            State::Found if files.rewritten.contains(&number) => None,
            State::Found => files.stamps[number],
            State::Unfinished | State::Apart => None,
        }
    }

    fn read_part(&self, number: usize, at: u64, len: usize) -> Result<Bytes, StorageError> {
        let path = self.path_of(&self.layout.files[number]);
        let range = self.range_in(number, at, len);
        if self.is_apart(number) {
            return self.read_apart(&range);
        }
        if self.is_displaced(number) {
            return self.read_displaced(number, &range);
        }
        self.read_own(number, at, len, path)
    }

    /// Reads what lies in the file itself.
    fn read_own(
        &self,
        number: usize,
        at: u64,
        len: usize,
        path: PathBuf,
    ) -> Result<Bytes, StorageError> {
        let file = self.file(number)?;
        if let Some(stamp) = self.stamp_of(number) {
            let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
            // It may be written over since a moment.
            if !is_as(&stat, stamp) && self.stamp_of(number) == Some(stamp) {
                return Err(StorageError::Changed { path });
            }
        }
        let read = file.read_at(at, len);
        read.map_err(|e| failed("reading", &path, e))
    }

    pub(super) fn write(&self, offset: u64, pieces: &[Bytes]) -> Result<(), StorageError> {
        let len = pieces.iter().map(Bytes::len).sum();
        let mut from = 0;
        for part in self.layout.parts(offset, len) {
            if let Some(number) = part.file {
                self.write_part(number, part.at, &cut(pieces, from, part.len))?;
            }
            from += part.len;
        }
        Ok(())
    }

    fn write_part(&self, number: usize, at: u64, pieces: &[Bytes]) -> Result<(), StorageError> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        if self.is_apart(number)
            && self.write_apart(number, &self.range_in(number, at, len), pieces)?
        {
            return Ok(());
        }
        let state = self.files().states[number];
        if let State::Finished(_) = state {
            return Err(StorageError::ReadOnly);
        }
        let file = &self.layout.files[number];
        let path = self.path_of(file);
        let storing = |e| failed_to_store("writing", &path, len as u64, e);
        if state == State::Unfinished {
            let file = self.file(number)?;
            self.changes(number);
            return file.write_at(at, pieces).map_err(storing);
        }
        let there = self.file(number)?.read_at(at, len);
        let there = there.map_err(|e| failed("reading", &path, e))?;
        let mut rest = &there[..];
        let same = pieces.iter().all(|piece| {
            let (now, later) = rest.split_at(piece.len());
            rest = later;
            now == piece
        });
        if same {
            return Ok(());
        }
        if !self.chosen.has_file(number)
            && self.displace(number, &self.range_in(number, at, len), pieces)?
        {
            return Ok(());
        }
        if !self.overwrites {
            return Err(self.exists(&self.layout.files[number].path));
        }
        let dir = self.folder_of(&file.path, false)?;
        let opened = dir.open_or_create(file.path.name());
        let opened = opened.map_err(|e| refused("opening", &path, e))?;
        self.changes(number);
        opened.write_at(at, pieces).map_err(storing)
    }

    /// A file is about to be written.
    fn changes(&self, number: usize) {
        let mut files = self.files();
        files.dirty.insert(number);
        files.stamps[number] = None;
        if files.states.get(number) == Some(&State::Found) {
            files.rewritten.insert(number);
        }
    }

    /// Makes durable what was written, and records these chunks.
    pub(super) fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let syncing = self.syncing();
        let dirty = std::mem::take(&mut self.files().dirty);
        for number in dirty {
            if let Some(State::Finished(_)) = self.files().states.get(number) {
                continue;
            }
            let path = self.path_of_number(number);
            let file = self.file(number)?;
            file.sync_data().map_err(|e| failed("syncing", &path, e))?;
            let stamp = examined(&file).map_err(|e| failed("examining", &path, e))?;
            let mut files = self.files();
            // It may be written again by now, and is examined again then.
            if !files.dirty.contains(&number) {
                files.stamps[number] = Some(stamp);
            }
        }
        drop(syncing);
        self.record(verified);
        Ok(())
    }

    /// From now on these chunks may be there, if they are not verified.
    pub(super) fn may_have(&self, chunks: &Bitfield) {
        let unsure = &mut self.files().unsure;
        for chunk in chunks.iter() {
            unsure.insert(chunk);
        }
    }

    /// All chunks.
    pub(super) fn all(&self) -> Bitfield {
        Bitfield::all(self.geometry.chunks())
    }

    /// Closes all files until they are used again.
    pub(super) fn release(&self) {
        self.files().open.clear();
    }

    /// A file that is open, or is opened now.
    fn file(&self, number: usize) -> Result<Arc<DataFile>, StorageError> {
        let mut files = self.files();
        if let Some(at) = files.open.iter().position(|(open, _)| *open == number) {
            let found = files.open.remove(at).expect("it was just found");
            let file = Arc::clone(&found.1);
            files.open.push_back(found);
            return Ok(file);
        }
        let state = files.states.get(number).copied();
        drop(files);
        let opened = Arc::new(match state {
            Some(state) => self.open_file(number, state)?,
            None => self.open_apart()?,
        });
        let mut files = self.files();
        if files.states.get(number).copied() != state {
            // It has got its name meanwhile.
            drop(files);
            return self.file(number);
        }
        files.open.push_back((number, Arc::clone(&opened)));
        if files.open.len() > MAX_OPEN {
            files.open.pop_front();
        }
        Ok(opened)
    }

    /// A file, if it is open.
    fn open_now(&self, number: usize) -> Option<(Arc<DataFile>, State)> {
        let files = self.files();
        let found = files.open.iter().find(|(open, _)| *open == number);
        Some((Arc::clone(&found?.1), files.states[number]))
    }

    fn open_file(&self, number: usize, state: State) -> Result<DataFile, StorageError> {
        let file = &self.layout.files[number];
        let path = self.path_of(file);
        let dir = self.folder_of(&file.path, false)?;
        if state != State::Unfinished {
            let opened = dir.open_existing(file.path.name());
            return opened.map_err(|error| match (state, error) {
                (State::Finished(_), Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                    StorageError::Changed { path: path.clone() }
                }
                (_, error) => refused("opening", &path, error),
            });
        }
        let name = part_name(&file.path);
        let opened = dir.open_or_create(&name);
        let opened = opened.map_err(|e| refused("opening", &path, e))?;
        if self.files().states[number] != State::Unfinished {
            // It has got its name meanwhile, and this is a new one.
            match dir.remove(&name) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("removing", &path, e));
                }
                _ => {}
            }
        }
        Ok(opened)
    }

    /// Keeps others from writing the same content as long as the handle is there.
    fn lock(&self, number: usize) -> Result<DataFile, StorageError> {
        let file = match number == self.layout.files.len() {
            true => self.open_apart()?,
            false => self.open_file(number, State::Unfinished)?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
                id: self.id,
                path: Some(self.path_of_number(number)),
            }),
            // Some file systems have no locks.
            _ => Ok(file),
        }
    }

    fn root(&self) -> Result<Dir, StorageError> {
        Dir::open(&self.root).map_err(|e| failed("opening", &self.root, e))
    }

    /// The directory that something lies in, made if it is missing and to be `made`.
    fn folder_of(&self, path: &FolderPath, made: bool) -> Result<Dir, StorageError> {
        let mut dir = self.root()?;
        let Some(parent) = path.parent() else {
            return Ok(dir);
        };
        let at = self.root.join(parent.as_str());
        for name in parent.elements() {
            if made {
                match dir.make_dir(name) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(failed("creating", &at, e));
                    }
                    _ => {}
                }
            }
            dir = self.enter(&dir, name, &at)?;
        }
        Ok(dir)
    }

    fn enter(&self, dir: &Dir, name: &str, path: &Path) -> Result<Dir, StorageError> {
        dir.enter(name.as_ref()).map_err(|error| match error {
            Refused::Kind(_) => StorageError::NotADirectory { path: path.into() },
            error => refused("opening", path, error),
        })
    }

    /// The same also for the number behind all others, which is what lies apart.
    fn path_of_number(&self, number: usize) -> PathBuf {
        match self.layout.files.get(number) {
            Some(file) => self.path_of(file),
            None => self.root.join(record::apart_name(self.id)),
        }
    }

    fn path_of(&self, file: &SpannedFile) -> PathBuf {
        self.root.join(file.path.as_str())
    }

    fn exists(&self, path: &FolderPath) -> StorageError {
        let name = path.name().parse();
        StorageError::Exists {
            name: name.unwrap_or_else(|_| self.id.into()),
            path: Some(self.root.join(path.as_str())),
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn locks(&self) -> MutexGuard<'_, Vec<(usize, DataFile)>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores poison: nothing is behind this lock.
    fn syncing(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores poison: nothing is behind this lock.
    fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores poison: what is in it is durable.
    fn durable(&self) -> MutexGuard<'_, Bitfield> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stamp of a file that was just written. The clock of a file system stands still for
/// some milliseconds; an explicit time differs from that of every later change. If it cannot
/// be set, changes are only harder to detect, and the stamp says so.
fn examined(file: &DataFile) -> io::Result<Stamp> {
    let set = file.set_modified(SystemTime::now()).is_ok();
    let stamp = Stamp::of(&file.stat()?);
    Ok(Stamp {
        settled: stamp.settled || set,
        ..stamp
    })
}

/// Whether a file is what it was.
fn is_as(stat: &FileStat, stamp: Stamp) -> bool {
    (stat.len, stat.modified) == (stamp.len, stamp.modified)
}

/// Whether a link is there, and says what it should.
fn says(dir: &Dir, link: &SpannedLink) -> bool {
    let said = dir.read_link(link.path.name().as_ref());
    said.is_ok_and(|said| said == *link.target)
}

fn part_name(path: &FolderPath) -> String {
    format!("{}{PART}", path.name())
}
