//! The messages of a link. The types of those that BitTorrent has as well are
//! the numbers that BitTorrent gives them.

use std::mem;

use bytes::Bytes;

use super::ProtocolError;
use super::wire::{Reader, Writer, within};
use crate::content::{
    Bitfield, BlockRange, ChunkIndex, Geometry, LengthProof, MAX_CHUNK_LEN, MAX_CHUNKS,
};
use crate::protocol::limits::{HASHES_PER_PART, MAX_BLOCK_LEN, MAX_MANIFEST_PART};
use crate::protocol::{Frame, Hello, LinkCookie, LinkProof, PeerId, PeerMessage, RefuseReason};

const CHOKE: u8 = 0x00;
const UNCHOKE: u8 = 0x01;
const HAVE: u8 = 0x04;
const BITFIELD: u8 = 0x05;
const REQUEST: u8 = 0x06;
const BLOCK: u8 = 0x07;
const CANCEL: u8 = 0x08;
const SUGGEST: u8 = 0x0d;
const HAVE_ALL: u8 = 0x0e;
const INTERESTED: u8 = 0x02;
const NOT_INTERESTED: u8 = 0x03;
const HAVE_NONE: u8 = 0x0f;
const REJECT: u8 = 0x10;
const HELLO: u8 = 0x20;
const REFUSE: u8 = 0x21;
const KEEP_ALIVE: u8 = 0x22;
const MANIFEST_REQUEST: u8 = 0x23;
const MANIFEST_LENGTH: u8 = 0x24;
const MANIFEST_HASHES: u8 = 0x25;
const MANIFEST_REJECT: u8 = 0x26;
const SAME_PEER: u8 = 0x27;

const HASH_LEN: usize = size_of::<crate::content::ChunkHash>();

impl PeerMessage {
    /// The message as a frame. A block's bytes, a bitfield, and the parts of a
    /// manifest become its body as they are.
    ///
    /// A message that keeps the bounds of [`limits`](crate::protocol::limits)
    /// makes a frame within
    /// [`LINK_FRAMES`](crate::protocol::limits::LINK_FRAMES); one that does
    /// not loses nothing here, and is refused by whoever decodes it.
    pub fn encode(self) -> Frame {
        match self {
            Self::Hello(hello) => Writer::opening(HELLO, 320)
                .id(&hello.content)
                .bytes(&hello.peer.0)
                .optional_addr(hello.listen.as_ref())
                .bytes(&hello.cookie.0)
                .frame(),
            Self::Refuse(reason) => Writer::new(REFUSE, 1).u8(reason_code(reason)).frame(),
            Self::KeepAlive => Writer::new(KEEP_ALIVE, 0).frame(),
            Self::SamePeer(proof) => Writer::new(SAME_PEER, 16).bytes(&proof.0).frame(),
            Self::Bitfield(bits) => Writer::new(BITFIELD, 0).frame_with(bits),
            Self::HaveAll => Writer::new(HAVE_ALL, 0).frame(),
            Self::HaveNone => Writer::new(HAVE_NONE, 0).frame(),
            Self::Interested => Writer::new(INTERESTED, 0).frame(),
            Self::NotInterested => Writer::new(NOT_INTERESTED, 0).frame(),
            Self::Have(chunk) => Writer::new(HAVE, 4).u32(chunk.0).frame(),
            Self::Suggest(chunk) => Writer::new(SUGGEST, 4).u32(chunk.0).frame(),
            Self::Request(block) => write_block(REQUEST, block),
            Self::Cancel(block) => write_block(CANCEL, block),
            Self::Reject(block) => write_block(REJECT, block),
            Self::Block {
                chunk,
                offset,
                data,
            } => Writer::new(BLOCK, 8)
                .u32(chunk.0)
                .u32(offset)
                .frame_with(data),
            Self::Choke => Writer::new(CHOKE, 0).frame(),
            Self::Unchoke => Writer::new(UNCHOKE, 0).frame(),
            Self::ManifestRequest { part } => Writer::new(MANIFEST_REQUEST, 4).u32(part).frame(),
            Self::ManifestLength { length, proof } => Writer::new(MANIFEST_LENGTH, 8)
                .u64(length)
                .frame_with(proof),
            Self::ManifestHashes { part, hashes } => {
                Writer::new(MANIFEST_HASHES, 4).u32(part).frame_with(hashes)
            }
            Self::ManifestReject { part } => Writer::new(MANIFEST_REJECT, 4).u32(part).frame(),
        }
    }

    /// The message in a frame, whose body becomes part of it as it is.
    ///
    /// ```
    /// use bt_lite::ChunkIndex;
    /// use bt_lite::protocol::{Frame, PeerMessage, ProtocolError};
    ///
    /// let have = PeerMessage::Have(ChunkIndex(258));
    /// let frame = have.clone().encode();
    /// assert_eq!(frame.head[..], [4, 0, 0, 1, 2]);
    /// assert_eq!(PeerMessage::decode(frame), Ok(have));
    ///
    /// let unknown = Frame::head(vec![0xff]);
    /// let error = PeerMessage::decode(unknown);
    /// assert_eq!(error, Err(ProtocolError::Type { found: 0xff }));
    /// ```
    ///
    /// # Errors
    /// [`ProtocolError`]; whoever sent the frame does not keep to the
    /// protocol, or speaks another version of it
    /// ([`Version`](ProtocolError::Version)).
    pub fn decode(frame: Frame) -> Result<Self, ProtocolError> {
        let Frame { head, mut body } = frame;
        let mut head = Reader::new(&head);
        let message = match head.u8()? {
            HELLO => {
                head.opening()?;
                Self::Hello(Hello {
                    content: head.id()?,
                    peer: PeerId(head.array()?),
                    listen: head.optional_addr()?,
                    cookie: LinkCookie(head.array()?),
                })
            }
            REFUSE => Self::Refuse(reason(head.u8()?)?),
            KEEP_ALIVE => Self::KeepAlive,
            SAME_PEER => Self::SamePeer(LinkProof(head.array()?)),
            BITFIELD => Self::Bitfield(bitfield(mem::take(&mut body))?),
            HAVE_ALL => Self::HaveAll,
            HAVE_NONE => Self::HaveNone,
            INTERESTED => Self::Interested,
            NOT_INTERESTED => Self::NotInterested,
            HAVE => Self::Have(chunk(&mut head)?),
            SUGGEST => Self::Suggest(chunk(&mut head)?),
            REQUEST => Self::Request(read_block(&mut head)?),
            CANCEL => Self::Cancel(read_block(&mut head)?),
            REJECT => Self::Reject(read_block(&mut head)?),
            BLOCK => {
                let (chunk, offset) = (chunk(&mut head)?, head.u32()?);
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
                part: part(&mut head, 0)?,
            },
            MANIFEST_LENGTH => {
                let length = head.content_len()?;
                let proof = length_proof(length, mem::take(&mut body))?;
                Self::ManifestLength { length, proof }
            }
            MANIFEST_HASHES => Self::ManifestHashes {
                part: part(&mut head, 1)?,
                hashes: hashes(mem::take(&mut body))?,
            },
            MANIFEST_REJECT => Self::ManifestReject {
                part: part(&mut head, 0)?,
            },
            found => return Err(ProtocolError::Type { found }),
        };
        head.end(&body)?;
        Ok(message)
    }
}

fn write_block(kind: u8, block: BlockRange) -> Frame {
    Writer::new(kind, 12)
        .u32(block.chunk.0)
        .u32(block.offset)
        .u32(block.len)
        .frame()
}

fn read_block(head: &mut Reader<'_>) -> Result<BlockRange, ProtocolError> {
    let block = BlockRange {
        chunk: chunk(head)?,
        offset: head.u32()?,
        len: head.u32()?,
    };
    check_block(block.chunk, block.offset, block.len.into())?;
    Ok(block)
}

/// What holds for a block of any content. Only empty content has an empty
/// one, at its very start.
fn check_block(chunk: ChunkIndex, offset: u32, len: u64) -> Result<(), ProtocolError> {
    let least = u64::from((chunk, offset) != (ChunkIndex(0), 0));
    within("block length", len, least..=MAX_BLOCK_LEN.into())?;
    within("block offset", offset.into(), 0..=MAX_CHUNK_LEN - len)
}

fn chunk(head: &mut Reader<'_>) -> Result<ChunkIndex, ProtocolError> {
    let chunk = head.u32()?;
    within("chunk index", chunk.into(), 0..=u64::from(MAX_CHUNKS) - 1)?;
    Ok(ChunkIndex(chunk))
}

fn part(head: &mut Reader<'_>, least: u64) -> Result<u32, ProtocolError> {
    let part = head.u32()?;
    within(
        "manifest part",
        part.into(),
        least..=MAX_MANIFEST_PART.into(),
    )?;
    Ok(part)
}

fn bitfield(bits: Bytes) -> Result<Bytes, ProtocolError> {
    let most = Bitfield::byte_len(MAX_CHUNKS) as u64;
    within("bitfield length", bits.len() as u64, 1..=most)?;
    Ok(bits)
}

/// The length alone says how long its proof is.
fn length_proof(length: u64, proof: Bytes) -> Result<Bytes, ProtocolError> {
    let geometry = Geometry::of(length).expect("the length is within its bound");
    let (siblings, leaf) = LengthProof::shape(&geometry);
    let len = (siblings * HASH_LEN + leaf) as u64;
    within("length proof length", proof.len() as u64, len..=len)?;
    Ok(proof)
}

fn hashes(hashes: Bytes) -> Result<Bytes, ProtocolError> {
    let len = hashes.len();
    if !len.is_multiple_of(HASH_LEN) {
        return Err(ProtocolError::Hashes { len });
    }
    let count = (len / HASH_LEN) as u64;
    within("hashes in a part", count, 1..=HASHES_PER_PART.into())?;
    Ok(hashes)
}

fn reason_code(reason: RefuseReason) -> u8 {
    match reason {
        RefuseReason::Version => 1,
        RefuseReason::UnknownContent => 2,
        RefuseReason::Busy => 3,
        RefuseReason::SelfConnection => 4,
        RefuseReason::Duplicate => 5,
        RefuseReason::Banned => 6,
        RefuseReason::NotNeeded => 7,
        RefuseReason::ShuttingDown => 8,
    }
}

fn reason(code: u8) -> Result<RefuseReason, ProtocolError> {
    Ok(match code {
        1 => RefuseReason::Version,
        2 => RefuseReason::UnknownContent,
        3 => RefuseReason::Busy,
        4 => RefuseReason::SelfConnection,
        5 => RefuseReason::Duplicate,
        6 => RefuseReason::Banned,
        7 => RefuseReason::NotNeeded,
        8 => RefuseReason::ShuttingDown,
        found => {
            return Err(ProtocolError::Choice {
                field: "reason to refuse",
                found,
            });
        }
    })
}
