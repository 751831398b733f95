//! One link with nobody around it: what it makes of what it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bt_lite::bittorrent::wire::{
    ClientId, ExtendedHandshake, ExtensionIds, Message, OWN_EXTENSIONS, Reserved,
};
use bt_lite::content::{BlockRange, ChunkIndex, Geometry};
use bt_lite::protocol::PeerMessage;
use bt_lite::testing::bittorrent::{BitTorrentLink, LinkEnd, LinkEvent, LinkFacts, Padding};
use bytes::Bytes;

pub(crate) const FAST: Reserved = Reserved::FAST;
pub(crate) const NOT_FAST: Reserved = Reserved([0; 8]);

/// A torrent of 20 chunks of 16 KiB, the last of which is short.
pub(crate) fn geometry() -> Geometry {
    Geometry::of(20 * 16_384 - 100).unwrap()
}

pub(crate) fn config(agreed: Reserved) -> LinkFacts {
    let client = ClientId(*b"-TR3000-abcdefghijkl");
    LinkFacts::new(geometry(), agreed.with(Reserved::EXTENDED), client)
}

pub(crate) fn padded(agreed: Reserved, ranges: &[std::ops::Range<u64>]) -> LinkFacts {
    LinkFacts {
        padding: Arc::new(Padding::new(ranges.iter().cloned())),
        ..config(agreed)
    }
}

pub(crate) fn block(chunk: u32, offset: u32, len: u32) -> BlockRange {
    BlockRange {
        chunk: ChunkIndex(chunk),
        offset,
        len,
    }
}

/// The whole of a chunk.
pub(crate) fn whole(chunk: u32) -> BlockRange {
    block(chunk, 0, geometry().len_of(ChunkIndex(chunk)) as u32)
}

pub(crate) fn sent(block: BlockRange) -> Message {
    Message::Block {
        chunk: block.chunk,
        offset: block.offset,
        data: vec![block.chunk.0 as u8 + 1; block.len as usize].into(),
    }
}

pub(crate) fn told(block: BlockRange) -> PeerMessage {
    PeerMessage::Block {
        chunk: block.chunk,
        offset: block.offset,
        data: vec![block.chunk.0 as u8 + 1; block.len as usize].into(),
    }
}

pub(crate) struct Desk {
    pub(crate) link: BitTorrentLink,
    pub(crate) now: Instant,
    pub(crate) end: Option<LinkEnd>,
    pub(crate) others: Vec<LinkEvent>,
}

/// What follows from an input: what the machine hears, and what goes out.
type Follows = (Vec<PeerMessage>, Vec<Message>);

impl Desk {
    /// A link before anything was said.
    pub(crate) fn fresh(config: LinkFacts) -> Self {
        let now = Instant::now();
        Self {
            link: BitTorrentLink::new(now, config),
            now,
            end: None,
            others: Vec::new(),
        }
    }

    /// A link on which the handshakes are behind, and the machine has nothing.
    pub(crate) fn new(config: LinkFacts) -> Self {
        let mut desk = Self::fresh(config);
        desk.follows();
        desk.says(PeerMessage::HaveNone);
        desk
    }

    /// A link that may ask for everything.
    pub(crate) fn asking(config: LinkFacts) -> Self {
        let mut desk = Self::new(config);
        desk.hears(Message::Bitfield(Bytes::from_static(b"\xff\xff\xf0")));
        desk.hears(Message::Unchoke);
        desk
    }

    /// A link that has everything, at an interested peer.
    pub(crate) fn serving(config: LinkFacts) -> Self {
        let mut desk = Self::fresh(config);
        desk.says(PeerMessage::HaveAll);
        desk.hears(Message::Interested);
        desk
    }

    pub(crate) fn follows(&mut self) -> Follows {
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        while let Some(event) = self.link.poll_event() {
            assert_eq!(self.end, None, "something follows the end");
            match event {
                LinkEvent::Machine(message) => heard.push(message),
                LinkEvent::End(end) => self.end = Some(end),
                other => self.others.push(other),
            }
        }
        while let Some(outgoing) = self.link.poll_message(self.now) {
            out.push(outgoing.message);
        }
        self.link.check_invariants();
        (heard, out)
    }

    pub(crate) fn hears(&mut self, message: Message) -> Follows {
        self.link.handle_message(self.now, message);
        self.follows()
    }

    pub(crate) fn says(&mut self, message: PeerMessage) -> Follows {
        self.link.handle_peer_message(message);
        self.follows()
    }

    pub(crate) fn hears_about(&mut self, about: &ExtendedHandshake) -> Follows {
        self.hears(Message::Extended {
            id: 0,
            payload: about.encode(),
        })
    }

    /// The other side speaks all extensions.
    pub(crate) fn hears_of_extensions(&mut self) -> Follows {
        self.hears_about(&about(|about| about.extensions = OWN_EXTENSIONS))
    }

    pub(crate) fn waits(&mut self, time: Duration) -> Follows {
        self.now += time;
        self.link.handle_timeout(self.now);
        self.follows()
    }
}

pub(crate) fn about(change: impl FnOnce(&mut ExtendedHandshake)) -> ExtendedHandshake {
    let mut about = ExtendedHandshake::default();
    about.extensions = ExtensionIds::default();
    change(&mut about);
    about
}
