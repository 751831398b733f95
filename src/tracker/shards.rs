//! One half of a registry in shards, each with its own lock, and counts over all
//! shards.

use std::sync::PoisonError;

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// All shards of one half.
#[derive(Debug)]
pub(super) struct Shards<T> {
    shards: Box<[Mutex<T>]>,
    #[cfg(any(test, feature = "testing"))]
    yielding: bool,
}

impl<T> Shards<T> {
    pub(super) fn new(shards: impl Iterator<Item = T>) -> Self {
        Self {
            shards: shards.map(Mutex::new).collect(),
            #[cfg(any(test, feature = "testing"))]
            yielding: false,
        }
    }

    pub(super) fn lock(&self, shard: u32) -> MutexGuard<'_, T> {
        #[cfg(any(test, feature = "testing"))]
        if self.yielding {
            std::thread::yield_now();
        }
        let shard = &self.shards[shard as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks one shard after the other.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        (0..self.shards.len() as u32).map(|shard| self.lock(shard))
    }

    /// Lets other threads run before each lock is taken.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn set_yielding(&mut self) {
        self.yielding = true;
    }
}

/// How many entries all shards have together. It is exact, so that a quota is
/// never exceeded.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU32);

impl Count {
    /// Adds one, unless there are `max`. Returns whether there was room.
    pub(super) fn add(&self, max: u32) -> bool {
        let more = |count: u32| (count < max).then(|| count + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    pub(super) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
