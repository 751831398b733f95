//! Peers that tell each other of further peers (BEP 11). Never for private torrents
//! (BEP 27): that is for the caller to know.

use core::net::SocketAddr;

use bytes::Bytes;

use super::dictionary::Dictionary;
use super::error::WireError;
use crate::bittorrent::bencode::DictWriter;
use crate::bittorrent::compact::{COMPACT_V4_LEN, COMPACT_V6_LEN, read_one, write_compact};

/// How many peers of each kind are read from one message, and at most written into one:
/// BEP 11 allows 50 of each family, and some send more.
pub const MAX_PEX_PEERS: usize = 100;

/// A peer that somebody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PexPeer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What is said of it, as bits.
    pub flags: u8,
}

impl PexPeer {
    /// It wants nothing.
    pub const UPLOAD_ONLY: u8 = 0x02;
    /// The sender has connected to it.
    pub const REACHABLE: u8 = 0x10;
}

/// A message of `ut_pex`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PexMessage {
    /// Peers that the sender has got since its last message.
    pub added: Vec<PexPeer>,
    /// Peers that it has lost since then.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// Reads the payload. More than [`MAX_PEX_PEERS`] of a kind are passed over, and so are
    /// addresses without a port.
    ///
    /// # Errors
    /// [`WireError`]: no dictionary, or a list that does not consist of addresses.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let what = "ut_pex";
        let Some((read, _)) = Dictionary::read(payload) else {
            return Err(WireError::Dictionary { what });
        };
        let list = |field: &'static str, len: usize| {
            let bytes = read.bytes(field).unwrap_or_default();
            match bytes.len().is_multiple_of(len) {
                true => Ok(bytes.chunks_exact(len).take(MAX_PEX_PEERS)),
                false => Err(WireError::Field { what, field }),
            }
        };
        let mut message = Self::default();
        for (field, flags, len) in [
            ("added", "added.f", COMPACT_V4_LEN),
            ("added6", "added6.f", COMPACT_V6_LEN),
        ] {
            let flags = read.bytes(flags).unwrap_or_default();
            for (at, bytes) in list(field, len)?.enumerate() {
                let flags = flags.get(at).copied().unwrap_or(0);
                let addr = read_one(bytes);
                message
                    .added
                    .extend(addr.map(|addr| PexPeer { addr, flags }));
            }
        }
        for (field, len) in [("dropped", COMPACT_V4_LEN), ("dropped6", COMPACT_V6_LEN)] {
            message
                .dropped
                .extend(list(field, len)?.filter_map(read_one));
        }
        Ok(message)
    }

    /// The payload, with the first [`MAX_PEX_PEERS`] of each kind.
    pub fn encode(&self) -> Bytes {
        let added = |v4: bool| {
            let of_family = self
                .added
                .iter()
                .filter(move |peer| peer.addr.is_ipv4() == v4);
            of_family.take(MAX_PEX_PEERS)
        };
        let addrs = |v4: bool| compact(added(v4).map(|peer| peer.addr));
        let flags = |v4: bool| -> Vec<u8> { added(v4).map(|peer| peer.flags).collect() };
        let dropped = |v4: bool| {
            let of_family = self.dropped.iter().filter(move |addr| addr.is_ipv4() == v4);
            compact(of_family.take(MAX_PEX_PEERS).copied())
        };
        let mut out = DictWriter::new();
        for (key, bytes) in [
            ("added", addrs(true)),
            ("added.f", flags(true)),
            ("added6", addrs(false)),
            ("added6.f", flags(false)),
            ("dropped", dropped(true)),
            ("dropped6", dropped(false)),
        ] {
            out.bytes(key, bytes);
        }
        out.finish().into()
    }
}

fn compact(addrs: impl Iterator<Item = SocketAddr>) -> Vec<u8> {
    let mut out = Vec::new();
    addrs.for_each(|addr| write_compact(&mut out, addr));
    out
}
