//! How many connections there are: in total, per host, and of those that are
//! only told that there are too many. A connection on which nothing was asked yet
//! has its place on sufferance: it gives way to one that comes later, so that
//! nobody keeps others waiting by saying nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::protocol::{Addr, HostKey};

/// How many connections may be about to be turned away at a time. Past them, a
/// connection is dropped without a word.
const TURNED_AWAY_AT_ONCE: usize = 64;

/// Gives out places for connections.
#[derive(Debug)]
pub(super) struct Admission {
    max: usize,
    max_per_host: usize,
    counts: Mutex<Counts>,
    accepted: AtomicU64,
    refused: AtomicU64,
    gave_way: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    turned_away: usize,
    /// How many connections came before.
    next: u64,
    hosts: HashMap<HostKey, OfHost>,
    /// The hosts with silent connections, by how many these are, and by the
    /// number of the oldest one.
    silent: BTreeMap<(usize, u64), HostKey>,
}

/// The connections of one host.
#[derive(Debug, Default)]
struct OfHost {
    open: usize,
    /// Those on which nothing was asked yet, in the order in which they came.
    silent: BTreeMap<u64, CancellationToken>,
}

impl OfHost {
    fn rank(&self) -> Option<(usize, u64)> {
        let (oldest, _) = self.silent.first_key_value()?;
        Some((self.silent.len(), *oldest))
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    /// None for a connection that is turned away.
    host: Option<HostKey>,
    number: u64,
    gives_way: CancellationToken,
}

impl Place {
    /// Something was asked on the connection: it keeps its place.
    pub(super) fn keep(&self) {
        if let Some(host) = &self.host {
            let mut counts = self.admission.counts();
            counts.change(host, |of_host| drop(of_host.silent.remove(&self.number)));
        }
    }

    /// Returns once the place is given to another connection, which it is not
    /// any more after [`keep`](Self::keep).
    ///
    /// Cancel safe.
    pub(super) async fn taken(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Counts {
    /// Changes what there is of a host, and ranks it anew.
    fn change<T>(&mut self, host: &HostKey, change: impl FnOnce(&mut OfHost) -> T) -> T {
        let of_host = self.hosts.entry(host.clone()).or_default();
        if let Some(rank) = of_host.rank() {
            self.silent.remove(&rank);
        }
        let changed = change(of_host);
        if let Some(rank) = of_host.rank() {
            self.silent.insert(rank, host.clone());
        }
        if of_host.open == 0 {
            self.hosts.remove(host);
        }
        changed
    }

    /// Takes the place of the oldest silent connection of a host. Returns
    /// whether there is one.
    fn take(&mut self, host: &HostKey) -> bool {
        let taken = self.change(host, |of_host| {
            let (_, gives_way) = of_host.silent.pop_first()?;
            of_host.open -= 1;
            Some(gives_way)
        });
        if let Some(gives_way) = &taken {
            self.open -= 1;
            // Under the lock, so that the place is given back once.
            gives_way.cancel();
        }
        taken.is_some()
    }
}

impl Admission {
    pub(super) fn new(max: usize, max_per_host: usize) -> Self {
        Self {
            max,
            max_per_host,
            counts: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            gave_way: AtomicU64::new(0),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection, maybe that of one on which nothing was asked
    /// yet: of the same host if that has as many as it may, and else of the host
    /// that has most of them. Or else, unless there are too many of those as
    /// well, a place for turning it away.
    pub(super) fn admit(self: &Arc<Self>, remote: &Addr) -> Result<Place, Option<Place>> {
        let host = HostKey::of(remote);
        let mut counts = self.counts();
        let of_host = counts.hosts.get(&host).map_or(0, |of_host| of_host.open);
        let room = if self.max == 0 || self.max_per_host == 0 {
            false
        } else if of_host >= self.max_per_host {
            self.take_one(&mut counts, Some(host.clone()))
        } else if counts.open >= self.max {
            let most = counts.silent.last_key_value();
            let most = most.map(|(_, host)| host.clone());
            self.take_one(&mut counts, most)
        } else {
            true
        };
        let number = counts.next;
        counts.next += 1;
        let place = |host| Place {
            admission: self.clone(),
            host,
            number,
            gives_way: CancellationToken::new(),
        };
        if room {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let place = place(Some(host.clone()));
            counts.open += 1;
            counts.change(&host, |of_host| {
                of_host.open += 1;
                of_host.silent.insert(number, place.gives_way.clone());
            });
            return Ok(place);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        if counts.turned_away == TURNED_AWAY_AT_ONCE {
            return Err(None);
        }
        counts.turned_away += 1;
        Err(Some(place(None)))
    }

    fn take_one(&self, counts: &mut Counts, host: Option<HostKey>) -> bool {
        let taken = host.is_some_and(|host| counts.take(&host));
        if taken {
            self.gave_way.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    pub(super) fn gave_way(&self) -> u64 {
        self.gave_way.load(Ordering::Relaxed)
    }

    pub(super) fn open(&self) -> u64 {
        self.counts().open as u64
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        let Some(host) = &self.host else {
            counts.turned_away -= 1;
            return;
        };
        if self.gives_way.is_cancelled() {
            // Another connection has it.
            return;
        }
        counts.open -= 1;
        counts.change(host, |of_host| {
            of_host.open -= 1;
            of_host.silent.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_bounded_per_host_and_in_total_and_come_back() {
        let admission = Arc::new(Admission::new(3, 2));
        let admit = |text| {
            let place = admission.admit(&addr(text));
            place.inspect(Place::keep)
        };
        let first = admit("10.0.0.1:1").unwrap();
        let _second = admit("10.0.0.1:2").unwrap();
        assert!(admit("10.0.0.1:3").is_err());
        let _other = admit("[2001:db8::1]:1").unwrap();
        assert!(admit("10.0.0.2:1").is_err());
        drop(first);
        let _again = admit("10.0.0.1:3").unwrap();
        assert_eq!((admission.open(), admission.refused()), (3, 2));
    }

    /// Which of these still have their places.
    fn kept(places: &[Place]) -> Vec<usize> {
        let places = places.iter().enumerate();
        let kept = places.filter(|(_, place)| !place.gives_way.is_cancelled());
        kept.map(|(at, _)| at).collect()
    }

    #[test]
    fn oldest_silent_connection_of_a_full_host_gives_way() {
        let admission = Arc::new(Admission::new(9, 3));
        let admit = || admission.admit(&addr("10.0.0.1:1")).unwrap();
        let mut places: Vec<_> = (0..3).map(|_| admit()).collect();
        places[0].keep();
        places.push(admit());
        assert_eq!(kept(&places), [0, 2, 3]);
        places.push(admit());
        assert_eq!(kept(&places), [0, 3, 4]);
        assert_eq!((admission.open(), admission.gave_way()), (3, 2));
        // Whoever gave way gives nothing back, and the others do.
        drop(places);
        assert_eq!(admission.open(), 0);
        let counts = admission.counts();
        assert!(counts.hosts.is_empty() && counts.silent.is_empty());
    }

    #[test]
    fn host_with_most_silent_connections_gives_way_when_all_places_are_taken() {
        let admission = Arc::new(Admission::new(6, 4));
        let admit = |text| admission.admit(&addr(text)).unwrap();
        let hosts = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2"];
        let hosts = hosts.into_iter().chain(["10.0.0.3:1"; 3]);
        let mut places: Vec<_> = hosts.map(admit).collect();
        // This host has most connections, and most of them have asked.
        places[3].keep();
        places[4].keep();
        places.push(admit("10.0.0.4:1"));
        assert_eq!(kept(&places), [0, 2, 3, 4, 5, 6]);
        // None is silent any more.
        places.iter().for_each(Place::keep);
        assert!(admission.admit(&addr("10.0.0.5:1")).is_err());
        assert_eq!(kept(&places), [0, 2, 3, 4, 5, 6]);
        drop(places);
        assert_eq!(admission.open(), 0);
    }

    #[test]
    fn turned_away_connections_are_bounded_too() {
        let admission = Arc::new(Admission::new(0, 0));
        let admit = || admission.admit(&addr("10.0.0.1:1")).unwrap_err();
        let places: Vec<_> = (0..TURNED_AWAY_AT_ONCE).map(|_| admit()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(admit().is_none());
        drop(places);
        assert!(admit().is_some());
    }
}
