//! What users want of a download, beyond that it goes on: whether it is paused, when it
//! begins, its settings, and whether its content is shared in the end.
//!
//! All handles of a download share this. A download that joins another one hands what is
//! wanted of it on to that one:
//!
//! ```text
//!   own ──it joins another──▶ handed on
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::priority::Priority;
use crate::peer::downloads::queue::QueueTicket;
use crate::peer::downloads::settings::Settings;

/// What is wanted of one download.
pub(in crate::peer) struct DownloadControl {
    ticket: QueueTicket,
    /// The directory that the content goes to, if it is another one than that of the storage.
    directory: OnceLock<PathBuf>,
    pause: watch::Sender<Option<PauseOptions>>,
    settings: watch::Sender<Settings>,
    /// Which version of the settings is in effect; `None` as long as nothing is fetched.
    in_effect: watch::Sender<Option<u64>>,
    state: Mutex<State>,
}

struct State {
    /// Whether the content is shared when it is complete.
    seeds: bool,
    /// The download that this one has joined.
    joined: Option<Arc<DownloadControl>>,
}

impl DownloadControl {
    pub(in crate::peer) fn new(ticket: QueueTicket) -> Arc<Self> {
        Arc::new(Self {
            ticket,
            directory: OnceLock::new(),
            pause: watch::Sender::new(None),
            settings: watch::Sender::default(),
            in_effect: watch::Sender::default(),
            state: Mutex::new(State {
                seeds: true,
                joined: None,
            }),
        })
    }

    /// The place in the queue. Of a download that has joined another one, that of the
    /// other.
    pub(in crate::peer) fn ticket(&self) -> QueueTicket {
        match self.joined() {
            Some(other) => other.ticket(),
            None => self.ticket.clone(),
        }
    }

    /// This download puts its content there, and not into the directory of the storage.
    pub(in crate::peer) fn goes_to(&self, directory: &Path) {
        // It is set once.
        let _ = self.directory.set(directory.to_path_buf());
    }

    /// The directory that this download puts its content in, if it is another one than that
    /// of the storage. Not that of another one that it has joined.
    pub(in crate::peer) fn directory(&self) -> Option<&Path> {
        self.directory.get().map(PathBuf::as_path)
    }

    /// Pauses the download, or lets it go on.
    pub(in crate::peer) fn set_pause(&self, pause: Option<PauseOptions>) {
        let state = self.state();
        match &state.joined {
            Some(other) => other.set_pause(pause),
            None => {
                self.pause.send_if_modified(|before| {
                    let changed = *before != pause;
                    *before = pause;
                    changed
                });
            }
        }
    }

    /// How this download is paused, if it is, and whoever hears of changes. Not that of
    /// another one that it has joined.
    pub(in crate::peer) fn pauses(&self) -> watch::Receiver<Option<PauseOptions>> {
        self.pause.subscribe()
    }

    /// Changes when this download begins.
    pub(in crate::peer) fn set_priority(&self, priority: Priority) {
        let state = self.state();
        match &state.joined {
            Some(other) => {
                let other = Arc::clone(other);
                drop(state);
                return other.set_priority(priority);
            }
            // Under the lock: it is not joined to another one meanwhile.
            None => self.ticket.set_priority(priority),
        }
        drop(state);
        self.change(|_| {});
    }

    /// Changes the settings.
    pub(in crate::peer) fn change(&self, change: impl FnOnce(&mut Settings)) {
        let state = self.state();
        match &state.joined {
            Some(other) => {
                let other = Arc::clone(other);
                drop(state);
                // In a box: the other one may have joined one as well.
                other.change_as(Box::new(change));
            }
            None => self.settings.send_modify(|settings| {
                change(settings);
                settings.note_change();
            }),
        }
    }

    fn change_as(&self, change: Box<dyn FnOnce(&mut Settings) + '_>) {
        self.change(change);
    }

    /// The settings of this download, and whoever hears of changes. Not those of another
    /// one that it has joined.
    pub(in crate::peer) fn settings(&self) -> watch::Receiver<Settings> {
        self.settings.subscribe()
    }

    /// Which version of the settings is in effect; `None` if nothing is fetched.
    pub(in crate::peer) fn set_in_effect(&self, version: Option<u64>) {
        self.in_effect.send_replace(version);
    }

    /// Waits until the present settings are in effect, if something is being fetched.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn in_effect(&self) {
        let (version, mut seen) = self.present();
        // Fails if the download has ended.
        let _ = seen
            .wait_for(|seen| seen.is_none_or(|seen| seen >= version))
            .await;
    }

    fn present(&self) -> (u64, watch::Receiver<Option<u64>>) {
        match self.joined() {
            Some(other) => other.present(),
            None => (self.settings.borrow().version(), self.in_effect.subscribe()),
        }
    }

    /// Sets whether the content is shared when it is complete.
    pub(in crate::peer) fn set_seeds(&self, seeds: bool) {
        self.state().seeds = seeds;
    }

    /// Whether the content is shared when it is complete.
    pub(in crate::peer) fn seeds(&self) -> bool {
        self.state().seeds
    }

    /// This download has joined another one, which does from now on what is wanted of
    /// this one: it is paused if this one is, it begins no later than this one would, and
    /// is shared if one of both is to be.
    pub(in crate::peer) fn join(&self, other: &Arc<Self>) {
        let mut state = self.state();
        state.joined = Some(Arc::clone(other));
        let pause = *self.pause.borrow();
        if pause.is_some() {
            other.set_pause(pause);
        }
        if state.seeds {
            other.set_seeds(true);
        }
        let settings = self.settings.borrow().clone();
        other.change(|its| its.take_over(&settings));
        let ticket = other.ticket();
        let priority = self.ticket.priority();
        if priority > ticket.priority() {
            ticket.set_priority(priority);
        }
    }

    fn joined(&self) -> Option<Arc<Self>> {
        self.state().joined.clone()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
