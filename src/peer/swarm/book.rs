//! The address book: owners that are known, whom to dial next, and who is
//! banned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::protocol::{Addr, PeerId};

/// How many addresses are remembered: more than a swarm ever links to.
const MAX_ENTRIES: usize = 1024;

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// After so many failures in a row an address is forgotten, until it is named
/// again.
const MAX_FAILURES: u32 = 6;

/// The owners of one content.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<Addr, Entry>,
    banned_addrs: BTreeSet<Addr>,
    banned_peers: BTreeSet<PeerId>,
    dialling: usize,
    idle: usize,
    named: u64,
}

#[derive(Debug)]
struct Entry {
    state: State,
    complete: bool,
    failures: u32,
    /// Its place in the order of naming.
    order: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be dialled from then on.
    Idle(Instant),
    Dialling,
    Linked,
}

impl Book {
    /// Somebody named an owner.
    pub(super) fn named(&mut self, now: Instant, addr: Addr, complete: bool) {
        if self.banned_addrs.contains(&addr)
            || self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&addr)
        {
            return;
        }
        self.named += 1;
        let (idle, order) = (&mut self.idle, self.named);
        let entry = self.entries.entry(addr).or_insert_with(|| {
            *idle += 1;
            Entry {
                state: State::Idle(now),
                complete,
                failures: 0,
                order,
            }
        });
        entry.complete |= complete;
    }

    /// The next owner to dial: a seeder, if that is wanted; then who failed
    /// least, in the order of naming. The tracker's order is the best first and
    /// the rest by chance; an order of our own would lead everybody to the same
    /// few.
    pub(super) fn dial(&mut self, now: Instant, seeder_first: bool) -> Option<Addr> {
        if self.idle == 0 {
            return None;
        }
        let (addr, entry) = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| matches!(entry.state, State::Idle(from) if from <= now))
            .min_by_key(|(_, entry)| {
                (seeder_first && !entry.complete, entry.failures, entry.order)
            })?;
        entry.state = State::Dialling;
        self.dialling += 1;
        self.idle -= 1;
        Some(addr.clone())
    }

    /// An address did not answer, or refused. Means nothing where a link that
    /// the other side dialled came first: then this side was refused for it.
    pub(super) fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        let dialled = |entry: &&Entry| entry.state == State::Dialling;
        if self.entries.get(addr).filter(dialled).is_some() {
            self.pause(now, addr);
        }
    }

    /// A link to an address is up, whoever dialled.
    pub(super) fn linked(&mut self, addr: &Addr) {
        self.set(addr, State::Linked);
    }

    /// The other side proved useful: its failures are forgiven.
    pub(super) fn proved(&mut self, addr: &Addr) {
        if let Some(entry) = self.entries.get_mut(addr) {
            entry.failures = 0;
        }
    }

    /// A link went down: it may be dialled again after a pause.
    pub(super) fn unlinked(&mut self, now: Instant, addr: &Addr) {
        self.pause(now, addr);
    }

    /// Never again a link to this peer, nor to this address.
    pub(super) fn ban(&mut self, peer: PeerId, addr: Option<&Addr>) {
        if self.banned_peers.len() < MAX_ENTRIES {
            self.banned_peers.insert(peer);
        }
        if let Some(addr) = addr {
            self.set(addr, State::Linked);
            self.entries.remove(addr);
            if self.banned_addrs.len() < MAX_ENTRIES {
                self.banned_addrs.insert(addr.clone());
            }
        }
    }

    pub(super) fn is_banned(&self, peer: PeerId, addr: Option<&Addr>) -> bool {
        self.banned_peers.contains(&peer)
            || addr.is_some_and(|addr| self.banned_addrs.contains(addr))
    }

    /// How many dials are under way.
    pub(super) fn dialling(&self) -> usize {
        self.dialling
    }

    /// Whether an owner is left to dial, now or after its pause.
    pub(super) fn has_candidates(&self) -> bool {
        self.idle > 0
    }

    /// When the next owner's pause ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let pauses = self.entries.values().filter_map(|entry| match entry.state {
            State::Idle(from) => Some(from),
            _ => None,
        });
        pauses.min()
    }

    /// Moves an entry to another state, and counts the dials.
    fn set(&mut self, addr: &Addr, state: State) {
        if let Some(entry) = self.entries.get_mut(addr) {
            let before = std::mem::replace(&mut entry.state, state);
            self.dialling += usize::from(state == State::Dialling);
            self.dialling -= usize::from(before == State::Dialling);
            self.idle += usize::from(matches!(state, State::Idle(_)));
            self.idle -= usize::from(matches!(before, State::Idle(_)));
        }
    }

    fn pause(&mut self, now: Instant, addr: &Addr) {
        let Some(entry) = self.entries.get_mut(addr) else {
            return;
        };
        entry.failures += 1;
        let failures = entry.failures;
        if failures >= MAX_FAILURES {
            self.set(addr, State::Linked);
            self.entries.remove(addr);
        } else {
            let pause = FIRST_PAUSE * 2u32.pow(failures - 1);
            self.set(addr, State::Idle(now + pause));
        }
    }

    /// Panics where the counts contradict each other. For tests.
    pub(super) fn check_invariants(&self) {
        let dialling = |entry: &&Entry| entry.state == State::Dialling;
        assert_eq!(
            self.entries.values().filter(dialling).count(),
            self.dialling
        );
        let idle = |entry: &&Entry| matches!(entry.state, State::Idle(_));
        assert_eq!(self.entries.values().filter(idle).count(), self.idle);
        assert!(self.entries.len() <= MAX_ENTRIES);
        let banned = |addr: &Addr| self.banned_addrs.contains(addr);
        assert!(!self.entries.keys().any(banned));
    }
}
