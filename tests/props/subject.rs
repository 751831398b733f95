//! The two kinds of registry, to be held against one model.

use std::time::Instant;

use bt_lite::Addr;
use bt_lite::protocol::{TrackerReply, TrackerRequest};
use bt_lite::tracker::registry::Registry;
use bt_lite::tracker::{RegistryStats, ShardedRegistry};

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
