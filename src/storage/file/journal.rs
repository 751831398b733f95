//! The format of the journal of a download, which records the chunks of the
//! unfinished file that may be trusted after a restart: the committed ones.
//! This module is pure; `journal_file` does the I/O.
//!
//! The format is specified in `FORMAT.md`, which is part of the documentation
//! of [`FileStorage`](super::FileStorage). In short: a header that names the
//! content, then records. The checksum of each record covers the record and the
//! checksum before it, so nothing after a bad record is trusted.

use crate::content::{Bitfield, ChunkIndex, ContentId, Geometry};

use super::checksum::{CHECKSUM_LEN, Checksum, checksum};
use super::timestamp::Timestamp;

pub(super) const HEADER_LEN: usize = 72;

const MAGIC: [u8; 8] = *b"btl.jrnl";
const VERSION: u32 = 1;
const COUNT_LEN: usize = 4;
const RANGE_LEN: usize = 8;
/// This bit of the first chunk of a range says that the range is withdrawn.
const WITHDRAWN: u32 = 1 << 31;

/// The last checksum of a journal. The checksum of the next record covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain(Checksum);

/// The content of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replay {
    /// The chunks that may be trusted.
    pub(super) committed: Bitfield,
    /// The modification time of the unfinished file at the last record.
    pub(super) modified: Option<Timestamp>,
    /// The end of the last good record, in bytes.
    pub(super) end: usize,
    pub(super) chain: Chain,
}

/// The header of the journal of a content, and the chain after it.
pub(super) fn header(id: ContentId, geometry: &Geometry) -> ([u8; HEADER_LEN], Chain) {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&geometry.chunks().to_le_bytes());
    bytes[16..24].copy_from_slice(&geometry.length().to_le_bytes());
    bytes[24..56].copy_from_slice(id.as_bytes());
    let checksum = checksum(&[&bytes[..56]]);
    bytes[56..].copy_from_slice(&checksum);
    (bytes, Chain(checksum))
}

/// The record that changes the committed chunks from one set to another, and
/// the chain after it; nothing if the two sets are equal.
///
/// # Panics
/// If the sets have different numbers of chunks.
pub(super) fn record(
    chain: Chain,
    from: &Bitfield,
    to: &Bitfield,
    modified: Timestamp,
) -> Option<(Vec<u8>, Chain)> {
    let ranges = changes(from, to);
    if ranges.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(COUNT_LEN + Timestamp::LEN + ranges.len() * RANGE_LEN);
    bytes.extend((ranges.len() as u32).to_le_bytes());
    bytes.extend(modified.to_bytes());
    for (first, len) in ranges {
        bytes.extend(first.to_le_bytes());
        bytes.extend(len.to_le_bytes());
    }
    let checksum = checksum(&[&chain.0, &bytes]);
    bytes.extend(checksum);
    Some((bytes, Chain(checksum)))
}

/// Reads a journal. `None` if it is not the journal of this content.
pub(super) fn replay(bytes: &[u8], id: ContentId, geometry: &Geometry) -> Option<Replay> {
    let (header, chain) = header(id, geometry);
    let mut rest = bytes.strip_prefix(&header)?;
    let mut replay = Replay {
        committed: Bitfield::none(geometry.chunks()),
        modified: None,
        end: HEADER_LEN,
        chain,
    };
    while let Some(len) = replay.apply(rest) {
        replay.end += len;
        rest = &rest[len..];
    }
    Some(replay)
}

impl Replay {
    /// Applies the record at the start of these bytes, and returns its length;
    /// nothing if there is no good record.
    fn apply(&mut self, bytes: &[u8]) -> Option<usize> {
        let (count, rest) = bytes.split_first_chunk::<COUNT_LEN>()?;
        let (modified, rest) = rest.split_first_chunk::<{ Timestamp::LEN }>()?;
        let count = u32::from_le_bytes(*count);
        // Each range names at least one chunk. This bounds the count before
        // anything is computed from it.
        if count > self.committed.chunks() {
            return None;
        }
        let ranges = rest.get(..count as usize * RANGE_LEN)?;
        let body = COUNT_LEN + Timestamp::LEN + ranges.len();
        let found = bytes.get(body..body + CHECKSUM_LEN)?;
        let checksum = checksum(&[&self.chain.0, &bytes[..body]]);
        if found != checksum {
            return None;
        }
        let mut committed = self.committed.clone();
        for range in ranges.chunks_exact(RANGE_LEN) {
            let (first, len) = range.split_at(4);
            let first = u32::from_le_bytes(first.try_into().ok()?);
            let len = u32::from_le_bytes(len.try_into().ok()?);
            let (withdrawn, first) = (first & WITHDRAWN != 0, first & !WITHDRAWN);
            if first.checked_add(len)? > committed.chunks() {
                return None;
            }
            for chunk in (first..first + len).map(ChunkIndex) {
                match withdrawn {
                    true => committed.remove(chunk),
                    false => committed.insert(chunk),
                };
            }
        }
        self.committed = committed;
        self.modified = Some(Timestamp::from_bytes(*modified));
        self.chain = Chain(checksum);
        Some(body + CHECKSUM_LEN)
    }
}

/// The ranges of chunks in which two sets differ, in the form of a record.
fn changes(from: &Bitfield, to: &Bitfield) -> Vec<(u32, u32)> {
    assert_eq!(from.chunks(), to.chunks());
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for chunk in (0..to.chunks()).map(ChunkIndex) {
        let flag = match (from.contains(chunk), to.contains(chunk)) {
            (false, true) => 0,
            (true, false) => WITHDRAWN,
            _ => continue,
        };
        match ranges.last_mut() {
            Some((first, len)) if *first + *len == chunk.0 | flag => *len += 1,
            _ => ranges.push((chunk.0 | flag, 1)),
        }
    }
    ranges
}

/// Gives every complete record a correct checksum, so that replay behaves as if
/// it ignored checksums. For tests that must detect this mistake, and for fuzzing.
#[cfg(any(test, feature = "_fuzzing"))]
pub(super) fn with_new_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(header) = bytes.get(..HEADER_LEN) else {
        return bytes;
    };
    let (_, chain) = header.split_last_chunk().expect("a header has a checksum");
    let mut chain: Checksum = *chain;
    let mut at = HEADER_LEN;
    while let Some(count) = bytes.get(at..at + COUNT_LEN) {
        let count = u32::from_le_bytes(count.try_into().expect("as many bytes")) as usize;
        let body = COUNT_LEN + Timestamp::LEN + count.saturating_mul(RANGE_LEN);
        if count == 0 || bytes.len() - at < body.saturating_add(CHECKSUM_LEN) {
            break;
        }
        chain = checksum(&[&chain, &bytes[at..at + body]]);
        bytes[at + body..][..CHECKSUM_LEN].copy_from_slice(&chain);
        at += body + CHECKSUM_LEN;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKS: u32 = 150;

    fn geometry() -> Geometry {
        Geometry::of(u64::from(CHUNKS) * crate::content::MIN_CHUNK_LEN).unwrap()
    }

    fn id() -> ContentId {
        ContentId::of(b"content")
    }

    fn stamp(n: usize) -> Timestamp {
        Timestamp {
            seconds: n as i64 - 2,
            nanos: n as u32,
        }
    }

    fn set(chunks: &[u32]) -> Bitfield {
        let mut set = Bitfield::none(CHUNKS);
        for &chunk in chunks {
            set.insert(ChunkIndex(chunk));
        }
        set
    }

    /// A journal with one record for each set, and its content after each.
    fn journal(sets: &[Bitfield]) -> (Vec<u8>, Vec<Replay>) {
        let (header, mut chain) = header(id(), &geometry());
        let mut bytes = header.to_vec();
        let mut states = vec![Replay {
            committed: Bitfield::none(CHUNKS),
            modified: None,
            end: bytes.len(),
            chain,
        }];
        for (n, set) in sets.iter().enumerate() {
            let from = &states[states.len() - 1].committed;
            let Some((record, next)) = record(chain, from, set, stamp(n)) else {
                assert_eq!(from, set);
                continue;
            };
            chain = next;
            bytes.extend(record);
            states.push(Replay {
                committed: set.clone(),
                modified: Some(stamp(n)),
                end: bytes.len(),
                chain,
            });
        }
        (bytes, states)
    }

    fn read(bytes: &[u8]) -> Option<Replay> {
        replay(bytes, id(), &geometry())
    }

    fn sets() -> impl Strategy<Value = Vec<Bitfield>> {
        let set = prop::collection::vec(0..CHUNKS, 0..60).prop_map(|chunks| set(&chunks));
        prop::collection::vec(set, 0..6)
    }

    proptest! {
        #[test]
        fn truncated_journal_contains_its_complete_records(
            sets in sets(),
            cut in any::<prop::sample::Index>(),
        ) {
            let (bytes, states) = journal(&sets);
            prop_assert_eq!(read(&bytes), states.last().cloned());
            let cut = cut.index(bytes.len());
            let expected = states.iter().rev().find(|state| state.end <= cut);
            prop_assert_eq!(read(&bytes[..cut]), expected.cloned());
        }

        #[test]
        fn journal_with_a_wrong_byte_contains_the_records_before_it(
            sets in sets(),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let (mut bytes, states) = journal(&sets);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let expected = states.iter().rev().find(|state| state.end <= at);
            prop_assert_eq!(read(&bytes), expected.cloned());
        }

        #[test]
        fn rest_of_an_older_longer_journal_is_ignored(old in sets(), new in sets()) {
            let (old, old_states) = journal(&old);
            let (mut bytes, states) = journal(&new);
            // A checksum covers only what is before it, so an old journal that
            // starts with the whole new one continues it.
            let expected = match old.starts_with(&bytes) {
                true => old_states.last(),
                false => states.last(),
            };
            bytes.extend(old.get(bytes.len()..).unwrap_or_default());
            prop_assert_eq!(read(&bytes), expected.cloned());
        }

        #[test]
        fn arbitrary_bytes_after_a_header_commit_nothing(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut bytes, states) = journal(&[]);
            bytes.extend(tail);
            prop_assert_eq!(read(&bytes), states.first().cloned());
        }
    }

    #[test]
    fn header_of_another_content_or_version_is_refused() {
        let (bytes, _) = journal(&[set(&[1])]);
        assert!(replay(&bytes, ContentId::of(b"other"), &geometry()).is_none());
        let longer = Geometry::of(geometry().length() + 1).unwrap();
        assert!(replay(&bytes, id(), &longer).is_none());
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert!(replay(&newer, id(), &geometry()).is_none());
        assert!(replay(&bytes[..HEADER_LEN - 1], id(), &geometry()).is_none());
    }

    #[test]
    fn record_of_a_chunk_that_does_not_exist_is_bad_despite_its_checksum() {
        for (first, len) in [
            (CHUNKS, 1),
            (CHUNKS - 1, 2),
            (3, u32::MAX),
            (WITHDRAWN | CHUNKS, 1),
        ] {
            let (mut bytes, states) = journal(&[set(&[1])]);
            let mut record = 1u32.to_le_bytes().to_vec();
            record.extend(stamp(0).to_bytes());
            record.extend(first.to_le_bytes());
            record.extend(len.to_le_bytes());
            let checksum = checksum(&[&states[1].chain.0, &record]);
            bytes.extend(record);
            bytes.extend(checksum);
            assert_eq!(read(&bytes).as_ref(), states.last());
        }
    }

    #[test]
    fn documented_example_is_written_and_read() {
        let document = include_str!("FORMAT.md");
        let (_, example) = document.split_once("```text\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let digits = example.lines().flat_map(|line| {
            let (hex, _) = line.split_once('#').unwrap_or((line, ""));
            hex.split_whitespace()
        });
        let documented: String = digits.collect();

        let bytes = vec![0; 40_000];
        let (id, geometry) = (ContentId::of(&bytes), Geometry::of(40_000).unwrap());
        let set = |chunks: &[u32]| {
            let mut set = Bitfield::none(3);
            for &chunk in chunks {
                set.insert(ChunkIndex(chunk));
            }
            set
        };
        let stamp = |seconds| Timestamp { seconds, nanos: 5 };
        let (header, chain) = header(id, &geometry);
        let first = stamp(1_700_000_000);
        let (one, chain) = record(chain, &set(&[]), &set(&[0, 1]), first).unwrap();
        let second = stamp(1_700_000_001);
        let (two, _) = record(chain, &set(&[0, 1]), &set(&[1, 2]), second).unwrap();
        let journal = [&header[..], &one, &two].concat();
        let written: String = journal.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, documented);
        let read = replay(&journal, id, &geometry).unwrap();
        assert_eq!(
            (read.committed, read.modified),
            (set(&[1, 2]), Some(second))
        );
    }

    #[test]
    fn record_has_one_range_for_neighbouring_chunks() {
        let from = set(&[1, 2, 3, 10]);
        let to = set(&[3, 4, 5, 6, 10, 12]);
        let expected = [(1 | WITHDRAWN, 2), (4, 3), (12, 1)];
        assert_eq!(changes(&from, &to), expected);
        let (_, chain) = header(id(), &geometry());
        let (bytes, _) = record(chain, &from, &to, stamp(0)).unwrap();
        assert_eq!(bytes.len(), 32 + 3 * RANGE_LEN);
        assert!(record(chain, &to, &to, stamp(0)).is_none());
    }
}
