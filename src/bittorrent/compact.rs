//! Addresses in the compact form: an IP and a port without anything between (BEP 7, 11, 23).

use core::net::{IpAddr, SocketAddr};

/// The length of an IPv4 address with its port (BEP 23).
pub(super) const COMPACT_V4_LEN: usize = 6;
/// The same of IPv6 (BEP 7).
pub(super) const COMPACT_V6_LEN: usize = 18;

/// Reads one address. `None` if the length is that of none, or nobody can be at port 0.
pub(super) fn read_one(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match <[u8; 4]>::try_from(ip) {
        Ok(ip) => IpAddr::from(ip),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
    };
    let port = u16::from_be_bytes(*port);
    (port > 0).then_some(SocketAddr::new(ip, port))
}

/// Reads addresses of one family. Those of port 0 are left out, and so is what is left at
/// the end.
pub(super) fn read_compact(bytes: &[u8], is_v6: bool, max: usize) -> Vec<SocketAddr> {
    let len = match is_v6 {
        true => COMPACT_V6_LEN,
        false => COMPACT_V4_LEN,
    };
    let peers = bytes.chunks_exact(len).filter_map(read_one);
    peers.take(max).collect()
}

/// Writes one address. The family decides about its length.
pub(super) fn write_compact(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(addr.port().to_be_bytes());
}
