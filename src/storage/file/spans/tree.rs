//! The files of a content that lies in several files.
//!
//! As long as the content is not complete, each of its files has [`PART`] behind its name.
//! When all are complete they are made durable, and get their own names. What has the name
//! of a file already is taken for that file, and is read; it is changed only if the user
//! wants that.

use std::collections::{BTreeSet, VecDeque};
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::super::dir::{DataFile, Dir};
use super::super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::super::failure::{failed, failed_to_store, refused};
use super::super::stamp::Stamp;
use super::layout::{Layout, Part, SpannedFile, cut};
use crate::content::{Bitfield, ContentId, FolderPath, Geometry};
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
    overwrites: bool,
    files: Mutex<Files>,
    /// The first file that was not complete, locked against others who fetch the same. It
    /// is not one of those that are read and written, as these come and go.
    lock: Option<DataFile>,
}

#[derive(Debug)]
struct Files {
    states: Vec<State>,
    /// Those that were used last are at the end.
    open: VecDeque<(usize, Arc<DataFile>)>,
    /// Written since they were made durable for the last time.
    dirty: BTreeSet<usize>,
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
}

impl SpannedTree {
    /// Opens what is there of the content, and makes what is missing. Returns also the
    /// chunks that may be there.
    pub(super) fn open(
        root: PathBuf,
        layout: Layout,
        (id, geometry): (ContentId, Geometry),
        overwrites: bool,
    ) -> Result<(Self, Bitfield), StorageError> {
        let paths: BTreeSet<_> = layout.files.iter().map(|file| file.path.as_str()).collect();
        for file in &layout.files {
            let part = format!("{}{PART}", file.path);
            if paths.contains(part.as_str()) {
                let name = part.parse().map_err(|_| StorageError::Unsupported {
                    what: "a file of this name",
                })?;
                return Err(StorageError::Reserved { name });
            }
        }
        std::fs::create_dir_all(&root).map_err(|e| failed("creating", &root, e))?;
        let mut tree = Self {
            root,
            id,
            overwrites,
            files: Mutex::new(Files {
                states: vec![State::Unfinished; layout.files.len()],
                open: VecDeque::new(),
                dirty: BTreeSet::new(),
            }),
            layout,
            lock: None,
        };
        let mut has = vec![false; tree.layout.files.len()];
        for (number, has) in has.iter_mut().enumerate() {
            *has = tree.prepare(number)?;
        }
        let is_unfinished = |state: &State| *state == State::Unfinished;
        let first = tree.files().states.iter().position(is_unfinished);
        tree.lock = first.map(|first| tree.lock(first)).transpose()?;
        let present = tree.layout.chunks_in(geometry, |file| has[file]);
        Ok((tree, present))
    }

    pub(super) fn length(&self) -> u64 {
        self.layout.length
    }

    /// Where the content lies: its only file, or the folder that all have in common.
    pub(super) fn path(&self) -> PathBuf {
        let first = self.layout.files.first();
        let top = first.and_then(|file| file.path.elements().next());
        self.root.join(top.unwrap_or_default())
    }

    /// Finds one file, or makes it. Returns whether it may have bytes of the content.
    fn prepare(&mut self, number: usize) -> Result<bool, StorageError> {
        let file = &self.layout.files[number];
        let path = self.path_of(file);
        let len = file.range.end - file.range.start;
        let dir = self.folder_of(&file.path, true)?;
        let look = |name: &str| {
            let looked = dir.look(name.as_ref());
            looked.map_err(|e| failed("examining", &path, e))
        };
        if let Some(found) = look(file.path.name())? {
            if found.kind != EntryKind::File && found.kind != EntryKind::SharedFile {
                return Err(refused("opening", &path, Refused::Kind(found.kind)));
            }
            if found.stat.len != len && !self.overwrites {
                return Err(self.exists(number));
            }
            if found.stat.len != len {
                let opened = dir.open_or_create(file.path.name());
                let opened = opened.map_err(|e| refused("opening", &path, e))?;
                let set = opened.set_len(len);
                set.map_err(|e| failed_to_store("resizing", &path, len, e))?;
            }
            self.files().states[number] = State::Found;
            return Ok(true);
        }
        let name = part_name(&file.path);
        let before = look(&name)?.map_or(0, |found| found.stat.len);
        let opened = dir.open_or_create(&name);
        let opened = opened.map_err(|e| refused("creating", &path, e))?;
        if before != len {
            let set = opened.set_len(len);
            set.map_err(|e| failed_to_store("creating", &path, len, e))?;
        }
        Ok(before > 0)
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
        let bytes = file.read_cached(at, len)?;
        match state {
            State::Finished(stamp) => {
                let stat = file.stat().ok()?;
                let same = (stat.len, stat.modified) == (stamp.len, stamp.modified);
                same.then_some(bytes)
            }
            State::Unfinished | State::Found => Some(bytes),
        }
    }

    fn read_part(&self, number: usize, at: u64, len: usize) -> Result<Bytes, StorageError> {
        let path = self.path_of(&self.layout.files[number]);
        let file = self.file(number)?;
        if let State::Finished(stamp) = self.files().states[number] {
            let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
            if (stat.len, stat.modified) != (stamp.len, stamp.modified) {
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
        let state = self.files().states[number];
        if let State::Finished(_) = state {
            return Err(StorageError::ReadOnly);
        }
        let file = &self.layout.files[number];
        let path = self.path_of(file);
        let len: usize = pieces.iter().map(Bytes::len).sum();
        let storing = |e| failed_to_store("writing", &path, len as u64, e);
        if state == State::Unfinished {
            self.file(number)?.write_at(at, pieces).map_err(storing)?;
            self.files().dirty.insert(number);
            return Ok(());
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
        if !self.overwrites {
            return Err(self.exists(number));
        }
        let dir = self.folder_of(&file.path, false)?;
        let opened = dir.open_or_create(file.path.name());
        let opened = opened.map_err(|e| refused("opening", &path, e))?;
        opened.write_at(at, pieces).map_err(storing)?;
        self.files().dirty.insert(number);
        Ok(())
    }

    /// Makes durable what was written.
    pub(super) fn commit(&self) -> Result<(), StorageError> {
        let dirty = std::mem::take(&mut self.files().dirty);
        for number in dirty {
            let path = self.path_of(&self.layout.files[number]);
            let synced = self.file(number)?.sync_data();
            synced.map_err(|e| failed("syncing", &path, e))?;
        }
        Ok(())
    }

    /// Makes all files durable under their own names.
    pub(super) fn finish(&self) -> Result<(), StorageError> {
        let mut folders = BTreeSet::new();
        for (number, file) in self.layout.files.iter().enumerate() {
            if let State::Finished(_) = self.files().states[number] {
                continue;
            }
            self.finish_file(number)?;
            let mut folder = file.path.parent();
            while let Some(path) = folder {
                folder = path.parent();
                folders.insert(path.to_string());
            }
        }
        let syncing =
            |path: &Path, done: io::Result<()>| done.map_err(|e| failed("syncing", path, e));
        for folder in folders.iter().rev() {
            let path = self.root.join(folder);
            let mut dir = self.root()?;
            for name in folder.split('/') {
                dir = self.enter(&dir, name, &path)?;
            }
            syncing(&path, dir.sync())?;
        }
        let root = self.root()?;
        syncing(&self.root, root.sync())?;
        syncing(&self.root, root.sync_parent())
    }

    fn finish_file(&self, number: usize) -> Result<(), StorageError> {
        let file = &self.layout.files[number];
        let path = self.path_of(file);
        let opened = self.file(number)?;
        let finishing = |e| failed("finishing", &path, e);
        let is_found = self.files().states[number] == State::Found;
        if !is_found && file.executable {
            opened.set_executable(true).map_err(finishing)?;
        }
        opened.sync_all().map_err(finishing)?;
        if !is_found {
            let dir = self.folder_of(&file.path, false)?;
            self.rename(&dir, number)?;
        }
        let stat = opened.stat().map_err(finishing)?;
        let mut files = self.files();
        files.states[number] = State::Finished(Stamp::of(&stat));
        // It is open for writing.
        files.open.retain(|(open, _)| *open != number);
        Ok(())
    }

    /// Gives a complete file its own name.
    fn rename(&self, dir: &Dir, number: usize) -> Result<(), StorageError> {
        let file = &self.layout.files[number];
        let (from, to) = (part_name(&file.path), file.path.name());
        let renamed = match dir.rename(&from, to) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                dir.link(&from, to).and_then(|()| dir.remove(&from))
            }
            renamed => renamed,
        };
        renamed.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => self.exists(number),
            _ => failed("finishing", &self.path_of(file), e),
        })
    }

    /// Closes all files until they are used again.
    pub(super) fn release(&self) {
        self.files().open.clear();
    }

    /// Removes what is not complete, and folders that are empty then.
    pub(super) fn discard(root: &Path, layout: &Layout) -> Result<bool, StorageError> {
        let failing = |e| failed("removing", root, e);
        let mut any = false;
        let mut folders = BTreeSet::new();
        let enter = |folder: Option<&FolderPath>| -> Result<Option<Dir>, StorageError> {
            let mut dir = match Dir::open(root) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                dir => dir.map_err(failing)?,
            };
            for name in folder.iter().flat_map(|folder| folder.elements()) {
                dir = match dir.enter(name.as_ref()) {
                    Ok(dir) => dir,
                    Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(refused("removing", root, e)),
                };
            }
            Ok(Some(dir))
        };
        for file in &layout.files {
            let parent = file.path.parent();
            if let Some(dir) = enter(parent.as_ref())? {
                match dir.remove(&part_name(&file.path)) {
                    Ok(()) => any = true,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failing(e)),
                }
            }
            let mut folder = parent;
            while let Some(path) = folder {
                folder = path.parent();
                folders.insert(path.to_string());
            }
        }
        for folder in folders.iter().rev() {
            let (parent, name) = folder.rsplit_once('/').unwrap_or(("", folder));
            let parent = parent.parse().ok();
            if let Some(dir) = enter(parent.as_ref())? {
                // What is in use stays.
                let _ = dir.remove_dir(name.as_ref());
            }
        }
        if let Some(root) = enter(None)? {
            root.sync().map_err(failing)?;
        }
        Ok(any)
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
        let state = files.states[number];
        drop(files);
        let opened = Arc::new(self.open_file(number, state)?);
        let mut files = self.files();
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
        let opened = dir.open_or_create(&part_name(&file.path));
        opened.map_err(|e| refused("opening", &path, e))
    }

    /// Keeps others from writing the same content as long as the handle is there.
    fn lock(&self, number: usize) -> Result<DataFile, StorageError> {
        let file = self.open_file(number, State::Unfinished)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
                id: self.id,
                path: Some(self.path_of(&self.layout.files[number])),
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

    fn path_of(&self, file: &SpannedFile) -> PathBuf {
        self.root.join(file.path.as_str())
    }

    fn exists(&self, number: usize) -> StorageError {
        let path = &self.layout.files[number].path;
        let name = path.name().parse();
        StorageError::Exists {
            name: name.unwrap_or_else(|_| self.id.into()),
            path: Some(self.root.join(path.as_str())),
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn part_name(path: &FolderPath) -> String {
    format!("{}{PART}", path.name())
}
