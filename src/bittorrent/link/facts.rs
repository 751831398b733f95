//! What is known of a connection when its handshakes have been exchanged.

use std::sync::Arc;

use bytes::Bytes;

use super::padding::Padding;
use crate::bittorrent::wire::{ClientId, ExtendedHandshake, Reserved};
use crate::content::Geometry;

/// How many requests most clients let wait that do not say a number: what libtorrent
/// presumes.
const USUAL_REQQ: u32 = 250;

/// The same for aria2, which says none: as many as it has under way itself.
const ARIA2_REQQ: u32 = 96;

/// The same for rqbit.
const RQBIT_REQQ: u32 = 128;

/// A connection about a torrent, after the handshakes.
#[derive(Debug, Clone)]
pub struct LinkFacts {
    /// How the torrent is cut into chunks.
    pub geometry: Geometry,
    /// Which of its bytes are padding.
    pub padding: Arc<Padding>,
    /// What both sides understand.
    pub agreed: Reserved,
    /// The other side.
    pub client: ClientId,
    /// The torrent is private (BEP 27): no peers are exchanged.
    pub private: bool,
    /// This side has said already that it has nothing, as a
    /// [`MagnetLink`](super::MagnetLink) does. If it has something after all, it says so by
    /// a whole bitfield, as aria2 does in mid-connection.
    pub said_none: bool,
    /// The info dictionary, to be served to those who have a magnet link.
    pub info: Option<Bytes>,
    /// How many requests bring all hashes of v2 that this side serves to them; 0 if none.
    pub hash_requests: u32,
    /// The port of this side's node of the distributed hash table (BEP 5), if it has one: told
    /// to those who have one, too.
    pub dht_port: Option<u16>,
    /// What this side says of itself. The ids, `reqq` and `metadata_size` are filled in.
    pub about: ExtendedHandshake,
}

impl LinkFacts {
    /// A connection with the other side's client, of a public torrent without padding.
    /// `agreed` is what both handshakes have.
    pub fn new(geometry: Geometry, agreed: Reserved, client: ClientId) -> Self {
        Self {
            geometry,
            padding: Arc::default(),
            agreed,
            client,
            private: false,
            said_none: false,
            info: None,
            hash_requests: 0,
            dht_port: None,
            about: ExtendedHandshake::default(),
        }
    }

    /// Whether both sides speak the Fast extension.
    pub(super) fn is_fast(&self) -> bool {
        self.agreed.has(Reserved::FAST)
    }

    /// Whether both sides speak the extension protocol.
    pub(super) fn is_extended(&self) -> bool {
        self.agreed.has(Reserved::EXTENDED)
    }

    /// How many requests the other side presumably lets wait, as long as it does not say.
    pub(super) fn presumed_reqq(&self) -> u32 {
        match self.client.code() {
            _ if self.client.is_aria2() => ARIA2_REQQ,
            Some([b'r', b'Q']) => RQBIT_REQQ,
            _ => USUAL_REQQ,
        }
    }
}
