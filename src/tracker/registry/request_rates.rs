//! How often requests come, as rates that decay.

use std::time::Duration;

use super::stats::{KINDS, RequestCounts};
use super::timer_wheel::Tick;

/// After this many seconds a request counts half: long enough to read the
/// figure, short enough to see a storm come and go.
const HALF_LIFE: f64 = 5.0;

/// The request rates of one shard, brought up to date once in a tick.
#[derive(Debug, Default)]
pub(super) struct RequestRates {
    next_update: Tick,
    updated: Duration,
    /// The counts as of the last update.
    seen: RequestCounts,
    per_second: [f64; KINDS],
}

impl RequestRates {
    pub(super) fn is_due(&self, tick: Tick) -> bool {
        tick >= self.next_update
    }

    /// Takes in what was counted since the last update.
    pub(super) fn update(&mut self, tick: Tick, now: Duration, counts: &RequestCounts) {
        let half_lives = now.saturating_sub(self.updated).as_secs_f64() / HALF_LIFE;
        let left = (-half_lives).exp2();
        let news = counts.values().into_iter().zip(self.seen.values());
        for (rate, (new, old)) in self.per_second.iter_mut().zip(news) {
            let per_second = (new - old) as f64 * std::f64::consts::LN_2 / HALF_LIFE;
            *rate = *rate * left + per_second;
        }
        (self.next_update, self.updated, self.seen) = (tick + 1, now, *counts);
    }

    /// The rates as of the last update, in the order of
    /// [`RequestCounts::values`].
    pub(super) fn per_second(&self) -> [f64; KINDS] {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::super::stats::RequestsPerSecond;
    use super::*;

    #[test]
    fn rate_approaches_the_true_rate_and_decays_in_silence() {
        let (mut rates, mut counts) = (RequestRates::default(), RequestCounts::default());
        for tick in 0..200 {
            counts.need += 50;
            assert!(rates.is_due(tick));
            rates.update(tick, Duration::from_millis(250) * tick, &counts);
            assert!(!rates.is_due(tick));
        }
        let sum = RequestsPerSecond::sum([rates.per_second(); 2].into_iter());
        assert!((390..=420).contains(&sum.need), "{rates:?}");
        assert_eq!(sum.own, 0);
        let before = rates.per_second()[2];
        rates.update(
            220,
            Duration::from_millis(250) * 199 + Duration::from_secs(5),
            &counts,
        );
        assert!((rates.per_second()[2] * 2.0 - before).abs() < 1e-6);
    }
}
