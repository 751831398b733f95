//! What is found of a content when it is opened, what is made, and what is recorded of it for
//! the next time.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::super::super::dir::Dir;
use super::super::super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::super::super::failure::{failed, failed_to_store, refused};
use super::super::super::stamp::Stamp;
use super::super::apart::{Borders, ChosenFiles};
use super::super::layout::Layout;
use super::super::record::{self, SpanRecord};
use super::{Files, Left, PART, SpannedTree, State, part_name};
use crate::content::{Bitfield, ContentId, Geometry};
use crate::storage::StorageError;

/// A file that was found or made.
pub(super) struct Made {
    pub(super) state: State,
    /// What it was then, if it has the right length.
    pub(super) stamp: Option<Stamp>,
    /// Whether it may have bytes of the content.
    pub(super) has_bytes: bool,
}

impl SpannedTree {
    /// Opens what is there of the content, and makes what is missing. Returns also what was
    /// there.
    pub(in super::super) fn open(
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
        let tree = Self {
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
                rewritten: BTreeSet::new(),
                displaced: BTreeSet::new(),
            }),
            layout,
            syncing: Mutex::default(),
            durable: Mutex::new(Bitfield::none(geometry.chunks())),
            moving: Mutex::default(),
            locks: Mutex::default(),
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
        tree.lock_all()?;
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

    /// Locks what is to be locked, and is not. Something of the content is, whatever is wanted
    /// of it, unless all was found.
    pub(super) fn lock_all(&self) -> Result<(), StorageError> {
        let (first, needs_apart) = {
            let mut files = self.files();
            let is = |wanted: State| files.states.iter().position(|state| *state == wanted);
            let (first, apart) = (is(State::Unfinished), is(State::Apart));
            files.has_apart |= apart.is_some();
            (first, files.has_apart)
        };
        let apart = needs_apart.then_some(self.layout.files.len());
        let mut locks = self.locks();
        for number in first.into_iter().chain(apart) {
            if !locks.iter().any(|(locked, _)| *locked == number) {
                let lock = self.lock(number)?;
                locks.push((number, lock));
            }
        }
        // The others have their names.
        locks.retain(|(number, _)| Some(*number) == first || Some(*number) == apart);
        Ok(())
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
    pub(super) fn record(&self, verified: &Bitfield) {
        // Held until it is written, so that no older record replaces a newer one.
        let mut durable = self.durable();
        verified.iter().for_each(|chunk| {
            durable.insert(chunk);
        });
        let bytes = {
            let files = self.files();
            let (mut verified, mut unsure) = (durable.clone(), files.unsure.clone());
            for (_, chunk) in &files.displaced {
                // It is not in the file that the next run finds.
                verified.remove(*chunk);
                unsure.insert(*chunk);
            }
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
        // What belongs to somebody else is left alone, whatever was here before.
        let is_free = is_own || own.is_none();
        if is_free && (is_own || look(&part_name(&file.path))?.is_some()) {
            return Ok(self.has(number, self.make(number)?));
        }
        self.files().states[number] = State::Apart;
        Ok(false)
    }

    /// Notes what has the bytes of a file. Returns whether it may have some.
    pub(super) fn has(&self, number: usize, made: Made) -> bool {
        let mut files = self.files();
        files.states[number] = made.state;
        files.stamps[number] = made.stamp;
        made.has_bytes
    }

    /// Finds one file, or makes it.
    pub(super) fn make(&self, number: usize) -> Result<Made, StorageError> {
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
}
