//! When the trackers are asked for more owners.

use std::time::{Duration, Instant};

use super::SwarmConfig;

/// How many times the pause before the next search doubles.
const MAX_DOUBLINGS: u32 = 8;

/// The longest pause while no link has anything that is missing.
const UNSUPPLIED: Duration = Duration::from_secs(10);

/// When the trackers are asked for more owners: ever more rarely, as long as that brings
/// nothing.
#[derive(Debug)]
pub(super) struct OwnerSearch {
    state: SearchState,
    /// When the next search may begin; never, if the pause is longer than an `Instant`
    /// can express.
    next: Option<Instant>,
    /// How many searches there were.
    times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SearchState {
    Waiting,
    Running,
}

impl OwnerSearch {
    /// The first search is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: SearchState::Waiting,
            next: Some(now),
            times: 0,
        }
    }

    /// When the next search may begin.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.filter(|_| self.state == SearchState::Waiting)
    }

    /// Whether a search is under way.
    pub(super) fn is_running(&self) -> bool {
        self.state == SearchState::Running
    }

    /// Something has changed: the next search begins at once.
    pub(super) fn restart(&mut self, now: Instant) {
        self.times = 0;
        self.next = Some(now);
    }

    /// A search begins.
    pub(super) fn began(&mut self) {
        self.state = SearchState::Running;
    }

    /// A search has ended. `is_supplied` says whether some link has a missing chunk.
    pub(super) fn ended(&mut self, now: Instant, is_supplied: bool, config: &SwarmConfig) {
        self.state = SearchState::Waiting;
        let doubled = 2u32.pow(self.times.min(MAX_DOUBLINGS));
        self.times = self.times.saturating_add(1);
        let pause = config.find_retry.saturating_mul(doubled);
        let longest = if is_supplied {
            config.find_interval
        } else {
            // Several times before the patience ends.
            let patience = config.patience.map(|patience| patience / 6);
            let longest = config.find_interval.min(UNSUPPLIED);
            patience.map_or(longest, |patience| longest.min(patience))
        };
        self.next = now.checked_add(pause.min(longest));
    }

    /// The last useful link is gone: the next search begins soon.
    pub(super) fn hurry(&mut self, now: Instant, config: &SwarmConfig) {
        self.times = 0;
        let soon = now.checked_add(config.find_retry);
        self.next = self.next.min(soon).or(soon);
    }
}
