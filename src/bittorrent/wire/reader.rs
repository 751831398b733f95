//! Messages, read from the bytes of a connection as they come.
//!
//! No message makes the reader wait for more bytes, or make room for more, than a message
//! of its type may have. A type is checked as soon as its byte is here.

use bytes::{Buf, Bytes, BytesMut};

use super::error::WireError;
use super::message::{
    ALLOWED_FAST, BITFIELD, BLOCK, CANCEL, CHOKE, EXTENDED, HASH_RANGE_LEN, HASH_REJECT,
    HASH_REQUEST, HASHES, HAVE, HAVE_ALL, HAVE_NONE, HashRange, INTERESTED, Message,
    NOT_INTERESTED, PORT, REJECT, REQUEST, SUGGEST, UNCHOKE,
};
use crate::content::{Bitfield, BlockRange, ChunkIndex, MAX_CHUNKS};

/// The longest block that is asked of a BitTorrent peer, in bytes: Transmission ignores
/// requests for more, and rqbit closes.
pub const MAX_ASKED_LEN: u32 = 16 << 10;

/// The longest message of an extension, in bytes: a piece of the info dictionary with its
/// head, or a list of peers.
pub const MAX_EXTENDED_LEN: u32 = 20 << 10;

/// How many hashes are asked for and served at a time: BEP 52 lets a side refuse more.
pub const HASHES_AT_ONCE: u32 = 512;

/// How many hashes one message has, with a proof of as many layers as a tree can have.
pub const MAX_HASHES: u32 = HASHES_AT_ONCE + 64;

/// What bounds the messages of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireLimits {
    /// How many chunks the torrent has. `None` as long as that is unknown, as with a magnet
    /// link: then as many as any content has.
    pub chunks: Option<u32>,
}

impl WireLimits {
    /// The shortest and the longest payload of a type: what follows its byte.
    fn of(self, kind: u8) -> (&'static str, u64, u64) {
        let exactly = |what, len: usize| (what, len as u64, len as u64);
        match kind {
            CHOKE => exactly("Choke", 0),
            UNCHOKE => exactly("Unchoke", 0),
            INTERESTED => exactly("Interested", 0),
            NOT_INTERESTED => exactly("NotInterested", 0),
            HAVE => exactly("Have", 4),
            BITFIELD => match self.chunks {
                Some(chunks) => exactly("Bitfield", Bitfield::byte_len(chunks)),
                None => ("Bitfield", 1, Bitfield::byte_len(MAX_CHUNKS) as u64),
            },
            REQUEST => exactly("Request", 12),
            BLOCK => ("Block", 8, 8 + u64::from(MAX_ASKED_LEN)),
            CANCEL => exactly("Cancel", 12),
            PORT => exactly("Port", 2),
            SUGGEST => exactly("Suggest", 4),
            HAVE_ALL => exactly("HaveAll", 0),
            HAVE_NONE => exactly("HaveNone", 0),
            REJECT => exactly("Reject", 12),
            ALLOWED_FAST => exactly("AllowedFast", 4),
            EXTENDED => ("Extended", 1, MAX_EXTENDED_LEN.into()),
            HASH_REQUEST => exactly("HashRequest", HASH_RANGE_LEN),
            HASHES => {
                let least = HASH_RANGE_LEN as u64;
                ("Hashes", least, least + 32 * u64::from(MAX_HASHES))
            }
            HASH_REJECT => exactly("HashReject", HASH_RANGE_LEN),
            _ => ("a message of an unknown type", 0, MAX_EXTENDED_LEN.into()),
        }
    }

    /// The longest payload of any type.
    fn longest(self) -> u64 {
        let kinds = [BITFIELD, BLOCK, EXTENDED, HASHES];
        let longest = kinds.map(|kind| self.of(kind).2);
        longest.into_iter().max().unwrap_or_default()
    }
}

/// Reads messages. It has no state but its limits: what has arrived stays with the caller.
#[derive(Debug, Clone, Copy)]
pub struct WireReader {
    limits: WireLimits,
}

/// The length that precedes each message, in bytes.
const PREFIX_LEN: usize = 4;

impl WireReader {
    /// A reader with these limits.
    pub fn new(limits: WireLimits) -> Self {
        Self { limits }
    }

    /// Takes the next message; `None` if it is not whole yet. Then the input has room for
    /// the rest of it. The bytes of a block are a part of the input and not copied.
    ///
    /// # Errors
    /// [`WireError`]: a length that the message cannot have. What follows cannot be read.
    pub fn next(&self, input: &mut BytesMut) -> Result<Option<Message>, WireError> {
        let Some(prefix) = input.first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix);
        if len == 0 {
            input.advance(PREFIX_LEN);
            return Ok(Some(Message::KeepAlive));
        }
        let within = |what, len: u64, least, most| match (least..=most).contains(&len) {
            true => Ok(()),
            false => Err(WireError::Length {
                what,
                len,
                least,
                most,
            }),
        };
        let payload = u64::from(len) - 1;
        within("any message", payload, 0, self.limits.longest())?;
        let Some(&kind) = input.get(PREFIX_LEN) else {
            return Ok(None);
        };
        let (what, least, most) = self.limits.of(kind);
        within(what, payload, least, most)?;
        let whole = PREFIX_LEN + len as usize;
        if input.len() < whole {
            input.reserve(whole - input.len());
            return Ok(None);
        }
        let mut payload = input.split_to(whole).freeze();
        payload.advance(PREFIX_LEN + 1);
        Ok(Some(read(kind, payload)))
    }
}

/// Reads a payload, which has a length that its type may have.
fn read(kind: u8, mut payload: Bytes) -> Message {
    match kind {
        CHOKE => Message::Choke,
        UNCHOKE => Message::Unchoke,
        INTERESTED => Message::Interested,
        NOT_INTERESTED => Message::NotInterested,
        HAVE => Message::Have(chunk(&mut payload)),
        BITFIELD => Message::Bitfield(payload),
        REQUEST => Message::Request(block(&mut payload)),
        BLOCK => Message::Block {
            chunk: chunk(&mut payload),
            offset: payload.get_u32(),
            data: payload,
        },
        CANCEL => Message::Cancel(block(&mut payload)),
        PORT => Message::Port(payload.get_u16()),
        SUGGEST => Message::Suggest(chunk(&mut payload)),
        HAVE_ALL => Message::HaveAll,
        HAVE_NONE => Message::HaveNone,
        REJECT => Message::Reject(block(&mut payload)),
        ALLOWED_FAST => Message::AllowedFast(chunk(&mut payload)),
        EXTENDED => Message::Extended {
            id: payload.get_u8(),
            payload,
        },
        HASH_REQUEST => Message::HashRequest(hash_range(&mut payload)),
        HASHES => Message::Hashes {
            range: hash_range(&mut payload),
            hashes: payload,
        },
        HASH_REJECT => Message::HashReject(hash_range(&mut payload)),
        id => Message::Unknown { id },
    }
}

fn chunk(payload: &mut Bytes) -> ChunkIndex {
    ChunkIndex(payload.get_u32())
}

fn block(payload: &mut Bytes) -> BlockRange {
    BlockRange {
        chunk: chunk(payload),
        offset: payload.get_u32(),
        len: payload.get_u32(),
    }
}

fn hash_range(payload: &mut Bytes) -> HashRange {
    let mut root = [0; 32];
    payload.copy_to_slice(&mut root);
    HashRange {
        root,
        base_layer: payload.get_u32(),
        index: payload.get_u32(),
        length: payload.get_u32(),
        proof_layers: payload.get_u32(),
    }
}
