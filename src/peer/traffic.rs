//! What all contents of a peer together send and receive.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::metrics;
use crate::peer::swarm::{FarBytes, Throughput, Waste};

/// Counts the bytes of blocks of a whole peer.
pub(super) struct Traffic(Mutex<Counts>);

struct Counts {
    down: Throughput,
    up: Throughput,
    totals: TrafficTotals,
}

/// What was counted since the start of the peer, in bytes, and the rates of late, in bytes
/// per second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TrafficTotals {
    pub(super) downloaded: u64,
    pub(super) uploaded: u64,
    pub(super) waste: Waste,
    pub(super) far: FarBytes,
    pub(super) download_rate: u64,
    pub(super) upload_rate: u64,
}

impl Traffic {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Counts {
            down: Throughput::new(now),
            up: Throughput::new(now),
            totals: TrafficTotals::default(),
        }))
    }

    /// Bytes have arrived, and so many turned out to be in vain.
    pub(super) fn received(&self, now: Instant, bytes: u64, in_vain: Waste) {
        metrics::count(metrics::DOWNLOADED, bytes);
        let parts = [
            ("late", in_vain.late),
            ("bad", in_vain.bad),
            ("dropped", in_vain.dropped),
        ];
        for (why, bytes) in parts.into_iter().filter(|(_, bytes)| *bytes > 0) {
            metrics::count_as(metrics::WASTED, ("why", why), bytes);
        }
        let mut counts = self.counts();
        counts.down.add(now, bytes);
        counts.totals.downloaded += bytes;
        counts.totals.waste.add(&in_vain);
    }

    /// Bytes were sent.
    pub(super) fn sent(&self, now: Instant, bytes: u64) {
        metrics::count(metrics::UPLOADED, bytes);
        let mut counts = self.counts();
        counts.up.add(now, bytes);
        counts.totals.uploaded += bytes;
    }

    /// So many of them went from one zone to another.
    pub(super) fn went_far(&self, bytes: &FarBytes) {
        metrics::count_as(metrics::FAR, ("direction", "down"), bytes.downloaded);
        metrics::count_as(metrics::FAR, ("direction", "up"), bytes.uploaded);
        self.counts().totals.far.add(bytes);
    }

    pub(super) fn totals(&self, now: Instant) -> TrafficTotals {
        let counts = self.counts();
        TrafficTotals {
            download_rate: counts.down.rate(now),
            upload_rate: counts.up.rate(now),
            ..counts.totals
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
