//! The journal of a download: which chunks of the unfinished file may be
//! trusted after a restart. Pure: bytes in, claims out; `ledger` has the file.
//!
//! The format is in `FORMAT.md`, which is part of the documentation of
//! [`FileStorage`](super::FileStorage). In short: a header that names the
//! content, then records, each with a check over itself and the check before,
//! so that none is trusted behind one that is not.

use crate::content::{Bitfield, ChunkIndex, ContentId, Geometry};

use super::disk::Stamp;

pub(super) const HEADER_LEN: usize = 72;

const MAGIC: [u8; 8] = *b"btl.jrnl";
const VERSION: u32 = 1;
const CHECK_LEN: usize = 16;
const COUNT_LEN: usize = 4;
const RANGE_LEN: usize = 8;
/// Marks the first chunk of a range that is withdrawn.
const WITHDRAWN: u32 = 1 << 31;

/// Where a journal ends: what the next record is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain([u8; CHECK_LEN]);

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replay {
    /// The chunks that may be trusted.
    pub(super) claimed: Bitfield,
    /// When the unfinished file had been modified, at the last record.
    pub(super) stamp: Option<Stamp>,
    /// Where the last good record ends, in bytes.
    pub(super) end: usize,
    pub(super) chain: Chain,
}

/// The header of the journal of a content, and its chain.
pub(super) fn header(id: ContentId, geometry: &Geometry) -> ([u8; HEADER_LEN], Chain) {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&geometry.chunks().to_le_bytes());
    bytes[16..24].copy_from_slice(&geometry.length().to_le_bytes());
    bytes[24..56].copy_from_slice(id.as_bytes());
    let check = check(&[], &bytes[..56]);
    bytes[56..].copy_from_slice(&check);
    (bytes, Chain(check))
}

/// The record that leads from one set of claims to another, and the chain
/// behind it; nothing if they are the same.
///
/// # Panics
/// If the two are of contents with another number of chunks.
pub(super) fn record(
    chain: Chain,
    from: &Bitfield,
    to: &Bitfield,
    stamp: Stamp,
) -> Option<(Vec<u8>, Chain)> {
    let ranges = changes(from, to);
    if ranges.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(COUNT_LEN + Stamp::LEN + ranges.len() * RANGE_LEN);
    bytes.extend((ranges.len() as u32).to_le_bytes());
    bytes.extend(stamp.to_bytes());
    for (first, len) in ranges {
        bytes.extend(first.to_le_bytes());
        bytes.extend(len.to_le_bytes());
    }
    let check = check(&chain.0, &bytes);
    bytes.extend(check);
    Some((bytes, Chain(check)))
}

/// Reads a journal. `None` if it is not of this content.
pub(super) fn replay(bytes: &[u8], id: ContentId, geometry: &Geometry) -> Option<Replay> {
    let (header, chain) = header(id, geometry);
    let mut rest = bytes.strip_prefix(&header)?;
    let mut replay = Replay {
        claimed: Bitfield::none(geometry.chunks()),
        stamp: None,
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
    /// Applies the record that these bytes begin with, and gives its length;
    /// nothing if there is no good one.
    fn apply(&mut self, bytes: &[u8]) -> Option<usize> {
        let (count, rest) = bytes.split_first_chunk::<COUNT_LEN>()?;
        let (stamp, rest) = rest.split_first_chunk::<{ Stamp::LEN }>()?;
        let count = u32::from_le_bytes(*count);
        // Before anything is computed from it: each range names a chunk.
        if count > self.claimed.chunks() {
            return None;
        }
        let ranges = rest.get(..count as usize * RANGE_LEN)?;
        let body = COUNT_LEN + Stamp::LEN + ranges.len();
        let found = bytes.get(body..body + CHECK_LEN)?;
        let check = check(&self.chain.0, &bytes[..body]);
        if found != check {
            return None;
        }
        let mut claimed = self.claimed.clone();
        for range in ranges.chunks_exact(RANGE_LEN) {
            let (first, len) = range.split_at(4);
            let first = u32::from_le_bytes(first.try_into().ok()?);
            let len = u32::from_le_bytes(len.try_into().ok()?);
            let (withdrawn, first) = (first & WITHDRAWN != 0, first & !WITHDRAWN);
            if first.checked_add(len)? > claimed.chunks() {
                return None;
            }
            for chunk in (first..first + len).map(ChunkIndex) {
                match withdrawn {
                    true => claimed.remove(chunk),
                    false => claimed.insert(chunk),
                };
            }
        }
        self.claimed = claimed;
        self.stamp = Some(Stamp::from_bytes(*stamp));
        self.chain = Chain(check);
        Some(body + CHECK_LEN)
    }
}

/// The runs of chunks in which two sets differ, as a record has them.
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

fn check(before: &[u8], bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(bytes);
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_LEN]);
    check
}

/// Makes every record check that is there in its full length: what replay
/// would see if it looked at no check. For tests that must catch that.
#[cfg(test)]
pub(super) fn sealed_anew(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(header) = bytes.get(..HEADER_LEN) else {
        return bytes;
    };
    let mut chain: [u8; CHECK_LEN] = header[HEADER_LEN - CHECK_LEN..].try_into().unwrap();
    let mut at = HEADER_LEN;
    while let Some(count) = bytes.get(at..at + COUNT_LEN) {
        let count = u32::from_le_bytes(count.try_into().unwrap()) as usize;
        let body = COUNT_LEN + Stamp::LEN + count.saturating_mul(RANGE_LEN);
        if count == 0 || bytes.len() - at < body.saturating_add(CHECK_LEN) {
            break;
        }
        chain = check(&chain, &bytes[at..at + body]);
        bytes[at + body..][..CHECK_LEN].copy_from_slice(&chain);
        at += body + CHECK_LEN;
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

    fn stamp(n: usize) -> Stamp {
        Stamp {
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

    /// A journal with a record per set, and what it says after each of them.
    fn journal(sets: &[Bitfield]) -> (Vec<u8>, Vec<Replay>) {
        let (header, mut chain) = header(id(), &geometry());
        let mut bytes = header.to_vec();
        let mut states = vec![Replay {
            claimed: Bitfield::none(CHUNKS),
            stamp: None,
            end: bytes.len(),
            chain,
        }];
        for (n, set) in sets.iter().enumerate() {
            let from = &states[states.len() - 1].claimed;
            let Some((record, next)) = record(chain, from, set, stamp(n)) else {
                assert_eq!(from, set);
                continue;
            };
            chain = next;
            bytes.extend(record);
            states.push(Replay {
                claimed: set.clone(),
                stamp: Some(stamp(n)),
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
        fn journal_cut_anywhere_says_what_its_whole_records_say(
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
        fn journal_with_a_wrong_byte_says_what_is_before_it(
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
        fn rest_of_an_earlier_journal_says_nothing(old in sets(), new in sets()) {
            let (old, old_states) = journal(&old);
            let (mut bytes, states) = journal(&new);
            // Records bind only to what is before them, so an old journal that
            // begins with all of the new one is the new one, continued.
            let expected = match old.starts_with(&bytes) {
                true => old_states.last(),
                false => states.last(),
            };
            bytes.extend(old.get(bytes.len()..).unwrap_or_default());
            prop_assert_eq!(read(&bytes), expected.cloned());
        }

        #[test]
        fn arbitrary_bytes_behind_a_header_claim_nothing(tail in prop::collection::vec(any::<u8>(), 0..200)) {
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
    fn record_that_checks_and_names_no_chunk_of_the_content_is_bad() {
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
            let check = check(&states[1].chain.0, &record);
            bytes.extend(record);
            bytes.extend(check);
            assert_eq!(read(&bytes).as_ref(), states.last());
        }
    }

    #[test]
    fn documented_example_is_what_is_written_and_read() {
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
        let stamp = |seconds| Stamp { seconds, nanos: 5 };
        let (header, chain) = header(id, &geometry);
        let first = stamp(1_700_000_000);
        let (one, chain) = record(chain, &set(&[]), &set(&[0, 1]), first).unwrap();
        let second = stamp(1_700_000_001);
        let (two, _) = record(chain, &set(&[0, 1]), &set(&[1, 2]), second).unwrap();
        let journal = [&header[..], &one, &two].concat();
        let written: String = journal.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, documented);
        let read = replay(&journal, id, &geometry).unwrap();
        assert_eq!((read.claimed, read.stamp), (set(&[1, 2]), Some(second)));
    }

    #[test]
    fn record_has_one_range_per_run() {
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
