//! One registry for several cores: both halves of it in shards, each behind a
//! lock of its own.
//!
//! A heartbeat takes the lock of the sessions of one host; OWN that one and the
//! one of the content's shard; NEED the one and then the other. Each is held
//! for one pure step, and never across an await. What is counted over all
//! shards (peers, contents, ownerships) stands beside them, so that quotas stay exact.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::registry::{
    Built, Catalog, Counted, Desk, Half, RegistryConfig, RegistryStats, Sessions, Snapshot, Terms,
    Total, gather,
};
use crate::protocol::{Addr, Refusal, TrackerReply, TrackerRequest};

/// The most shards that a registry can have.
pub const MAX_SHARDS: u32 = 256;

/// A [`Registry`](super::registry::Registry) that several threads use at once:
/// the same requests, replies, quotas and tokens. The order in which they come
/// is the only thing that a caller may see of the others.
///
/// A step of one thread delays others only if they need the same shard. What
/// spans several shards (a name that several contents bear, the contents of a
/// peer that leaves) is done shard by shard; meanwhile others may see some of
/// it done.
///
/// ```
/// use std::time::Instant;
/// use bt_lite::protocol::{TrackerReply, TrackerRequest};
/// use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
///
/// let now = Instant::now();
/// let registry = ShardedRegistry::new(RegistryConfig::default(), [7; 32], 1, 16, now);
/// let request = TrackerRequest::Register { listen: None, token: None };
/// std::thread::scope(|scope| {
///     for source in ["10.0.0.1:4000", "10.0.0.2:4000"] {
///         scope.spawn(|| registry.handle(now, &source.parse().expect("an address"), &request));
///     }
/// });
/// assert_eq!(registry.stats().peers, 2);
/// ```
#[derive(Debug)]
pub struct ShardedRegistry {
    terms: Terms,
    sessions: Locked<Sessions>,
    catalogs: Locked<Catalog>,
}

#[derive(Debug)]
struct Locked<T> {
    shards: Box<[Mutex<T>]>,
    total: [AtomicU32; 2],
    #[cfg(any(test, feature = "testing"))]
    yielding: bool,
}

impl<T> Locked<T> {
    fn new(shards: impl Iterator<Item = T>) -> Self {
        Self {
            shards: shards.map(Mutex::new).collect(),
            total: Default::default(),
            #[cfg(any(test, feature = "testing"))]
            yielding: false,
        }
    }

    fn lock(&self, shard: u32) -> MutexGuard<'_, T> {
        #[cfg(any(test, feature = "testing"))]
        if self.yielding {
            std::thread::yield_now();
        }
        let shard = &self.shards[shard as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        (0..self.shards.len() as u32).map(|shard| self.lock(shard))
    }

    fn total(&self) -> u32 {
        (&self.total).count(Counted::Entries)
    }
}

impl<T> Half<T> for &Locked<T> {
    type Guard<'a>
        = MutexGuard<'a, T>
    where
        Self: 'a;
    type Total<'a>
        = &'a [AtomicU32; 2]
    where
        Self: 'a;

    fn at(&mut self, shard: u32) -> (MutexGuard<'_, T>, &[AtomicU32; 2]) {
        (self.lock(shard), &self.total)
    }

    fn shards(&self) -> u32 {
        self.shards.len() as u32
    }
}

impl Total for &[AtomicU32; 2] {
    fn add(&mut self, what: Counted, max: u32) -> bool {
        let more = |count: u32| (count < max).then(|| count + 1);
        self[what as usize]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn sub(&mut self, what: Counted) {
        self[what as usize].fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self, what: Counted) -> u32 {
        self[what as usize].load(Ordering::Relaxed)
    }
}

impl ShardedRegistry {
    /// An empty registry; key and epoch are those of
    /// [`Registry::new`](super::registry::Registry::new), and no later call may
    /// come from before `now`. The number of shards is rounded up to a power of
    /// two, and is at most [`MAX_SHARDS`]: several times the number of threads,
    /// so that two of them rarely want the same one. An empty registry takes
    /// about 135 KiB in one shard, and 5 KiB for each of 64 or more.
    pub fn new(
        config: RegistryConfig,
        key: [u8; 32],
        epoch: u64,
        shards: u32,
        now: Instant,
    ) -> Self {
        let bits = shards.clamp(1, MAX_SHARDS).next_power_of_two().ilog2();
        let terms = Terms::new(config, &key, epoch);
        let numbers = || 0..1_u32 << bits;
        Self {
            sessions: Locked::new(
                numbers().map(|shard| terms.sessions(&key, (shard, bits), Some(now))),
            ),
            catalogs: Locked::new(numbers().map(|shard| Catalog::new(&key, shard, bits))),
            terms,
        }
    }

    fn desk(&self) -> Desk<'_, &Locked<Sessions>, &Locked<Catalog>> {
        Desk {
            terms: &self.terms,
            sessions: &self.sessions,
            catalogs: &self.catalogs,
        }
    }

    /// Answers one request, as
    /// [`Registry::handle`](super::registry::Registry::handle) does.
    pub fn handle(&self, now: Instant, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        let mut reply = Built::default();
        // A refusal is also the reply.
        let _refusal = self.desk().handle(now, source, request, &mut reply);
        reply.reply()
    }

    /// Answers one request into a buffer, as
    /// [`Registry::handle_into`](super::registry::Registry::handle_into) does.
    ///
    /// # Errors
    /// The refusal, which is in the buffer as well.
    pub fn handle_into(
        &self,
        now: Instant,
        source: &Addr,
        request: &TrackerRequest,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.desk().handle(now, source, request, reply)
    }

    /// Forgets peers whose lease has run out by `now`, and goes on with what
    /// requests have left to do, in that shard in which something has been due
    /// for longest: a bounded number of steps. Call it again
    /// while [`poll_timeout`](Self::poll_timeout) lies in the past.
    pub fn handle_timeout(&self, now: Instant) {
        let due = (0..).zip(self.sessions.all());
        let due = due.filter_map(|(shard, sessions)| Some((sessions.next_turn()?, shard)));
        if let Some((turn, shard)) = due.min()
            && turn <= now
        {
            self.desk().expire(now, shard);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next; in the past
    /// while it has more to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let turns = self.sessions.all().filter_map(|one| one.next_turn());
        turns.min()
    }

    /// What there is, and what was asked and refused so far, added up shard by
    /// shard.
    pub fn stats(&self) -> RegistryStats {
        let counts = (self.sessions.total(), self.catalogs.total());
        gather(self.sessions.all(), self.catalogs.all(), counts)
    }

    /// What is worth keeping, as
    /// [`Registry::snapshot`](super::registry::Registry::snapshot) says.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.desk().snapshot(now)
    }

    /// Recalls what an earlier tracker knew, as
    /// [`Registry::restore`](super::registry::Registry::restore) does.
    pub fn restore(&self, now: Instant, snapshot: &Snapshot) {
        self.desk().restore(now, snapshot);
    }

    /// Lets other threads come between before each lock is taken, as they rarely
    /// would: for tests that are to find what must not come apart.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn yielding(mut self) -> Self {
        (self.sessions.yielding, self.catalogs.yielding) = (true, true);
        self
    }

    /// Checks that all parts agree with each other.
    ///
    /// # Panics
    /// When they do not.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_invariants(&self) {
        let sessions: Vec<_> = self.sessions.all().collect();
        let catalogs: Vec<_> = self.catalogs.all().collect();
        super::registry::check(
            &sessions.iter().map(|one| &**one).collect::<Vec<_>>(),
            &catalogs.iter().map(|one| &**one).collect::<Vec<_>>(),
            (self.sessions.total(), self.catalogs.total()),
        );
    }
}
