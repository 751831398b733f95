//! A content that passes through: of which only a window is ever here.

use std::ops::Range;

use super::read_window::ReadWindow;
use crate::content::{ChunkIndex, Geometry};

/// How many chunks a window has at least: one that is read, and one that is fetched
/// meanwhile.
const MIN_CHUNKS: u64 = 2;

/// The window of a content that passes through.
#[derive(Debug)]
pub(super) struct Passage {
    /// In bytes.
    window: u64,
    /// The reader has passed the chunks before this one.
    first: u32,
}

impl Passage {
    pub(super) fn new(window: u64) -> Self {
        Self { window, first: 0 }
    }

    /// Whether a chunk stays here, once it has come.
    pub(super) fn holds(&self, chunk: ChunkIndex) -> bool {
        chunk.0 >= self.first
    }

    /// The first chunk that stays here.
    pub(super) fn first(&self) -> ChunkIndex {
        ChunkIndex(self.first)
    }

    /// The first reader is there. Returns the chunks that are here no longer because of
    /// that.
    pub(super) fn passed(&mut self, readers: &[ReadWindow], geometry: &Geometry) -> Range<u32> {
        let position = readers.first().map_or(0, |reader| reader.position);
        let first = match position >= geometry.length() {
            true => geometry.chunks(),
            // No content has more chunks.
            false => u32::try_from(position / geometry.chunk_len()).unwrap_or(u32::MAX),
        };
        let before = self.first;
        self.first = before.max(first);
        before..self.first
    }

    /// How many of the first chunks may be here by now, or have been: those up to the end
    /// of the window, which begins with the chunk that the first reader is at.
    pub(super) fn chunks(&self, readers: &[ReadWindow], geometry: &Geometry) -> u32 {
        let position = readers.first().map_or(0, |reader| reader.position);
        let first = position / geometry.chunk_len();
        let wide = (self.window / geometry.chunk_len()).max(MIN_CHUNKS);
        let end = first.saturating_add(wide).min(geometry.chunks().into());
        // No content has more chunks.
        u32::try_from(end).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_never_wider_than_allowed_and_two_chunks_at_least() {
        const LEN: u64 = 16 << 10;
        let geometry = Geometry::of(10 * LEN).unwrap();
        let at = |window, position| {
            let reader = ReadWindow::new(position, 1, None);
            Passage::new(window).chunks(&[reader], &geometry)
        };
        assert_eq!((at(0, 0), at(3 * LEN, 0), at(4 * LEN - 1, 0)), (2, 3, 3));
        assert_eq!((at(3 * LEN, LEN - 1), at(3 * LEN, LEN)), (3, 4));
        assert_eq!((at(3 * LEN, 9 * LEN), at(u64::MAX, 0)), (10, 10));
        assert_eq!(Passage::new(3 * LEN).chunks(&[], &geometry), 3);
    }
}
