//! A model of trials: what is sent to links that have told of nothing.

use std::time::{Duration, Instant};

/// How many links that have told of nothing are served at a time, at first and
/// at most.
pub(super) const FIRST_TRIALS: usize = 4;
const MOST_TRIALS: usize = 16;

/// How long a trial counts, if no rate is known.
pub(super) const TRIAL: Duration = Duration::from_secs(8);

/// How long a chunk takes, if no rate is known.
const CHUNK_TIME: Duration = Duration::from_secs(1);

/// The longest pause between trials.
const MAX_PAUSE: Duration = Duration::from_secs(10);

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

/// How many trials may be under way, and when the next may begin.
#[derive(Debug)]
pub(super) struct Trials {
    window: usize,
    /// In chunks' time.
    pause: u32,
    next: Option<Instant>,
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
    pub(super) fn told(&mut self) {
        self.window = MOST_TRIALS.min(self.window + 1);
        (self.pause, self.next) = (0, None);
    }

    /// A trial that began before the window was last made smaller has no
    /// further effect.
    pub(super) fn lapsed(&mut self, now: Instant, began: Instant) {
        if self.cut.is_some_and(|cut| began < cut) {
            return;
        }
        self.cut = Some(now);
        match self.window {
            1 => {
                self.pause = (2 * self.pause).clamp(8, 64);
                self.next = Some(now + (CHUNK_TIME * self.pause).min(MAX_PAUSE));
            }
            window => self.window = window / 2,
        }
    }

    pub(super) fn has_room(&self, now: Instant, under_way: usize) -> bool {
        under_way < self.window && self.pause_ends(now).is_none()
    }

    /// When the pause ends, if there is one now.
    pub(super) fn pause_ends(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }
}
