//! How long frames travel.

use std::time::Duration;

/// The latency of a frame, in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// The time that every frame takes.
    pub base: Duration,
    /// The most that is added to it at random, uniformly distributed.
    pub jitter: Duration,
}

impl Latency {
    /// A latency with jitter.
    pub fn new(base: Duration, jitter: Duration) -> Self {
        Self { base, jitter }
    }

    /// The latency of two ways, one after the other.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            base: self.base + other.base,
            jitter: self.jitter + other.jitter,
        }
    }

    /// The travel time of one frame.
    pub(super) fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        match u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX) {
            0 => self.base,
            most => self.base + Duration::from_nanos(rng.u64(..=most)),
        }
    }
}

impl From<Duration> for Latency {
    fn from(base: Duration) -> Self {
        Self::new(base, Duration::ZERO)
    }
}
