//! The hashes of parts of a content, each computed for itself, and in any order.
//!
//! A part of a chunk that is as long as a power of two and begins at a multiple of its length
//! is a subtree of BLAKE3, and the chunk is a tree of those. The last chunk is left out: what
//! proves the length of the content is hashed with it, by
//! [`ManifestBuilder`](super::ManifestBuilder).

use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::HasherExt;

use super::geometry::Geometry;
use super::manifest::{ChunkHash, subtree};

/// How long a part is at most, in bytes: so long that handing it over costs little beside
/// its hash, and so short that it stays in the caches.
pub(crate) const PART_LEN: u64 = 1 << 20;

/// The parts before the last chunk, in order, all of [`PART_LEN`]: some whole chunks each, or
/// one of the equal parts of one. What is behind them is less than a part and a chunk.
pub(crate) fn parts(geometry: &Geometry) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = geometry.offset_of(geometry.last()) / PART_LEN * PART_LEN;
    let starts = (0..end).step_by(PART_LEN as usize);
    starts.map(|start| start..start + PART_LEN)
}

/// The hashes of a part that begins at this offset: those of its chunks, or its own if it is a
/// part of one.
pub(crate) fn hash_part(geometry: &Geometry, offset: u64, part: &[u8]) -> Vec<ChunkHash> {
    let len = geometry.chunk_len().min(PART_LEN);
    let hashed = (offset..)
        .step_by(len as usize)
        .zip(part.chunks(len as usize));
    let hashed = hashed.map(|(offset, bytes)| {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset);
        hasher.update(bytes);
        hasher.finalize_non_root()
    });
    hashed.collect()
}

/// Joins the hashes of parts, which come in order, to those of chunks.
#[derive(Debug)]
pub(crate) struct Joined {
    parts_of_chunk: usize,
    /// Those of the chunk that is not whole yet.
    parts: Vec<ChunkHash>,
    chunks: Vec<ChunkHash>,
}

impl Joined {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self {
            parts_of_chunk: geometry.chunk_len().div_ceil(PART_LEN) as usize,
            parts: Vec::new(),
            chunks: Vec::with_capacity(geometry.chunks() as usize),
        }
    }

    /// Adds what [`hash_part`] says of the next part.
    pub(crate) fn add(&mut self, hashes: Vec<ChunkHash>) {
        for hash in hashes {
            self.parts.push(hash);
            if self.parts.len() == self.parts_of_chunk {
                self.chunks.push(subtree(&self.parts));
                self.parts.clear();
            }
        }
    }

    /// The hashes of the chunks that are whole.
    pub(crate) fn finish(self) -> Vec<ChunkHash> {
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{MAX_CHUNK_LEN, MIN_CHUNK_LEN, Manifest, ManifestBuilder};

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 % 251) as u8).collect()
    }

    /// The manifest from parts that were hashed last to first.
    fn in_parts(content: &[u8]) -> Manifest {
        let length = content.len() as u64;
        let geometry = Geometry::of(length).expect("it is short");
        let mut parts: Vec<Range<u64>> = parts(&geometry).collect();
        parts.reverse();
        let hashed = parts.into_iter().map(|part| {
            let bytes = &content[part.start as usize..part.end as usize];
            hash_part(&geometry, part.start, bytes)
        });
        let mut hashed: Vec<_> = hashed.collect();
        hashed.reverse();
        let mut joined = Joined::new(&geometry);
        hashed.into_iter().for_each(|hashes| joined.add(hashes));
        let mut builder = ManifestBuilder::behind(geometry, joined.finish());
        let behind = builder.hashed() as usize;
        assert!(content.len() - behind <= (PART_LEN + geometry.chunk_len()) as usize);
        builder
            .update(&content[behind..])
            .expect("it is not longer");
        builder.finish().expect("it is not shorter")
    }

    #[test]
    fn manifest_is_the_same_from_parts_of_every_kind() {
        let part = PART_LEN as usize;
        let chunk = MIN_CHUNK_LEN as usize;
        let lengths = [
            0,
            1,
            chunk - 1,
            chunk,
            chunk + 1,
            5 * chunk,
            part,
            part + 1,
            part + chunk,
            3 * part - 1,
            16 * part + 5,
            // Chunks of 32 KiB.
            17 * part,
        ];
        for length in lengths {
            let content = content(length);
            let expected = Manifest::of(&content).expect("it is short");
            let found = in_parts(&content);
            assert_eq!(found.id().as_bytes(), blake3::hash(&content).as_bytes());
            assert_eq!(found, expected, "{length}");
        }
    }

    #[test]
    fn long_chunk_is_the_tree_of_its_parts() {
        let length = 1024 * MAX_CHUNK_LEN;
        let geometry = Geometry::of(length).expect("it is not too long");
        assert_eq!(geometry.chunk_len(), MAX_CHUNK_LEN);
        let chunk = content(MAX_CHUNK_LEN as usize);
        let at = 5 * MAX_CHUNK_LEN;
        let of_parts = (at..).step_by(PART_LEN as usize);
        let of_parts = of_parts.zip(chunk.chunks(PART_LEN as usize));
        let mut joined = Joined::new(&geometry);
        of_parts.for_each(|(at, part)| joined.add(hash_part(&geometry, at, part)));
        let mut whole = Hasher::new();
        whole.set_input_offset(at);
        whole.update(&chunk);
        assert_eq!(joined.finish(), [whole.finalize_non_root()]);
    }
}
