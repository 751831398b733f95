//! Where the bytes lie of files that nobody wants. This module does no I/O.
//!
//! A chunk may reach from a file that is wanted into one that is not. What lies there is kept
//! beside the files, in one for all: it has a slot for each chunk that has bytes of several
//! files, in the order of the chunks. So its layout follows from that of the content, whatever
//! is wanted of it at a time.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layout::Layout;
use crate::content::{ChunkIndex, Geometry};

/// Which files of a content are wanted, and which links beside them.
#[derive(Debug, Default)]
pub(crate) struct ChosenFiles(Mutex<Option<Chosen>>);

#[derive(Debug)]
struct Chosen {
    files: Vec<bool>,
    links: Vec<bool>,
}

impl ChosenFiles {
    /// From now on these are, in the order of the content. All, if there is nothing.
    pub(crate) fn set(&self, chosen: Option<(Vec<bool>, Vec<bool>)>) {
        *self.lock() = chosen.map(|(files, links)| Chosen { files, links });
    }

    pub(super) fn has_file(&self, number: usize) -> bool {
        let chosen = self.lock();
        let said = chosen.as_ref().map(|chosen| chosen.files.get(number));
        said.is_none_or(|said| said.is_some_and(|wanted| *wanted))
    }

    pub(super) fn has_link(&self, number: usize) -> bool {
        let chosen = self.lock();
        let said = chosen.as_ref().map(|chosen| chosen.links.get(number));
        said.is_none_or(|said| said.is_some_and(|wanted| *wanted))
    }

    /// Ignores poison: no change under this lock is left half done.
    fn lock(&self) -> MutexGuard<'_, Option<Chosen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chunks that have bytes of several files, and their slots.
#[derive(Debug)]
pub(super) struct Borders {
    /// In order.
    chunks: Vec<u32>,
    geometry: Geometry,
}

impl Borders {
    pub(super) fn new(layout: &Layout, geometry: Geometry) -> Self {
        let mut chunks: Vec<u32> = Vec::new();
        let mut before = None;
        for file in layout.files.iter().filter(|file| !file.range.is_empty()) {
            let first = chunk_at(geometry, file.range.start);
            if before == Some(first) && chunks.last() != Some(&first) {
                chunks.push(first);
            }
            before = Some(chunk_at(geometry, file.range.end - 1));
        }
        Self { chunks, geometry }
    }

    /// Whether a chunk has a slot.
    pub(super) fn contains(&self, chunk: ChunkIndex) -> bool {
        self.chunks.binary_search(&chunk.0).is_ok()
    }

    /// Whether a range of the content lies in chunks that have slots.
    pub(super) fn cover(&self, range: &Range<u64>) -> bool {
        self.cut(range)
            .iter()
            .all(|part| self.position(part).is_some())
    }

    /// The parts of a range of the content that lie in one chunk each.
    pub(super) fn cut(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let len = self.geometry.chunk_len();
        let mut parts = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = (at / len + 1) * len;
            parts.push(at..end.min(range.end));
            at = end;
        }
        parts
    }

    /// The bytes of a file that have slots: at most those of its first and its last chunk.
    pub(super) fn of(&self, file: &Range<u64>) -> Vec<Range<u64>> {
        if file.is_empty() {
            return Vec::new();
        }
        let ends = [file.start, file.end - 1].map(|at| chunk_at(self.geometry, at));
        let mut chunks = ends.to_vec();
        chunks.dedup();
        chunks.retain(|chunk| self.contains(ChunkIndex(*chunk)));
        let within = chunks.into_iter().map(|chunk| {
            let range = self.geometry.range_of(ChunkIndex(chunk));
            range.start.max(file.start)..range.end.min(file.end)
        });
        within.collect()
    }

    /// Where a part of one chunk lies, if that has a slot.
    pub(super) fn position(&self, part: &Range<u64>) -> Option<u64> {
        let chunk = chunk_at(self.geometry, part.start);
        let slot = self.chunks.binary_search(&chunk).ok()?;
        let len = self.geometry.chunk_len();
        Some(slot as u64 * len + part.start % len)
    }
}

/// The chunk that has this byte.
pub(super) fn chunk_at(geometry: Geometry, at: u64) -> u32 {
    // No content has more chunks.
    (at / geometry.chunk_len()) as u32
}

#[cfg(test)]
mod tests {
    use super::super::layout::SpannedFile;
    use super::*;

    #[test]
    fn chunks_of_several_files_have_slots() {
        let geometry = Geometry::of(5 * (16 << 10)).unwrap();
        let len = geometry.chunk_len();
        let file = |range| SpannedFile {
            path: "a".parse().unwrap(),
            range,
            executable: false,
        };
        // The first file ends in chunk 1, where two more are; the next begins with chunk 3.
        let files = vec![
            file(0..len + 5),
            file(len + 5..len + 5),
            file(len + 5..len + 9),
            file(len + 9..2 * len + 1),
            file(3 * len..5 * len - 1),
            file(5 * len - 1..5 * len),
        ];
        let layout = Layout {
            files,
            links: Vec::new(),
            length: 5 * len,
        };
        let borders = Borders::new(&layout, geometry);
        assert_eq!(borders.chunks, [1, 4]);
        let of = |number: usize| borders.of(&layout.files[number].range);
        let one = |range: Range<u64>| Vec::from_iter([range]);
        assert_eq!(of(0), one(len..len + 5));
        assert_eq!(of(1), []);
        assert_eq!(of(3), one(len + 9..2 * len));
        assert_eq!(of(4), one(4 * len..5 * len - 1));
        assert_eq!(borders.position(&(len + 9..len + 10)), Some(9));
        assert_eq!(borders.position(&(4 * len..5 * len)), Some(len));
        assert_eq!(borders.position(&(0..1)), None);
        assert!(borders.cover(&(len + 5..len + 9)));
        assert!(!borders.cover(&(len + 9..2 * len + 1)));
    }

    #[test]
    fn all_are_chosen_until_some_are() {
        let chosen = ChosenFiles::default();
        assert!(chosen.has_file(7) && chosen.has_link(0));
        chosen.set(Some((vec![false, true], Vec::new())));
        assert!(!chosen.has_file(0) && chosen.has_file(1) && !chosen.has_link(0));
        chosen.set(None);
        assert!(chosen.has_file(0));
    }
}
