//! How fast a link delivers what it was asked for, round trip by round trip.
//!
//! The rate is sampled as BBR does it (Cardwell and others, "BBR Congestion Control",
//! draft-cardwell-iccrg-bbr-congestion-control): what was delivered between the moment
//! when a request was sent and the arrival of its block, divided by that time. A sample
//! spans a round trip, so neither bursts nor a pause in which nothing had been asked for
//! count as a rate that is too high. The highest of the last two rounds counts.

use std::time::{Duration, Instant};

/// So many blocks may come in one burst.
const BURST: u32 = 4;

/// What had been delivered when a request was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    delivered: u64,
    /// When the last block had arrived.
    at: Instant,
}

/// The rate of one link.
#[derive(Debug, Default)]
pub(super) struct DeliveryRate {
    delivered: u64,
    last: Option<Instant>,
    /// When the first block had arrived, and what had been delivered with it.
    first: Option<(Instant, u64)>,
    arrivals: u32,
    /// The highest rate since the first block, in bytes per second.
    since_first: f64,
    /// The round ends when a block arrives that was asked for after so much had been
    /// delivered.
    round_end: u64,
    rounds: u64,
    /// The highest sample of this round and of the one before, in bytes per second.
    best: f64,
    best_before: f64,
}

impl DeliveryRate {
    /// A request is sent. `is_first` says that no other one is unanswered.
    pub(super) fn mark(&mut self, now: Instant, is_first: bool) -> Mark {
        if is_first {
            // The pause does not count.
            self.last = Some(now);
        }
        Mark {
            delivered: self.delivered,
            at: self.last.unwrap_or(now),
        }
    }

    /// A block arrived that was asked for at this mark.
    pub(super) fn arrived(&mut self, now: Instant, bytes: u64, mark: Mark) {
        self.delivered += bytes;
        self.last = Some(now);
        self.note_since_first(now);
        if mark.delivered >= self.round_end {
            self.round_end = self.delivered;
            self.rounds += 1;
            self.best_before = std::mem::take(&mut self.best);
        }
        let took = now.saturating_duration_since(mark.at);
        if took > Duration::ZERO {
            let rate = (self.delivered - mark.delivered) as f64 / took.as_secs_f64();
            self.best = self.best.max(rate);
        }
    }

    /// The highest rate since the first block arrived, in bytes per second. It does not
    /// count the wait for that block, and is known before a round is over.
    pub(super) fn since_first(&self) -> f64 {
        self.since_first
    }

    fn note_since_first(&mut self, now: Instant) {
        self.arrivals = self.arrivals.saturating_add(1);
        let (first, before) = *self.first.get_or_insert((now, self.delivered));
        let took = now.saturating_duration_since(first).as_secs_f64();
        if took > 0.0 {
            let rate = (self.delivered - before) as f64 / took;
            // A few blocks may have come in one burst.
            self.since_first = match self.arrivals <= BURST {
                true => rate,
                false => rate.max(self.since_first),
            };
        }
    }

    /// The highest rate of late, in bytes per second.
    pub(super) fn peak(&self) -> f64 {
        self.best.max(self.best_before)
    }

    /// Whether a round is over that began with an arrival. Before, the wait for the first
    /// block counts as well, and the rate is too low.
    pub(super) fn is_measured(&self) -> bool {
        self.rounds > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_a_full_line_after_one_round_trip() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = DeliveryRate::default();
        // Ten blocks are outstanding. The round trip is 100 ms, and a block takes 10 ms.
        let mut asked: Vec<Mark> = (0..10).map(|i| rate.mark(at(0), i == 0)).collect();
        for arrival in 0..30 {
            let now = at(100 + 10 * arrival);
            assert_eq!(rate.is_measured(), arrival > 10);
            rate.arrived(now, 1000, asked.remove(0));
            asked.push(rate.mark(now, false));
        }
        assert!((rate.peak() - 100_000.0).abs() < 1e-6, "{}", rate.peak());
    }

    #[test]
    fn pause_counts_neither_as_slow_nor_as_fast() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = DeliveryRate::default();
        for second in [0, 1000, 2000, 3000] {
            let mark = rate.mark(at(second), true);
            rate.arrived(at(second + 100), 1000, mark);
        }
        assert!((rate.peak() - 10_000.0).abs() < 1e-6, "{}", rate.peak());
    }
}
