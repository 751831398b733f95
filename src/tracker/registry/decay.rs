//! Upload rates that decay over time.

use std::time::Duration;

/// Exponential decay in terms of *scores*. The score of a rate is the logarithm
/// to the base 2 of the rate in bytes per second, plus the age of the registry in
/// half-lives. All rates decay alike, so that time changes neither a score nor
/// the order of two scores. Only a credit does.
#[derive(Debug)]
pub(super) struct RateDecay {
    half_life: f64,
}

impl RateDecay {
    pub(super) fn new(half_life: Duration) -> Self {
        Self {
            half_life: half_life.as_secs_f64().max(0.001),
        }
    }

    /// The score after `bytes` more at the age of `elapsed`. Its 32 bits tell
    /// rates apart that differ by a hundredth, within the first 65,000
    /// half-lives (two weeks, by default). After years they still tell levels
    /// apart.
    pub(super) fn credited(&self, score: f32, bytes: u64, elapsed: Duration) -> f32 {
        if bytes == 0 {
            return score;
        }
        let score = f64::from(score);
        let rate = bytes as f64 * std::f64::consts::LN_2 / self.half_life;
        let more = rate.log2() + elapsed.as_secs_f64() / self.half_life;
        let (low, high) = if score < more {
            (score, more)
        } else {
            (more, score)
        };
        (high + (low - high).exp2().ln_1p() / std::f64::consts::LN_2) as f32
    }

    /// The score of an upload rate at that age.
    pub(super) fn score(&self, bytes_per_second: f64, elapsed: Duration) -> f32 {
        (bytes_per_second.log2() + elapsed.as_secs_f64() / self.half_life) as f32
    }

    /// The upload rate in bytes per second that a score stands for at that age.
    pub(super) fn bytes_per_second(&self, score: f32, elapsed: Duration) -> f64 {
        (f64::from(score) - elapsed.as_secs_f64() / self.half_life).exp2()
    }
}

/// The level of a score: one for each doubling of the rate. A peer that was
/// never credited has the lowest level.
pub(super) fn level(score: f32) -> i32 {
    // A cast of a float saturates, also for minus infinity.
    score.floor() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_of_steady_uploads_approaches_their_rate() {
        let decay = RateDecay::new(Duration::from_secs(20));
        let mut score = f32::NEG_INFINITY;
        for second in 0..400 {
            score = decay.credited(score, 1_000_000, Duration::from_secs(second));
        }
        let rate = decay.bytes_per_second(score, Duration::from_secs(400));
        assert!((950_000.0..1_050_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn rate_halves_in_a_half_life() {
        let decay = RateDecay::new(Duration::from_secs(20));
        let score = decay.credited(f32::NEG_INFINITY, 1 << 30, Duration::from_secs(3));
        let early = decay.bytes_per_second(score, Duration::from_secs(10));
        let late = decay.bytes_per_second(score, Duration::from_secs(30));
        assert!((early / late - 2.0).abs() < 1e-4);
    }

    #[test]
    fn score_without_a_credit_has_the_lowest_level() {
        assert_eq!(level(f32::NEG_INFINITY), i32::MIN);
        assert_eq!(level(10.9), 10);
        assert_eq!(level(-0.1), -1);
    }
}
