//! The files of a torrent, as far as it matters for what is wanted of it.

use std::ops::Range;

use crate::bittorrent::Metainfo;
use crate::content::{Bitfield, ChunkIndex, FolderPath, Geometry};

/// The files of a torrent, in its order.
#[derive(Debug)]
pub(super) struct FileList {
    files: Vec<ListedFile>,
    geometry: Geometry,
}

/// One of them.
#[derive(Debug)]
pub(super) struct ListedFile {
    pub(super) path: FolderPath,
    /// Which bytes of the torrent it has.
    pub(super) range: Range<u64>,
    pub(super) kind: FileKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Data,
    Link,
    Padding,
}

impl ListedFile {
    /// Whether it is this, or within it.
    pub(super) fn is_within(&self, path: &FolderPath) -> bool {
        let rest = self.path.as_str().strip_prefix(path.as_str());
        let is_meant = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_meant && self.kind != FileKind::Padding
    }
}

impl FileList {
    pub(super) fn new(metainfo: &Metainfo, geometry: Geometry) -> Self {
        let files = metainfo.files().iter().map(|file| ListedFile {
            path: file.path().clone(),
            range: file.offset()..file.offset() + file.length(),
            kind: match () {
                () if file.is_padding() => FileKind::Padding,
                () if file.symlink_target().is_some() => FileKind::Link,
                () => FileKind::Data,
            },
        });
        Self {
            files: files.collect(),
            geometry,
        }
    }

    pub(super) fn files(&self) -> &[ListedFile] {
        &self.files
    }

    /// The pieces that have bytes of the chosen files.
    pub(super) fn pieces_of(&self, chosen: &[bool]) -> Bitfield {
        let mut pieces = Bitfield::none(self.geometry.chunks());
        let files = self.files.iter().zip(chosen);
        let data = files.filter(|(file, chosen)| **chosen && file.kind == FileKind::Data);
        for (file, _) in data {
            self.pieces_in(&file.range).for_each(|piece| {
                pieces.insert(piece);
            });
        }
        pieces
    }

    /// How many bytes of a file are in these pieces.
    pub(super) fn bytes_in(&self, file: &ListedFile, pieces: &Bitfield) -> u64 {
        let here = self.pieces_in(&file.range);
        let here = here.filter(|piece| pieces.contains(*piece)).map(|piece| {
            let piece = self.geometry.range_of(piece);
            piece.end.min(file.range.end) - piece.start.max(file.range.start)
        });
        here.sum()
    }

    /// What says of each file of this kind whether it is chosen.
    pub(super) fn of_kind(&self, kind: FileKind, chosen: &[bool]) -> Vec<bool> {
        let files = self.files.iter().zip(chosen);
        let of_kind = files.filter(|(file, _)| file.kind == kind);
        of_kind.map(|(_, chosen)| *chosen).collect()
    }

    /// All pieces.
    pub(super) fn all(&self) -> Bitfield {
        Bitfield::all(self.geometry.chunks())
    }

    /// No piece.
    pub(super) fn none(&self) -> Bitfield {
        Bitfield::none(self.geometry.chunks())
    }

    fn pieces_in(&self, range: &Range<u64>) -> impl Iterator<Item = ChunkIndex> + use<> {
        let len = self.geometry.chunk_len();
        let first = range.start / len;
        let end = match range.is_empty() {
            true => first,
            false => range.end.div_ceil(len),
        };
        // No torrent has more pieces.
        (first..end).map(|piece| ChunkIndex(piece as u32))
    }
}
