//! The messages between two peers, and their encoding: BitTorrent's messages
//! (BEP 3, and the Fast extension, BEP 6) with manifest pages, on numbered
//! channels of one connection, one for each content. Messages that BitTorrent
//! also has keep its type numbers.

use std::fmt;
use std::mem;

use bytes::Bytes;

use super::addr::Addr;
use super::error::ProtocolError;
use super::frame::Frame;
use super::limits::{HASHES_PER_PAGE, MAX_BLOCK_LEN, MAX_MANIFEST_PAGE};
use super::wire::{Reader, Writer, within};
use crate::content::{
    Bitfield, BlockRange, ChunkHash, ChunkIndex, ContentId, Geometry, LengthProof, MAX_CHUNK_LEN,
    MAX_CHUNKS,
};

const CHOKE: u8 = 0x00;
const UNCHOKE: u8 = 0x01;
const INTERESTED: u8 = 0x02;
const NOT_INTERESTED: u8 = 0x03;
const HAVE: u8 = 0x04;
const BITFIELD: u8 = 0x05;
const REQUEST: u8 = 0x06;
const BLOCK: u8 = 0x07;
const CANCEL: u8 = 0x08;
const SUGGEST: u8 = 0x0d;
const HAVE_ALL: u8 = 0x0e;
const HAVE_NONE: u8 = 0x0f;
const REJECT: u8 = 0x10;
const HELLO: u8 = 0x20;
pub(super) const REFUSE: u8 = 0x21;
const KEEP_ALIVE: u8 = 0x22;
const MANIFEST_REQUEST: u8 = 0x23;
const MANIFEST_LENGTH: u8 = 0x24;
const MANIFEST_HASHES: u8 = 0x25;
const MANIFEST_REJECT: u8 = 0x26;
const SAME_PEER: u8 = 0x27;
const QUEUED: u8 = 0x28;
pub(super) const OPEN: u8 = 0x29;
const DONT_HAVE: u8 = 0x2a;
const COMING: u8 = 0x2b;
const IMPORTING: u8 = 0x2c;

const HASH_LEN: usize = size_of::<ChunkHash>();

/// Identifies a peer to other peers: 16 random bytes that it draws when it
/// starts. Everybody may know them, so they prove nothing. Over a transport that
/// authenticates, they are those of its key, which the transport has proven.
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

/// A channel of a session: what one connection says about one content. The side
/// that connected opens odd channels, the other side even ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChannelId(pub u32);

impl ChannelId {
    /// What concerns the whole session.
    pub const SESSION: Self = Self(0);
}

/// A secret that a peer tells only the other end of one session: 16 random
/// bytes, new for each session. A peer that can repeat it is the other end of
/// that session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkCookie(pub [u8; 16]);

impl fmt::Debug for LinkCookie {
    /// Keeps the secret out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkCookie(..)")
    }
}

/// Proves on a newer session that the sender is also at the end of an older one:
/// the first 16 bytes of the BLAKE3 hash of the newer session's cookies, keyed
/// with the older session's cookies. Only the two ends of both sessions know all
/// four. The sender's own cookie comes first in both, so that a proof sent back to
/// its sender proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkProof(pub [u8; 16]);

/// The first message of a session, from both sides. The side that connected sends
/// it first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// The sender.
    pub peer: PeerId,
    /// Where the sender listens, if it does. An unspecified IP stands for the IP
    /// of the connection.
    pub listen: Option<Addr>,
    /// The sender's secret for this session.
    pub cookie: LinkCookie,
}

impl Hello {
    /// Makes a Hello of its fields.
    pub fn new(peer: PeerId, listen: Option<Addr>, cookie: LinkCookie) -> Self {
        Self {
            peer,
            listen,
            cookie,
        }
    }
}

/// A message from peer to peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerMessage {
    /// Opens the session.
    Hello(Hello),
    /// Opens a channel about this content. The first message on the channel.
    Open(ContentId),
    /// Ends the channel, with a reason: the last message on it from this side.
    /// On [`ChannelId::SESSION`] it ends the session, and the sender closes the
    /// connection.
    Refuse(RefuseReason),
    /// Shows that the sender is still there.
    KeepAlive,
    /// The two peers already have a link about this content over another
    /// session; see [`LinkProof`].
    SamePeer(LinkProof),
    /// All places of the sender are taken, and the link waits for one. It comes in
    /// place of what the sender has, and again when the position has changed. The wait
    /// ends when the sender says what it has.
    Queued {
        /// How many links get a place until this one does, itself included: at
        /// least 1.
        position: u32,
    },
    /// The chunks that the sender has, as the bytes of a
    /// [`Bitfield`](crate::Bitfield). They are checked once the length of the
    /// content is known.
    Bitfield(Bytes),
    /// The sender has all chunks (BEP 6).
    HaveAll,
    /// The sender has no chunks yet (BEP 6).
    HaveNone,
    /// The sender has one more chunk.
    Have(ChunkIndex),
    /// The sender has a chunk no longer that it had before. Only for those that
    /// [understand it](super::DONT_HAVE_MARK).
    DontHave(ChunkIndex),
    /// The sender fetches a chunk from another zone, and others that [import](Self::Importing)
    /// need not. Only for those that have said that they are in the
    /// [same zone](super::ZoneTag::mark).
    Coming(ChunkIndex),
    /// The sender fetches from other zones what its own lacks. Only for those that have said that
    /// they are in the [same zone](super::ZoneTag::mark).
    Importing,
    /// Suggests a chunk that the other side should ask for (BEP 6).
    Suggest(ChunkIndex),
    /// The sender wants to request blocks (BEP 3). A link starts interested.
    Interested,
    /// The sender has nothing to request at present and needs no upload slot
    /// (BEP 3).
    NotInterested,
    /// Asks for a block.
    Request(BlockRange),
    /// Takes a request back.
    Cancel(BlockRange),
    /// The sender will not answer a request (BEP 6).
    Reject(BlockRange),
    /// The bytes of a block, as many as were requested.
    Block {
        /// The chunk.
        chunk: ChunkIndex,
        /// The offset of the first byte in the chunk.
        offset: u32,
        /// The bytes.
        data: Bytes,
    },
    /// The sender answers no requests from now on. It rejects outstanding ones
    /// one by one.
    Choke,
    /// The sender answers requests again.
    Unchoke,
    /// Asks for a page of the manifest. Page 0 is the length with its proof. Page
    /// p > 0 is the hashes of the chunks from (p - 1) ×
    /// [`HASHES_PER_PAGE`](super::limits::HASHES_PER_PAGE) on.
    ManifestRequest {
        /// The page.
        page: u32,
    },
    /// Page 0 of the manifest: the length and its proof. The body is the siblings
    /// (32 bytes each), then the leaf.
    ManifestLength {
        /// The content's length in bytes.
        length: u64,
        /// Siblings and leaf.
        proof: Bytes,
    },
    /// Page 1 or later of the manifest: hashes of 32 bytes each.
    ManifestHashes {
        /// The page.
        page: u32,
        /// The hashes.
        hashes: Bytes,
    },
    /// The sender does not have the manifest (yet).
    ManifestReject {
        /// The page that was asked for.
        page: u32,
    },
}

impl PeerMessage {
    /// Encodes the message on a channel. The bytes of a block, a bitfield, and the
    /// pages of a manifest become the body of the frame without a copy.
    ///
    /// A message within the bounds of [`limits`](super::limits) gives a frame
    /// within [`LINK_FRAMES`](super::limits::LINK_FRAMES). A message out of bounds
    /// is encoded too, but [`decode`](Self::decode) refuses it.
    pub fn encode(self, channel: ChannelId) -> Frame {
        let new = |kind, len| Writer::on(channel.0, kind, len);
        let plain = |kind| new(kind, 0).frame();
        let number = |kind, number| new(kind, 4).u32(number);
        let range = |kind, block: BlockRange| {
            new(kind, 12)
                .u32(block.chunk.0)
                .u32(block.offset)
                .u32(block.len)
                .frame()
        };
        match self {
            Self::Hello(hello) => hello.write(new(HELLO, 320)),
            Self::Open(content) => new(OPEN, 32).id(&content).frame(),
            Self::Refuse(reason) => new(REFUSE, 1).u8(reason.code()).frame(),
            Self::KeepAlive => plain(KEEP_ALIVE),
            Self::SamePeer(proof) => new(SAME_PEER, 16).bytes(&proof.0).frame(),
            Self::Queued { position } => number(QUEUED, position).frame(),
            Self::Bitfield(bits) => new(BITFIELD, 0).frame_with(bits),
            Self::HaveAll => plain(HAVE_ALL),
            Self::HaveNone => plain(HAVE_NONE),
            Self::Interested => plain(INTERESTED),
            Self::NotInterested => plain(NOT_INTERESTED),
            Self::Have(chunk) => number(HAVE, chunk.0).frame(),
            Self::DontHave(chunk) => number(DONT_HAVE, chunk.0).frame(),
            Self::Coming(chunk) => number(COMING, chunk.0).frame(),
            Self::Importing => plain(IMPORTING),
            Self::Suggest(chunk) => number(SUGGEST, chunk.0).frame(),
            Self::Request(block) => range(REQUEST, block),
            Self::Cancel(block) => range(CANCEL, block),
            Self::Reject(block) => range(REJECT, block),
            Self::Block {
                chunk,
                offset,
                data,
            } => new(BLOCK, 8).u32(chunk.0).u32(offset).frame_with(data),
            Self::Choke => plain(CHOKE),
            Self::Unchoke => plain(UNCHOKE),
            Self::ManifestRequest { page } => number(MANIFEST_REQUEST, page).frame(),
            Self::ManifestLength { length, proof } => {
                new(MANIFEST_LENGTH, 8).u64(length).frame_with(proof)
            }
            Self::ManifestHashes { page, hashes } => {
                number(MANIFEST_HASHES, page).frame_with(hashes)
            }
            Self::ManifestReject { page } => number(MANIFEST_REJECT, page).frame(),
        }
    }

    /// Decodes a frame: the channel and the message. The body of the frame becomes
    /// a part of the message without a copy.
    ///
    /// ```
    /// use bt_lite::ChunkIndex;
    /// use bt_lite::protocol::{ChannelId, Frame, PeerMessage, ProtocolError};
    ///
    /// let have = PeerMessage::Have(ChunkIndex(258));
    /// let frame = have.clone().encode(ChannelId(7));
    /// assert_eq!(frame.head[..], [4, 0, 0, 0, 7, 0, 0, 1, 2]);
    /// assert_eq!(PeerMessage::decode(frame), Ok((ChannelId(7), have)));
    ///
    /// let unknown = Frame::head(vec![0xff, 0, 0, 0, 7]);
    /// let error = PeerMessage::decode(unknown);
    /// assert_eq!(error, Err(ProtocolError::Type { found: 0xff }));
    /// ```
    ///
    /// # Errors
    /// [`ProtocolError`]: the sender broke the protocol, or it speaks another
    /// version ([`Version`](ProtocolError::Version)).
    pub fn decode(frame: Frame) -> Result<(ChannelId, Self), ProtocolError> {
        let Frame { head, mut body } = frame;
        let mut head = Reader::new(&head);
        let kind = head.u8()?;
        let channel = ChannelId(head.u32()?);
        let message = match kind {
            HELLO => Self::Hello(Hello::read(&mut head)?),
            OPEN => Self::Open(head.id()?),
            REFUSE => Self::Refuse(RefuseReason::from_code(head.u8()?)?),
            KEEP_ALIVE => Self::KeepAlive,
            SAME_PEER => Self::SamePeer(LinkProof(head.array()?)),
            QUEUED => Self::Queued {
                position: read_position(&mut head)?,
            },
            BITFIELD => Self::Bitfield(check_bitfield(mem::take(&mut body))?),
            HAVE_ALL => Self::HaveAll,
            HAVE_NONE => Self::HaveNone,
            INTERESTED => Self::Interested,
            NOT_INTERESTED => Self::NotInterested,
            HAVE => Self::Have(read_chunk(&mut head)?),
            DONT_HAVE => Self::DontHave(read_chunk(&mut head)?),
            COMING => Self::Coming(read_chunk(&mut head)?),
            IMPORTING => Self::Importing,
            SUGGEST => Self::Suggest(read_chunk(&mut head)?),
            REQUEST => Self::Request(read_block(&mut head)?),
            CANCEL => Self::Cancel(read_block(&mut head)?),
            REJECT => Self::Reject(read_block(&mut head)?),
            BLOCK => {
                let (chunk, offset) = (read_chunk(&mut head)?, head.u32()?);
                let data = mem::take(&mut body);
                check_block(chunk, offset, data.len() as u64)?;
                Self::Block {
                    chunk,
                    offset,
                    data,
                }
            }
            CHOKE => Self::Choke,
            UNCHOKE => Self::Unchoke,
            MANIFEST_REQUEST => Self::ManifestRequest {
                page: read_page(&mut head, 0)?,
            },
            MANIFEST_LENGTH => {
                let length = head.content_len()?;
                let proof = check_length_proof(length, mem::take(&mut body))?;
                Self::ManifestLength { length, proof }
            }
            MANIFEST_HASHES => Self::ManifestHashes {
                page: read_page(&mut head, 1)?,
                hashes: check_hashes(mem::take(&mut body))?,
            },
            MANIFEST_REJECT => Self::ManifestReject {
                page: read_page(&mut head, 0)?,
            },
            found => return Err(ProtocolError::Type { found }),
        };
        head.end(&body)?;
        Ok((channel, message))
    }
}

impl Hello {
    fn write(&self, head: Writer) -> Frame {
        head.version()
            .bytes(&self.peer.0)
            .optional_addr(self.listen.as_ref())
            .bytes(&self.cookie.0)
            .frame()
    }

    fn read(head: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        head.opening()?;
        Ok(Self {
            peer: PeerId(head.array()?),
            listen: head.optional_addr()?,
            cookie: LinkCookie(head.array()?),
        })
    }
}

fn read_block(head: &mut Reader<'_>) -> Result<BlockRange, ProtocolError> {
    let block = BlockRange {
        chunk: read_chunk(head)?,
        offset: head.u32()?,
        len: head.u32()?,
    };
    check_block(block.chunk, block.offset, block.len.into())?;
    Ok(block)
}

/// Checks the bounds that hold for a block of any content. Only empty content has
/// an empty block, at its very start.
fn check_block(chunk: ChunkIndex, offset: u32, len: u64) -> Result<(), ProtocolError> {
    let least = u64::from((chunk, offset) != (ChunkIndex(0), 0));
    within("block length", len, least..=MAX_BLOCK_LEN.into())?;
    within("block offset", offset.into(), 0..=MAX_CHUNK_LEN - len)
}

fn read_chunk(head: &mut Reader<'_>) -> Result<ChunkIndex, ProtocolError> {
    let chunk = head.u32()?;
    within("chunk index", chunk.into(), 0..=u64::from(MAX_CHUNKS) - 1)?;
    Ok(ChunkIndex(chunk))
}

fn read_page(head: &mut Reader<'_>, first: u64) -> Result<u32, ProtocolError> {
    let page = head.u32()?;
    within(
        "manifest page",
        page.into(),
        first..=MAX_MANIFEST_PAGE.into(),
    )?;
    Ok(page)
}

fn read_position(head: &mut Reader<'_>) -> Result<u32, ProtocolError> {
    let position = head.u32()?;
    within("queue position", position.into(), 1..=u32::MAX.into())?;
    Ok(position)
}

fn check_bitfield(bits: Bytes) -> Result<Bytes, ProtocolError> {
    let most = Bitfield::byte_len(MAX_CHUNKS) as u64;
    within("bitfield length", bits.len() as u64, 1..=most)?;
    Ok(bits)
}

/// Checks the length of a proof, which depends only on the length of the content.
fn check_length_proof(length: u64, proof: Bytes) -> Result<Bytes, ProtocolError> {
    let geometry = Geometry::of(length).expect("the length is within its bound");
    let (siblings, leaf) = LengthProof::shape(&geometry);
    let len = (siblings * HASH_LEN + leaf) as u64;
    within("length proof length", proof.len() as u64, len..=len)?;
    Ok(proof)
}

fn check_hashes(hashes: Bytes) -> Result<Bytes, ProtocolError> {
    let len = hashes.len();
    if !len.is_multiple_of(HASH_LEN) {
        return Err(ProtocolError::Hashes { len });
    }
    let count = (len / HASH_LEN) as u64;
    within("hashes in a page", count, 1..=HASHES_PER_PAGE.into())?;
    Ok(hashes)
}

/// Why a peer ends a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum RefuseReason {
    /// It speaks another version of the protocol.
    Version,
    /// It neither has nor wants this content.
    UnknownContent,
    /// It has as many links as it accepts.
    Busy,
    /// The peer connected to itself.
    SelfConnection,
    /// These two peers already have a link about this content.
    Duplicate,
    /// The other side sent false data earlier.
    Banned,
    /// It no longer needs the link.
    NotNeeded,
    /// It is shutting down.
    ShuttingDown,
    /// The peer says that it is another one than that of its key. Only over a transport
    /// that authenticates.
    Identity,
    /// It does not allow the other side to connect.
    Denied,
}

impl RefuseReason {
    fn code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::UnknownContent => 2,
            Self::Busy => 3,
            Self::SelfConnection => 4,
            Self::Duplicate => 5,
            Self::Banned => 6,
            Self::NotNeeded => 7,
            Self::ShuttingDown => 8,
            Self::Identity => 9,
            Self::Denied => 10,
        }
    }

    fn from_code(code: u8) -> Result<Self, ProtocolError> {
        Ok(match code {
            1 => Self::Version,
            2 => Self::UnknownContent,
            3 => Self::Busy,
            4 => Self::SelfConnection,
            5 => Self::Duplicate,
            6 => Self::Banned,
            7 => Self::NotNeeded,
            8 => Self::ShuttingDown,
            9 => Self::Identity,
            10 => Self::Denied,
            found => {
                return Err(ProtocolError::Choice {
                    field: "refuse reason",
                    found,
                });
            }
        })
    }
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "different protocol version",
            Self::UnknownContent => "unknown content",
            Self::Busy => "too many links",
            Self::SelfConnection => "connected to itself",
            Self::Duplicate => "already linked",
            Self::Banned => "banned",
            Self::NotNeeded => "link not needed",
            Self::ShuttingDown => "shutting down",
            Self::Identity => "the id is not that of the key",
            Self::Denied => "not allowed",
        })
    }
}
