//! The chunks that the other side of a link says to have.

use bytes::Bytes;

use super::chunk_set::ChunkSet;
use crate::content::{Bitfield, ChunkIndex, MAX_CHUNKS};

/// What the other side says to have. This can be read only when the content's length
/// is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RemoteChunks {
    /// It has not said anything yet.
    Unknown,
    None,
    All,
    Some(Bitfield),
    /// It said something that cannot be read yet.
    Unread(Unread),
}

/// What a link said before the content's length was known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unread {
    bitfield: Option<Bytes>,
    /// The chunks of Have messages, one bit each, up to the highest.
    single: Vec<u64>,
    count: u32,
}

impl RemoteChunks {
    /// A bitfield that was received and is not read yet.
    pub(super) fn unread(bytes: Bytes) -> Self {
        Self::Unread(Unread {
            bitfield: Some(bytes),
            ..Unread::default()
        })
    }

    /// Whether it has any chunk.
    pub(super) fn is_anything(&self) -> bool {
        !matches!(self, Self::Unknown | Self::None)
    }

    /// Whether it is known to have a chunk.
    pub(super) fn has(&self, chunk: ChunkIndex) -> bool {
        match self {
            Self::All => true,
            Self::Some(chunks) => chunks.contains(chunk),
            Self::Unknown | Self::None | Self::Unread(_) => false,
        }
    }

    /// How many chunks it is known to have; `u32::MAX` for all of them.
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Unknown | Self::None => 0,
            Self::All => u32::MAX,
            Self::Some(chunks) => chunks.count(),
            Self::Unread(unread) => unread.count,
        }
    }

    /// It has one more chunk. The length is not known yet; returns `false` if no
    /// content has such a chunk.
    pub(super) fn gained_unread(&mut self, chunk: ChunkIndex) -> bool {
        if chunk.0 >= MAX_CHUNKS {
            return false;
        }
        if let Self::Unknown | Self::None = self {
            *self = Self::Unread(Unread::default());
        }
        if let Self::Unread(unread) = self {
            let (word, bit) = (chunk.as_usize() / 64, 1 << (chunk.0 % 64));
            if unread.single.len() <= word {
                unread.single.resize(word + 1, 0);
            }
            unread.count += u32::from(unread.single[word] & bit == 0);
            unread.single[word] |= bit;
        }
        true
    }

    /// It has one more chunk, of a content of `chunks` chunks; what it said before is
    /// resolved. Returns whether the chunk is new.
    pub(super) fn gained(&mut self, chunk: ChunkIndex, chunks: u32) -> bool {
        if let Self::Unknown | Self::None = self {
            *self = Self::Some(Bitfield::none(chunks));
        }
        let Self::Some(chunks) = self else {
            return false;
        };
        let new = chunks.insert(chunk);
        if chunks.is_complete() {
            *self = Self::All;
        }
        new
    }

    /// It has a chunk no longer, of a content of `chunks` chunks; what it said before is
    /// resolved. Returns whether it had it.
    pub(super) fn lost(&mut self, chunk: ChunkIndex, chunks: u32) -> bool {
        if *self == Self::All {
            *self = Self::Some(Bitfield::all(chunks));
        }
        match self {
            Self::Some(chunks) => chunks.remove(chunk),
            _ => false,
        }
    }

    /// The same when the length is not known yet. What cannot be read without one chunk
    /// counts as nothing.
    pub(super) fn lost_unread(&mut self, chunk: ChunkIndex) {
        match self {
            Self::Unread(unread) if unread.bitfield.is_none() => unread.lost(chunk),
            Self::Unread(_) | Self::All => *self = Self::None,
            Self::Unknown | Self::None | Self::Some(_) => {}
        }
    }

    /// Reads what it said before the number of chunks was known. Returns `false` if
    /// that does not fit the content.
    pub(super) fn resolve(&mut self, chunks: u32) -> bool {
        if let Self::Unread(unread) = self {
            let Some(has) = unread.read(chunks) else {
                return false;
            };
            *self = if has.is_complete() {
                Self::All
            } else {
                Self::Some(has)
            };
        }
        true
    }

    /// The chunks that it is known to have.
    pub(super) fn known(&self) -> ChunkSet {
        match self {
            Self::Unknown | Self::None | Self::Unread(_) => ChunkSet::Nothing,
            Self::All => ChunkSet::All,
            Self::Some(has) => ChunkSet::Some(has.clone()),
        }
    }
}

impl Unread {
    fn lost(&mut self, chunk: ChunkIndex) {
        let (word, bit) = (chunk.as_usize() / 64, 1 << (chunk.0 % 64));
        if let Some(word) = self.single.get_mut(word) {
            self.count -= u32::from(*word & bit != 0);
            *word &= !bit;
        }
    }

    fn read(&self, chunks: u32) -> Option<Bitfield> {
        let mut has = match &self.bitfield {
            Some(bytes) => Bitfield::from_bytes(bytes, chunks).ok()?,
            None => Bitfield::none(chunks),
        };
        for (at, &word) in self.single.iter().enumerate() {
            let mut bits = word;
            while bits != 0 {
                let chunk = at as u32 * 64 + bits.trailing_zeros();
                if chunk >= chunks {
                    return None;
                }
                has.insert(ChunkIndex(chunk));
                bits &= bits - 1;
            }
        }
        Some(has)
    }
}
