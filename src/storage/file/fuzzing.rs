//! The formats of the files, for the fuzz targets. No part of the crate's surface.
//!
//! What is read is also written again here, and must be the same value after that. A
//! function whose name ends in `sealed` puts the right checksums into bytes, which no input
//! of a fuzzer has by chance.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::time::SystemTime;

use bytes::Bytes;

use super::checksum::{CHECKSUM_LEN, checksum};
use super::disk::{DiskFile, FileStat, too_short};
use super::folder::fuzzing as folder;
use super::journal;
use super::log_entry::{
    Change, Head, Lengths, PREFIX_LEN, Place, SEGMENT_HEADER_LEN, encode, manifest_in,
};
use super::log_index::LogIndex;
use super::manifest_bytes::put_manifest;
use super::old_record::read_old_record;
use super::segment::read_entries;
use super::timestamp::Timestamp;
use super::{log_entry, paused};
use crate::content::{Bitfield, ContentId, FolderIndex, Geometry};

/// Reads a journal: the chunks that may be trusted, and where its good records end.
pub fn journal(bytes: &[u8], id: ContentId, geometry: &Geometry) -> Option<(Bitfield, usize)> {
    let replay = journal::replay(bytes, id, geometry)?;
    Some((replay.committed, replay.end))
}

/// The journal with a record for each of these sets.
pub fn journal_of(id: ContentId, geometry: &Geometry, sets: &[Bitfield]) -> Vec<u8> {
    let (header, mut chain) = journal::header(id, geometry);
    let mut bytes = header.to_vec();
    let mut last = Bitfield::none(geometry.chunks());
    for (at, set) in (0..).zip(sets) {
        let modified = Timestamp {
            seconds: at,
            nanos: 1,
        };
        if let Some((record, next)) = journal::record(chain, &last, set, modified) {
            bytes.extend(record);
            (chain, last) = (next, set.clone());
        }
    }
    bytes
}

/// The journal with the checksums that its records should have.
pub fn journal_sealed(bytes: Vec<u8>) -> Vec<u8> {
    journal::with_new_checksums(bytes)
}

/// Reads a segment of the log of finished contents. Returns where each entry begins, and its
/// bytes, written again.
///
/// # Panics
/// If an entry is another one when it is written and read again, or if the index of the
/// entries finds another one than a search.
pub fn segment(bytes: &[u8], number: u64) -> Vec<(u64, Vec<u8>)> {
    let file = Image(Bytes::copy_from_slice(bytes));
    let entries = read_entries(&file, number).expect("reading memory does not fail");
    let mut index = LogIndex::default();
    index.add_segment(number);
    let mut all = Vec::new();
    let written = entries.iter().map(|entry| {
        // A body that was durable long ago is not read with the others.
        let body = entry.body(&file).expect("reading memory does not fail");
        let body = body.unwrap_or_default();
        let written = encode(entry.place, &entry.head, &body).expect("it was read");
        let again = log_entry::decode(entry.place, written.clone().into());
        let (head, sum) = again.expect("it was written");
        assert!(head == entry.head && sum.is_of(entry.place, &body));
        if let Some(record) = head.change.record()
            && let Some(manifest) = manifest_in(body.clone(), record)
        {
            let mut same = Vec::new();
            put_manifest(&mut same, &manifest).expect("it was read");
            assert_eq!(same, body);
        }
        index.add(entry.place, entry.lengths, &entry.head);
        all.push((entry.head.clone(), entry.place));
        (entry.place.offset, written)
    });
    let written = written.collect();
    check_index(&index, &all);
    written
}

/// Whether the index finds what a look through all entries finds.
fn check_index(index: &LogIndex, all: &[(Head, Place)]) {
    // The newest entry about each subject: a content under a name, or a name alone.
    let mut newest: BTreeMap<_, &(Head, Place)> = BTreeMap::new();
    for entry in all {
        let (name, id) = match &entry.0.change {
            Change::Remembered(record) => (record.name.clone(), Some(record.id)),
            Change::Forgotten(name, id) => (name.clone(), Some(*id)),
            change => (change.name().clone(), None),
        };
        let found = newest.entry((name, id)).or_insert(entry);
        if (found.0.sequence, found.1) <= (entry.0.sequence, entry.1) {
            *found = entry;
        }
    }
    for (head, _) in all {
        let (name, id) = match &head.change {
            Change::Remembered(record) | Change::NameRemembered(record) => {
                (&record.name, record.id)
            }
            Change::Forgotten(name, id) => (name, *id),
            Change::NameForgotten(_) => continue,
        };
        let of_name = newest.get(&(name.clone(), None));
        let of_name = of_name.filter(|(head, _)| head.change.record().is_some_and(|r| r.id == id));
        let of_content = newest.get(&(name.clone(), Some(id)));
        let found = match of_content {
            Some((head, place)) => head.change.record().is_some().then_some(*place),
            None => of_name.map(|(_, place)| *place),
        };
        assert_eq!(index.find(name, &id), found);
    }
}

/// The segment with the header and the checksums that it should have.
pub fn segment_sealed(mut bytes: Vec<u8>, number: u64) -> Vec<u8> {
    /// Where in a head the checksum of the body is: behind the kind and two numbers.
    const BODY_SUM: usize = 1 + 8 + 8;
    if bytes.len() < SEGMENT_HEADER_LEN {
        return bytes;
    }
    // The version stays.
    let header = log_entry::segment_header();
    bytes[..8].copy_from_slice(&header[..8]);
    bytes[12..SEGMENT_HEADER_LEN].copy_from_slice(&header[12..]);
    let mut at = SEGMENT_HEADER_LEN;
    while let Some(lengths) = Lengths::of(&bytes[at..]) {
        let Some(entry) = bytes.get_mut(at..at + lengths.total() as usize) else {
            break;
        };
        let place = [number.to_le_bytes(), (at as u64).to_le_bytes()].concat();
        let (start, body) = entry.split_at_mut(PREFIX_LEN + lengths.head);
        let (prefix, head) = start.split_at_mut(PREFIX_LEN);
        if let Some(sum) = head.get_mut(BODY_SUM..BODY_SUM + CHECKSUM_LEN) {
            sum.copy_from_slice(&checksum(&[&place, body]));
        }
        let sum = checksum(&[&place, &prefix[..8], head]);
        prefix[8..].copy_from_slice(&sum);
        at += lengths.total() as usize;
    }
    bytes
}

/// Reads a record of a content as earlier versions kept it.
///
/// # Panics
/// If it is another one when it is written and read again.
pub fn old_record(bytes: &[u8]) -> Option<()> {
    let (record, manifest) = read_old_record(Bytes::copy_from_slice(bytes))?;
    let mut written = b"btl.mfst\x02\0\0\0".to_vec();
    record.put(&mut written).expect("it was read");
    put_manifest(&mut written, &manifest).expect("it was read");
    let again = read_old_record(old_record_sealed(&written).into());
    assert_eq!(again, Some((record, manifest)));
    Some(())
}

/// The record with the hash that it should have.
pub fn old_record_sealed(bytes: &[u8]) -> Vec<u8> {
    [bytes, blake3::hash(bytes).as_bytes()].concat()
}

/// Reads the record of a folder, and writes it again.
///
/// # Panics
/// If it is another one when that is read.
pub fn folder_record(bytes: &[u8], index: &FolderIndex) -> Option<Vec<u8>> {
    folder::record(bytes, index)
}

/// The record with the checksum that it should have.
pub fn folder_record_sealed(bytes: &[u8], id: ContentId) -> Vec<u8> {
    [bytes, &checksum(&[id.as_bytes(), bytes])].concat()
}

/// Reads the file of a download that is paused, or that of a folder. Either has the bytes of
/// the other, if at all.
pub fn paused_file(bytes: &[u8]) -> Option<()> {
    let file = paused::decode(Bytes::copy_from_slice(bytes));
    let folder = folder::paused(bytes);
    assert!(file.is_none() || folder.is_none());
    assert!(file.is_none_or(|form| form.len() < bytes.len()));
    folder
}

/// The file with the checksum that it should have.
pub fn paused_file_sealed(bytes: &[u8]) -> Vec<u8> {
    [bytes, &checksum(&[bytes])].concat()
}

/// A file in memory, which nobody writes.
struct Image(Bytes);

impl DiskFile for Image {
    fn stat(&self) -> io::Result<FileStat> {
        let len = self.0.len() as u64;
        let modified = Timestamp {
            seconds: 0,
            nanos: 0,
        };
        Ok(FileStat {
            len,
            allocated: len,
            modified,
            linked: true,
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_err(|_| too_short())?;
        let end = start.checked_add(len).filter(|end| *end <= self.0.len());
        // As from a disk, it is a copy.
        let range = start..end.ok_or_else(too_short)?;
        Ok(Bytes::copy_from_slice(&self.0[range]))
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        Err(TryLockError::Error(io::ErrorKind::Unsupported.into()))
    }

    fn unlock(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _: u64, _: &[Bytes]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_modified(&self, _: SystemTime) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_all(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
