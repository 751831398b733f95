//! What two BitTorrent peers say to each other: the handshake (BEP 3), the messages (BEP 3,
//! 6, 10 and 52), and the extensions within them (BEP 9, 11, 21 and 54).
//!
//! This module is pure: it takes and gives bytes. It reads what real clients send, so it is
//! strict in what could cost memory or time, and lenient in what merely looks odd.

mod client;
mod dictionary;
mod error;
mod extension;
mod handshake;
mod message;
mod metadata;
mod pex;
mod reader;

pub use client::{CLIENT_CODE, Client, ClientId};
pub use error::WireError;
pub use extension::{
    ExtendedHandshake, ExtensionIds, HANDSHAKE_EXTENSION, MAX_CLIENT_NAME_LEN, OWN_EXTENSIONS,
};
pub use handshake::{HANDSHAKE_LEN, Handshake, HandshakeHead, PROTOCOL, Reserved};
pub use message::{HashRange, Message, WireFrame, read_chunk_index, write_chunk_index};
pub use metadata::{MAX_METADATA_LEN, METADATA_PIECE_LEN, MetadataMessage, metadata_pieces};
pub use pex::{MAX_PEX_PEERS, PexMessage, PexPeer};
pub use reader::{
    HASHES_AT_ONCE, MAX_ASKED_LEN, MAX_EXTENDED_LEN, MAX_HASHES, WireLimits, WireReader,
};
