//! How the download of a folder is paused, how that is shown, and how it is recorded.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::pause_record::RecordPlace;
use super::super::paused_form::FolderForm;
use super::FolderTask;
use super::job::Job;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::paused_form::RecordedState;
use crate::peer::limits::ContentLimits;
use crate::protocol::ContentKey;
use crate::storage::FolderHome;

impl FolderTask {
    /// Waits until the download is not paused. Returns who hears of changes.
    pub(super) async fn unpaused(&self) -> watch::Receiver<()> {
        let mut changes = self.control().changes();
        loop {
            changes.mark_unchanged();
            if self.note_pause(None).await.is_none() {
                return changes;
            }
            // The sender is in the control.
            let _ = changes.changed().await;
        }
    }

    /// Does something until the download is paused. `work` has to be cancel safe.
    pub(super) async fn until_paused<T>(
        &self,
        changes: &mut watch::Receiver<()>,
        mut work: impl Future<Output = T> + Unpin,
    ) -> Option<T> {
        loop {
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => if self.note_pause(None).await.is_some() {
                    return None;
                },
                done = &mut work => return Some(done),
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
    pub(super) async fn record_pause(&self, home: Option<&Arc<FolderHome>>) {
        let Some(key) = self.registered.key.as_ref().filter(|_| !self.is_common) else {
            return;
        };
        let control = self.control();
        let pause = *control.pauses().borrow();
        let settings = control.settings();
        let limits = match self.registered.id() {
            Some(id) => Some(self.shared.limiter.content(&id)),
            None => settings.limits,
        };
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
            paths: control.all_wanted(),
            priority: control.priority(),
            seeds: control.seeds(),
            patience: settings.patience,
            limits: limits.filter(|limits| *limits != ContentLimits::default()),
            owners: settings.owners().cloned().collect(),
            known,
        };
        self.record.write(self.record_place(home), Some(form)).await;
    }

    /// Where a pause is recorded, once the folder is found.
    pub(super) fn record_place(&self, home: Option<&Arc<FolderHome>>) -> Option<RecordPlace> {
        let claimed = self.claimed.get()?;
        Some(RecordPlace {
            id: claimed.id,
            folders: claimed.homes.main.clone(),
            home: home.cloned(),
        })
    }

    /// Shows and records when the download is paused. The files hear of that by
    /// themselves.
    pub(super) async fn follow_pauses(&self, job: &Job) -> Infallible {
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
}
