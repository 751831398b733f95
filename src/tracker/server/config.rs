//! The figures of a tracker, and why it may not start.

use std::convert::Infallible;
use std::time::Duration;

use thiserror::Error;

use crate::advice::Advice;
use crate::io_error::IoError;
use crate::protocol::AddrError;
use crate::protocol::limits::MAX_HEARTBEAT;
use crate::tracker::RegistryConfig;
use crate::transport::TransportError;

/// The figures of a [`Tracker`](super::Tracker).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct TrackerConfig {
    /// The figures of the registry.
    pub registry: RegistryConfig,
    /// How many connections may be open at a time. Default 4096; over TCP each
    /// takes a file descriptor. When there are as many, a new connection replaces
    /// one that has not sent a request yet: the oldest one of the host that has
    /// most of those. If there is none, the new one is told that the tracker is
    /// busy.
    pub max_connections: usize,
    /// How many connections one host may have open at a time. Default 256, because
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
}

setters!(TrackerConfig {
    registry: RegistryConfig,
    max_connections: usize,
    max_connections_per_host: usize,
    shards: u32,
});

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            registry: RegistryConfig::default(),
            max_connections: 4096,
            max_connections_per_host: 256,
            shards: 64,
        }
    }
}

/// Why a tracker has not started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is invalid.
    #[error(transparent)]
    Address(#[from] AddrError),
    /// The protocol cannot express the heartbeat interval.
    #[error("the heartbeat interval must be between 1 ms and {MAX_HEARTBEAT:?}, not {heartbeat:?}")]
    Heartbeat {
        /// The configured interval.
        heartbeat: Duration,
    },
    /// The transport cannot listen there.
    #[error("cannot listen: {0}")]
    Transport(#[from] TransportError),
    /// The operating system has no random bytes, without which tokens could be
    /// guessed.
    #[error("cannot get random bytes from the operating system: {source}")]
    Entropy {
        /// The error of the operating system.
        source: IoError,
    },
}

impl BindError {
    /// What to do about it: what the transport says, and otherwise [`Advice::AskUser`].
    pub fn advice(&self) -> Advice {
        match self {
            Self::Transport(source) => source.advice(),
            Self::Address(_) | Self::Heartbeat { .. } | Self::Entropy { .. } => Advice::AskUser,
        }
    }
}

impl From<Infallible> for BindError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
