//! The log of finished contents: appended to in one place, so that a burst of records
//! shares its syncs, and read in one go. Everything here blocks.
//!
//! The log is a number of segments. Each storage that is open writes one of its own,
//! which it locks, and never one that was there before: so an entry that is reported
//! durable follows durable bytes only, whatever syncs have failed before. Of several
//! entries about one content under one name the one with the highest sequence number
//! holds. When much
//! of a segment is useless, or there are many small ones, what is still needed is
//! copied into the segment that is being written.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::failure::{failed, failed_to_store, refused};
use super::log_entry::{Change, Head, Lengths, Place, body_of, encode, manifest_in};
use super::log_index::{LogIndex, LogLimits};
use super::names::{MAX_SEGMENT, ReservedFile, parse_reserved, segment_name, segment_number};
use super::record::Record;
use super::segment::{FoundEntry, Segment, read_entries, read_entry};
use super::storage_dir::{LockAttempt, StorageDir};
use crate::content::{ContentId, ContentName, Manifest};
use crate::storage::StorageError;

/// How often something is tried again because another storage has just merged
/// segments, or taken the number of one.
const ATTEMPTS: usize = 8;

/// The log in the directory of a storage.
pub(super) struct RecordLog<D: Disk> {
    dir: Arc<StorageDir<D>>,
    limits: LogLimits,
    state: Mutex<LogState<D>>,
}

struct LogState<D: Disk> {
    /// Nothing before the log was read.
    index: Option<LogIndex>,
    /// The segment that is being written, if any.
    own: Option<Arc<Segment<D::File>>>,
    /// Whether segments that were removed may come back after a crash, because a sync
    /// has failed. What hides their entries is kept then.
    keeps_forgotten: bool,
}

/// An entry that is written and not durable yet.
#[must_use]
pub(super) struct Appended<F: DiskFile>(Arc<Segment<F>>);

impl<D: Disk> RecordLog<D> {
    pub(super) fn new(dir: Arc<StorageDir<D>>) -> Self {
        Self::with_limits(dir, LogLimits::default())
    }

    pub(super) fn with_limits(dir: Arc<StorageDir<D>>, limits: LogLimits) -> Self {
        Self {
            dir,
            limits,
            state: Mutex::new(LogState {
                index: None,
                own: None,
                keeps_forgotten: false,
            }),
        }
    }

    /// Writes the record of a content, in place of an earlier one of it under the same
    /// name.
    /// Nothing is written if the record cannot be represented.
    pub(super) fn remember(
        &self,
        record: Record,
        manifest: &Manifest,
    ) -> Result<Option<Appended<D::File>>, StorageError> {
        let Some(body) = body_of(manifest) else {
            return Ok(None);
        };
        self.state_with(|log, state| log.append(state, Change::Remembered(record), &body))
    }

    /// Writes that a content is forgotten under a name, unless nothing is known of it.
    /// Written again if an earlier storage has done so: it may not have become durable.
    pub(super) fn forget(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Vec<Appended<D::File>>, StorageError> {
        let changes = [
            Change::Forgotten(name.clone(), *id),
            Change::NameForgotten(name.clone()),
        ];
        self.state_with(|log, state| {
            if log.index(state)?.newest(&changes[0]).is_none() {
                // Another storage may have remembered it.
                log.scan(state)?;
            }
            let mut appended = Vec::new();
            for change in changes {
                let index = log.index(state)?;
                let by_name = matches!(change, Change::NameForgotten(_));
                if by_name && !index.name_may_have(name, id) {
                    continue;
                }
                let Some((newest, remembered)) = index.newest(&change) else {
                    continue;
                };
                appended.extend(match state.own.as_ref() {
                    // It is forgotten already, and this may not be durable yet.
                    Some(own) if !remembered && own.number() == newest.segment => {
                        Some(Appended(Arc::clone(own)))
                    }
                    _ => log.append(state, change, &[])?,
                });
            }
            Ok(appended)
        })
    }

    /// Whether there is a record of a content under a name.
    pub(super) fn remembers(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<bool, StorageError> {
        self.state_with(|log, state| Ok(log.index(state)?.find(name, id).is_some()))
    }

    /// Makes an entry durable, and all that were written before it.
    pub(super) fn make_durable(&self, appended: &Appended<D::File>) -> Result<(), StorageError> {
        let Appended(segment) = appended;
        let Err(error) = segment.sync(&self.dir) else {
            return Ok(());
        };
        let mut state = self.state();
        if state
            .own
            .as_ref()
            .is_some_and(|own| Arc::ptr_eq(own, segment))
        {
            state.own = None;
        }
        let path = self.dir.path_of(&segment_name(segment.number()));
        Err(failed("syncing", &path, error))
    }

    /// Reads all records that hold. What other storages have written counts from here
    /// on. `names` are those that were just found in the directory.
    pub(super) fn records(&self, names: Vec<String>) -> Result<Vec<Record>, StorageError> {
        self.state_with(|log, state| {
            let entries = log.scan_listed(state, Some(names))?;
            let index = log.index(state)?;
            let records = entries
                .into_iter()
                .filter_map(|entry| match entry.head.change {
                    Change::Remembered(record) | Change::NameRemembered(record) => {
                        let found = index.find(&record.name, &record.id);
                        (found == Some(entry.place)).then_some(record)
                    }
                    Change::Forgotten(..) | Change::NameForgotten(_) => None,
                });
            Ok(records.collect())
        })
    }

    /// The manifest of a content under a name; nothing if that is not remembered.
    pub(super) fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        self.find(name, id, |entry, record, file| {
            let body = entry.body(file)?.ok_or_else(damaged)?;
            Ok(manifest_in(body, record).ok_or_else(damaged)?)
        })
    }

    /// The record of a content that is remembered under a name.
    pub(super) fn record(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Record>, StorageError> {
        self.find(name, id, |_, record, _| Ok(record.clone()))
    }

    /// Reads something of the record of a content under a name.
    fn find<T>(
        &self,
        name: &ContentName,
        id: &ContentId,
        read: impl Fn(&FoundEntry, &Record, &D::File) -> Result<T, Refused>,
    ) -> Result<Option<T>, StorageError> {
        for _ in 0..ATTEMPTS {
            let found = self.state_with(|log, state| {
                let place = log.index(state)?.find(name, id);
                Ok(place.map(|place| (place, state.own.clone())))
            })?;
            let Some((place, own)) = found else {
                return Ok(None);
            };
            match self.read_at(place, own, id, &read) {
                Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                    // It was merged into another segment.
                    self.state_with(|log, state| log.scan(state).map(drop))?;
                }
                done => {
                    let path = self.dir.path_of(&segment_name(place.segment));
                    return done.map_err(|e| refused("reading", &path, e));
                }
            }
        }
        Ok(None)
    }

    fn read_at<T>(
        &self,
        place: Place,
        own: Option<Arc<Segment<D::File>>>,
        id: &ContentId,
        read: impl Fn(&FoundEntry, &Record, &D::File) -> Result<T, Refused>,
    ) -> Result<Option<T>, Refused> {
        let read = |file: &D::File| -> Result<Option<T>, Refused> {
            let entry = read_entry(file, place)?.ok_or_else(damaged)?;
            match entry.head.change.record() {
                Some(record) if record.id == *id => read(&entry, record, file).map(Some),
                _ => Ok(None),
            }
        };
        match own.filter(|own| own.number() == place.segment) {
            Some(own) => read(own.file()),
            None => read(&self.dir.disk.open_existing(&segment_name(place.segment))?),
        }
    }

    fn state(&self) -> MutexGuard<'_, LogState<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_with<T>(
        &self,
        work: impl FnOnce(&Self, &mut LogState<D>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        work(self, &mut self.state())
    }

    /// The index, after the log was read once.
    fn index<'s>(&self, state: &'s mut LogState<D>) -> Result<&'s mut LogIndex, StorageError> {
        if state.index.is_none() {
            self.scan(state)?;
        }
        Ok(state.index.get_or_insert_default())
    }

    /// Reads all segments, and builds the index anew.
    fn scan(&self, state: &mut LogState<D>) -> Result<Vec<FoundEntry>, StorageError> {
        self.scan_listed(state, None)
    }

    /// The same if the names in the directory are known.
    fn scan_listed(
        &self,
        state: &mut LogState<D>,
        mut names: Option<Vec<String>>,
    ) -> Result<Vec<FoundEntry>, StorageError> {
        let failed = |error| refused("reading the catalogue in", self.dir.path(), error);
        for _ in 0..ATTEMPTS {
            let listed = names.take().map_or_else(|| self.dir.disk.names(), Ok);
            let listed = listed.map_err(|e| failed(Refused::Io(e)))?;
            // Nothing if a segment was merged between listing and reading.
            if let Some(entries) = self.try_scan(state, &listed).map_err(failed)? {
                return Ok(entries);
            }
        }
        Err(failed(Refused::Io(io::ErrorKind::NotFound.into())))
    }

    fn try_scan(
        &self,
        state: &mut LogState<D>,
        names: &[String],
    ) -> Result<Option<Vec<FoundEntry>>, Refused> {
        let listed = names.iter().filter_map(|name| match parse_reserved(name)? {
            (id, ReservedFile::Segment) => segment_number(id),
            _ => None,
        });
        // That of this storage may be younger than the list.
        let own = state.own.as_ref().map(|own| own.number());
        let mut numbers: Vec<u64> = listed.chain(own).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let (mut index, mut all) = (LogIndex::default(), Vec::new());
        for number in numbers {
            index.add_segment(number);
            let own = state.own.as_ref().filter(|own| own.number() == number);
            let entries = match own {
                Some(own) => read_entries(own.file(), number)?,
                None => match self.dir.disk.open_existing(&segment_name(number)) {
                    Ok(file) => read_entries(&file, number)?,
                    Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(Refused::Kind(kind)) => {
                        let found = kind.describe();
                        tracing::warn!(segment = number, found, "left alone");
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            for entry in &entries {
                index.add(entry.place, entry.lengths, &entry.head);
            }
            all.extend(entries);
        }
        state.index = Some(index);
        Ok(Some(all))
    }

    /// Appends an entry to the segment that is being written.
    fn append(
        &self,
        state: &mut LogState<D>,
        change: Change,
        body: &[u8],
    ) -> Result<Option<Appended<D::File>>, StorageError> {
        self.prepare(state)?;
        let index = self.index(state)?;
        let sequence = nanos_now().max(index.last_sequence().saturating_add(1));
        let Some(segment) = self.append_entry(state, sequence, change, body)? else {
            return Ok(None);
        };
        Ok(Some(Appended(segment)))
    }

    fn append_entry(
        &self,
        state: &mut LogState<D>,
        sequence: u64,
        change: Change,
        body: &[u8],
    ) -> Result<Option<Arc<Segment<D::File>>>, StorageError> {
        let segment = self.own(state)?;
        let (place, durable) = (segment.end(), segment.durable());
        let head = Head {
            sequence,
            durable,
            change,
        };
        let Some(entry) = encode(place, &head, body) else {
            return Ok(None);
        };
        let lengths = Lengths::of(&entry).expect("it was just encoded");
        let len = entry.len() as u64;
        segment.append(entry).map_err(|e| {
            let path = self.dir.path_of(&segment_name(segment.number()));
            failed_to_store("writing", &path, len, e)
        })?;
        self.index(state)?.add(place, lengths, &head);
        Ok(Some(segment))
    }

    /// Makes sure that there is a segment to write, and merges others into it if that
    /// is worth it.
    fn prepare(&self, state: &mut LogState<D>) -> Result<(), StorageError> {
        if let Some(own) = &state.own {
            let number = own.number();
            let limits = self.limits;
            if !self.index(state)?.is_wasteful(number, limits) {
                return Ok(());
            }
            state.own = None;
        }
        let own = self.own(state)?.number();
        let limits = self.limits;
        let merged = self.index(state)?.to_merge(own, limits);
        match merged.is_empty() {
            true => Ok(()),
            false => self.merge(state, &merged),
        }
    }

    /// The segment that is being written, or a new one.
    fn own(&self, state: &mut LogState<D>) -> Result<Arc<Segment<D::File>>, StorageError> {
        if let Some(own) = &state.own {
            return Ok(Arc::clone(own));
        }
        for _ in 0..ATTEMPTS {
            let number = self.index(state)?.next_segment();
            if number > MAX_SEGMENT {
                break;
            }
            if let Some(segment) = self.start_segment(number)? {
                self.index(state)?.add_segment(number);
                state.own = Some(Arc::clone(&segment));
                return Ok(segment);
            }
            // Another storage has taken the number.
            self.scan(state)?;
        }
        let error = io::Error::other("there is no number left");
        Err(failed("starting a segment in", self.dir.path(), error))
    }

    /// Starts a segment with this number; nothing if there is one.
    fn start_segment(&self, number: u64) -> Result<Option<Arc<Segment<D::File>>>, StorageError> {
        let name = segment_name(number);
        let path = self.dir.path_of(&name);
        let before_name = self.dir.mark();
        let LockAttempt::Acquired(file) = self.dir.open_locked(&name)? else {
            return Ok(None);
        };
        let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
        if stat.len > 0 {
            let unlocked = file.unlock();
            unlocked.map_err(|e| failed("unlocking", &path, e))?;
            return Ok(None);
        }
        let segment = Segment::start(number, file, before_name);
        let segment = segment.map_err(|e| failed("writing", &path, e))?;
        Ok(Some(Arc::new(segment)))
    }

    /// Copies what is needed of these segments into the one that is being written,
    /// and removes them. Leaves those alone that other storages are writing.
    fn merge(&self, state: &mut LogState<D>, numbers: &[u64]) -> Result<(), StorageError> {
        // The files stay locked until they are removed.
        let mut locked = Vec::new();
        for &number in numbers {
            locked.extend(self.locked(number)?.map(|file| (number, file)));
        }
        if locked.is_empty() {
            return Ok(());
        }
        // Others may have written to them since they were read.
        self.scan(state)?;
        let mut merged = Vec::new();
        for (number, file) in locked {
            let path = self.dir.path_of(&segment_name(number));
            let entries = read_entries(&file, number);
            let entries = entries.map_err(|e| failed("reading", &path, e))?;
            for entry in &entries {
                let copied = self.copy(state, entry, &file);
                copied.map_err(|e| refused("copying", &path, e))?;
            }
            merged.push((number, file, entries));
        }
        let own = Appended(self.own(state)?);
        // Removed only after all copies are durable.
        if let Err(error) = own.0.sync(&self.dir) {
            state.own = None;
            return Err(failed("syncing the catalogue in", self.dir.path(), error));
        }
        let before = self.dir.mark();
        let removed = merged
            .iter()
            .try_for_each(|(number, ..)| self.dir.disk.remove(&segment_name(*number)))
            .and_then(|()| self.dir.sync(before));
        if let Err(error) = removed {
            // What was removed and what was not is seen when the log is read again.
            tracing::debug!(%error, "failed to remove merged segments");
            state.index = None;
            state.keeps_forgotten = true;
            return Ok(());
        }
        let index = self.index(state)?;
        for (number, _, entries) in &merged {
            for entry in entries {
                index.remove(entry.place, &entry.head);
            }
            index.remove_segment(*number);
        }
        Ok(())
    }

    /// Opens and locks a segment that nobody writes; nothing if somebody does, or it is
    /// not a file.
    fn locked(&self, number: u64) -> Result<Option<D::File>, StorageError> {
        let name = segment_name(number);
        if self.dir.kind(&name)? != Some(EntryKind::File) {
            return Ok(None);
        }
        match self.dir.open_locked(&name) {
            Ok(LockAttempt::Acquired(file)) => Ok(Some(file)),
            Ok(LockAttempt::Held | LockAttempt::Replaced) => Ok(None),
            Err(StorageError::NotAFile { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies an entry into the segment that is being written, if it is needed.
    fn copy(
        &self,
        state: &mut LogState<D>,
        entry: &FoundEntry,
        file: &D::File,
    ) -> Result<(), Refused> {
        let own = self.own(state).map_err(io::Error::other)?.number();
        let index = state.index.get_or_insert_default();
        let is_kept = entry.head.change.record().is_none() && state.keeps_forgotten;
        if !is_kept && !index.is_needed(entry.place, &entry.head, own) {
            return Ok(());
        }
        let Some(body) = entry.body(file)? else {
            tracing::warn!(name = %entry.head.change.name(), "the record is damaged");
            return Ok(());
        };
        let (sequence, change) = (entry.head.sequence, entry.head.change.clone());
        let copied = self.append_entry(state, sequence, change, &body);
        match copied {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }
}

impl<D: Disk> fmt::Debug for RecordLog<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordLog").field(&self.dir).finish()
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the record is damaged")
}

/// Nanoseconds since 1970: a sequence number that follows those of other storages.
fn nanos_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
