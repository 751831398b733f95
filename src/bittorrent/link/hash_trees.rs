//! The hashes of the pieces of v2, and what is above them in the trees of the files
//! (BEP 52): served to those who have a magnet link.
//!
//! What is below the pieces is not kept, so the hashes of blocks are not served.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::bittorrent::metainfo::Metainfo;
use crate::bittorrent::wire::{HASHES_AT_ONCE, HashRange};
use crate::content::merkle::{Hash, leaves_of_piece, parent, root};

/// The trees of one torrent.
#[derive(Debug, Default)]
pub struct HashTrees {
    /// How many layers of a tree are below the hashes of pieces.
    base: u32,
    leaves_of_piece: usize,
    files: BTreeMap<Hash, File>,
}

/// A file with several pieces.
#[derive(Debug)]
struct File {
    layer: Bytes,
    /// Made when it is asked for.
    tree: Option<Tree>,
}

/// A tree from the hashes of the pieces up to the root.
#[derive(Debug)]
struct Tree {
    /// Without what only fills up, which is the same for a whole layer.
    layers: Vec<(Vec<Hash>, Hash)>,
}

impl HashTrees {
    /// The trees of the files of which the hashes of all pieces are known.
    pub fn new(metainfo: &Metainfo) -> Self {
        let leaves_of_piece = leaves_of_piece(metainfo.piece_length());
        let files = metainfo.files().iter().filter_map(|file| {
            let root = file.pieces_root()?;
            let layer = metainfo.piece_layer(root)?.clone();
            Some((*root, File { layer, tree: None }))
        });
        Self {
            base: leaves_of_piece.max(1).trailing_zeros(),
            leaves_of_piece,
            files: files.collect(),
        }
    }

    /// How many requests bring all hashes of pieces.
    pub fn requests(&self) -> u32 {
        let hashes = |file: &File| (file.layer.len() / size_of::<Hash>()) as u32;
        let requests = self.files.values().map(hashes);
        requests.map(|n| n.div_ceil(HASHES_AT_ONCE)).sum()
    }

    /// The hashes of a range and their proof; nothing if there is no such range. The first
    /// answer about a file takes a hash for each of its pieces.
    pub fn answer(&mut self, range: &HashRange) -> Option<Bytes> {
        let file = self.files.get_mut(&range.root)?;
        let length = range.length;
        let is_range = length.is_power_of_two()
            && length <= HASHES_AT_ONCE
            && range.index.is_multiple_of(length);
        let layer = range.base_layer.checked_sub(self.base)? as usize;
        if !is_range {
            return None;
        }
        let leaves = self.leaves_of_piece;
        let tree = &*file
            .tree
            .get_or_insert_with(|| Tree::new(&file.layer, leaves));
        let height = tree.layers.len() - 1;
        // The root is known to everybody.
        let above = height.checked_sub(layer).filter(|above| *above > 0)?;
        let end = u64::from(range.index) + u64::from(length);
        if end > 1 << above || range.proof_layers as usize >= above {
            return None;
        }
        let mut answer = Vec::new();
        for index in range.index..range.index + length {
            answer.extend(tree.at(layer, index));
        }
        for up in length.trailing_zeros()..=range.proof_layers {
            answer.extend(tree.at(layer + up as usize, (range.index >> up) ^ 1));
        }
        Some(answer.into())
    }
}

impl Tree {
    fn new(layer: &Bytes, leaves_of_piece: usize) -> Self {
        let (hashes, _) = layer.as_chunks::<{ size_of::<Hash>() }>();
        let mut hashes = hashes.to_vec();
        let mut filler = root(Vec::new(), leaves_of_piece, [0; 32]);
        let mut layers = Vec::new();
        while hashes.len() > 1 {
            let pair = |pair: &[Hash]| parent(&pair[0], pair.get(1).unwrap_or(&filler));
            let above = hashes.chunks(2).map(pair).collect();
            layers.push((std::mem::replace(&mut hashes, above), filler));
            filler = parent(&filler, &filler);
        }
        layers.push((hashes, filler));
        Self { layers }
    }

    fn at(&self, layer: usize, index: u32) -> Hash {
        let found = self.layers.get(layer);
        let hash = found.map(|(hashes, filler)| *hashes.get(index as usize).unwrap_or(filler));
        hash.unwrap_or_default()
    }
}
