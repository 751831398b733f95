//! What two peers say on a link: BitTorrent's vocabulary (BEP 3, and the Fast
//! extension, BEP 6), with manifest parts, about one content per link.

use std::fmt;

use bytes::Bytes;

use super::Addr;
use crate::content::{BlockRange, ChunkIndex, ContentId};

/// A peer as other peers tell it apart: 16 random bytes that it picks when it
/// starts. Known to everybody, and proof of nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 16]);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// What a peer tells the other end of one link and nobody else: 16 random
/// bytes, made anew for each link. Who can repeat it holds the other end of
/// that link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkCookie(pub [u8; 16]);

impl fmt::Debug for LinkCookie {
    /// Keeps the secret out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkCookie(..)")
    }
}

/// What only the two ends of an older link can say on a newer one: the first
/// 16 bytes of the BLAKE3 hash of the newer link's cookies, keyed with the
/// older one's. The speaker's own cookie comes first in both, so that nobody
/// can send a proof back to whom it came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkProof(pub [u8; 16]);

/// The first message on a link, from both sides; the dialler speaks first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The content that this link is about.
    pub content: ContentId,
    /// Who speaks.
    pub peer: PeerId,
    /// Where the speaker listens, if it does: as it knows its own address, so
    /// an unspecified IP is to be filled in from the connection.
    pub listen: Option<Addr>,
    /// The secret of this link, from its speaker.
    pub cookie: LinkCookie,
}

/// Everything that a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerMessage {
    /// Opens the link.
    Hello(Hello),
    /// Ends it, with a reason; the speaker closes the connection behind it.
    Refuse(RefuseReason),
    /// Nothing to say, and still there.
    KeepAlive,
    /// There is another link between these two peers about this content, and
    /// here is the proof of it: see [`LinkProof`].
    SamePeer(LinkProof),
    /// The chunks that the speaker has, as [`Bitfield`](crate::Bitfield)
    /// bytes. They are checked once the content's length is known.
    Bitfield(Bytes),
    /// All of them (BEP 6).
    HaveAll,
    /// None yet (BEP 6).
    HaveNone,
    /// One more.
    Have(ChunkIndex),
    /// A chunk that the speaker would like the other to ask for (BEP 6).
    Suggest(ChunkIndex),
    /// Would ask, were it not choked (BEP 3). A link starts interested.
    Interested,
    /// Has nothing to ask for at present, and needs no slot (BEP 3).
    NotInterested,
    /// Asks for a block.
    Request(BlockRange),
    /// Takes a request back.
    Cancel(BlockRange),
    /// Will not answer a request (BEP 6).
    Reject(BlockRange),
    /// The bytes of a block; their number is the request's `len`.
    Block {
        /// Which chunk.
        chunk: ChunkIndex,
        /// The first byte, from the start of the chunk.
        offset: u32,
        /// The bytes.
        data: Bytes,
    },
    /// Requests will not be answered from here on; outstanding ones are
    /// rejected one by one.
    Choke,
    /// Requests are answered again.
    Unchoke,
    /// Asks for a part of the manifest: 0 is the length with its proof, part
    /// p > 0 the hashes of the chunks from (p - 1) ×
    /// [`HASHES_PER_PART`](super::limits::HASHES_PER_PART) on.
    ManifestRequest {
        /// Which part.
        part: u32,
    },
    /// The length in bytes and its proof: part 0. The body is the siblings (32
    /// bytes each), then the leaf.
    ManifestLength {
        /// The content's length in bytes.
        length: u64,
        /// Siblings and leaf.
        proof: Bytes,
    },
    /// Hashes, 32 bytes each: part 1 and on.
    ManifestHashes {
        /// Which part.
        part: u32,
        /// The hashes.
        hashes: Bytes,
    },
    /// Has no manifest (yet).
    ManifestReject {
        /// The part that was asked for.
        part: u32,
    },
}

/// Why a peer ends a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefuseReason {
    /// It speaks another version of the protocol.
    Version,
    /// It does not have this content, and does not want it.
    UnknownContent,
    /// It has as many links as it takes.
    Busy,
    /// It is the same peer, at both ends.
    SelfConnection,
    /// There is a link already, for this content and between these two.
    Duplicate,
    /// The other side lied earlier.
    Banned,
    /// The link is no longer of use to it.
    NotNeeded,
    /// It stops.
    ShuttingDown,
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "another protocol version",
            Self::UnknownContent => "unknown content",
            Self::Busy => "too many links",
            Self::SelfConnection => "connected to itself",
            Self::Duplicate => "linked already",
            Self::Banned => "banned",
            Self::NotNeeded => "link not needed",
            Self::ShuttingDown => "shutting down",
        })
    }
}
