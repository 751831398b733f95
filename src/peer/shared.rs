//! What all tasks of one peer share.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::PeerConfig;
use super::admission::Admission;
use super::download::Status;
use super::driver::Input;
use super::swarm::{LinkId, SwarmConfig};
use crate::content::{Content, ContentId};
use crate::protocol::{Addr, Hello, LinkCookie, PeerId};
use crate::storage::{Storage, StorageError, Stored};
use crate::tracker::TrackerClient;
use crate::transport::Transport;

pub(super) struct Shared {
    pub(super) id: PeerId,
    pub(super) config: PeerConfig,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) trackers: TrackerClient,
    /// Whether what is complete here is kept in mind for the next start.
    pub(super) share_stored: bool,
    /// Where others reach this peer, if it listens.
    pub(super) addr: Option<Addr>,
    /// One place per connection.
    pub(super) admission: Arc<Admission>,
    /// Every task of this peer.
    pub(super) tasks: TaskTracker,
    /// Everything is to end in order, and then: at once.
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
    next_link: AtomicU64,
    /// Makes the secrets of links, which nobody can guess.
    secret: [u8; 32],
    next_cookie: AtomicU64,
    seed: AtomicU64,
    swarms: Mutex<BTreeMap<ContentId, SwarmHandle>>,
}

/// What is drawn when a peer starts.
pub(super) struct Drawn {
    pub(super) id: PeerId,
    /// Seeds the choices of swarms.
    pub(super) seed: u64,
    /// Makes the secrets of links.
    pub(super) secret: [u8; 32],
}

/// How the rest of the peer reaches the driver of a content.
#[derive(Clone)]
pub(super) struct SwarmHandle {
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) status: watch::Receiver<Status>,
    /// Ends the driver.
    pub(super) stop: CancellationToken,
    /// Ends it as long as the content is not complete.
    pub(super) cancel: CancellationToken,
}

/// What a content that has a driver turned out to be.
pub(super) enum Settled {
    /// It is complete here.
    There(Content),
    /// It is being downloaded.
    Running,
    /// Its driver has ended, and given the content back.
    Ended,
}

impl SwarmHandle {
    /// Waits as long as the driver is about to end, or the content is about
    /// to be shared.
    pub(super) async fn settled(mut self) -> Settled {
        loop {
            if self.inbox.is_closed() {
                return Settled::Ended;
            }
            if !self.stop.is_cancelled() {
                let status = self.status.borrow_and_update();
                match status.complete() {
                    Some(content) => return Settled::There(content.clone()),
                    None if status.is_sharing() || self.cancel.is_cancelled() => {}
                    None => return Settled::Running,
                }
            }
            tokio::select! {
                () = self.inbox.closed() => {}
                Ok(()) = self.status.changed() => {}
            }
        }
    }
}

/// The right to drive a content; given back when dropped.
pub(super) struct Claim {
    shared: Arc<Shared>,
    id: ContentId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.shared.swarms).remove(&self.id);
    }
}

impl Shared {
    pub(super) fn new(
        drawn: Drawn,
        config: PeerConfig,
        transport: Arc<dyn Transport>,
        storage: Arc<dyn Storage>,
        trackers: TrackerClient,
        addr: Option<Addr>,
    ) -> Self {
        let Drawn { id, seed, secret } = drawn;
        Self {
            id,
            admission: Arc::new(Admission::new(&config)),
            config,
            transport,
            storage,
            trackers,
            share_stored: false,
            addr,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            next_link: AtomicU64::new(0),
            secret,
            next_cookie: AtomicU64::new(0),
            seed: AtomicU64::new(seed),
            swarms: Mutex::default(),
        }
    }

    /// Starts a task that ends with the peer at the latest.
    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            kill.run_until_cancelled_owned(task).await;
        });
    }

    /// What this side says first on a link; the secret in it is another one
    /// each time.
    pub(super) fn hello(&self, content: ContentId) -> Hello {
        let number = self.next_cookie.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.secret, &number.to_le_bytes());
        let mut cookie = [0; 16];
        cookie.copy_from_slice(&hash.as_bytes()[..16]);
        Hello {
            content,
            peer: self.id,
            listen: self.addr.clone(),
            cookie: LinkCookie(cookie),
        }
    }

    pub(super) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// The configuration of one more swarm, with a seed of its own.
    pub(super) fn swarm_config(&self) -> SwarmConfig {
        let mut config = self.config.swarm.clone();
        config.planner.seed = self.seed.fetch_add(1, Ordering::Relaxed);
        config
    }

    pub(super) fn swarm(&self, id: &ContentId) -> Option<SwarmHandle> {
        lock(&self.swarms).get(id).cloned()
    }

    /// Registers the driver of a content, unless it has one. Waits for one
    /// that is about to end.
    ///
    /// Cancel safe: nothing is claimed unless a claim is returned.
    pub(super) async fn claim(
        self: &Arc<Self>,
        id: ContentId,
        handle: &SwarmHandle,
    ) -> Result<Claim, Settled> {
        loop {
            let taken = match lock(&self.swarms).entry(id) {
                Entry::Occupied(taken) => taken.get().clone(),
                Entry::Vacant(free) => {
                    free.insert(handle.clone());
                    let shared = Arc::clone(self);
                    return Ok(Claim { shared, id });
                }
            };
            match taken.settled().await {
                Settled::Ended => {}
                settled => return Err(settled),
            }
        }
    }

    /// Keeps a complete content in mind for the next start, if that is wanted.
    pub(super) async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        if !self.share_stored {
            return Ok(());
        }
        self.storage.remember(stored).await
    }

    /// Takes that back, unless another content has the name meanwhile.
    pub(super) async fn forget(&self, content: &Content) {
        let taken = |other: &Content| other.name == content.name && other.id != content.id;
        if !self.share_stored || self.contents().iter().any(taken) {
            return;
        }
        if let Err(error) = self.storage.forget(&content.name).await {
            tracing::warn!(content = %content.id, %error, "not forgotten");
        }
    }

    /// The contents that are complete here.
    pub(super) fn contents(&self) -> Vec<Content> {
        let swarms = lock(&self.swarms);
        let contents = swarms.values().filter_map(|swarm| {
            let status = swarm.status.borrow();
            status.complete().cloned()
        });
        contents.collect()
    }
}

/// Nothing is left half done under these locks, so a panic elsewhere does not
/// spoil what they guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
