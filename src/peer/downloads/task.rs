//! The task of a download: finds out what was asked for, and drives it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::content::{Content, ContentId, ContentName, Geometry};
use crate::error::DownloadError;
use crate::peer::contents::driver::Driver;
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::inbox::Inbox;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::status::ContentStatus;
use crate::peer::contents::table::{DriverClaim, DriverHandle, Settled};
use crate::peer::downloads::queue::{ActivePlace, QueueTicket};
use crate::peer::handles::download::{Download, DownloadOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::Swarm;
use crate::protocol::{Addr, ContentKey, Found};
use crate::storage::{Blob, Storage};
use crate::tracker::TrackerError;

/// A download that is about to start.
pub(in crate::peer) struct DownloadTask {
    shared: Arc<PeerShared>,
    handle: DriverHandle,
    inbox: Inbox,
    status: watch::Sender<ContentStatus>,
    ticket: QueueTicket,
}

/// What the download turned out to be.
enum Start {
    /// The content is complete here already.
    Complete(Content),
    /// The content has to be fetched.
    Fetch(Box<Fetch>),
}

/// What the driver of a download starts with.
struct Fetch {
    claim: DriverClaim,
    swarm: Swarm,
    listing: Listing,
    /// The name to store it under if something else has the first one.
    fallback: Option<ContentName>,
    owners: Vec<(Addr, bool)>,
    place: ActivePlace,
    source: Option<Arc<FolderSource>>,
}

/// Something of a folder, to be downloaded from the owners of the folder.
pub(in crate::peer) struct FolderPart {
    /// It goes to the storage of the folder, under its id.
    pub(in crate::peer) listing: Listing,
    /// Its owners, and whether they should have all of it.
    pub(in crate::peer) owners: Vec<(Addr, bool)>,
    pub(in crate::peer) source: Arc<FolderSource>,
}

impl DownloadTask {
    /// A task to run, and the user's handle of it.
    pub(in crate::peer) fn new(shared: Arc<PeerShared>) -> (Self, Download) {
        let (status, watched) = watch::channel(ContentStatus::default());
        let cancel = CancellationToken::new();
        let inbox = Inbox::new();
        let ticket = shared.downloads.enter();
        let (watch, sender) = (watched.clone(), inbox.sender());
        let download = Download::new(watch, cancel.clone(), sender, ticket.clone());
        let task = Self {
            handle: DriverHandle {
                cancel,
                ..shared.contents.handle(&inbox, watched)
            },
            shared,
            inbox,
            status,
            ticket,
        };
        (task, download)
    }

    /// Runs until the content is no longer served, or the download fails.
    pub(in crate::peer) async fn run(self, key: DownloadKey, options: DownloadOptions) {
        let started = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.cancel.cancelled() => Err(DownloadError::Cancelled),
            started = self.start(key, options) => started,
        };
        self.drive(started).await;
    }

    /// What is known of the download.
    pub(in crate::peer) fn status(&self) -> watch::Receiver<ContentStatus> {
        self.handle.status.clone()
    }

    /// Runs as [`run`](Self::run) does, for something of a folder. No tracker is
    /// asked.
    pub(in crate::peer) async fn run_part(mut self, part: FolderPart) {
        self.handle.role = part.listing.its_role();
        let started = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.cancel.cancelled() => Err(DownloadError::Cancelled),
            started = self.start_part(part) => started,
        };
        self.drive(started).await;
    }

    async fn drive(self, started: Result<Start, DownloadError>) {
        let Self {
            shared,
            handle,
            inbox,
            status,
            ticket,
        } = self;
        ticket.leave();
        match started {
            Ok(Start::Fetch(fetch)) => {
                let Fetch {
                    claim,
                    swarm,
                    listing,
                    fallback,
                    owners,
                    place,
                    source,
                } = *fetch;
                let driver = Driver::new(shared, claim, swarm, listing, inbox, status);
                let driver = driver.fallback(fallback).of_folder(source);
                let mut driver = driver.active(place);
                driver.owners_found(owners);
                // In a box: a download that waits for its turn needs no room for it.
                Box::pin(driver.run(handle.stop, handle.cancel)).await;
            }
            Ok(Start::Complete(content)) => {
                status.send_modify(|status| *status = ContentStatus::shared(content));
            }
            Err(error) => status.send_modify(|status| status.end(Err(error))),
        }
    }

    /// Finds the content and claims it.
    async fn start(
        &self,
        key: DownloadKey,
        options: DownloadOptions,
    ) -> Result<Start, DownloadError> {
        let shared = &self.shared;
        let key = key.check()?;
        if let ContentKey::Id(id) = &key {
            match shared.contents.settled(*id).await {
                Settled::Complete(content) => return Ok(Start::Complete(content)),
                Settled::Downloading => return Err(DownloadError::AlreadyRunning { id: *id }),
                Settled::Ended => {}
            }
        }
        let asked = match &key {
            ContentKey::Name(name) => Some(name.clone()),
            ContentKey::Id(_) => None,
        };
        let place = self.place().await?;
        let found = Box::pin(find(shared, key, &options)).await?;
        match shared.contents.claim(found.id, &self.handle).await {
            Ok(claim) => {
                let fetch = fetch(shared, claim, asked, found, options, place);
                let fetch = Box::pin(fetch).await?;
                Ok(Start::Fetch(Box::new(fetch)))
            }
            Err(Settled::Complete(content)) => Ok(Start::Complete(content)),
            Err(Settled::Downloading | Settled::Ended) => {
                Err(DownloadError::AlreadyRunning { id: found.id })
            }
        }
    }
}

impl DownloadTask {
    /// Claims something of a folder.
    async fn start_part(&self, part: FolderPart) -> Result<Start, DownloadError> {
        let shared = &self.shared;
        let FolderPart {
            listing,
            owners,
            source,
        } = part;
        let (id, length) = (listing.content.id, listing.content.length);
        let place = self.place().await?;
        let claim = match shared.contents.claim(id, &self.handle).await {
            Ok(claim) => claim,
            Err(Settled::Complete(content)) => return Ok(Start::Complete(content)),
            Err(Settled::Downloading | Settled::Ended) => {
                return Err(DownloadError::AlreadyRunning { id });
            }
        };
        if owners.is_empty() {
            return Err(DownloadError::NoOwners { id });
        }
        let now = tokio::time::Instant::now().into_std();
        let swarm = Swarm::leecher(now, shared.swarm_config(), shared.identity.id, id);
        let is_here = !is_short(length) && source.storage.has_partial(&id).await;
        Ok(Start::Fetch(Box::new(Fetch {
            claim,
            swarm: match is_here {
                true => swarm,
                false => swarm.expecting(length),
            },
            listing,
            fallback: None,
            owners,
            place,
            source: Some(source),
        })))
    }

    /// Waits until this download may be active.
    async fn place(&self) -> Result<ActivePlace, DownloadError> {
        if let Some(place) = self.ticket.try_begin() {
            return Ok(place);
        }
        self.status.send_modify(|status| status.set_queued(true));
        let place = self.ticket.begin().await;
        self.status.send_modify(|status| status.set_queued(false));
        place.ok_or(DownloadError::ShutDown)
    }
}

/// Prepares the download of a content that was found and claimed. `asked` is
/// the name that it was asked for by.
async fn fetch(
    shared: &PeerShared,
    claim: DriverClaim,
    asked: Option<ContentName>,
    found: Found,
    options: DownloadOptions,
    place: ActivePlace,
) -> Result<Fetch, DownloadError> {
    let id = found.id;
    let names = Names {
        own: options.name,
        asked,
        found: found.name,
    };
    let listed = found.owners.into_iter().map(|o| (o.addr, o.complete));
    let known = options.owners.into_iter().map(|addr| (addr, false));
    let owners: Vec<_> = listed.chain(known).collect();
    let content = Content::new(id, names.stored(&*shared.storage, id)?, found.length);
    if owners.is_empty() {
        return Err(DownloadError::NoOwners { id });
    }
    let mut config = shared.swarm_config();
    config.planner.strategy = options.strategy;
    let fallback = names.fallback(id);
    // To look costs more than a single chunk that is fetched in vain.
    let is_here = !is_short(found.length) && {
        let targets = [Some(&content.name), fallback.as_ref()];
        is_here(&*shared.storage, &content, targets.into_iter().flatten()).await
    };
    let now = tokio::time::Instant::now().into_std();
    let swarm = Swarm::leecher(now, config, shared.identity.id, id);
    Ok(Fetch {
        claim,
        swarm: match is_here {
            true => swarm,
            false => swarm.expecting(found.length),
        },
        fallback,
        listing: Listing::new(content, names.listed()),
        owners,
        place,
        source: None,
    })
}

/// Whether a content of this length has a single chunk.
fn is_short(length: u64) -> bool {
    Geometry::of(length).is_ok_and(|geometry| geometry.chunks() == 1)
}

/// Whether the storage may have a content already, or a part of it: as an interrupted
/// download, or under one of these names.
async fn is_here(
    storage: &dyn Storage,
    content: &Content,
    names: impl Iterator<Item = &ContentName>,
) -> bool {
    for name in names {
        let same = |blob: Arc<dyn Blob>| blob.length() == content.length;
        if storage.open(name).await.is_ok_and(same) {
            return true;
        }
    }
    storage.has_partial(&content.id).await
}

/// The names that a download may get.
struct Names {
    /// The name that the user wants it stored under.
    own: Option<ContentName>,
    /// The name that it was asked for by, if it was not asked for by id.
    asked: Option<ContentName>,
    /// A name that a tracker has for it, which anybody may have chosen; its id
    /// if there is none.
    found: ContentName,
}

impl Names {
    /// The name that the user wants, if any.
    fn wanted(&self) -> Option<&ContentName> {
        self.own.as_ref().or(self.asked.as_ref())
    }

    /// The name to store it under: the one that the user wants, or one that
    /// others have and that the storage accepts.
    fn stored(&self, storage: &dyn Storage, id: ContentId) -> Result<ContentName, DownloadError> {
        if let Some(wanted) = self.wanted() {
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
            // It may be the id of another content.
            return Ok(id.into());
        }
        match storage.check_name(&self.found) {
            Ok(()) => Ok(self.found.clone()),
            Err(error) => {
                tracing::debug!(content = %id, %error, "stored under its id");
                Ok(id.into())
            }
        }
    }

    /// The name to store it under if something else has the first one. Only a
    /// name that the user does not want is replaced.
    fn fallback(&self, id: ContentId) -> Option<ContentName> {
        self.wanted().is_none().then(|| id.into())
    }

    /// The name to announce it by: one that trackers know, never the user's
    /// own.
    fn listed(self) -> ContentName {
        self.asked.unwrap_or(self.found)
    }
}

/// Asks the trackers, unless the owners are known without them.
async fn find(
    shared: &PeerShared,
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
            // Nobody can ask for it by this name, as it reads as an id.
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
