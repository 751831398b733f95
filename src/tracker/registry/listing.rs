//! What the list of a content must know of a peer.

use super::addrs::ListenAddr;
#[cfg(feature = "redis")]
use super::decay;
#[cfg(feature = "redis")]
use crate::protocol::OwnerRef;
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

#[cfg(feature = "redis")]
impl PeerListing {
    /// A peer that is known by its reference and not counted here.
    pub(crate) fn of_ref(
        owner: OwnerRef,
        score: f64,
        addr: Option<ListenAddr>,
        also: Option<ListenAddr>,
    ) -> Self {
        Self {
            peer: owner.0 as u32,
            generation: (owner.0 >> u32::BITS) as u32,
            level: decay::level(score as f32),
            host: 0,
            credited: false,
            addr,
            also,
            zone: None,
        }
    }
}
