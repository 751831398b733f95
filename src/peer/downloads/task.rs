//! The task of a download: finds out what was asked for, and drives it.

mod here;
mod joining;
mod names;
#[cfg(feature = "bittorrent")]
pub(in crate::peer) mod outside;
pub(in crate::peer) mod parts;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::content::{Content, ContentId, ContentName, Geometry};
use crate::error::DownloadError;
use crate::peer::contents::driver::{DownloadTurn, Driver, TargetOptions};
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::inbox::{DriverInput, Inbox};
use crate::peer::contents::listing::Listing;
use crate::peer::contents::outside::Outside;
use crate::peer::contents::readers::ReaderDesk;
use crate::peer::contents::status::{ContentStatus, StatusSender};
use crate::peer::contents::table::{DriverClaim, DriverHandle};
use crate::peer::downloads::asked::{Asked, Earlier};
use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::discard::discard_partial;
use crate::peer::downloads::holders::{Hold, Holders};
use crate::peer::downloads::local::{Here, WantedNames, find_stored, storage_error};
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::pause_record::{forget, record, record_at_shutdown};
use crate::peer::downloads::paused_form::PausedRecord;
use crate::peer::downloads::queue::{ActivePlace, QueueTicket};
use crate::peer::downloads::running::{Lead, Registered, Running};
use crate::peer::downloads::search::{Missed, Search, find};
use crate::peer::downloads::settings::Settings;
use crate::peer::events::topic::Topic;
use crate::peer::handles::download::{Download, DownloadOptions, IfTaken};
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::{Progress, StallReason, Swarm};
use crate::protocol::{Addr, ContentKey, Found};
use crate::storage::{PausedDownload, Storage, StorageError, open_file};
use names::Names;

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
    /// The download that it has joined from the start.
    joined: Option<Arc<Running>>,
}

/// What the download turned out to be.
enum Start {
    /// The content is complete here already.
    Complete(Here),
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
        self.begins(options);
    }

    fn note_options(&self, options: &DownloadOptions) {
        self.control.change(|settings| {
            settings.add_owners(options.owners.clone());
            settings.limits = options.limits.or(settings.limits);
        });
        self.ticket.set_priority(options.priority);
        if let Some(common) = &options.common {
            self.ticket.set_common(&common.turn);
        }
        if let Some(registered) = &self.registered {
            self.note_asked(registered, options);
        }
        if let Some(path) = &options.directory {
            self.control.goes_to(path);
        }
        self.control.set_seeds(options.seed);
        self.control.set_pause(options.paused);
        if options.paused.is_some() {
            self.ticket.leave();
        }
    }

    /// A download that begins paused is shown so from the start, unless it is told when that
    /// is recorded. One that has joined another one is shown as that is.
    fn begins(&self, options: &DownloadOptions) {
        let running = self
            .registered
            .as_ref()
            .filter(|_| options.paused.is_some());
        if running.is_some_and(|running| running.asked.get().is_none() || running.has_record()) {
            self.show_paused(true);
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
        // What has its bytes with another content goes on with that.
        if options.is_private() || options.common.is_some() || !self.shared.share_stored {
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
        self.begins(options);
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

    /// What is known of the download.
    pub(in crate::peer) fn status(&self) -> watch::Receiver<ContentStatus> {
        self.handle.status.clone()
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
            Ok(Start::Complete(here)) => {
                self.forget().await;
                Box::pin(self.is_complete(here)).await;
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
                    let storage = self.storage_in(self.control.directory()).await;
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

    /// The storage of the peer, in this directory if there is one.
    async fn storage_in(&self, directory: Option<&Path>) -> Result<Arc<dyn Storage>, StorageError> {
        match directory {
            Some(path) => self.shared.storage.in_directory(path).await,
            None => Ok(Arc::clone(&self.shared.storage)),
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
            if let Some(start) = Box::pin(self.is_here(settled, *id, &wanted)).await? {
                return Ok(start);
            }
        }
        let mut search = Search::new(shared, key.clone(), &[]);
        let lookup = loop {
            let mut pauses = self.unpaused().await;
            tokio::select! {
                biased;
                Ok(_) = pauses.wait_for(Option::is_some) => {}
                lookup = Box::pin(self.find(&key, &mut search, &wanted, &options)) => {
                    break lookup?;
                }
            }
        };
        let (found, place) = match lookup {
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
        let mut place = Some(place);
        loop {
            let place = match place.take() {
                Some(place) => place,
                None => self.while_running(|| self.place()).await?,
            };
            match shared.contents.claim(found.id, &self.handle).await {
                Ok(claim) => {
                    self.limit(found.id);
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
                    // Whoever is waited for may need it.
                    drop(place);
                    if let Some(start) = Box::pin(self.is_here(settled, id, &wanted)).await? {
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
        search: &mut Search<'_>,
        wanted: &WantedNames,
        options: &DownloadOptions,
    ) -> Result<Lookup, DownloadError> {
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
            drop(place);
            let aside = self.ticket.step_aside();
            if let Some(start) = Box::pin(self.stored(key, wanted, options)).await? {
                return Ok(Lookup::Stored(start));
            }
            match missed {
                Missed::Finally(error) => return Err(error),
                Missed::Yet(reason) => self.show_stall(Some(reason)),
            }
            tokio::select! {
                biased;
                waited = search.wait() => waited?,
                // Perhaps there is an owner now.
                Ok(()) = changes.changed() => {}
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

    /// Limits the content as it is wanted for this download.
    fn limit(&self, id: ContentId) {
        if let Some(limits) = self.settings().limits {
            self.shared.limit_content(id, limits);
        }
    }
}

impl DownloadTask {
    /// Does something when the download is not paused, and does it again from the
    /// beginning when it was paused meanwhile. `step` has to be cancel safe.
    async fn while_running<T, F>(&self, mut step: impl FnMut() -> F) -> T
    where
        F: Future<Output = T>,
    {
        loop {
            let mut pauses = self.unpaused().await;
            tokio::select! {
                biased;
                Ok(_) = pauses.wait_for(Option::is_some) => {}
                done = step() => return done,
            }
        }
    }

    /// Waits until the download is not paused. Returns who hears when it is again.
    async fn unpaused(&self) -> watch::Receiver<Option<PauseOptions>> {
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
            return pauses;
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

/// The file that a download is to take over. What was right in it is here when the download
/// goes on after a restart, so it may be gone by then.
async fn existing(options: &DownloadOptions) -> Result<Option<PathBuf>, DownloadError> {
    let Some(path) = options.existing.clone() else {
        return Ok(None);
    };
    match open_file(&path).await {
        Ok(_) => Ok(Some(path)),
        Err(error) if options.earlier.is_some() && is_missing(&error) => {
            tracing::warn!(path = %path.display(), %error, "no more is taken over");
            Ok(None)
        }
        Err(source) => Err(DownloadError::Existing { path, source }),
    }
}

/// Whether there is no such file.
fn is_missing(error: &StorageError) -> bool {
    match error {
        StorageError::Io { source, .. } => source.kind() == ErrorKind::NotFound,
        _ => false,
    }
}

/// Where a download goes. The storage in another directory is opened, and the file that
/// it is to take over is looked up, before anything is fetched.
async fn target(
    shared: &PeerShared,
    options: &DownloadOptions,
) -> Result<TargetOptions, DownloadError> {
    let existing = existing(options).await?;
    if let Some(common) = &options.common {
        let mut target = TargetOptions::to(Arc::clone(&common.storage));
        target.sibling = Some(Arc::clone(&common.sibling));
        // It is read where it is, and takes no room of its own.
        target.is_private = true;
        return Ok(target);
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
        existing,
        is_private,
        sibling: None,
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
            Ok(here) => return Ok(Start::Complete(here)),
            Err(unused) => claim = unused,
        }
    }
    if owners.is_empty() {
        return Err(DownloadError::NoOwners { id });
    }
    let is_bounded = !target.is_private && shared.config.max_stored.is_some();
    let is_there = target.existing.is_some() || target.sibling.is_some();
    let has_partial = is_there || (!is_short && storage.has_partial(&id).await);
    let now = Instant::now().into_std();
    let swarm = Swarm::leecher(now, config, shared.identity.id, id).in_zone(shared.zone());
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

/// Whether a content of this length has a single chunk.
fn is_short(length: u64) -> bool {
    Geometry::of(length).is_ok_and(|geometry| geometry.chunks() == 1)
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
