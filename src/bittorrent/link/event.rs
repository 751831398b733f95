//! What a connection has for this side.

use bytes::Bytes;

use super::error::LinkEnd;
use crate::bittorrent::wire::{ExtendedHandshake, HashRange, MetadataMessage, PexMessage};
use crate::protocol::PeerMessage;

/// What a connection has for this side.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// The machine is to hear this.
    Machine(PeerMessage),
    /// What the other side says of itself; again with each update.
    About(Box<ExtendedHandshake>),
    /// Peers that it knows.
    Peers(PexMessage),
    /// A piece of the info dictionary, or that it does not come.
    Metadata(MetadataMessage),
    /// The other side asks for hashes, and waits for
    /// [`answer_hashes`](super::BitTorrentLink::answer_hashes).
    HashesWanted(HashRange),
    /// Hashes that were asked for.
    Hashes {
        /// Which.
        range: HashRange,
        /// The hashes and their proof.
        hashes: Bytes,
    },
    /// Hashes that were asked for do not come.
    HashesRejected(HashRange),
    /// The connection ends. Nothing follows.
    End(LinkEnd),
}
