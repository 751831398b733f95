//! What a registry's owner may set.

use std::time::Duration;

use super::ownerships::MOST as OWNERSHIPS;
use crate::protocol::limits::{MAX_AMBIGUOUS, MAX_HEARTBEAT, MAX_OWNERS};

/// The shortest heartbeat interval that the protocol can say.
const MIN_HEARTBEAT: Duration = Duration::from_millis(1);

/// Which listening addresses a registry takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressRule {
    /// Only of the host that registers it
    /// ([`Addr::same_host`](crate::Addr::same_host)), after an unspecified IP
    /// was filled in from the connection: a tracker is no tool to aim peers at
    /// third parties.
    #[default]
    SourceHost,
    /// Any. For peers behind proxies and port mappings, where everybody who
    /// can register is trusted.
    Any,
}

/// The figures of a [`Registry`](super::Registry). Every one has a default
/// that is good for a public tracker.
///
/// ```
/// use bt_lite::tracker::RegistryConfig;
///
/// let mut config = RegistryConfig::default();
/// config.max_peers = 1000;
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// How often a peer is to REGISTER again: 1 ms to 24 h, which is what the
    /// protocol can say; a registry takes others as the nearest, and a tracker
    /// does not start with them. Default 20 s.
    pub heartbeat: Duration,
    /// How late a heartbeat may be. Default 2 s. Heartbeat and grace are the
    /// lease: who lets it pass in silence is forgotten with all that it owned,
    /// at most a 64th of the lease later. Every request with a good token
    /// extends it.
    pub grace: Duration,
    /// Which listening addresses are taken. Default: of the source's host.
    pub addresses: AddressRule,
    /// How many owners one reply names at the most. Default 50, which is also
    /// the protocol's bound.
    pub max_owners: u16,
    /// How many percent of the named owners are drawn at random from all, and
    /// not for their speed. Default 25. At least one place goes to the fastest.
    pub random_percent: u8,
    /// After how long a credited upload counts half. Default 20 s: as long as
    /// the heartbeat, about ten reports, so that one odd report does not turn
    /// the order, and an owner that has become slow loses its place within a
    /// minute.
    pub half_life: Duration,
    /// The most that one peer, and all peers of one host together, can have
    /// received, in bytes per second: what they report beyond is not credited,
    /// so that it does not help a liar to be many. What a host has not reported
    /// counts for one lease. Default 1.25 GB/s, which is 10 Gbit/s.
    pub max_credit_rate: u64,
    /// How many peers there may be. Default 1,000,000.
    pub max_peers: u32,
    /// How many peers one host may have registered. Default 256, for the sake
    /// of peers behind one address translator. IPv6 hosts are counted by their
    /// /64 network.
    pub max_peers_per_host: u32,
    /// How many contents there may be. Default 1,000,000.
    pub max_contents: u32,
    /// How many contents one peer may own. Default 100,000.
    pub max_contents_per_peer: u32,
    /// So many contents beyond the first one of each peer may the peers of one
    /// host own before the host may bring no new ones; those that others own may
    /// still be owned. Default 100,000: a peer with as many contents as one may
    /// have fits, and takes no more than a tenth of the catalog. IPv6 hosts are
    /// counted by their /64 network, as everywhere.
    pub max_contents_per_host: u32,
    /// How many contents the peers of one host may own together, beyond the
    /// first one of each peer: a content counts for each of them. Default
    /// 1,000,000: ten peers behind one address translator may share 100,000
    /// contents, and take no more than a tenth of the total.
    pub max_ownerships_per_host: u32,
    /// How many pairs of a peer and a content there may be. Default 10,000,000,
    /// which take about half a gigabyte.
    pub max_ownerships: u32,
    /// How many owners one content may have. Default 1,000,000.
    pub max_owners_per_content: u32,
    /// How many names one content may have, at most 255. One host brings at
    /// most half of them. Default 16.
    pub max_names_per_content: u8,
    /// For how many contents one name may stand: at most 32, which is what the
    /// answer to an ambiguous name can list; more counts as that. One host
    /// brings at most half of them. Default 32.
    pub max_contents_per_name: u32,
}

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
        }
    }
}

impl RegistryConfig {
    /// How long a peer is remembered after its last request.
    pub fn lease(&self) -> Duration {
        self.heartbeat.saturating_add(self.grace)
    }

    /// The same, with what cannot be put right.
    pub(super) fn put_right(mut self) -> Self {
        self.heartbeat = self.heartbeat.clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        self.max_contents_per_name = self.max_contents_per_name.min(MAX_AMBIGUOUS as u32);
        self.max_ownerships = self.max_ownerships.min(OWNERSHIPS);
        self
    }

    /// How many of `k` places go to the fastest owners.
    pub(super) fn fast_places(&self, k: usize) -> usize {
        let random = k * usize::from(self.random_percent.min(100)) / 100;
        (k - random).max(1).min(k)
    }
}
