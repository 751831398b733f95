//! The manifest of a content, which a leecher needs to verify chunks.
//!
//! BLAKE3 hashes a binary tree. The length of a chunk is a power of two of at
//! least 1 KiB, so each chunk is a subtree, and the hash of a chunk is the
//! chaining value of that subtree. Merging the hashes of all chunks gives the
//! content id. So a manifest can be checked against an id without any content,
//! and a chunk against the manifest without any other chunk.
//!
//! The merge alone does not prove the *length*: a peer could present inner
//! nodes as chunks, or the last chunk as a longer one, and the hashes would
//! still merge to the id. So a manifest contains a [`LengthProof`]: the last leaf
//! of the tree (at most 1 KiB of content), and the siblings on the path from the
//! leaf to the hash of the last chunk. A leaf is hashed with its position, its
//! length, and a flag that no inner node has. So a right edge that ends in a
//! valid leaf at the claimed position exists for one length only. Every
//! [`Manifest`] value has been checked.
//!
//! The manifest of a torrent has the digests of its metainfo instead, and its length is
//! in there as well: nothing of it can be fetched by this crate's own protocol, and
//! [`Manifest::verify`] is the same for both.

use std::io::{self, Read};
use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{self, HasherExt, Mode};
use bytes::Bytes;
use thiserror::Error;

use super::{ChunkIndex, ContentId, Geometry, TooLong};
#[cfg(feature = "bittorrent")]
use super::{PieceDigests, PieceDigestsError};

/// The hash of a chunk: the chaining value of its subtree. For a content with a
/// single chunk it is the content id itself.
pub type ChunkHash = [u8; 32];

/// The length of a leaf of the BLAKE3 tree, in bytes.
pub(super) const LEAF_LEN: u64 = blake3::CHUNK_LEN as u64;

/// How many bytes [`Manifest::from_reader`] reads at a time.
const READ_LEN: usize = 256 << 10;

/// The chunk hashes, the length, and the proof of the length of a content:
/// everything that is needed to verify each chunk by itself.
///
/// A value of this type is always consistent: its hashes merge to its id, and its
/// length is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    id: ContentId,
    geometry: Geometry,
    digests: Digests,
    /// Empty for a torrent.
    proof: LengthProof,
}

/// By what the chunks are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Digests {
    /// The chunk hashes one after the other, so that a page of them can be sent
    /// without a copy.
    Hashes(Bytes),
    #[cfg(feature = "bittorrent")]
    Pieces(PieceDigests),
}

/// Proves the length of a content: its last leaf, and the siblings with which the
/// leaf is merged to the hash of the last chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LengthProof {
    /// The last leaf: the last 1 to 1024 bytes of the content, from a multiple
    /// of 1024 on. Empty for empty content.
    pub leaf: Bytes,
    /// The left siblings of the leaf inside the last chunk, from the largest
    /// subtree to the smallest.
    pub siblings: Vec<ChunkHash>,
}

/// Why a manifest or a content is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The content is too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The number of hashes does not match the length.
    #[error("the manifest has {found} hashes, but a content of this length has {expected} chunks")]
    Chunks {
        /// The actual number of hashes.
        found: usize,
        /// The correct number of hashes.
        expected: u32,
    },
    /// The hashes do not merge to the content id.
    #[error("the chunk hashes do not merge to the content id")]
    Mismatch,
    /// The proof of the length is wrong.
    #[error("the manifest does not prove its length of {length} bytes")]
    Length {
        /// The claimed length in bytes.
        length: u64,
    },
    /// The content is shorter or longer than announced.
    #[error("the content should have {expected} bytes, but has {found}")]
    Content {
        /// How many bytes were read. For a content that is too long, this is
        /// the number when it was detected.
        found: u64,
        /// How many bytes were announced.
        expected: u64,
    },
}

/// Why reading a content for its manifest failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The reader failed.
    #[error("reading the content failed: {0}")]
    Io(#[from] io::Error),
    /// The content has another length than announced, or is too long.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Manifest {
    /// Makes a manifest of its fields, if the hashes merge to the id and the
    /// proof proves the length.
    ///
    /// # Errors
    /// [`ManifestError`]: these values are not the manifest of this id.
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
            digests: Digests::Hashes(hashes.into_flattened().into()),
            proof,
        })
    }

    /// What the pieces of a torrent must be. `id` is
    /// [derived](ContentId::of_torrent_v1) from its info hash, which is not checked here:
    /// it is that of the metainfo in which the digests are.
    ///
    /// # Errors
    /// [`PieceDigestsError`]: these are not the digests of so many pieces of this length.
    #[cfg(feature = "bittorrent")]
    pub fn torrent(
        id: ContentId,
        geometry: Geometry,
        digests: PieceDigests,
    ) -> Result<Self, PieceDigestsError> {
        digests.check(geometry)?;
        Ok(Self {
            id,
            geometry,
            digests: Digests::Pieces(digests),
            proof: LengthProof {
                leaf: Bytes::new(),
                siblings: Vec::new(),
            },
        })
    }

    /// The manifest of these bytes.
    ///
    /// # Errors
    /// [`ManifestError::TooLong`].
    pub fn of(content: &[u8]) -> Result<Self, ManifestError> {
        let mut builder = ManifestBuilder::new(content.len() as u64)?;
        builder.update(content)?;
        builder.finish()
    }

    /// The manifest of a reader, which must yield exactly `length` bytes. The
    /// content is read in pieces of at most 256 KiB, and never held as a whole.
    ///
    /// # Errors
    /// [`ReadError`] when reading fails, or the length differs.
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

    /// The id of the content.
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// How the content is cut into chunks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The hashes of all chunks, in order. A [torrent](Self::is_torrent) has none of these.
    pub fn hashes(&self) -> &[ChunkHash] {
        match &self.digests {
            Digests::Hashes(hashes) => hashes.as_chunks().0,
            #[cfg(feature = "bittorrent")]
            Digests::Pieces(_) => &[],
        }
    }

    /// The hashes of these chunks, one after the other, without a copy. Chunks
    /// that the content does not have are left out.
    pub(crate) fn hash_bytes(&self, chunks: Range<ChunkIndex>) -> Bytes {
        let len = self.hashes().as_flattened().len();
        let at = |chunk: ChunkIndex| {
            let offset = chunk.as_usize().saturating_mul(size_of::<ChunkHash>());
            offset.min(len)
        };
        let (start, end) = (at(chunks.start), at(chunks.end));
        match &self.digests {
            Digests::Hashes(hashes) => hashes.slice(start..end.max(start)),
            #[cfg(feature = "bittorrent")]
            Digests::Pieces(_) => Bytes::new(),
        }
    }

    /// The proof of the length. That of a torrent is empty.
    pub fn proof(&self) -> &LengthProof {
        &self.proof
    }

    /// Whether this is the manifest of a torrent. Then the id is not the hash of the
    /// bytes, and nothing of it can be sent or recorded as a manifest.
    pub fn is_torrent(&self) -> bool {
        match &self.digests {
            Digests::Hashes(_) => false,
            #[cfg(feature = "bittorrent")]
            Digests::Pieces(_) => true,
        }
    }

    /// How many bytes at the beginning of a chunk are data. Behind the data of a piece of
    /// a torrent there may be zeros that nobody sends.
    ///
    /// # Panics
    /// If the content has no such chunk.
    #[cfg(feature = "bittorrent")]
    pub fn data_len(&self, chunk: ChunkIndex) -> u64 {
        let len = self.geometry.len_of(chunk);
        match &self.digests {
            Digests::Hashes(_) => len,
            Digests::Pieces(digests) => digests.data_len(chunk).unwrap_or(len),
        }
    }

    /// Whether these bytes are this chunk. The chunk may be split into pieces;
    /// pieces of 16 KiB or more are hashed at full speed.
    ///
    /// All verification of chunks goes through this function.
    pub fn verify<'a>(
        &self,
        chunk: ChunkIndex,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> bool {
        if !self.geometry.contains(chunk) {
            return false;
        }
        let range = self.geometry.range_of(chunk);
        let mut left = Some(range.end - range.start);
        // No more than the chunk has is hashed.
        let pieces = pieces.into_iter().take_while(|piece| {
            left = left.and_then(|left| left.checked_sub(piece.len() as u64));
            left.is_some()
        });
        match &self.digests {
            Digests::Hashes(hashes) => {
                let mut hasher = Hasher::new();
                hasher.set_input_offset(range.start);
                for piece in pieces {
                    hasher.update(piece);
                }
                // There is no hash of another number of bytes here.
                if left != Some(0) {
                    return false;
                }
                let hash = finalize(&hasher, self.geometry.chunks() == 1);
                hashes.as_chunks().0.get(chunk.as_usize()) == Some(&hash)
            }
            #[cfg(feature = "bittorrent")]
            Digests::Pieces(digests) => digests.verify(chunk, pieces) && left == Some(0),
        }
    }
}

impl LengthProof {
    /// The number of siblings, and the length of the leaf in bytes, in the proof
    /// of this length.
    pub fn shape(geometry: &Geometry) -> (usize, usize) {
        let subtrees = last_chunk_subtrees(geometry);
        let leaf = subtrees[subtrees.len() - 1].clone();
        (subtrees.len() - 1, (leaf.end - leaf.start) as usize)
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

/// Builds a [`Manifest`] from the bytes of a content, in order and in pieces of
/// any size. It keeps at most one leaf of the content.
#[derive(Debug)]
pub struct ManifestBuilder {
    geometry: Geometry,
    /// The hashes of the chunks that are complete.
    hashes: Vec<ChunkHash>,
    /// The last chunk is hashed in these subtrees, the last of which is the leaf.
    last_subtrees: Vec<Range<u64>>,
    /// The hashes of those subtrees of the last chunk that are complete.
    siblings: Vec<ChunkHash>,
    leaf: Vec<u8>,
    /// Hashes the current subtree.
    hasher: Hasher,
    /// How many bytes of the content came so far.
    at: u64,
}

impl ManifestBuilder {
    /// Starts the manifest of a content of `length` bytes.
    ///
    /// # Errors
    /// [`ManifestError::TooLong`].
    pub fn new(length: u64) -> Result<Self, ManifestError> {
        let geometry = Geometry::of(length)?;
        let hashes = Vec::with_capacity(geometry.chunks() as usize);
        Ok(Self::behind(geometry, hashes))
    }

    /// Goes on behind the chunks that have these hashes.
    pub(crate) fn behind(geometry: Geometry, hashes: Vec<ChunkHash>) -> Self {
        let at = geometry.offset_of(ChunkIndex(hashes.len() as u32));
        let mut hasher = Hasher::new();
        hasher.set_input_offset(at);
        Self {
            geometry,
            hashes,
            last_subtrees: last_chunk_subtrees(&geometry),
            siblings: Vec::new(),
            leaf: Vec::new(),
            hasher,
            at,
        }
    }

    /// How many bytes of the content came so far.
    pub(crate) fn hashed(&self) -> u64 {
        self.at
    }

    /// Adds the next piece of the content.
    ///
    /// # Errors
    /// [`ManifestError::Content`] if the content is longer than announced.
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
            if subtree.end == length && self.siblings.len() + 1 == self.last_subtrees.len() {
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

    /// The manifest of the content.
    ///
    /// # Errors
    /// [`ManifestError::Content`] if the content is shorter than announced.
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
            digests: Digests::Hashes(self.hashes.into_flattened().into()),
            proof: LengthProof {
                leaf: self.leaf.into(),
                siblings: self.siblings,
            },
        })
    }

    /// The bytes of the subtree that is being hashed.
    fn subtree(&self) -> Range<u64> {
        let chunk = ChunkIndex(self.hashes.len() as u32);
        if chunk == self.geometry.last() {
            self.last_subtrees[self.siblings.len()].clone()
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

/// The subtrees of the last chunk along its right edge: complete subtrees from
/// the largest to the smallest, then the last leaf.
fn last_chunk_subtrees(geometry: &Geometry) -> Vec<Range<u64>> {
    let Range { mut start, end } = geometry.range_of(geometry.last());
    let mut subtrees = Vec::new();
    while end - start > LEAF_LEN {
        let left = hazmat::left_subtree_len(end - start);
        subtrees.push(start..start + left);
        start += left;
    }
    subtrees.push(start..end);
    subtrees
}

/// The content id to which these chunk hashes merge.
pub(super) fn merge(hashes: &[ChunkHash]) -> ChunkHash {
    match hashes {
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(left_half(hashes.len()));
            *hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    }
}

/// The hash to which these chunk hashes merge below the root.
pub(super) fn subtree(hashes: &[ChunkHash]) -> ChunkHash {
    match hashes {
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(left_half(hashes.len()));
            hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// How many of these chunks are in the left subtree. In BLAKE3 the number of
/// leaves on the left is the largest power of two that leaves at least one leaf
/// for the right side. The number of leaves in a chunk is a power of two, so the
/// same holds for chunks.
fn left_half(chunks: usize) -> usize {
    chunks.next_power_of_two() / 2
}

/// The hash of the last chunk: its last leaf, merged with the siblings on its
/// left, which are ordered from the largest subtree to the smallest.
pub(super) fn right_edge(leaf: &Hasher, siblings: &[ChunkHash], is_root: bool) -> ChunkHash {
    let Some((largest, rest)) = siblings.split_first() else {
        return finalize(leaf, is_root);
    };
    let right = rest
        .iter()
        .rev()
        .fold(leaf.finalize_non_root(), |right, left| {
            hazmat::merge_subtrees_non_root(left, &right, Mode::Hash)
        });
    if is_root {
        *hazmat::merge_subtrees_root(largest, &right, Mode::Hash).as_bytes()
    } else {
        hazmat::merge_subtrees_non_root(largest, &right, Mode::Hash)
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
    fn hashes_of_some_chunks_are_a_slice_of_the_manifest() {
        let content = vec![7; 5 * MIN_CHUNK_LEN as usize + 1];
        let manifest = Manifest::of(&content).unwrap();
        let all = manifest.hashes().as_flattened();
        assert_eq!(all.len(), 6 * size_of::<ChunkHash>());
        for start in 0..8 {
            for end in 0..8 {
                let page = manifest.hash_bytes(ChunkIndex(start)..ChunkIndex(end));
                let expected = manifest.hashes().iter().take(end as usize);
                let expected: Vec<_> = expected.skip(start as usize).copied().collect();
                assert_eq!(page, expected.as_flattened());
                if !page.is_empty() {
                    assert_eq!(page.as_ptr(), all[start as usize * 32..].as_ptr());
                }
            }
        }
        let most = ChunkIndex(0)..ChunkIndex(u32::MAX);
        assert_eq!(manifest.hash_bytes(most), all);
    }
}
