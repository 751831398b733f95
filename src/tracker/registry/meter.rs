//! How often requests come, as rates that decay.

use std::time::Duration;

use super::stats::{RequestCounts, RequestRates};
use super::wheel::Tick;

/// After how long a request counts half, in seconds: long enough to read,
/// short enough to see a storm come and go.
const HALF_LIFE: f64 = 5.0;

/// Looks at the counts once in a tick.
#[derive(Debug, Default)]
pub(super) struct Meter {
    due: Tick,
    at: Duration,
    seen: RequestCounts,
    rates: [f64; 5],
}

impl Meter {
    pub(super) fn is_due(&self, tick: Tick) -> bool {
        tick >= self.due
    }

    /// Takes in what has been counted since the last turn.
    pub(super) fn turn(&mut self, tick: Tick, now: Duration, counts: &RequestCounts) {
        let passed = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE;
        let left = (-passed).exp2();
        let news = counts.values().into_iter().zip(self.seen.values());
        for (rate, (new, old)) in self.rates.iter_mut().zip(news) {
            let per_second = (new - old) as f64 * std::f64::consts::LN_2 / HALF_LIFE;
            *rate = *rate * left + per_second;
        }
        (self.due, self.at, self.seen) = (tick + 1, now, *counts);
    }

    /// The rates as of the last turn.
    pub(super) fn rates(&self) -> [f64; 5] {
        self.rates
    }
}

impl RequestRates {
    pub(super) fn of(meters: impl Iterator<Item = [f64; 5]>) -> Self {
        let mut sum = [0.0; 5];
        for rates in meters {
            sum.iter_mut()
                .zip(rates)
                .for_each(|(sum, rate)| *sum += rate);
        }
        let [register, own, need, update, exit] = sum.map(|rate| rate.round() as u64);
        Self {
            register,
            own,
            need,
            update,
            exit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_comes_to_what_is_asked_and_decays_in_silence() {
        let (mut meter, mut counts) = (Meter::default(), RequestCounts::default());
        for tick in 0..200 {
            counts.need += 50;
            assert!(meter.is_due(tick));
            meter.turn(tick, Duration::from_millis(250) * tick, &counts);
            assert!(!meter.is_due(tick));
        }
        let rates = |meter: &Meter| RequestRates::of([meter.rates(); 2].into_iter());
        assert!((390..=420).contains(&rates(&meter).need), "{meter:?}");
        assert_eq!(rates(&meter).own, 0);
        let before = meter.rates()[2];
        meter.turn(
            220,
            Duration::from_millis(250) * 199 + Duration::from_secs(5),
            &counts,
        );
        assert!((meter.rates()[2] * 2.0 - before).abs() < 1e-6);
    }
}
