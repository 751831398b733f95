//! How chunks are cut into the blocks that this peer asks for.

use crate::content::{BlockRange, ChunkIndex, Geometry, Manifest};
use crate::protocol::limits::MAX_BLOCK_LEN;

/// The shortest block in bytes, apart from the last of a chunk: enough for
/// BLAKE3 to hash at full speed.
const MIN_BLOCK_LEN: u64 = 16 << 10;

/// Into how many blocks a chunk is cut, if the bounds of a block allow it. That
/// many links can help with one chunk, and finish the last one together.
const BLOCKS_PER_CHUNK: u64 = 4;

/// The shortest block in bytes of a content that is read. What a reader wants next waits
/// behind the block that a line carries, and what several lines bring of a chunk ends together
/// only as far as it is cut: a line of 1 Mbit/s needs 16 ms for this one. Shorter ones would
/// cost too much for each, and [`MAX_REQUESTS`](crate::protocol::limits::MAX_REQUESTS) of
/// them are 1 MiB, as much as a line of 160 Mbit/s carries in 50 ms.
const MIN_READING_BLOCK_LEN: u64 = 2 << 10;

/// Into how many blocks a chunk is cut that is read, if the bounds of a block allow it.
const READING_BLOCKS_PER_CHUNK: u64 = 16;

/// The longest block in bytes of a torrent. There are clients that do not answer requests
/// for more, and some close the link. Shorter ones would end beside the boundaries that
/// all of them keep to, so this is also the length of what is read while it comes.
const TORRENT_BLOCK_LEN: u64 = 16 << 10;

/// The blocks of every chunk of a content. This peer asks for these blocks only;
/// other peers may ask for different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLayout {
    geometry: Geometry,
    block_len: u64,
}

impl BlockLayout {
    /// The blocks of a content.
    pub fn of(geometry: Geometry) -> Self {
        let block_len =
            (geometry.chunk_len() / BLOCKS_PER_CHUNK).clamp(MIN_BLOCK_LEN, MAX_BLOCK_LEN.into());
        Self {
            geometry,
            block_len,
        }
    }

    /// The same for a content that somebody reads while it comes: what a reader wants next
    /// waits behind the block that a line is carrying.
    pub fn for_reading(geometry: Geometry) -> Self {
        let block_len = (geometry.chunk_len() / READING_BLOCKS_PER_CHUNK)
            .clamp(MIN_READING_BLOCK_LEN, MAX_BLOCK_LEN.into());
        Self {
            geometry,
            block_len,
        }
    }

    /// The one or the other, if the content is read or not.
    pub fn at(geometry: Geometry, is_read: bool) -> Self {
        match is_read {
            true => Self::for_reading(geometry),
            false => Self::of(geometry),
        }
    }

    /// The blocks of a torrent, whether it is read or not.
    pub fn of_torrent(geometry: Geometry) -> Self {
        let block_len = geometry.chunk_len().min(TORRENT_BLOCK_LEN);
        Self {
            geometry,
            block_len,
        }
    }

    /// The blocks of a content whose manifest is here, if it is read or not.
    pub fn for_content(manifest: &Manifest, is_read: bool) -> Self {
        match manifest.is_torrent() {
            true => Self::of_torrent(manifest.geometry()),
            false => Self::at(manifest.geometry(), is_read),
        }
    }

    /// The content's chunks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The length of a block in bytes. The last block of a chunk may be shorter.
    pub fn block_len(&self) -> u64 {
        self.block_len
    }

    /// How many blocks a chunk has: at least one.
    ///
    /// # Panics
    /// If the content does not have the chunk.
    pub fn blocks(&self, chunk: ChunkIndex) -> u32 {
        self.geometry.len_of(chunk).div_ceil(self.block_len).max(1) as u32
    }

    /// The block at a position of a chunk.
    ///
    /// # Panics
    /// If the content does not have the chunk, or the chunk the block.
    pub fn block(&self, chunk: ChunkIndex, position: u32) -> BlockRange {
        let offset = u64::from(position) * self.block_len;
        let rest = self.geometry.len_of(chunk).checked_sub(offset);
        let len = rest
            .expect("the block lies in the chunk")
            .min(self.block_len);
        BlockRange {
            chunk,
            offset: offset as u32,
            len: len as u32,
        }
    }

    /// The position of a block in its chunk, if it is one of these blocks.
    pub fn position(&self, block: BlockRange) -> Option<u32> {
        let position = (u64::from(block.offset) / self.block_len) as u32;
        let known = self.geometry.contains(block.chunk)
            && position < self.blocks(block.chunk)
            && self.block(block.chunk, position) == block;
        known.then_some(position)
    }
}
