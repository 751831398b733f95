//! The messages of a connection after the handshake, and how they are written.
//!
//! BitTorrent says "piece" where the rest of the crate says chunk; the message that it
//! calls "piece" is a block.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::WireError;
use crate::content::{BlockRange, ChunkIndex};

pub(super) const CHOKE: u8 = 0;
pub(super) const UNCHOKE: u8 = 1;
pub(super) const INTERESTED: u8 = 2;
pub(super) const NOT_INTERESTED: u8 = 3;
pub(super) const HAVE: u8 = 4;
pub(super) const BITFIELD: u8 = 5;
pub(super) const REQUEST: u8 = 6;
pub(super) const BLOCK: u8 = 7;
pub(super) const CANCEL: u8 = 8;
pub(super) const PORT: u8 = 9;
pub(super) const SUGGEST: u8 = 13;
pub(super) const HAVE_ALL: u8 = 14;
pub(super) const HAVE_NONE: u8 = 15;
pub(super) const REJECT: u8 = 16;
pub(super) const ALLOWED_FAST: u8 = 17;
pub(super) const EXTENDED: u8 = 20;
pub(super) const HASH_REQUEST: u8 = 21;
pub(super) const HASHES: u8 = 22;
pub(super) const HASH_REJECT: u8 = 23;

/// The length of a [`HashRange`] on the wire, in bytes.
pub(super) const HASH_RANGE_LEN: usize = 48;

/// Hashes of a file's tree (BEP 52).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashRange {
    /// The root of the file's tree.
    pub root: [u8; 32],
    /// The layer, counted from the leaves.
    pub base_layer: u32,
    /// The first hash in the layer.
    pub index: u32,
    /// How many hashes.
    pub length: u32,
    /// How many layers of proof follow them.
    pub proof_layers: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Shows that the sender is still there.
    KeepAlive,
    /// The sender answers no requests from now on. Without the Fast extension it has
    /// forgotten those that it has.
    Choke,
    /// The sender answers requests.
    Unchoke,
    /// The sender wants to request blocks.
    Interested,
    /// The sender wants nothing.
    NotInterested,
    /// The sender has one more chunk.
    Have(ChunkIndex),
    /// The chunks that the sender has, as the bytes of a [`Bitfield`](crate::Bitfield).
    Bitfield(Bytes),
    /// Asks for a block.
    Request(BlockRange),
    /// The bytes of a block.
    Block {
        /// The chunk.
        chunk: ChunkIndex,
        /// The offset of the first byte in the chunk.
        offset: u32,
        /// The bytes.
        data: Bytes,
    },
    /// Takes a request back.
    Cancel(BlockRange),
    /// The UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// Suggests a chunk (BEP 6).
    Suggest(ChunkIndex),
    /// The sender has all chunks (BEP 6).
    HaveAll,
    /// The sender has no chunks (BEP 6).
    HaveNone,
    /// The sender will not answer a request (BEP 6).
    Reject(BlockRange),
    /// The sender answers requests in this chunk even while it chokes (BEP 6).
    AllowedFast(ChunkIndex),
    /// A message of an extension (BEP 10).
    Extended {
        /// The id that the receiver gave to the extension; 0 is the handshake.
        id: u8,
        /// The rest.
        payload: Bytes,
    },
    /// Asks for hashes (BEP 52).
    HashRequest(HashRange),
    /// Hashes with their proof, of 32 bytes each (BEP 52).
    Hashes {
        /// What was asked for.
        range: HashRange,
        /// The hashes.
        hashes: Bytes,
    },
    /// The sender will not send hashes (BEP 52).
    HashReject(HashRange),
    /// A message of an unknown type, whose content was passed over.
    Unknown {
        /// The type.
        id: u8,
    },
}

/// An encoded message: its length, type and fields, and the bytes that follow them, which
/// are not copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireFrame {
    /// The length, the type and the fields.
    pub head: Bytes,
    /// What follows them. Often empty.
    pub body: Bytes,
}

impl WireFrame {
    /// The length of head and body together, in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether there is nothing. No encoded message is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Message {
    /// Encodes the message.
    pub fn encode(self) -> WireFrame {
        let plain = |kind| frame(kind, &[], Bytes::new());
        let chunk = |kind, chunk: ChunkIndex| frame(kind, &chunk.0.to_be_bytes(), Bytes::new());
        let block = |kind, block: BlockRange| frame(kind, &block_bytes(block), Bytes::new());
        let range = |kind, range: &HashRange, hashes| frame(kind, &hash_range_bytes(range), hashes);
        match self {
            Self::KeepAlive => WireFrame {
                head: Bytes::from_static(&[0; 4]),
                body: Bytes::new(),
            },
            Self::Choke => plain(CHOKE),
            Self::Unchoke => plain(UNCHOKE),
            Self::Interested => plain(INTERESTED),
            Self::NotInterested => plain(NOT_INTERESTED),
            Self::Have(index) => chunk(HAVE, index),
            Self::Bitfield(bits) => frame(BITFIELD, &[], bits),
            Self::Request(range) => block(REQUEST, range),
            Self::Block {
                chunk,
                offset,
                data,
            } => {
                let mut fields = [0; 8];
                fields[..4].copy_from_slice(&chunk.0.to_be_bytes());
                fields[4..].copy_from_slice(&offset.to_be_bytes());
                frame(BLOCK, &fields, data)
            }
            Self::Cancel(range) => block(CANCEL, range),
            Self::Port(port) => frame(PORT, &port.to_be_bytes(), Bytes::new()),
            Self::Suggest(index) => chunk(SUGGEST, index),
            Self::HaveAll => plain(HAVE_ALL),
            Self::HaveNone => plain(HAVE_NONE),
            Self::Reject(range) => block(REJECT, range),
            Self::AllowedFast(index) => chunk(ALLOWED_FAST, index),
            Self::Extended { id, payload } => frame(EXTENDED, &[id], payload),
            Self::HashRequest(asked) => range(HASH_REQUEST, &asked, Bytes::new()),
            Self::Hashes {
                range: asked,
                hashes,
            } => range(HASHES, &asked, hashes),
            Self::HashReject(asked) => range(HASH_REJECT, &asked, Bytes::new()),
            Self::Unknown { id } => plain(id),
        }
    }
}

fn frame(kind: u8, fields: &[u8], body: Bytes) -> WireFrame {
    let len = 1 + fields.len() + body.len();
    let len = u32::try_from(len).expect("messages are far shorter than 4 GiB");
    let mut head = BytesMut::with_capacity(5 + fields.len());
    head.put_u32(len);
    head.put_u8(kind);
    head.put_slice(fields);
    WireFrame {
        head: head.freeze(),
        body,
    }
}

fn block_bytes(block: BlockRange) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&block.chunk.0.to_be_bytes());
    bytes[4..8].copy_from_slice(&block.offset.to_be_bytes());
    bytes[8..].copy_from_slice(&block.len.to_be_bytes());
    bytes
}

fn hash_range_bytes(range: &HashRange) -> [u8; HASH_RANGE_LEN] {
    let mut bytes = [0; HASH_RANGE_LEN];
    let numbers = [
        range.base_layer,
        range.index,
        range.length,
        range.proof_layers,
    ];
    bytes[..32].copy_from_slice(&range.root);
    for (to, number) in bytes[32..].chunks_exact_mut(4).zip(numbers) {
        to.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// The payload of `lt_donthave`: a chunk.
pub fn write_chunk_index(chunk: ChunkIndex) -> Bytes {
    Bytes::copy_from_slice(&chunk.0.to_be_bytes())
}

/// Reads it.
///
/// # Errors
/// [`WireError::Length`]: it is not a number of four bytes.
pub fn read_chunk_index(payload: &[u8]) -> Result<ChunkIndex, WireError> {
    let bytes = <[u8; 4]>::try_from(payload).map_err(|_| WireError::Length {
        what: "lt_donthave",
        len: payload.len() as u64,
        least: 4,
        most: 4,
    })?;
    Ok(ChunkIndex(u32::from_be_bytes(bytes)))
}
