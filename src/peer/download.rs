//! The handle of a download: await it, watch it, cancel it, or drop it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard, ReusableBoxFuture};

use super::driver::Input;
use super::swarm::{Progress, Strategy};
use crate::content::{Content, ContentName, Geometry};
use crate::error::DownloadError;
use crate::protocol::Addr;

/// What is known of a download, or of a content that is served.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    found: Option<Content>,
    progress: Progress,
    durable: u64,
    outcome: Option<Result<Content, DownloadError>>,
    /// The trackers have yet to take it.
    sharing: bool,
}

impl Status {
    /// The status of a content that is there as a whole, and is shared once
    /// the trackers have taken it.
    pub(super) fn sharing(content: Content) -> Self {
        let chunks = Geometry::of(content.length).map_or(0, |geometry| geometry.chunks());
        let progress = Progress {
            length: Some(content.length),
            chunks: Some(chunks),
            verified_bytes: content.length,
            verified_chunks: chunks,
            ..Progress::default()
        };
        Self {
            durable: content.length,
            found: Some(content),
            progress,
            outcome: None,
            sharing: true,
        }
    }

    /// The status of a content that is shared.
    pub(super) fn shared(content: Content) -> Self {
        let mut status = Self::sharing(content.clone());
        status.ended(Ok(content));
        status
    }

    pub(super) fn is_sharing(&self) -> bool {
        self.sharing
    }

    pub(super) fn found(&mut self, content: Content) {
        self.found = Some(content);
    }

    /// Takes the progress, and tells whether it changed.
    pub(super) fn moved(&mut self, progress: Progress) -> bool {
        let changed = self.progress != progress;
        self.progress = progress;
        changed
    }

    pub(super) fn are_durable(&mut self, bytes: u64) {
        self.durable = bytes;
    }

    /// The outcome of a download is said once; a content that is complete and
    /// no longer served stays a success for whoever waited for it.
    pub(super) fn ended(&mut self, outcome: Result<Content, DownloadError>) {
        self.outcome.get_or_insert(outcome);
        self.sharing = false;
    }

    pub(super) fn complete(&self) -> Option<&Content> {
        self.outcome.as_ref()?.as_ref().ok()
    }
}

/// What happens to a download, for those who watch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DownloadEvent {
    /// The manifest is there: what the content is, and how long. Comes again if
    /// the storage has something else under a name that nobody here asked for;
    /// then with the name that it gets instead.
    Found(Content),
    /// How far it is. Several of these become one when they are not read.
    Progress(Progress),
    /// It is stored, published and durable. The last event.
    Finished(Content),
    /// It has ended without. The last event.
    Failed(DownloadError),
}

/// What a download does differently from others; see
/// [`Peer::download_with`](crate::Peer::download_with).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// The name to store it under, instead of the one that its owners use. It
    /// stays here: no tracker and no other peer is told of it.
    pub name: Option<ContentName>,
    /// Which chunk comes next.
    pub strategy: Strategy,
    /// Owners that are known beside those that a tracker names. With them a
    /// download by id needs no tracker.
    pub owners: Vec<Addr>,
}

impl DownloadOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores the content under this name, which nobody else is told.
    #[must_use]
    pub fn name(mut self, name: ContentName) -> Self {
        self.name = Some(name);
        self
    }

    /// Asks for the chunks in this order.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Asks this owner as well.
    #[must_use]
    pub fn owner(mut self, addr: Addr) -> Self {
        self.owners.push(addr);
        self
    }
}

/// A download that runs in the background.
///
/// Await it for its outcome: the [`Content`], stored under its name, verified
/// and durable, or a [`DownloadError`]. Awaiting is cancel safe: await
/// `&mut download` as often as you like. Dropping the handle cancels the
/// download; a content that is complete stays, and goes on being shared.
#[must_use = "dropping the handle cancels the download"]
pub struct Download {
    status: watch::Receiver<Status>,
    outcome: ReusableBoxFuture<'static, Result<Content, DownloadError>>,
    cancel: CancellationToken,
    on_drop: DropGuard,
    inbox: mpsc::Sender<Input>,
}

impl Download {
    pub(super) fn new(
        status: watch::Receiver<Status>,
        cancel: CancellationToken,
        inbox: mpsc::Sender<Input>,
    ) -> Self {
        Self {
            outcome: ReusableBoxFuture::new(outcome(status.clone())),
            status,
            on_drop: cancel.clone().drop_guard(),
            cancel,
            inbox,
        }
    }

    /// What happens from now on, and what is known already. The stream is
    /// bounded: progress that is not read coalesces into the latest, and the
    /// last event, [`Finished`](DownloadEvent::Finished) or
    /// [`Failed`](DownloadEvent::Failed), is never lost. It does not keep the
    /// download going.
    pub fn events(&self) -> DownloadEvents {
        DownloadEvents(events(self.status.clone()))
    }

    /// How far it is at this moment.
    pub fn progress(&self) -> Progress {
        self.status.borrow().progress.clone()
    }

    /// How many bytes are known to be durable: recorded by the storage, so that
    /// they survive the machine as well and are not fetched again, if the
    /// storage can do that. What is verified ([`Progress::verified_bytes`])
    /// survives the process only, until [`commit_bytes`] or [`commit_interval`]
    /// later it is durable. What an interrupted download left behind is counted
    /// from the first commit of this one on.
    ///
    /// [`commit_bytes`]: crate::peer::swarm::SwarmConfig::commit_bytes
    /// [`commit_interval`]: crate::peer::swarm::SwarmConfig::commit_interval
    pub fn durable_bytes(&self) -> u64 {
        self.status.borrow().durable
    }

    /// The content, once its manifest is known.
    pub fn content(&self) -> Option<Content> {
        self.status.borrow().found.clone()
    }

    /// Ends the download soon; its outcome is then
    /// [`DownloadError::Cancelled`], unless it had ended before. A content
    /// that is complete, and is being published at that moment, is published.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Lets the download go on by itself, until it ends or the peer does.
    pub fn detach(self) {
        self.on_drop.disarm();
    }

    /// Asks for the missing chunks in another order from now on. Waits until
    /// the download has heard of it; without effect on one that has ended.
    ///
    /// Cancel safe: a dropped future may have had no effect.
    pub async fn set_strategy(&self, strategy: Strategy) {
        // A download that has ended needs no order.
        let _ = self.inbox.send(Input::Strategy(strategy)).await;
    }
}

impl Future for Download {
    type Output = Result<Content, DownloadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.outcome.poll(cx));
        let again = outcome(self.status.clone());
        self.outcome.set(again);
        Poll::Ready(ended)
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

/// The stream of [`Download::events`].
pub struct DownloadEvents(BoxStream<'static, DownloadEvent>);

impl Stream for DownloadEvents {
    type Item = DownloadEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<DownloadEvent>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for DownloadEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadEvents").finish_non_exhaustive()
    }
}

async fn outcome(mut status: watch::Receiver<Status>) -> Result<Content, DownloadError> {
    match status.wait_for(|status| status.outcome.is_some()).await {
        Ok(status) => status
            .outcome
            .clone()
            .unwrap_or(Err(DownloadError::ShutDown)),
        Err(_) => Err(DownloadError::ShutDown),
    }
}

fn events(status: watch::Receiver<Status>) -> BoxStream<'static, DownloadEvent> {
    struct Watch {
        status: watch::Receiver<Status>,
        found: Option<Content>,
        shown: Option<Progress>,
        ended: bool,
    }
    let watch = Watch {
        status,
        found: None,
        shown: None,
        ended: false,
    };
    let events = futures::stream::unfold(watch, |mut watch| async move {
        loop {
            if watch.ended {
                return None;
            }
            let now = watch.status.borrow_and_update().clone();
            let event = match now {
                Status {
                    found: Some(content),
                    ..
                } if watch.found.as_ref() != Some(&content) => {
                    watch.found = Some(content.clone());
                    DownloadEvent::Found(content)
                }
                Status {
                    progress, outcome, ..
                } if watch.found.is_some()
                    && watch.shown.as_ref() != Some(&progress)
                    && !matches!(outcome, Some(Err(_))) =>
                {
                    watch.shown = Some(progress.clone());
                    DownloadEvent::Progress(progress)
                }
                Status {
                    outcome: Some(outcome),
                    ..
                } => {
                    watch.ended = true;
                    match outcome {
                        Ok(content) => DownloadEvent::Finished(content),
                        Err(error) => DownloadEvent::Failed(error),
                    }
                }
                _ => {
                    if watch.status.changed().await.is_ok() {
                        continue;
                    }
                    watch.ended = true;
                    match &watch.status.borrow().outcome {
                        Some(Ok(content)) => DownloadEvent::Finished(content.clone()),
                        Some(Err(error)) => DownloadEvent::Failed(error.clone()),
                        None => DownloadEvent::Failed(DownloadError::ShutDown),
                    }
                }
            };
            return Some((event, watch));
        }
    });
    Box::pin(events)
}
