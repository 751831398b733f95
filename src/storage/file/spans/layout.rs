//! Which bytes of a content lie in which file.

use std::ops::Range;

use bytes::Bytes;

use crate::content::{Bitfield, ChunkIndex, FolderPath, Geometry};

/// One file of a content that lies in several files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpannedFile {
    /// Where it lies, in the directory of the content.
    pub(crate) path: FolderPath,
    /// Which bytes of the content it has. It may be empty.
    pub(crate) range: Range<u64>,
    pub(crate) executable: bool,
}

/// A symbolic link beside the files of such a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpannedLink {
    /// Where it lies, in the directory of the content.
    pub(crate) path: FolderPath,
    /// What it says. It has been checked: it leads nowhere but to these files and folders.
    pub(crate) target: String,
}

/// A part of the content that lies in one file, or in none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of the file. `None` for padding, which reads as zeros.
    pub(super) file: Option<usize>,
    /// Where it begins in the file.
    pub(super) at: u64,
    pub(super) len: usize,
}

/// All files of a content, in the order of their bytes, none over another.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) files: Vec<SpannedFile>,
    pub(super) links: Vec<SpannedLink>,
    pub(super) length: u64,
}

impl Layout {
    /// Cuts a range of the content at the borders of files.
    pub(super) fn parts(&self, offset: u64, len: usize) -> Vec<Part> {
        let end = offset + len as u64;
        let first = self.files.partition_point(|file| file.range.end <= offset);
        let mut parts = Vec::new();
        let mut at = offset;
        let pad = |at: &mut u64, to: u64| {
            if *at < to {
                let len = (to - *at) as usize;
                *at = to;
                return Some(Part {
                    file: None,
                    at: 0,
                    len,
                });
            }
            None
        };
        for (number, file) in self.files.iter().enumerate().skip(first) {
            if file.range.start >= end {
                break;
            }
            parts.extend(pad(&mut at, file.range.start));
            let to = file.range.end.min(end);
            if at < to {
                parts.push(Part {
                    file: Some(number),
                    at: at - file.range.start,
                    len: (to - at) as usize,
                });
                at = to;
            }
        }
        parts.extend(pad(&mut at, end));
        parts
    }

    /// The chunks of which every byte is padding, or in a file of which `has` says that the
    /// bytes of that chunk are there.
    pub(super) fn chunks_in(
        &self,
        geometry: Geometry,
        has: impl Fn(usize, ChunkIndex) -> bool,
    ) -> Bitfield {
        let mut chunks = Bitfield::all(geometry.chunks());
        for (number, file) in self.files.iter().enumerate() {
            for chunk in chunks_of(&file.range, geometry) {
                if !has(number, chunk) {
                    chunks.remove(chunk);
                }
            }
        }
        chunks
    }
}

/// The chunks that have bytes of this range.
pub(super) fn chunks_of(
    range: &Range<u64>,
    geometry: Geometry,
) -> impl Iterator<Item = ChunkIndex> + use<> {
    let first = range.start / geometry.chunk_len();
    let end = match range.is_empty() {
        true => first,
        false => range.end.div_ceil(geometry.chunk_len()),
    };
    // No content has more chunks.
    (first..end).map(|chunk| ChunkIndex(chunk as u32))
}

/// The bytes of a range of what these pieces are together, without a copy.
pub(super) fn cut(pieces: &[Bytes], mut from: usize, mut len: usize) -> Vec<Bytes> {
    let mut cut = Vec::new();
    for piece in pieces {
        if len == 0 {
            break;
        }
        if from >= piece.len() {
            from -= piece.len();
            continue;
        }
        let now = (piece.len() - from).min(len);
        cut.push(piece.slice(from..from + now));
        (from, len) = (0, len - now);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let file = |path: &str, range| SpannedFile {
            path: path.parse().unwrap(),
            range,
            executable: false,
        };
        let files = vec![
            file("a", 0..5),
            file("empty", 5..5),
            file("b", 8..10),
            file("c", 10..30),
        ];
        Layout {
            files,
            links: Vec::new(),
            length: 32,
        }
    }

    #[test]
    fn ranges_are_cut_at_the_borders_of_files_and_padding() {
        let part = |file, at, len| Part { file, at, len };
        let all = [
            part(Some(0), 0, 5),
            part(None, 0, 3),
            part(Some(2), 0, 2),
            part(Some(3), 0, 20),
            part(None, 0, 2),
        ];
        assert_eq!(layout().parts(0, 32), all);
        assert_eq!(
            layout().parts(4, 3),
            [part(Some(0), 4, 1), part(None, 0, 2)]
        );
        assert_eq!(layout().parts(12, 2), [part(Some(3), 2, 2)]);
        assert_eq!(layout().parts(30, 2), [part(None, 0, 2)]);
    }

    #[test]
    fn chunk_is_there_if_all_its_files_are() {
        let geometry = Geometry::of(48 << 10).unwrap();
        let len = geometry.chunk_len();
        let file = |path: &str, range| SpannedFile {
            path: path.parse().unwrap(),
            range,
            executable: false,
        };
        let layout = Layout {
            files: vec![file("a", 0..len + 1), file("b", len + 1..3 * len)],
            links: Vec::new(),
            length: 3 * len,
        };
        let chunks = |has: &dyn Fn(usize) -> bool| {
            let there = layout.chunks_in(geometry, |file, _| has(file));
            there.iter().map(|chunk| chunk.0).collect::<Vec<_>>()
        };
        assert_eq!(chunks(&|_| true), [0, 1, 2]);
        assert_eq!(chunks(&|file| file == 0), [0]);
        assert_eq!(chunks(&|file| file == 1), [2]);
        assert_eq!(chunks(&|_| false), Vec::<u32>::new());
        let there = layout.chunks_in(geometry, |file, chunk| file == 1 || chunk.0 == 1);
        assert_eq!(
            there.iter().map(|chunk| chunk.0).collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[test]
    fn pieces_are_cut_without_losing_a_byte() {
        let pieces = [&b"abc"[..], b"", b"de", b"fgh"].map(Bytes::from_static);
        for from in 0..=8 {
            for len in 0..=8 - from {
                let joined = cut(&pieces, from, len).concat();
                assert_eq!(joined, b"abcdefgh"[from..from + len]);
            }
        }
    }
}
