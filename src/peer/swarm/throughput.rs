//! How many bytes of late, over a fixed window: the rates that users are told. The
//! planner has its own measures.

use std::time::{Duration, Instant};

/// The time over which the rates of [`DownloadStats`](super::DownloadStats), its links
/// and a whole peer are measured: the last 4.5 to 5 seconds. Of something that is younger,
/// its age counts, and at least half a second.
pub const RATE_WINDOW: Duration = Duration::from_secs(5);

/// The window moves in steps of a tenth of it: a counter for each is enough, however many
/// blocks arrive.
const SLOTS: u64 = 10;

/// The length of a step.
const STEP: Duration = Duration::from_millis(RATE_WINDOW.as_millis() as u64 / SLOTS);

/// Counts bytes over [`RATE_WINDOW`].
#[derive(Debug, Clone)]
pub(crate) struct Throughput {
    began: Instant,
    /// The number of the last step in which something was counted.
    head: u64,
    /// The bytes of the steps up to that one, each at its number modulo [`SLOTS`].
    slots: [u32; SLOTS as usize],
}

impl Throughput {
    /// Nothing was counted yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            head: 0,
            slots: [0; SLOTS as usize],
        }
    }

    /// So many bytes more.
    pub(crate) fn add(&mut self, now: Instant, bytes: u64) {
        let step = self.step(now).max(self.head);
        let skipped = (step - self.head).min(SLOTS);
        for past in 0..skipped {
            self.slots[((step - past) % SLOTS) as usize] = 0;
        }
        self.head = step;
        let slot = &mut self.slots[(step % SLOTS) as usize];
        *slot = slot.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Bytes per second over the window that ends now.
    pub(crate) fn rate(&self, now: Instant) -> u64 {
        let first = self.step(now).saturating_sub(SLOTS - 1);
        let counted = first..=self.head;
        let in_window = (0..SLOTS).filter_map(|past| self.head.checked_sub(past));
        let in_window = in_window.filter(|step| counted.contains(step));
        let bytes: u64 = in_window
            .map(|step| u64::from(self.slots[(step % SLOTS) as usize]))
            .sum();
        let age = now.saturating_duration_since(self.began);
        let time = age.saturating_sub(STEP * first as u32).max(STEP);
        (bytes as f64 / time.as_secs_f64()).round() as u64
    }

    fn step(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.began);
        (age.as_millis() / STEP.as_millis()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_the_window_and_nothing_older_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = Throughput::new(start);
        assert_eq!(meter.rate(at(0)), 0);
        meter.add(at(0), 1000);
        // At least one step counts.
        assert_eq!(meter.rate(at(1)), 2000);
        assert_eq!(meter.rate(at(2000)), 500);
        for ms in (100..20_000).step_by(100) {
            meter.add(at(ms), 1000);
        }
        // From 15,500 on: 45 arrivals up to 19,900.
        assert_eq!(meter.rate(at(20_000)), 10_000);
        assert_eq!(meter.rate(at(20_499)), (45_000_f64 / 4.999).round() as u64);
        assert_eq!(meter.rate(at(22_000)), (25_000_f64 / 4.5).round() as u64);
        assert_eq!(meter.rate(at(24_499)), (5_000_f64 / 4.999).round() as u64);
        assert_eq!(meter.rate(at(24_500)), 0);
        assert_eq!(meter.rate(at(500_000)), 0);
        meter.add(at(500_000), 4500);
        assert_eq!(meter.rate(at(500_000)), 1000);
        // Time that seems to go back counts as now.
        meter.add(at(499_000), 4500);
        assert_eq!(meter.rate(at(500_000)), 2000);
    }
}
