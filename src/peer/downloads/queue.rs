//! Downloads that wait until others have ended, in the order in which they were
//! asked for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// How many could not begin, and wait for something else than a place.
    aside: usize,
}

impl Waiting {
    /// One more, behind all others.
    fn enter(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.numbers.insert(number);
        number
    }
}

/// Where a download stands. Cheap to clone.
#[derive(Clone)]
pub(in crate::peer) struct QueueTicket {
    queue: Arc<DownloadQueue>,
    /// Another one when it has [stepped aside](Self::step_aside).
    number: Arc<AtomicU64>,
}

/// A download that waits for something else than a place: it lets others begin, and
/// counts as one that waits. Dropping it ends that.
pub(in crate::peer) struct Aside<'a>(&'a QueueTicket);

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
        let number = self.waiting().enter();
        QueueTicket {
            queue: Arc::clone(self),
            number: Arc::new(AtomicU64::new(number)),
        }
    }

    /// How many downloads are active, and how many wait.
    pub(in crate::peer) fn counts(&self) -> (usize, usize) {
        let active = self.max_active - self.places.available_permits();
        let waiting = self.waiting();
        (active, waiting.numbers.len() + waiting.aside)
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
        self.queue.waiting().numbers.remove(&self.number());
    }

    /// Gives way to others although it has not ended: what it needs is not there.
    pub(in crate::peer) fn step_aside(&self) -> Aside<'_> {
        self.queue.waiting().aside += 1;
        Aside(self)
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// How many downloads come before this one; `None` if it does not wait.
    /// O(downloads that wait).
    pub(in crate::peer) fn position(&self) -> Option<usize> {
        let waiting = self.queue.waiting();
        let numbers = &waiting.numbers;
        let number = self.number();
        let waits = numbers.contains(&number);
        waits.then(|| numbers.range(..number).count())
    }
}

impl Aside<'_> {
    /// Waits for a place again, behind all others.
    pub(in crate::peer) fn return_to_line(self) {
        let number = self.0.queue.waiting().enter();
        self.0.number.store(number, Ordering::Relaxed);
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.queue.waiting().aside -= 1;
    }
}
