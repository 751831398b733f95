//! The address book: the owners that are known, which to dial next, and which are
//! banned.
//!
//! An address has one of three origins, and the best one counts. An address that the
//! tracker or the user named is dialled first; next, one that a link which delivered says
//! of itself. An address that a link merely claims is not dialled while the link is up,
//! unless the tracker named the same address and nothing else helps; it is forgotten with
//! its link. So strangers cannot fill the book, and cannot keep an owner from being dialled
//! by claiming its address.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::LinkInfo;
use crate::protocol::{Addr, HostKey};

/// How many addresses are remembered: more than a swarm ever links to.
const MAX_ENTRIES: usize = 1024;

/// How many bans and how many suspected hosts are remembered. The oldest give way.
const MAX_BANS: usize = 1024;
const MAX_SUSPECTS: usize = 1024;

/// For how long a host is suspected after its last useless link.
const SUSPICION: Duration = Duration::from_secs(60);

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// After this many failures in a row an address lapses: until it is named again, it is
/// dialled only when nothing else helps, with the longest pause. One that was never named
/// is forgotten.
const MAX_FAILURES: u32 = 6;

/// An address that only says that it has no place is dialled again after short pauses
/// this many times in a row.
const MAX_BUSY: u32 = 32;

/// The first such pause. It doubles up to [`FIRST_PAUSE`]: when many come at once, places
/// become free within a few round trips.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// The owners of one content.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    entries: BTreeMap<Addr, Entry>,
    banned: Bans,
    /// Hosts whose links were useless, and until when that counts.
    suspects: BTreeMap<HostKey, Instant>,
    /// Hosts whose links never had anything, and until when that counts.
    blanks: BTreeMap<HostKey, Instant>,
    dialling: usize,
    idle: usize,
    /// Addresses that were named, and are claimed by a link that this side did not dial.
    claimed: usize,
    /// Addresses that have failed too often.
    lapsed: usize,
    /// Addresses that are not known to have everything.
    incomplete: usize,
    named: u64,
}

#[derive(Debug)]
struct Entry {
    state: DialState,
    /// The tracker named it as complete.
    complete: bool,
    /// It said itself that it is complete.
    said_complete: bool,
    /// The tracker or the user named it. Otherwise only a link did.
    named: bool,
    /// A link with this address delivered something.
    proved: bool,
    failures: u32,
    /// How often it had no place for this peer, since it last had one.
    busy: u32,
    /// What it said when it last ended a link, if it said something.
    farewell: Option<Farewell>,
    /// Its place in the order of naming.
    order: u64,
}

/// What an owner said when it ended a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It has no place for this peer.
    Full,
    /// It does not have the content.
    Gone,
    /// It does not serve this peer for another reason.
    Refused,
}

/// How the owners stand that were named, and that this side has no link with.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnerCounts {
    pub(super) known: u32,
    pub(super) full: u32,
    pub(super) gone: u32,
    pub(super) refused: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialState {
    /// It may be dialled from then on.
    Idle(Instant),
    /// It failed too often. From then on it may be dialled if nothing else helps.
    Lapsed(Instant),
    Dialling,
    /// A link that the other side dialled claims it.
    Claimed,
    /// A link with it is up, which this side dialled or which has delivered.
    Linked,
}

/// Peers that lied, by what was proven about them.
#[derive(Debug, Default)]
struct Bans(VecDeque<Ban>);

#[derive(Debug, PartialEq, Eq)]
enum Ban {
    /// This side dialled it there.
    Addr(Addr),
    /// Its link came from there.
    Host(HostKey),
}

impl Entry {
    /// Whether it may be a leecher's.
    fn may_lack(&self) -> bool {
        let lapsed = matches!(self.state, DialState::Lapsed(_));
        !self.complete && !self.said_complete && !lapsed
    }

    /// Whether it waits for its next dial.
    fn waits(&self) -> bool {
        matches!(self.state, DialState::Idle(_) | DialState::Lapsed(_))
    }
}

impl AddressBook {
    /// The tracker or the user named an owner.
    pub(super) fn named(&mut self, now: Instant, addr: Addr, complete: bool) {
        if self.banned.has_addr(&addr) {
            return;
        }
        if !self.entries.contains_key(&addr) && !self.make_room() {
            return;
        }
        self.named += 1;
        let (idle, order) = (&mut self.idle, self.named);
        let incomplete = &mut self.incomplete;
        let entry = self.entries.entry(addr.clone()).or_insert_with(|| {
            *idle += 1;
            *incomplete += usize::from(!complete);
            Entry {
                state: DialState::Idle(now),
                complete,
                said_complete: false,
                named: true,
                proved: false,
                failures: 0,
                busy: 0,
                farewell: None,
                order,
            }
        });
        self.incomplete -= usize::from(complete && entry.may_lack());
        entry.complete |= complete;
        let was_named = std::mem::replace(&mut entry.named, true);
        self.claimed += usize::from(!was_named && entry.state == DialState::Claimed);
        if matches!(entry.state, DialState::Lapsed(_)) {
            entry.failures = 0;
            self.set(&addr, DialState::Idle(now));
        }
    }

    /// Makes room for one more address. Of those that wait for their next dial, the one
    /// that failed most often gives way. Returns whether there is room.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < MAX_ENTRIES {
            return true;
        }
        let idle = self.entries.iter();
        let idle = idle.filter(|(_, entry)| entry.waits());
        let worst = idle.max_by_key(|(_, e)| (!e.named, !e.proved, e.failures, e.order));
        let worst = worst.filter(|(_, e)| !e.named || e.failures > 0);
        let Some(addr) = worst.map(|(addr, _)| addr.clone()) else {
            return false;
        };
        self.forget(&addr);
        true
    }

    /// The next owner to dial: a seeder, if `seeder_first`; then addresses that were named,
    /// then those that failed least, in the order of naming. If nothing arrives
    /// (`starving`), addresses that are claimed by links, and such that have failed too
    /// often, are dialled as well.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        seeder_first: bool,
        starving: bool,
    ) -> Option<Addr> {
        if self.idle == 0 && !(starving && self.has_last_resort()) {
            return None;
        }
        let due = |entry: &Entry| match entry.state {
            DialState::Idle(from) => from <= now,
            DialState::Lapsed(from) => starving && from <= now,
            DialState::Claimed => starving && entry.named,
            DialState::Dialling | DialState::Linked => false,
        };
        // The tracker's order is the best ones first, and the rest at random. An order of
        // our own would lead every peer to the same few owners.
        let rank = |entry: &Entry| {
            let last_resort = !matches!(entry.state, DialState::Idle(_));
            let other = seeder_first && !entry.complete;
            (
                last_resort,
                other,
                !entry.named,
                entry.failures,
                entry.order,
            )
        };
        let entries = self.entries.iter().filter(|(_, entry)| due(entry));
        let (addr, _) = entries.min_by_key(|(_, entry)| rank(entry))?;
        let addr = addr.clone();
        self.set(&addr, DialState::Dialling);
        Some(addr)
    }

    /// An address did not answer, or refused.
    pub(super) fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        let dialled = |entry: &&Entry| entry.state == DialState::Dialling;
        if self.entries.get(addr).filter(dialled).is_some() {
            // Whatever it said earlier, now it does not answer.
            self.pause(now, addr);
        }
    }

    /// A link is up, and stays.
    pub(super) fn linked(&mut self, info: &LinkInfo) {
        let Some(addr) = &info.addr else {
            return;
        };
        if info.dialled {
            self.set(addr, DialState::Linked);
            return;
        }
        if !self.entries.contains_key(addr) {
            if self.entries.len() >= MAX_ENTRIES {
                return;
            }
            self.named += 1;
            let entry = Entry {
                state: DialState::Claimed,
                complete: false,
                said_complete: false,
                named: false,
                proved: false,
                failures: 0,
                busy: 0,
                farewell: None,
                order: self.named,
            };
            self.incomplete += 1;
            self.entries.insert(addr.clone(), entry);
        } else if self.entries.get(addr).is_some_and(Entry::waits) {
            self.set(addr, DialState::Claimed);
        }
    }

    /// An address turned out to have a link.
    pub(super) fn is_linked(&mut self, addr: &Addr) {
        self.set(addr, DialState::Linked);
    }

    /// A link delivered: its address is believed, and its failures are forgiven.
    pub(super) fn proved(&mut self, addr: &Addr) {
        let Some(entry) = self.entries.get_mut(addr) else {
            return;
        };
        entry.failures = 0;
        entry.busy = 0;
        entry.farewell = None;
        entry.proved = true;
        if entry.state == DialState::Claimed {
            self.set(addr, DialState::Linked);
        }
    }

    /// The last link with an address went down. The address may be dialled again after a
    /// pause, unless only that link had said it.
    pub(super) fn unlinked(&mut self, now: Instant, addr: &Addr) {
        match self.entries.get(addr) {
            Some(entry) if entry.state == DialState::Dialling => {}
            Some(entry) if entry.named && entry.state == DialState::Claimed => {
                // It was never dialled, so it has not failed. Otherwise links that come and
                // go could have it forgotten.
                self.set(addr, DialState::Idle(now + FIRST_PAUSE));
            }
            Some(entry) if entry.named || entry.proved => self.pause(now, addr),
            _ => self.forget(addr),
        }
    }

    /// The other side had no place for this peer. It may be dialled again soon, since
    /// places become free all the time.
    pub(super) fn had_no_place(&mut self, now: Instant, addr: &Addr) {
        let Some(entry) = self.entries.get_mut(addr) else {
            return;
        };
        entry.busy += 1;
        // The end of its link was counted as a failure.
        if entry.waits() && entry.busy <= MAX_BUSY {
            entry.failures = entry.failures.saturating_sub(1);
            let doubled = BUSY_PAUSE.saturating_mul(1 << (entry.busy - 1).min(16));
            self.set(addr, DialState::Idle(now + doubled.min(FIRST_PAUSE)));
        }
    }

    /// An owner said why it ends a link.
    pub(super) fn said_farewell(&mut self, addr: &Addr, farewell: Farewell) {
        if let Some(entry) = self.entries.get_mut(addr) {
            entry.farewell = Some(farewell);
        }
    }

    /// Something can be reached again: addresses that did not answer may be dialled at
    /// once.
    pub(super) fn retry(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if entry.farewell.is_none()
                && let DialState::Idle(from) | DialState::Lapsed(from) = &mut entry.state
            {
                *from = now.min(*from);
            }
        }
    }

    /// How the named owners stand. O(addresses).
    pub(super) fn counts(&self) -> OwnerCounts {
        let mut counts = OwnerCounts::default();
        for entry in self.entries.values().filter(|entry| entry.named) {
            counts.known += 1;
            counts.full += u32::from(entry.farewell == Some(Farewell::Full));
            counts.gone += u32::from(entry.farewell == Some(Farewell::Gone));
            counts.refused += u32::from(entry.farewell == Some(Farewell::Refused));
        }
        counts
    }

    /// Whether every owner that was named has failed, refused or left. O(addresses).
    pub(super) fn is_exhausted(&self) -> bool {
        let failed = |entry: &Entry| entry.failures > 0 || entry.farewell.is_some();
        self.dialling == 0
            && self
                .entries
                .values()
                .all(|entry| !entry.named || failed(entry))
    }

    /// A peer lied: no further link to its address, if this side dialled it, and otherwise
    /// none from its host. A name proves nothing, so no name is banned.
    pub(super) fn ban(&mut self, host: &HostKey, dialled: Option<&Addr>) {
        match dialled {
            Some(addr) => {
                self.forget(addr);
                self.banned.add(Ban::Addr(addr.clone()));
            }
            None => self.banned.add(Ban::Host(host.clone())),
        }
    }

    /// A link of this host only took, or was asked and sent nothing. Its next links are
    /// asked for little for a while, until one of them delivers.
    pub(super) fn suspect(&mut self, now: Instant, host: &HostKey) {
        remember(&mut self.suspects, now, host);
    }

    /// A link of this host was up for long and never had anything. Its next links come
    /// behind those of new hosts.
    pub(super) fn never_had_anything(&mut self, now: Instant, host: &HostKey) {
        remember(&mut self.blanks, now, host);
    }

    pub(super) fn is_known_blank(&self, now: Instant, host: &HostKey) -> bool {
        self.blanks.get(host).is_some_and(|until| *until > now)
    }

    pub(super) fn is_suspect(&self, now: Instant, host: &HostKey) -> bool {
        self.suspects.get(host).is_some_and(|until| *until > now)
    }

    /// A link of this host delivered.
    pub(super) fn trust(&mut self, host: &HostKey) {
        self.suspects.remove(host);
        self.blanks.remove(host);
    }

    /// A link that lied had claimed this address, which counts no longer.
    pub(super) fn disproved(&mut self, addr: &Addr) {
        let Some(entry) = self.entries.get_mut(addr) else {
            return;
        };
        entry.proved = false;
        if !entry.named && matches!(entry.state, DialState::Idle(_)) {
            self.forget(addr);
        }
    }

    pub(super) fn is_banned(&self, info: &LinkInfo) -> bool {
        info.addr.as_ref().is_some_and(|a| self.banned.has_addr(a))
            || !info.dialled && self.banned.has_host(&info.host)
    }

    /// A link says that it has everything.
    pub(super) fn said_complete(&mut self, addr: &Addr) {
        if let Some(entry) = self.entries.get_mut(addr) {
            self.incomplete -= usize::from(entry.may_lack());
            entry.said_complete = true;
        }
    }

    /// Whether the tracker named an address as complete.
    pub(super) fn is_complete(&self, addr: &Addr) -> bool {
        self.entries.get(addr).is_some_and(|entry| entry.complete)
    }

    /// Whether there are addresses that are not known to have everything.
    pub(super) fn has_incomplete(&self) -> bool {
        self.incomplete > 0
    }

    /// How many dials are under way.
    pub(super) fn dialling(&self) -> usize {
        self.dialling
    }

    /// Whether an owner is left to dial, now or after its pause.
    pub(super) fn has_candidates(&self) -> bool {
        self.idle > 0
    }

    /// Whether an owner was named and not dialled yet.
    pub(super) fn has_untried(&self) -> bool {
        let untried = |entry: &Entry| {
            let waits = matches!(entry.state, DialState::Idle(_) | DialState::Dialling);
            entry.named && entry.failures == 0 && waits
        };
        (self.idle > 0 || self.dialling > 0) && self.entries.values().any(untried)
    }

    /// Whether an address was named, and is claimed by a link that did not prove it.
    pub(super) fn has_claimed(&self) -> bool {
        self.claimed > 0
    }

    /// Whether there are addresses that are dialled only if nothing else helps.
    pub(super) fn has_last_resort(&self) -> bool {
        self.claimed + self.lapsed > 0
    }

    /// When the pause of the next address ends that has failed too often.
    pub(super) fn next_lapsed(&self) -> Option<Instant> {
        let pauses = self.entries.values().filter_map(|entry| match entry.state {
            DialState::Lapsed(from) => Some(from),
            _ => None,
        });
        match self.lapsed {
            0 => None,
            _ => pauses.min(),
        }
    }

    /// When the next owner's pause ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let pauses = self.entries.values().filter_map(|entry| match entry.state {
            DialState::Idle(from) => Some(from),
            _ => None,
        });
        pauses.min()
    }

    /// Moves an entry to another state. All counts are kept here and in `forget`.
    fn set(&mut self, addr: &Addr, state: DialState) {
        if let Some(entry) = self.entries.get_mut(addr) {
            self.incomplete -= usize::from(entry.may_lack());
            let before = std::mem::replace(&mut entry.state, state);
            self.incomplete += usize::from(entry.may_lack());
            let named = entry.named;
            self.count(before, named, false);
            self.count(state, named, true);
        }
    }

    fn forget(&mut self, addr: &Addr) {
        if let Some(entry) = self.entries.remove(addr) {
            self.incomplete -= usize::from(entry.may_lack());
            self.count(entry.state, entry.named, false);
        }
    }

    fn count(&mut self, state: DialState, named: bool, more: bool) {
        let count = match state {
            DialState::Dialling => &mut self.dialling,
            DialState::Idle(_) => &mut self.idle,
            DialState::Lapsed(_) => &mut self.lapsed,
            DialState::Claimed if named => &mut self.claimed,
            DialState::Claimed | DialState::Linked => return,
        };
        *count = if more { *count + 1 } else { *count - 1 };
    }

    fn pause(&mut self, now: Instant, addr: &Addr) {
        let Some(entry) = self.entries.get_mut(addr) else {
            return;
        };
        entry.failures += 1;
        entry.farewell = None;
        let failures = entry.failures;
        let from = now + FIRST_PAUSE * 2u32.pow(failures.min(MAX_FAILURES) - 1);
        match failures < MAX_FAILURES {
            true => self.set(addr, DialState::Idle(from)),
            false if entry.named => self.set(addr, DialState::Lapsed(from)),
            false => self.forget(addr),
        }
    }

    /// Panics where the counts contradict each other. For tests.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self) {
        let count = |is: &dyn Fn(&Entry) -> bool| self.entries.values().filter(|e| is(e)).count();
        assert_eq!(count(&|e| e.state == DialState::Dialling), self.dialling);
        assert_eq!(count(&|e| matches!(e.state, DialState::Idle(_))), self.idle);
        assert_eq!(
            count(&|e| matches!(e.state, DialState::Lapsed(_))),
            self.lapsed
        );
        assert_eq!(
            count(&|e| e.named && e.state == DialState::Claimed),
            self.claimed
        );
        assert_eq!(count(&|e| e.may_lack()), self.incomplete);
        assert!(self.entries.len() <= MAX_ENTRIES);
        assert!(self.banned.0.len() <= MAX_BANS);
        assert!(self.suspects.len() <= MAX_SUSPECTS);
        assert!(!self.entries.keys().any(|addr| self.banned.has_addr(addr)));
    }
}

/// Remembers a host for a while. If there are too many, the oldest one is forgotten.
fn remember(hosts: &mut BTreeMap<HostKey, Instant>, now: Instant, host: &HostKey) {
    if hosts.len() >= MAX_SUSPECTS && !hosts.contains_key(host) {
        let oldest = hosts.iter().min_by_key(|(_, until)| **until);
        let oldest = oldest.map(|(host, _)| host.clone());
        oldest.and_then(|host| hosts.remove(&host));
    }
    hosts.insert(host.clone(), now + SUSPICION);
}

impl Bans {
    fn add(&mut self, ban: Ban) {
        if self.0.contains(&ban) {
            return;
        }
        if self.0.len() >= MAX_BANS {
            self.0.pop_front();
        }
        self.0.push_back(ban);
    }

    fn has_addr(&self, addr: &Addr) -> bool {
        let is = |ban: &Ban| matches!(ban, Ban::Addr(banned) if banned == addr);
        self.0.iter().any(is)
    }

    fn has_host(&self, host: &HostKey) -> bool {
        let is = |ban: &Ban| matches!(ban, Ban::Host(banned) if banned == host);
        self.0.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: usize) -> Addr {
        let [high, low] = (number as u16).to_be_bytes();
        format!("10.0.{high}.{low}:7").parse().expect("an address")
    }

    /// A book with one owner, which was named at this time.
    fn book() -> (AddressBook, Instant) {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        book.named(now, addr(0), false);
        (book, now)
    }

    /// Dials the owner, and fails. Returns whether it could be dialled.
    fn fails(book: &mut AddressBook, now: Instant) -> bool {
        let dialled = book.dial(now, false, false).is_some();
        if dialled {
            book.dial_failed(now, &addr(0));
        }
        book.check_invariants();
        dialled
    }

    #[test]
    fn owner_without_a_place_is_dialled_soon_again_but_not_forever() {
        let (mut book, mut now) = book();
        for _proved in 0..2 {
            for _ in 0..MAX_BUSY {
                assert!(fails(&mut book, now));
                book.had_no_place(now, &addr(0));
                now += FIRST_PAUSE;
            }
            book.proved(&addr(0));
        }
        for _ in 0..MAX_BUSY + MAX_FAILURES {
            if fails(&mut book, now) {
                book.had_no_place(now, &addr(0));
            }
            now += Duration::from_secs(60);
        }
        assert!(book.next_lapsed().is_some());
    }

    #[test]
    fn owner_that_is_named_again_after_it_has_lapsed_begins_anew() {
        let (mut book, mut now) = book();
        while book.next_lapsed().is_none() {
            fails(&mut book, now);
            now += Duration::from_secs(1);
        }
        book.named(now, addr(0), false);
        assert!(fails(&mut book, now));
        assert!(fails(&mut book, now + FIRST_PAUSE));
    }

    #[test]
    fn farewell_counts_until_the_next_failure() {
        let (mut book, now) = book();
        book.said_farewell(&addr(0), Farewell::Full);
        assert_eq!(book.counts().full, 1);
        assert!(fails(&mut book, now));
        assert_eq!((book.counts().known, book.counts().full), (1, 0));
    }

    #[test]
    fn claimed_address_that_proved_wrong_is_forgotten() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        let info = LinkInfo {
            dialled: false,
            ..LinkInfo::unmet(addr(1))
        };
        book.linked(&info);
        book.proved(&addr(1));
        book.unlinked(now, &addr(1));
        assert!(book.has_candidates());
        book.disproved(&addr(1));
        assert!(!book.has_candidates());
        book.check_invariants();
    }

    #[test]
    fn host_that_is_banned_may_still_be_dialled_where_others_name_it() {
        let mut book = AddressBook::default();
        let dialled = LinkInfo::unmet(addr(1));
        book.ban(&dialled.host, None);
        assert!(!book.is_banned(&dialled));
        let accepted = LinkInfo {
            dialled: false,
            ..dialled
        };
        assert!(book.is_banned(&accepted));
    }

    #[test]
    fn oldest_of_many_blank_hosts_is_forgotten_and_trust_ends_it() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        let host = |number| HostKey::of(&addr(number));
        for number in 0..=MAX_SUSPECTS {
            let since = now + Duration::from_millis(number as u64);
            book.never_had_anything(since, &host(number));
        }
        assert!(!book.is_known_blank(now, &host(0)));
        for number in [1, MAX_SUSPECTS] {
            assert!(book.is_known_blank(now, &host(number)), "{number}");
        }
        book.trust(&host(1));
        assert!(!book.is_known_blank(now, &host(1)));
    }
}
