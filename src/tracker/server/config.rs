//! The figures of a tracker, and why it may not start.

use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

use crate::access::AccessConfig;
use crate::advice::Advice;
use crate::error::ConfigError;
use crate::io_error::IoError;
use crate::protocol::Addr;
use crate::protocol::limits::MAX_HEARTBEAT;
#[cfg(feature = "redis")]
use crate::tracker::redis::StoreError;
use crate::tracker::registry::{MIN_ANNOUNCE_INTERVAL, RegistryConfig};
use crate::transport::TransportError;

/// The shortest heartbeat interval that the protocol can express.
const MIN_HEARTBEAT: Duration = Duration::from_millis(1);

/// The figures of a [`Tracker`](super::Tracker).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct TrackerConfig {
    /// The figures of the registry. A tracker does not start with those that admit nobody:
    /// maximums of zero for peers, contents, owners or what they own.
    pub registry: RegistryConfig,
    /// How many connections may be open at a time. At least 1. Default 4096: over TCP
    /// each takes a file descriptor, of which servers usually allow more. When there are as many, a new connection replaces
    /// one that has not sent a request yet: the oldest one of the host that has
    /// most of those. If there is none, the new one is told that the tracker is
    /// busy.
    pub max_connections: usize,
    /// How many connections one host may have open at a time. At least 1. Default 256, because
    /// many peers may share one address behind a NAT. When there are as many, a
    /// new connection replaces the host's oldest one that has not sent a request
    /// yet, or is told that the tracker is busy. IPv6 hosts are counted by their
    /// /64 network.
    pub max_connections_per_host: usize,
    /// The number of shards of the registry, so that several cores can use it at
    /// once: rounded up to a power of two, at most
    /// [`MAX_SHARDS`](crate::tracker::MAX_SHARDS). Default 64, with which two cores
    /// rarely need the same shard. With another number, other owners are drawn at
    /// random.
    pub shards: u32,
    /// How many announces and scrapes the BitTorrent clients of one host may send in a second,
    /// on the average of ten (feature `bittorrent`). At least 1. Default 100: a client with a
    /// thousand torrents announces all of them when it starts. What is more is refused over
    /// HTTP, and not answered over UDP. IPv6 hosts are counted by their /64 network.
    pub max_announces_per_host: u32,
    /// The proxies before `Tracker::serve_http` that tell for
    /// whom they ask, in `X-Forwarded-For` (feature `bittorrent`). Their connections are
    /// bounded by `max_connections` alone. Default: none, as anybody can write such a field.
    pub trusted_proxies: Vec<IpAddr>,
    /// How [`TrackerBuilder::access`](crate::TrackerBuilder::access) is asked.
    pub access: AccessConfig,
}

setters!(TrackerConfig {
    registry: RegistryConfig,
    max_connections: usize,
    max_connections_per_host: usize,
    shards: u32,
    max_announces_per_host: u32,
    trusted_proxies: Vec<IpAddr>,
    access: AccessConfig,
});

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            registry: RegistryConfig::default(),
            max_connections: 4096,
            max_connections_per_host: 256,
            shards: 64,
            max_announces_per_host: 100,
            trusted_proxies: Vec::new(),
            access: AccessConfig::default(),
        }
    }
}

impl TrackerConfig {
    /// Refuses values with which the tracker would admit nobody, or that the protocol
    /// cannot express.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.access.check()?;
        let registry = &self.registry;
        let bounds = [
            ("max_connections", self.max_connections),
            ("max_connections_per_host", self.max_connections_per_host),
            (
                "max_announces_per_host",
                self.max_announces_per_host as usize,
            ),
            (
                "registry.max_announcers_per_host",
                registry.max_announcers_per_host as usize,
            ),
            ("registry.max_owners", usize::from(registry.max_owners)),
            ("registry.max_peers", registry.max_peers as usize),
            (
                "registry.max_peers_per_host",
                registry.max_peers_per_host as usize,
            ),
            ("registry.max_contents", registry.max_contents as usize),
            (
                "registry.max_contents_per_peer",
                registry.max_contents_per_peer as usize,
            ),
            ("registry.max_ownerships", registry.max_ownerships as usize),
            (
                "registry.max_owners_per_content",
                registry.max_owners_per_content as usize,
            ),
        ];
        if let Some((field, _)) = bounds.into_iter().find(|(_, bound)| *bound == 0) {
            return Err(ConfigError::Zero { field });
        }
        let heartbeat = registry.heartbeat;
        if !(MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&heartbeat) {
            return Err(ConfigError::OutOfRange {
                field: "registry.heartbeat",
                found: format!("{heartbeat:?}"),
                allowed: format!("between {MIN_HEARTBEAT:?} and {MAX_HEARTBEAT:?}"),
            });
        }
        let interval = registry.announce_interval;
        if !(MIN_ANNOUNCE_INTERVAL..=MAX_HEARTBEAT).contains(&interval) {
            return Err(ConfigError::OutOfRange {
                field: "registry.announce_interval",
                found: format!("{interval:?}"),
                allowed: format!("between {MIN_ANNOUNCE_INTERVAL:?} and {MAX_HEARTBEAT:?}"),
            });
        }
        if registry.random_percent > 100 {
            return Err(ConfigError::OutOfRange {
                field: "registry.random_percent",
                found: registry.random_percent.to_string(),
                allowed: "at most 100".into(),
            });
        }
        Ok(())
    }
}

/// Why a tracker has not started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address or the configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The transport cannot listen there.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// The address.
        addr: Addr,
        /// Why not.
        source: TransportError,
    },
    /// The operating system has no random bytes, without which tokens could be
    /// guessed.
    #[error("cannot get random bytes from the operating system: {source}")]
    Entropy {
        /// The error of the operating system.
        source: IoError,
    },
    /// The store that the tracker is to share cannot be used
    /// ([`TrackerBuilder::redis`](crate::TrackerBuilder::redis)).
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BindError {
    /// What to do about it: what the transport or the store says, and otherwise
    /// [`Advice::AskUser`].
    pub fn advice(&self) -> Advice {
        match self {
            Self::Config(source) => source.advice(),
            Self::Listen { source, .. } => source.advice(),
            Self::Entropy { .. } => Advice::AskUser,
            #[cfg(feature = "redis")]
            Self::Store(source) => source.advice(),
        }
    }
}

is_transient!(BindError);
