//! The two kinds of registry, to be held against one model.

use std::time::{Duration, Instant};

use bt_lite::Addr;
use bt_lite::protocol::{TrackerReply, TrackerRequest};
use bt_lite::tracker::registry::Registry;
use bt_lite::tracker::{RegistryConfig, RegistryStats, ShardedRegistry};

/// The registry for one caller, and the one for several.
pub(crate) enum Subject {
    One(Box<Registry>),
    Sharded(Box<ShardedRegistry>),
}

impl Subject {
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        source: &Addr,
        request: &TrackerRequest,
    ) -> TrackerReply {
        match self {
            Self::One(one) => one.handle(now, source, request),
            Self::Sharded(sharded) => sharded.handle(now, source, request),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::One(one) => one.handle_timeout(now),
            Self::Sharded(sharded) => sharded.handle_timeout(now),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::One(one) => one.poll_timeout(),
            Self::Sharded(sharded) => sharded.poll_timeout(),
        }
    }

    pub(crate) fn stats(&self) -> RegistryStats {
        match self {
            Self::One(one) => one.stats(),
            Self::Sharded(sharded) => sharded.stats(),
        }
    }

    pub(crate) fn check_invariants(&self) {
        match self {
            Self::One(one) => one.check_invariants(),
            Self::Sharded(sharded) => sharded.check_invariants(),
        }
    }
}

/// Quotas so small that each is met soon.
pub(crate) fn config() -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.grace = Duration::from_millis(2500);
    config.max_owners = 5;
    config.max_peers = 8;
    config.max_peers_per_host = 3;
    config.max_contents = 6;
    config.max_contents_per_peer = 4;
    config.max_contents_per_host = 3;
    config.max_ownerships_per_host = 5;
    config.max_ownerships = 14;
    config.max_owners_per_content = 5;
    config.max_names_per_content = 3;
    config.max_contents_per_name = 3;
    config
}
