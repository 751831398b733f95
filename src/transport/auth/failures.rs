//! Which hosts have failed of late, and how often.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::HostKey;

/// For how long a failed handshake counts.
pub(super) const FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// How many failures are remembered at most. Beyond that, the oldest are forgotten.
const MAX_FAILURES: usize = 4096;

/// The failures of all hosts.
#[derive(Default)]
pub(super) struct Failures {
    /// The oldest first.
    order: VecDeque<(Instant, HostKey)>,
    counts: HashMap<HostKey, usize>,
}

impl Failures {
    /// A host has failed.
    pub(super) fn note(&mut self, host: HostKey) {
        if self.order.len() == MAX_FAILURES {
            self.forget_oldest();
        }
        *self.counts.entry(host.clone()).or_default() += 1;
        self.order.push_back((Instant::now(), host));
    }

    /// How often a host has failed of late.
    pub(super) fn of(&mut self, host: &HostKey) -> usize {
        let now = Instant::now();
        while let Some((at, _)) = self.order.front()
            && now.duration_since(*at) >= FAILURE_WINDOW
        {
            self.forget_oldest();
        }
        self.counts.get(host).copied().unwrap_or(0)
    }

    /// All failures of a host count no more.
    pub(super) fn forget(&mut self, host: &HostKey) {
        if self.counts.remove(host).is_some() {
            self.order.retain(|(_, failed)| failed != host);
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, host)) = self.order.pop_front() else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: usize) -> HostKey {
        let addr = format!("10.0.{}.{}:1", n >> 8, n & 255);
        HostKey::of(&addr.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_failures_are_bounded_and_forgotten() {
        let mut failures = Failures::default();
        for n in 0..MAX_FAILURES + 10 {
            failures.note(host(n));
        }
        assert_eq!(failures.order.len(), MAX_FAILURES);
        assert_eq!(failures.counts.len(), MAX_FAILURES);
        assert_eq!((failures.of(&host(0)), failures.of(&host(10))), (0, 1));
        failures.forget(&host(11));
        assert_eq!((failures.of(&host(11)), failures.of(&host(12))), (0, 1));
        assert_eq!(failures.order.len(), MAX_FAILURES - 1);
        tokio::time::advance(FAILURE_WINDOW).await;
        assert_eq!(failures.of(&host(10)), 0);
        assert!(failures.order.is_empty() && failures.counts.is_empty());
    }
}
