//! The info dictionary, asked for in pieces by those who have only a magnet link (BEP 9).

use bytes::Bytes;

use super::dictionary::Dictionary;
use super::error::WireError;
use crate::bittorrent::bencode::DictWriter;

/// The length of a piece of the info dictionary in bytes, except for the last (BEP 9).
pub const METADATA_PIECE_LEN: u32 = 16 << 10;

/// The longest info dictionary in bytes: the hashes of as many pieces as a content has
/// chunks, of 20 bytes each, and a list of files.
pub const MAX_METADATA_LEN: u32 = 24 << 20;

/// How many pieces an info dictionary of so many bytes has.
pub fn metadata_pieces(len: u32) -> u32 {
    len.div_ceil(METADATA_PIECE_LEN)
}

/// A message of `ut_metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Asks for a piece.
    Request {
        /// The piece.
        piece: u32,
    },
    /// A piece.
    Data {
        /// The piece.
        piece: u32,
        /// The length of the whole in bytes, if the sender says it.
        total_size: Option<u32>,
        /// The bytes.
        data: Bytes,
    },
    /// The sender will not send a piece.
    Reject {
        /// The piece.
        piece: u32,
    },
    /// Something that a later version may say, to be ignored (BEP 9).
    Unknown,
}

const REQUEST: u32 = 0;
const DATA: u32 = 1;
const REJECT: u32 = 2;

impl MetadataMessage {
    /// Reads the payload. The bytes of a piece become a part of the message without a copy.
    ///
    /// # Errors
    /// [`WireError`]: what comes first is no dictionary, or names no piece, or the bytes
    /// behind it are more than a piece.
    pub fn decode(payload: &Bytes) -> Result<Self, WireError> {
        let what = "ut_metadata";
        let Some((read, rest)) = Dictionary::read(payload) else {
            return Err(WireError::Dictionary { what });
        };
        let kind = read.number("msg_type");
        let Some(kind @ ..=REJECT) = kind else {
            return Ok(Self::Unknown);
        };
        let Some(piece) = read.number("piece") else {
            let field = "piece";
            return Err(WireError::Field { what, field });
        };
        Ok(match kind {
            REQUEST => Self::Request { piece },
            REJECT => Self::Reject { piece },
            _ => {
                let most = u64::from(METADATA_PIECE_LEN);
                let len = rest.len() as u64;
                if len > most {
                    return Err(WireError::Length {
                        what,
                        len,
                        least: 0,
                        most,
                    });
                }
                Self::Data {
                    piece,
                    total_size: read.number("total_size"),
                    data: payload.slice(payload.len() - rest.len()..),
                }
            }
        })
    }

    /// The payload.
    pub fn encode(&self) -> Bytes {
        let (kind, piece, total_size, data) = match self {
            Self::Request { piece } => (REQUEST, *piece, None, None),
            Self::Reject { piece } => (REJECT, *piece, None, None),
            Self::Data {
                piece,
                total_size,
                data,
            } => (DATA, *piece, *total_size, Some(data)),
            Self::Unknown => (u32::from(u8::MAX), 0, None, None),
        };
        let mut head = DictWriter::new();
        head.int("msg_type", kind.into());
        head.int("piece", piece.into());
        if let Some(size) = total_size {
            head.int("total_size", size.into());
        }
        let mut bytes = head.finish();
        bytes.extend_from_slice(data.map_or(&[], |data| data));
        bytes.into()
    }
}
