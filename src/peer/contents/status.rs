//! What a driver tells about its content to those who watch it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::content::{Content, ContentName, Geometry};
use crate::error::DownloadError;
use crate::peer::contents::choice::Choice;
use crate::peer::contents::uploads::Uploads;
use crate::peer::swarm::{Progress, StallReason};

/// The state of a download, or of a content that is served.
#[derive(Debug, Clone, Default)]
pub(in crate::peer) struct ContentStatus {
    content: Option<Content>,
    progress: Progress,
    durable_bytes: u64,
    stall: Option<StallReason>,
    /// Whether the manifest is known in this run of the peer. Until then the content and
    /// how much of it is here may be remembered.
    is_open: bool,
    /// How often the download was paused or resumed: an odd number if it is paused, or
    /// was when it ended.
    pauses: u64,
    phase: StatusPhase,
    /// What was sent of the content, also after the end of the download.
    uploads: Uploads,
    /// What is wanted of the content, if that may be a part.
    choice: Option<Arc<Choice>>,
}

#[derive(Debug, Clone, Default)]
enum StatusPhase {
    #[default]
    Downloading,
    /// The download waits until others have ended.
    Queued,
    /// The user has paused it.
    Paused,
    /// The outcome of the download. A content that is served has succeeded.
    Ended(Result<Content, DownloadError>),
}

impl ContentStatus {
    /// The status of a complete content that is shared, of which so much was sent.
    pub(in crate::peer) fn shared(content: Content, uploads: Uploads) -> Self {
        let geometry = Geometry::of(content.length).ok();
        Self::shared_in(geometry, content, uploads)
    }

    /// The same of a content that may be cut in another way than by its length.
    pub(in crate::peer) fn shared_in(
        geometry: Option<Geometry>,
        content: Content,
        uploads: Uploads,
    ) -> Self {
        let chunks = geometry.map_or(0, |geometry| geometry.chunks());
        Self {
            progress: Progress {
                length: Some(content.length),
                chunks: Some(chunks),
                verified_bytes: content.length,
                verified_chunks: chunks,
                ..Progress::default()
            },
            durable_bytes: content.length,
            content: Some(content.clone()),
            stall: None,
            is_open: true,
            pauses: 0,
            phase: StatusPhase::Ended(Ok(content)),
            uploads,
            choice: None,
        }
    }

    pub(in crate::peer) fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// What was known before the peer was started again.
    pub(in crate::peer) fn remember(&mut self, content: Content, progress: Progress) {
        self.content = Some(content);
        self.durable_bytes = progress.verified_bytes;
        self.progress = progress;
    }

    /// Whether the manifest is known in this run of the peer.
    pub(in crate::peer) fn is_open(&self) -> bool {
        self.is_open
    }

    /// The manifest is known.
    pub(in crate::peer) fn open(&mut self) {
        self.is_open = true;
    }

    pub(in crate::peer) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(in crate::peer) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    pub(in crate::peer) fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }

    /// How the download ended, if it has.
    pub(in crate::peer) fn outcome(&self) -> Option<&Result<Content, DownloadError>> {
        match &self.phase {
            StatusPhase::Ended(outcome) => Some(outcome),
            StatusPhase::Downloading | StatusPhase::Queued | StatusPhase::Paused => None,
        }
    }

    /// The content, if it is complete and shared.
    pub(in crate::peer) fn complete(&self) -> Option<&Content> {
        self.outcome()?.as_ref().ok()
    }

    /// What is wanted of the content, if that may be a part.
    pub(in crate::peer) fn choice(&self) -> Option<&Arc<Choice>> {
        self.choice.as_ref()
    }

    #[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
    pub(in crate::peer) fn set_choice(&mut self, choice: Arc<Choice>) {
        self.choice = Some(choice);
    }

    /// The content, if only a part of it is wanted, all of that is here, and the download has
    /// not ended: it goes on when more is wanted.
    pub(in crate::peer) fn resting(&self) -> Option<&Content> {
        let rests = self.choice.as_ref().is_some_and(|choice| choice.rests());
        self.content.as_ref().filter(|_| rests)
    }

    pub(in crate::peer) fn is_queued(&self) -> bool {
        matches!(self.phase, StatusPhase::Queued)
    }

    /// The download waits for others, or begins.
    pub(in crate::peer) fn set_queued(&mut self, queued: bool) {
        self.phase = match queued {
            true => StatusPhase::Queued,
            false => StatusPhase::Downloading,
        };
    }

    pub(in crate::peer) fn is_paused(&self) -> bool {
        matches!(self.phase, StatusPhase::Paused)
    }

    /// How often the download was paused or resumed: an odd number if it is paused, or
    /// was when it ended.
    pub(in crate::peer) fn pauses(&self) -> u64 {
        self.pauses
    }

    /// The download is paused, or goes on. It does not stall meanwhile. Returns whether
    /// that is new.
    pub(in crate::peer) fn set_paused(&mut self, paused: bool) -> bool {
        if self.outcome().is_some() || self.is_paused() == paused {
            return false;
        }
        self.pauses += 1;
        self.stall = None;
        self.phase = match paused {
            true => StatusPhase::Paused,
            false => StatusPhase::Downloading,
        };
        true
    }

    /// Why nothing arrives, if nothing does.
    pub(in crate::peer) fn stall(&self) -> Option<StallReason> {
        self.stall
    }

    pub(in crate::peer) fn set_stall(&mut self, stall: Option<StallReason>) {
        self.stall = stall;
    }

    /// The content has this name here, if there is one.
    pub(in crate::peer) fn rename(&mut self, name: Option<&ContentName>) {
        if let (Some(content), Some(name)) = (&mut self.content, name) {
            content.name = name.clone();
        }
    }

    pub(in crate::peer) fn set_content(&mut self, content: Content) {
        self.content = Some(content);
    }

    /// Sets the progress, and returns whether it changed.
    pub(in crate::peer) fn set_progress(&mut self, progress: Progress) -> bool {
        let changed = self.progress != progress;
        self.progress = progress;
        changed
    }

    pub(in crate::peer) fn set_durable_bytes(&mut self, bytes: u64) {
        self.durable_bytes = bytes;
    }

    /// The same with another outcome.
    pub(in crate::peer) fn ended(mut self, outcome: Result<Content, DownloadError>) -> Self {
        if let Ok(content) = &outcome {
            self.content = Some(content.clone());
        }
        self.phase = StatusPhase::Ended(outcome);
        self
    }

    /// Sets the outcome, unless there is one: a download that succeeded stays
    /// a success when its content is no longer served.
    pub(in crate::peer) fn end(&mut self, outcome: Result<Content, DownloadError>) {
        if self.outcome().is_none() {
            self.phase = StatusPhase::Ended(outcome);
            self.stall = None;
        }
    }
}

/// Hears of each change of a status, in order.
pub(in crate::peer) trait StatusWatcher: Send + Sync {
    fn changed(&self, status: &ContentStatus);

    /// It changes no more.
    fn closed(&self);
}

/// Where a status is set. All who watch it wake at each change. Whoever waits for the
/// outcome only, as most do, wakes once.
pub(in crate::peer) struct StatusSender {
    status: watch::Sender<ContentStatus>,
    /// Cancelled when there is an outcome, and when none comes any more.
    ended: CancellationToken,
    watcher: Option<Arc<dyn StatusWatcher>>,
}

impl StatusSender {
    pub(in crate::peer) fn new(status: ContentStatus) -> Self {
        let sender = Self {
            status: watch::Sender::new(status),
            ended: CancellationToken::new(),
            watcher: None,
        };
        sender.note_change();
        sender
    }

    /// The same, with one who hears of each change.
    pub(in crate::peer) fn watched_by(mut self, watcher: Arc<dyn StatusWatcher>) -> Self {
        self.watcher = Some(watcher);
        self
    }

    /// Sets the status to one that the watcher has heard of already, and that has no
    /// outcome.
    pub(in crate::peer) fn set_quietly(&self, status: ContentStatus) {
        self.status.send_replace(status);
    }

    pub(in crate::peer) fn subscribe(&self) -> watch::Receiver<ContentStatus> {
        self.status.subscribe()
    }

    /// Cancelled when there is an outcome, and when none comes any more.
    pub(in crate::peer) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    pub(in crate::peer) fn borrow(&self) -> watch::Ref<'_, ContentStatus> {
        self.status.borrow()
    }

    pub(in crate::peer) fn receiver_count(&self) -> usize {
        self.status.receiver_count()
    }

    pub(in crate::peer) fn send_modify(&self, modify: impl FnOnce(&mut ContentStatus)) {
        self.status.send_modify(modify);
        self.note_change();
    }

    /// Changes the status. `modify` says whether those who watch are to know.
    pub(in crate::peer) fn send_if_modified(
        &self,
        modify: impl FnOnce(&mut ContentStatus) -> bool,
    ) -> bool {
        let modified = self.status.send_if_modified(modify);
        if modified {
            self.note_change();
        }
        modified
    }

    fn note_change(&self) {
        let status = self.borrow();
        if let Some(watcher) = &self.watcher {
            watcher.changed(&status);
        }
        if status.outcome().is_some() {
            self.ended.cancel();
        }
    }
}

impl Drop for StatusSender {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.closed();
        }
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_the_outcome_wakes_for_nothing_else() {
        let status = StatusSender::new(ContentStatus::default());
        let (ended, watched) = (status.ended(), status.subscribe());
        status.send_modify(|status| status.set_queued(true));
        status.send_if_modified(|status| status.set_progress(Progress::default()));
        assert!(!ended.is_cancelled() && watched.has_changed().is_ok_and(|changed| changed));
        status.send_modify(|status| status.end(Err(DownloadError::Cancelled)));
        assert!(ended.is_cancelled() && watched.borrow().outcome().is_some());
    }

    #[test]
    fn whoever_waits_for_an_outcome_that_never_comes_is_woken() {
        let status = StatusSender::new(ContentStatus::default());
        let ended = status.ended();
        drop(status);
        assert!(ended.is_cancelled());
    }
}
