//! The figures of a registry.

use std::time::Duration;

use super::names::share;
use super::ownerships::{MAX_NAMES_OF_OWNER, MOST as OWNERSHIPS};
use crate::protocol::limits::{MAX_AMBIGUOUS, MAX_HEARTBEAT, MAX_OWNERS};

/// The shortest heartbeat interval that the protocol can express.
const MIN_HEARTBEAT: Duration = Duration::from_millis(1);

/// The shortest interval of announces: they are told it in seconds.
pub(crate) const MIN_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Which listening addresses a registry accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum AddressRule {
    /// Only addresses of the host that registers them
    /// ([`Addr::same_host`](crate::Addr::same_host)), after an unspecified IP
    /// was filled in from the connection. So a tracker cannot be used to aim
    /// peers at third parties. Who registers over loopback is on the tracker's own
    /// machine, and may name any address of it, or a name, or that of the router before
    /// it; a tracker must not stand behind a proxy that hides where its peers come from.
    #[default]
    SourceHost,
    /// Any address. For peers behind proxies and port mappings, where everybody
    /// who can register is trusted.
    Any,
}

/// The figures of a [`ShardedRegistry`](crate::tracker::ShardedRegistry). Each
/// has a default that suits a public tracker.
///
/// ```
/// use bt_lite::tracker::RegistryConfig;
///
/// let config = RegistryConfig::default().max_peers(1000);
/// assert_eq!(config.max_peers, 1000);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// The interval at which a peer must REGISTER again: 1 ms to 24 h, which is
    /// what the protocol can express. A registry uses the nearest value in that
    /// range; a tracker does not start with a value outside of it. Default 20 s: a peer
    /// that is gone is not listed for long, and a million peers send 50,000 heartbeats
    /// a second.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub heartbeat: Duration,
    /// How late a heartbeat may be. Default 2 s: TCP repeats a lost packet within that.
    /// Heartbeat plus grace is the
    /// lease. A peer that sends nothing for that long is forgotten with all that
    /// it owned, at most a 64th of the lease later. Every request with a valid
    /// token extends the lease.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub grace: Duration,
    /// Which listening addresses are accepted. Default: those of the source's
    /// host, so that nobody aims peers at others.
    pub addresses: AddressRule,
    /// How many owners one reply names at most. Default 50, which is also the
    /// protocol's limit.
    pub max_owners: u16,
    /// The percentage of the named owners that are drawn at random from all
    /// owners, rather than chosen by speed. Default 25: most are fast ones, and new
    /// owners get the chance to be measured. At least one place goes to the fastest.
    /// A tracker does not start with more than 100.
    pub random_percent: u8,
    /// After this time a credited upload counts half. Default 20 s, which is one
    /// heartbeat and about ten reports: one odd report does not change the
    /// order, and an owner that has become slow loses its place within a minute.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub half_life: Duration,
    /// The highest download rate, in bytes per second, that one peer, and all
    /// peers of one host together, can credit. What they report beyond it is not
    /// credited, so it does not help a liar to run many peers. A host that has
    /// not reported can make up for at most one lease. Default 1.25 GB/s, which
    /// is 10 Gbit/s.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub max_credit_rate: u64,
    /// How many peers there may be. Default 1,000,000, which one machine serves.
    pub max_peers: u32,
    /// How many peers one host may register. Default 256, because many peers may
    /// share one address behind a NAT. IPv6 hosts are counted by their /64
    /// network.
    pub max_peers_per_host: u32,
    /// How many contents there may be. Default 1,000,000: one for each peer.
    pub max_contents: u32,
    /// How many contents one peer may own. Default 100,000: a large archive, and a tenth
    /// of all contents.
    pub max_contents_per_peer: u32,
    /// How many contents the peers of one host may own, beyond the first one of
    /// each peer, before the host may not add contents that are new to the
    /// registry. Its peers may still own contents that others own. Default
    /// 100,000: one peer may have as many contents as a peer may own, and they
    /// take no more than a tenth of the catalog. IPv6 hosts are counted by their
    /// /64 network, as everywhere.
    pub max_contents_per_host: u32,
    /// How many contents the peers of one host may own together, beyond the
    /// first one of each peer. A content counts once for each peer that owns it.
    /// Default 1,000,000: ten peers behind one NAT may share 100,000 contents,
    /// and take no more than a tenth of the total.
    pub max_ownerships_per_host: u32,
    /// How many pairs of a peer and a content there may be. Default 10,000,000,
    /// which take about half a gigabyte.
    pub max_ownerships: u32,
    /// How many owners one content may have. Default 1,000,000: all peers may have it.
    pub max_owners_per_content: u32,
    /// How many names one content may have, at most 255. One host may bring at
    /// most half of them, and one peer may use at most half of them, or eight.
    /// Default 16: room for honest names beside those that strangers make up.
    pub max_names_per_content: u8,
    /// How many contents may share one name. One host may bring at most half of them.
    /// Default 32, because the answer to an ambiguous name cannot list more; higher
    /// values count as 32.
    pub max_contents_per_name: u32,
    /// How often BitTorrent clients are to announce each torrent (feature `bittorrent`): 1 s
    /// to 24 h. Each is told another time, up to a tenth less or more, and is forgotten if it
    /// has not come within one and a half of it. Default 30 min, as other trackers have it:
    /// a million torrents are 600 announces a second.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub announce_interval: Duration,
    /// How many torrents the BitTorrent clients of one host may announce together (feature
    /// `bittorrent`). Each torrent of a client is one of [`max_peers`](Self::max_peers).
    /// Default 1000: one client with many torrents, or many behind a NAT, and a thousandth
    /// of all peers. IPv6 hosts are counted by their /64 network.
    pub max_announcers_per_host: u32,
}

setters!(RegistryConfig {
    heartbeat: Duration,
    grace: Duration,
    addresses: AddressRule,
    max_owners: u16,
    random_percent: u8,
    half_life: Duration,
    max_credit_rate: u64,
    max_peers: u32,
    max_peers_per_host: u32,
    max_contents: u32,
    max_contents_per_peer: u32,
    max_contents_per_host: u32,
    max_ownerships_per_host: u32,
    max_ownerships: u32,
    max_owners_per_content: u32,
    max_names_per_content: u8,
    max_contents_per_name: u32,
    announce_interval: Duration,
    max_announcers_per_host: u32,
});

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(20),
            grace: Duration::from_secs(2),
            addresses: AddressRule::SourceHost,
            max_owners: MAX_OWNERS,
            random_percent: 25,
            half_life: Duration::from_secs(20),
            max_credit_rate: 1_250_000_000,
            max_peers: 1_000_000,
            max_peers_per_host: 256,
            max_contents: 1_000_000,
            max_contents_per_peer: 100_000,
            max_contents_per_host: 100_000,
            max_ownerships_per_host: 1_000_000,
            max_ownerships: 10_000_000,
            max_owners_per_content: 1_000_000,
            max_names_per_content: 16,
            max_contents_per_name: MAX_AMBIGUOUS as u32,
            announce_interval: Duration::from_secs(30 * 60),
            max_announcers_per_host: 1000,
        }
    }
}

impl RegistryConfig {
    /// How long a peer is known after its last request.
    pub fn lease(&self) -> Duration {
        self.heartbeat.saturating_add(self.grace)
    }

    /// The same figures, each within its limits.
    pub(super) fn within_limits(mut self) -> Self {
        self.heartbeat = self.heartbeat.clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        self.max_contents_per_name = self.max_contents_per_name.min(MAX_AMBIGUOUS as u32);
        self.max_ownerships = self.max_ownerships.min(OWNERSHIPS);
        let interval = self.announce_interval;
        self.announce_interval = interval.clamp(MIN_ANNOUNCE_INTERVAL, MAX_HEARTBEAT);
        self
    }

    /// How long a BitTorrent client is known after its last announce of a torrent. Longer
    /// than any interval that it was told, as clients come late.
    #[cfg(feature = "bittorrent")]
    pub(crate) fn announce_lease(&self) -> Duration {
        self.announce_interval * 3 / 2
    }

    /// How many of the fastest owners, and how many others, are named to a BitTorrent client
    /// that is told of so many.
    #[cfg(feature = "bittorrent")]
    pub(crate) fn places_of(&self, wanted: usize) -> (usize, usize) {
        let fast = self.fast_places(wanted);
        (fast, wanted - fast)
    }

    /// How many of the fastest owners, and how many others, are named to one who asks
    /// for so many.
    pub(crate) fn places(&self, max_owners: u16) -> (usize, usize) {
        let k = max_owners.min(self.max_owners).min(MAX_OWNERS).into();
        let fast = self.fast_places(k);
        (fast, k - fast)
    }

    /// How many names one peer may use for one content: what its host may bring.
    pub(crate) fn names_of_owner(&self) -> u32 {
        share(self.max_names_per_content.into()).min(MAX_NAMES_OF_OWNER as u32)
    }

    /// How many of `k` places go to the fastest owners.
    fn fast_places(&self, k: usize) -> usize {
        let random = k * usize::from(self.random_percent.min(100)) / 100;
        (k - random).max(1).min(k)
    }
}
