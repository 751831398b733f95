//! What a peer may understand beyond what every peer of this version does, and how it says
//! so without disturbing those that do not.

use crate::content::{BlockRange, ChunkIndex, MAX_CHUNK_LEN, MAX_CHUNKS};

/// The sender of a [`Cancel`](super::PeerMessage::Cancel) of this range, which it never asked
/// for, understands [`DontHave`](super::PeerMessage::DontHave) on this channel. Whoever does
/// not know that ignores it, as any `Cancel` of what is not outstanding.
pub const DONT_HAVE_MARK: BlockRange = BlockRange {
    chunk: ChunkIndex(MAX_CHUNKS - 1),
    offset: (MAX_CHUNK_LEN - 1) as u32,
    len: 1,
};
