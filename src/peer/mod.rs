//! The peer: shares, downloads, and serves while it downloads.
//!
//! [`Peer`] is the handle that programs hold. Behind it, each content has a
//! task of its own that drives the pure machine in [`swarm`], each link has a
//! task that carries its messages, and one task accepts links. They decide
//! nothing: what is asked of whom, what is served, and who is trusted is
//! decided in [`swarm`].

mod accept;
mod admission;
mod builder;
mod config;
mod download;
mod driver;
mod handshake;
mod link;
mod serve;
mod share;
mod shared;
pub mod swarm;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use builder::PeerBuilder;
pub use config::PeerConfig;
pub use download::{Download, DownloadEvent, DownloadEvents, DownloadOptions};
pub use share::ShareSource;

use download::Status;
use driver::{Driver, INBOX_LEN};
use serve::{entry, serve};
use share::{HashError, manifest_of};
use shared::{Claim, Settled, Shared, SwarmHandle};
use swarm::Swarm;

use crate::content::{Content, ContentId, ContentName, NameError};
use crate::error::{DownloadError, ShareError};
use crate::protocol::{Addr, ContentKey, Found, OwnState, PeerId};
use crate::storage::{Storage, Stored};
use crate::tracker::TrackerError;
use crate::transport::Transport;

/// Up to so many bytes are hashed where they are: that takes less time than to
/// find a thread for it, and keeps small runs deterministic.
const INLINE_HASH_LEN: usize = 64 << 10;

/// A peer that runs in the background: shares contents, downloads others, and
/// serves all of them to other peers.
///
/// A cheap handle: clone it as you like. The peer stops when
/// [`shutdown`](Self::shutdown) is called, or when the last handle is dropped.
///
/// ```
/// use bt_lite::{MemoryNetwork, MemoryStorage, Peer, Tracker};
/// use bt_lite::peer::ShareSource;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new(1);
/// let tracker = Tracker::builder(network.endpoint("tracker"))
///     .bind("memory:tracker")
///     .await?;
///
/// let owner = Peer::builder(network.endpoint("owner"), MemoryStorage::new())
///     .tracker(tracker.local_addr())
///     .listen("memory:owner")
///     .start()
///     .await?;
/// owner
///     .share(ShareSource::bytes("greeting".parse()?, "hello, swarm"))
///     .await?;
///
/// let storage = MemoryStorage::new();
/// let peer = Peer::builder(network.endpoint("peer"), storage.clone())
///     .tracker(tracker.local_addr())
///     .start()
///     .await?;
/// let content = peer.download("greeting").await?;
/// assert_eq!(storage.bytes(&content.name).unwrap(), "hello, swarm");
///
/// peer.shutdown().await;
/// owner.shutdown().await;
/// tracker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Peer(Arc<Handle>);

/// Stops the peer when the last clone of its handle is gone.
struct Handle {
    shared: Arc<Shared>,
    /// Where the listener is.
    bound: Option<Addr>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Peer {
    /// Builds a peer that reaches others through `transport` and keeps what it
    /// downloads in `storage`.
    pub fn builder(transport: impl Transport, storage: impl Storage) -> PeerBuilder {
        PeerBuilder::new(Arc::new(transport), Arc::new(storage))
    }

    /// How other peers tell this one apart.
    pub fn id(&self) -> PeerId {
        self.shared().id
    }

    /// Where this peer listens, if it does.
    pub fn local_addr(&self) -> Option<&Addr> {
        self.0.bound.as_ref()
    }

    /// The contents that are complete here, and served.
    pub fn contents(&self) -> Vec<Content> {
        self.shared().contents()
    }

    /// Shares a content: hashes it, tells the trackers, and serves it from
    /// then on, until [`unshare`](Self::unshare). Sharing what is shared
    /// already changes nothing.
    ///
    /// A file must stay as it is while it is shared: it is read where it lies.
    /// As soon as a read shows that it has changed it is no longer shared. With
    /// [`PeerBuilder::share_stored`] it is shared after a restart as well.
    ///
    /// Any content name is taken, also one that others cannot give to a file
    /// ([`ContentName::check_file_name`]; a dotfile's, say): who downloads it by
    /// that name into files has to choose another one
    /// ([`DownloadOptions::name`]), and who downloads it by id gets it under
    /// the id. [`ShareSource::named`] offers a better one.
    ///
    /// Cancel safe: with the future dropped, the content is shared or it is
    /// not.
    ///
    /// # Errors
    /// [`ShareError`]; nothing is shared then, and it may be tried again.
    pub async fn share(&self, source: impl Into<ShareSource>) -> Result<Content, ShareError> {
        let share = self.share_source(source.into());
        let stop = &self.shared().stop;
        let shared = stop.run_until_cancelled(share).await;
        shared.unwrap_or(Err(ShareError::ShutDown))
    }

    async fn share_source(&self, source: ShareSource) -> Result<Content, ShareError> {
        let shared = self.shared();
        let (name, blob) = source.open(&*shared.storage).await?;
        let manifest = match manifest_of(&*blob).await {
            Ok(manifest) => manifest,
            Err(HashError::Storage(error)) => return Err(error.into()),
            Err(HashError::Manifest(source)) => return Err(ShareError::Content { name, source }),
        };
        let id = manifest.id();
        let content = Content::new(id, name.clone(), blob.length());
        let stored = Stored::new(name, manifest, blob);
        let (status, watched) = watch::channel(Status::sharing(content.clone()));
        let started = serve(
            shared,
            content.clone(),
            stored.clone(),
            (status.clone(), watched),
        );
        let stop = match started.await {
            Ok(stop) => stop,
            Err(Settled::There(content)) => return Ok(content),
            Err(_) => return Err(ShareError::Downloading { id }),
        };
        // Dropped half way, or refused: not shared.
        let undo = stop.drop_guard();
        let complete = entry(&content, &stored.listed_as, OwnState::Complete);
        shared.trackers.own(complete).await?;
        shared.remember(&stored).await?;
        undo.disarm();
        status.send_modify(|status| status.ended(Ok(content.clone())));
        Ok(content)
    }

    /// No longer serves a content that is complete here, and tells the
    /// trackers, nor after a restart; what is in the storage stays. `false` if
    /// there is none such.
    ///
    /// Cancel safe: the content is no longer served once the future was polled.
    pub async fn unshare(&self, id: &ContentId) -> bool {
        let Some(swarm) = self.shared().swarm(id) else {
            return false;
        };
        let mut status = swarm.status;
        let complete = status.borrow().complete().is_some();
        if complete {
            swarm.stop.cancel();
            // The driver drops it when the trackers were told.
            while status.changed().await.is_ok() {}
        }
        complete
    }

    /// Starts to download a content, by its name or its id, and returns at
    /// once: await the handle, or watch its events.
    ///
    /// Text of 64 hexadecimal digits is taken as an id, and any other as a
    /// name. When it is complete, the content is in the storage under its name,
    /// verified and durable, and is served to others from then on; chunks of it
    /// are served before.
    ///
    /// Its name is [`DownloadOptions::name`], or else the one that was asked for;
    /// a name that the storage does not take ([`Storage::check_name`]) is
    /// [`DownloadError::Storage`], before anything is fetched. A content that was
    /// asked for by its id gets a name that a tracker has for it; as anybody may
    /// have chosen that, it gets the 64 digits of its id instead where the
    /// storage does not take the name, or has something else under it.
    ///
    /// Trackers are told the name under which the content was asked for or
    /// found, and no other: the id where none was.
    ///
    /// Errors come out of the handle. If the very content is in the storage
    /// already under its name, that is a success; if something else is, it is
    /// [`DownloadError::TargetExists`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn download<K>(&self, key: K) -> Download
    where
        K: TryInto<ContentKey>,
        K::Error: Into<NameError>,
    {
        self.download_with(key, DownloadOptions::default())
    }

    /// [`download`](Self::download), with options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn download_with<K>(&self, key: K, options: DownloadOptions) -> Download
    where
        K: TryInto<ContentKey>,
        K::Error: Into<NameError>,
    {
        let shared = Arc::clone(self.shared());
        let key = key.try_into().map_err(Into::into);
        let (status, watched) = watch::channel(Status::default());
        let cancel = CancellationToken::new();
        let inbox = mpsc::channel(INBOX_LEN);
        let download = Download::new(watched, cancel.clone(), inbox.0.clone());
        self.shared().spawn(async move {
            let handle = SwarmHandle {
                inbox: inbox.0.clone(),
                status: status.subscribe(),
                stop: shared.stop.child_token(),
                cancel: cancel.clone(),
            };
            let started = start_download(&shared, key, options, &handle);
            let started = tokio::select! {
                biased;
                () = shared.stop.cancelled() => Err(DownloadError::ShutDown),
                () = cancel.cancelled() => Err(DownloadError::Cancelled),
                started = started => started,
            };
            match started {
                Ok(Started::Running(start)) => {
                    let Start {
                        claim,
                        swarm,
                        content,
                        listed_as,
                        is_name_wanted,
                        owners,
                    } = *start;
                    let names = (content, listed_as);
                    let mut driver = Driver::new(shared, claim, swarm, names, None, inbox, status);
                    driver.owners_found(owners);
                    if !is_name_wanted {
                        driver.name_is_optional();
                    }
                    driver.run(handle.stop, cancel).await;
                }
                Ok(Started::There(content)) => {
                    status.send_modify(|status| *status = Status::shared(content));
                }
                Err(error) => status.send_modify(|status| status.ended(Err(error))),
            }
        });
        download
    }

    /// Stops: tells the trackers (EXIT) and the other peers, ends every
    /// download, and returns when every task of this peer has ended. Bounded by
    /// [`PeerConfig::shutdown_timeout`] and the tracker client's; what is still
    /// under way then is ended at once. May be called again, and on clones.
    ///
    /// Cancel safe: once polled, the peer stops in any case.
    pub async fn shutdown(&self) {
        let shared = self.shared();
        shared.stop.cancel();
        shared.tasks.close();
        shared.trackers.shutdown().await;
        let timeout = shared.config.shutdown_timeout;
        if tokio::time::timeout(timeout, shared.tasks.wait())
            .await
            .is_err()
        {
            shared.kill.cancel();
            shared.tasks.wait().await;
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id())
            .field("addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

enum Started {
    /// The content is complete here already.
    There(Content),
    /// It is to be driven.
    Running(Box<Start>),
}

struct Start {
    claim: Claim,
    swarm: Swarm,
    content: Content,
    listed_as: ContentName,
    is_name_wanted: bool,
    owners: Vec<(Addr, bool)>,
}

/// Finds out what is asked for, and claims it.
async fn start_download(
    shared: &Arc<Shared>,
    key: Result<ContentKey, NameError>,
    options: DownloadOptions,
    handle: &SwarmHandle,
) -> Result<Started, DownloadError> {
    let key = key?;
    if let ContentKey::Id(id) = &key
        && let Some(taken) = shared.swarm(id)
        && let Some(started) = there_or_running(*id, taken.settled().await)
    {
        return started;
    }
    let asked = match &key {
        ContentKey::Name(name) => Some(name.clone()),
        ContentKey::Id(_) => None,
    };
    let Found {
        id,
        name: found,
        length,
        owners,
    } = find(shared, key, &options).await?;
    let names = Names {
        own: options.name,
        asked,
        found,
    };
    let mut owners: Vec<_> = owners.into_iter().map(|o| (o.addr, o.complete)).collect();
    owners.extend(options.owners.into_iter().map(|addr| (addr, false)));
    let claim = match shared.claim(id, handle).await {
        Ok(claim) => claim,
        Err(settled) => {
            let started = there_or_running(id, settled);
            return started.unwrap_or(Err(DownloadError::AlreadyRunning { id }));
        }
    };
    let content = Content::new(id, names.stored(&*shared.storage, id)?, length);
    if owners.is_empty() {
        return Err(DownloadError::NoOwners { id });
    }
    let mut config = shared.swarm_config();
    config.planner.strategy = options.strategy;
    let now = tokio::time::Instant::now().into_std();
    Ok(Started::Running(Box::new(Start {
        claim,
        swarm: Swarm::leecher(now, config, shared.id, id),
        content,
        is_name_wanted: names.is_wanted(),
        listed_as: names.listed(),
        owners,
    })))
}

/// What the content of a download may be called.
struct Names {
    /// The user's own name for it.
    own: Option<ContentName>,
    /// The name that it was asked for by, if it was not its id.
    asked: Option<ContentName>,
    /// Some name that a tracker has for it, whoever chose it; its id if there
    /// is none.
    found: ContentName,
}

impl Names {
    /// The name to store it under: what the user has said, or what the storage
    /// takes of what others have.
    fn stored(&self, storage: &dyn Storage, id: ContentId) -> Result<ContentName, DownloadError> {
        if let Some(wanted) = self.own.as_ref().or(self.asked.as_ref()) {
            return match storage.check_name(wanted) {
                Ok(()) => Ok(wanted.clone()),
                Err(source) => Err(DownloadError::Storage {
                    id,
                    chunk: None,
                    source,
                }),
            };
        }
        if self.found.as_str().parse::<ContentId>().is_ok() {
            // Perhaps that of another content.
            return Ok(id.into());
        }
        match storage.check_name(&self.found) {
            Ok(()) => Ok(self.found.clone()),
            Err(error) => {
                tracing::debug!(content = %id, %error, "stored by its id");
                Ok(id.into())
            }
        }
    }

    /// Whether the user has a part in the name that it is stored under.
    fn is_wanted(&self) -> bool {
        self.own.is_some() || self.asked.is_some()
    }

    /// The name to announce it under: one that trackers have, and never the
    /// user's own.
    fn listed(self) -> ContentName {
        self.asked.unwrap_or(self.found)
    }
}

/// What starting means for a content that has a driver; nothing if that ended.
fn there_or_running(id: ContentId, settled: Settled) -> Option<Result<Started, DownloadError>> {
    match settled {
        Settled::There(content) => Some(Ok(Started::There(content))),
        Settled::Running => Some(Err(DownloadError::AlreadyRunning { id })),
        Settled::Ended => None,
    }
}

/// Asks the trackers, unless the owners are known without them.
async fn find(
    shared: &Shared,
    key: ContentKey,
    options: &DownloadOptions,
) -> Result<Found, DownloadError> {
    let asked = shared
        .trackers
        .need(key.clone(), shared.config.owners_wanted)
        .await;
    match (asked, key) {
        (Ok(found), _) => Ok(found),
        (Err(_), ContentKey::Id(id)) if !options.owners.is_empty() => Ok(Found {
            id,
            // No text asks for it by this name, as digits of an id are taken as
            // the id.
            name: id.into(),
            length: 0,
            owners: Vec::new(),
        }),
        (Err(TrackerError::NotFound), key) => Err(DownloadError::NotFound { key }),
        (Err(TrackerError::Ambiguous { candidates }), ContentKey::Name(name)) => {
            Err(DownloadError::Ambiguous { name, candidates })
        }
        (Err(error), _) => Err(error.into()),
    }
}

impl TryFrom<&str> for ContentKey {
    type Error = NameError;

    /// An id, if it is one, or else a name.
    fn try_from(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl TryFrom<String> for ContentKey {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.as_str().try_into()
    }
}

impl From<Infallible> for NameError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
