//! How handshakes have ended.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the clones of a [`TlsTransport`](super::TlsTransport) have counted together.
#[derive(Debug, Default)]
pub(super) struct TlsCounts {
    pub(super) connected: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) gave_way: AtomicU64,
    pub(super) unheard: AtomicU64,
    pub(super) under_way: AtomicU64,
}

/// How the handshakes of a [`TlsTransport`](super::TlsTransport) and its clones have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStats {
    /// Handshakes that this side has begun, and that succeeded.
    pub connected: u64,
    /// Handshakes that the other side has begun, and that succeeded.
    pub accepted: u64,
    /// Handshakes that the other side has begun, and that failed or took too long.
    pub failed: u64,
    /// Handshakes that gave way to others.
    pub gave_way: u64,
    /// Connections that were closed unheard, as their host had failed too often.
    pub unheard: u64,
    /// Handshakes that the other side has begun, and that are under way.
    pub under_way: u64,
}

impl TlsCounts {
    pub(super) fn stats(&self) -> TlsStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TlsStats {
            connected: count(&self.connected),
            accepted: count(&self.accepted),
            failed: count(&self.failed),
            gave_way: count(&self.gave_way),
            unheard: count(&self.unheard),
            under_way: count(&self.under_way),
        }
    }
}
