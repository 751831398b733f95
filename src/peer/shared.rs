//! What all tasks of one peer share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use super::admission::Admission;
use super::config::PeerConfig;
use super::drivers::Drivers;
use super::swarm::{LinkId, SwarmConfig};
use crate::content::{Content, ContentId};
use crate::protocol::{Addr, Hello, LinkCookie, PeerId};
use crate::storage::{Storage, StorageError, Stored};
use crate::tracker::TrackerClient;
use crate::transport::Transport;

/// The shared state of a peer.
pub(super) struct PeerShared {
    pub(super) id: PeerId,
    pub(super) config: PeerConfig,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) trackers: TrackerClient,
    /// Where others reach this peer, if it listens.
    pub(super) addr: Option<Addr>,
    /// Gives out the places of connections.
    pub(super) admission: Arc<Admission>,
    pub(super) drivers: Arc<Drivers>,
    /// Every task of this peer.
    pub(super) tasks: TaskTracker,
    /// Ends every task in order.
    pub(super) stop: CancellationToken,
    /// Ends every task at once.
    pub(super) kill: CancellationToken,
    /// The span of all that this peer logs.
    pub(super) span: Span,
    /// Whether the storage records complete contents for the next start.
    share_stored: bool,
    next_link: AtomicU64,
    /// The key of the link cookies.
    secret: [u8; 32],
    next_cookie: AtomicU64,
    next_seed: AtomicU64,
}

/// What is drawn at random when a peer starts.
pub(super) struct PeerRandomness {
    pub(super) id: PeerId,
    /// Seeds the choices of swarms.
    pub(super) seed: u64,
    /// The key of the link cookies.
    pub(super) secret: [u8; 32],
}

impl PeerShared {
    pub(super) fn new(
        drawn: PeerRandomness,
        config: PeerConfig,
        transport: Arc<dyn Transport>,
        storage: Arc<dyn Storage>,
        trackers: TrackerClient,
        addr: Option<Addr>,
        (share_stored, span): (bool, Span),
    ) -> Self {
        let PeerRandomness { id, seed, secret } = drawn;
        Self {
            id,
            admission: Arc::new(Admission::new(&config)),
            config,
            transport,
            storage,
            trackers,
            addr,
            drivers: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            span,
            share_stored,
            next_link: AtomicU64::new(0),
            secret,
            next_cookie: AtomicU64::new(0),
            next_seed: AtomicU64::new(seed),
        }
    }

    /// Starts a task that ends with the peer at the latest, and logs in `span`.
    pub(super) fn spawn(&self, span: Span, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        let task = async move {
            kill.run_until_cancelled_owned(task).await;
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// What this side says first on a link. Each link has another cookie.
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

    /// The configuration of one more swarm, with its own seed.
    pub(super) fn swarm_config(&self) -> SwarmConfig {
        let mut config = self.config.swarm.clone();
        config.planner.seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
        config
    }

    /// Has the storage record a complete content for the next start, if the
    /// user wants that.
    pub(super) async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        match self.share_stored {
            true => self.storage.remember(stored).await,
            false => Ok(()),
        }
    }

    /// Drops that record, unless another content has taken the name since.
    pub(super) async fn forget(&self, content: &Content) {
        let taken = |other: &Content| other.name == content.name && other.id != content.id;
        if !self.share_stored || self.drivers.contents().iter().any(taken) {
            return;
        }
        if let Err(error) = self.storage.forget(&content.name).await {
            tracing::warn!(%error, "the storage did not drop its record of the content");
        }
    }
}
