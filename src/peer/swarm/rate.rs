//! How fast something delivers: a link, or all of them. The rate is measured over
//! the last blocks, and only while something is outstanding.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of arrivals over which the rate is measured: enough to smooth it,
/// and few enough to notice a drop soon.
const SAMPLES: usize = 16;

/// A rate in bytes per second of busy time.
#[derive(Debug, Default)]
pub(super) struct RateMeter {
    /// Busy time before the current busy period.
    busy: Duration,
    busy_since: Option<Instant>,
    total: u64,
    /// (busy time, total bytes) at the start and at each arrival.
    samples: VecDeque<(Duration, u64)>,
    /// The difference between the first and the last sample.
    span: Option<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    bytes: u64,
    time: Duration,
    /// The mean time between two arrivals.
    pause: Duration,
    /// The busy time at the last sample.
    last: Duration,
}

impl RateMeter {
    /// Something is outstanding from now on.
    pub(super) fn began(&mut self, now: Instant) {
        if self.busy_since.is_none() {
            self.busy_since = Some(now);
            if self.samples.is_empty() {
                self.samples.push_back((self.busy, self.total));
            }
        }
    }

    /// Nothing is outstanding any more.
    pub(super) fn rested(&mut self, now: Instant) {
        self.busy = self.busy_time(now);
        self.busy_since = None;
    }

    /// Bytes arrived.
    pub(super) fn arrived(&mut self, now: Instant, bytes: u64) {
        self.total += bytes;
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        let last = (self.busy_time(now), self.total);
        self.samples.push_back(last);
        let arrivals = self.samples.len() as u32 - 1;
        let first = self.samples.front().filter(|_| arrivals > 0);
        self.span = first.map(|first| Span {
            bytes: last.1 - first.1,
            time: last.0 - first.0,
            pause: (last.0 - first.0) / arrivals,
            last: last.0,
        });
    }

    /// Bytes per second; `None` before the first arrival. Falls while an arrival
    /// is overdue.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let span = self.span?;
        let waited = self.busy_time(now).saturating_sub(span.last);
        let overdue = waited.saturating_sub(span.pause);
        per_second(span.bytes, span.time + overdue)
    }

    /// Bytes per second up to the last arrival, overdue or not.
    pub(super) fn measured(&self) -> Option<f64> {
        let span = self.span?;
        per_second(span.bytes, span.time)
    }

    fn busy_time(&self, now: Instant) -> Duration {
        let current = self.busy_since.map(|since| now.duration_since(since));
        self.busy + current.unwrap_or_default()
    }
}

fn per_second(bytes: u64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| bytes as f64 / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_counts_busy_time_only_and_falls_when_overdue() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = RateMeter::default();
        assert_eq!(meter.rate(at(0)), None);
        meter.began(at(0));
        meter.arrived(at(100), 1000);
        meter.arrived(at(200), 1000);
        assert_eq!(meter.rate(at(200)), Some(10_000.0));
        assert_eq!(meter.rate(at(300)), Some(10_000.0), "not overdue yet");
        assert_eq!(meter.rate(at(500)), Some(5_000.0), "200 ms overdue");
        meter.rested(at(200));
        assert_eq!(
            meter.rate(at(9000)),
            Some(10_000.0),
            "idle time is not slow"
        );
        meter.began(at(9000));
        meter.arrived(at(9100), 1000);
        assert_eq!(meter.rate(at(9100)), Some(10_000.0));
    }
}
