//! What all shards of a registry have in common and what never changes: the
//! figures, the epoch, and which shard a peer or a content belongs to.

#[cfg(feature = "bittorrent")]
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::addrs::{ListenAddr, Vantage};
use super::config::{AddressRule, RegistryConfig};
use super::keyed::{self, Keyed, KeyedIds};
use crate::content::ContentId;
use crate::protocol::{Addr, OwnerRef, Refusal, Token};

/// The fixed part of a registry.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: RegistryConfig,
    pub(crate) epoch: u64,
    /// There are `1 << bits` shards.
    bits: u32,
    hosts: Keyed,
    ids: KeyedIds,
}

impl Settings {
    pub(crate) fn new(config: RegistryConfig, key: &[u8; 32], epoch: u64, bits: u32) -> Self {
        Self {
            config: config.within_limits(),
            epoch,
            bits,
            hosts: Keyed::derive(key, "bt_lite hosts"),
            ids: KeyedIds::derive(key, "bt_lite ids"),
        }
    }

    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// Selects the bits of a number that tell its shard.
    fn mask(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// The hash of a host, by which its peers are counted.
    pub(crate) fn host(&self, addr: &Addr) -> u32 {
        self.hosts.host(addr)
    }

    /// The shard with the peers of a host.
    pub(crate) fn shard_of_host(&self, host: u32) -> u32 {
        host >> 16 & self.mask()
    }

    /// The shard with the peers of the host of an address.
    pub(crate) fn shard_of_addr(&self, addr: &Addr) -> u32 {
        self.shard_of_host(self.host(addr))
    }

    /// The shard with the peer that a token names.
    pub(crate) fn shard_of_token(&self, token: &Token) -> u32 {
        keyed::words(token)[0] & self.mask()
    }

    /// The shard with the peer that a reference names.
    pub(crate) fn shard_of_owner(&self, owner: OwnerRef) -> u32 {
        owner.0 as u32 & self.mask()
    }

    /// The shard with the content of this number.
    pub(crate) fn shard_of_content(&self, content: u32) -> u32 {
        content & self.mask()
    }

    /// The hash of an id, and the shard with that content.
    pub(crate) fn locate(&self, id: &ContentId) -> (u64, u32) {
        let hash = self.ids.hash(id);
        (hash, (hash >> 32) as u32 & self.mask())
    }

    /// The address at which a BitTorrent client is listed that announces from `source`: at
    /// this IP, or at that which it comes from.
    ///
    /// # Errors
    /// As [`listed`](Self::listed).
    #[cfg(feature = "bittorrent")]
    pub(crate) fn listed_at(
        &self,
        source: &Addr,
        named: Option<IpAddr>,
        port: u16,
    ) -> Result<Option<ListenAddr>, Refusal> {
        let Some(from) = source.socket_addr() else {
            return Ok(None);
        };
        let ip = named.unwrap_or(match from.ip().to_canonical() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        });
        self.listed(source, Some(&SocketAddr::new(ip, port).into()))
    }

    /// The address at which a peer is listed that registers from `source`, if
    /// it listens at one that others can use. An unspecified IPv6 address stands for
    /// both families, and an unspecified IPv4 address for IPv4 alone: a peer that
    /// listens there and came over IPv6 is not listed. A peer on the tracker's own
    /// machine may name any address, and is listed without an IP if it names none; see
    /// [`Vantage`].
    ///
    /// # Errors
    /// [`Refusal::ForeignAddress`] for the address of another host, where
    /// addresses must be of the source's host.
    pub(crate) fn listed(
        &self,
        source: &Addr,
        listen: Option<&Addr>,
    ) -> Result<Option<ListenAddr>, Refusal> {
        let Some(listen) = listen else {
            return Ok(None);
        };
        let socket = listen.socket_addr();
        if socket.is_some_and(|addr| addr.port() == 0) {
            return Ok(None);
        }
        if Vantage::of(source, None).is_loopback() {
            return Ok(Some(ListenAddr::from(listen)));
        }
        if !listen.serves_family_of(source) {
            return Ok(None);
        }
        let addr = listen.filled_in_from(source);
        if self.config.addresses == AddressRule::SourceHost && !addr.same_host(source) {
            return Err(Refusal::ForeignAddress { addr });
        }
        Ok(Some(ListenAddr::from(&addr)))
    }
}
