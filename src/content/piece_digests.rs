//! What the pieces of a torrent must be: SHA-1 hashes (version 1, BEP 3), or roots of
//! SHA-256 Merkle trees (version 2, BEP 52), or both (a hybrid torrent). Each piece is a
//! chunk of the content.
//!
//! The pieces of version 2 begin with a file, so the last piece of a file holds less
//! data than others. What is behind the data of a piece, up to where the next piece
//! begins, must be zeros here. In the tree they are not leaves of zeros: the *hashes* of
//! leaves without data are zero.

use std::sync::Arc;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::merkle::{Hash, TORRENT_LEAF_LEN, root};
use super::{ChunkIndex, Geometry};

type Sha1Hash = [u8; 20];

/// The digests of all pieces of a torrent. It is cheap to clone.
///
/// They are given as plain numbers, and are checked against the lengths of the pieces by
/// [`Manifest::torrent`](super::Manifest::torrent).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceDigests {
    v1: Option<Arc<[Sha1Hash]>>,
    v2: Option<Arc<[PieceRoot]>>,
}

/// A piece of a torrent of version 2: the root of its tree, and what it is the root of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceRoot {
    /// The hash in the `piece layers`; or the `pieces root` of a file that is not longer
    /// than a piece.
    pub root: [u8; 32],
    /// How many bytes of the file are in the piece: at least one. Zeros follow.
    pub data_len: u32,
    /// How many leaves the tree has: a power of two. All pieces of a file that is longer
    /// than a piece have as many as a full piece. The tree of a shorter file is only as
    /// large as its data needs.
    pub leaves: u32,
}

impl PieceRoot {
    /// Whether these bytes, without padding, are the piece.
    ///
    /// ```
    /// use bt_lite::bittorrent::{MetainfoBuilder, MetainfoFormat};
    ///
    /// let builder = MetainfoBuilder::file("a", 5)?.format(MetainfoFormat::V2);
    /// let torrent = builder.build(|_| Ok(&b"hello"[..]))?;
    /// let piece = torrent.piece_root(0).unwrap();
    /// assert!(piece.verify(b"hello") && !piece.verify(b"hallo"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self, data: &[u8]) -> bool {
        let mut tree = Tree::new(self);
        data.len() == self.data_len as usize && tree.update(data) && tree.root() == Some(self.root)
    }
}

/// Why digests are not those of the pieces of a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PieceDigestsError {
    /// The number of digests does not match the length.
    #[error("there are {found} digests, but a torrent of this length has {expected} pieces")]
    Pieces {
        /// The actual number of digests.
        found: usize,
        /// The correct number of digests.
        expected: u32,
    },
    /// A length that the pieces of version 2 cannot have.
    #[error(
        "a piece of a torrent of version 2 has a power of two of at least \
         {TORRENT_LEAF_LEN} bytes, not {piece_len}"
    )]
    Length {
        /// The length of a piece in bytes.
        piece_len: u64,
    },
    /// A piece of version 2 has no data, or more than there is room for.
    #[error("piece {piece} cannot have {data_len} bytes of data")]
    Data {
        /// The piece.
        piece: ChunkIndex,
        /// How many bytes of data it should have.
        data_len: u32,
    },
    /// The tree of a piece does not fit its data.
    #[error("the tree of piece {piece} cannot have {leaves} leaves")]
    Leaves {
        /// The piece.
        piece: ChunkIndex,
        /// How many leaves it should have.
        leaves: u32,
    },
}

impl PieceDigests {
    /// Those of a torrent of version 1: the SHA-1 hash of each piece, in order.
    pub fn v1(hashes: Vec<[u8; 20]>) -> Self {
        Self {
            v1: Some(hashes.into()),
            v2: None,
        }
    }

    /// Those of a torrent of version 2: the pieces of all files, in order.
    pub fn v2(pieces: Vec<PieceRoot>) -> Self {
        Self {
            v1: None,
            v2: Some(pieces.into()),
        }
    }

    /// Those of a torrent that is of both versions. A piece must be right by both: peers
    /// of one version would not take it otherwise.
    pub fn hybrid(hashes: Vec<[u8; 20]>, pieces: Vec<PieceRoot>) -> Self {
        Self {
            v1: Some(hashes.into()),
            v2: Some(pieces.into()),
        }
    }

    /// Whether these can be the digests of a content that is cut in this way.
    pub(super) fn check(&self, geometry: Geometry) -> Result<(), PieceDigestsError> {
        let v1 = self.v1.as_ref().map(|hashes| hashes.len());
        let v2 = self.v2.as_ref().map(|pieces| pieces.len());
        for found in v1.into_iter().chain(v2) {
            if found != geometry.chunks() as usize {
                let expected = geometry.chunks();
                return Err(PieceDigestsError::Pieces { found, expected });
            }
        }
        let Some(pieces) = &self.v2 else {
            return Ok(());
        };
        let piece_len = geometry.chunk_len();
        if !piece_len.is_power_of_two() || piece_len < TORRENT_LEAF_LEN {
            return Err(PieceDigestsError::Length { piece_len });
        }
        let most = piece_len / TORRENT_LEAF_LEN;
        for (
            piece,
            &PieceRoot {
                data_len, leaves, ..
            },
        ) in geometry.indices().zip(&**pieces)
        {
            if !(1..=geometry.len_of(piece)).contains(&data_len.into()) {
                return Err(PieceDigestsError::Data { piece, data_len });
            }
            let least = u64::from(data_len).div_ceil(TORRENT_LEAF_LEN);
            let fits = (least..=most).contains(&leaves.into());
            if !leaves.is_power_of_two() || !fits {
                return Err(PieceDigestsError::Leaves { piece, leaves });
            }
        }
        Ok(())
    }

    /// How much of a piece is data, if only a part of it may be.
    pub(super) fn data_len(&self, piece: ChunkIndex) -> Option<u64> {
        let pieces = self.v2.as_ref()?;
        Some(pieces.get(piece.as_usize())?.data_len.into())
    }

    /// Whether these bytes are the piece. Their number is right.
    pub(super) fn verify<'a>(
        &self,
        piece: ChunkIndex,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> bool {
        let at = piece.as_usize();
        let v1 = self.v1.as_ref().and_then(|hashes| hashes.get(at));
        let mut v1 = v1.map(|hash| (Sha1::new(), hash));
        let v2 = self.v2.as_ref().and_then(|pieces| pieces.get(at));
        let mut v2 = v2.map(|piece| (Tree::new(piece), piece));
        if v1.is_none() && v2.is_none() {
            return false;
        }
        // In short steps, so that what is hashed twice is in the cache.
        let steps = parts.into_iter();
        let steps = steps.flat_map(|part| part.chunks(TORRENT_LEAF_LEN as usize));
        for step in steps {
            if let Some((hasher, _)) = &mut v1 {
                hasher.update(step);
            }
            if let Some((tree, _)) = &mut v2
                && !tree.update(step)
            {
                return false;
            }
        }
        v1.is_none_or(|(hasher, hash)| hasher.finalize()[..] == hash[..])
            && v2.is_none_or(|(tree, piece)| tree.root() == Some(piece.root))
    }
}

/// Hashes the tree of one piece of version 2.
struct Tree {
    /// The hashes of the leaves that are complete.
    leaves: Vec<Hash>,
    /// How many leaves there are in all.
    size: usize,
    /// Hashes the current leaf, which has so many bytes so far.
    leaf: Sha256,
    in_leaf: usize,
    /// How many bytes of data are still to come. Then only zeros do.
    data_left: usize,
}

impl Tree {
    fn new(piece: &PieceRoot) -> Self {
        Self {
            leaves: Vec::with_capacity(piece.leaves as usize),
            size: piece.leaves as usize,
            leaf: Sha256::new(),
            in_leaf: 0,
            data_left: piece.data_len as usize,
        }
    }

    /// Adds the next bytes. Returns `false` if something else than zeros is behind the
    /// data.
    fn update(&mut self, part: &[u8]) -> bool {
        let (mut data, padding) = part.split_at(part.len().min(self.data_left));
        while !data.is_empty() {
            let room = TORRENT_LEAF_LEN as usize - self.in_leaf;
            let (now, later) = data.split_at(room.min(data.len()));
            self.leaf.update(now);
            self.in_leaf += now.len();
            self.data_left -= now.len();
            data = later;
            if self.in_leaf == TORRENT_LEAF_LEN as usize || self.data_left == 0 {
                self.leaves.push(self.leaf.finalize_reset().into());
                self.in_leaf = 0;
            }
        }
        padding.iter().all(|&byte| byte == 0)
    }

    /// The root, once all data is here.
    fn root(self) -> Option<Hash> {
        if self.data_left > 0 {
            return None;
        }
        Some(root(self.leaves, self.size, [0; 32]))
    }
}
