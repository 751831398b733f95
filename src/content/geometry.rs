//! How a content is cut into chunks (the unit of planning and verification) and
//! blocks (the unit of transfer). This depends on the length alone, so that equal
//! contents always have the same chunks, and join the same swarm. Only who makes a
//! torrent chooses the length of its chunks.

use std::ops::Range;

use thiserror::Error;

use super::{Bitfield, BlockRange, ChunkIndex};

/// The minimum length of a chunk, in bytes. From this length on BLAKE3 is fast.
pub const MIN_CHUNK_LEN: u64 = 16 << 10;
/// The maximum length of a chunk, in bytes. This limits how many unverified bytes
/// a leecher holds for each chunk.
pub const MAX_CHUNK_LEN: u64 = 16 << 20;
/// The maximum number of chunks, as long as chunks are not longer than
/// [`MAX_CHUNK_LEN`]: enough to distribute the work in a swarm, and few enough to
/// keep a manifest small (32 KiB).
pub const TARGET_CHUNKS: u64 = 1024;
/// The maximum number of chunks of a content.
pub const MAX_CHUNKS: u32 = 1 << 20;
/// The maximum length of a content, in bytes (16 TiB).
pub const MAX_CONTENT_LEN: u64 = MAX_CHUNK_LEN * MAX_CHUNKS as u64;

/// A length above [`MAX_CONTENT_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a content can have at most {MAX_CONTENT_LEN} bytes, not {length}")]
pub struct TooLong {
    /// The length in bytes.
    pub length: u64,
}

/// Why a torrent cannot be cut into pieces of a given length.
#[cfg(feature = "bittorrent")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PieceLenError {
    /// There is nothing to cut.
    #[error("a torrent without bytes has no pieces")]
    Empty,
    /// The pieces would have no bytes, or too many.
    #[error("a piece can have 1 to {MAX_CHUNK_LEN} bytes, not {piece_len}")]
    Length {
        /// The length of a piece in bytes.
        piece_len: u64,
    },
    /// There would be too many pieces.
    #[error("a torrent can have at most {MAX_CHUNKS} pieces, not {pieces}")]
    Pieces {
        /// How many there would be.
        pieces: u64,
    },
}

/// How a content of a given length is cut into chunks.
///
/// The chunk length is the smallest power of two that cuts the content into at
/// most [`TARGET_CHUNKS`] chunks, but at least [`MIN_CHUNK_LEN`] and at most
/// [`MAX_CHUNK_LEN`]. All chunks except the last have that length. Empty content
/// has one empty chunk, so that every content has a chunk to verify.
///
/// ```
/// use bt_lite::{ChunkIndex, Geometry};
///
/// let geometry = Geometry::of((1 << 30) + 1)?;
/// assert_eq!(geometry.chunk_len(), 2 << 20);
/// assert_eq!(geometry.chunks(), 513);
/// assert_eq!(geometry.len_of(ChunkIndex(512)), 1);
/// # Ok::<(), bt_lite::TooLong>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    length: u64,
    chunk_len: u64,
    chunks: u32,
}

impl Geometry {
    /// The geometry of a content of `length` bytes.
    ///
    /// # Errors
    /// [`TooLong`] above [`MAX_CONTENT_LEN`].
    pub fn of(length: u64) -> Result<Self, TooLong> {
        if length > MAX_CONTENT_LEN {
            return Err(TooLong { length });
        }
        let chunk_len = length
            .div_ceil(TARGET_CHUNKS)
            .next_power_of_two()
            .clamp(MIN_CHUNK_LEN, MAX_CHUNK_LEN);
        let chunks = length.div_ceil(chunk_len).max(1);
        let chunks = u32::try_from(chunks).expect("the maximum length bounds the number");
        Ok(Self {
            length,
            chunk_len,
            chunks,
        })
    }

    /// The geometry of a torrent of `length` bytes in pieces of `piece_len`, which are its
    /// chunks. That length need not be a power of two.
    ///
    /// ```
    /// use bt_lite::{ChunkIndex, Geometry};
    ///
    /// let geometry = Geometry::of_torrent(250_000, 100_000)?;
    /// assert_eq!(geometry.chunks(), 3);
    /// assert_eq!(geometry.len_of(ChunkIndex(2)), 50_000);
    /// # Ok::<(), bt_lite::content::PieceLenError>(())
    /// ```
    ///
    /// # Errors
    /// [`PieceLenError`], also if there is not a single byte: a torrent without bytes has
    /// no pieces, and every content has a chunk.
    #[cfg(feature = "bittorrent")]
    pub fn of_torrent(length: u64, piece_len: u64) -> Result<Self, PieceLenError> {
        if length == 0 {
            return Err(PieceLenError::Empty);
        }
        if !(1..=MAX_CHUNK_LEN).contains(&piece_len) {
            return Err(PieceLenError::Length { piece_len });
        }
        let pieces = length.div_ceil(piece_len);
        let chunks = u32::try_from(pieces).ok();
        let chunks = chunks.filter(|&chunks| chunks <= MAX_CHUNKS);
        Ok(Self {
            length,
            chunk_len: piece_len,
            chunks: chunks.ok_or(PieceLenError::Pieces { pieces })?,
        })
    }

    /// The length of the content in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The length of every chunk except the last, in bytes.
    pub fn chunk_len(&self) -> u64 {
        self.chunk_len
    }

    /// How many chunks there are: at least one, at most [`MAX_CHUNKS`].
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// All chunks in order.
    pub fn indices(
        &self,
    ) -> impl DoubleEndedIterator<Item = ChunkIndex> + ExactSizeIterator + use<> {
        (0..self.chunks).map(ChunkIndex)
    }

    /// The last chunk, which may be shorter than the others.
    pub fn last(&self) -> ChunkIndex {
        ChunkIndex(self.chunks - 1)
    }

    /// Whether the content has this chunk.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.chunks
    }

    /// The offset of a chunk in the content, in bytes.
    ///
    /// # Panics
    /// If the content has no such chunk.
    pub fn offset_of(&self, chunk: ChunkIndex) -> u64 {
        assert!(self.contains(chunk), "chunk {chunk} of {}", self.chunks);
        u64::from(chunk.0) * self.chunk_len
    }

    /// The length of these chunks together, in bytes.
    ///
    /// # Panics
    /// If the set has another number of chunks.
    pub fn bytes_of(&self, chunks: &Bitfield) -> u64 {
        assert_eq!(chunks.chunks(), self.chunks());
        let full = u64::from(chunks.count()) * self.chunk_len();
        match chunks.contains(self.last()) {
            true => full - (self.chunk_len() - self.len_of(self.last())),
            false => full,
        }
    }

    /// The length of a chunk in bytes.
    ///
    /// # Panics
    /// If the content has no such chunk.
    pub fn len_of(&self, chunk: ChunkIndex) -> u64 {
        (self.length - self.offset_of(chunk)).min(self.chunk_len)
    }

    /// The bytes of a chunk, as a range of the content.
    ///
    /// # Panics
    /// If the content has no such chunk.
    pub fn range_of(&self, chunk: ChunkIndex) -> Range<u64> {
        let start = self.offset_of(chunk);
        start..start + self.len_of(chunk)
    }

    /// Whether a block is inside its chunk and not empty. The empty block of the
    /// only chunk of empty content is valid as well.
    pub fn contains_block(&self, block: BlockRange) -> bool {
        if !self.contains(block.chunk) {
            return false;
        }
        let len = self.len_of(block.chunk);
        let end = u64::from(block.offset) + u64::from(block.len);
        end <= len && (block.len > 0 || len == 0)
    }
}

/// Splits `total` units into `parts` contiguous ranges, in order. The lengths of
/// the ranges differ by at most one, and the longer ranges come first. A download
/// starts with this split.
///
/// If there are more parts than units, the last ranges are empty. If there are no
/// parts, there are no ranges.
///
/// ```
/// let split: Vec<_> = bt_lite::split_evenly(10, 3).collect();
/// assert_eq!(split, [0..4, 4..7, 7..10]);
/// ```
pub fn split_evenly(
    total: u64,
    parts: u32,
) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator {
    let n = u64::from(parts.max(1));
    let (each, longer) = (total / n, total % n);
    let start = move |part: u64| part * each + part.min(longer);
    (0..parts).map(move |part| start(part.into())..start(u64::from(part) + 1))
}
