//! A token bucket: how many bytes may pass at a rate.
//!
//! Over any time, no more passes than the rate allows in it, and one burst or one block
//! more. What passes may be longer than the burst: then the bucket is in debt afterwards,
//! and the next one waits for longer. Numbers are exact.

use std::time::{Duration, Instant};

/// The longest burst in bytes, if blocks are not longer and the rate is not above 32 MiB
/// per second.
const MAX_BURST: u64 = 64 << 10;

/// The longest burst is what the rate allows in this part of a second: one twentieth.
const BURST_PART: u64 = 20;

/// A burst may be what the rate allows in this part of a second, at any rate: timers are no
/// finer than a millisecond.
const TIMER_PART: u64 = 500;

const NANOS: i128 = 1_000_000_000;

/// What may pass at a rate.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second, at least 1.
    rate: u64,
    /// How many bytes may pass, times [`NANOS`]. Below zero is debt.
    level: i128,
    at: Instant,
    /// The length of what passed last, in bytes.
    last: u64,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(now: Instant, rate: u64) -> Self {
        let mut bucket = Self {
            rate: rate.max(1),
            level: 0,
            at: now,
            last: 0,
        };
        bucket.level = bucket.most();
        bucket
    }

    /// Another rate, from now on. Debt takes no longer to pay off than before.
    pub(super) fn set_rate(&mut self, now: Instant, rate: u64) {
        self.refill(now);
        let rate = rate.max(1);
        if self.level < 0 && rate < self.rate {
            self.level = self.level * i128::from(rate) / i128::from(self.rate);
        }
        self.rate = rate;
        self.level = self.level.min(self.most());
    }

    /// How many bytes may have gathered.
    fn burst(&self) -> u64 {
        let longest = MAX_BURST.max(self.last).max(self.rate / TIMER_PART);
        (self.rate / BURST_PART).min(longest).max(1)
    }

    fn most(&self) -> i128 {
        i128::from(self.burst()) * NANOS
    }

    fn refill(&mut self, now: Instant) {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
    }

    fn level_at(&self, now: Instant) -> i128 {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let passed = i128::try_from(passed).unwrap_or(i128::MAX);
        let gained = passed.saturating_mul(i128::from(self.rate));
        self.level.saturating_add(gained).min(self.most())
    }

    /// Whether nothing more can gather.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.level_at(now) >= self.most()
    }

    /// For how long so many bytes have to wait.
    pub(super) fn wait(&self, now: Instant, bytes: u64) -> Duration {
        // What is longer than the usual burst passes with it, and leaves a debt.
        let longest = MAX_BURST.max(self.rate / TIMER_PART);
        let enough = bytes.min(self.rate / BURST_PART).min(longest).max(1);
        let lacks = i128::from(enough) * NANOS - self.level_at(now);
        let nanos = lacks.max(0).unsigned_abs().div_ceil(self.rate.into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// For how long so many bytes have to wait that pass behind others.
    pub(super) fn behind(&self, now: Instant, others: u64, bytes: u64) -> Duration {
        let time = Duration::try_from_secs_f64(others as f64 / self.rate as f64);
        let time = time.unwrap_or(Duration::MAX);
        self.wait(now, bytes).saturating_add(time)
    }

    /// So many bytes pass.
    pub(super) fn take(&mut self, now: Instant, bytes: u64) {
        self.refill(now);
        self.level -= i128::from(bytes) * NANOS;
        self.last = bytes;
    }

    /// So many bytes will not pass after all.
    pub(super) fn give_back(&mut self, now: Instant, bytes: u64) {
        self.refill(now);
        self.level = (self.level + i128::from(bytes) * NANOS).min(self.most());
    }
}
