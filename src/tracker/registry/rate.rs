//! Upload rates that decay by themselves.

use std::time::Duration;

/// Counts in half-lives, and keeps a rate as its *score*: the logarithm to the
/// base 2 of the rate in bytes per second, plus the age of the registry in
/// half-lives. All rates decay alike, so that time changes neither a score nor
/// the order of two of them; only a credit does.
#[derive(Debug)]
pub(super) struct Clockwork {
    half_life: f64,
}

impl Clockwork {
    pub(super) fn new(half_life: Duration) -> Self {
        Self {
            half_life: half_life.as_secs_f64().max(0.001),
        }
    }

    /// The score after `bytes` more at the age of `elapsed`.
    pub(super) fn credited(&self, score: f64, bytes: u64, elapsed: Duration) -> f64 {
        if bytes == 0 {
            return score;
        }
        let rate = bytes as f64 * std::f64::consts::LN_2 / self.half_life;
        let more = rate.log2() + elapsed.as_secs_f64() / self.half_life;
        let (low, high) = if score < more {
            (score, more)
        } else {
            (more, score)
        };
        high + (low - high).exp2().ln_1p() / std::f64::consts::LN_2
    }
}

/// The level of a score: one for each doubling of the rate. Who was never
/// credited has the lowest.
pub(super) fn level(score: f64) -> i32 {
    // A cast of a float saturates, and so does minus infinity.
    score.floor() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_per_second(clockwork: &Clockwork, score: f64, elapsed: Duration) -> f64 {
        (score - elapsed.as_secs_f64() / clockwork.half_life).exp2()
    }

    #[test]
    fn steady_uploads_come_to_their_rate() {
        let clockwork = Clockwork::new(Duration::from_secs(20));
        let mut score = f64::NEG_INFINITY;
        for second in 0..400 {
            score = clockwork.credited(score, 1_000_000, Duration::from_secs(second));
        }
        let rate = bytes_per_second(&clockwork, score, Duration::from_secs(400));
        assert!((950_000.0..1_050_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn rate_halves_in_a_half_life() {
        let clockwork = Clockwork::new(Duration::from_secs(20));
        let score = clockwork.credited(f64::NEG_INFINITY, 1 << 30, Duration::from_secs(3));
        let early = bytes_per_second(&clockwork, score, Duration::from_secs(10));
        let late = bytes_per_second(&clockwork, score, Duration::from_secs(30));
        assert!((early / late - 2.0).abs() < 1e-9);
    }

    #[test]
    fn score_without_a_credit_has_the_lowest_level() {
        assert_eq!(level(f64::NEG_INFINITY), i32::MIN);
        assert_eq!(level(10.9), 10);
        assert_eq!(level(-0.1), -1);
    }
}
