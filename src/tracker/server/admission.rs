//! Limits the number of connections: in total, per host, and of those that are
//! being turned away. A *silent* connection, on which nothing was asked yet, gives
//! way to a later one, so that nobody can keep others out by saying nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Held};
use crate::protocol::{Addr, HostKey};

/// How many connections may be in the course of being turned away. Further ones
/// are dropped without a message.
const TURNED_AWAY_AT_ONCE: usize = 64;

/// Decides which connections are served, and gives permits to them.
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
    /// The number of the next connection.
    next: u64,
    hosts: HashMap<HostKey, HostConnections>,
    /// The hosts with silent connections, ordered by how many they have, and then
    /// by the number of the oldest one.
    silent: BTreeMap<(usize, u64), HostKey>,
}

/// The connections of one host.
#[derive(Debug, Default)]
struct HostConnections {
    open: usize,
    /// The silent ones, in the order in which they came.
    silent: BTreeMap<u64, CancellationToken>,
}

impl HostConnections {
    fn rank(&self) -> Option<(usize, u64)> {
        let (oldest, _) = self.silent.first_key_value()?;
        Some((self.silent.len(), *oldest))
    }
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) enum Decision {
    Serve(Permit),
    /// The client is told that the tracker is busy.
    TurnAway(Permit),
    /// There are too many connections to even tell the client.
    Drop,
}

/// The permit of a connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    /// `None` for a connection that is turned away.
    host: Option<HostKey>,
    number: u64,
    gives_way: CancellationToken,
    _counted: Held,
}

impl Permit {
    /// Something was asked on the connection: it no longer gives way.
    pub(super) fn keep(&self) {
        if let Some(host) = &self.host {
            let mut counts = self.admission.counts();
            counts.change(host, |of_host| drop(of_host.silent.remove(&self.number)));
        }
    }

    /// Returns once the connection must give way to another one. That cannot happen
    /// after [`keep`](Self::keep).
    ///
    /// Cancel safe.
    pub(super) async fn revoked(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Counts {
    /// Changes the connections of a host, and keeps the order of hosts and the map
    /// up to date.
    fn change<T>(&mut self, host: &HostKey, change: impl FnOnce(&mut HostConnections) -> T) -> T {
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

    /// Has the oldest silent connection of a host give way. Returns whether there
    /// is one.
    fn revoke(&mut self, host: &HostKey) -> bool {
        let revoked = self.change(host, |of_host| {
            let (_, gives_way) = of_host.silent.pop_first()?;
            of_host.open -= 1;
            Some(gives_way)
        });
        if let Some(gives_way) = &revoked {
            self.open -= 1;
            // Under the lock, so that the permit is not given back a second time.
            gives_way.cancel();
        }
        revoked.is_some()
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

    /// Decides about a new connection. If there is no room for it, the oldest silent
    /// connection gives way: one of the same host if that has as many connections
    /// as it may, otherwise one of the host with most silent connections.
    pub(super) fn admit(self: &Arc<Self>, remote: &Addr) -> Decision {
        self.admit_as(remote, false)
    }

    /// The same. A proxy stands for many hosts, and has no bound of its own.
    pub(super) fn admit_as(self: &Arc<Self>, remote: &Addr, is_proxy: bool) -> Decision {
        let decision = self.decide(remote, is_proxy);
        let result = match decision {
            Decision::Serve(_) => "served",
            Decision::TurnAway(_) | Decision::Drop => "refused",
        };
        metrics::count_as(metrics::TRACKER_ACCEPTED, ("result", result), 1);
        decision
    }

    fn decide(self: &Arc<Self>, remote: &Addr, is_proxy: bool) -> Decision {
        let host = HostKey::of(remote);
        let mut counts = self.counts();
        let of_host = counts.hosts.get(&host).map_or(0, |of_host| of_host.open);
        let room = if self.max == 0 || self.max_per_host == 0 {
            false
        } else if of_host >= self.max_per_host && !is_proxy {
            self.revoke_one(&mut counts, Some(host.clone()))
        } else if counts.open >= self.max {
            let most = counts.silent.last_key_value();
            let most = most.map(|(_, host)| host.clone());
            self.revoke_one(&mut counts, most)
        } else {
            true
        };
        let number = counts.next;
        counts.next += 1;
        let permit = |host| Permit {
            admission: self.clone(),
            host,
            number,
            gives_way: CancellationToken::new(),
            _counted: Held::new(metrics::TRACKER_CONNECTIONS),
        };
        if room {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let permit = permit(Some(host.clone()));
            counts.open += 1;
            counts.change(&host, |of_host| {
                of_host.open += 1;
                of_host.silent.insert(number, permit.gives_way.clone());
            });
            return Decision::Serve(permit);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        if counts.turned_away == TURNED_AWAY_AT_ONCE {
            return Decision::Drop;
        }
        counts.turned_away += 1;
        Decision::TurnAway(permit(None))
    }

    fn revoke_one(&self, counts: &mut Counts, host: Option<HostKey>) -> bool {
        let revoked = host.is_some_and(|host| counts.revoke(&host));
        if revoked {
            self.gave_way.fetch_add(1, Ordering::Relaxed);
        }
        revoked
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

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        let Some(host) = &self.host else {
            counts.turned_away -= 1;
            return;
        };
        if self.gives_way.is_cancelled() {
            // It was given back when another connection took it over.
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

    fn served(decision: Decision) -> Option<Permit> {
        match decision {
            Decision::Serve(permit) => Some(permit),
            Decision::TurnAway(_) | Decision::Drop => None,
        }
    }

    #[test]
    fn connections_are_bounded_per_host_and_in_total_and_permits_come_back() {
        let admission = Arc::new(Admission::new(3, 2));
        let admit = |text| {
            let permit = served(admission.admit(&addr(text)));
            permit.inspect(Permit::keep)
        };
        let first = admit("10.0.0.1:1").unwrap();
        let _second = admit("10.0.0.1:2").unwrap();
        assert!(admit("10.0.0.1:3").is_none());
        let _other = admit("[2001:db8::1]:1").unwrap();
        assert!(admit("10.0.0.2:1").is_none());
        drop(first);
        let _again = admit("10.0.0.1:3").unwrap();
        assert_eq!((admission.open(), admission.refused()), (3, 2));
    }

    /// Which of these permits are still valid.
    fn kept(permits: &[Permit]) -> Vec<usize> {
        let permits = permits.iter().enumerate();
        let kept = permits.filter(|(_, permit)| !permit.gives_way.is_cancelled());
        kept.map(|(at, _)| at).collect()
    }

    #[test]
    fn oldest_silent_connection_of_a_full_host_gives_way() {
        let admission = Arc::new(Admission::new(9, 3));
        let admit = || served(admission.admit(&addr("10.0.0.1:1"))).unwrap();
        let mut permits: Vec<_> = (0..3).map(|_| admit()).collect();
        permits[0].keep();
        permits.push(admit());
        assert_eq!(kept(&permits), [0, 2, 3]);
        permits.push(admit());
        assert_eq!(kept(&permits), [0, 3, 4]);
        assert_eq!((admission.open(), admission.gave_way()), (3, 2));
        // The permits of connections that gave way are not given back again.
        drop(permits);
        assert_eq!(admission.open(), 0);
        let counts = admission.counts();
        assert!(counts.hosts.is_empty() && counts.silent.is_empty());
    }

    #[test]
    fn host_with_most_silent_connections_gives_way_when_there_is_no_room() {
        let admission = Arc::new(Admission::new(6, 4));
        let admit = |text| served(admission.admit(&addr(text))).unwrap();
        let hosts = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2"];
        let hosts = hosts.into_iter().chain(["10.0.0.3:1"; 3]);
        let mut permits: Vec<_> = hosts.map(admit).collect();
        // This host has most connections, but most of them have asked.
        permits[3].keep();
        permits[4].keep();
        permits.push(admit("10.0.0.4:1"));
        assert_eq!(kept(&permits), [0, 2, 3, 4, 5, 6]);
        // No connection is silent any more.
        permits.iter().for_each(Permit::keep);
        assert!(served(admission.admit(&addr("10.0.0.5:1"))).is_none());
        assert_eq!(kept(&permits), [0, 2, 3, 4, 5, 6]);
        drop(permits);
        assert_eq!(admission.open(), 0);
    }

    #[test]
    fn turned_away_connections_are_bounded_too() {
        let admission = Arc::new(Admission::new(0, 0));
        let admit = || admission.admit(&addr("10.0.0.1:1"));
        let decisions: Vec<_> = (0..TURNED_AWAY_AT_ONCE).map(|_| admit()).collect();
        let turned_away = |decision: &Decision| matches!(decision, Decision::TurnAway(_));
        assert!(decisions.iter().all(turned_away));
        assert!(matches!(admit(), Decision::Drop));
        drop(decisions);
        assert!(turned_away(&admit()));
    }
}
