//! Places for handshakes: how many there may be, in all and of one host, and how often a
//! host may fail.
//!
//! What it promises: there is always a place for a host that has not failed too often. At
//! the bound of the host its oldest handshake gives way, at the bound of all the oldest
//! of the host that has most. So who connects and says nothing keeps nobody out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, HostKey};

/// For how long a failed handshake counts.
const FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// How many failures are remembered at most. Beyond that, the oldest are forgotten.
const MAX_FAILURES: usize = 4096;

/// How many handshakes a listener takes at a time, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct HandshakeConfig {
    /// How long one may take, of this side as well. Default 10 s, as for the handshake
    /// of peers: a few round trips on the slowest line.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub timeout: Duration,
    /// How many accepted connections may be in the handshake at a time. Default 256; at
    /// least 1. Each has a descriptor over TCP, so there are never more than a sixteenth of
    /// those that the process may have. When there are as many, the oldest of the
    /// host that has most gives way.
    pub max: usize,
    /// How many of one host. Default 64; at least 1. When there are as many, its oldest
    /// gives way.
    pub max_per_host: usize,
    /// How many handshakes of one host may fail within 10 s before its connections are
    /// closed unheard, as each costs some tenths of a millisecond of computing. Default
    /// 64: those cost a few milliseconds of each second, and a host behind which many peers
    /// have just got another key can still be let in.
    pub max_failures_per_host: usize,
}

setters!(HandshakeConfig {
    timeout: Duration,
    max: usize,
    max_per_host: usize,
    max_failures_per_host: usize,
});

impl Default for HandshakeConfig {
    fn default() -> Self {
        Self {
            timeout: HANDSHAKE_TIMEOUT,
            max: 256,
            max_per_host: 64,
            max_failures_per_host: 64,
        }
    }
}

/// The places of one listener.
pub(in crate::transport) struct HandshakePlaces {
    config: HandshakeConfig,
    hosts: BTreeMap<HostKey, BTreeMap<u64, CancellationToken>>,
    taken: usize,
    next: u64,
    /// When handshakes failed, and of which hosts; the oldest first.
    failures: VecDeque<(Instant, HostKey)>,
    failures_of: HashMap<HostKey, usize>,
}

/// The place of one handshake, to be given back.
#[derive(Clone)]
pub(in crate::transport) struct HandshakePlace {
    host: HostKey,
    number: u64,
    /// Cancelled when the handshake has to give way.
    pub(in crate::transport) cut: CancellationToken,
}

/// How a handshake has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum HandshakeEnd {
    Done,
    Failed,
    /// It gave way to another one.
    Cut,
}

impl HandshakePlaces {
    pub(in crate::transport) fn new(config: HandshakeConfig) -> Self {
        Self {
            config,
            hosts: BTreeMap::new(),
            taken: 0,
            next: 0,
            failures: VecDeque::new(),
            failures_of: HashMap::new(),
        }
    }

    /// How many handshakes have a place.
    pub(in crate::transport) fn taken(&self) -> usize {
        self.taken
    }

    /// A place for a connection; nothing if its host has failed too often of late.
    pub(in crate::transport) fn take(&mut self, remote: &Addr) -> Option<HandshakePlace> {
        let host = HostKey::of(remote);
        self.forget_failures();
        let failures = self.failures_of.get(&host).copied().unwrap_or(0);
        if failures >= self.config.max_failures_per_host {
            return None;
        }
        let of_host = self.hosts.get(&host).map_or(0, BTreeMap::len);
        if of_host >= self.config.max_per_host.max(1) {
            self.cut_oldest_of(&host);
        } else if self.taken >= self.config.max.max(1) {
            self.make_room();
        }
        let (number, cut) = (self.next, CancellationToken::new());
        self.next += 1;
        self.taken += 1;
        let handshakes = self.hosts.entry(host.clone()).or_default();
        handshakes.insert(number, cut.clone());
        Some(HandshakePlace { host, number, cut })
    }

    /// Gives a place back.
    pub(in crate::transport) fn end(&mut self, place: HandshakePlace, end: HandshakeEnd) {
        self.remove(&place.host, place.number);
        if end == HandshakeEnd::Failed {
            if self.failures.len() == MAX_FAILURES {
                self.forget_oldest();
            }
            *self.failures_of.entry(place.host.clone()).or_default() += 1;
            self.failures.push_back((Instant::now(), place.host));
        }
    }

    /// Has the oldest handshake of the host that has most give way, if there is any.
    pub(in crate::transport) fn make_room(&mut self) {
        let most = self.hosts.iter().max_by_key(|(_, handshakes)| {
            let oldest = handshakes.keys().next().copied();
            (handshakes.len(), Reverse(oldest))
        });
        if let Some(host) = most.map(|(host, _)| host.clone()) {
            self.cut_oldest_of(&host);
        }
    }

    fn cut_oldest_of(&mut self, host: &HostKey) {
        let handshakes = self.hosts.get(host);
        let oldest = handshakes.and_then(BTreeMap::first_key_value);
        if let Some((number, cut)) = oldest.map(|(number, cut)| (*number, cut.clone())) {
            self.remove(host, number);
            cut.cancel();
        }
    }

    /// Removes a place, unless it was taken away already.
    fn remove(&mut self, host: &HostKey, number: u64) {
        let Some(handshakes) = self.hosts.get_mut(host) else {
            return;
        };
        self.taken -= usize::from(handshakes.remove(&number).is_some());
        if handshakes.is_empty() {
            self.hosts.remove(host);
        }
    }

    fn forget_failures(&mut self) {
        let now = Instant::now();
        while let Some((at, _)) = self.failures.front()
            && now.duration_since(*at) >= FAILURE_WINDOW
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, host)) = self.failures.pop_front() else {
            return;
        };
        if let Some(count) = self.failures_of.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.failures_of.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(host: u8, port: u16) -> Addr {
        format!("192.0.2.{host}:{port}").parse().unwrap()
    }

    fn places() -> HandshakePlaces {
        let config = HandshakeConfig::default()
            .max(4)
            .max_per_host(3)
            .max_failures_per_host(2);
        HandshakePlaces::new(config)
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_handshake_of_the_host_with_most_gives_way() {
        let mut places = places();
        let first: Vec<_> = (0..3).map(|n| places.take(&addr(1, n)).unwrap()).collect();
        let other = places.take(&addr(2, 1)).unwrap();
        assert_eq!(places.taken(), 4);
        // Of the same host, at its bound.
        let fourth = places.take(&addr(1, 9)).unwrap();
        assert!(first[0].cut.is_cancelled());
        // Of a third host, at the bound of all.
        let third = places.take(&addr(3, 1)).unwrap();
        assert!(first[1].cut.is_cancelled());
        assert!(!other.cut.is_cancelled() && !third.cut.is_cancelled());
        assert_eq!(places.taken(), 4);
        for place in first.into_iter().chain([other, fourth, third]) {
            places.end(place, HandshakeEnd::Done);
        }
        assert_eq!(places.taken(), 0);
        assert!(places.hosts.is_empty() && places.failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn host_that_fails_too_often_is_not_heard_for_a_while() {
        let mut places = places();
        for port in 0..2 {
            let place = places.take(&addr(1, port)).unwrap();
            places.end(place, HandshakeEnd::Failed);
        }
        assert!(places.take(&addr(1, 7)).is_none());
        assert!(places.take(&addr(2, 7)).is_some(), "others are");
        tokio::time::advance(FAILURE_WINDOW).await;
        assert!(places.take(&addr(1, 7)).is_some());
        assert!(places.failures_of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_failures_are_bounded() {
        let mut places = places();
        for n in 0..MAX_FAILURES + 10 {
            let remote = format!("10.0.{}.{}:1", n >> 8, n & 255).parse().unwrap();
            let place = places.take(&remote).unwrap();
            places.end(place, HandshakeEnd::Failed);
        }
        assert_eq!(places.failures.len(), MAX_FAILURES);
        assert_eq!(places.failures_of.len(), MAX_FAILURES);
    }
}
