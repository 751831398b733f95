//! What is recorded of a content that lies in several files: which of its chunks are right
//! and durable, and the stamps that its files had then. This module does no I/O.
//!
//! The record lies beside the files, and `FORMAT.md` has its format.

use bytes::{Buf, Bytes};

use super::super::checksum::{CHECKSUM_LEN, checksum};
use super::super::fields::{split, take};
use super::super::stamp::Stamp;
use super::super::timestamp::Timestamp;
use crate::content::{Bitfield, ContentId};

const MAGIC: &[u8; 8] = b"btl.span";
const VERSION: u32 = 1;
const HEAD_LEN: usize = MAGIC.len() + 4 + 4 + 4;
const FILE_LEN: usize = Timestamp::LEN + 1;

/// Stands behind the id in the name of a record.
const STATE: &str = ".bt_lite-state";
/// The same while it is being written.
const NEW: &str = ".bt_lite-state-new";

/// Stands behind the id in the name of the file for what lies in files that nobody wants.
const APART: &str = ".bt_lite-apart";

/// What is said of a file: its stamp is known, and every later change would give it another
/// one.
const SETTLED: u8 = 1;

/// The name of the record of a content, and its name while it is being written.
pub(super) fn names(id: ContentId) -> [String; 2] {
    [format!(".{id}{STATE}"), format!(".{id}{NEW}")]
}

/// The name of the file for what lies in files of a content that nobody wants.
pub(super) fn apart_name(id: ContentId) -> String {
    format!(".{id}{APART}")
}

/// Whether something of this name could be taken for a record, or for what lies apart.
pub(super) fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [STATE, NEW, APART].iter().any(|end| name.ends_with(end))
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpanRecord {
    /// The chunks that are right, as long as the files have these times.
    pub(super) verified: Bitfield,
    /// Chunks that were there and were not verified yet. All others are not there.
    pub(super) unsure: Bitfield,
    /// When each file was modified, if that tells every change. Behind them that for what lies
    /// apart, if there is one.
    pub(super) modified: Vec<Option<Timestamp>>,
}

impl SpanRecord {
    /// The chunks that were verified, and those of which nobody knows, of files that have these
    /// stamps now.
    pub(super) fn new(verified: Bitfield, mut unsure: Bitfield, stamps: &[Option<Stamp>]) -> Self {
        let settled = stamps.iter().map(|stamp| stamp.filter(|s| s.settled));
        verified.iter().for_each(|chunk| {
            unsure.remove(chunk);
        });
        Self {
            verified,
            unsure,
            modified: settled.map(|stamp| stamp.map(|s| s.modified)).collect(),
        }
    }

    /// The length of a record of so many chunks and files, in bytes.
    pub(super) fn len(chunks: u32, files: usize) -> usize {
        HEAD_LEN + files * FILE_LEN + 2 * Bitfield::byte_len(chunks) + CHECKSUM_LEN
    }

    pub(super) fn encode(&self, id: ContentId) -> Vec<u8> {
        let chunks = self.verified.chunks();
        let mut bytes = Vec::with_capacity(Self::len(chunks, self.modified.len()));
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(chunks.to_le_bytes());
        bytes.extend((self.modified.len() as u32).to_le_bytes());
        for modified in &self.modified {
            let none = Timestamp {
                seconds: 0,
                nanos: 0,
            };
            bytes.extend(modified.unwrap_or(none).to_bytes());
            bytes.push(if modified.is_some() { SETTLED } else { 0 });
        }
        bytes.extend(self.verified.to_bytes());
        bytes.extend(self.unsure.to_bytes());
        bytes.extend(checksum(&[id.as_bytes(), &bytes]));
        bytes
    }

    /// Reads a record of this content; nothing if it is not one.
    pub(super) fn decode(
        mut bytes: Bytes,
        id: ContentId,
        chunks: u32,
        files: usize,
    ) -> Option<Self> {
        if bytes.len() != Self::len(chunks, files) {
            return None;
        }
        let found = bytes.split_off(bytes.len() - CHECKSUM_LEN);
        if found[..] != checksum(&[id.as_bytes(), &bytes]) || take(&mut bytes)? != *MAGIC {
            return None;
        }
        let head = [VERSION, chunks, files as u32];
        for expected in head {
            if bytes.try_get_u32_le().ok()? != expected {
                return None;
            }
        }
        let mut modified = Vec::with_capacity(files);
        for _ in 0..files {
            let time = Timestamp::from_bytes(take(&mut bytes)?);
            modified.push(match bytes.try_get_u8().ok()? {
                0 => None,
                SETTLED => Some(time),
                _ => return None,
            });
        }
        let mut chunks = || {
            let bits = split(&mut bytes, Bitfield::byte_len(chunks))?;
            Bitfield::from_bytes(&bits, chunks).ok()
        };
        let (verified, unsure) = (chunks()?, chunks()?);
        Some(Self {
            verified,
            unsure,
            modified,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ChunkIndex;

    #[test]
    fn record_survives_its_encoding_and_no_change_of_a_byte() {
        let id = ContentId::of(b"x");
        let mut verified = Bitfield::none(11);
        verified.insert(ChunkIndex(0));
        verified.insert(ChunkIndex(10));
        let stamp = |settled| {
            Some(Stamp {
                len: 7,
                modified: Timestamp {
                    seconds: -5,
                    nanos: 6,
                },
                settled,
            })
        };
        let mut unsure = verified.clone();
        unsure.insert(ChunkIndex(4));
        let record = SpanRecord::new(verified, unsure, &[stamp(true), None, stamp(false)]);
        assert_eq!(record.unsure.iter().collect::<Vec<_>>(), [ChunkIndex(4)]);
        assert_eq!(record.modified.iter().flatten().count(), 1);
        let bytes = record.encode(id);
        assert_eq!(bytes.len(), SpanRecord::len(11, 3));
        let decode =
            |bytes: &[u8], id| SpanRecord::decode(Bytes::copy_from_slice(bytes), id, 11, 3);
        assert_eq!(decode(&bytes, ContentId::of(b"other")), None);
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert_eq!(decode(&wrong, id), None, "{at}");
            assert_eq!(decode(&bytes[..at], id), None, "{at}");
        }
        assert_eq!(decode(&bytes, id), Some(record));
        for name in names(id) {
            assert!(is_reserved(&name) && is_reserved(&name.to_uppercase()));
        }
        assert!(!is_reserved("bt_lite-state"));
    }
}
