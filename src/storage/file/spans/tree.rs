//! The files of a content that lies in several files.
//!
//! As long as the content is not complete, each of its files has [`PART`] behind its name.
//! When all are complete they are made durable, and get their own names. What has the name
//! of a file already is taken for that file, and is read; it is changed only if the user
//! wants that. Which chunks are right is recorded with each commit, so that nobody has to
//! verify them again whose files have not changed. Files that are not wanted are not made: what
//! lies in them of chunks that others need lies [apart](super::apart). Symbolic links are made
//! at the end, when what they refer to is there.

use std::collections::{BTreeSet, VecDeque};
use std::fs::TryLockError;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use super::super::dir::{DataFile, Dir};
use super::super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::super::failure::{failed, failed_to_store, refused};
use super::super::stamp::Stamp;
use super::apart::{Borders, ChosenFiles, chunk_at};
use super::layout::{Layout, Part, SpannedFile, SpannedLink, chunks_of, cut};
use super::ranges::Ranges;
use super::record::{self, SpanRecord};
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
    locks: Vec<DataFile>,
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

/// A file that was found or made.
struct Made {
    state: State,
    /// What it was then, if it has the right length.
    stamp: Option<Stamp>,
    /// Whether it may have bytes of the content.
    has_bytes: bool,
}

impl SpannedTree {
    /// Opens what is there of the content, and makes what is missing. Returns also what was
    /// there.
    pub(super) fn open(
        root: PathBuf,
        layout: Layout,
        (id, geometry): (ContentId, Geometry),
        overwrites: bool,
        chosen: Arc<ChosenFiles>,
    ) -> Result<(Self, Left), StorageError> {
        let paths: BTreeSet<_> = layout.files.iter().map(|file| file.path.as_str()).collect();
        for file in &layout.files {
            let part = format!("{}{PART}", file.path);
            let top = file.path.elements().next().unwrap_or_default();
            let name = match () {
                () if paths.contains(part.as_str()) => part.as_str(),
                () if record::is_reserved(top) => top,
                () => continue,
            };
            let name = name.parse().map_err(|_| StorageError::Unsupported {
                what: "a file of this name",
            })?;
            return Err(StorageError::Reserved { name });
        }
        std::fs::create_dir_all(&root).map_err(|e| failed("creating", &root, e))?;
        let mut tree = Self {
            root,
            id,
            geometry,
            overwrites,
            chosen,
            borders: Borders::new(&layout, geometry),
            files: Mutex::new(Files {
                states: vec![State::Unfinished; layout.files.len()],
                open: VecDeque::new(),
                dirty: BTreeSet::new(),
                stamps: vec![None; layout.files.len() + 1],
                recorded: None,
                unsure: Bitfield::none(geometry.chunks()),
                has_apart: false,
                apart: BTreeSet::new(),
            }),
            layout,
            syncing: Mutex::default(),
            durable: Mutex::new(Bitfield::none(geometry.chunks())),
            moving: Mutex::default(),
            locks: Vec::new(),
        };
        tree.look_apart()?;
        let mut has = vec![false; tree.layout.files.len()];
        for (number, has) in has.iter_mut().enumerate() {
            *has = tree.prepare(number)?;
        }
        for (number, link) in tree.layout.links.iter().enumerate() {
            if tree.chosen.has_link(number) {
                tree.check_link(link)?;
            }
        }
        tree.locks = tree.lock_all()?;
        let left = tree.left(|file| has[file]);
        let mut unsure = left.present.clone();
        for chunk in left.verified.iter() {
            unsure.remove(chunk);
        }
        {
            let files = &mut *tree.files();
            files.unsure = unsure;
            if files.has_apart {
                let present = left.present.iter();
                files.apart = present
                    .filter(|chunk| tree.borders.contains(*chunk))
                    .collect();
            }
        }
        for number in 0..tree.layout.files.len() {
            if tree.is_apart(number) && tree.chosen.has_file(number) {
                tree.settle(number, &tree.moving())?;
            }
        }
        Ok((tree, left))
    }

    /// Looks for what lies apart.
    fn look_apart(&self) -> Result<(), StorageError> {
        let found = self.root()?.look(record::apart_name(self.id).as_ref());
        let found = found.map_err(|e| failed("examining", &self.root, e))?;
        let mut files = self.files();
        files.has_apart = found.is_some();
        if let Some(stamp) = files.stamps.last_mut() {
            *stamp = found.map(|found| Stamp::of(&found.stat));
        }
        Ok(())
    }

    /// Locks what is to be locked. Something of the content is, whatever is wanted of it.
    fn lock_all(&self) -> Result<Vec<DataFile>, StorageError> {
        let (first, needs_apart) = {
            let mut files = self.files();
            let is = |wanted: State| files.states.iter().position(|state| *state == wanted);
            let (first, apart) = (is(State::Unfinished), is(State::Apart));
            files.has_apart |= apart.is_some();
            (first, files.has_apart)
        };
        let apart = needs_apart.then_some(self.layout.files.len());
        let locked = first.into_iter().chain(apart).map(|file| self.lock(file));
        locked.collect()
    }

    /// What an earlier download has left, in these files.
    fn left(&self, has: impl Fn(usize) -> bool) -> Left {
        let (states, has_apart) = {
            let files = self.files();
            let found = files.stamps.last().is_some_and(Option::is_some);
            (files.states.clone(), found)
        };
        let has_chunk = |file: usize, chunk| match states[file] {
            State::Apart => has_apart && self.borders.contains(chunk),
            _ => has(file),
        };
        let mut present = self.layout.chunks_in(self.geometry, has_chunk);
        let chunks = self.geometry.chunks();
        let read = self.read_record();
        let id = self.id;
        let record = read.as_ref().and_then(|bytes| {
            let bytes = Bytes::copy_from_slice(bytes);
            let decode = |files| SpanRecord::decode(bytes.clone(), id, chunks, files);
            self.record_counts().into_iter().find_map(decode)
        });
        let Some(record) = record else {
            let verified = Bitfield::none(chunks);
            return Left { present, verified };
        };
        let mut files = self.files();
        let stands = |file: usize| {
            let stamp = files.stamps[file].map(|stamp| stamp.modified);
            stamp.is_some() && Some(&stamp) == record.modified.get(file)
        };
        // What lay in a file of its own then, and lies nowhere now, is no different from what lies
        // apart. So that is always verified: it is little.
        let is_same = |file: usize, _| match states[file] {
            State::Apart => false,
            _ => has(file) && stands(file),
        };
        // Of files that have not changed, what is recorded is there, and nothing else.
        let mut verified = self.layout.chunks_in(self.geometry, is_same);
        for chunk in verified.clone().iter() {
            if !record.verified.contains(chunk) {
                verified.remove(chunk);
                if !record.unsure.contains(chunk) {
                    present.remove(chunk);
                }
            }
        }
        let stamps = files.stamps.iter_mut().zip(&record.modified);
        for (stamp, modified) in stamps {
            // It was settled when it was recorded.
            if let Some(stamp) = stamp
                && Some(stamp.modified) == *modified
            {
                stamp.settled = true;
            }
        }
        files.recorded = read;
        Left { present, verified }
    }

    fn read_record(&self) -> Option<Vec<u8>> {
        let [name, _] = record::names(self.id);
        // Where there is none, or something else, everything is verified.
        let file = self.root().ok()?.open_existing(&name).ok()?;
        let lens = self.record_counts().map(|files| {
            let len = SpanRecord::len(self.geometry.chunks(), files);
            len as u64
        });
        let len = file.stat().ok().map(|stat| stat.len);
        let len = len.filter(|len| lens.contains(len))?;
        let read = file.read_at(0, len as usize).ok()?;
        Some(read.to_vec())
    }

    /// How many files a record may be about: that for what lies apart need not be there.
    fn record_counts(&self) -> [usize; 2] {
        let files = self.layout.files.len();
        [files, files + 1]
    }

    /// Records that these chunks are right and durable. Without a record they are verified
    /// the next time, so it is no error if it cannot be written.
    fn record(&self, verified: &Bitfield) {
        // Held until it is written, so that no older record replaces a newer one.
        let mut durable = self.durable();
        verified.iter().for_each(|chunk| {
            durable.insert(chunk);
        });
        let bytes = {
            let files = self.files();
            let (verified, unsure) = (durable.clone(), files.unsure.clone());
            let count = self.layout.files.len() + usize::from(files.has_apart);
            let stamps = &files.stamps[..count];
            let bytes = SpanRecord::new(verified, unsure, stamps).encode(self.id);
            if files.recorded.as_ref() == Some(&bytes) {
                return;
            }
            bytes
        };
        match self.write_record(&bytes) {
            Ok(()) => self.files().recorded = Some(bytes),
            Err(error) => {
                tracing::warn!(path = %self.root.display(), %error, "a torrent is not recorded");
            }
        }
    }

    fn write_record(&self, bytes: &[u8]) -> io::Result<()> {
        let dir = Dir::open(&self.root)?;
        let [name, new] = record::names(self.id);
        let file = dir.open_or_create(&new).map_err(|refused| match refused {
            Refused::Io(error) => error,
            Refused::Kind(kind) => io::Error::other(kind.describe()),
        })?;
        file.set_len(bytes.len() as u64)?;
        file.write_at(0, &[Bytes::copy_from_slice(bytes)])?;
        file.sync_all()?;
        dir.replace(&new, &name)?;
        dir.sync()
    }

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

    /// Finds one file, or makes it if it is wanted. Returns whether it may have bytes of the
    /// content.
    fn prepare(&self, number: usize) -> Result<bool, StorageError> {
        let is_wanted = self.chosen.has_file(number);
        let slots = self.borders.of(&self.layout.files[number].range);
        let may_lie_apart = self.files().has_apart && !slots.is_empty();
        if is_wanted && !may_lie_apart {
            return Ok(self.has(number, self.make(number)?));
        }
        // Something of it may lie apart.
        let file = &self.layout.files[number];
        let len = file.range.end - file.range.start;
        let path = self.path_of(file);
        let dir = match self.folder_of(&file.path, false) {
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                None
            }
            // What is there is in the way of something that is not wanted.
            Err(_) if !is_wanted => None,
            dir => Some(dir?),
        };
        let look = |name: &str| match &dir {
            Some(dir) => dir
                .look(name.as_ref())
                .map_err(|e| failed("examining", &path, e)),
            None => Ok(None),
        };
        let own = look(file.path.name())?;
        let is_own = own.is_some_and(|own| {
            let is_file = own.kind == EntryKind::File || own.kind == EntryKind::SharedFile;
            is_wanted || is_file && own.stat.len == len
        });
        if is_own || look(&part_name(&file.path))?.is_some() {
            return Ok(self.has(number, self.make(number)?));
        }
        self.files().states[number] = State::Apart;
        Ok(false)
    }

    /// Notes what has the bytes of a file. Returns whether it may have some.
    fn has(&self, number: usize, made: Made) -> bool {
        let mut files = self.files();
        files.states[number] = made.state;
        files.stamps[number] = made.stamp;
        made.has_bytes
    }

    /// Finds one file, or makes it.
    fn make(&self, number: usize) -> Result<Made, StorageError> {
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
                return Err(self.exists(&self.layout.files[number].path));
            }
            if found.stat.len != len {
                let opened = dir.open_or_create(file.path.name());
                let opened = opened.map_err(|e| refused("opening", &path, e))?;
                let set = opened.set_len(len);
                set.map_err(|e| failed_to_store("resizing", &path, len, e))?;
            }
            let is_whole = found.stat.len == len;
            return Ok(Made {
                state: State::Found,
                stamp: is_whole.then(|| Stamp::of(&found.stat)),
                has_bytes: true,
            });
        }
        let name = part_name(&file.path);
        let found = look(&name)?;
        let before = found.map_or(0, |found| found.stat.len);
        let whole = found.filter(|found| found.stat.len == len);
        let opened = dir.open_or_create(&name);
        let opened = opened.map_err(|e| refused("creating", &path, e))?;
        if before != len {
            let set = opened.set_len(len);
            set.map_err(|e| failed_to_store("creating", &path, len, e))?;
        }
        Ok(Made {
            state: State::Unfinished,
            stamp: whole.map(|found| Stamp::of(&found.stat)),
            has_bytes: before > 0,
        })
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

    /// Makes a link, unless it is there.
    fn finish_link(&self, link: &SpannedLink) -> Result<(), StorageError> {
        let path = self.root.join(link.path.as_str());
        let finishing = |e| failed("creating", &path, e);
        self.check_link(link)?;
        let dir = self.folder_of(&link.path, true)?;
        if says(&dir, link) {
            return Ok(());
        }
        match dir.remove(link.path.name()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(finishing(e)),
            _ => {}
        }
        dir.make_link(link.path.name(), &link.target)
            .map_err(finishing)
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
            State::Apart => None,
        }
    }

    fn read_part(&self, number: usize, at: u64, len: usize) -> Result<Bytes, StorageError> {
        let path = self.path_of(&self.layout.files[number]);
        let state = self.files().states[number];
        if state == State::Apart {
            return self.read_apart(&self.range_in(number, at, len));
        }
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
        if !self.overwrites {
            return Err(self.exists(&self.layout.files[number].path));
        }
        let dir = self.folder_of(&file.path, false)?;
        let opened = dir.open_or_create(file.path.name());
        let opened = opened.map_err(|e| refused("opening", &path, e))?;
        self.changes(number);
        opened.write_at(at, pieces).map_err(storing)
    }

    /// The bytes of the content that are these of a file.
    fn range_in(&self, number: usize, at: u64, len: usize) -> Range<u64> {
        let start = self.layout.files[number].range.start + at;
        start..start + len as u64
    }

    fn is_apart(&self, number: usize) -> bool {
        self.files().states[number] == State::Apart
    }

    fn read_apart(&self, range: &Range<u64>) -> Result<Bytes, StorageError> {
        let file = self.file(self.layout.files.len())?;
        let path = self.root.join(record::apart_name(self.id));
        let there = file.stat().map_err(|e| failed("examining", &path, e))?.len;
        let mut bytes = BytesMut::new();
        for part in self.borders.cut(range) {
            let len = part.end - part.start;
            let changed = || StorageError::Changed { path: path.clone() };
            let at = self.borders.position(&part).ok_or_else(changed)?;
            // It ends with the last slot that was written.
            let has = there.saturating_sub(at).min(len);
            let read = file.read_at(at, has as usize);
            bytes.extend(read.map_err(|e| failed("reading", &path, e))?);
            bytes.resize(bytes.len() + (len - has) as usize, 0);
        }
        Ok(bytes.freeze())
    }

    /// Writes what lies in a file that is not wanted. Returns whether it was written: not if
    /// it gets its file now.
    fn write_apart(
        &self,
        number: usize,
        range: &Range<u64>,
        pieces: &[Bytes],
    ) -> Result<bool, StorageError> {
        let moving = self.moving();
        if !self.is_apart(number) {
            return Ok(false);
        }
        if self.chosen.has_file(number) || !self.borders.cover(range) {
            self.settle(number, &moving)?;
            return Ok(false);
        }
        let apart = self.layout.files.len();
        let file = self.file(apart)?;
        let path = self.root.join(record::apart_name(self.id));
        self.changes(apart);
        for part in self.borders.cut(range) {
            let (from, len) = (
                (part.start - range.start) as usize,
                (part.end - part.start) as usize,
            );
            let Some(at) = self.borders.position(&part) else {
                continue;
            };
            let written = file.write_at(at, &cut(pieces, from, len));
            written.map_err(|e| failed_to_store("writing", &path, len as u64, e))?;
            let chunk = ChunkIndex(chunk_at(self.geometry, part.start));
            self.files().apart.insert(chunk);
        }
        Ok(true)
    }

    /// A file that has nothing but what lies apart gets its place, with that in it. The caller
    /// holds the lock, so that nothing else is written there meanwhile.
    fn settle(&self, number: usize, _moving: &MutexGuard<'_, ()>) -> Result<(), StorageError> {
        let made = self.make(number)?;
        let file = &self.layout.files[number];
        let path = self.path_of(file);
        let name = match made.state {
            State::Found => file.path.name().to_owned(),
            _ => part_name(&file.path),
        };
        let mut is_written = false;
        for part in self.borders.of(&file.range) {
            let chunk = ChunkIndex(chunk_at(self.geometry, part.start));
            if !self.files().apart.contains(&chunk) {
                continue;
            }
            let (at, len) = (part.start - file.range.start, part.end - part.start);
            let bytes = self.read_apart(&part)?;
            if made.state == State::Found {
                let there = self
                    .open_file(number, made.state)?
                    .read_at(at, len as usize);
                if there.map_err(|e| failed("reading", &path, e))? == bytes {
                    continue;
                }
                if !self.overwrites {
                    return Err(self.exists(&file.path));
                }
            }
            let opened = self.folder_of(&file.path, false)?.open_or_create(&name);
            let opened = opened.map_err(|e| refused("opening", &path, e))?;
            let written = opened.write_at(at, &[bytes]);
            written.map_err(|e| failed_to_store("writing", &path, len, e))?;
            is_written = true;
        }
        self.has(number, made);
        if is_written {
            self.changes(number);
        }
        Ok(())
    }

    /// A file is about to be written.
    fn changes(&self, number: usize) {
        let mut files = self.files();
        files.dirty.insert(number);
        files.stamps[number] = None;
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

    /// Makes all files durable under their own names, and records that these chunks are right.
    pub(super) fn finish(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.finish_some(verified, (|_| true, |_| true))?;
        let mut files = self.files();
        if !std::mem::replace(&mut files.has_apart, false) {
            return Ok(());
        }
        // Nothing lies apart any more.
        let apart = self.layout.files.len();
        files.open.retain(|(open, _)| *open != apart);
        files.apart.clear();
        files.dirty.remove(&apart);
        drop(files);
        self.record(verified);
        match self.root()?.remove(&record::apart_name(self.id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing", &self.root, e)),
            _ => Ok(()),
        }
    }

    /// The same for those files that are wanted and of which all chunks are among these.
    pub(super) fn finish_chosen(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.commit(verified)?;
        let is_here = |number: usize| {
            let range = &self.layout.files[number].range;
            let mut chunks = chunks_of(range, self.geometry);
            self.chosen.has_file(number) && chunks.all(|chunk| verified.contains(chunk))
        };
        self.finish_some(verified, (is_here, |link| self.chosen.has_link(link)))
    }

    fn finish_some(
        &self,
        verified: &Bitfield,
        (has_file, has_link): (impl Fn(usize) -> bool, impl Fn(usize) -> bool),
    ) -> Result<(), StorageError> {
        let mut folders = BTreeSet::new();
        let _syncing = self.syncing();
        for (number, file) in self.layout.files.iter().enumerate() {
            if matches!(self.files().states[number], State::Finished(_)) || !has_file(number) {
                continue;
            }
            if self.is_apart(number) {
                let moving = self.moving();
                if self.is_apart(number) {
                    self.settle(number, &moving)?;
                }
            }
            self.finish_file(number)?;
            put_parents(&mut folders, &file.path);
        }
        for (number, link) in self.layout.links.iter().enumerate() {
            if has_link(number) {
                self.finish_link(link)?;
                put_parents(&mut folders, &link.path);
            }
        }
        self.record(verified);
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
        let mut stamp = None;
        if !is_found {
            stamp = Some(examined(&opened).map_err(finishing)?);
        }
        opened.sync_all().map_err(finishing)?;
        if !is_found {
            let dir = self.folder_of(&file.path, false)?;
            self.rename(&dir, number)?;
        }
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => Stamp::of(&opened.stat().map_err(finishing)?),
        };
        let mut files = self.files();
        let known = files.stamps[number].filter(|known| known.modified == stamp.modified);
        let settled = known.is_some_and(|known| known.settled);
        files.stamps[number] = Some(Stamp {
            settled: stamp.settled || settled,
            ..stamp
        });
        files.states[number] = State::Finished(stamp);
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
            io::ErrorKind::AlreadyExists => self.exists(&self.layout.files[number].path),
            _ => failed("finishing", &self.path_of(file), e),
        })
    }

    /// Closes all files until they are used again.
    pub(super) fn release(&self) {
        self.files().open.clear();
    }

    /// Removes what is not complete, folders that are empty then, and the record.
    pub(super) fn discard(
        root: &Path,
        layout: &Layout,
        id: ContentId,
    ) -> Result<bool, StorageError> {
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
            put_parents(&mut folders, &file.path);
        }
        for link in &layout.links {
            put_parents(&mut folders, &link.path);
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
            let [name, new] = record::names(id);
            for name in [name, new, record::apart_name(id)] {
                match root.remove(&name) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failing(e)),
                    _ => {}
                }
            }
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
        let state = files.states.get(number).copied();
        drop(files);
        let opened = Arc::new(match state {
            Some(state) => self.open_file(number, state)?,
            None => self.open_apart()?,
        });
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

    /// The file for what lies apart.
    fn open_apart(&self) -> Result<DataFile, StorageError> {
        let name = record::apart_name(self.id);
        let opened = self.root()?.open_or_create(&name);
        opened.map_err(|e| refused("opening", &self.root.join(name), e))
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

/// Whether a link is there, and says what it should.
fn says(dir: &Dir, link: &SpannedLink) -> bool {
    let said = dir.read_link(link.path.name().as_ref());
    said.is_ok_and(|said| said == *link.target)
}

/// Notes all folders that something lies in.
fn put_parents(folders: &mut BTreeSet<String>, path: &FolderPath) {
    let mut folder = path.parent();
    while let Some(path) = folder {
        folder = path.parent();
        folders.insert(path.to_string());
    }
}

fn part_name(path: &FolderPath) -> String {
    format!("{}{PART}", path.name())
}
