//! The Merkle trees of v2 (BEP 52).

use sha2::{Digest, Sha256};

/// The length of a leaf of the trees of version 2, and of a block that every BitTorrent
/// client answers, in bytes.
pub const TORRENT_LEAF_LEN: u64 = 16 << 10;

pub(crate) type Hash = [u8; 32];

/// The hash of one block.
pub(crate) fn leaf(block: &[u8]) -> Hash {
    Sha256::digest(block).into()
}

pub(crate) fn parent(left: &Hash, right: &Hash) -> Hash {
    let hash = Sha256::new().chain_update(left).chain_update(right);
    hash.finalize().into()
}

/// The root of a tree with `width` leaves, of which all behind `hashes` are `filler`.
///
/// No tree of that width is built: what has only fillers below it is the filler of the
/// next layer.
pub(crate) fn root(mut hashes: Vec<Hash>, width: usize, mut filler: Hash) -> Hash {
    debug_assert!(width.is_power_of_two() && hashes.len() <= width, "{width}");
    for _ in 0..width.trailing_zeros() {
        let pairs = hashes.len().div_ceil(2);
        for pair in 0..pairs {
            let right = hashes.get(2 * pair + 1).unwrap_or(&filler);
            hashes[pair] = parent(&hashes[2 * pair], right);
        }
        hashes.truncate(pairs);
        filler = parent(&filler, &filler);
    }
    hashes.first().copied().unwrap_or(filler)
}

/// How many leaves the tree over a piece of this length has.
pub(crate) fn leaves_of_piece(piece_length: u32) -> usize {
    (u64::from(piece_length) / TORRENT_LEAF_LEN) as usize
}

/// The root of a file of several pieces, from the roots of those.
pub(crate) fn root_of_layer(layer: Vec<Hash>, piece_length: u32) -> Hash {
    let width = layer.len().next_power_of_two();
    let filler = root(Vec::new(), leaves_of_piece(piece_length), [0; 32]);
    root(layer, width, filler)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, by a tree that is built as a whole.
    fn naive(hashes: &[Hash], width: usize, filler: Hash) -> Hash {
        let mut layer = hashes.to_vec();
        layer.resize(width, filler);
        while layer.len() > 1 {
            layer = layer
                .chunks(2)
                .map(|pair| parent(&pair[0], &pair[1]))
                .collect();
        }
        layer[0]
    }

    #[test]
    fn root_is_that_of_the_whole_tree() {
        for width in [1_usize, 2, 4, 8, 16] {
            for len in 0..=width {
                let hashes: Vec<Hash> = (0..len).map(|n| leaf(&[n as u8])).collect();
                let filler = leaf(b"filler");
                let expected = naive(&hashes, width, filler);
                assert_eq!(root(hashes, width, filler), expected, "{len} of {width}");
            }
        }
    }

    #[test]
    fn file_of_whole_and_started_pieces_has_the_root_of_all_blocks() {
        let piece = 4 * TORRENT_LEAF_LEN as u32;
        for blocks in [5_usize, 8, 9, 13] {
            let leaves: Vec<Hash> = (0..blocks).map(|n| leaf(&[n as u8])).collect();
            let layer = leaves.chunks(4).map(|part| root(part.to_vec(), 4, [0; 32]));
            let expected = naive(&leaves, blocks.next_power_of_two(), [0; 32]);
            assert_eq!(root_of_layer(layer.collect(), piece), expected);
        }
    }
}
