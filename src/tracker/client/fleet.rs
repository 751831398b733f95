//! The trackers that one session may use: one, or several that share a store. A session
//! sticks to one of them, and moves on to the next when that fails.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::Addr;

/// Trackers that know the same.
#[derive(Debug)]
pub(super) struct Fleet {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    trackers: Vec<Addr>,
    /// The one that is used, modulo their number.
    at: usize,
}

impl Fleet {
    /// These trackers, which must be some. Where to begin follows from the seed, so that
    /// clients spread over them.
    pub(super) fn new(trackers: Vec<Addr>, seed: u64) -> Self {
        // Its high bits: clients may be numbered.
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let inner = Mutex::new(Inner {
            at: mixed as usize,
            trackers,
        });
        Self { inner }
    }

    pub(super) fn of_one(tracker: Addr) -> Self {
        Self::new(vec![tracker], 0)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().trackers.len()
    }

    /// All of them, in the order in which they were added.
    pub(super) fn all(&self) -> Vec<Addr> {
        self.lock().trackers.clone()
    }

    /// The one to use.
    pub(super) fn current(&self) -> Option<Addr> {
        let inner = self.lock();
        let at = inner.at.checked_rem(inner.trackers.len())?;
        inner.trackers.get(at).cloned()
    }

    /// Uses the next one, unless another one than this is used already.
    pub(super) fn move_on_from(&self, tracker: &Addr) {
        if self.current().as_ref() == Some(tracker) {
            let mut inner = self.lock();
            inner.at = inner.at.wrapping_add(1);
        }
    }

    /// Adds one, unless it is there.
    pub(super) fn add(&self, tracker: Addr) -> bool {
        let trackers = &mut self.lock().trackers;
        let is_new = !trackers.contains(&tracker);
        if is_new {
            trackers.push(tracker);
        }
        is_new
    }

    /// Removes one, unless it is the last. A session that uses it goes on until it ends.
    pub(super) fn remove(&self, tracker: &Addr) {
        let trackers = &mut self.lock().trackers;
        if trackers.len() > 1 {
            trackers.retain(|other| other != tracker);
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(names: &[&str]) -> Vec<Addr> {
        let addrs = names.iter().map(|name| name.parse().unwrap());
        addrs.collect()
    }

    #[test]
    fn seeds_spread_over_all_trackers() {
        let trackers = addrs(&["memory:a", "memory:b", "memory:c"]);
        let mut used = [0; 3];
        for seed in 0..300 {
            let fleet = Fleet::new(trackers.clone(), seed);
            let current = fleet.current().unwrap();
            used[trackers.iter().position(|addr| *addr == current).unwrap()] += 1;
        }
        assert!(used.iter().all(|used| (70..130).contains(used)), "{used:?}");
    }

    #[test]
    fn each_failure_moves_on_once() {
        let fleet = Fleet::new(addrs(&["memory:a", "memory:b"]), 0);
        let first = fleet.current().unwrap();
        fleet.move_on_from(&first);
        let second = fleet.current().unwrap();
        assert_ne!(first, second);
        fleet.move_on_from(&first);
        assert_eq!(fleet.current().unwrap(), second);
        fleet.move_on_from(&second);
        assert_eq!(fleet.current().unwrap(), first);
    }

    #[test]
    fn last_tracker_stays() {
        let fleet = Fleet::of_one("memory:a".parse().unwrap());
        assert!(fleet.add("memory:b".parse().unwrap()));
        assert!(!fleet.add("memory:b".parse().unwrap()));
        fleet.remove(&"memory:a".parse().unwrap());
        fleet.remove(&"memory:b".parse().unwrap());
        assert_eq!(fleet.all(), addrs(&["memory:b"]));
    }
}
