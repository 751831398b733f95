//! Places for handshakes: how many there may be, in all and of one host, and how often a
//! host may fail.
//!
//! What it promises: there is always a place for a host that has not failed too often. At
//! the bound of the host its oldest handshake gives way, at the bound of all the oldest
//! of the host that has most. So who connects and says nothing keeps nobody out. One that
//! has to give way counts as failed, until one of its host succeeds: otherwise a host could
//! have this side compute without end, by handshakes that it never goes on with, and many
//! members behind one address would not be heard when they all come at once.
//!
//! A host that has failed too often is not heard, unless somebody there was let in before:
//! then it is heard at a pace ([`KnownHosts`]), so that those who fail do not shut out a
//! member that has the same address.
//!
//! Over UDP, an address may be forged until the other side has answered at it. Few
//! handshakes of such addresses have a place, and when one of them fails, that is not held
//! against its host. It only means that the next one has to prove its address first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::failures::Failures;
use super::known_hosts::KnownHosts;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, HostKey};

/// How many handshakes of addresses that may be forged have a place at a time. Beyond
/// that a round trip more proves the address. It is few beside the places of one host, so
/// that forged addresses take nobody's place.
#[cfg(feature = "_quic")]
const MAX_UNPROVEN: usize = 16;

/// How many handshakes a listener takes at a time, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct HandshakeConfig {
    /// How long one may take, of this side as well. Default 10 s, which is three losses of a
    /// datagram on the slowest path.
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
    /// closed unheard. Default 64, as each costs some tenths of a millisecond of
    /// computing. One that gives way counts, until another one of the host succeeds. A host
    /// of which somebody was let in within a day is still heard, this many times a second:
    /// a member may have the same address as those who fail.
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
    hosts: BTreeMap<HostKey, BTreeMap<u64, HandshakePlace>>,
    taken: usize,
    next: u64,
    /// How many of them are of addresses that may be forged.
    unproven: usize,
    failures: Failures,
    known: KnownHosts,
    /// Handshakes that gave way, of hosts of which none has succeeded since.
    gave_way: Failures,
    /// The failures of addresses that may have been forged.
    suspicions: Failures,
}

/// The place of one handshake, to be given back.
#[derive(Clone)]
pub(in crate::transport) struct HandshakePlace {
    host: HostKey,
    number: u64,
    is_proven: bool,
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
            unproven: 0,
            failures: Failures::default(),
            known: KnownHosts::new(),
            gave_way: Failures::default(),
            suspicions: Failures::default(),
        }
    }

    /// How many handshakes have a place.
    pub(in crate::transport) fn taken(&self) -> usize {
        self.taken
    }

    /// A place for a connection; nothing if its host has failed too often of late, and is
    /// not known or was heard often enough.
    pub(in crate::transport) fn take(&mut self, remote: &Addr) -> Option<HandshakePlace> {
        let host = HostKey::of(remote);
        let failed = self.failures.of(&host) + self.gave_way.of(&host);
        let max = self.config.max_failures_per_host;
        let is_heard = failed < max || self.known.hears(&host, max);
        is_heard.then(|| self.place(host, true))
    }

    /// The same for a remote whose address may be forged. Nothing if it must be proven.
    #[cfg(feature = "_quic")]
    pub(in crate::transport) fn take_unproven(&mut self, remote: &Addr) -> Option<HandshakePlace> {
        let host = HostKey::of(remote);
        let is_doubtful = self.unproven >= MAX_UNPROVEN
            || self.taken >= self.config.max.max(1)
            || self.suspicions.of(&host) > 0
            || self.failures.of(&host) + self.gave_way.of(&host) > 0;
        (!is_doubtful).then(|| self.place(host, false))
    }

    fn place(&mut self, host: HostKey, is_proven: bool) -> HandshakePlace {
        let of_host = self.hosts.get(&host).map_or(0, BTreeMap::len);
        let cut = if of_host >= self.config.max_per_host.max(1) {
            self.cut_oldest_of(&host)
        } else if self.taken >= self.config.max.max(1) {
            self.make_room()
        } else {
            None
        };
        match cut {
            Some(cut) if cut.is_proven => self.gave_way.note(cut.host),
            Some(cut) => self.suspicions.note(cut.host),
            None => {}
        }
        let place = HandshakePlace {
            host,
            number: self.next,
            is_proven,
            cut: CancellationToken::new(),
        };
        self.next += 1;
        self.taken += 1;
        self.unproven += usize::from(!is_proven);
        let handshakes = self.hosts.entry(place.host.clone()).or_default();
        handshakes.insert(place.number, place.clone());
        place
    }

    /// Gives a place back.
    pub(in crate::transport) fn end(&mut self, place: HandshakePlace, end: HandshakeEnd) {
        self.remove(&place.host, place.number);
        self.unproven -= usize::from(!place.is_proven);
        match (end, place.is_proven) {
            (HandshakeEnd::Done, _) => {
                self.known.note(&place.host);
                self.gave_way.forget(&place.host);
            }
            (HandshakeEnd::Failed, true) => self.failures.note(place.host),
            (HandshakeEnd::Failed, false) => self.suspicions.note(place.host),
            // It was noted when it gave way, if its host was to blame.
            (HandshakeEnd::Cut, _) => {}
        }
    }

    /// Has the oldest handshake of the host that has most give way, if there is any.
    pub(in crate::transport) fn make_room(&mut self) -> Option<HandshakePlace> {
        let most = self.hosts.iter().max_by_key(|(_, handshakes)| {
            let oldest = handshakes.keys().next().copied();
            (handshakes.len(), Reverse(oldest))
        });
        let host = most.map(|(host, _)| host.clone())?;
        self.cut_oldest_of(&host)
    }

    fn cut_oldest_of(&mut self, host: &HostKey) -> Option<HandshakePlace> {
        let (_, oldest) = self.hosts.get(host)?.first_key_value()?;
        let oldest = oldest.clone();
        self.remove(host, oldest.number);
        oldest.cut.cancel();
        Some(oldest)
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
}

#[cfg(test)]
mod tests {
    use super::super::failures::FAILURE_WINDOW;
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
        assert!(places.hosts.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn host_whose_handshakes_have_to_give_way_is_not_heard_for_a_while() {
        let mut places = places();
        // The first three have places, the others take them from each other.
        for port in 0..5 {
            assert!(places.take(&addr(1, port)).is_some(), "{port}");
        }
        assert!(places.take(&addr(1, 7)).is_none());
        assert!(places.take(&addr(2, 7)).is_some(), "others are");
        // Who has too few descriptors does not blame anybody.
        assert!(places.make_room().is_some());
        assert!(places.take(&addr(2, 8)).is_some());
        tokio::time::advance(FAILURE_WINDOW).await;
        assert!(places.take(&addr(1, 7)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn members_behind_one_address_that_come_at_once_are_heard_after_the_first() {
        let mut places = places();
        let mut taken: Vec<_> = (0..5).map(|n| places.take(&addr(1, n)).unwrap()).collect();
        assert!(places.take(&addr(1, 7)).is_none());
        places.end(taken.pop().unwrap(), HandshakeEnd::Done);
        assert!(places.take(&addr(1, 7)).is_some());
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
    }

    #[tokio::test(start_paused = true)]
    async fn host_of_a_member_is_heard_although_others_there_fail_all_the_time() {
        let mut places = places();
        let member = places.take(&addr(1, 1)).unwrap();
        places.end(member, HandshakeEnd::Done);
        for _ in 0..20 {
            for port in 2..4 {
                if let Some(place) = places.take(&addr(1, port)) {
                    places.end(place, HandshakeEnd::Failed);
                }
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            let member = places.take(&addr(1, 1)).expect("the member is heard");
            places.end(member, HandshakeEnd::Done);
        }
        // A place that gives way is no reason either.
        let held: Vec<_> = (0..3).filter_map(|n| places.take(&addr(1, n))).collect();
        assert!(!held.is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(places.take(&addr(1, 9)).is_some());
    }

    #[cfg(feature = "_quic")]
    #[tokio::test(start_paused = true)]
    async fn forged_addresses_take_few_places_and_are_held_against_nobody() {
        let mut places = HandshakePlaces::new(HandshakeConfig::default());
        let unproven: Vec<_> = (0..MAX_UNPROVEN as u16)
            .map(|port| places.take_unproven(&addr(1, port)).unwrap())
            .collect();
        assert!(places.take_unproven(&addr(2, 1)).is_none(), "too many");
        let proven = places.take(&addr(2, 1)).unwrap();
        for place in unproven {
            assert!(!place.cut.is_cancelled());
            places.end(place, HandshakeEnd::Failed);
        }
        assert!(places.take_unproven(&addr(1, 1)).is_none(), "it has failed");
        let other = places.take_unproven(&addr(2, 2)).unwrap();
        let same = places.take(&addr(1, 1)).unwrap();
        for place in [proven, other, same] {
            places.end(place, HandshakeEnd::Done);
        }
        assert_eq!((places.taken(), places.unproven), (0, 0));
        tokio::time::advance(FAILURE_WINDOW).await;
        assert!(places.take_unproven(&addr(1, 1)).is_some());
    }
}
