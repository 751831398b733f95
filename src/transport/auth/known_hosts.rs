//! Hosts of which somebody was let in, and how often they are heard although others there
//! fail.
//!
//! An address is weak evidence: behind one there may be members and outsiders, and nothing
//! tells them apart before the handshake is done. So a known host is never shut out
//! altogether, and is heard at a pace that costs little.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::HostKey;

/// How many hosts are remembered at most. Beyond that, those of which nobody was let in for
/// the longest time are forgotten. Only members make hosts known.
const MAX_KNOWN: usize = 4096;

/// For how long a host is known after somebody there was let in: an address that changes
/// hands does so once a day.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// In which time a known host that fails is heard as often as one that is not known may fail
/// in ten seconds: 64 times a second take two hundredths of a core.
const PACE: Duration = Duration::from_secs(1);

/// How many known hosts may fail at their full pace at a time. Beyond that they share it, so
/// that all together cost a tenth of a core.
const HOSTS_AT_FULL_PACE: u32 = 4;

/// The known hosts of one listener.
pub(super) struct KnownHosts {
    hosts: HashMap<HostKey, Known>,
    /// The longest ago first.
    order: BTreeMap<u64, HostKey>,
    next: u64,
    /// What all have together.
    all: Pace,
}

struct Known {
    number: u64,
    at: Instant,
    pace: Pace,
}

/// When the next one is due, if none were early. One may be early by [`PACE`].
#[derive(Clone, Copy)]
struct Pace(Instant);

impl KnownHosts {
    pub(super) fn new() -> Self {
        Self {
            hosts: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            all: Pace(Instant::now()),
        }
    }

    /// Somebody of this host was let in.
    pub(super) fn note(&mut self, host: &HostKey) {
        let (now, number) = (Instant::now(), self.next);
        self.next += 1;
        let known = Known {
            number,
            at: now,
            pace: self.hosts.get(host).map_or(Pace(now), |known| known.pace),
        };
        if let Some(before) = self.hosts.insert(host.clone(), known) {
            self.order.remove(&before.number);
        }
        self.order.insert(number, host.clone());
        if self.hosts.len() > MAX_KNOWN
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.hosts.remove(&oldest);
        }
    }

    /// Whether a host that fails is heard all the same, so often in a second.
    pub(super) fn hears(&mut self, host: &HostKey, per_second: usize) -> bool {
        let now = Instant::now();
        let Some(known) = self.hosts.get_mut(host) else {
            return false;
        };
        if now.duration_since(known.at) >= KNOWN_FOR {
            let number = known.number;
            self.hosts.remove(host);
            self.order.remove(&number);
            return false;
        }
        let each = PACE / u32::try_from(per_second).unwrap_or(u32::MAX).max(1);
        let of_all = each / HOSTS_AT_FULL_PACE;
        let is_heard = known.pace.has_room(now, each) && self.all.has_room(now, of_all);
        if is_heard {
            known.pace.take(now, each);
            self.all.take(now, of_all);
        }
        is_heard
    }
}

impl Pace {
    fn has_room(self, now: Instant, each: Duration) -> bool {
        self.0.max(now) + each <= now + PACE
    }

    fn take(&mut self, now: Instant, each: Duration) {
        self.0 = self.0.max(now) + each;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: usize) -> HostKey {
        let addr = format!("10.0.{}.{}:1", n >> 8, n & 255);
        HostKey::of(&addr.parse().unwrap())
    }

    fn heard(known: &mut KnownHosts, host: &HostKey) -> usize {
        (0..100).filter(|_| known.hears(host, 10)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn known_host_is_heard_at_a_pace_and_a_stranger_is_not() {
        let mut known = KnownHosts::new();
        known.note(&host(1));
        assert_eq!(heard(&mut known, &host(2)), 0);
        assert_eq!(heard(&mut known, &host(1)), 10);
        tokio::time::advance(PACE / 2).await;
        assert_eq!(heard(&mut known, &host(1)), 5);
        tokio::time::advance(10 * PACE).await;
        assert_eq!(heard(&mut known, &host(1)), 10, "nothing is saved up");
        // To be let in once more is no new allowance.
        known.note(&host(1));
        assert_eq!(heard(&mut known, &host(1)), 0);
        tokio::time::advance(KNOWN_FOR).await;
        assert_eq!(heard(&mut known, &host(1)), 0);
        assert!(known.hosts.is_empty() && known.order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn known_hosts_are_bounded_in_number_and_in_what_they_cost_together() {
        let mut known = KnownHosts::new();
        for n in 0..MAX_KNOWN + 10 {
            known.note(&host(n));
        }
        assert_eq!(
            (known.hosts.len(), known.order.len()),
            (MAX_KNOWN, MAX_KNOWN)
        );
        assert_eq!(heard(&mut known, &host(9)), 0, "it is forgotten");
        let all: usize = (10..30).map(|n| heard(&mut known, &host(n))).sum();
        assert_eq!(all, 10 * HOSTS_AT_FULL_PACE as usize);
    }
}
