//! The task of a download of a folder: the index first, then the files, several at a
//! time, then all of it at once to its final name.
//!
//! ```text
//!   asked ──found──▶ fetches ──all is here──▶ placed ──▶ shared, or not
//!     │                 │ ▲
//!     │ another one     │ │ more is wanted, by one that joins
//!     │ fetches it      └─┘
//!     └────────▶ joined: shows what that one does
//! ```
//! What is wanted of it goes through [`FolderControl`] to the files. If a part of the folder
//! is here, only the rest is fetched, and added to that.

mod files;
mod homes;
mod job;
mod naming;
mod undo;

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use files::{Done, Wanted, check_room, get, index, wanted};
use homes::{Homes, log_failed, try_remove};
use job::{Job, publish};
use naming::{Names, names};
use undo::Undo;

use super::control::FolderControl;
use super::error::FolderError;
use super::here::intact;
use super::obtain::Obtain;
use super::pause_record::{PauseRecord, RecordPlace, open_when_free};
use super::paused_form::FolderForm;
use super::place::{Base, existing, missing};
use super::release::release_files;
use super::running::{Registered, RunningFolder};
use super::selection::Selection;
use super::share::{is_long, serve_file, unshare_any};
use super::status::{Folder, FolderProgress, FolderStatus};
use super::target::FolderTarget;
use crate::content::{
    ContentId, ContentName, FolderIndex, FolderIndexError, FolderPath, MAX_INDEX_LEN,
};
use crate::error::DownloadError;
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::role::Role;
use crate::peer::contents::serve::unshare;
use crate::peer::downloads::holders::{Hold, Holders};
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::paused_form::RecordedState;
use crate::peer::downloads::search::{Missed, Search};
use crate::peer::downloads::task::check_owners;
use crate::peer::handles::download::IfTaken;
use crate::peer::handles::folder::{FolderDownload, FolderOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::limits::ContentLimits;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::StallReason;
use crate::protocol::{Addr, ContentKey, Found};
use crate::storage::{Blob, FolderHome, Folders, PausedId, PlacedFiles, Staged, StorageError};

/// How often the progress is published.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How often it is looked whether anything arrives. A download finds out for itself only
/// after seconds.
const STALL_INTERVAL: Duration = Duration::from_secs(1);

/// What a download of a folder is asked for.
#[derive(Debug, Clone)]
pub(in crate::peer) struct FolderRequest {
    key: DownloadKey,
    /// The name that it was asked for by, if it was not asked for by id.
    asked: Option<ContentName>,
    name: Option<ContentName>,
    /// Nothing but these paths; all, if there are none.
    paths: Vec<FolderPath>,
    owners: Vec<Addr>,
    directory: Option<PathBuf>,
    limits: Option<ContentLimits>,
    /// What is wrong with the request.
    wrong: Option<FolderError>,
}

/// A download of a folder that is about to start.
pub(in crate::peer) struct FolderTask {
    shared: Arc<PeerShared>,
    status: watch::Sender<FolderStatus>,
    registered: Registered,
    /// Where the folder goes, once this download fetches it.
    claimed: OnceLock<Claimed>,
    /// The one that it has joined. It outlives the future that follows it.
    joined: Mutex<Option<Join>>,
    /// The record of a pause, and what of the request is in it.
    record: PauseRecord,
    asked: Option<ContentName>,
    stored_as: Option<ContentName>,
    overwrites: bool,
}

/// What is known of a download that was recorded before the peer was started.
pub(in crate::peer) struct RestoredFolder {
    /// The name that it was asked for by, if it was not asked for by id.
    pub(super) asked: Option<ContentName>,
    pub(super) known: Option<(Folder, FolderProgress)>,
    pub(super) patience: Option<Option<Duration>>,
    /// Its record, if that is not in the home of the folder.
    pub(super) record: Option<PausedId>,
}

/// What a download fetches.
struct Claimed {
    id: ContentId,
    homes: Homes,
}

/// What a folder turned out to be.
enum Located {
    /// It is here, or another download has fetched it.
    Here(Folder),
    /// It has to be fetched, by this download.
    Elsewhere(Found),
}

/// A download that another one joins.
struct Join {
    other: Arc<RunningFolder>,
    hold: Hold,
}

/// What was fetched.
struct Fetched {
    /// All that is wanted.
    part: FolderIndex,
    /// What of that is not in its place.
    missing: FolderIndex,
    blobs: HashMap<ContentId, Arc<dyn Blob>>,
}

impl FolderTask {
    /// A task to run, what it is to do, and the user's handle of it. `restored` is what was
    /// recorded of it, if it was.
    pub(in crate::peer) fn new(
        shared: &Arc<PeerShared>,
        key: DownloadKey,
        options: FolderOptions,
        restored: Option<RestoredFolder>,
    ) -> (Self, FolderRequest, FolderDownload) {
        let control = FolderControl::new(options.paths.clone());
        control.set_seeds(options.seed);
        control.set_priority(options.priority);
        control.set_pause(options.paused);
        let record = restored.as_ref().map(|restored| restored.record);
        let record = PauseRecord::new(shared, record);
        let checked = key.clone().check().ok();
        let asked = match &checked {
            Some(ContentKey::Name(name)) => Some(name.clone()),
            _ => restored
                .as_ref()
                .and_then(|restored| restored.asked.clone()),
        };
        let mut status = FolderStatus {
            paused: options.paused.is_some(),
            ..FolderStatus::default()
        };
        if let Some(restored) = restored {
            if let Some(patience) = restored.patience {
                control.set_patience(patience);
            }
            if let Some((folder, progress)) = restored.known {
                (status.folder, status.progress) = (Some(folder), progress);
            }
        }
        let (status, watched) = watch::channel(status);
        let (holders, hold) = Holders::new();
        let name = options.name.clone().or(asked.clone());
        let running = RunningFolder::new(
            checked,
            (name, options.directory.clone()),
            (Arc::clone(&control), holders),
            watched.clone(),
        );
        let download = FolderDownload::new(watched, hold, control);
        let task = Self {
            shared: Arc::clone(shared),
            status,
            registered: shared.running_folders.add(running),
            claimed: OnceLock::new(),
            joined: Mutex::default(),
            record,
            asked: asked.clone(),
            stored_as: options.name.clone(),
            overwrites: options.if_taken == IfTaken::Overwrite,
        };
        let request = FolderRequest {
            key,
            asked,
            name: options.name,
            paths: options.paths,
            owners: options.owners,
            directory: options.directory,
            limits: options.limits,
            wrong: options.wrong,
        };
        (task, request, download)
    }

    /// Runs until the folder is here, or the download fails.
    pub(in crate::peer) async fn run(self, request: FolderRequest) {
        let stop = self.shared.tasks.stop.clone();
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Err(DownloadError::ShutDown.into()),
            () = self.registered.holders.cancelled().cancelled() => {
                Err(DownloadError::Cancelled.into())
            }
            outcome = Box::pin(self.fetch(&request)) => outcome,
        };
        let outcome = self.wind_up(outcome, &request).await;
        self.registered.release();
        self.status.send_modify(|status| {
            status.stall = None;
            status.paused = false;
            status.queued = false;
            status.outcome = Some(outcome);
        });
    }

    async fn fetch(&self, request: &FolderRequest) -> Result<Folder, FolderError> {
        let shared = &self.shared;
        if let Some(wrong) = &request.wrong {
            return Err(wrong.clone());
        }
        let main = shared.storage.folders().ok_or(FolderError::Unsupported)?;
        let key = request.key.clone().check()?;
        check_owners(shared, &request.owners)?;
        self.control().add_owners(request.owners.clone());
        let homes = self.homes(main, request).await?;
        let found = match self.locate(&key, &homes, request).await? {
            Located::Here(folder) => return Ok(folder),
            Located::Elsewhere(found) => found,
        };
        let id = found.id;
        let asked = request.asked.clone();
        let here = self.here(id, &homes, request)?;
        let names = match &here {
            // It keeps its name.
            Some((folder, _)) => Names {
                stored: vec![folder.name.clone()],
                listed: asked.unwrap_or_else(|| found.name.clone()),
            },
            None => names(shared, request.name.clone(), asked, &found)?,
        };
        if here.is_none() && !shared.folders.begin(id, shared.contents.is_alone(&id)) {
            return Err(FolderError::AlreadyHere { id });
        }
        // Whatever ends this, also that the future is dropped.
        let mut undo = Undo {
            shared: Some(shared),
            id,
            kept: here.as_ref().map(|_| shared.folders.files(&id)),
        };
        let obtain = self.begin(&homes, &found).await?;
        let job = Job {
            homes,
            obtain,
            names,
            here,
        };
        let fetched = tokio::select! {
            biased;
            fetched = Box::pin(self.fetch_into(&job, found.length)) => fetched,
            never = self.follow_stalls() => match never {},
            never = Box::pin(self.follow_pauses(&job)) => match never {},
        };
        if fetched.is_ok() || undo.kept.is_none() {
            undo.shared = None;
        }
        if fetched.is_err() && undo.kept.is_none() && release_files(shared, &id) {
            // Whoever hears of the error finds nothing served any more.
            unshare(shared, &id).await;
        }
        fetched
    }

    /// Finds the folder, and claims it.
    async fn locate(
        &self,
        key: &ContentKey,
        homes: &Homes,
        request: &FolderRequest,
    ) -> Result<Located, FolderError> {
        if let ContentKey::Id(id) = key
            && let Some(outcome) = self.claim(*id, homes, request).await
        {
            return outcome.map(Located::Here);
        }
        let found = self.while_unpaused(|| Box::pin(self.find(key.clone(), &request.owners)));
        let found = found.await?;
        if let ContentKey::Name(_) = key
            && let Some(outcome) = self.claim(found.id, homes, request).await
        {
            return outcome.map(Located::Here);
        }
        match found.length > MAX_INDEX_LEN {
            true => Err(FolderIndexError::TooLong { len: found.length }.into()),
            false => Ok(Located::Elsewhere(found)),
        }
    }

    fn control(&self) -> &Arc<FolderControl> {
        &self.registered.control
    }

    /// Where the folder is to go.
    async fn homes(&self, main: Folders, request: &FolderRequest) -> Result<Homes, FolderError> {
        let Some(path) = &request.directory else {
            let target = main.clone();
            return Ok(Homes {
                main,
                target,
                is_elsewhere: false,
            });
        };
        let storage = self.shared.storage.in_directory(path).await;
        let storage = storage.map_err(|source| {
            let path = path.clone();
            DownloadError::Directory { path, source }
        })?;
        let target = storage.folders().ok_or(FolderError::Unsupported)?;
        Ok(Homes {
            is_elsewhere: target.path() != main.path(),
            main,
            target,
        })
    }

    /// From now on this download fetches the folder. Something if there is nothing to
    /// fetch: it is here, or another download has fetched it.
    async fn claim(
        &self,
        id: ContentId,
        homes: &Homes,
        request: &FolderRequest,
    ) -> Option<Result<Folder, FolderError>> {
        if let Some(limits) = request.limits {
            self.shared.limit_content(id, limits);
        }
        loop {
            match self.registered.claim(id) {
                Ok(()) => {
                    // Nobody else sets them.
                    let _ = self.registered.found.set(id);
                    let homes = homes.clone();
                    let _ = self.claimed.set(Claimed { id, homes });
                    let here = intact(&self.shared, &id).await;
                    let here = here.map_err(FolderError::from).transpose()?;
                    return Some(here.and_then(|folder| has_name(folder, request)));
                }
                Err(other) => {
                    let joined = match other.holders.join() {
                        Some(hold) => self.follow(Join { other, hold }, id, request).await,
                        None => {
                            ended(&other).await;
                            None
                        }
                    };
                    if let Some(joined) = joined {
                        return Some(joined.and_then(|folder| has_name(folder, request)));
                    }
                }
            }
        }
    }

    /// Shows what another download of the folder does, until it ends. Nothing if that was
    /// too late for what is wanted here: then the rest is to be fetched.
    async fn follow(
        &self,
        join: Join,
        id: ContentId,
        request: &FolderRequest,
    ) -> Option<Result<Folder, FolderError>> {
        let Join { other, hold } = join;
        let has_name = |name| other.name.as_ref().is_none_or(|other| other == name);
        if !request.name.as_ref().is_none_or(has_name)
            || request.directory.is_some() && request.directory != other.directory
        {
            return Some(Err(FolderError::AlreadyHere { id }));
        }
        let _ = self.registered.found.set(id);
        self.registered.unlist();
        // It is recorded as one with the other.
        self.record.write(None, None).await;
        self.control().join(&other.control);
        other.control.add_owners(request.owners.clone());
        *self.joined() = Some(Join {
            other: Arc::clone(&other),
            hold,
        });
        let outcome = self.watch(&other, request).await;
        // The part in it is given back.
        drop(self.joined().take());
        outcome
    }

    /// This download has ended, by itself or with its handles: what that means for the one
    /// that it has joined, if it still has.
    async fn leave_joined(&self) -> Result<(), FolderError> {
        let joined = self.joined().take();
        let (Some(Join { other, hold }), holders) = (joined, &self.registered.holders) else {
            return Ok(());
        };
        if !holders.discards() {
            if holders.was_explicit() {
                hold.cancel();
            }
            return Ok(());
        }
        if hold.discard() {
            // Others want it.
            return Ok(());
        }
        ended(&other).await;
        match &other.status.borrow().outcome {
            Some(Err(error @ FolderError::Storage(_))) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn joined(&self) -> MutexGuard<'_, Option<Join>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(
        &self,
        other: &RunningFolder,
        request: &FolderRequest,
    ) -> Option<Result<Folder, FolderError>> {
        let (paths, name) = (&request.paths, request.name.as_ref());
        let mut running = other.status.clone();
        let mut is_wanted = false;
        loop {
            let seen = running.borrow_and_update().clone();
            if let (Some(index), Some(folder), false) = (&seen.index, &seen.folder, is_wanted) {
                if name.is_some_and(|name| *name != folder.name) {
                    let id = folder.id;
                    return Some(Err(FolderError::AlreadyHere { id }));
                }
                if let Err(path) = Selection::new(paths.clone()).of(index) {
                    return Some(Err(FolderError::NoSuchPath { path }));
                }
                if !other.control.want(paths) {
                    ended(other).await;
                    self.control().part();
                    self.registered.list();
                    return None;
                }
                is_wanted = true;
            }
            if let Some(outcome) = &seen.outcome {
                return Some(outcome.clone());
            }
            self.status.send_modify(|status| *status = seen);
            if running.changed().await.is_err() {
                return Some(Err(DownloadError::ShutDown.into()));
            }
        }
    }

    /// The part of the folder that is here, if there is one.
    fn here(
        &self,
        id: ContentId,
        homes: &Homes,
        request: &FolderRequest,
    ) -> Result<Option<(Folder, Arc<PlacedFiles>)>, FolderError> {
        let folders = &self.shared.folders;
        let (Some((folder, _)), Some(placed)) = (folders.get(&id), folders.placed(&id)) else {
            return Ok(None);
        };
        // What the user has shared is not changed.
        let is_there = homes.target.root(&folder.name).path() == placed.root().path();
        let fits = request
            .name
            .as_ref()
            .is_none_or(|name| *name == folder.name);
        match is_there && fits {
            true => Ok(Some((folder, placed))),
            false => Err(FolderError::AlreadyHere { id }),
        }
    }

    /// Does something while the download is not paused, and does it again from the
    /// beginning when it was paused meanwhile. `step` has to be cancel safe.
    async fn while_unpaused<T, F>(&self, mut step: impl FnMut() -> F) -> T
    where
        F: Future<Output = T>,
    {
        let mut changes = self.control().changes();
        loop {
            changes.mark_unchanged();
            if self.note_pause(None).await.is_some() {
                // The sender is in the control.
                let _ = changes.changed().await;
                continue;
            }
            let mut work = pin!(step());
            loop {
                tokio::select! {
                    biased;
                    Ok(()) = changes.changed() => if self.note_pause(None).await.is_some() {
                        break;
                    },
                    done = &mut work => return done,
                }
            }
        }
    }

    /// Shows and records how the download is paused, if it is; or that it is not any more.
    async fn note_pause(&self, home: Option<&Arc<FolderHome>>) -> Option<PauseOptions> {
        let pause = *self.control().pauses().borrow();
        self.show_paused(pause.is_some());
        if pause.is_some() || self.record.is_there() {
            self.record_pause(home).await;
        }
        pause
    }

    fn show_paused(&self, paused: bool) {
        self.status.send_if_modified(|status| {
            let changed = status.paused != paused;
            status.paused = paused;
            status.stall = status.stall.filter(|_| !paused);
            changed
        });
    }

    /// Has the storage record how the download is paused, or that it went on, with all that
    /// is wanted of it. `home` is that of the folder, if it is open.
    async fn record_pause(&self, home: Option<&Arc<FolderHome>>) {
        let Some(key) = &self.registered.key else {
            return;
        };
        let control = self.control();
        let pause = *control.pauses().borrow();
        let limits = self
            .registered
            .id()
            .map(|id| self.shared.limiter.content(&id));
        let known = {
            let status = self.status.borrow();
            let folder = status.folder.clone();
            folder.map(|folder| (folder, status.progress))
        };
        let form = FolderForm {
            state: pause.map_or(RecordedState::Resumed, RecordedState::Paused),
            key: self.asked.clone().map_or(key.clone(), ContentKey::Name),
            name: self.stored_as.clone(),
            directory: self.registered.directory.clone(),
            overwrites: self.overwrites,
            paths: control.selections().borrow().paths().to_vec(),
            priority: control.priority(),
            seeds: control.seeds(),
            patience: control.patience(),
            limits: limits.filter(|limits| *limits != ContentLimits::default()),
            owners: control.owners(),
            known,
        };
        self.record.write(self.record_place(home), Some(form)).await;
    }

    /// Where a pause is recorded, once the folder is found.
    fn record_place(&self, home: Option<&Arc<FolderHome>>) -> Option<RecordPlace> {
        let claimed = self.claimed.get()?;
        Some(RecordPlace {
            id: claimed.id,
            folders: claimed.homes.main.clone(),
            home: home.cloned(),
        })
    }

    /// Finds the folder, and says so when no tracker answers.
    async fn find(&self, key: ContentKey, owners: &[Addr]) -> Result<Found, FolderError> {
        let mut search = Search::new(&self.shared, key, owners);
        loop {
            match search.ask().await {
                Ok(found) => {
                    self.show_stall(None);
                    return Ok(found);
                }
                Err(Missed::Finally(error)) => return Err(error.into()),
                Err(Missed::Yet(reason)) => self.show_stall(Some(reason)),
            }
            search.wait().await?;
        }
    }

    /// Shows why nothing arrives for any of the files, when that is so.
    async fn follow_stalls(&self) -> Infallible {
        let board = &self.control().board;
        let mut ticks = tokio::time::interval(STALL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.show_stall(board.stall());
        }
    }

    /// Shows and records when the download is paused. The files hear of that by
    /// themselves.
    async fn follow_pauses(&self, job: &Job) -> Infallible {
        let home = Some(&job.obtain.home).filter(|_| !job.homes.is_elsewhere);
        let mut changes = self.control().changes();
        let mut is_hidden = false;
        loop {
            changes.mark_unchanged();
            let pause = self.note_pause(home).await;
            let hides = job.here.is_none() && pause.is_some_and(|pause| !pause.serve);
            match (is_hidden, hides) {
                (false, true) => job.hide().await,
                (true, false) => job.unhide(),
                _ => {}
            }
            is_hidden = hides;
            // It never ends: the sender is in the control.
            let _ = changes.changed().await;
        }
    }

    fn show_stall(&self, stall: Option<StallReason>) {
        let queued = self.control().board.is_queued();
        self.status.send_if_modified(|status| {
            let stall = stall.filter(|_| !status.paused);
            let changed = status.stall != stall || status.queued != queued;
            status.stall = stall;
            status.queued = queued;
            changed
        });
    }

    async fn begin(&self, homes: &Homes, found: &Found) -> Result<Obtain, FolderError> {
        let home = Arc::new(FolderHome::open(&homes.target, found.id).await?);
        let target = FolderTarget::new(home.files().clone());
        let owners = found.owners.iter();
        let owners = owners.map(|owner| (owner.addr.clone(), owner.complete));
        let owners = Some(owners.collect::<Vec<_>>());
        let source = FolderSource::new(found.id, target.clone(), Vec::new(), owners);
        Ok(Obtain {
            shared: Arc::clone(&self.shared),
            home,
            target,
            source: Arc::new(source),
            control: Arc::clone(self.control()),
        })
    }

    /// Fetches the folder, puts it in its place, and shares it if that is wanted.
    async fn fetch_into(&self, job: &Job, length: u64) -> Result<Folder, FolderError> {
        let obtain = &job.obtain;
        let (whole, bytes) = index(obtain, &job.names.listed, length).await?;
        // Before anything is looked for.
        self.selected(&whole)?;
        let mut base = match &job.here {
            Some((folder, placed)) => Some(Base {
                name: folder.name.clone(),
                overwrites: self.overwrites,
                inherited: Staged::default(),
                placed: placed.present(&whole).await?,
            }),
            None => {
                let (shared, target) = (&self.shared, &job.homes.target);
                let (names, overwrites) = (&job.names.stored, self.overwrites);
                existing(shared, target, &obtain.home, names, &whole, overwrites).await?
            }
        };
        self.status
            .send_modify(|status| status.index = Some(whole.clone()));
        let fetched = self
            .files(obtain, &whole, &job.names.stored[0], &mut base)
            .await?;
        let Fetched {
            part,
            missing,
            blobs,
        } = fetched;
        let (name, placed) = match base {
            None => {
                let (name, placed) = publish(obtain, &job.names.stored, &part, &blobs).await?;
                (name, placed.within(&part, &whole))
            }
            Some(Base { name, placed, .. }) if missing.entries().is_empty() => (name, placed),
            Some(base) => {
                let (home, root) = (&obtain.home, base.placed.root());
                let added = match base.overwrites {
                    true => home.replace(root, &missing, &blobs).await?,
                    false => home.extend(root, &missing, &blobs).await?,
                };
                let placed = base.placed.and(added.within(&missing, &whole));
                (base.name, placed)
            }
        };
        let root = placed.root().path();
        let folder = Folder {
            id: obtain.source.index(),
            name,
            files: placed.len(),
            length: placed.length(),
        };
        job.settle(&folder, (&whole, &part), bytes, placed).await?;
        if self.overwrites {
            for (other, _) in self.shared.folders.placed_at(&root) {
                if other != folder.id {
                    // This one lies in its place.
                    unshare_any(&self.shared, &other).await;
                }
            }
        }
        Ok(folder)
    }

    /// What is wanted now.
    fn selected(&self, whole: &FolderIndex) -> Result<FolderIndex, FolderError> {
        let part = self.control().selections().borrow().of(whole);
        part.map_err(|path| FolderError::NoSuchPath { path })
    }

    /// Gets all files, several at a time, also those that are wanted later.
    async fn files(
        &self,
        obtain: &Obtain,
        whole: &FolderIndex,
        name: &ContentName,
        base: &mut Option<Base>,
    ) -> Result<Fetched, FolderError> {
        let id = obtain.source.index();
        // So many may be active, and as many wait in line: each that ends makes room for
        // another one of this folder, if its priority is higher than that of others.
        let at_a_time = 2 * self.shared.config.max_downloads.max(1);
        let mut selections = self.control().selections();
        let mut done = Done::default();
        let mut known = HashSet::new();
        let mut queue: VecDeque<Wanted> = VecDeque::new();
        let mut running = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let selection = selections.borrow_and_update().clone();
            let (part, missing) = self.wanted(obtain, whole, name, base, &mut done).await?;
            let wanted = wanted(&self.shared, &missing);
            self.shared
                .folders
                .expect(&id, wanted.iter().map(|file| file.id));
            queue.extend(wanted.into_iter().filter(|file| known.insert(file.id)));
            let more = loop {
                while running.len() < at_a_time
                    && let Some(file) = queue.pop_front()
                {
                    running.push(get(obtain, file));
                }
                if running.is_empty() {
                    break false;
                }
                tokio::select! {
                    biased;
                    Some((file, result)) = running.next() => {
                        let got = result.map_err(|error| error.at(&file.entry.path))?;
                        done.got(&file, &got);
                        let found = got.found.filter(|_| is_long(file.length));
                        serve_file(&self.shared, id, got.blob, file.entry, found);
                    }
                    Ok(()) = selections.changed() => break true,
                    _ = ticks.tick() => {}
                }
                self.show(&done);
            };
            if !more && self.control().seal(&selection) {
                return Ok(Fetched {
                    part,
                    missing,
                    blobs: done.blobs,
                });
            }
        }
    }

    /// What is wanted now, and what of that is not in its place.
    async fn wanted(
        &self,
        obtain: &Obtain,
        whole: &FolderIndex,
        name: &ContentName,
        base: &mut Option<Base>,
        done: &mut Done,
    ) -> Result<(FolderIndex, FolderIndex), FolderError> {
        let id = obtain.source.index();
        let part = self.selected(whole)?;
        let missing = missing(&self.shared, &obtain.home, whole, &part, base).await?;
        check_room(obtain, &missing).await?;
        done.want(&part, &missing);
        let name = base.as_ref().map_or(name, |base| &base.name);
        self.show_folder(id, &part, name);
        self.show(done);
        Ok((part, missing))
    }

    fn show_folder(&self, id: ContentId, part: &FolderIndex, name: &ContentName) {
        let (files, length) = part.size();
        let folder = Folder {
            id,
            name: name.clone(),
            files,
            length,
        };
        self.status
            .send_modify(|status| status.folder = Some(folder));
    }

    fn show(&self, done: &Done) {
        let board = &self.control().board;
        let (running, totals) = (board.verified_bytes(), board.totals());
        self.status.send_if_modified(|status| {
            let mut next = done.progress;
            next.verified_bytes += running;
            let changed = status.progress != next || status.totals != totals;
            status.progress = next;
            status.totals = totals;
            changed
        });
    }

    /// The download has ended: what nobody needs any more is removed.
    async fn wind_up(
        &self,
        outcome: Result<Folder, FolderError>,
        request: &FolderRequest,
    ) -> Result<Folder, FolderError> {
        self.leave_joined().await?;
        let cancelled: FolderError = DownloadError::Cancelled.into();
        if outcome.as_ref().err() == Some(&cancelled) {
            self.claim_late(request).await;
        }
        let stop = &self.shared.tasks.stop;
        let holders = &self.registered.holders;
        if stop.is_cancelled() && outcome.is_err() {
            let has_ended = holders.was_explicit() && !holders.discards();
            let pause = *self.control().pauses().borrow();
            if has_ended {
                self.record.write(self.record_place(None), None).await;
            } else if pause.is_some() || self.record.is_there() {
                self.record_pause(None).await;
            }
            return outcome;
        }
        let (Some(claimed), Err(error)) = (self.claimed.get(), &outcome) else {
            self.record.write(self.record_place(None), None).await;
            return outcome;
        };
        if matches!(error, FolderError::Storage(StorageError::Locked { .. })) {
            // It is somebody else's.
            return outcome;
        }
        let cancelled = matches!(error, FolderError::Download(DownloadError::Cancelled));
        let discards = cancelled && holders.discards();
        let removed = self.remove_rest(claimed, discards);
        match stop.run_until_cancelled(removed).await {
            Some(Ok(())) => {}
            Some(Err(error)) if discards => return Err(error.into()),
            Some(Err(error)) => log_failed(Err(error)),
            None => return Err(DownloadError::ShutDown.into()),
        }
        outcome
    }

    /// A download by id that was cancelled before it could claim anything: what an earlier
    /// one has left, and its record, are removed as well.
    async fn claim_late(&self, request: &FolderRequest) {
        let (None, Some(ContentKey::Id(id)), Some(main)) = (
            self.claimed.get(),
            &self.registered.key,
            self.shared.storage.folders(),
        ) else {
            return;
        };
        if let Ok(homes) = self.homes(main, request).await
            && self.registered.claim(*id).is_ok()
        {
            // Nobody else sets it.
            let _ = self.claimed.set(Claimed { id: *id, homes });
        }
    }

    async fn remove_rest(&self, claimed: &Claimed, discards: bool) -> Result<(), StorageError> {
        let (shared, id) = (&self.shared, claimed.id);
        self.control().board.ended().await;
        // What is recorded at this moment is to be removed as well.
        self.record.write(self.record_place(None), None).await;
        if shared.folders.get(&id).is_none()
            && shared.contents.role(&id) == Some(Role::Index)
            && !shared.contents.is_alone(&id)
        {
            unshare(shared, &id).await;
        }
        let homes = &claimed.homes;
        let mut folders = vec![&homes.target];
        folders.extend(Some(&homes.main).filter(|_| homes.is_elsewhere));
        for folders in folders {
            if !FolderHome::is_there(folders, id).await? {
                continue;
            }
            let home = open_when_free(folders, id).await?;
            home.record_paused(None).await?;
            if home.is_recorded().await? {
                if discards {
                    home.clear().await?;
                }
            } else if discards || !home.holds_anything().await? {
                try_remove(&home).await?;
            }
        }
        Ok(())
    }
}

/// The folder, if it has the name that is wanted: it has one name here, and is not copied
/// to another.
fn has_name(folder: Folder, request: &FolderRequest) -> Result<Folder, FolderError> {
    match &request.name {
        Some(name) if *name != folder.name => Err(FolderError::AlreadyHere { id: folder.id }),
        _ => Ok(folder),
    }
}

/// Waits until a download has ended, and fetches nothing any more.
async fn ended(running: &RunningFolder) {
    let mut status = running.status.clone();
    // An error says that it has ended without an outcome.
    let _ = status.wait_for(|status| status.outcome.is_some()).await;
}
