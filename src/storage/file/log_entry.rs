//! The format of the log of finished contents, specified in `FORMAT.md`. This module
//! does no I/O.
//!
//! The log is a number of segments. An entry has a head, which is read when a storage
//! starts, and a body, which is read when its manifest is wanted. The checksum of the
//! head covers the place of the entry, so that nothing that was left in the blocks of a
//! file is taken for an entry.

use bytes::{Buf, Bytes};

use super::checksum::{CHECKSUM_LEN, Checksum, checksum};
use super::fields::{split, take};
use super::manifest_bytes::{MAX_MANIFEST_LEN, put_manifest, take_manifest};
use super::record::{Names, Record};
use crate::content::{ContentId, ContentName, Manifest};

pub(super) const SEGMENT_HEADER_LEN: usize = 16;
/// The lengths of head and body, and the checksum of the head.
pub(super) const PREFIX_LEN: usize = 8 + CHECKSUM_LEN;
/// The maximum length of a head, in bytes: two names, a path, and room for the rest.
pub(super) const MAX_HEAD_LEN: usize = 256 << 10;

const MAGIC: [u8; 8] = *b"btl.ctlg";
const VERSION: u32 = 3;
/// The version before did not say who has written a file, and the first one had a record
/// for each name only. Neither has anything that is read in another way.
const OLD_VERSIONS: [u32; 2] = [1, 2];
const NAME_FORGOTTEN: u8 = 0;
const NAME_REMEMBERED: u8 = 1;
const FORGOTTEN: u8 = 2;
const REMEMBERED: u8 = 3;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The number of the segment.
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// The head of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Of two entries about the same, the one with the higher number holds.
    pub(super) sequence: u64,
    /// Everything before this offset was durable when the entry was written.
    pub(super) durable: u64,
    pub(super) change: Change,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A content is remembered under a name.
    Remembered(Record),
    /// A content is forgotten under a name.
    Forgotten(ContentName, ContentId),
    /// As version 1 remembered: a name has this content and no other. What it says
    /// is apart from what the entries of version 2 say.
    NameRemembered(Record),
    /// As version 1 forgot: whatever [`NameRemembered`](Self::NameRemembered) says of
    /// a name.
    NameForgotten(ContentName),
}

impl Change {
    pub(super) fn name(&self) -> &ContentName {
        match self {
            Self::Remembered(record) | Self::NameRemembered(record) => &record.name,
            Self::Forgotten(name, _) | Self::NameForgotten(name) => name,
        }
    }

    /// The record, if something is remembered.
    pub(super) fn record(&self) -> Option<&Record> {
        match self {
            Self::Remembered(record) | Self::NameRemembered(record) => Some(record),
            Self::Forgotten(..) | Self::NameForgotten(_) => None,
        }
    }
}

/// The lengths in front of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) head: usize,
    pub(super) body: usize,
}

impl Lengths {
    /// The length of the whole entry in bytes.
    pub(super) fn total(self) -> u64 {
        (PREFIX_LEN + self.head + self.body) as u64
    }

    /// Where the body of the entry at this offset begins.
    pub(super) fn body_at(self, offset: u64) -> u64 {
        offset + (PREFIX_LEN + self.head) as u64
    }

    /// Reads the lengths at the start of an entry; nothing if no entry has them.
    pub(super) fn of(prefix: &[u8]) -> Option<Self> {
        let (lengths, _) = prefix.split_first_chunk::<8>()?;
        let (head, body) = lengths.split_at(4);
        let length = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("split")) as usize;
        let lengths = Self {
            head: length(head),
            body: length(body),
        };
        (lengths.head <= MAX_HEAD_LEN && lengths.body <= MAX_MANIFEST_LEN).then_some(lengths)
    }
}

/// The start of a segment.
pub(super) fn segment_header() -> [u8; SEGMENT_HEADER_LEN] {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Whether a segment begins so.
pub(super) fn is_segment_header(bytes: &[u8]) -> bool {
    let mut known = segment_header();
    bytes == known
        || OLD_VERSIONS.iter().any(|version| {
            known[8..12].copy_from_slice(&version.to_le_bytes());
            bytes == known
        })
}

/// The body of an entry: a manifest; nothing if it cannot be represented.
pub(super) fn body_of(manifest: &Manifest) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    put_manifest(&mut body, manifest)?;
    Some(body)
}

/// An entry at its place; nothing if it cannot be represented.
pub(super) fn encode(place: Place, head: &Head, body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; PREFIX_LEN];
    bytes.push(match head.change {
        Change::Remembered(_) => REMEMBERED,
        Change::Forgotten(..) => FORGOTTEN,
        Change::NameRemembered(_) => NAME_REMEMBERED,
        Change::NameForgotten(_) => NAME_FORGOTTEN,
    });
    bytes.extend(head.sequence.to_le_bytes());
    bytes.extend(head.durable.to_le_bytes());
    bytes.extend(checksum_at(place, &[body]));
    match &head.change {
        Change::Remembered(record) | Change::NameRemembered(record) => record.put(&mut bytes)?,
        Change::Forgotten(name, id) => {
            bytes.extend(id.as_bytes());
            bytes.extend(name.as_str().as_bytes());
        }
        Change::NameForgotten(name) => bytes.extend(name.as_str().as_bytes()),
    }
    let head_len = bytes.len() - PREFIX_LEN;
    if head_len > MAX_HEAD_LEN || body.len() > MAX_MANIFEST_LEN {
        return None;
    }
    bytes[..4].copy_from_slice(&(head_len as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let sum = checksum_at(place, &[&bytes[..8], &bytes[PREFIX_LEN..]]);
    bytes[8..PREFIX_LEN].copy_from_slice(&sum);
    bytes.extend(body);
    Some(bytes)
}

/// Reads the prefix and the head of the entry at a place. Returns the checksum of its
/// body as well; nothing if there is no entry.
pub(super) fn decode(place: Place, mut bytes: Bytes) -> Option<(Head, BodySum)> {
    let lengths = Lengths::of(&bytes)?;
    let sum = bytes.get(8..PREFIX_LEN)?;
    let head = bytes.get(PREFIX_LEN..PREFIX_LEN + lengths.head)?;
    if checksum_at(place, &[&bytes[..8], head]) != sum {
        return None;
    }
    bytes.truncate(PREFIX_LEN + lengths.head);
    bytes.advance(PREFIX_LEN);
    let kind = bytes.try_get_u8().ok()?;
    let sequence = bytes.try_get_u64_le().ok()?;
    let durable = bytes.try_get_u64_le().ok()?;
    let body = BodySum(take(&mut bytes)?);
    let change = match kind {
        REMEMBERED => Change::Remembered(Record::take(&mut bytes, Names::Two)?),
        NAME_REMEMBERED => Change::NameRemembered(Record::take(&mut bytes, Names::Two)?),
        FORGOTTEN => {
            let id = ContentId::from_bytes(take(&mut bytes)?);
            Change::Forgotten(take_name(&mut bytes)?, id)
        }
        NAME_FORGOTTEN => Change::NameForgotten(take_name(&mut bytes)?),
        _ => return None,
    };
    let head = Head {
        sequence,
        durable,
        change,
    };
    bytes.is_empty().then_some((head, body))
}

/// All bytes that are left, as a name.
fn take_name(bytes: &mut Bytes) -> Option<ContentName> {
    let len = bytes.len();
    ContentName::try_from(&split(bytes, len)?[..]).ok()
}

/// The checksum of the body of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodySum(Checksum);

impl BodySum {
    /// Whether these are the bytes of the body.
    pub(super) fn is_of(self, place: Place, body: &[u8]) -> bool {
        checksum_at(place, &[body]) == self.0
    }
}

/// The manifest in a body; nothing if it is not that of the record.
pub(super) fn manifest_in(mut body: Bytes, record: &Record) -> Option<Manifest> {
    let manifest = take_manifest(&mut body, record.id, record.stamp.len)?;
    body.is_empty().then_some(manifest)
}

fn checksum_at(place: Place, parts: &[&[u8]]) -> Checksum {
    let (segment, offset) = (place.segment.to_le_bytes(), place.offset.to_le_bytes());
    let mut all: Vec<&[u8]> = vec![&segment, &offset];
    all.extend(parts);
    checksum(&all)
}

/// A segment as an earlier version wrote it. For tests of reading it.
#[cfg(test)]
pub(super) fn old_segment(
    version: u32,
    segment: u64,
    entries: &[(u64, Change, Vec<u8>)],
) -> Vec<u8> {
    let mut bytes = segment_header().to_vec();
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    for (sequence, change, body) in entries {
        let offset = bytes.len() as u64;
        let head = Head {
            sequence: *sequence,
            durable: 0,
            change: change.clone(),
        };
        bytes.extend(encode(Place { segment, offset }, &head, body).unwrap());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::stamp::Stamp;
    use super::super::timestamp::Timestamp;
    use super::*;

    fn entries() -> Vec<(Head, Vec<u8>)> {
        let manifest = Manifest::of(&[3; 40_000]).unwrap();
        let record = Record {
            id: manifest.id(),
            name: "naïve 文件".parse().unwrap(),
            listed_as: "ubuntu.iso".parse().unwrap(),
            path: Some("/some/where".into()),
            stamp: Stamp {
                len: 40_000,
                modified: Timestamp {
                    seconds: -5,
                    nanos: 7,
                },
                settled: true,
            },
            written_here: true,
        };
        let head = |sequence, change| Head {
            sequence,
            durable: 77,
            change,
        };
        let body = body_of(&manifest).unwrap();
        let (name, id) = (record.name.clone(), record.id);
        vec![
            (head(5, Change::Remembered(record.clone())), body.clone()),
            (head(6, Change::NameRemembered(record)), body),
            (head(7, Change::Forgotten(name.clone(), id)), Vec::new()),
            (head(u64::MAX, Change::NameForgotten(name)), Vec::new()),
        ]
    }

    #[test]
    fn entry_is_read_back_at_its_place_unless_it_is_torn_or_altered() {
        let place = Place {
            segment: 3,
            offset: 16,
        };
        for (head, body) in entries() {
            let bytes = encode(place, &head, &body).unwrap();
            let lengths = Lengths::of(&bytes).unwrap();
            assert_eq!(lengths.total(), bytes.len() as u64);
            let head_end = bytes.len() - body.len();
            let (read, sum) = decode(place, bytes.clone().into()).unwrap();
            assert_eq!(read, head);
            assert!(sum.is_of(place, &body));
            for at in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[at] ^= 1;
                match decode(place, altered.clone().into()) {
                    Some((_, sum)) => {
                        assert!(at >= head_end && !sum.is_of(place, &altered[head_end..]))
                    }
                    None => assert!(at < head_end),
                }
            }
            for cut in 0..head_end {
                assert_eq!(decode(place, bytes[..cut].to_vec().into()), None);
            }
            for elsewhere in [
                Place {
                    segment: 4,
                    ..place
                },
                Place {
                    offset: 17,
                    ..place
                },
            ] {
                assert_eq!(decode(elsewhere, bytes.clone().into()), None);
            }
            if let Some(record) = head.change.record() {
                let manifest = manifest_in(body.clone().into(), record).unwrap();
                assert_eq!(manifest, Manifest::of(&[3; 40_000]).unwrap());
                let mut other = record.clone();
                other.stamp.len += 1;
                assert_eq!(manifest_in(body.into(), &other), None);
            }
        }
    }
}
