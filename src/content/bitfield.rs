//! Sets of chunks, with one bit for each chunk.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use super::ChunkIndex;

/// A set of chunks of one content.
///
/// Its encoding is that of BitTorrent: the high bit of the first byte is chunk 0,
/// and the spare bits at the end are zero (BEP 3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bitfield {
    words: Vec<u64>,
    chunks: u32,
    count: u32,
}

/// Why bytes are not a valid [`Bitfield`] of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BitfieldError {
    /// The number of bytes does not match the number of chunks.
    #[error("a bitfield of this content must have {expected} bytes, not {len}")]
    Length {
        /// The actual number of bytes.
        len: usize,
        /// The correct number of bytes.
        expected: usize,
    },
    /// A bit after the last chunk is set.
    #[error("the spare bits of a bitfield must be zero")]
    SpareBits,
}

const WORD: u32 = u64::BITS;

impl Bitfield {
    /// An empty set, of a content with `chunks` chunks.
    pub fn none(chunks: u32) -> Self {
        Self {
            words: vec![0; chunks.div_ceil(WORD) as usize],
            chunks,
            count: 0,
        }
    }

    /// A complete set, of a content with `chunks` chunks.
    pub fn all(chunks: u32) -> Self {
        let mut words = vec![u64::MAX; chunks.div_ceil(WORD) as usize];
        if let (Some(last), spare @ 1..) = (words.last_mut(), chunks % WORD) {
            *last = u64::MAX << (WORD - spare);
        }
        Self {
            words,
            chunks,
            count: chunks,
        }
    }

    /// How many chunks the content has.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// How many chunks are in the set.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether all chunks are in the set.
    pub fn is_complete(&self) -> bool {
        self.count == self.chunks
    }

    /// Whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `chunk` is in the set. `false` if the content has no such chunk.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.chunks && self.words[(chunk.0 / WORD) as usize] & mask(chunk) != 0
    }

    /// Adds a chunk. Returns whether the set has changed.
    ///
    /// # Panics
    /// If the content has no such chunk.
    pub fn insert(&mut self, chunk: ChunkIndex) -> bool {
        assert!(chunk.0 < self.chunks, "chunk {chunk} of {}", self.chunks);
        let word = &mut self.words[(chunk.0 / WORD) as usize];
        let fresh = *word & mask(chunk) == 0;
        *word |= mask(chunk);
        self.count += u32::from(fresh);
        fresh
    }

    /// Removes a chunk. Returns whether the set has changed.
    ///
    /// # Panics
    /// If the content has no such chunk.
    pub fn remove(&mut self, chunk: ChunkIndex) -> bool {
        assert!(chunk.0 < self.chunks, "chunk {chunk} of {}", self.chunks);
        let word = &mut self.words[(chunk.0 / WORD) as usize];
        let present = *word & mask(chunk) != 0;
        *word &= !mask(chunk);
        self.count -= u32::from(present);
        present
    }

    /// Removes the chunks that are not in `other`.
    ///
    /// # Panics
    /// If the sets have different numbers of chunks.
    pub fn intersect(&mut self, other: &Self) {
        assert_eq!(self.chunks, other.chunks);
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// The chunks in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        self.iter_from(0)
    }

    /// The chunks in the set from index `start` on, in order.
    pub fn iter_from(&self, start: u32) -> impl Iterator<Item = ChunkIndex> + '_ {
        ones(start, self.words.len(), |i| self.words[i])
    }

    /// The chunks in both sets, from index `start` on, in order. Skips 64 chunks
    /// at a time.
    ///
    /// # Panics
    /// If the sets have different numbers of chunks.
    pub fn iter_common<'a>(
        &'a self,
        other: &'a Self,
        start: u32,
    ) -> impl Iterator<Item = ChunkIndex> + 'a {
        assert_eq!(self.chunks, other.chunks);
        ones(start, self.words.len(), |i| self.words[i] & other.words[i])
    }

    /// The chunks in both sets that are not in a third one, from index `start` on, in order.
    /// Skips 64 chunks at a time.
    ///
    /// # Panics
    /// If the sets have different numbers of chunks.
    pub fn iter_common_but<'a>(
        &'a self,
        other: &'a Self,
        but: &'a Self,
        start: u32,
    ) -> impl Iterator<Item = ChunkIndex> + 'a {
        assert_eq!(self.chunks, other.chunks);
        assert_eq!(self.chunks, but.chunks);
        let word = |i: usize| self.words[i] & other.words[i] & !but.words[i];
        ones(start, self.words.len(), word)
    }

    /// The chunks that are not in the set, in order.
    pub fn iter_missing(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        let chunks = self.chunks;
        ones(0, self.words.len(), |i| !self.words[i]).take_while(move |chunk| chunk.0 < chunks)
    }

    /// The first chunk in this set that is not in `other`.
    ///
    /// # Panics
    /// If the sets have different numbers of chunks.
    pub fn first_not_in(&self, other: &Self) -> Option<ChunkIndex> {
        assert_eq!(self.chunks, other.chunks);
        self.words
            .iter()
            .zip(&other.words)
            .enumerate()
            .find_map(|(i, (have, lack))| {
                let bits = have & !lack;
                (bits != 0).then(|| ChunkIndex(i as u32 * WORD + bits.leading_zeros()))
            })
    }

    /// The length of an encoded bitfield of `chunks` chunks, in bytes.
    pub fn byte_len(chunks: u32) -> usize {
        chunks.div_ceil(8) as usize
    }

    /// The encoded bitfield.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_be_bytes()).collect();
        bytes.truncate(Self::byte_len(self.chunks));
        bytes.into()
    }

    /// Decodes a bitfield of `chunks` chunks.
    ///
    /// # Errors
    /// [`BitfieldError`] if the length is wrong, or a spare bit is set.
    pub fn from_bytes(bytes: &[u8], chunks: u32) -> Result<Self, BitfieldError> {
        let expected = Self::byte_len(chunks);
        if bytes.len() != expected {
            return Err(BitfieldError::Length {
                len: bytes.len(),
                expected,
            });
        }
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|bytes| {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                u64::from_be_bytes(word)
            })
            .collect();
        if let (Some(last), spare @ 1..) = (words.last(), chunks % WORD)
            && last << spare != 0
        {
            return Err(BitfieldError::SpareBits);
        }
        let count = words.iter().map(|w| w.count_ones()).sum();
        Ok(Self {
            words,
            chunks,
            count,
        })
    }
}

impl fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitfield({}/{})", self.count, self.chunks)
    }
}

fn mask(chunk: ChunkIndex) -> u64 {
    1 << (WORD - 1 - chunk.0 % WORD)
}

/// The chunks whose bits are set in `len` words, from chunk `start` on.
fn ones(start: u32, len: usize, word: impl Fn(usize) -> u64) -> impl Iterator<Item = ChunkIndex> {
    let mut at = (start / WORD) as usize;
    // Hides the bits before `start` in the first word.
    let mut skip = u64::MAX >> (start % WORD);
    // The bits of the current word that were not yielded yet, and whether the
    // word is still to be read.
    let mut bits = 0;
    let mut fresh = true;
    std::iter::from_fn(move || {
        loop {
            if at >= len {
                return None;
            }
            if fresh {
                bits = word(at) & skip;
                (skip, fresh) = (u64::MAX, false);
            }
            if bits != 0 {
                let bit = bits.leading_zeros();
                bits &= !(1 << (WORD - 1 - bit));
                return Some(ChunkIndex(at as u32 * WORD + bit));
            }
            (at, fresh) = (at + 1, true);
        }
    })
}
