//! One segment of the log of finished contents: written by one storage, from its start
//! to its end, and read by all.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::group_sync::{GroupSync, Mark};
use super::log_entry::{
    BodySum, Head, Lengths, PREFIX_LEN, Place, SEGMENT_HEADER_LEN, decode, is_segment_header,
    segment_header,
};
use super::storage_dir::StorageDir;

/// How much is read at a time, in bytes.
const WINDOW_LEN: u64 = 1 << 20;

/// The segment that this storage writes. Nobody else writes to it, and after a sync
/// that failed this storage does not either: what was written after bytes that are lost
/// would not be found again.
pub(super) struct Segment<F: DiskFile> {
    number: u64,
    file: F,
    /// Where the next entry goes. Changed by the one who may append.
    end: AtomicU64,
    /// Everything before this offset is durable.
    durable: AtomicU64,
    syncs: GroupSync,
    /// Taken before the first entry was written.
    start: Mark,
    /// Taken before the file got its name.
    before_name: Mark,
    is_named: AtomicBool,
}

impl<F: DiskFile> Segment<F> {
    /// Starts a segment in an empty file, which is locked.
    pub(super) fn start(number: u64, file: F, before_name: Mark) -> io::Result<Self> {
        file.write_at(0, &[Bytes::copy_from_slice(&segment_header())])?;
        let syncs = GroupSync::default();
        Ok(Self {
            number,
            file,
            end: AtomicU64::new(SEGMENT_HEADER_LEN as u64),
            durable: AtomicU64::new(0),
            start: syncs.mark(),
            syncs,
            before_name,
            is_named: AtomicBool::new(false),
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// Where the next entry goes.
    pub(super) fn end(&self) -> Place {
        Place {
            segment: self.number,
            offset: self.end.load(Ordering::Acquire),
        }
    }

    /// Everything before this offset is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Writes an entry at the end. Only one caller may do so at a time. After an error
    /// the next entry is written in its place.
    pub(super) fn append(&self, entry: Vec<u8>) -> io::Result<()> {
        let (end, len) = (self.end.load(Ordering::Acquire), entry.len() as u64);
        self.file.write_at(end, &[entry.into()])?;
        self.end.store(end + len, Ordering::Release);
        Ok(())
    }

    /// Makes all entries durable that were appended before. All who ask at the same
    /// time share one sync. After one that failed, all others fail.
    pub(super) fn sync<D: Disk<File = F>>(&self, dir: &StorageDir<D>) -> io::Result<()> {
        self.syncs.sync(self.start, || {
            let end = self.end.load(Ordering::Acquire);
            self.file.sync_data()?;
            if !self.is_named.load(Ordering::Acquire) {
                dir.sync(self.before_name)?;
                self.is_named.store(true, Ordering::Release);
            }
            self.durable.store(end, Ordering::Release);
            Ok(())
        })
    }
}

impl<F: DiskFile> Drop for Segment<F> {
    /// Releases the lock explicitly: a child process that was just forked may still
    /// have the file open, and then closing it here does not.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(segment = self.number, %error, "failed to unlock");
        }
    }
}

/// An entry that was found in a segment.
#[derive(Debug)]
pub(super) struct FoundEntry {
    pub(super) place: Place,
    pub(super) lengths: Lengths,
    pub(super) head: Head,
    body_sum: BodySum,
}

impl FoundEntry {
    /// Reads the body; nothing if it is damaged.
    pub(super) fn body<F: DiskFile>(&self, file: &F) -> io::Result<Option<Bytes>> {
        let at = self.lengths.body_at(self.place.offset);
        let body = file.read_at(at, self.lengths.body)?;
        Ok(Some(body).filter(|body| self.body_sum.is_of(self.place, body)))
    }
}

/// Reads one entry; nothing if it is damaged.
pub(super) fn read_entry<F: DiskFile>(file: &F, place: Place) -> io::Result<Option<FoundEntry>> {
    let len = file.stat()?.len;
    Window::new(file, len, 0).entry(place)
}

/// Reads the entries of a segment, up to the first that is damaged.
///
/// Bodies that were durable when a later entry was written are not read: these may be
/// long, and there may be many of them.
pub(super) fn read_entries<F: DiskFile>(file: &F, number: u64) -> io::Result<Vec<FoundEntry>> {
    let len = file.stat()?.len;
    let mut window = Window::new(file, len, WINDOW_LEN);
    let mut entries = Vec::new();
    let header = window.read(0, SEGMENT_HEADER_LEN)?;
    if !header.is_some_and(|header| is_segment_header(&header)) {
        return Ok(entries);
    }
    let mut place = Place {
        segment: number,
        offset: SEGMENT_HEADER_LEN as u64,
    };
    while let Some(entry) = window.entry(place)? {
        place.offset += entry.lengths.total();
        entries.push(entry);
    }
    let durable = entries.iter().map(|entry| entry.head.durable).max();
    let durable = durable.unwrap_or(0);
    for n in entries.partition_point(|entry| entry.place.offset < durable)..entries.len() {
        let entry = &entries[n];
        let body = window.read(
            entry.lengths.body_at(entry.place.offset),
            entry.lengths.body,
        )?;
        if !body.is_some_and(|body| entry.body_sum.is_of(entry.place, &body)) {
            entries.truncate(n);
            break;
        }
    }
    Ok(entries)
}

/// The part of a file that was read last.
struct Window<'a, F> {
    file: &'a F,
    file_len: u64,
    /// How much is read at a time, at least.
    step: u64,
    at: u64,
    bytes: Bytes,
}

impl<'a, F: DiskFile> Window<'a, F> {
    fn new(file: &'a F, file_len: u64, step: u64) -> Self {
        Self {
            file,
            file_len,
            step,
            at: 0,
            bytes: Bytes::new(),
        }
    }

    /// These bytes; nothing if the file is shorter.
    fn read(&mut self, at: u64, len: usize) -> io::Result<Option<Bytes>> {
        if at.saturating_add(len as u64) > self.file_len {
            return Ok(None);
        }
        let inside = |window: &Self| {
            let start = usize::try_from(at.checked_sub(window.at)?).ok()?;
            let end = start.checked_add(len)?;
            (end <= window.bytes.len()).then(|| window.bytes.slice(start..end))
        };
        if let Some(bytes) = inside(self) {
            return Ok(Some(bytes));
        }
        let read = self.step.max(len as u64).min(self.file_len - at);
        (self.at, self.bytes) = (at, self.file.read_at(at, read as usize)?);
        Ok(inside(self))
    }

    /// The entry at this place; nothing if there is none.
    fn entry(&mut self, place: Place) -> io::Result<Option<FoundEntry>> {
        let Some(prefix) = self.read(place.offset, PREFIX_LEN)? else {
            return Ok(None);
        };
        let Some(lengths) = Lengths::of(&prefix) else {
            return Ok(None);
        };
        if place.offset + lengths.total() > self.file_len {
            return Ok(None);
        }
        let head = self.read(place.offset, PREFIX_LEN + lengths.head)?;
        let decoded = head.and_then(|head| decode(place, head));
        Ok(decoded.map(|(head, body_sum)| FoundEntry {
            place,
            lengths,
            head,
            body_sum,
        }))
    }
}
