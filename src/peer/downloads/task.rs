//! The task of a download: finds out what was asked for, and drives it.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::BoxFuture;
#[cfg(feature = "bittorrent")]
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

#[cfg(feature = "bittorrent")]
use crate::content::Manifest;
use crate::content::{Content, ContentId, ContentName, Geometry};
use crate::error::{DownloadError, ReaderError};
use crate::peer::contents::complete_bytes::CompleteBytes;
use crate::peer::contents::driver::{DownloadTurn, Driver, TargetOptions};
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::inbox::{DriverInput, Inbox};
use crate::peer::contents::listing::Listing;
use crate::peer::contents::outside::Outside;
use crate::peer::contents::readers::{ReaderBoard, ReaderDesk};
use crate::peer::contents::reading::readers;
use crate::peer::contents::role::Role;
use crate::peer::contents::status::{ContentStatus, StatusSender};
use crate::peer::contents::table::{DriverClaim, DriverHandle, Settled};
use crate::peer::downloads::asked::{Asked, Earlier};
use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::discard::discard_partial;
use crate::peer::downloads::holders::{Hold, Holders};
use crate::peer::downloads::local::{
    ATTEMPTS, WantedNames, complete_here, copy_stored, find_stored, recall, remembered,
    storage_error,
};
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::pause_record::{forget, record, record_at_shutdown};
use crate::peer::downloads::paused_form::PausedRecord;
#[cfg(feature = "bittorrent")]
use crate::peer::downloads::priority::Priority;
use crate::peer::downloads::queue::{ActivePlace, QueueTicket};
use crate::peer::downloads::running::{Lead, Registered, Running};
use crate::peer::downloads::search::{Missed, Search, find};
use crate::peer::downloads::settings::Settings;
use crate::peer::events::topic::Topic;
use crate::peer::handles::download::{Download, DownloadOptions, IfTaken};
use crate::peer::handles::key::DownloadKey;
#[cfg(feature = "bittorrent")]
use crate::peer::limits::ContentLimits;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::{Progress, StallReason, Swarm};
use crate::protocol::{Addr, ContentKey, Found};
use crate::storage::{PausedDownload, Remembered, Storage, StorageError, open_file};

/// A download that is about to start.
pub(in crate::peer) struct DownloadTask {
    shared: Arc<PeerShared>,
    handle: DriverHandle,
    inbox: Inbox,
    status: StatusSender,
    readers: ReaderDesk,
    ticket: QueueTicket,
    control: Arc<DownloadControl>,
    /// `None` if it has joined another download.
    registered: Option<Registered>,
    topic: Arc<Topic>,
    /// The directory that the content goes to, if it is another one.
    directory: OnceLock<PathBuf>,
    /// The download that it has joined from the start.
    joined: Option<Arc<Running>>,
}

/// What the download turned out to be.
enum Start {
    /// The content is complete here already.
    Complete(Content),
    /// It is being downloaded already.
    Join(Join),
    /// The content has to be fetched.
    Fetch(Box<Fetch>),
}

/// Where a content was found.
enum Lookup {
    /// At the trackers, or it is known who has it. The download may be active.
    Found(Found, ActivePlace),
    /// Here.
    Stored(Start),
}

/// A download that another one joins.
struct Join {
    running: DriverHandle,
    hold: Hold,
    /// What the other one is about, if that may not be found yet.
    topic: Option<Arc<Topic>>,
    wanted: WantedNames,
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
    /// The network that it is found and linked over, if that is another one.
    outside: Option<Arc<dyn Outside>>,
    /// Where it goes, if that is not the storage of the peer or the folder.
    target: Option<TargetOptions>,
}

/// A content that another network finds and links.
#[cfg(feature = "bittorrent")]
pub(in crate::peer) struct OutsidePart {
    pub(in crate::peer) listing: Listing,
    pub(in crate::peer) manifest: Arc<Manifest>,
    pub(in crate::peer) outside: Arc<dyn Outside>,
    /// Those who may have it, as far as is known at the start.
    pub(in crate::peer) owners: Vec<(Addr, bool)>,
    pub(in crate::peer) target: TargetOptions,
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
        let topic = Arc::new(Topic::new(shared.events.subscribers()));
        let watchers = Arc::clone(topic.watchers());
        let status = StatusSender::new(ContentStatus::default()).watched_by(watchers);
        let watched = status.subscribe();
        let (holders, hold) = Holders::new();
        let inbox = Inbox::new();
        let ticket = shared.downloads.enter();
        let (watch, sender) = (watched.clone(), inbox.sender());
        let mut handle = shared.contents.handle(&inbox, watched, holders);
        let control = DownloadControl::new(ticket.clone());
        handle.control = Some(Arc::clone(&control));
        let (readers, stop) = (Arc::clone(&handle.readers), shared.tasks.stop.clone());
        let ended = status.ended();
        handle.watchers = Some(Arc::clone(topic.watchers()));
        let running = &shared.running;
        let topics = (Arc::clone(&topic), ended.clone());
        let registered = running.add(handle.clone(), Arc::clone(&control), topics);
        let watch = (watch, ended);
        let control_here = (Arc::clone(&control), Arc::clone(&topic));
        let download = Download::new(watch, hold, sender, control_here, readers, stop);
        let task = Self {
            registered: Some(registered),
            control,
            readers: ReaderDesk::new(Arc::clone(&handle.readers)),
            handle,
            shared,
            inbox,
            status,
            ticket,
            topic,
            directory: OnceLock::new(),
            joined: None,
        };
        (task, download)
    }

    /// What the user asks for. The peer lists the download from now on, unless it joins one
    /// that is listed.
    pub(in crate::peer) fn asked_for(&mut self, key: &DownloadKey, options: &DownloadOptions) {
        let key = key.clone().check().ok();
        if let (Some(registered), Some(key)) = (&self.registered, &key) {
            self.topic.asked(key);
            // Nobody else sets it.
            let _ = registered.key.set(key.clone());
        }
        self.note_options(options);
        let is_valid =
            options.wrong.is_none() && check_owners(&self.shared, &options.owners).is_ok();
        if let Some(key) = key.filter(|_| is_valid)
            && let Some((other, part)) = self.other(&key, options)
        {
            self.joins(&other, part, options);
        }
    }

    /// The download that this one joins from the start. Others join this one if there is
    /// none.
    fn other(&self, key: &ContentKey, options: &DownloadOptions) -> Option<(Arc<Running>, Hold)> {
        let registered = self.registered.as_ref()?;
        let lead = match key {
            // What is complete here is not waited for.
            ContentKey::Id(id) if self.shared.contents.names(id).is_some() => return None,
            ContentKey::Id(id) => Lead::Content(*id),
            ContentKey::Name(name) => Lead::Asked {
                name: name.clone(),
                stored_as: options.name.as_ref().unwrap_or(name).clone(),
                directory: options.directory.clone(),
            },
        };
        match options.is_private() {
            true => self.shared.running.leader(&lead),
            false => registered.lead(lead),
        }
    }

    /// Joins another download, which does from now on what is wanted of this one.
    fn joins(&mut self, other: &Arc<Running>, part: Hold, options: &DownloadOptions) {
        self.ticket.leave();
        self.control
            .change(|settings| settings.limits = options.limits.or(settings.limits));
        self.control.join(&other.control);
        self.handle.holders.joins(part);
        if let Some(id) = other.id() {
            self.topic.known(id);
        }
        let mut seen = other.handle.status.borrow().clone();
        if seen.outcome().is_none() {
            seen.rename(options.name.as_ref());
            self.status.set_quietly(seen);
        }
        // The other one is listed.
        self.registered = None;
        self.joined = Some(Arc::clone(other));
    }

    fn note_options(&self, options: &DownloadOptions) {
        self.control
            .change(|settings| settings.add_owners(options.owners.clone()));
        self.ticket.set_priority(options.priority);
        if let Some(registered) = &self.registered {
            self.note_asked(registered, options);
        }
        if let Some(path) = &options.directory {
            // Nobody else sets it.
            let _ = self.directory.set(path.clone());
        }
        self.control.set_seeds(options.seed);
        self.control.set_pause(options.paused);
        if options.paused.is_some() {
            self.ticket.leave();
            let running = self.registered.as_ref();
            // Otherwise it is told when that is recorded.
            if running.is_some_and(|running| running.asked.get().is_none() || running.has_record())
            {
                self.show_paused(true);
            }
        }
    }

    /// Notes what a record of the download needs, and what is shown of it.
    fn note_asked(&self, registered: &Registered, options: &DownloadOptions) {
        let asked = registered.key.get().and_then(|key| match key {
            ContentKey::Name(name) => Some(name),
            ContentKey::Id(_) => None,
        });
        if let Some(name) = options.name.as_ref().or(asked) {
            self.topic.named(name);
            // Nobody else sets it.
            let _ = registered.name.set(name.clone());
        }
        if options.is_private() || !self.shared.share_stored {
            return;
        }
        // Nobody else sets it.
        let _ = registered.asked.set(Box::new(Asked {
            name: options.name.clone(),
            directory: options.directory.clone(),
            overwrites: options.if_taken == IfTaken::Overwrite,
            existing: options.existing.clone(),
            strategy: options.strategy,
            limits: options.limits,
        }));
    }

    fn show_paused(&self, paused: bool) {
        let changed = self
            .status
            .send_if_modified(|status| status.set_paused(paused));
        if changed {
            self.topic.paused(&self.shared.events, paused);
        }
    }

    /// The storage has this record of the download. The peer lists it from now on.
    pub(in crate::peer) fn restored(
        &self,
        record: &PausedRecord,
        options: &DownloadOptions,
        paused: &PausedDownload,
    ) {
        if let Some(registered) = &self.registered {
            // Nobody else sets them.
            let _ = registered.key.set(record.key.clone());
            if let Some(id) = record.id {
                let _ = registered.found.set(id);
            }
            if let Some(listed_as) = &record.listed_as {
                let _ = registered.listed_as.set(listed_as.clone());
            }
            registered.restored(paused);
            // Whoever leads already was asked for before.
            if let Some(id) = record.id {
                registered.lead(Lead::Content(id));
            }
            if let ContentKey::Name(name) = &record.key {
                registered.lead(Lead::Asked {
                    name: name.clone(),
                    stored_as: options.name.as_ref().unwrap_or(name).clone(),
                    directory: options.directory.clone(),
                });
            }
        }
        self.ticket.take_place(record.place);
        if let Some(known) = &record.known {
            let mut progress = Progress::default();
            let length = known.content.length;
            progress.length = Some(length);
            progress.chunks = Geometry::of(length).ok().map(|geometry| geometry.chunks());
            progress.verified_bytes = known.verified_bytes;
            progress.verified_chunks = known.verified_chunks;
            let content = known.content.clone();
            self.status
                .send_modify(|status| status.remember(content, progress));
        }
        if let Some(patience) = record.patience {
            self.control
                .change(|settings| settings.patience = Some(patience));
        }
        self.note_options(options);
    }

    /// Has the storage record the download, if it is paused or was.
    async fn record(&self, pause: Option<PauseOptions>) {
        if let Some(registered) = &self.registered {
            record(&self.shared, registered, pause).await;
        }
    }

    /// Has the storage drop its record.
    async fn forget(&self) {
        if let Some(registered) = &self.registered {
            forget(&self.shared, registered).await;
        }
    }

    /// Runs until the content is no longer served, or the download fails.
    pub(in crate::peer) async fn run(mut self, key: DownloadKey, options: DownloadOptions) {
        self.handle.is_passing = options.passing.is_some();
        self.handle.is_private = options.is_private();
        if let Some(other) = self.joined.take() {
            return Box::pin(self.run_joined(&other, key, options)).await;
        }
        let started = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            started = self.start(key, options) => started,
        };
        self.drive(started).await;
    }

    /// What the driver of the download reads.
    #[cfg(feature = "bittorrent")]
    pub(in crate::peer) fn inbox(&self) -> mpsc::Sender<DriverInput> {
        self.inbox.sender()
    }

    /// Sets whether the content is served when it is complete, and how fast it may be.
    #[cfg(feature = "bittorrent")]
    pub(in crate::peer) fn set_outside(
        &self,
        id: ContentId,
        seed: bool,
        limits: Option<ContentLimits>,
    ) {
        self.control.set_seeds(seed);
        if let Some(limits) = limits {
            self.control
                .change(|settings| settings.limits = Some(limits));
            self.shared.limit_content(id, limits);
        }
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
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            started = self.start_part(part) => started,
        };
        self.drive(started).await;
    }

    /// The user asks for a content that another network finds and links. The peer lists it
    /// from now on.
    #[cfg(feature = "bittorrent")]
    pub(in crate::peer) fn asked_outside(&mut self, content: &Content, priority: Priority) {
        self.handle.role = Role::Torrent;
        let key = ContentKey::Id(content.id);
        self.topic.asked(&key);
        self.topic.named(&content.name);
        self.ticket.set_priority(priority);
        if let Some(registered) = &self.registered {
            // Nobody else sets them.
            let _ = registered.key.set(key);
            let _ = registered.name.set(content.name.clone());
        }
    }

    /// Runs as [`run`](Self::run) does, for such a content.
    #[cfg(feature = "bittorrent")]
    pub(in crate::peer) async fn run_outside(self, part: OutsidePart) {
        let started = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            started = self.start_outside(part) => started,
        };
        self.drive(started).await;
    }

    async fn drive(self, started: Result<Start, DownloadError>) {
        self.ticket.leave();
        match started {
            // Its driver goes on with the record.
            Ok(Start::Fetch(fetch)) => self.fetch(*fetch).await,
            Ok(Start::Join(join)) => {
                self.forget().await;
                Box::pin(self.join(join)).await;
            }
            Ok(Start::Complete(content)) => {
                self.forget().await;
                Box::pin(self.is_complete(content)).await;
            }
            Err(error) => {
                let error = Box::pin(self.discard(error)).await;
                match (&error, &self.registered) {
                    (DownloadError::ShutDown, Some(registered)) => {
                        record_at_shutdown(&self.shared, registered).await;
                    }
                    _ => self.forget().await,
                }
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: DownloadError) {
        self.topic.failed(&self.shared.events, &error);
        self.readers.end(error.clone());
        self.status.send_modify(|status| status.end(Err(error)));
    }

    /// Runs as one that has joined another download from the start.
    async fn run_joined(self, other: &Running, key: DownloadKey, options: DownloadOptions) {
        let running = other.handle.clone();
        let wanted = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            wanted = async { self.wanted(&key.check()?, &options).await } => wanted,
        };
        match wanted {
            Ok(wanted) => {
                let topic = Arc::clone(&other.topic);
                self.follow(running, wanted, Some(topic)).await;
            }
            Err(DownloadError::Cancelled) => self.left(running).await,
            Err(error) => {
                self.handle.holders.parts();
                self.fail(error);
            }
        }
    }

    /// Deletes what earlier downloads have left, if nobody wants it. Returns why the
    /// download ends.
    async fn discard(&self, error: DownloadError) -> DownloadError {
        let cancelled = matches!(error, DownloadError::Cancelled);
        let id = self.registered.as_ref().and_then(|running| running.id());
        let Some(id) = id.filter(|_| cancelled && self.handle.holders.discards()) else {
            return error;
        };
        let deleted = async {
            match self.shared.contents.claim(id, &self.handle).await {
                Ok(_claim) => {
                    let storage = match self.directory.get() {
                        Some(path) => self.shared.storage.in_directory(path).await,
                        None => Ok(Arc::clone(&self.shared.storage)),
                    };
                    let failed = |source| storage_error(id, source);
                    discard_partial(&*storage.map_err(failed)?, id).await
                }
                // It is complete, or others download it.
                Err(_) => Ok(()),
            }
        };
        match self.shared.tasks.stop.run_until_cancelled(deleted).await {
            Some(Ok(())) => error,
            Some(Err(failed)) => failed,
            None => DownloadError::ShutDown,
        }
    }

    async fn is_complete(&self, content: Content) {
        let id = content.id;
        self.topic.complete(&self.shared.events, &content);
        let board = readers(&self.shared, &id).await;
        let uploads = self.shared.contents.watch_uploads(&id);
        let complete = ContentStatus::shared(content.clone(), uploads);
        self.status.send_modify(|status| *status = complete);
        match board {
            Ok(board) => self.readers.moved(board),
            Err(ReaderError::NotHere { .. } | ReaderError::Passing { .. }) => {
                self.read_stored(&content).await;
            }
            Err(error) => self.readers.end(gone(error)),
        }
    }

    /// Readers get a content that is in the storage, and is not shared.
    async fn read_stored(&self, content: &Content) {
        match self.shared.storage.open(&content.name).await {
            Ok(blob) => {
                let board = ReaderBoard::complete(CompleteBytes::new(content.id, blob));
                self.readers.moved(Arc::new(board));
            }
            Err(error) => self.readers.end(storage_error(content.id, error)),
        }
    }

    /// Drives the content, until it falls asleep.
    fn fetch(self, fetch: Fetch) -> BoxFuture<'static, ()> {
        let Self {
            shared,
            handle,
            inbox,
            status,
            readers,
            control,
            registered,
            topic,
            ..
        } = self;
        topic.found(fetch.swarm.id());
        let Fetch {
            claim,
            swarm,
            listing,
            fallback,
            owners,
            place,
            source,
            outside,
            target,
        } = fetch;
        let driver = Driver::new(shared, claim, swarm, listing, inbox, status);
        let driver = driver
            .fallback(fallback)
            .of_folder(source)
            .outside(outside)
            .into_target(target);
        let turn = DownloadTurn::new(control, place, registered);
        let mut driver = driver.turn(turn).readers(readers);
        driver.owners_found(owners);
        let cancelled = handle.holders.cancelled().clone();
        let stop = handle.stop.clone();
        // Only those who watch the content are to be counted.
        drop(handle);
        // In a box: a download that waits for its turn needs no room for it.
        driver.run(stop, cancelled).boxed()
    }

    /// Joins a download that this one has met.
    async fn join(mut self, join: Join) {
        let Join {
            running,
            hold,
            topic,
            wanted,
        } = join;
        if let Some(other) = &running.control {
            self.control.join(other);
        }
        self.handle.holders.joins(hold);
        if topic.is_none()
            && let Some(id) = self.registered.as_ref().and_then(|joined| joined.id())
        {
            self.topic.found(id);
        }
        // The other one is listed.
        self.registered = None;
        self.follow(running, wanted, topic).await;
    }

    /// Shows what happens to the download that this one has joined, until it ends or nobody
    /// wants this one any more. Then the content gets the name that is wanted here.
    async fn follow(
        mut self,
        mut running: DriverHandle,
        wanted: WantedNames,
        topic: Option<Arc<Topic>>,
    ) {
        // Whoever reads has a place at the other download.
        self.readers.moved(Arc::clone(&running.readers));
        let outcome = self.watch(&mut running, &wanted, topic.as_deref()).await;
        if self.handle.holders.cancelled().is_cancelled() {
            return self.left(running).await;
        }
        let named = async { self.joined_ended(outcome?, &wanted).await };
        let outcome = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            named = named => named,
        };
        self.handle.holders.parts();
        let mut last = running.status.borrow().clone();
        last.rename(wanted.stored.as_ref());
        if let (Some(Ok(_)), Err(error)) = (last.outcome(), &outcome) {
            // The other one succeeded, and this one could not get its name.
            self.topic.failed(&self.shared.events, error);
        }
        let last = last.ended(outcome);
        self.status.send_modify(|status| *status = last);
    }

    /// Nobody wants this download any more. The one that it had joined goes on for others,
    /// or ends as well, and has deleted what has arrived if that is wanted.
    async fn left(&self, running: DriverHandle) {
        let holders = &self.handle.holders;
        let mut outcome = Err(DownloadError::Cancelled);
        if holders.discards() && !holders.leaves_others() {
            let status = running.status.clone();
            running.ended().await;
            if let Some(ended) = status.borrow().outcome() {
                outcome = ended.clone();
            }
        }
        self.status.send_modify(|status| status.end(outcome));
    }

    /// The download that this one had joined has got the content. Then the content gets
    /// the name that is wanted here, and is shared if only this download wants that.
    async fn joined_ended(
        &self,
        content: Content,
        wanted: &WantedNames,
    ) -> Result<Content, DownloadError> {
        let (shared, id) = (&self.shared, content.id);
        let has_name = wanted
            .stored
            .as_ref()
            .is_none_or(|name| *name == content.name);
        // What is for one caller is read where it is.
        let is_there = wanted.target.is_private || has_name && !wanted.is_elsewhere;
        let name = wanted.stored.as_ref().unwrap_or(&content.name);
        if !matches!(shared.contents.settled(id).await, Settled::Ended) {
            if is_there {
                return Ok(content);
            }
            let named = complete_here(shared, id, wanted).await?;
            let gone = StorageError::NotFound { name: name.clone() };
            return named.ok_or_else(|| storage_error(id, gone));
        }
        let content = match is_there {
            false => copy_stored(shared, &*shared.storage, &content, name, wanted).await?,
            true => content,
        };
        if self.control.seeds()
            && let Ok(claim) = shared.contents.claim(id, &self.handle).await
        {
            let listed_as = wanted.asked.clone().unwrap_or_else(|| id.into());
            let names = [content.name.clone()];
            // If it is gone already, there is nothing to share.
            let (storage, listed) = (&*wanted.target.storage, (&listed_as, None));
            let _ = find_stored(shared, storage, claim, id, &names, listed, true).await?;
        }
        Ok(content)
    }

    /// Shows what happens to another download until it ends, and passes commands on.
    async fn watch(
        &mut self,
        running: &mut DriverHandle,
        wanted: &WantedNames,
        topic: Option<&Topic>,
    ) -> Result<Content, DownloadError> {
        let (ours, name) = (self.topic.watchers(), &wanted.stored);
        let watchers = running.watchers.as_ref();
        let _following =
            watchers.map(|watchers| watchers.followed_by(ours, name.clone(), &running.status));
        loop {
            let mut seen = running.status.borrow_and_update().clone();
            if let Some(outcome) = seen.outcome() {
                return outcome.clone();
            }
            if let Some(found) = topic.and_then(Topic::found_id) {
                self.topic.found(found);
            }
            seen.rename(name.as_ref());
            // Those who watch hear of each change already.
            self.status.set_quietly(seen);
            tokio::select! {
                biased;
                () = self.handle.holders.cancelled().cancelled() => {
                    return Err(DownloadError::Cancelled);
                }
                changed = running.status.changed() => if changed.is_err() {
                    let last = running.status.borrow().outcome().cloned();
                    return last.unwrap_or(Err(DownloadError::ShutDown));
                },
                Some(command) = self.inbox.recv() => {
                    // Fails if the download has ended.
                    let _ = running.inbox.send(command).await;
                }
            }
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
        self.topic.asked(&key);
        if let Some(wrong) = options.wrong {
            return Err(wrong);
        }
        check_owners(shared, &options.owners)?;
        let wanted = self.wanted(&key, &options).await?;
        if let ContentKey::Id(id) = &key {
            let settled = shared.contents.settled(*id).await;
            if let Some(start) = Box::pin(self.is_here(settled, *id, &wanted, &options)).await? {
                return Ok(start);
            }
        }
        let lookup =
            self.while_running(async || Box::pin(self.find(&key, &wanted, &options)).await);
        let (found, place) = match Box::pin(lookup).await? {
            Lookup::Found(found, place) => (found, place),
            Lookup::Stored(start) => return Ok(start),
        };
        if let Some(registered) = &self.registered {
            // Nobody else sets it, but what has restored it.
            let _ = registered.found.set(found.id);
            registered.named(found.owners.iter().map(|owner| owner.addr.clone()));
        }
        if let Some(join) = self.leader(found.id, &wanted, true)? {
            return Ok(Start::Join(join));
        }
        loop {
            match shared.contents.claim(found.id, &self.handle).await {
                Ok(claim) => {
                    self.limit(found.id, &options);
                    let known = (options, self.settings());
                    let started = Box::pin(fetch(shared, claim, wanted, found, known, place));
                    let started = started.await?;
                    if let (Start::Fetch(fetch), Some(registered)) = (&started, &self.registered) {
                        // Nobody else sets it, but what has restored it.
                        let listed_as = fetch.listing.listed_as().clone();
                        let _ = registered.listed_as.set(listed_as);
                    }
                    return Ok(started);
                }
                Err(settled) => {
                    let id = found.id;
                    if let Some(start) =
                        Box::pin(self.is_here(settled, id, &wanted, &options)).await?
                    {
                        return Ok(start);
                    }
                }
            }
        }
    }

    /// Where the content is wanted, and under which names.
    async fn wanted(
        &self,
        key: &ContentKey,
        options: &DownloadOptions,
    ) -> Result<WantedNames, DownloadError> {
        let earlier = options.earlier.as_deref();
        let asked = match key {
            ContentKey::Name(name) => Some(name.clone()),
            ContentKey::Id(_) => earlier.and_then(|earlier| earlier.asked.clone()),
        };
        let target = || target(&self.shared, options);
        let target = match earlier {
            // What it needs may not be there as long as it is paused.
            Some(_) => self.while_running(target).await?,
            None => target().await?,
        };
        Ok(WantedNames {
            target,
            is_elsewhere: options.directory.is_some(),
            stored: options.name.clone().or_else(|| asked.clone()),
            asked,
        })
    }

    /// Finds the content at the trackers, or in the storage. As long as no tracker
    /// answers, this download says so and waits, without a place among the active ones.
    async fn find(
        &self,
        key: &ContentKey,
        wanted: &WantedNames,
        options: &DownloadOptions,
    ) -> Result<Lookup, DownloadError> {
        let mut search = Search::new(&self.shared, key.clone(), &[]);
        let mut changes = self.control.settings();
        let mut place = self.place().await?;
        loop {
            changes.mark_unchanged();
            search.set(&self.settings());
            let missed = match search.ask().await {
                Ok(found) => {
                    self.show_stall(None);
                    return Ok(Lookup::Found(found, place));
                }
                Err(missed) => missed,
            };
            if let Some(start) = Box::pin(self.stored(key, wanted, options)).await? {
                return Ok(Lookup::Stored(start));
            }
            match missed {
                Missed::Finally(error) => return Err(error),
                Missed::Yet(reason) => self.show_stall(Some(reason)),
            }
            drop(place);
            let aside = self.ticket.step_aside();
            let begun = Instant::now();
            tokio::select! {
                biased;
                waited = search.wait() => waited?,
                // Perhaps there is an owner now.
                Ok(()) = changes.changed() => search.spend(begun),
            }
            aside.return_to_line();
            place = self.place().await?;
        }
    }

    fn show_stall(&self, stall: Option<StallReason>) {
        self.status.send_if_modified(|status| {
            let changed = status.stall() != stall;
            status.set_stall(stall);
            changed
        });
    }

    /// What the user has set by now.
    fn settings(&self) -> Settings {
        self.control.settings().borrow().clone()
    }

    /// The owners that the user has named by now.
    fn owners(&self) -> Vec<Addr> {
        self.settings().owners().cloned().collect()
    }

    /// Another download of the content that was found, which others join, also if it waits
    /// or is paused. Otherwise this one is joined from now on, if it `leads`.
    fn leader(
        &self,
        id: ContentId,
        wanted: &WantedNames,
        leads: bool,
    ) -> Result<Option<Join>, DownloadError> {
        let lead = Lead::Content(id);
        let leader = match &self.registered {
            // What is complete here is not waited for.
            _ if self.shared.contents.names(&id).is_some() => None,
            Some(registered) if leads && !wanted.target.is_private => registered.lead(lead),
            Some(registered) => self.shared.running.leader(&lead).filter(|(other, _)| {
                // It may lead itself.
                !std::ptr::eq(&**other, &**registered)
            }),
            None => None,
        };
        let Some((other, hold)) = leader else {
            return Ok(None);
        };
        if let Some(name) = &wanted.stored {
            let valid = wanted.target.storage.check_name(name);
            valid.map_err(|source| storage_error(id, source))?;
        }
        self.topic.known(id);
        Ok(Some(Join {
            running: other.handle.clone(),
            hold,
            topic: Some(Arc::clone(&other.topic)),
            wanted: wanted.clone(),
        }))
    }

    /// Limits the content as it is wanted for this download.
    fn limit(&self, id: ContentId, options: &DownloadOptions) {
        if let Some(limits) = self.settings().limits.or(options.limits) {
            self.shared.limit_content(id, limits);
        }
    }

    /// What to do about a content that is here: it is complete, or this download joins
    /// another one. Nothing if it has to be fetched.
    async fn is_here(
        &self,
        settled: Settled,
        id: ContentId,
        wanted: &WantedNames,
        options: &DownloadOptions,
    ) -> Result<Option<Start>, DownloadError> {
        let shared = &self.shared;
        if !matches!(settled, Settled::Ended) {
            self.limit(id, options);
        }
        match settled {
            Settled::Ended => Ok(None),
            Settled::Complete if wanted.target.is_private => {
                // It is read where it is.
                let here = shared.contents.names(&id);
                Ok(here.map(|(content, _)| Start::Complete(content)))
            }
            Settled::Complete => {
                let complete = Box::pin(complete_here(shared, id, wanted)).await?;
                Ok(complete.map(Start::Complete))
            }
            // It will not be here when it has ended.
            Settled::Downloading(running) if running.is_passing => {
                await_part(shared, id, running, &self.owners()).await;
                Ok(None)
            }
            // It goes to the folder, or to one caller: to be copied when it is there.
            Settled::Downloading(running)
                if running.role != Role::Alone
                    || (running.is_private && !wanted.target.is_private) =>
            {
                await_part(shared, id, running, &self.owners()).await;
                let complete = Box::pin(complete_here(shared, id, wanted)).await?;
                Ok(complete.map(Start::Complete))
            }
            Settled::Downloading(running) => {
                if let Some(name) = &wanted.stored {
                    let valid = wanted.target.storage.check_name(name);
                    valid.map_err(|source| storage_error(id, source))?;
                }
                let Some(hold) = running.holders.join() else {
                    return Ok(None);
                };
                let wanted = wanted.clone();
                Ok(Some(Start::Join(Join {
                    running,
                    hold,
                    topic: None,
                    wanted,
                })))
            }
        }
    }

    /// Looks for a content that no tracker finds: among those that are complete here, in
    /// what the storage remembers, and under its name in the storage.
    async fn stored(
        &self,
        key: &ContentKey,
        wanted: &WantedNames,
        options: &DownloadOptions,
    ) -> Result<Option<Start>, DownloadError> {
        let shared = &self.shared;
        let remembered = remembered(shared).await;
        let id = match key {
            ContentKey::Id(id) => *id,
            ContentKey::Name(name) => {
                let has_name = |r: &&Remembered| r.name == *name || r.listed_as == *name;
                let of_storage = remembered.iter().filter(has_name).map(|r| r.id);
                let mut ids: Vec<ContentId> = shared.contents.named(name);
                ids.extend(of_storage);
                ids.sort_unstable();
                ids.dedup();
                let [id] = ids[..] else {
                    return Ok(None);
                };
                id
            }
        };
        if let Some(join) = self.leader(id, wanted, false)? {
            return Ok(Some(Start::Join(join)));
        }
        for _ in 0..ATTEMPTS {
            let settled = match shared.contents.claim(id, &self.handle).await {
                Err(settled) => settled,
                Ok(claim) => {
                    let seeds = options.seed;
                    let claim = match recall(shared, claim, id, &remembered, seeds).await? {
                        Err(claim) => claim,
                        // It is complete now.
                        Ok(_) if seeds => continue,
                        Ok(content) => {
                            let is_elsewhere = wanted.is_elsewhere;
                            let from = (&*shared.storage, is_elsewhere);
                            return Ok(Some(self.unshared(content, from, wanted).await?));
                        }
                    };
                    let by_id = id.into();
                    let names: Vec<_> = wanted.stored.iter().chain([&by_id]).cloned().collect();
                    let listed_as = wanted.asked.as_ref().unwrap_or(&by_id);
                    let listed = (listed_as, None);
                    let storage = &*wanted.target.storage;
                    let found = find_stored(shared, storage, claim, id, &names, listed, seeds);
                    match found.await? {
                        Ok(_) if seeds => continue,
                        Ok(content) => {
                            let from = (storage, false);
                            return Ok(Some(self.unshared(content, from, wanted).await?));
                        }
                        Err(_) => return Ok(None),
                    }
                }
            };
            if let Some(start) = Box::pin(self.is_here(settled, id, wanted, options)).await? {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }
}

impl DownloadTask {
    /// A content that is complete in a storage, and is not to be shared. `is_elsewhere`
    /// says that it is wanted in another storage.
    async fn unshared(
        &self,
        content: Content,
        (from, is_elsewhere): (&dyn Storage, bool),
        wanted: &WantedNames,
    ) -> Result<Start, DownloadError> {
        let name = wanted.stored.as_ref().unwrap_or(&content.name);
        // What is for one caller is read where it is.
        if wanted.target.is_private || *name == content.name && !is_elsewhere {
            return Ok(Start::Complete(content));
        }
        let copied = copy_stored(&self.shared, from, &content, name, wanted).await?;
        Ok(Start::Complete(copied))
    }

    /// Claims something of a folder.
    async fn start_part(&self, part: FolderPart) -> Result<Start, DownloadError> {
        let shared = &self.shared;
        let FolderPart {
            listing,
            owners,
            source,
        } = part;
        let (id, length) = (listing.content.id, listing.content.length);
        self.topic.asked(&id.into());
        let place = self.while_running(|| self.place()).await?;
        let claim = loop {
            match shared.contents.claim(id, &self.handle).await {
                Ok(claim) => break claim,
                Err(Settled::Complete) => return Ok(Start::Complete(listing.content)),
                Err(Settled::Downloading(running)) => {
                    // It goes elsewhere, and is copied from there.
                    let more = owners.iter().map(|(addr, _)| addr.clone()).collect();
                    // Fails if the download has ended.
                    let _ = running.inbox.send(DriverInput::Owners(more)).await;
                    running.ended().await;
                }
                Err(Settled::Ended) => {}
            }
        };
        if owners.is_empty() {
            return Err(DownloadError::NoOwners { id });
        }
        let now = Instant::now().into_std();
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
            outside: None,
            target: None,
        })))
    }

    /// Claims a content that another network finds and links.
    #[cfg(feature = "bittorrent")]
    async fn start_outside(&self, part: OutsidePart) -> Result<Start, DownloadError> {
        let shared = &self.shared;
        let OutsidePart {
            listing,
            manifest,
            outside,
            owners,
            target,
        } = part;
        let id = listing.content.id;
        let place = self.while_running(|| self.place()).await?;
        let claim = loop {
            match shared.contents.claim(id, &self.handle).await {
                Ok(claim) => break claim,
                Err(Settled::Complete) => return Ok(Start::Complete(listing.content)),
                Err(Settled::Downloading(running)) => running.ended().await,
                Err(Settled::Ended) => {}
            }
        };
        let now = Instant::now().into_std();
        let (mut config, settings) = (shared.swarm_config(), self.settings());
        config.planner.strategy = settings.strategy.unwrap_or(config.planner.strategy);
        config.patience = settings.patience.unwrap_or(config.patience);
        Ok(Start::Fetch(Box::new(Fetch {
            claim,
            swarm: Swarm::with_manifest(now, config, shared.identity.id, manifest),
            listing,
            fallback: None,
            owners,
            place,
            source: None,
            outside: Some(outside),
            target: Some(target),
        })))
    }

    /// Does something when the download is not paused, and does it again from the
    /// beginning when it was paused meanwhile. `step` has to be cancel safe.
    async fn while_running<T, F>(&self, mut step: impl FnMut() -> F) -> T
    where
        F: Future<Output = T>,
    {
        let (mut pauses, mut settings) = (self.control.pauses(), self.control.settings());
        loop {
            let pause = *pauses.borrow_and_update();
            settings.mark_unchanged();
            if pause.is_some() {
                self.ticket.leave();
                self.record(pause).await;
                self.show_paused(true);
                tokio::select! {
                    biased;
                    // The senders are in the control.
                    _ = pauses.changed() => {}
                    _ = settings.changed() => {}
                }
                continue;
            }
            self.record(pause).await;
            if self.status.borrow().is_paused() {
                self.ticket.enter();
                self.show_paused(false);
            }
            tokio::select! {
                biased;
                Ok(_) = pauses.wait_for(Option::is_some) => {}
                done = step() => return done,
            }
        }
    }

    /// Waits until this download may be active.
    ///
    /// Cancel safe, and keeps its place in the queue.
    async fn place(&self) -> Result<ActivePlace, DownloadError> {
        if let Some(place) = self.ticket.try_begin() {
            return Ok(place);
        }
        self.status.send_modify(|status| status.set_queued(true));
        self.topic.queued(&self.shared.events);
        let place = self.ticket.begin().await;
        self.status.send_modify(|status| status.set_queued(false));
        place.ok_or(DownloadError::ShutDown)
    }
}

/// Waits until the download of something of a folder has ended, and tells it of owners
/// that have it by itself.
async fn await_part(shared: &PeerShared, id: ContentId, running: DriverHandle, owners: &[Addr]) {
    let inbox = running.inbox.clone();
    let more = async {
        if let Ok(found) = find(shared, ContentKey::Id(id), owners).await {
            let found = found.owners.into_iter().map(|owner| owner.addr);
            let all = found.chain(owners.iter().cloned()).collect();
            // Fails if the download has ended.
            let _ = inbox.send(DriverInput::Owners(all)).await;
        }
    };
    let mut ended = pin!(running.ended());
    tokio::select! {
        biased;
        () = &mut ended => return,
        () = more => {}
    }
    ended.await;
}

/// Where a download goes. The storage in another directory is opened, and the file that
/// it is to take over is looked up, before anything is fetched.
async fn target(
    shared: &PeerShared,
    options: &DownloadOptions,
) -> Result<TargetOptions, DownloadError> {
    if let Some(path) = &options.existing {
        open_file(path).await.map_err(|source| {
            let path = path.clone();
            DownloadError::Existing { path, source }
        })?;
    }
    let is_private = options.is_private();
    let storage: Arc<dyn Storage> = match (&options.memory, &options.directory) {
        (Some(memory), _) => Arc::new(memory.clone()),
        (None, None) => match &options.passing {
            Some(passing) => Arc::new(passing.clone()),
            None => Arc::clone(&shared.storage),
        },
        (None, Some(path)) => shared.storage.in_directory(path).await.map_err(|source| {
            let path = path.clone();
            DownloadError::Directory { path, source }
        })?,
    };
    Ok(TargetOptions {
        storage,
        overwrites: options.if_taken == IfTaken::Overwrite,
        existing: options.existing.clone(),
        is_private,
        passing: options.passing.clone(),
    })
}

/// Prepares the download of a content that was found and claimed, unless the storage has
/// it.
async fn fetch(
    shared: &Arc<PeerShared>,
    claim: DriverClaim,
    wanted: WantedNames,
    mut found: Found,
    (options, settings): (DownloadOptions, Settings),
    place: ActivePlace,
) -> Result<Start, DownloadError> {
    let id = found.id;
    let kept = options
        .earlier
        .and_then(|earlier| found_earlier(&mut found, *earlier));
    let WantedNames { target, asked, .. } = wanted;
    let storage = Arc::clone(&target.storage);
    let names = Names {
        own: options.name,
        asked,
        found: found.name,
        kept,
    };
    let listed = found.owners.into_iter().map(|o| (o.addr, o.complete));
    let known = settings.owners().map(|addr| (addr.clone(), false));
    let owners: Vec<_> = listed.chain(known).collect();
    let content = Content::new(id, names.stored(&*storage, id)?, found.length);
    let mut config = shared.swarm_config();
    config.planner.strategy = settings.strategy.unwrap_or(options.strategy);
    config.patience = settings.patience.unwrap_or(config.patience);
    let fallback = names.fallback(id);
    let listed_as = names.listed();
    // To look costs more than a single chunk that is fetched in vain.
    let is_short = is_short(found.length);
    let mut claim = claim;
    if !is_short || owners.is_empty() {
        let targets = [Some(&content.name), fallback.as_ref()];
        let targets: Vec<_> = targets.into_iter().flatten().cloned().collect();
        let listed = (&listed_as, Some(found.length));
        let found = find_stored(shared, &*storage, claim, id, &targets, listed, options.seed);
        match found.await? {
            Ok(content) => return Ok(Start::Complete(content)),
            Err(unused) => claim = unused,
        }
    }
    if owners.is_empty() {
        return Err(DownloadError::NoOwners { id });
    }
    let is_bounded = !target.is_private && shared.config.max_stored.is_some();
    let has_partial = target.existing.is_some() || (!is_short && storage.has_partial(&id).await);
    let now = Instant::now().into_std();
    let swarm = Swarm::leecher(now, config, shared.identity.id, id);
    Ok(Start::Fetch(Box::new(Fetch {
        claim,
        // Nothing is fetched before it is certain that there is room.
        swarm: match &target.passing {
            Some(passing) => swarm.passing(passing.window()),
            None if has_partial || is_bounded => swarm,
            None => swarm.expecting(found.length),
        },
        fallback,
        listing: Listing::new(content, listed_as),
        owners,
        place,
        source: None,
        outside: None,
        target: Some(target),
    })))
}

/// Has the content found as it was before the peer was started again. Returns the name that
/// it had here.
fn found_earlier(found: &mut Found, earlier: Earlier) -> Option<ContentName> {
    if let Some(listed_as) = earlier.listed_as {
        found.name = listed_as;
    }
    let content = earlier.content?;
    // A tracker merely repeats it.
    found.length = content.length;
    Some(content.name)
}

/// What the readers of a content hear that was complete here, and is gone already.
fn gone(error: ReaderError) -> DownloadError {
    match error {
        ReaderError::Storage { id, source } => DownloadError::Storage {
            id,
            chunk: None,
            source,
        },
        ReaderError::ShutDown => DownloadError::ShutDown,
        ReaderError::Unknown { .. } | ReaderError::NotHere { .. } | ReaderError::Passing { .. } => {
            DownloadError::Cancelled
        }
    }
}

/// Whether a content of this length has a single chunk.
fn is_short(length: u64) -> bool {
    Geometry::of(length).is_ok_and(|geometry| geometry.chunks() == 1)
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
    /// The name that it had here before the peer was started again.
    kept: Option<ContentName>,
}

impl Names {
    /// The name that the user wants, if any.
    fn wanted(&self) -> Option<&ContentName> {
        self.own.as_ref().or(self.asked.as_ref())
    }

    /// The name to store it under: the one that the user wants, or one that
    /// others have and that the storage accepts.
    fn stored(&self, storage: &dyn Storage, id: ContentId) -> Result<ContentName, DownloadError> {
        if let Some(kept) = &self.kept
            && storage.check_name(kept).is_ok()
        {
            return Ok(kept.clone());
        }
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

/// Refuses owners whose address the transport cannot read.
pub(in crate::peer) fn check_owners(
    shared: &PeerShared,
    owners: &[Addr],
) -> Result<(), DownloadError> {
    for owner in owners {
        let checked = shared.transport.check(owner);
        checked.map_err(|source| DownloadError::Owner {
            addr: owner.clone(),
            source,
        })?;
    }
    Ok(())
}
