//! What users want of a download of a folder, and what is done for its files at this
//! moment: a pause, a priority or an owner goes to all of them, also to those that begin
//! later.
//!
//! All handles of a download share this. A download that joins another one hands what is
//! wanted of it on to that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::board::{Board, FileDownload, Posted};
use super::selection::Selection;
use crate::content::{ContentId, FolderIndex, FolderPath};
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::priority::Priority;
use crate::peer::downloads::settings::Settings;
use crate::peer::limits::ContentLimits;
use crate::protocol::Addr;

/// What is wanted of one download of a folder.
pub(in crate::peer) struct FolderControl {
    pause: watch::Sender<Option<PauseOptions>>,
    selection: watch::Sender<Selection>,
    /// Told of each change of what is wanted.
    changes: watch::Sender<()>,
    state: Mutex<State>,
    /// Its files that are under way.
    pub(in crate::peer) board: Board,
}

struct State {
    priority: Priority,
    /// Whether the folder is shared when it is complete.
    seeds: bool,
    settings: Settings,
    /// What others want that have joined this one, as long as that is not part of the
    /// selection: nobody knows yet whether it is in the folder.
    wishes: BTreeMap<u64, Vec<FolderPath>>,
    /// How many wishes there were.
    wished: u64,
    /// The download that this one has joined.
    joined: Option<Arc<FolderControl>>,
}

/// What one that has joined a download wants of it, until this is dropped.
pub(super) struct Wish {
    control: Arc<FolderControl>,
    number: u64,
}

impl FolderControl {
    pub(super) fn new(paths: Vec<FolderPath>) -> Arc<Self> {
        Arc::new(Self {
            pause: watch::Sender::new(None),
            selection: watch::Sender::new(Selection::new(paths)),
            changes: watch::Sender::new(()),
            state: Mutex::new(State {
                priority: Priority::default(),
                seeds: true,
                settings: Settings::default(),
                wishes: BTreeMap::new(),
                wished: 0,
                joined: None,
            }),
            board: Board::default(),
        })
    }

    /// The one that this has joined, or itself.
    pub(in crate::peer) fn last(self: &Arc<Self>) -> Arc<Self> {
        let joined = self.state().joined.clone();
        joined.map_or_else(|| Arc::clone(self), |other| other.last())
    }

    /// Pauses the download with all files that are under way, or lets it go on.
    pub(in crate::peer) fn set_pause(&self, pause: Option<PauseOptions>) {
        let state = self.state();
        if let Some(other) = &state.joined {
            return other.set_pause(pause);
        }
        let changed = self.pause.send_if_modified(|before| {
            let changed = *before != pause;
            *before = pause;
            changed
        });
        if changed {
            self.board.each(|file| file.control.set_pause(pause));
            self.note_change();
        }
    }

    /// How this download is paused, if it is, and whoever hears of changes. Not that of
    /// another one that it has joined.
    pub(super) fn pauses(&self) -> watch::Receiver<Option<PauseOptions>> {
        self.pause.subscribe()
    }

    /// Whoever hears of changes of anything that is wanted, also of a pause.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Something has changed.
    pub(in crate::peer) fn note_change(&self) {
        self.changes.send_replace(());
    }

    /// Waits as long as it is paused.
    ///
    /// Cancel safe.
    pub(super) async fn unpaused(&self) {
        // The sender is here.
        let _ = self.pauses().wait_for(Option::is_none).await;
    }

    /// Changes when its files begin.
    pub(in crate::peer) fn set_priority(&self, priority: Priority) {
        let mut state = self.state();
        if let Some(other) = &state.joined {
            return other.set_priority(priority);
        }
        state.priority = priority;
        self.board.each(|file| file.control.set_priority(priority));
        self.note_change();
    }

    pub(in crate::peer) fn priority(&self) -> Priority {
        let state = self.state();
        match &state.joined {
            Some(other) => other.priority(),
            None => state.priority,
        }
    }

    /// Sets whether the folder is shared when it is complete.
    pub(super) fn set_seeds(&self, seeds: bool) {
        let mut state = self.state();
        if let Some(other) = &state.joined {
            return other.set_seeds(seeds);
        }
        state.seeds = seeds;
        drop(state);
        self.note_change();
    }

    /// Whether the folder is shared when it is complete.
    pub(super) fn seeds(&self) -> bool {
        self.state().seeds
    }

    /// Changes how long nothing may arrive for a file.
    pub(in crate::peer) fn set_patience(&self, patience: Option<Duration>) {
        self.change(|settings| settings.patience = Some(patience));
    }

    /// Adds owners to ask.
    pub(in crate::peer) fn add_owners(&self, owners: Vec<Addr>) {
        self.change(|settings| settings.add_owners(owners.iter().cloned()));
    }

    /// Sets how fast the folder may be sent and received. Whoever knows its id sees to that.
    pub(super) fn set_limits(&self, limits: ContentLimits) {
        let mut state = self.state();
        if let Some(other) = &state.joined {
            return other.set_limits(limits);
        }
        state.settings.limits = Some(limits);
        drop(state);
        self.note_change();
    }

    /// What the user has set. It holds for all files.
    pub(super) fn settings(&self) -> Settings {
        self.state().settings.clone()
    }

    /// The owners that the user has named.
    pub(super) fn owners(&self) -> Vec<Addr> {
        self.state().settings.owners().cloned().collect()
    }

    fn change(&self, change: impl Fn(&mut Settings)) {
        let mut state = self.state();
        if let Some(other) = &state.joined {
            return other.change(change);
        }
        change(&mut state.settings);
        drop(state);
        self.board.each(|file| file.control.change(&change));
        self.note_change();
    }

    /// What is wanted, and whoever hears of more.
    pub(super) fn selections(&self) -> watch::Receiver<Selection> {
        self.selection.subscribe()
    }

    /// The part of the folder that is wanted; nothing if it has not all of that.
    pub(in crate::peer) fn wanted(&self, whole: &FolderIndex) -> Option<FolderIndex> {
        self.selection.borrow().of(whole).ok()
    }

    /// All that is wanted, also by others; everything, if there are no paths.
    pub(super) fn all_wanted(&self) -> Vec<FolderPath> {
        let mut selection = self.selection.borrow().clone();
        for paths in self.state().wishes.values() {
            // Too late: it is as good as complete.
            let _ = selection.add(paths);
        }
        selection.paths().to_vec()
    }

    /// One that has joined this download wants these paths, or everything if there are none.
    pub(super) fn wish(self: &Arc<Self>, paths: Vec<FolderPath>) -> Wish {
        let mut state = self.state();
        if let Some(other) = &state.joined {
            return other.wish(paths);
        }
        state.wished += 1;
        let number = state.wished;
        state.wishes.insert(number, paths);
        drop(state);
        self.note_change();
        Wish {
            control: Arc::clone(self),
            number,
        }
    }

    /// More is wanted. Returns `false` if it is too late for that.
    pub(super) fn want(&self, paths: &[FolderPath]) -> bool {
        if let Some(other) = &self.state().joined {
            return other.want(paths);
        }
        let mut wanted = false;
        self.selection.send_if_modified(|selection| {
            let before = selection.clone();
            wanted = selection.add(paths);
            *selection != before
        });
        self.note_change();
        wanted
    }

    /// What is wanted was recorded, perhaps by several who knew nothing of each other: what the
    /// folder lacks is wanted no longer, unless it lacks all of it. Returns these paths.
    pub(super) fn leave_out_missing(&self, whole: &FolderIndex) -> Vec<FolderPath> {
        let mut missing = Vec::new();
        self.selection.send_if_modified(|selection| {
            missing = selection.leave_out_missing(whole);
            !missing.is_empty()
        });
        if !missing.is_empty() {
            self.note_change();
        }
        missing
    }

    /// From now on nothing more can be wanted, if this is still all that is.
    pub(super) fn seal(&self, seen: &Selection) -> bool {
        let mut sealed = false;
        self.selection.send_if_modified(|selection| {
            sealed = selection == seen;
            if sealed {
                selection.seal();
            }
            false
        });
        sealed
    }

    /// The download of a file of the folder begins. It leaves when this is dropped.
    pub(super) fn post(&self, id: ContentId, file: FileDownload) -> Posted<'_> {
        let state = self.state();
        file.control.set_priority(state.priority);
        if let Some(patience) = state.settings.patience {
            file.control
                .change(|settings| settings.patience = Some(patience));
        }
        let pause = *self.pause.borrow();
        if pause.is_some() {
            file.control.set_pause(pause);
        }
        self.board.post(id, file)
    }

    /// This download has joined another one, which does from now on what is wanted of
    /// this one: it is paused if this one is, its files begin no later than those of this
    /// one would, and it is shared if one of both is to be.
    pub(super) fn join(&self, other: &Arc<Self>) {
        let mut state = self.state();
        state.joined = Some(Arc::clone(other));
        let pause = *self.pause.borrow();
        if pause.is_some() {
            other.set_pause(pause);
        }
        if state.seeds {
            other.set_seeds(true);
        }
        if state.priority > other.priority() {
            other.set_priority(state.priority);
        }
        if let Some(limits) = state.settings.limits {
            other.set_limits(limits);
        }
        if let Some(patience) = state.settings.patience {
            other.set_patience(patience);
        }
        other.add_owners(state.settings.owners().cloned().collect());
    }

    /// This download goes on by itself: the other one has ended.
    pub(super) fn part(&self) {
        self.state().joined = None;
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.control.state().wishes.remove(&self.number);
    }
}
