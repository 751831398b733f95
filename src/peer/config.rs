//! The bounds of a peer.

use std::time::Duration;

use crate::access::AccessConfig;
use crate::error::ConfigError;
use crate::peer::limits::RateLimits;
use crate::peer::swarm::SwarmConfig;
use crate::protocol::Zone;
use crate::tracker::ClientConfig;

/// The shortest pause before something is tried again, and the shortest time
/// after which another peer counts as silent: a busy program may need that long
/// for an answer. With less, a peer would ask without a pause, or give up
/// another that it has only just asked.
const MIN_WAIT: Duration = Duration::from_millis(10);

/// The bounds of a peer. The defaults suit most programs.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct PeerConfig {
    /// How many owners a tracker is asked for at a time. Default 50, more than
    /// the sources of a swarm, as some owners are gone when they are dialled.
    pub owners_wanted: u16,
    /// How many downloads may be active; others wait for them to end. One that waits for
    /// a tracker to answer is not active. Default
    /// 64: enough that many small ones share each sync of the disk, and with two
    /// files each an eighth of the 1,024 files that a process may usually have
    /// open.
    pub max_downloads: usize,
    /// How many connections there may be to other peers. One connection carries
    /// all contents of two peers. A quarter of them (rounded down, but at least
    /// one, if there are several) is kept for those that this peer dials, and as
    /// many for those that others open. When others have opened as many as they
    /// may, the newest connection of the host that has opened most gives way to
    /// one of a host that has at least two fewer; other connections are refused
    /// as busy. Default 500: half of the 1,024 descriptors that a process may usually
    /// have open, so that files get the other half. If the process may have fewer
    /// (`RLIMIT_NOFILE`), there are fewer: half of what it may have, less 32, is
    /// for connections, and a third of that at most for those that shake hands
    /// ([`PeerStats::max_connections`](crate::peer::PeerStats::max_connections)).
    pub max_connections: usize,
    /// How many connections one host may open here. The addresses of one IPv6
    /// /64 network count as one host. More are refused as busy. Default 100: many
    /// peers may share one address behind a NAT, and no host takes more than a fifth
    /// of all places.
    pub max_connections_per_host: usize,
    /// How many accepted connections may be shaking hands, or being refused. For
    /// a further one, the oldest connection of the host that has most is closed.
    /// Default 256: with the others, fewer than the 1,024 files that a process
    /// may usually have open.
    pub max_handshakes: usize,
    /// The same for one host, whose own oldest connection is closed. Default 64: a
    /// quarter of all, so that it takes several hosts to take all places.
    pub max_handshakes_per_host: usize,
    /// How long [`shutdown`](crate::Peer::shutdown) waits for tasks before it
    /// ends them. Default 3 s: a sync of a slow disk ends within that, and whoever
    /// stops a program does not take it for hung.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub shutdown_timeout: Duration,
    /// How fast the peer may send and receive. Default: no limits.
    /// [`Peer::set_rate_limits`](crate::Peer::set_rate_limits) changes them while the peer
    /// runs.
    pub limits: RateLimits,
    /// How many bytes of content there may be in the storage of the peer, complete or being
    /// downloaded. When a download needs room, the contents that were used least recently
    /// are [removed](crate::Peer::set_pinned) until it fits, but nothing that was there before
    /// and was only shared or found; if it cannot fit, it fails with
    /// [`StorageError::Full`](crate::StorageError::Full) before anything is fetched. Zero is
    /// an error.
    /// Default `None`: the disk is the bound, and nothing is removed that nobody asked to
    /// remove. With a bound a download asks for the manifest first, which costs a round trip.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::rate"))]
    pub max_stored: Option<u64>,
    /// The zone of the peer: a site, a data center, a rack. Peers of one zone are near each
    /// other: trackers name them first, and other zones are asked for what no near owner has, or
    /// if near owners are slower. Others are told a number that follows from the name, and not
    /// the name. BitTorrent clients are near everybody, and a tracker over Redis names owners of
    /// all zones alike. Default `None`: everybody is near.
    pub zone: Option<Zone>,
    /// How each content is downloaded and served. [`planner.seed`] has no effect here:
    /// each content gets one of its own
    /// ([`PeerBuilder::seed`](crate::PeerBuilder::seed)).
    ///
    /// [`planner.seed`]: crate::peer::swarm::PlannerConfig::seed
    pub swarm: SwarmConfig,
    /// How [`PeerBuilder::access`](crate::PeerBuilder::access) is asked.
    pub access: AccessConfig,
    /// How trackers are talked to. A first pause above the longest one is refused.
    pub tracker: ClientConfig,
}

setters!(PeerConfig {
    owners_wanted: u16,
    max_downloads: usize,
    max_connections: usize,
    max_connections_per_host: usize,
    max_handshakes: usize,
    max_handshakes_per_host: usize,
    shutdown_timeout: Duration,
    limits: RateLimits,
    max_stored: Option<u64>,
    zone: impl Into<Option<Zone>>,
    swarm: SwarmConfig,
    access: AccessConfig,
    tracker: ClientConfig,
});

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            owners_wanted: 50,
            max_downloads: 64,
            max_connections: 500,
            max_connections_per_host: 100,
            max_handshakes: 256,
            max_handshakes_per_host: 64,
            shutdown_timeout: Duration::from_secs(3),
            limits: RateLimits::default(),
            max_stored: None,
            zone: None,
            swarm: SwarmConfig::default(),
            access: AccessConfig::default(),
            tracker: ClientConfig::default(),
        }
    }
}

impl PeerConfig {
    /// Refuses values that cannot work.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bounds = [
            ("owners_wanted", usize::from(self.owners_wanted)),
            ("max_downloads", self.max_downloads),
            ("max_connections", self.max_connections),
            ("max_connections_per_host", self.max_connections_per_host),
            ("max_handshakes", self.max_handshakes),
            ("max_handshakes_per_host", self.max_handshakes_per_host),
            ("swarm.sources", self.swarm.sources),
            ("swarm.max_links", self.swarm.max_links),
            ("tracker.max_contents", self.tracker.max_contents),
            (
                "swarm.planner.max_requests",
                self.swarm.planner.max_requests,
            ),
        ];
        if let Some((field, _)) = bounds.into_iter().find(|(_, bound)| *bound == 0) {
            return Err(ConfigError::Zero { field });
        }
        self.limits.check()?;
        self.access.check()?;
        if self.max_stored == Some(0) {
            let field = "max_stored";
            return Err(ConfigError::Zero { field });
        }
        let (swarm, planner) = (&self.swarm, &self.swarm.planner);
        let waits = [
            ("swarm.find_retry", swarm.find_retry),
            ("swarm.find_interval", swarm.find_interval),
            ("swarm.patience", swarm.patience.unwrap_or(Duration::MAX)),
            ("swarm.planner.silence", planner.silence),
            ("swarm.planner.max_silence", planner.max_silence),
        ];
        if let Some((field, wait)) = waits.into_iter().find(|(_, wait)| *wait < MIN_WAIT) {
            return Err(out_of_range(field, wait, format!("at least {MIN_WAIT:?}")));
        }
        self.check_pairs()
    }

    /// Refuses first values that are above the longest ones.
    fn check_pairs(&self) -> Result<(), ConfigError> {
        let (swarm, planner, tracker) = (&self.swarm, &self.swarm.planner, &self.tracker);
        let pairs = [
            (
                ("swarm.find_retry", swarm.find_retry),
                ("swarm.find_interval", swarm.find_interval),
            ),
            (
                ("swarm.planner.silence", planner.silence),
                ("swarm.planner.max_silence", planner.max_silence),
            ),
            (
                ("tracker.backoff", tracker.backoff.0),
                ("its second", tracker.backoff.1),
            ),
            (
                ("tracker.own_retry", tracker.own_retry.0),
                ("its second", tracker.own_retry.1),
            ),
        ];
        for ((field, value), (most_field, most)) in pairs {
            if value > most {
                let allowed = format!("at most {most_field} ({most:?})");
                return Err(out_of_range(field, value, allowed));
            }
        }
        Ok(())
    }
}

fn out_of_range(field: &'static str, value: Duration, allowed: String) -> ConfigError {
    ConfigError::OutOfRange {
        field,
        found: format!("{value:?}"),
        allowed,
    }
}
