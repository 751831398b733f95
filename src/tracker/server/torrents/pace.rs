//! How often each host has asked lately, in memory that does not grow with the hosts.
//!
//! Hosts share counters by a hash that changes with each window, so a host is held up for
//! another one in one window at most, and only if two counters of it are shared with hosts
//! that ask too much.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::HostKey;

/// Over how many seconds a host's requests are counted: long enough for a client that
/// announces all its torrents when it starts.
const WINDOW_SECS: u64 = 10;

/// How many counters there are: half a megabyte, so that even among ten thousand hosts that
/// ask too much, one in forty others is held up for a window.
const COUNTERS: usize = 1 << 16;

/// Counts the requests of hosts.
pub(in crate::tracker::server) struct Pace {
    /// How many of a host are answered in one window.
    max: u32,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    window: u64,
    hasher: RandomState,
    /// Two rows, in each of which a host has one counter. Empty until the first request.
    rows: [Vec<u32>; 2],
}

impl Pace {
    /// Lets each host ask so many times a second, on the average of ten.
    pub(in crate::tracker::server) fn new(max_per_second: u32, start: Instant) -> Self {
        Self {
            max: max_per_second.saturating_mul(WINDOW_SECS as u32),
            start,
            state: Mutex::default(),
        }
    }

    /// Counts a request. Returns whether it is to be answered.
    pub(super) fn allows(&self, now: Instant, host: &HostKey) -> bool {
        let elapsed = now.saturating_duration_since(self.start);
        let window = elapsed.as_secs() / Duration::from_secs(WINDOW_SECS).as_secs();
        // What a panic has left behind is a count, which is right or nearly so.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window != window || state.rows[0].is_empty() {
            *state = State {
                window,
                hasher: RandomState::new(),
                rows: std::mem::take(&mut state.rows),
            };
            for row in &mut state.rows {
                row.clear();
                row.resize(COUNTERS, 0);
            }
        }
        let hash = state.hasher.hash_one(host);
        let mut fewest = u32::MAX;
        for (row, part) in state
            .rows
            .iter_mut()
            .zip([hash as u32, (hash >> 32) as u32])
        {
            let counter = &mut row[part as usize % COUNTERS];
            *counter = counter.saturating_add(1);
            fewest = fewest.min(*counter);
        }
        fewest <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> HostKey {
        HostKey::Ip(std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn host_is_held_up_for_the_rest_of_its_window_and_others_are_not() {
        let start = Instant::now();
        let pace = Pace::new(3, start);
        for window in 0..3 {
            let at = |millis: u64| start + Duration::from_millis(10_000 * window + millis);
            for request in 0..30 {
                assert!(pace.allows(at(request), &host(1)));
            }
            assert!(!pace.allows(at(9999), &host(1)));
        }
    }

    #[test]
    fn very_many_hosts_do_not_hold_each_other_up() {
        let (start, pace) = (Instant::now(), Pace::new(1, Instant::now()));
        for host in (0..10_000).map(host) {
            assert!(pace.allows(start, &host));
        }
    }
}
