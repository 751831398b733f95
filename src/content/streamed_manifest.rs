//! The manifest of bytes whose number is known only at their end.
//!
//! The length of a chunk follows from that of the content. So the bytes are hashed in
//! units of the shortest chunk, and pairs of units are merged into one as soon as the
//! content is too long for chunks of that length. What is kept are as many hashes as a
//! content has chunks, and one unit of bytes: the last one, in which the proof of the
//! length ends.

use blake3::Hasher;
use blake3::hazmat::{self, HasherExt, Mode};

use super::manifest::{LEAF_LEN, merge, right_edge};
use super::{
    ChunkHash, ContentId, Geometry, LengthProof, MAX_CHUNK_LEN, MAX_CONTENT_LEN, MIN_CHUNK_LEN,
    Manifest, ManifestError, TARGET_CHUNKS, TooLong,
};

/// Builds a [`Manifest`] from bytes that come in order.
#[derive(Debug)]
pub(crate) struct StreamedManifest {
    /// The hashes of complete units, each of `unit` bytes.
    hashes: Vec<ChunkHash>,
    unit: u64,
    /// What is complete behind them and shorter than a unit: from the longest to the
    /// shortest, each with its length, a different power of two.
    rest: Vec<(u64, ChunkHash)>,
    /// The last bytes, at most [`MIN_CHUNK_LEN`]. Empty only at the start.
    tail: Vec<u8>,
    /// How many bytes came so far.
    len: u64,
}

impl StreamedManifest {
    pub(crate) fn new() -> Self {
        Self {
            hashes: Vec::new(),
            unit: MIN_CHUNK_LEN,
            rest: Vec::new(),
            tail: Vec::new(),
            len: 0,
        }
    }

    /// Adds the next piece.
    ///
    /// # Errors
    /// [`ManifestError::TooLong`].
    pub(crate) fn update(&mut self, mut piece: &[u8]) -> Result<(), ManifestError> {
        let length = self.len.saturating_add(piece.len() as u64);
        if length > MAX_CONTENT_LEN {
            return Err(TooLong { length }.into());
        }
        while !piece.is_empty() {
            if self.tail.len() as u64 == MIN_CHUNK_LEN {
                let hash = hash_at(self.len - MIN_CHUNK_LEN, &self.tail);
                self.tail.clear();
                self.push(MIN_CHUNK_LEN, hash);
            }
            let room = MIN_CHUNK_LEN as usize - self.tail.len();
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.tail.extend_from_slice(now);
            self.len += now.len() as u64;
            piece = later;
        }
        Ok(())
    }

    /// Adds the hash of the next `len` bytes.
    fn push(&mut self, mut len: u64, mut hash: ChunkHash) {
        while len < self.unit
            && let Some((left, left_hash)) = self.rest.pop_if(|(left, _)| *left == len)
        {
            hash = pair(&left_hash, &hash);
            len += left;
        }
        if len < self.unit {
            return self.rest.push((len, hash));
        }
        self.hashes.push(hash);
        if self.hashes.len() as u64 > TARGET_CHUNKS && self.unit < MAX_CHUNK_LEN {
            self.double();
        }
    }

    /// Makes the units twice as long.
    fn double(&mut self) {
        let (pairs, odd) = self.hashes.as_chunks::<2>();
        let odd = odd.first().map(|odd| (self.unit, *odd));
        let pairs = pairs.iter().map(|[left, right]| pair(left, right));
        self.hashes = pairs.collect();
        self.rest.splice(..0, odd);
        self.unit *= 2;
    }

    /// The manifest of all bytes.
    ///
    /// # Errors
    /// Those of [`Geometry::of`].
    pub(crate) fn finish(mut self) -> Result<Manifest, ManifestError> {
        let geometry = Geometry::of(self.len)?;
        if geometry.chunks() == 1 {
            return Manifest::of(&self.tail);
        }
        while self.unit < geometry.chunk_len() {
            self.double();
        }
        let mut siblings: Vec<ChunkHash> = self.rest.iter().map(|(_, hash)| *hash).collect();
        let mut at = self.len - self.tail.len() as u64;
        let mut left = &self.tail[..];
        while left.len() as u64 > LEAF_LEN {
            let len = hazmat::left_subtree_len(left.len() as u64);
            let (subtree, rest) = left.split_at(len as usize);
            siblings.push(hash_at(at, subtree));
            (at, left) = (at + len, rest);
        }
        let last = right_edge(&hasher_at(at, left), &siblings, false);
        self.hashes.push(last);
        let proof = LengthProof {
            leaf: left.to_vec().into(),
            siblings,
        };
        let id = ContentId::from_bytes(merge(&self.hashes));
        Manifest::check(id, self.len, self.hashes, proof)
    }
}

fn pair(left: &ChunkHash, right: &ChunkHash) -> ChunkHash {
    hazmat::merge_subtrees_non_root(left, right, Mode::Hash)
}

fn hasher_at(offset: u64, bytes: &[u8]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(bytes);
    hasher
}

fn hash_at(offset: u64, bytes: &[u8]) -> ChunkHash {
    hasher_at(offset, bytes).finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(bytes: &[u8], pieces: usize) -> Manifest {
        let mut streamed = StreamedManifest::new();
        for piece in bytes.chunks(pieces) {
            streamed.update(piece).unwrap();
        }
        streamed.finish().unwrap()
    }

    #[test]
    fn manifest_is_that_of_the_same_bytes_at_once() {
        let unit = MIN_CHUNK_LEN as usize;
        let target = TARGET_CHUNKS as usize;
        // The chunks get longer at a thousand of them, and again at twice as many.
        let around = [
            0,
            1,
            2,
            3,
            5,
            8,
            target,
            target + 1,
            2 * target,
            2 * target + 3,
            3 * target,
        ];
        let more = [0, 1, 1023, 1024, 1025, 5000, 8192, unit - 1];
        let mut bytes = vec![0; 3 * target * unit + unit];
        fastrand::Rng::with_seed(3).fill(&mut bytes);
        for units in around {
            for more in more {
                let bytes = &bytes[..units * unit + more];
                let expected = Manifest::of(bytes).unwrap();
                assert_eq!(streamed(bytes, 100_003), expected, "{units} {more}");
            }
        }
        let bytes = &bytes[..5 * unit + 77];
        for pieces in [1, 1000, unit, unit + 1] {
            assert_eq!(streamed(bytes, pieces), Manifest::of(bytes).unwrap());
        }
    }

    #[test]
    fn too_many_bytes_are_refused_and_the_hashes_are_bounded() {
        let mut streamed = StreamedManifest::new();
        streamed.update(&[1; 3]).unwrap();
        streamed.len = MAX_CONTENT_LEN;
        let refused = streamed.update(&[1]);
        assert!(
            matches!(refused, Err(ManifestError::TooLong(_))),
            "{refused:?}"
        );
        let mut streamed = StreamedManifest::new();
        for n in 0..5 * TARGET_CHUNKS {
            streamed.push(MIN_CHUNK_LEN, [n as u8; 32]);
            assert!(streamed.hashes.len() as u64 <= TARGET_CHUNKS);
        }
    }
}
