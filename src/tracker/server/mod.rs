//! Serves a registry over a transport.
//!
//! One task accepts, one forgets the silent, and one per connection answers.
//! They share a registry in shards, whose locks are held for one pure step at a
//! time and never across an await: a step takes less than a microsecond, which
//! a channel to a task of its own would not undercut.
//! What a client does to its connection delays that connection only.

mod admission;
mod config;
mod connection;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::registry::{RegistryConfig, RegistryStats, Snapshot};
use super::sharded::ShardedRegistry;
use crate::protocol::limits::{MAX_HEARTBEAT, MAX_OWNERS};
use crate::protocol::{Addr, Refusal, TrackerReply, TrackerRequest};
use crate::transport::{Listener, Transport, TransportError};
use admission::Admission;

pub use config::{BindError, TrackerConfig};

/// How long a stopping tracker lets its connections write what they still owe.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How many bytes a reply has for the most part, without owners and for each.
const REPLY_LEN: usize = 96;
const OWNER_LEN: usize = 16;

/// The first and the longest pause after an error of accepting, so that a
/// lasting one (no more file descriptors, say) costs next to nothing.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A running tracker. Clones are handles to the same one; it stops with
/// [`shutdown`](Self::shutdown), or once the last handle is dropped.
///
/// ```
/// use bt_lite::{MemoryNetwork, tracker::Tracker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new(1);
/// let tracker = Tracker::builder(network.endpoint("tracker"))
///     .max_connections(100)
///     .bind("memory:tracker")
///     .await?;
/// assert_eq!(tracker.stats().registry.peers, 0);
/// tracker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Tracker {
    handle: Arc<Handle>,
}

/// Stops the tracker when it is dropped.
struct Handle {
    local_addr: Addr,
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// What all tasks of a tracker share.
struct Shared {
    registry: ShardedRegistry,
    admission: Arc<Admission>,
    malformed: AtomicU64,
    stopping: AtomicU64,
    /// Someone registered, so that a lease may end some day.
    registered: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    /// Answers a request, with the head of a frame.
    fn answer(&self, source: &Addr, request: &TrackerRequest) -> Vec<u8> {
        let owners = match request {
            TrackerRequest::Need { max_owners, .. } => (*max_owners).min(MAX_OWNERS),
            _ => 0,
        };
        let mut reply = Vec::with_capacity(REPLY_LEN + OWNER_LEN * usize::from(owners));
        let outcome = self
            .registry
            .handle_into(now(), source, request, &mut reply);
        match outcome {
            Ok(()) if matches!(request, TrackerRequest::Register { .. }) => {
                self.registered.notify_one();
            }
            Ok(()) => {}
            Err(refusal) => debug!(%source, %refusal, "announce refused"),
        }
        reply
    }

    /// A refusal that the registry does not come to.
    fn refuse(&self, refusal: Refusal) -> TrackerReply {
        match refusal {
            Refusal::Malformed => self.malformed.fetch_add(1, Ordering::Relaxed),
            _ => self.stopping.fetch_add(1, Ordering::Relaxed),
        };
        TrackerReply::Refused(refusal)
    }
}

/// What a tracker holds and has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrackerStats {
    /// Peers, contents, requests, and all refusals, those of connections and
    /// unreadable requests included.
    pub registry: RegistryStats,
    /// How many connections are open.
    pub connections: u64,
    /// How many connections were accepted since the start, the refused ones
    /// not counted.
    pub accepted: u64,
    /// How many of these gave way to others before anything was asked on them.
    pub gave_way: u64,
}

/// Sets up a [`Tracker`].
pub struct TrackerBuilder {
    transport: Box<dyn Transport>,
    config: TrackerConfig,
    key: Option<[u8; 32]>,
    epoch: Option<u64>,
    snapshot: Option<Snapshot>,
}

impl fmt::Debug for TrackerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl TrackerBuilder {
    /// Sets all figures at once.
    #[must_use]
    pub fn config(mut self, config: TrackerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the figures of the registry.
    #[must_use]
    pub fn registry(mut self, registry: RegistryConfig) -> Self {
        self.config.registry = registry;
        self
    }

    /// Sets how many connections may be open at a time.
    #[must_use]
    pub fn max_connections(mut self, max: usize) -> Self {
        self.config.max_connections = max;
        self
    }

    /// Sets how many connections one host may have open at a time.
    #[must_use]
    pub fn max_connections_per_host(mut self, max: usize) -> Self {
        self.config.max_connections_per_host = max;
        self
    }

    /// Sets the secret that tokens are made with, and the epoch. Both come
    /// from the operating system otherwise; fixed ones make a simulation
    /// repeatable. A tracker that starts again must have another epoch.
    #[must_use]
    pub fn key_and_epoch(mut self, key: [u8; 32], epoch: u64) -> Self {
        self.key = Some(key);
        self.epoch = Some(epoch);
        self
    }

    /// Begins with what an earlier tracker knew ([`Tracker::snapshot`]): peers
    /// that come back have the upload rate that they had, and contents are
    /// known by name before their owners are back. The epoch is a new one all
    /// the same, so that peers come back by themselves.
    #[must_use]
    pub fn restore(mut self, snapshot: Snapshot) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Listens at an address, and serves there until the tracker is stopped.
    /// Must be called inside a tokio runtime.
    ///
    /// Cancel safe: a dropped future leaves nothing behind.
    ///
    /// # Errors
    /// [`BindError`]: for a configuration or an address that cannot be, before
    /// anything was tried, or when the transport cannot listen there.
    pub async fn bind<A>(self, addr: A) -> Result<Tracker, BindError>
    where
        A: TryInto<Addr>,
        BindError: From<A::Error>,
    {
        let addr = addr.try_into()?;
        let heartbeat = self.config.registry.heartbeat;
        if !(Duration::from_millis(1)..=MAX_HEARTBEAT).contains(&heartbeat) {
            return Err(BindError::Heartbeat { heartbeat });
        }
        let key = self.key.map_or_else(random, Ok)?;
        let epoch = self
            .epoch
            .map_or_else(|| random().map(u64::from_be_bytes), Ok)?;
        let listener = self.transport.listen(&addr).await?;
        let local_addr = listener.local_addr().clone();
        let now = now();
        let shards = self.config.shards;
        let registry = ShardedRegistry::new(self.config.registry, key, epoch, shards, now);
        if let Some(snapshot) = &self.snapshot {
            registry.restore(now, snapshot);
        }
        let shared = Arc::new(Shared {
            registry,
            admission: Arc::new(Admission::new(
                self.config.max_connections,
                self.config.max_connections_per_host,
            )),
            malformed: AtomicU64::new(0),
            stopping: AtomicU64::new(0),
            registered: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(accept(shared.clone(), listener));
        shared.tasks.spawn(expire(shared.clone()));
        info!(addr = %local_addr, "tracker started");
        Ok(Tracker {
            handle: Arc::new(Handle { local_addr, shared }),
        })
    }
}

impl Tracker {
    /// A tracker to be, over a transport.
    pub fn builder(transport: impl Transport) -> TrackerBuilder {
        TrackerBuilder {
            transport: Box::new(transport),
            config: TrackerConfig::default(),
            key: None,
            epoch: None,
            snapshot: None,
        }
    }

    /// Where it listens, as peers connect to it.
    pub fn local_addr(&self) -> &Addr {
        &self.handle.local_addr
    }

    /// What it holds and has done.
    pub fn stats(&self) -> TrackerStats {
        let shared = &self.handle.shared;
        let mut registry = shared.registry.stats();
        registry.refusals.malformed += shared.malformed.load(Ordering::Relaxed);
        registry.refusals.shutting_down += shared.stopping.load(Ordering::Relaxed);
        registry.refusals.busy += shared.admission.refused();
        TrackerStats {
            registry,
            connections: shared.admission.open(),
            accepted: shared.admission.accepted(),
            gave_way: shared.admission.gave_way(),
        }
    }

    /// What is worth keeping for [`TrackerBuilder::restore`]: upload rates by
    /// address, and contents with their names. It may be taken at any time,
    /// after [`shutdown`](Self::shutdown) too. Costs a step for each peer and
    /// content, shard by shard.
    pub fn snapshot(&self) -> Snapshot {
        self.handle.shared.registry.snapshot(now())
    }

    /// Stops: accepts no more, answers what it has read, closes its
    /// connections, and returns once all its tasks have ended, which takes no
    /// longer than [`SHUTDOWN_TIMEOUT`]. Further calls wait for the same.
    ///
    /// Cancel safe: the tracker stops even if the future is dropped after its
    /// first poll.
    pub async fn shutdown(&self) {
        let shared = &self.handle.shared;
        shared.stop.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn random<const N: usize>() -> Result<[u8; N], BindError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| BindError::Entropy {
        detail: error.to_string(),
    })?;
    Ok(bytes)
}

async fn accept(shared: Arc<Shared>, mut listener: Box<dyn Listener>) {
    let mut pause = ACCEPT_PAUSES.0;
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                pause = ACCEPT_PAUSES.0;
                match shared.admission.admit(&connection.remote) {
                    Ok(place) => {
                        let serve = connection::serve(shared.clone(), connection, place);
                        shared.tasks.spawn(serve);
                    }
                    Err(Some(place)) => {
                        let stop = shared.stop.clone();
                        shared
                            .tasks
                            .spawn(connection::turn_away(stop, connection, place));
                    }
                    Err(None) => {}
                }
            }
            Err(TransportError::Closed) => {
                warn!("the tracker's listener is closed");
                return;
            }
            Err(error) => {
                warn!(%error, ?pause, "cannot accept");
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = sleep(pause) => {}
                }
                pause = (2 * pause).min(ACCEPT_PAUSES.1);
            }
        }
    }
}

/// How long what a request has left to do may wait to be begun.
const LEFT_TO_DO: Duration = Duration::from_secs(1);

/// Forgets those whose lease runs out, and does what requests have left to do,
/// in bounded steps between which others get the registry.
async fn expire(shared: Arc<Shared>) {
    loop {
        let next = shared.registry.poll_timeout();
        let wait = async {
            match next {
                // All leases are equally long: nobody who registers meanwhile
                // is to be forgotten earlier.
                Some(next) => sleep_until(next.min(now() + LEFT_TO_DO).into()).await,
                None => shared.registered.notified().await,
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = wait => {}
        }
        shared.registry.handle_timeout(now());
        tokio::task::yield_now().await;
    }
}
