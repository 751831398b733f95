//! What is said to trackers and by them: pure encoding, both ways.
//!
//! [`http`] is the protocol over HTTP (BEP 3, 7, 23, 24, 31, 48), and [`udp`] that over UDP
//! (BEP 15, 41). Nothing here opens a socket or knows a clock.

mod connection_id;
pub mod http;
pub mod udp;

pub use connection_id::{CONNECTION_ID_LIFE, ConnectionIds};

use core::net::{IpAddr, SocketAddr};

/// What an announce is for. Most are for none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnnounceEvent {
    /// The first one.
    Started,
    /// The last one: the peer leaves.
    Stopped,
    /// The peer has just got all of it.
    Completed,
    /// The peer fetches some of it and wants no more (BEP 21). Over HTTP only.
    Paused,
}

/// The figures that a tracker has of one torrent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ScrapeFigures {
    /// How many peers have all of it.
    pub complete: u32,
    /// How many times it was fetched as a whole.
    pub downloaded: u32,
    /// How many peers do not have all of it.
    pub incomplete: u32,
}

/// The length of an IPv4 address with its port, as trackers send it (BEP 23).
const COMPACT_V4_LEN: usize = 6;
/// The same of IPv6 (BEP 7).
const COMPACT_V6_LEN: usize = 18;

/// Reads addresses of one family. Those of port 0 are left out, and so is what is left at
/// the end.
fn read_compact(bytes: &[u8], is_v6: bool, max: usize) -> Vec<SocketAddr> {
    let len = if is_v6 {
        COMPACT_V6_LEN
    } else {
        COMPACT_V4_LEN
    };
    let peers = bytes.chunks_exact(len).filter_map(|peer| {
        let (ip, port) = peer.split_last_chunk::<2>()?;
        let ip = match is_v6 {
            true => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
            false => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        };
        let port = u16::from_be_bytes(*port);
        (port > 0).then_some(SocketAddr::new(ip, port))
    });
    peers.take(max).collect()
}

/// Writes one address. The family decides about its length.
fn write_compact(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(addr.port().to_be_bytes());
}
