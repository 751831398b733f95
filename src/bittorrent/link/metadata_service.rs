//! The info dictionary, served in pieces to those who have only a magnet link.

use bytes::Bytes;

use crate::bittorrent::wire::{METADATA_PIECE_LEN, MetadataMessage, metadata_pieces};

/// How often a connection may ask for the whole: a client that lost some pieces asks for
/// them again, and who asks more often wants the traffic.
const MAX_ROUNDS: u32 = 2;

/// How many pieces may wait to be sent: what a client has under way at a time, and not so
/// much that one which reads nothing costs memory.
const MAX_UNSENT: usize = 16;

#[derive(Debug)]
pub(super) struct MetadataService {
    /// Empty if there is nothing to serve.
    info: Bytes,
    /// How many pieces are still served.
    left: u32,
    /// Pieces that wait to be sent.
    unsent: usize,
}

impl MetadataService {
    pub(super) fn new(info: Option<Bytes>) -> Self {
        let info = info.unwrap_or_default();
        Self {
            left: MAX_ROUNDS * metadata_pieces(info.len() as u32),
            info,
            unsent: 0,
        }
    }

    /// The length of the info dictionary, if it is served.
    pub(super) fn size(&self) -> Option<u32> {
        u32::try_from(self.info.len()).ok().filter(|len| *len > 0)
    }

    /// Answers a request for a piece.
    pub(super) fn requested(&mut self, piece: u32) -> MetadataMessage {
        let start = u64::from(piece) * u64::from(METADATA_PIECE_LEN);
        let size = self.info.len() as u64;
        if start >= size || self.left == 0 || self.unsent >= MAX_UNSENT {
            return MetadataMessage::Reject { piece };
        }
        self.left -= 1;
        self.unsent += 1;
        let end = (start + u64::from(METADATA_PIECE_LEN)).min(size);
        MetadataMessage::Data {
            piece,
            total_size: self.size(),
            data: self.info.slice(start as usize..end as usize),
        }
    }

    /// A piece was sent.
    pub(super) fn sent(&mut self) {
        self.unsent = self.unsent.saturating_sub(1);
    }
}
