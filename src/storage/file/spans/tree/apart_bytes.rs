//! What lies [apart](super::super::apart), read and written, and brought to its place.

use std::ops::Range;
use std::sync::MutexGuard;

use bytes::{Bytes, BytesMut};

use super::super::super::dir::DataFile;
use super::super::super::disk::{Disk, DiskFile};
use super::super::super::failure::{failed, failed_to_store, refused};
use super::super::apart::chunk_at;
use super::super::layout::cut;
use super::super::record;
use super::{SpannedTree, State, part_name};
use crate::content::ChunkIndex;
use crate::storage::StorageError;

impl SpannedTree {
    /// The bytes of the content that are these of a file.
    pub(super) fn range_in(&self, number: usize, at: u64, len: usize) -> Range<u64> {
        let start = self.layout.files[number].range.start + at;
        start..start + len as u64
    }

    pub(super) fn is_apart(&self, number: usize) -> bool {
        self.files().states[number] == State::Apart
    }

    /// Whether some of the bytes of a file lie apart, though something has its name.
    pub(super) fn is_displaced(&self, number: usize) -> bool {
        let files = self.files();
        let mut of_file = files.displaced.range((number, ChunkIndex(0))..);
        of_file.next().is_some_and(|(file, _)| *file == number)
    }

    /// Reads from a file of which some bytes lie apart.
    pub(super) fn read_displaced(
        &self,
        number: usize,
        range: &Range<u64>,
    ) -> Result<Bytes, StorageError> {
        let file = &self.layout.files[number];
        let mut bytes = BytesMut::new();
        for part in self.borders.cut(range) {
            let chunk = ChunkIndex(chunk_at(self.geometry, part.start));
            if self.files().displaced.contains(&(number, chunk)) {
                bytes.extend(self.read_apart(&part)?);
                continue;
            }
            let (at, len) = (part.start - file.range.start, part.end - part.start);
            bytes.extend(self.read_own(number, at, len as usize, self.path_of(file))?);
        }
        Ok(bytes.freeze())
    }

    pub(super) fn read_apart(&self, range: &Range<u64>) -> Result<Bytes, StorageError> {
        let apart = self.layout.files.len();
        let path = self.root.join(record::apart_name(self.id));
        let changed = || StorageError::Changed { path: path.clone() };
        let is_open = self.files().open.iter().any(|(open, _)| *open == apart);
        if !is_open {
            let found = self.root()?.look(record::apart_name(self.id).as_ref());
            let found = found.map_err(|e| failed("examining", &path, e))?;
            // It is not made for that.
            found.ok_or_else(changed)?;
        }
        let file = self.file(apart)?;
        let there = file.stat().map_err(|e| failed("examining", &path, e))?.len;
        let mut bytes = BytesMut::new();
        for part in self.borders.cut(range) {
            let len = part.end - part.start;
            let at = self.borders.position(&part).ok_or_else(changed)?;
            // It ends with the last slot that was written.
            let has = there.saturating_sub(at).min(len);
            if has < len && self.was_written_apart(&part) {
                return Err(changed());
            }
            let read = file.read_at(at, has as usize);
            bytes.extend(read.map_err(|e| failed("reading", &path, e))?);
            bytes.resize(bytes.len() + (len - has) as usize, 0);
        }
        Ok(bytes.freeze())
    }

    /// Whether the slot of a part was written in this run.
    fn was_written_apart(&self, part: &Range<u64>) -> bool {
        let chunk = ChunkIndex(chunk_at(self.geometry, part.start));
        let files = self.files();
        files.apart.contains(&chunk) && !files.unsure.contains(chunk)
    }

    /// Writes what lies in a file that is not wanted, and where something else has its name:
    /// that stays. Returns whether it was written.
    pub(super) fn displace(
        &self,
        number: usize,
        range: &Range<u64>,
        pieces: &[Bytes],
    ) -> Result<bool, StorageError> {
        let _moving = self.moving();
        if self.chosen.has_file(number) || !self.borders.cover(range) {
            return Ok(false);
        }
        self.files().has_apart = true;
        self.put_apart(range, pieces)?;
        let chunks = self.borders.cut(range).into_iter();
        let chunks = chunks.map(|part| ChunkIndex(chunk_at(self.geometry, part.start)));
        let places = chunks.map(|chunk| (number, chunk));
        self.files().displaced.extend(places);
        Ok(true)
    }

    /// Writes what lies in a file that is not wanted. Returns whether it was written: not if
    /// it gets its file now.
    pub(super) fn write_apart(
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
        self.put_apart(range, pieces)?;
        Ok(true)
    }

    fn put_apart(&self, range: &Range<u64>, pieces: &[Bytes]) -> Result<(), StorageError> {
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
        Ok(())
    }

    /// Whether something of a file lies apart.
    pub(super) fn is_unsettled(&self, number: usize) -> bool {
        self.is_apart(number) || self.is_displaced(number)
    }

    /// A file of which something lies apart gets its place, with that in it. The caller holds
    /// the lock, so that nothing else is written there meanwhile.
    pub(super) fn settle(
        &self,
        number: usize,
        _moving: &MutexGuard<'_, ()>,
    ) -> Result<(), StorageError> {
        let was_apart = self.is_apart(number);
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
            let lies_apart = match was_apart {
                true => self.files().apart.contains(&chunk),
                false => self.files().displaced.contains(&(number, chunk)),
            };
            if !lies_apart {
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
        let is_other = |place: &(usize, ChunkIndex)| place.0 != number;
        self.files().displaced.retain(is_other);
        if is_written {
            self.changes(number);
        }
        Ok(())
    }

    /// The file for what lies apart.
    pub(super) fn open_apart(&self) -> Result<DataFile, StorageError> {
        let name = record::apart_name(self.id);
        let opened = self.root()?.open_or_create(&name);
        opened.map_err(|e| refused("opening", &self.root.join(name), e))
    }
}
