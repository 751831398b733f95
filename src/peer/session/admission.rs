//! Places for connections: for those that have not shaken hands, for links that
//! others opened, and for links that this peer dials.
//!
//! What it promises:
//! - Each of the three has its own bound, so that none takes the places of
//!   another. Silent connections keep nobody from shaking hands. Links that
//!   others open leave room to dial for this peer's downloads. Dialled links
//!   leave room for others; otherwise a crowd of busy peers would turn each
//!   other away.
//! - Each host (by [`HostKey`]) has a bound. Where a bound over all hosts is
//!   reached, the host that has most gives way. So a host with less finds a
//!   place at once, whatever the others do.
//! - A place that was given back leaves no trace.
//!
//! It knows nothing of contents, nor of the value of a link.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Turn, Notify};
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Held};
use crate::peer::config::PeerConfig;
use crate::protocol::{Addr, HostKey};

/// Of this many places for links, one is kept for those that this peer dials,
/// and one for those that others open.
const KEPT_SHARE: usize = 4;

/// The fewest connections that a peer can work with.
const LEAST: usize = 6;

/// Gives out places.
pub(in crate::peer) struct Admission {
    max_handshakes: usize,
    max_handshakes_per_host: usize,
    max_sessions: usize,
    max_per_host: usize,
    state: Mutex<AdmissionState>,
    /// Held by the first of those who wait for a place, and given to the next in their order.
    turn: Turn<()>,
    /// Told of each place that is given back.
    freed: Notify,
}

#[derive(Default)]
struct AdmissionState {
    hosts: BTreeMap<HostKey, HostPlaces>,
    /// Numbers the places in the order in which they are given.
    next: u64,
    handshakes: usize,
    accepted: usize,
    dialled: usize,
}

/// The places of one host, oldest first.
#[derive(Default)]
struct HostPlaces {
    handshakes: BTreeMap<u64, CancellationToken>,
    links: BTreeMap<u64, CancellationToken>,
}

/// The place of one connection, given back when it is dropped.
pub(in crate::peer) struct ConnectionPlace {
    admission: Arc<Admission>,
    holder: PlaceHolder,
    cut: CancellationToken,
    _counted: Held,
}

#[derive(Clone)]
enum PlaceHolder {
    Handshake(HostKey, u64),
    Accepted(HostKey, u64),
    Dialled,
}

/// How many descriptors are left for what is neither a file of a storage nor a
/// connection of a peer, as a storage leaves them
/// ([`FilePool::shared`](crate::storage::FilePool::shared)).
const OTHER_DESCRIPTORS: u64 = 32;

impl Admission {
    /// The bounds of the configuration, or less if the process may have only
    /// `descriptors` open: connections have half of them, as files have, and of
    /// that those that shake hands have a third at most.
    pub(in crate::peer) fn new(config: &PeerConfig, descriptors: Option<u64>) -> Self {
        let most = descriptors.map_or(usize::MAX, |all| {
            let part = all.saturating_sub(OTHER_DESCRIPTORS) / 2;
            usize::try_from(part).unwrap_or(usize::MAX).max(LEAST)
        });
        let max_handshakes = config.max_handshakes.min(most / 3);
        let max_sessions = config.max_connections.min(most - max_handshakes);
        Self {
            max_handshakes,
            max_handshakes_per_host: config.max_handshakes_per_host.min(max_handshakes),
            max_sessions,
            max_per_host: config.max_connections_per_host.min(max_sessions),
            state: Mutex::default(),
            turn: Turn::default(),
            freed: Notify::new(),
        }
    }

    /// How many connections have shaken hands, and how many may.
    pub(in crate::peer) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.accepted + state.dialled, self.max_sessions)
    }

    /// A place to shake hands in. There always is one: at the bound of the host
    /// its oldest handshake gives way, at the bound of all hosts the oldest of
    /// the host that has most.
    pub(in crate::peer) fn handshake(self: &Arc<Self>, remote: &Addr) -> ConnectionPlace {
        let key = HostKey::of(remote);
        let mut state = self.state();
        let of_host = state.host(&key).map_or(0, |host| host.handshakes.len());
        if of_host >= self.max_handshakes_per_host {
            state.cut_handshake_of(&key);
        } else if state.handshakes >= self.max_handshakes {
            state.cut_handshake();
        }
        let (number, cut) = state.number();
        state.handshakes += 1;
        let host = state.hosts.entry(key.clone()).or_default();
        host.handshakes.insert(number, cut.clone());
        self.place(PlaceHolder::Handshake(key, number), cut)
    }

    /// Closes one connection that has not shaken hands, if there is any: the
    /// oldest of the host that has most. For when the operating system allows no
    /// more connections.
    pub(in crate::peer) fn make_room(&self) {
        self.state().cut_handshake();
    }

    /// A place for a link that this remote has opened. A host that has
    /// [`PeerConfig::max_connections_per_host`] gets no more. When all are taken, the
    /// newest link of the host that has most gives way, unless this host would
    /// then have as many as that one.
    pub(in crate::peer) fn accept(self: &Arc<Self>, remote: &Addr) -> Option<ConnectionPlace> {
        let key = HostKey::of(remote);
        let mut state = self.state();
        let of_host = state.host(&key).map_or(0, |host| host.links.len());
        if of_host >= self.max_per_host {
            return None;
        }
        let places = self.max_sessions - state.dialled.max(self.kept());
        if state.accepted >= places && !state.cut_link(of_host + 1) {
            return None;
        }
        let (number, cut) = state.number();
        state.accepted += 1;
        let host = state.hosts.entry(key.clone()).or_default();
        host.links.insert(number, cut.clone());
        Some(self.place(PlaceHolder::Accepted(key, number), cut))
    }

    /// A place for a link that this peer opens.
    pub(in crate::peer) fn dial(self: &Arc<Self>) -> Option<ConnectionPlace> {
        let mut state = self.state();
        if state.dialled >= self.max_sessions - state.accepted.max(self.kept()) {
            return None;
        }
        state.dialled += 1;
        Some(self.place(PlaceHolder::Dialled, CancellationToken::new()))
    }

    /// The same, as soon as there is one. Those who wait are served in their order.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn dial_when_free(self: &Arc<Self>) -> ConnectionPlace {
        // Only the first hears of places: not each that is given back is one for it, and it
        // must not go behind the others then.
        let _turn = self.turn.lock().await;
        loop {
            let mut freed = pin!(self.freed.notified());
            // A place that is given back from here on is noticed.
            freed.as_mut().enable();
            if let Some(place) = self.dial() {
                return place;
            }
            freed.await;
        }
    }

    /// How many places are kept for one kind of link: at least one, unless that
    /// would be all.
    fn kept(&self) -> usize {
        let part = (self.max_sessions / KEPT_SHARE).max(1);
        part.min(self.max_sessions.saturating_sub(1))
    }

    fn place(self: &Arc<Self>, holder: PlaceHolder, cut: CancellationToken) -> ConnectionPlace {
        let admission = Arc::clone(self);
        ConnectionPlace {
            admission,
            holder,
            cut,
            _counted: Held::new(metrics::CONNECTIONS),
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdmissionState {
    fn host(&self, key: &HostKey) -> Option<&HostPlaces> {
        self.hosts.get(key)
    }

    fn number(&mut self) -> (u64, CancellationToken) {
        self.next += 1;
        (self.next, CancellationToken::new())
    }

    /// Cuts the oldest handshake of the host that has most; of several such
    /// hosts, the one whose oldest is oldest.
    fn cut_handshake(&mut self) {
        let most = self.hosts.iter().max_by_key(|(_, host)| {
            let oldest = host.handshakes.keys().next().copied();
            (
                host.handshakes.len(),
                std::cmp::Reverse(oldest.unwrap_or(u64::MAX)),
            )
        });
        if let Some(key) = most.map(|(key, _)| key.clone()) {
            self.cut_handshake_of(&key);
        }
    }

    fn cut_handshake_of(&mut self, key: &HostKey) {
        let oldest = self.host(key).and_then(|host| {
            let (number, cut) = host.handshakes.first_key_value()?;
            Some((*number, cut.clone()))
        });
        if let Some((number, cut)) = oldest {
            self.leave(&PlaceHolder::Handshake(key.clone(), number));
            cut.cancel();
        }
    }

    /// Cuts the newest link of the host that has most, if that is more than
    /// `fair`; of several such hosts, the one whose newest is newest.
    fn cut_link(&mut self, fair: usize) -> bool {
        let most = self.hosts.iter().max_by_key(|(_, host)| {
            let newest = host.links.keys().next_back().copied();
            (host.links.len(), newest)
        });
        let newest = most.and_then(|(key, host)| {
            let (number, cut) = host.links.last_key_value()?;
            (host.links.len() > fair).then(|| (key.clone(), *number, cut.clone()))
        });
        let Some((key, number, cut)) = newest else {
            return false;
        };
        self.leave(&PlaceHolder::Accepted(key, number));
        cut.cancel();
        true
    }

    /// Gives a place back, unless it was taken away already.
    fn leave(&mut self, holder: &PlaceHolder) {
        let (key, number) = match holder {
            PlaceHolder::Handshake(key, number) | PlaceHolder::Accepted(key, number) => {
                (key, number)
            }
            PlaceHolder::Dialled => {
                self.dialled -= 1;
                return;
            }
        };
        let Some(host) = self.hosts.get_mut(key) else {
            return;
        };
        self.handshakes -= usize::from(host.handshakes.remove(number).is_some());
        self.accepted -= usize::from(host.links.remove(number).is_some());
        if host.handshakes.is_empty() && host.links.is_empty() {
            self.hosts.remove(key);
        }
    }
}

impl ConnectionPlace {
    /// Waits until the place is given to another connection. It does not count
    /// any more, and its holder closes the connection.
    pub(in crate::peer) async fn cut(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.admission.state().leave(&self.holder);
        self.admission.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(handshakes: (usize, usize), links: (usize, usize)) -> Arc<Admission> {
        let mut config = PeerConfig::default();
        (config.max_handshakes, config.max_handshakes_per_host) = handshakes;
        (config.max_connections, config.max_connections_per_host) = links;
        Arc::new(Admission::new(&config, None))
    }

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    fn cut(places: &[ConnectionPlace]) -> Vec<bool> {
        places
            .iter()
            .map(|place| place.cut.is_cancelled())
            .collect()
    }

    fn counts(admission: &Admission) -> [usize; 4] {
        let state = admission.state();
        [
            state.hosts.len(),
            state.handshakes,
            state.accepted,
            state.dialled,
        ]
    }

    #[test]
    fn oldest_handshake_of_the_same_host_gives_way_at_its_bound() {
        let admission = admission((10, 2), (10, 10));
        let places = ["1.1.1.1:1", "1.1.1.1:2", "1.1.1.2:1", "1.1.1.1:3"]
            .map(|remote| admission.handshake(&addr(remote)));
        assert_eq!(cut(&places), [true, false, false, false]);
        assert_eq!(counts(&admission), [2, 3, 0, 0]);
        drop(places);
        assert_eq!(counts(&admission), [0; 4]);
    }

    #[test]
    fn oldest_handshake_of_the_host_with_most_gives_way() {
        let admission = admission((4, 3), (10, 10));
        let places = [
            "1.1.1.1:1",
            "[2001:db8::1]:1",
            "[2001:db8::2]:1",
            "[2001:db8::3]:1",
            "1.1.1.2:1",
            "1.1.1.3:1",
        ]
        .map(|remote| admission.handshake(&addr(remote)));
        assert_eq!(cut(&places), [false, true, true, false, false, false]);
        // All have one: the oldest of all.
        admission.make_room();
        assert_eq!(cut(&places), [true, true, true, false, false, false]);
        drop(places);
        assert_eq!(counts(&admission), [0; 4]);
        admission.make_room();
    }

    #[test]
    fn links_of_a_host_are_bounded_and_refused_ones_leave_no_trace() {
        let admission = admission((4, 3), (8, 2));
        let one = admission.accept(&addr("[2001:db8::1]:1")).unwrap();
        let _two = admission.accept(&addr("[2001:db8::2]:1")).unwrap();
        assert!(admission.accept(&addr("[2001:db8::3]:1")).is_none());
        drop(one);
        let _three = admission.accept(&addr("[2001:db8::3]:1")).unwrap();
        assert_eq!(counts(&admission), [1, 0, 2, 0]);
    }

    #[test]
    fn newest_link_of_the_host_with_most_gives_way_while_that_is_fair() {
        let admission = admission((4, 3), (8, 8));
        let remotes = (0..6).map(|port| addr(&format!("1.1.1.1:{port}")));
        let first: Vec<_> = remotes.map(|r| admission.accept(&r).unwrap()).collect();
        assert!(admission.accept(&addr("1.1.1.1:9")).is_none());
        let second = [1, 2, 3].map(|port| {
            let remote = addr(&format!("1.1.1.2:{port}"));
            admission.accept(&remote).unwrap()
        });
        assert_eq!(cut(&first), [false, false, false, true, true, true]);
        // Both have half.
        assert!(admission.accept(&addr("1.1.1.2:4")).is_none());
        let third = admission.accept(&addr("1.1.1.3:1")).unwrap();
        assert_eq!(cut(&second), [false, false, true]);
        assert_eq!(counts(&admission), [3, 0, 6, 0]);
        drop((first, second, third));
        assert_eq!(counts(&admission), [0; 4]);
        assert!(admission.accept(&addr("1.1.1.4:1")).is_some());
        assert_eq!(counts(&admission), [0; 4]);
    }

    #[test]
    fn neither_side_takes_all_places() {
        let admission = admission((4, 3), (8, 8));
        let remotes = (0..8).map(|host| addr(&format!("1.1.1.{host}:1")));
        let accepted: Vec<_> = remotes.filter_map(|r| admission.accept(&r)).collect();
        assert_eq!(accepted.len(), 6);
        let dialled: Vec<_> = (0..8).filter_map(|_| admission.dial()).collect();
        assert_eq!(dialled.len(), 2);
        drop(accepted);
        let more: Vec<_> = (0..8).filter_map(|_| admission.dial()).collect();
        assert_eq!(more.len(), 4);
        let remotes = (0..8).map(|host| addr(&format!("1.1.2.{host}:1")));
        let accepted: Vec<_> = remotes.filter_map(|r| admission.accept(&r)).collect();
        assert_eq!(accepted.len(), 2);
        drop((dialled, more, accepted));
        assert_eq!(counts(&admission), [0; 4]);
    }

    #[test]
    fn few_descriptors_leave_places_for_both_sides() {
        let of = |descriptors| {
            let admission = Admission::new(&PeerConfig::default(), descriptors);
            (admission.max_handshakes, admission.max_sessions)
        };
        assert_eq!(of(None), (256, 500));
        assert_eq!(of(Some(1 << 20)), (256, 500));
        assert_eq!(of(Some(1024)), (165, 331));
        assert_eq!(of(Some(256)), (37, 75));
        assert_eq!(of(Some(64)), (5, 11));
        assert_eq!(of(Some(0)), (2, 4));
    }

    #[tokio::test]
    async fn those_who_wait_for_a_place_get_each_that_is_given_back_in_their_order() {
        let admission = admission((1, 1), (3, 3));
        let first = admission.dial().unwrap();
        let second = admission.dial().unwrap();
        let mut waiting = Box::pin(admission.dial_when_free());
        let mut behind = Box::pin(admission.dial_when_free());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(futures::poll!(&mut behind).is_pending());
        drop(first);
        let third = waiting.await;
        assert!(futures::poll!(&mut behind).is_pending());
        // One who no longer waits takes nothing.
        let mut gone = Box::pin(admission.dial_when_free());
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        drop((second, third));
        drop(behind.await);
        assert_eq!(counts(&admission), [0; 4]);
    }

    #[tokio::test]
    async fn whoever_waits_first_stays_first_when_a_place_of_another_kind_is_given_back() {
        let admission = admission((2, 2), (3, 3));
        let handshake = admission.handshake(&addr("1.1.1.1:1"));
        let places = [(); 2].map(|()| admission.dial().unwrap());
        let mut first = Box::pin(admission.dial_when_free());
        let mut behind = Box::pin(admission.dial_when_free());
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut behind).is_pending());
        drop(handshake);
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut behind).is_pending());
        let [one, _other] = places;
        drop(one);
        assert!(futures::poll!(&mut behind).is_pending());
        assert!(futures::poll!(&mut first).is_ready());
    }

    #[test]
    fn single_place_goes_to_the_first() {
        let admission = admission((1, 1), (1, 1));
        let accepted = admission.accept(&addr("1.1.1.1:1")).unwrap();
        assert!(admission.dial().is_none());
        drop(accepted);
        let _dialled = admission.dial().unwrap();
        assert!(admission.accept(&addr("1.1.1.1:1")).is_none());
    }
}
