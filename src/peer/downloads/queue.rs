//! Downloads that wait until others have ended, in the order in which they were
//! asked for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The queue of one peer.
pub(in crate::peer) struct DownloadQueue {
    max_active: usize,
    /// First come, first served.
    places: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    numbers: BTreeSet<u64>,
    next: u64,
}

/// Where a download stands. Cheap to clone.
#[derive(Clone)]
pub(in crate::peer) struct QueueTicket {
    queue: Arc<DownloadQueue>,
    number: u64,
}

/// The place of an active download, given back when it is dropped.
pub(in crate::peer) type ActivePlace = OwnedSemaphorePermit;

impl DownloadQueue {
    /// A queue that lets this many downloads be active.
    pub(in crate::peer) fn new(places: usize) -> Self {
        let places = places.min(Semaphore::MAX_PERMITS);
        Self {
            max_active: places,
            places: Arc::new(Semaphore::new(places)),
            waiting: Mutex::default(),
        }
    }

    /// A new download, behind all others.
    pub(in crate::peer) fn enter(self: &Arc<Self>) -> QueueTicket {
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.numbers.insert(number);
        drop(waiting);
        QueueTicket {
            queue: Arc::clone(self),
            number,
        }
    }

    /// How many downloads are active, and how many wait.
    pub(in crate::peer) fn counts(&self) -> (usize, usize) {
        let active = self.max_active - self.places.available_permits();
        (active, self.waiting().numbers.len())
    }

    /// Ignores poison: no change under this lock is left half done.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueTicket {
    /// A place at once, if one is free and nobody waits for it.
    pub(in crate::peer) fn try_begin(&self) -> Option<ActivePlace> {
        let place = Arc::clone(&self.queue.places).try_acquire_owned().ok()?;
        self.leave();
        Some(place)
    }

    /// Waits for a place.
    ///
    /// Cancel safe, but loses its place in the queue.
    pub(in crate::peer) async fn begin(&self) -> Option<ActivePlace> {
        let place = Arc::clone(&self.queue.places).acquire_owned().await.ok()?;
        self.leave();
        Some(place)
    }

    /// Waits no more.
    pub(in crate::peer) fn leave(&self) {
        self.queue.waiting().numbers.remove(&self.number);
    }

    /// How many downloads come before this one; `None` if it does not wait.
    /// O(downloads that wait).
    pub(in crate::peer) fn position(&self) -> Option<usize> {
        let waiting = self.queue.waiting();
        let numbers = &waiting.numbers;
        let waits = numbers.contains(&self.number);
        waits.then(|| numbers.range(..self.number).count())
    }
}
