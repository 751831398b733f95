//! How handshakes have ended.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the clones of a transport have counted together.
#[derive(Debug, Default)]
pub(in crate::transport) struct HandshakeCounts {
    pub(in crate::transport) connected: AtomicU64,
    pub(in crate::transport) accepted: AtomicU64,
    pub(in crate::transport) failed: AtomicU64,
    pub(in crate::transport) gave_way: AtomicU64,
    pub(in crate::transport) unheard: AtomicU64,
    pub(in crate::transport) retried: AtomicU64,
    pub(in crate::transport) under_way: AtomicU64,
}

/// How the handshakes of a transport and its clones have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeStats {
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
    /// Handshakes that the other side had to begin once more, to prove that its address is
    /// its own. Only over QUIC; over TCP each connection has proven that.
    pub retried: u64,
    /// Handshakes that the other side has begun, and that are under way.
    pub under_way: u64,
}

impl HandshakeCounts {
    pub(in crate::transport) fn stats(&self) -> HandshakeStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HandshakeStats {
            connected: count(&self.connected),
            accepted: count(&self.accepted),
            failed: count(&self.failed),
            gave_way: count(&self.gave_way),
            unheard: count(&self.unheard),
            retried: count(&self.retried),
            under_way: count(&self.under_way),
        }
    }
}
