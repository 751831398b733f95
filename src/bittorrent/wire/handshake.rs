//! The handshake: the first 68 bytes of each side.
//!
//! The side that was connected to learns from the first 48 bytes which torrent is meant,
//! and answers before the rest has come: some clients send their peer id only then.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::client::ClientId;
use super::error::WireError;

/// What every BitTorrent connection begins with: the length of the name, and the name.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// The length of a handshake in bytes.
pub const HANDSHAKE_LEN: usize = HEAD_LEN + ClientId::LEN;

/// The length of its part before the peer id in bytes.
const HEAD_LEN: usize = PROTOCOL.len() + 8 + 20;

/// The reserved bits of a handshake: what a side understands beyond BEP 3. Bits that are
/// unknown here are kept and mean nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// The extension protocol (BEP 10).
    pub const EXTENDED: Self = Self([0, 0, 0, 0, 0, 0x10, 0, 0]);
    /// The Fast extension (BEP 6).
    pub const FAST: Self = Self([0, 0, 0, 0, 0, 0, 0, 0x04]);
    /// A DHT node listens (BEP 5). Some set it although theirs is off.
    pub const DHT: Self = Self([0, 0, 0, 0, 0, 0, 0, 0x01]);
    /// A hybrid torrent may be spoken about by its v2 hash (BEP 52).
    pub const V2: Self = Self([0, 0, 0, 0, 0, 0, 0, 0x10]);

    /// These bits and those.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        let mut bits = self.0;
        for (bits, others) in bits.iter_mut().zip(others.0) {
            *bits |= others;
        }
        Self(bits)
    }

    /// Whether all of these bits are set.
    pub fn has(self, bits: Self) -> bool {
        self.with(bits) == self
    }
}

/// The part of a handshake that says which torrent is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandshakeHead {
    /// What the sender understands.
    pub reserved: Reserved,
    /// The torrent: the hash of its info dictionary; of a v2 torrent its first 20 bytes.
    pub info_hash: [u8; 20],
}

impl HandshakeHead {
    /// Takes it from what has arrived; `None` if that is not enough yet. What is no
    /// handshake is known by its first wrong byte.
    ///
    /// # Errors
    /// [`WireError::Protocol`]: something else is spoken here.
    pub fn take(input: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let begun = input.len().min(PROTOCOL.len());
        if input[..begun] != PROTOCOL[..begun] {
            return Err(WireError::Protocol);
        }
        if input.len() < HEAD_LEN {
            input.reserve(HANDSHAKE_LEN - input.len());
            return Ok(None);
        }
        input.advance(PROTOCOL.len());
        let mut head = Self {
            reserved: Reserved::default(),
            info_hash: [0; 20],
        };
        input.copy_to_slice(&mut head.reserved.0);
        input.copy_to_slice(&mut head.info_hash);
        Ok(Some(head))
    }
}

/// A whole handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handshake {
    /// What comes before the peer id.
    pub head: HandshakeHead,
    /// The sender.
    pub peer_id: ClientId,
}

impl Handshake {
    /// The bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HANDSHAKE_LEN);
        bytes.put_slice(PROTOCOL);
        bytes.put_slice(&self.head.reserved.0);
        bytes.put_slice(&self.head.info_hash);
        bytes.put_slice(&self.peer_id.0);
        bytes.freeze()
    }
}
