//! How many links that have told of no chunk are served.
//!
//! A newcomer has nothing to tell of, and neither has a stranger that takes and
//! never tells. What is sent to such a link is a trial. How many trials may be
//! under way adapts to how they end, like the congestion window of TCP (RFC
//! 5681): each link that tells makes room for one more, and one that does not
//! tell in time halves the room. Below one trial, the pauses between them grow.
//! So an honest crowd is served as fast as it answers, and a crowd of takers
//! costs a small part of what this peer sends.

use std::time::{Duration, Instant};

/// How many trials may be under way at first, and as long as nobody else wants
/// anything.
const FIRST_TRIALS: usize = 4;

/// How many trials may be under way at most.
const MOST_TRIALS: usize = 16;

/// How many chunks' time a link that does not tell of its first chunk keeps
/// others like it waiting.
const TRIAL_CHUNKS: u32 = 8;

/// No trial lapses sooner, however short the chunks are: a long round trip, and
/// the time to store a chunk.
const MIN_TELL: Duration = Duration::from_millis(500);

/// The longest pause between trials, in chunks' time and in total. Newcomers
/// that know no other peer must come several times within their patience.
const MAX_PAUSE: u32 = 64;
const MAX_PAUSE_TIME: Duration = Duration::from_secs(10);

/// The trial of one link.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    /// It was sent nothing, or has told of something.
    #[default]
    None,
    /// It was sent something at that time, and has told of nothing.
    Began(Instant),
    /// It did not tell in time.
    Lapsed,
}

/// How many trials may be under way.
#[derive(Debug)]
pub(super) struct Trials {
    window: usize,
    /// The pause after a trial that lapsed, in chunks' time.
    pause: u32,
    /// When the next may begin.
    next: Option<Instant>,
    /// When the window was last made smaller. Trials that began before that
    /// have had their effect.
    cut: Option<Instant>,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            window: FIRST_TRIALS,
            pause: 0,
            next: None,
            cut: None,
        }
    }
}

impl Trials {
    /// How long a trial counts as under way at most.
    pub(super) fn hold(chunk_time: Duration) -> Duration {
        chunk_time * TRIAL_CHUNKS
    }

    /// After how long a trial has lapsed.
    pub(super) fn patience(chunk_time: Duration) -> Duration {
        Self::hold(chunk_time).max(MIN_TELL)
    }

    /// A link on trial told of a chunk.
    pub(super) fn passed(&mut self) {
        self.window = (self.window + 1).min(MOST_TRIALS);
        (self.pause, self.next) = (0, None);
    }

    /// A trial that began at that time has lapsed.
    pub(super) fn lapsed(&mut self, now: Instant, began: Instant, chunk_time: Duration) {
        if self.cut.is_some_and(|cut| began < cut) {
            return;
        }
        self.cut = Some(now);
        if self.window > 1 {
            self.window /= 2;
        } else {
            self.pause = (2 * self.pause).clamp(TRIAL_CHUNKS, MAX_PAUSE);
            self.next = Some(now + (chunk_time * self.pause).min(MAX_PAUSE_TIME));
        }
    }

    /// Whether one more may begin beside those under way.
    pub(super) fn has_room(&self, now: Instant, under_way: usize) -> bool {
        under_way < self.window && self.next.is_none_or(|next| next <= now)
    }

    /// The same, while nobody else wants anything.
    pub(super) fn has_spare(&self, under_way: usize) -> bool {
        under_way < FIRST_TRIALS
    }

    /// When the pause ends, if there is one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_end_when_somebody_passes() {
        let (mut now, chunk) = (Instant::now(), Duration::from_millis(1));
        let mut trials = Trials::default();
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            trials.lapsed(now, now, chunk);
            if let Some(next) = trials.next() {
                assert!(!trials.has_room(now, 0) && trials.has_room(next, 0));
                longest = longest.max(next - now);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(longest, chunk * MAX_PAUSE);
        trials.passed();
        assert_eq!(trials.next(), None);
        assert!(trials.has_room(now, 1));
    }
}
