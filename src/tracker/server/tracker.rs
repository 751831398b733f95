//! A running tracker: what a program holds of it, and the tasks that accept
//! connections and run expiry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, sleep_until, timeout};
use tracing::{Instrument, info, info_span, warn};

use super::admission::{Admission, Decision};
use super::config::{BindError, TrackerConfig};
use super::connection;
use super::revoking;
use super::service::{ACCEPT_PAUSES, Service, now};
use super::token_binding::TokenBinding;
#[cfg(feature = "bittorrent")]
use super::{
    service::ForTorrents,
    torrents::{self, Pace},
};
use crate::access::{AccessGate, AccessPolicy};
use crate::error::checked_addr;
use crate::io_error::IoError;
use crate::metrics::{self, Timer};
use crate::protocol::{Addr, AddrError};
#[cfg(feature = "redis")]
use crate::tracker::redis::{RedisConfig, RedisRegistry, StoreStats};
use crate::tracker::registry::{RegistryConfig, RegistryStats, Snapshot};
use crate::tracker::sharded::ShardedRegistry;
use crate::tracker::store::Store;
use crate::transport::{Listener, Transport, TransportError};

pub use super::service::SHUTDOWN_TIMEOUT;

/// A running tracker. Clones are handles to the same tracker. It stops with
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
    handle: Arc<TrackerHandle>,
}

/// Stops the tracker when it is dropped.
struct TrackerHandle {
    local_addr: Addr,
    service: Arc<Service>,
}

impl Drop for TrackerHandle {
    fn drop(&mut self) {
        self.service.stop.cancel();
    }
}

impl fmt::Debug for TrackerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerHandle")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// What a tracker holds, and what it has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct TrackerStats {
    /// Peers, contents, requests and refusals, including refused connections and
    /// malformed requests.
    pub registry: RegistryStats,
    /// How many connections are open.
    pub connections: u64,
    /// How many connections were accepted, not counting the refused ones.
    pub accepted: u64,
    /// How many of them gave way to other connections before they had sent a
    /// request.
    pub gave_way: u64,
    /// How many connections were refused because there was no room. They count among
    /// the refusals as [`busy`](crate::tracker::RefusalCounts::busy).
    pub refused: u64,
    /// How long the tracker has run.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub uptime: Duration,
    /// How it stands with the store that it shares with others, if it does.
    #[cfg(feature = "redis")]
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub store: Option<StoreStats>,
}

/// Sets up a [`Tracker`].
pub struct TrackerBuilder {
    transport: Box<dyn Transport>,
    config: TrackerConfig,
    key: Option<[u8; 32]>,
    epoch: Option<u64>,
    snapshot: Option<Snapshot>,
    access: Option<Box<dyn AccessPolicy>>,
    #[cfg(feature = "redis")]
    redis: Option<RedisConfig>,
}

impl fmt::Debug for TrackerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl TrackerBuilder {
    /// Sets the whole configuration.
    #[must_use]
    pub fn config(mut self, config: TrackerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the configuration of the registry.
    #[must_use]
    pub fn registry(mut self, registry: RegistryConfig) -> Self {
        self.config.registry = registry;
        self
    }

    /// Sets into how many shards the registry is split
    /// ([`TrackerConfig::shards`]).
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.config.shards = shards;
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

    /// Sets the secret key of the tokens, and the epoch. By default both are random
    /// bytes of the operating system; fixed ones make a simulation repeatable. A
    /// tracker that starts again must have another epoch.
    #[must_use]
    pub fn key_and_epoch(mut self, key: [u8; 32], epoch: u64) -> Self {
        self.key = Some(key);
        self.epoch = Some(epoch);
        self
    }

    /// Starts with the knowledge of an earlier tracker ([`Tracker::snapshot`]):
    /// peers that register again have the upload rate that they had, and contents
    /// are known by name before their owners are back. The epoch is new
    /// nevertheless, so peers notice the restart and register again.
    #[must_use]
    pub fn restore(mut self, snapshot: Snapshot) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Sets who may register, which contents each may own, and of which each is told
    /// ([`access`](crate::access)). By default everybody may do everything, and nothing is
    /// asked.
    #[must_use]
    pub fn access(mut self, policy: impl AccessPolicy) -> Self {
        self.access = Some(Box::new(policy));
        self
    }

    /// Keeps what the tracker remembers in a store that it shares with other trackers, so
    /// that a peer may ask any of them, and each of them may be stopped at any time. All
    /// trackers of a store need the same [`RegistryConfig`]. The key and the epoch are those
    /// of the store, and there is nothing to save or to restore.
    ///
    /// Quotas of a peer and of a host hold over all trackers, and so do those of the owners
    /// and the names of a content. Those of all peers, contents and ownerships go by how many
    /// there were up to a second ago. Of the contents that share a name, and of the torrents
    /// that the BitTorrent clients of a host announce, up to twice as many are taken. Hosts do
    /// not share the places for names: who comes first has them. What bounds the work of a
    /// tracker counts for each: with N of them there may be N times as many connections, in all
    /// and of a host, and N times [`TrackerConfig::max_announces_per_host`]. Rates of requests
    /// are not measured.
    ///
    /// BitTorrent clients that announce at one tracker are named by all. What an access policy
    /// takes back of them ends when they announce again, or with their lease.
    ///
    /// If the store is away, the tracker answers from what it last knew for
    /// [`RedisConfig::answers_without`], and takes no new announcements;
    /// [`TrackerStats::store`] tells.
    ///
    /// ```no_run
    /// use bt_lite::{MemoryNetwork, tracker::{RedisConfig, Tracker}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = [7; 32];
    /// let store = RedisConfig::new(["redis://10.0.0.5/", "redis://10.0.0.6/"], key);
    /// let network = MemoryNetwork::new(1);
    /// let tracker = Tracker::builder(network.endpoint("tracker")).redis(store);
    /// let tracker = tracker.bind("memory:tracker").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn redis(mut self, redis: RedisConfig) -> Self {
        self.redis = Some(redis);
        self
    }

    /// Listens at an address, and serves there until the tracker is stopped. Must
    /// be called inside a tokio runtime.
    ///
    /// Cancel safe: a dropped future leaves nothing behind.
    ///
    /// # Errors
    /// [`BindError`]: the address or the configuration is invalid, the transport
    /// cannot listen there, or the store cannot be used.
    pub async fn bind<A>(self, addr: A) -> Result<Tracker, BindError>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        let addr = checked_addr(addr)?;
        self.config.check()?;
        let authenticates = self.transport.identity().is_some();
        let memberships = self.transport.membership_changes();
        #[cfg(feature = "redis")]
        let (key, shared) = match &self.redis {
            None => (self.key, None),
            Some(redis) => {
                redis.check()?;
                let registry = self.config.registry.clone();
                let shared = RedisRegistry::connect(redis, registry).await?;
                (Some(redis.key), Some(Store::Redis(Box::new(shared))))
            }
        };
        #[cfg(not(feature = "redis"))]
        let (key, shared) = (self.key, None);
        let key = key.map_or_else(random, Ok)?;
        let epoch = self
            .epoch
            .map_or_else(|| random().map(u64::from_be_bytes), Ok)?;
        let listener = match self.transport.listen(&addr).await {
            Ok(listener) => listener,
            Err(source) => return Err(BindError::Listen { addr, source }),
        };
        let local_addr = listener.local_addr().clone();
        let now = now();
        let shards = self.config.shards;
        let lease = self.config.registry.lease();
        #[cfg(feature = "bittorrent")]
        let torrents = ForTorrents {
            pace: Pace::new(self.config.max_announces_per_host, now),
            trusted_proxies: self.config.trusted_proxies,
            lease: self.config.registry.announce_lease(),
        };
        let store = shared.unwrap_or_else(|| {
            let registry = ShardedRegistry::new(self.config.registry, key, epoch, shards, now);
            if let Some(snapshot) = &self.snapshot {
                registry.restore(now, snapshot);
            }
            Store::Memory(registry)
        });
        let admission = Admission::new(
            self.config.max_connections,
            self.config.max_connections_per_host,
        );
        let tokens = (TokenBinding::new(&key), lease);
        let access = self.access;
        let access = access.map(|policy| AccessGate::new(policy, self.config.access));
        let service = Service::new(
            store,
            admission,
            access.clone(),
            tokens,
            authenticates,
            #[cfg(feature = "bittorrent")]
            torrents,
        );
        let service = Arc::new(service);
        if let Some(gate) = access {
            service.tasks.spawn(revoking::watch(service.clone(), gate));
        }
        if let Some(changes) = memberships {
            let watch = revoking::watch_members(service.clone(), changes);
            service.tasks.spawn(watch);
        }
        service.connections.spawn(accept(service.clone(), listener));
        if service.registry.memory().is_some() {
            service.tasks.spawn(expire(service.clone()));
        }
        #[cfg(feature = "redis")]
        if service.registry.memory().is_none() {
            service.tasks.spawn(look_after(service.clone()));
        }
        info!(addr = %local_addr, "tracker started");
        Ok(Tracker {
            handle: Arc::new(TrackerHandle {
                local_addr,
                service,
            }),
        })
    }
}

impl Tracker {
    /// Sets up a tracker over a transport.
    pub fn builder(transport: impl Transport) -> TrackerBuilder {
        TrackerBuilder {
            transport: Box::new(transport),
            config: TrackerConfig::default(),
            key: None,
            epoch: None,
            snapshot: None,
            access: None,
            #[cfg(feature = "redis")]
            redis: None,
        }
    }

    /// The address to which peers connect.
    pub fn local_addr(&self) -> &Addr {
        &self.handle.local_addr
    }

    /// Serves BitTorrent clients over HTTP as well, at `/announce` and `/scrape`, from the
    /// same registry ([`ShardedRegistry::announce`]), until the tracker stops. Returns where
    /// it listens; the address of such a tracker in a torrent is `http://HOST:PORT/announce`.
    /// May be called several times, for several addresses.
    ///
    /// Connections count among those of the tracker. The address of a client is that of its
    /// connection, unless that is of a proxy which is
    /// [trusted](TrackerConfig::trusted_proxies). An [`access`](TrackerBuilder::access) policy
    /// is asked about the content [`ContentId::of_torrent_v1`](crate::ContentId::of_torrent_v1):
    /// an announce is to register, to own and to list. That is also how to serve none but a
    /// few torrents.
    ///
    /// This is in the clear and for everybody, also where the transport of the tracker lets in
    /// members alone: who knows the hash of a torrent is told the addresses of the members who
    /// own it, and is listed among them. A private tracker without a policy warns of it in the
    /// log. A policy that lists identities lets none of these clients in, as they have none.
    ///
    /// ```
    /// use bt_lite::{MemoryNetwork, tracker::Tracker};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = MemoryNetwork::new(1);
    /// let tracker = Tracker::builder(network.endpoint("tracker"));
    /// let tracker = tracker.bind("memory:tracker").await?;
    /// let addr = tracker.serve_http("127.0.0.1:0").await?;
    /// println!("http://{addr}/announce");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel safe: a dropped future leaves nothing behind.
    ///
    /// # Errors
    /// [`BindError`]: the address is invalid, or TCP cannot listen there.
    #[cfg(feature = "bittorrent")]
    pub async fn serve_http<A>(&self, addr: A) -> Result<Addr, BindError>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        torrents::serve_http(&self.handle.service, checked_addr(addr)?).await
    }

    /// Like [`serve_http`](Self::serve_http), over UDP: `udp://HOST:PORT`. A host with several
    /// addresses should be served at each of them, as clients take an answer from no other
    /// address than that which they have asked.
    ///
    /// Cancel safe: a dropped future leaves nothing behind.
    ///
    /// # Errors
    /// [`BindError`]: the address is invalid, UDP cannot be received there, or the operating
    /// system has no random bytes.
    #[cfg(feature = "bittorrent")]
    pub async fn serve_udp<A>(&self, addr: A) -> Result<Addr, BindError>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        torrents::serve_udp(&self.handle.service, checked_addr(addr)?, random()?).await
    }

    /// What the tracker holds, and what it has done since its start.
    pub fn stats(&self) -> TrackerStats {
        let service = &self.handle.service;
        TrackerStats {
            registry: service.registry_stats(),
            connections: service.admission.open(),
            accepted: service.admission.accepted(),
            gave_way: service.admission.gave_way(),
            refused: service.admission.refused(),
            uptime: now().saturating_duration_since(service.started),
            #[cfg(feature = "redis")]
            store: service.registry.store_stats(),
        }
    }

    /// The knowledge that is worth saving for [`TrackerBuilder::restore`]: upload
    /// rates by address, and contents with their names. It may be taken at any
    /// time, also after [`shutdown`](Self::shutdown). Costs a step for each peer
    /// and content, shard by shard.
    pub fn snapshot(&self) -> Snapshot {
        self.handle.service.registry.snapshot(now())
    }

    /// Asks again who may do what ([`TrackerBuilder::access`]), for a policy that cannot
    /// tell of changes itself. Within a second, what is denied now has ended.
    pub fn refresh_access(&self) {
        if let Some(gate) = &self.handle.service.access {
            gate.refresh();
        }
    }

    /// Ends the tracker without costing anybody a request: accepts no more connections,
    /// answers the requests that have arrived, tells each client that it shuts down, and waits
    /// until all clients have gone, for no longer than `patience`. Then it stops as by
    /// [`shutdown`](Self::shutdown). Returns how many connections were still open by then.
    ///
    /// A client that has another tracker of the same store ([`ClientConfig::one_store`]) goes
    /// there: at once if it waits for something, and otherwise within
    /// [`ClientConfig::return_spread`]. It asks there what was not answered here, and announces
    /// nothing anew. One that has no other tracker comes back within such a time, until this
    /// one or its successor listens again. BitTorrent clients are answered until the end over
    /// UDP, where there are no connections.
    ///
    /// [`ClientConfig::one_store`]: crate::tracker::ClientConfig::one_store
    /// [`ClientConfig::return_spread`]: crate::tracker::ClientConfig::return_spread
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bt_lite::{MemoryNetwork, tracker::Tracker};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = MemoryNetwork::new(1);
    /// let tracker = Tracker::builder(network.endpoint("tracker"));
    /// let tracker = tracker.bind("memory:tracker").await?;
    /// let left = tracker.drain(Duration::from_secs(20)).await;
    /// assert_eq!(left, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel safe: if the future is dropped after its first poll, the tracker takes no more
    /// clients, and goes on with those that are left until it is stopped.
    pub async fn drain(&self, patience: Duration) -> u64 {
        let service = &self.handle.service;
        service.draining.cancel();
        service.connections.close();
        info!(
            connections = service.admission.open(),
            ?patience,
            "tracker drains"
        );
        let gone = timeout(patience, service.connections.wait()).await;
        let left = match gone {
            Ok(()) => 0,
            Err(_) => service.admission.open(),
        };
        self.shutdown().await;
        info!(left, "tracker has drained");
        left
    }

    /// Stops the tracker: accepts no more connections, answers the requests that it
    /// has read, closes its connections, and returns once all its tasks have ended.
    /// That takes no longer than [`SHUTDOWN_TIMEOUT`]. Further calls wait for the
    /// same.
    ///
    /// Cancel safe: the tracker stops even if the future is dropped after its
    /// first poll.
    pub async fn shutdown(&self) {
        let service = &self.handle.service;
        service.stop.cancel();
        for tasks in [&service.connections, &service.tasks] {
            tasks.close();
            tasks.wait().await;
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], BindError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| BindError::Entropy {
        source: IoError::random(error),
    })?;
    Ok(bytes)
}

async fn accept(service: Arc<Service>, mut listener: Box<dyn Listener>) {
    let mut pause = ACCEPT_PAUSES.0;
    loop {
        let accepted = tokio::select! {
            () = service.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                pause = ACCEPT_PAUSES.0;
                let remote = &connection.remote;
                if let Err(error) = service.check(&connection) {
                    warn!(peer = %remote, %error, "a connection is not served");
                    continue;
                }
                // The span of everything that is logged about this connection.
                let span = info_span!("tracker_connection", peer = %remote);
                match service.admission.admit(remote) {
                    Decision::Serve(permit) => {
                        let serve = connection::serve(service.clone(), connection, permit);
                        service.connections.spawn(serve.instrument(span));
                    }
                    Decision::TurnAway(permit) => {
                        let stop = service.stop.clone();
                        let turn_away = connection::turn_away(stop, connection, permit);
                        service.connections.spawn(turn_away.instrument(span));
                    }
                    Decision::Drop => {}
                }
            }
            Err(TransportError::Closed) => {
                warn!("the listener of the tracker is closed");
                return;
            }
            Err(error) => {
                warn!(%error, ?pause, "cannot accept connections");
                tokio::select! {
                    () = service.draining.cancelled() => return,
                    () = sleep(pause) => {}
                }
                pause = (2 * pause).min(ACCEPT_PAUSES.1);
            }
        }
    }
}

/// Looks after the store that the tracker shares with others.
#[cfg(feature = "redis")]
async fn look_after(service: Arc<Service>) {
    service.registry.look_after(&service.stop).await;
}

/// How long work that a request has left may wait to be started.
const BACKLOG_DELAY: Duration = Duration::from_secs(1);

/// Forgets peers whose lease runs out, and does the work that requests have left,
/// in bounded steps between which other tasks get the registry.
async fn expire(service: Arc<Service>) {
    let Some(registry) = service.registry.memory() else {
        return;
    };
    loop {
        let next = registry.poll_timeout();
        let wait = async {
            match next {
                // All leases are equally long, so no peer that registers meanwhile
                // must be forgotten earlier.
                Some(next) => sleep_until(next.min(now() + BACKLOG_DELAY).into()).await,
                None => service.registered.notified().await,
            }
        };
        tokio::select! {
            () = service.stop.cancelled() => return,
            () = wait => {}
        }
        let timer = Timer::start();
        registry.handle_timeout(now());
        timer.record(metrics::TRACKER_EXPIRY);
        service.record_counts();
        tokio::task::yield_now().await;
    }
}
