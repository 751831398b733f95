//! What a reader of the content wants next.

use std::ops::Range;

use crate::content::Geometry;

/// What a reader of the content wants next: the bytes from its position on.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ReadWindow {
    /// Where it reads, in bytes from the start of the content.
    pub position: u64,
    /// How many bytes from there on are fetched before everything else.
    pub readahead: u64,
    /// How many bytes per second it takes; `None` if it takes whatever comes.
    pub rate: Option<f64>,
}

impl ReadWindow {
    /// The window of a reader.
    pub fn new(position: u64, readahead: u64, rate: Option<f64>) -> Self {
        Self {
            position,
            readahead,
            rate,
        }
    }

    /// The chunks that lie in the window, at least in part. Whoever reads ahead at all
    /// reads ahead to the next chunk at least.
    pub(super) fn chunks(&self, geometry: &Geometry) -> Range<u32> {
        let readahead = match self.readahead {
            0 => 0,
            some => some.max(geometry.chunk_len() + 1),
        };
        let end = self.position.saturating_add(readahead);
        let end = end.min(geometry.length());
        if self.position >= end {
            return 0..0;
        }
        let chunk_at = |byte: u64| (byte / geometry.chunk_len()) as u32;
        chunk_at(self.position)..chunk_at(end - 1) + 1
    }
}
