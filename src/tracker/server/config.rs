//! What may be set on a tracker, and why it does not start.

use std::convert::Infallible;
use std::time::Duration;

use thiserror::Error;

use crate::protocol::AddrError;
use crate::protocol::limits::MAX_HEARTBEAT;
use crate::tracker::RegistryConfig;
use crate::transport::TransportError;

/// The figures of a [`Tracker`](super::Tracker).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TrackerConfig {
    /// Those of what it knows and decides.
    pub registry: RegistryConfig,
    /// How many connections may be open at a time. Default 4096; over TCP each
    /// takes a file descriptor. Whoever comes later takes the place of one on
    /// which nothing was asked yet, the oldest one of the host that has most of
    /// them; where there is none, it is told that the tracker is busy.
    pub max_connections: usize,
    /// How many connections one host may have open at a time. Default 256, for
    /// the sake of peers behind one address translator. Whoever comes later takes
    /// the place of the host's oldest one on which nothing was asked yet, or is
    /// told that the tracker is busy. IPv6 hosts are counted by their /64
    /// network.
    pub max_connections_per_host: usize,
    /// Into how many shards the registry is split, so that several cores use it
    /// at once: rounded up to a power of two, at most
    /// [`MAX_SHARDS`](crate::tracker::MAX_SHARDS). Default 64: two cores want
    /// the same one seldom enough. Another number draws other owners at random.
    pub shards: u32,
}

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

/// Why a tracker does not start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] AddrError),
    /// A heartbeat interval that the protocol cannot say.
    #[error("a heartbeat interval is 1 ms to {MAX_HEARTBEAT:?}, not {heartbeat:?}")]
    Heartbeat {
        /// The configured interval.
        heartbeat: Duration,
    },
    /// The transport cannot listen there.
    #[error("cannot listen: {0}")]
    Transport(#[from] TransportError),
    /// The operating system gives no random bytes, and without them tokens
    /// could be guessed.
    #[error("no random bytes: {detail}")]
    Entropy {
        /// What the operating system says.
        detail: String,
    },
}

impl From<Infallible> for BindError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
