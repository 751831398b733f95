//! The manifest: what a leecher must hold before it can verify anything.
//!
//! BLAKE3 is a binary tree. A chunk's length is a power of two of at least
//! 1 KiB, so each chunk is a subtree, and a chunk's hash is that subtree's
//! chaining value. Merging all of them gives the content id: a manifest is
//! checked against an id without any content, and a chunk against the manifest
//! without any other chunk.
//!
//! The merge alone does not bind the *length*: whoever passes off inner nodes
//! as chunks, or the last chunk as a longer one, still merges to the id. So a
//! manifest carries a [`LengthProof`]: the last leaf of the tree (at most 1 KiB
//! of content) and the siblings on its way up to the last chunk's hash. A leaf
//! is hashed with its position, its length, and a flag that no inner node has;
//! so a right edge that ends in a valid leaf at the claimed place exists for
//! one length only. A [`Manifest`] that exists is a manifest that was checked.

use std::io::{self, Read};
use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{self, HasherExt, Mode};
use bytes::Bytes;
use thiserror::Error;

use super::{ChunkIndex, ContentId, Geometry, TooLong};

/// A chunk's hash: the chaining value of its subtree, or, for content of a
/// single chunk, the content id itself.
pub type ChunkHash = [u8; 32];

/// The length of a leaf of the BLAKE3 tree, in bytes.
const LEAF_LEN: u64 = blake3::CHUNK_LEN as u64;

/// How many bytes [`Manifest::from_reader`] reads at a time.
const READ_LEN: usize = 256 << 10;

/// Length, chunk hashes, and the proof of the length: everything that is
/// needed to verify each chunk of a content by itself.
///
/// A value of this type is always consistent: its hashes merge to its id and
/// its length is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    id: ContentId,
    geometry: Geometry,
    /// The chunk hashes, one behind the other, so that a part of them is sent
    /// as it lies here.
    hashes: Bytes,
    proof: LengthProof,
}

/// Proves the length of a content: its last leaf, and what the leaf is merged
/// with on the way up to the last chunk's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LengthProof {
    /// The last 1 to 1024 bytes of the content (none for empty content):
    /// what follows the last multiple of 1024 before its end.
    pub leaf: Bytes,
    /// The left siblings of that leaf inside the last chunk, from the widest
    /// to the narrowest.
    pub siblings: Vec<ChunkHash>,
}

/// Why a manifest, or a content, is not what it claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The length is past the bound.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// Another number of hashes than the length asks for.
    #[error("a content of this length has {expected} chunks, and the manifest {found}")]
    Chunks {
        /// How many hashes there are.
        found: usize,
        /// How many there must be.
        expected: u32,
    },
    /// The hashes do not merge to the content id.
    #[error("the chunk hashes do not merge to the content id")]
    Mismatch,
    /// The length is not proven.
    #[error("the manifest does not prove its length of {length} bytes")]
    Length {
        /// The claimed length in bytes.
        length: u64,
    },
    /// The content is shorter or longer than was said.
    #[error("{expected} bytes of content were announced, and {found} came")]
    Content {
        /// How many bytes came (for a longer one, how many until it was noticed).
        found: u64,
        /// How many were announced.
        expected: u64,
    },
}

/// Why no manifest could be made of a reader.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The reader failed.
    #[error("reading the content failed: {0}")]
    Io(#[from] io::Error),
    /// The reader gave another number of bytes than announced, or too many.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Manifest {
    /// Takes a manifest apart and checks it: the hashes against the id, and
    /// the length against its proof.
    ///
    /// # Errors
    /// [`ManifestError`]; whoever sent these parts for this id lied.
    pub fn check(
        id: ContentId,
        length: u64,
        hashes: Vec<ChunkHash>,
        proof: LengthProof,
    ) -> Result<Self, ManifestError> {
        let geometry = Geometry::of(length)?;
        if hashes.len() != geometry.chunks() as usize {
            return Err(ManifestError::Chunks {
                found: hashes.len(),
                expected: geometry.chunks(),
            });
        }
        if merge(&hashes) != *id.as_bytes() {
            return Err(ManifestError::Mismatch);
        }
        if !proof.proves(&geometry, &hashes[hashes.len() - 1]) {
            return Err(ManifestError::Length { length });
        }
        Ok(Self {
            id,
            geometry,
            hashes: hashes.into_flattened().into(),
            proof,
        })
    }

    /// The manifest of content that is at hand as a whole.
    ///
    /// # Errors
    /// [`ManifestError::TooLong`] past the bound.
    pub fn of(content: &[u8]) -> Result<Self, ManifestError> {
        let mut builder = ManifestBuilder::new(content.len() as u64)?;
        builder.update(content)?;
        builder.finish()
    }

    /// The manifest of `length` bytes from a reader, which must end there. A
    /// part of [`MIN_CHUNK_LEN`](super::MIN_CHUNK_LEN) or more is in memory at
    /// a time, never the content.
    ///
    /// # Errors
    /// [`ReadError`] when reading fails, or the reader ends earlier or later.
    pub fn from_reader(mut reader: impl Read, length: u64) -> Result<Self, ReadError> {
        let mut builder = ManifestBuilder::new(length)?;
        let mut buffer = vec![0; READ_LEN];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(builder.finish()?),
                Ok(n) => builder.update(&buffer[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The identity of the content.
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// How the content is cut.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The hash of every chunk in order.
    pub fn hashes(&self) -> &[ChunkHash] {
        self.hashes.as_chunks().0
    }

    /// The hashes of these chunks, one behind the other, without a copy. Chunks
    /// that the content does not have are left out.
    pub(crate) fn hash_bytes(&self, chunks: Range<ChunkIndex>) -> Bytes {
        let at = |chunk: ChunkIndex| {
            let offset = chunk.as_usize().saturating_mul(size_of::<ChunkHash>());
            offset.min(self.hashes.len())
        };
        let (start, end) = (at(chunks.start), at(chunks.end));
        self.hashes.slice(start..end.max(start))
    }

    /// The proof of the length.
    pub fn proof(&self) -> &LengthProof {
        &self.proof
    }

    /// Whether these bytes are that chunk. The chunk may come in several
    /// pieces; pieces of 16 KiB or more are hashed at full speed.
    ///
    /// This is the one function behind which verification stands.
    pub fn verify<'a>(
        &self,
        chunk: ChunkIndex,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> bool {
        if !self.geometry.contains(chunk) {
            return false;
        }
        let range = self.geometry.range_of(chunk);
        let mut hasher = Hasher::new();
        hasher.set_input_offset(range.start);
        let mut left = range.end - range.start;
        for piece in pieces {
            match left.checked_sub(piece.len() as u64) {
                Some(rest) => left = rest,
                None => return false,
            }
            hasher.update(piece);
        }
        left == 0
            && finalize(&hasher, self.geometry.chunks() == 1) == self.hashes()[chunk.as_usize()]
    }
}

impl LengthProof {
    /// How many siblings and how long a leaf the proof of a length has.
    pub fn shape(geometry: &Geometry) -> (usize, usize) {
        let parts = last_chunk_parts(geometry);
        let leaf = parts[parts.len() - 1].clone();
        (parts.len() - 1, (leaf.end - leaf.start) as usize)
    }

    fn proves(&self, geometry: &Geometry, last_hash: &ChunkHash) -> bool {
        if Self::shape(geometry) != (self.siblings.len(), self.leaf.len()) {
            return false;
        }
        let mut hasher = Hasher::new();
        hasher.set_input_offset(geometry.length() - self.leaf.len() as u64);
        hasher.update(&self.leaf);
        *last_hash == right_edge(&hasher, &self.siblings, geometry.chunks() == 1)
    }
}

/// Builds a [`Manifest`] from content that arrives in order, in pieces of any
/// size, holding at most one leaf of it.
#[derive(Debug)]
pub struct ManifestBuilder {
    geometry: Geometry,
    /// The subtrees to hash, in order: each chunk but the last, then the parts
    /// of the last.
    hashes: Vec<ChunkHash>,
    last_parts: Vec<Range<u64>>,
    siblings: Vec<ChunkHash>,
    leaf: Vec<u8>,
    hasher: Hasher,
    at: u64,
}

impl ManifestBuilder {
    /// Starts the manifest of a content of `length` bytes.
    ///
    /// # Errors
    /// [`ManifestError::TooLong`] past the bound.
    pub fn new(length: u64) -> Result<Self, ManifestError> {
        let geometry = Geometry::of(length)?;
        Ok(Self {
            geometry,
            hashes: Vec::with_capacity(geometry.chunks() as usize),
            last_parts: last_chunk_parts(&geometry),
            siblings: Vec::new(),
            leaf: Vec::new(),
            hasher: Hasher::new(),
            at: 0,
        })
    }

    /// Takes the next piece of the content.
    ///
    /// # Errors
    /// [`ManifestError::Content`] for more bytes than were announced.
    pub fn update(&mut self, mut piece: &[u8]) -> Result<(), ManifestError> {
        let length = self.geometry.length();
        let end = self.at.saturating_add(piece.len() as u64);
        if end > length {
            return Err(ManifestError::Content {
                found: end,
                expected: length,
            });
        }
        while !piece.is_empty() {
            let subtree = self.subtree();
            let take = (subtree.end - self.at).min(piece.len() as u64);
            let (now, later) = piece.split_at(take as usize);
            self.hasher.update(now);
            if subtree.end == length && self.siblings.len() + 1 == self.last_parts.len() {
                self.leaf.extend_from_slice(now);
            }
            self.at += take;
            piece = later;
            if self.at == subtree.end && self.at < length {
                self.close_subtree();
            }
        }
        Ok(())
    }

    /// The manifest of all that came.
    ///
    /// # Errors
    /// [`ManifestError::Content`] for fewer bytes than were announced.
    pub fn finish(mut self) -> Result<Manifest, ManifestError> {
        let length = self.geometry.length();
        if self.at != length {
            return Err(ManifestError::Content {
                found: self.at,
                expected: length,
            });
        }
        let is_root = self.geometry.chunks() == 1;
        let last = right_edge(&self.hasher, &self.siblings, is_root);
        self.hashes.push(last);
        Ok(Manifest {
            id: ContentId::from_bytes(merge(&self.hashes)),
            geometry: self.geometry,
            hashes: self.hashes.into_flattened().into(),
            proof: LengthProof {
                leaf: self.leaf.into(),
                siblings: self.siblings,
            },
        })
    }

    /// The subtree that is being hashed.
    fn subtree(&self) -> Range<u64> {
        let chunk = ChunkIndex(self.hashes.len() as u32);
        if chunk == self.geometry.last() {
            self.last_parts[self.siblings.len()].clone()
        } else {
            self.geometry.range_of(chunk)
        }
    }

    fn close_subtree(&mut self) {
        let hash = self.hasher.finalize_non_root();
        let chunk = ChunkIndex(self.hashes.len() as u32);
        if chunk == self.geometry.last() {
            self.siblings.push(hash);
        } else {
            self.hashes.push(hash);
        }
        self.hasher = Hasher::new();
        self.hasher.set_input_offset(self.at);
    }
}

/// The last chunk as BLAKE3 cuts it along its right edge: complete subtrees
/// from the widest to the narrowest, then the last leaf.
fn last_chunk_parts(geometry: &Geometry) -> Vec<Range<u64>> {
    let Range { mut start, end } = geometry.range_of(geometry.last());
    let mut parts = Vec::new();
    while end - start > LEAF_LEN {
        let left = hazmat::left_subtree_len(end - start);
        parts.push(start..start + left);
        start += left;
    }
    parts.push(start..end);
    parts
}

/// The content id that these chunk hashes merge to.
fn merge(hashes: &[ChunkHash]) -> ChunkHash {
    match hashes {
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(left_half(hashes.len()));
            *hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    }
}

fn subtree(hashes: &[ChunkHash]) -> ChunkHash {
    match hashes {
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(left_half(hashes.len()));
            hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// BLAKE3 gives the left subtree the largest power of two of leaves that
/// leaves something for the right one; with chunks of a power of two of leaves
/// the same holds for chunks.
fn left_half(chunks: usize) -> usize {
    chunks.next_power_of_two() / 2
}

/// The hash of the last chunk: its last leaf, merged with the siblings to its
/// left, given from the widest to the narrowest.
fn right_edge(leaf: &Hasher, siblings: &[ChunkHash], is_root: bool) -> ChunkHash {
    let Some((widest, rest)) = siblings.split_first() else {
        return finalize(leaf, is_root);
    };
    let right = rest
        .iter()
        .rev()
        .fold(leaf.finalize_non_root(), |right, left| {
            hazmat::merge_subtrees_non_root(left, &right, Mode::Hash)
        });
    if is_root {
        *hazmat::merge_subtrees_root(widest, &right, Mode::Hash).as_bytes()
    } else {
        hazmat::merge_subtrees_non_root(widest, &right, Mode::Hash)
    }
}

fn finalize(hasher: &Hasher, is_root: bool) -> ChunkHash {
    if is_root {
        *hasher.finalize().as_bytes()
    } else {
        hasher.finalize_non_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::MIN_CHUNK_LEN;

    #[test]
    fn hashes_of_some_chunks_are_a_part_of_the_manifest_and_no_copy() {
        let content = vec![7; 5 * MIN_CHUNK_LEN as usize + 1];
        let manifest = Manifest::of(&content).unwrap();
        let all = manifest.hashes().as_flattened();
        assert_eq!(all.len(), 6 * size_of::<ChunkHash>());
        for start in 0..8 {
            for end in 0..8 {
                let part = manifest.hash_bytes(ChunkIndex(start)..ChunkIndex(end));
                let expected = manifest.hashes().iter().take(end as usize);
                let expected: Vec<_> = expected.skip(start as usize).copied().collect();
                assert_eq!(part, expected.as_flattened());
                if !part.is_empty() {
                    assert_eq!(part.as_ptr(), all[start as usize * 32..].as_ptr());
                }
            }
        }
        let most = ChunkIndex(0)..ChunkIndex(u32::MAX);
        assert_eq!(manifest.hash_bytes(most), all);
    }
}
