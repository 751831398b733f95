//! What the list of a content must know of a peer.

use super::addrs::ListenAddr;
use crate::protocol::ZoneTag;

/// A peer, as the contents that it owns list it.
#[derive(Debug)]
pub(crate) struct PeerListing {
    pub(super) peer: u32,
    pub(super) generation: u32,
    /// The level of its upload rate; see [`level`](super::decay::level).
    pub(super) level: i32,
    /// The hash of its host, by which quotas count it.
    pub(crate) host: u32,
    /// Whether a peer of another host has credited it.
    pub(super) credited: bool,
    /// Where it listens. A peer that does not listen is not listed.
    pub(super) addr: Option<ListenAddr>,
    /// Where it listens for the other family of IP addresses as well.
    pub(super) also: Option<ListenAddr>,
    /// The zone that it is in.
    pub(super) zone: Option<ZoneTag>,
}
