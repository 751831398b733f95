//! The handle of a download of a folder: await it, watch it, cancel it, or drop it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard, ReusableBoxFuture};

use crate::content::{ContentName, FolderPath, FolderPathError, NameError};
use crate::error::{DownloadError, checked_addr, checked_name};
use crate::peer::folders::error::FolderError;
use crate::peer::folders::status::{Folder, FolderProgress, FolderStatus};
use crate::peer::swarm::StallReason;
use crate::protocol::{Addr, AddrError};

/// What happens to a download of a folder. With the feature `serde` it is saved as a
/// [`DownloadEvent`](crate::DownloadEvent) is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "event", rename_all = "snake_case")
)]
pub enum FolderEvent {
    /// The index is here: how many files are wanted, and how many bytes.
    Found(Folder),
    /// How far the download is. Events that are not read merge into the latest.
    Progress(FolderProgress),
    /// Nothing arrives at present for any of the files that are under way, and why: the
    /// reason of the most of them. The download goes on as long as its handle is held, as
    /// that of a content does ([`DownloadEvent::Stalled`](crate::DownloadEvent::Stalled)).
    /// Comes again when the reason changes.
    Stalled(StallReason),
    /// Something arrives again. Comes only after [`Stalled`](Self::Stalled).
    Resumed,
    /// The folder is under its name, whole and durable. The last event.
    Finished(Folder),
    /// The download has failed. The last event.
    Failed(FolderError),
}

/// What a download of a folder does differently from others; see
/// [`Peer::download_folder_with`](crate::Peer::download_folder_with).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FolderOptions {
    /// The name of the folder here, instead of the one that its owners use.
    pub name: Option<ContentName>,
    /// The files and folders that are wanted, with all that is in them; everything, if
    /// there are none.
    pub paths: Vec<FolderPath>,
    /// Owners that are known in addition to those that a tracker names. With
    /// them a download by id needs no tracker.
    pub owners: Vec<Addr>,
    /// The first text that was not a name, a path or an address; the download fails with
    /// it.
    pub(in crate::peer) wrong: Option<FolderError>,
}

impl FolderOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of the folder here: a [`ContentName`], or text. If it is not a content
    /// name, the download fails with [`DownloadError::Name`].
    #[must_use]
    pub fn name<N>(mut self, name: N) -> Self
    where
        N: TryInto<ContentName> + fmt::Display,
        N::Error: Into<NameError>,
    {
        match checked_name(name) {
            Ok(name) => self.name = Some(name),
            Err(wrong) => self.refuse(wrong),
        }
        self
    }

    /// Adds a file or folder that is wanted: a [`FolderPath`], or text. Without any,
    /// everything is. If it is not a path, the download fails with [`FolderError::Path`].
    #[must_use]
    pub fn path<P>(mut self, path: P) -> Self
    where
        P: TryInto<FolderPath> + fmt::Display,
        P::Error: Into<FolderPathError>,
    {
        let text = path.to_string();
        match path.try_into() {
            Ok(path) => self.paths.push(path),
            Err(source) => self.refuse(FolderError::Path {
                path: text,
                source: source.into(),
            }),
        }
        self
    }

    /// Adds an owner to ask: an [`Addr`], or text. If it is not an address, the download
    /// fails with [`DownloadError::Config`].
    #[must_use]
    pub fn owner<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        match checked_addr(addr) {
            Ok(addr) => self.owners.push(addr),
            Err(wrong) => self.refuse(DownloadError::from(wrong)),
        }
        self
    }

    fn refuse(&mut self, wrong: impl Into<FolderError>) {
        self.wrong.get_or_insert(wrong.into());
    }
}

/// A download of a folder that runs in the background.
///
/// Await it for its outcome: the [`Folder`], under its name, whole and durable, or a
/// [`FolderError`]. Awaiting is cancel safe: `&mut download` may be awaited any number
/// of times, also after the end. Dropping the handle cancels the download; a folder
/// that is complete stays, and is still shared.
#[must_use = "dropping the handle cancels the download"]
pub struct FolderDownload {
    status: watch::Receiver<FolderStatus>,
    outcome: ReusableBoxFuture<'static, Result<Folder, FolderError>>,
    cancel: CancellationToken,
    on_drop: DropGuard,
}

impl FolderDownload {
    pub(in crate::peer) fn new(
        status: watch::Receiver<FolderStatus>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            outcome: ReusableBoxFuture::new(outcome(status.clone())),
            status,
            on_drop: cancel.clone().drop_guard(),
            cancel,
        }
    }

    /// The events from now on, after one event for each thing that is known already.
    /// The stream is bounded: progress that is not read merges into the latest, and
    /// the last event is never lost. The stream does not keep the download running.
    pub fn events(&self) -> FolderEvents {
        let news = News {
            status: self.status.clone(),
            found: false,
            shown: FolderProgress::default(),
            stall: None,
            ended: false,
        };
        FolderEvents(Box::pin(stream::unfold(news, News::next)))
    }

    /// How far the download is.
    pub fn progress(&self) -> FolderProgress {
        self.status.borrow().progress
    }

    /// Why nothing arrives at present for any of the files that are under way; `None` as
    /// long as something does.
    pub fn stall(&self) -> Option<StallReason> {
        self.status.borrow().stall
    }

    /// Ends the download. Returns at once; the outcome follows soon. It is
    /// [`DownloadError::Cancelled`], unless the download ends in another way before. A
    /// folder that is being published at that moment may be published.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Lets the download run without a handle, until it ends or the peer stops.
    pub fn detach(self) {
        self.on_drop.disarm();
    }
}

impl Future for FolderDownload {
    type Output = Result<Folder, FolderError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.outcome.poll(cx));
        // For the next one that awaits it.
        let again = outcome(self.status.clone());
        self.outcome.set(again);
        Poll::Ready(ended)
    }
}

impl fmt::Debug for FolderDownload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderDownload")
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

async fn outcome(mut status: watch::Receiver<FolderStatus>) -> Result<Folder, FolderError> {
    let ended = status.wait_for(|status| status.outcome.is_some()).await;
    let outcome = ended.ok().and_then(|status| status.outcome.clone());
    // A task that was ended at once has reported none.
    outcome.unwrap_or_else(|| Err(DownloadError::ShutDown.into()))
}

/// The stream of [`FolderDownload::events`].
pub struct FolderEvents(Pin<Box<dyn Stream<Item = FolderEvent> + Send + Sync>>);

impl Stream for FolderEvents {
    type Item = FolderEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FolderEvent>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for FolderEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderEvents").finish_non_exhaustive()
    }
}

/// What a listener has heard.
struct News {
    status: watch::Receiver<FolderStatus>,
    found: bool,
    shown: FolderProgress,
    /// The last reason that was told, until the download resumed.
    stall: Option<StallReason>,
    ended: bool,
}

impl News {
    async fn next(mut self) -> Option<(FolderEvent, Self)> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(event) = self.take() {
                return Some((event, self));
            }
            if self.status.changed().await.is_err() {
                // What the task said last; one that was ended at once said nothing.
                let event = self.take().unwrap_or_else(|| {
                    self.ended = true;
                    FolderEvent::Failed(DownloadError::ShutDown.into())
                });
                return Some((event, self));
            }
        }
    }

    /// What is new in the present status.
    fn take(&mut self) -> Option<FolderEvent> {
        let status = self.status.borrow_and_update().clone();
        if let Some(folder) = status.folder.filter(|_| !self.found) {
            self.found = true;
            return Some(FolderEvent::Found(folder));
        }
        if self.stall != status.stall && status.outcome.is_none() {
            self.stall = status.stall;
            let event = status.stall.map(FolderEvent::Stalled);
            return Some(event.unwrap_or(FolderEvent::Resumed));
        }
        let has_failed = matches!(status.outcome, Some(Err(_)));
        if self.found && !has_failed && self.shown != status.progress {
            self.shown = status.progress;
            return Some(FolderEvent::Progress(status.progress));
        }
        let outcome = status.outcome?;
        self.ended = true;
        Some(match outcome {
            Ok(folder) => FolderEvent::Finished(folder),
            Err(error) => FolderEvent::Failed(error),
        })
    }
}
