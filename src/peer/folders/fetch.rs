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

mod ending;
mod files;
mod getting;
mod homes;
mod job;
mod joining;
mod locating;
mod naming;
mod pausing;
mod showing;
mod undo;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use homes::Homes;
use job::Job;
use naming::{Names, has_name, names};
use undo::Undo;

use super::control::FolderControl;
use super::error::FolderError;
use super::pause_record::PauseRecord;
use super::release::release_files;
use super::running::{Registered, RunningFolder};
use super::status::{Folder, FolderProgress, FolderStatus};
use crate::content::{ContentId, ContentName, FolderPath};
use crate::error::DownloadError;
use crate::peer::contents::common_place::CommonFolder;
use crate::peer::contents::serve::unshare;
use crate::peer::downloads::holders::Holders;
use crate::peer::downloads::task::check_owners;
use crate::peer::handles::download::IfTaken;
use crate::peer::handles::folder::{FolderDownload, FolderOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::protocol::{Addr, ContentKey, Found};
use crate::storage::PausedId;

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
    /// The files of another content that its files lie in.
    common: Option<CommonFolder>,
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
    joined: Mutex<Option<Arc<RunningFolder>>>,
    /// The record of a pause, and what of the request is in it.
    record: PauseRecord,
    asked: Option<ContentName>,
    stored_as: Option<ContentName>,
    overwrites: bool,
    /// Whether its files lie in those of another content, with which it goes on after a
    /// restart.
    is_common: bool,
    /// Whether it was recorded before the peer was started.
    is_restored: bool,
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
        control.add_owners(options.owners.clone());
        if let Some(limits) = options.limits {
            control.set_limits(limits);
        }
        let is_restored = restored.is_some();
        let record = restored.as_ref().map(|restored| restored.record);
        let record = PauseRecord::new(shared, record);
        let is_possible = options.wrong.is_none()
            && shared.storage.folders().is_some()
            && check_owners(shared, &options.owners).is_ok();
        let checked = key.clone().check().ok().filter(|_| is_possible);
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
            (checked, asked.clone()),
            (name, options.directory.clone()),
            (Arc::clone(&control), holders),
            watched.clone(),
        );
        let download = FolderDownload::new(watched, hold, control);
        let place = (options.name.as_ref(), options.directory.as_deref());
        let (registered, other) = shared.running_folders.add(running, place);
        let task = Self {
            shared: Arc::clone(shared),
            status,
            registered,
            claimed: OnceLock::new(),
            joined: Mutex::default(),
            record,
            asked: asked.clone(),
            stored_as: options.name.clone(),
            overwrites: options.if_taken == IfTaken::Overwrite,
            is_common: options.common.is_some(),
            is_restored,
        };
        if let Some((other, part)) = other {
            task.joins(&other, part);
        }
        let request = FolderRequest {
            key,
            asked,
            name: options.name,
            paths: options.paths,
            owners: options.owners,
            directory: options.directory,
            common: options.common,
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
        if let Some(other) = self.has_joined()
            && let Some(outcome) = self.follow(&other, request).await
        {
            return outcome.and_then(|folder| has_name(folder, request.name.as_ref()));
        }
        let homes = self.homes(main, request).await?;
        let found = match self.locate(&key, &homes, request).await? {
            Located::Here(folder) => return Ok(folder),
            Located::Elsewhere(found) => found,
        };
        let id = found.id;
        let asked = request.asked.clone();
        let here = self.here(id, &homes, request)?;
        let common = request.common.as_ref().filter(|_| here.is_none());
        let names = match (&here, common) {
            // It keeps its name.
            (Some((folder, _)), _) => Names {
                stored: vec![folder.name.clone()],
                listed: asked.unwrap_or_else(|| found.name.clone()),
            },
            (None, Some(CommonFolder(tree))) => {
                let mut names = names(shared, None, asked, &found)?;
                names.stored.insert(0, tree.name().clone());
                names
            }
            (None, None) => names(shared, request.name.clone(), asked, &found)?,
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
        let obtain = self.begin(&homes, &found, common).await?;
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

    fn control(&self) -> &Arc<FolderControl> {
        &self.registered.control
    }
}
