//! Finds out who sent bad blocks, as libtorrent's "smart ban" does.
//!
//! A bad chunk from one peer proves that this peer lied. If several peers sent blocks of
//! it, nobody can tell yet which of them are bad. So the hash of each block is kept. When
//! a good copy of the chunk arrives, the blocks that differ from it were bad.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::LinkId;
use super::assembler::Assembled;
use super::contributor::Contributor;
use crate::content::ChunkIndex;

/// The blocks of bad copies, by chunk.
#[derive(Debug, Default)]
pub(super) struct SmartBan {
    suspects: BTreeMap<ChunkIndex, Vec<Suspect>>,
}

/// A block of a bad copy. Only the hash is kept, not the bytes, so that liars cannot
/// fill the memory.
#[derive(Debug)]
struct Suspect {
    sender: Arc<Contributor>,
    hash: blake3::Hash,
}

impl SmartBan {
    /// A copy of a chunk is bad. Returns who lied, as far as that is known already.
    pub(super) fn bad_copy(
        &mut self,
        chunk: ChunkIndex,
        copy: Assembled<Arc<Contributor>>,
    ) -> Vec<Arc<Contributor>> {
        let links: BTreeSet<LinkId> = copy.senders.iter().map(|s| s.link).collect();
        if links.len() == 1 {
            return copy.senders;
        }
        let blocks = copy.senders.into_iter().zip(&copy.pieces);
        let suspects = blocks.map(|(sender, piece)| Suspect {
            sender,
            hash: blake3::hash(piece),
        });
        self.suspects.insert(chunk, suspects.collect());
        Vec::new()
    }

    /// A copy of a chunk is good. Returns who sent bad blocks of an earlier copy.
    pub(super) fn good_copy(
        &mut self,
        chunk: ChunkIndex,
        pieces: &[Bytes],
    ) -> Vec<Arc<Contributor>> {
        let suspects = self.suspects.remove(&chunk).unwrap_or_default();
        let lied = suspects
            .into_iter()
            .zip(pieces)
            .filter(|(suspect, piece)| suspect.hash != blake3::hash(piece));
        lied.map(|(suspect, _)| suspect.sender).collect()
    }
}
