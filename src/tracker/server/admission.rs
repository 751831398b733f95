//! How many connections there are: in total, per host, and of those that are
//! only told that there are too many.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    turned_away: usize,
    hosts: HashMap<HostKey, usize>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    /// None for a connection that is turned away.
    host: Option<HostKey>,
}

impl Admission {
    pub(super) fn new(max: usize, max_per_host: usize) -> Self {
        Self {
            max,
            max_per_host,
            counts: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection, or else, unless there are too many of those
    /// as well, a place for turning it away.
    pub(super) fn admit(self: &Arc<Self>, remote: &Addr) -> Result<Place, Option<Place>> {
        let host = HostKey::of(remote);
        let mut counts = self.counts();
        let of_host = counts.hosts.get(&host).copied().unwrap_or(0);
        if counts.open < self.max && of_host < self.max_per_host {
            counts.open += 1;
            counts.hosts.insert(host.clone(), of_host + 1);
            self.accepted.fetch_add(1, Ordering::Relaxed);
            return Ok(Place {
                admission: self.clone(),
                host: Some(host),
            });
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        if counts.turned_away == TURNED_AWAY_AT_ONCE {
            return Err(None);
        }
        counts.turned_away += 1;
        Err(Some(Place {
            admission: self.clone(),
            host: None,
        }))
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
        counts.open -= 1;
        match counts.hosts.get_mut(host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.hosts.remove(host);
            }
        }
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
        let first = admission.admit(&addr("10.0.0.1:1")).unwrap();
        let _second = admission.admit(&addr("10.0.0.1:2")).unwrap();
        assert!(admission.admit(&addr("10.0.0.1:3")).is_err());
        let _other = admission.admit(&addr("[2001:db8::1]:1")).unwrap();
        assert!(admission.admit(&addr("10.0.0.2:1")).is_err());
        drop(first);
        let _again = admission.admit(&addr("10.0.0.1:3")).unwrap();
        assert_eq!((admission.open(), admission.refused()), (3, 2));
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
