//! Peers that tell each other of further peers (BEP 11). Never for private torrents
//! (BEP 27): that is for the caller to know.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::dictionary::Dictionary;
use super::error::WireError;
use super::extension::dictionary;

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
        for (field, flags, len) in [("added", "added.f", V4_LEN), ("added6", "added6.f", V6_LEN)] {
            let flags = read.bytes(flags).unwrap_or_default();
            for (at, bytes) in list(field, len)?.enumerate() {
                let flags = flags.get(at).copied().unwrap_or(0);
                let addr = read_addr(bytes);
                message
                    .added
                    .extend(addr.map(|addr| PexPeer { addr, flags }));
            }
        }
        for (field, len) in [("dropped", V4_LEN), ("dropped6", V6_LEN)] {
            message
                .dropped
                .extend(list(field, len)?.filter_map(read_addr));
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
        let addrs = |v4: bool| -> Vec<u8> { added(v4).flat_map(|p| addr_bytes(p.addr)).collect() };
        let flags = |v4: bool| -> Vec<u8> { added(v4).map(|peer| peer.flags).collect() };
        let dropped = |v4: bool| -> Vec<u8> {
            let of_family = self.dropped.iter().filter(move |addr| addr.is_ipv4() == v4);
            let bytes = of_family.take(MAX_PEX_PEERS).map(|addr| addr_bytes(*addr));
            bytes.flatten().collect()
        };
        dictionary(|entries| {
            for (key, bytes) in [
                ("added", addrs(true)),
                ("added.f", flags(true)),
                ("added6", addrs(false)),
                ("added6.f", flags(false)),
                ("dropped", dropped(true)),
                ("dropped6", dropped(false)),
            ] {
                entries.emit_pair_with(key.as_bytes(), |entry| entry.emit_bytes(&bytes))?;
            }
            Ok(())
        })
    }
}

/// The length of an address with its port, in bytes.
const V4_LEN: usize = 6;
const V6_LEN: usize = 18;

fn read_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    let addr = match <[u8; 4]>::try_from(ip) {
        Ok(ip) => SocketAddr::from((Ipv4Addr::from(ip), port)),
        Err(_) => SocketAddr::from((Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?), port)),
    };
    (port != 0).then_some(addr)
}

fn addr_bytes(addr: SocketAddr) -> Vec<u8> {
    let mut bytes = match addr {
        SocketAddr::V4(addr) => addr.ip().octets().to_vec(),
        SocketAddr::V6(addr) => addr.ip().octets().to_vec(),
    };
    bytes.extend(addr.port().to_be_bytes());
    bytes
}
