//! The handle of a download of a folder: await it, watch it, control it, or drop it.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use crate::content::{ContentName, FolderPath, FolderPathError, NameError};
use crate::error::{ConfigError, DownloadError, checked_addr, checked_name};
use crate::peer::contents::common_place::CommonFolder;
use crate::peer::downloads::holders::Hold;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::priority::Priority;
use crate::peer::folders::control::FolderControl;
use crate::peer::folders::error::FolderError;
use crate::peer::folders::status::{Folder, FolderFile, FolderProgress, FolderStatus};
use crate::peer::handles::download::IfTaken;
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::{Progress, StallReason};
use crate::protocol::{Addr, AddrError};

/// What happens to a download of a folder. With the feature `serde` it is saved as a
/// [`DownloadEvent`](crate::DownloadEvent) is.
///
/// Who sends is not among them. The files of a folder are contents of their own, each with
/// links of its own, so an owner joins and leaves as many times as there are files.
/// [`Peer::events`](crate::Peer::events) tells of each time
/// ([`OwnerJoined`](crate::PeerEvent::OwnerJoined), [`OwnerLeft`](crate::PeerEvent::OwnerLeft),
/// [`Banned`](crate::PeerEvent::Banned)) with the id of a file, or with that of the folder if
/// it is about the index. [`FolderDownload::files`] knows the paths of these ids.
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
    /// The folder has nothing at a path that one of the handles of this download wanted
    /// before the peer was started again. The others go on without it; a download that asks
    /// for it again fails with [`FolderError::NoSuchPath`]. Comes once in each stream.
    NoSuchPath {
        /// The path.
        path: FolderPath,
    },
    /// How far the download is. Events that are not read merge into the latest.
    Progress(FolderProgress),
    /// A file is complete and durable. It appears in its place with all that is wanted, so
    /// nothing is to be read there yet. Comes once for each file that is wanted, however
    /// late it is read: also for those that need not be fetched, and in a new stream for
    /// those that were done before.
    FileDone(FolderFile),
    /// Nothing arrives at present for any of the files that are under way, and why: the
    /// reason of the most of them. The download goes on as long as its handle is held, as
    /// that of a content does ([`DownloadEvent::Stalled`](crate::DownloadEvent::Stalled)).
    /// Comes again when the reason changes.
    Stalled(StallReason),
    /// Something arrives again. Comes only after [`Stalled`](Self::Stalled).
    Resumed,
    /// The download was [paused](FolderDownload::pause), by this or another handle. Of
    /// several pauses that are not read only the last one counts.
    Paused,
    /// The download goes on, or waits for its turn. Comes only after
    /// [`Paused`](Self::Paused).
    Unpaused,
    /// The folder is under its name, whole and durable. The last event.
    Finished(Folder),
    /// The download has failed. The last event.
    Failed(FolderError),
}

/// What a download of a folder does differently from others; see
/// [`Peer::download_folder_with`](crate::Peer::download_folder_with).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FolderOptions {
    /// The name of the folder here, instead of the one that its owners use. It stays here:
    /// no tracker and no other peer is told.
    pub name: Option<ContentName>,
    /// The files and folders that are wanted, with all that is in them; everything, if
    /// there are none.
    pub paths: Vec<FolderPath>,
    /// Owners that are known in addition to those that a tracker names. With
    /// them a download by id needs no tracker.
    pub owners: Vec<Addr>,
    /// Which of the downloads that wait begins first: it holds for each file of the
    /// folder. One that joins another raises the priority of that.
    pub priority: Priority,
    /// Whether the folder is shared when it is complete: by default. A download that joins
    /// another has the folder shared if one of the two is to. See [`seed`](Self::seed).
    pub seed: bool,
    /// Set if the download is paused from the start, and how. One that joins another
    /// pauses that. One that is not paused, and joins one that is, leaves that paused.
    pub paused: Option<PauseOptions>,
    /// How fast all files of the folder together may be sent and received; see
    /// [`limits`](fn@Self::limits). `None` leaves the limits that it has.
    pub limits: Option<ContentLimits>,
    /// The directory to store the folder in, instead of that of the storage: an absolute
    /// path, or one within the directory of the storage. It is created if it is missing.
    /// An interrupted download is resumed from there if the next one has the same
    /// directory. What is stored there is shared, and shared again after a restart, as
    /// anything else; [`Peer::remove`](crate::Peer::remove) deletes nothing of it, neither
    /// what was downloaded there nor what was there before.
    pub directory: Option<PathBuf>,
    /// What to do if something else has the folder's name. By default the download fails
    /// with [`FolderError::TargetExists`]. With [`IfTaken::Overwrite`] a directory that has
    /// the name becomes the folder: files and links in it that differ from those that are
    /// wanted are replaced, those that are the same are not fetched, and whatever else is in
    /// it stays. The first one is replaced when all that is wanted is whole and durable, and
    /// each in one step; a crash between these steps leaves some files of before, and the
    /// next such download replaces them. Anything but a directory stays, also in the
    /// directory where a file has to be, and the download fails. If another folder that this
    /// peer shares lies there, it is no longer shared. One that joins another download
    /// changes nothing of this. If several folders come to one place, the one that ends last
    /// has it.
    pub if_taken: IfTaken,
    /// The files of another content that its files lie in.
    pub(in crate::peer) common: Option<CommonFolder>,
    /// The first text that was not a name, a path or an address; the download fails with
    /// it.
    pub(in crate::peer) wrong: Option<FolderError>,
}

impl Default for FolderOptions {
    fn default() -> Self {
        Self {
            name: None,
            paths: Vec::new(),
            owners: Vec::new(),
            priority: Priority::default(),
            seed: true,
            paused: None,
            limits: None,
            directory: None,
            if_taken: IfTaken::default(),
            common: None,
            wrong: None,
        }
    }
}

impl FolderOptions {
    /// Sets what to do if something else has the folder's [name](Self::if_taken).
    #[must_use]
    pub fn if_taken(mut self, if_taken: IfTaken) -> Self {
        self.if_taken = if_taken;
        self
    }

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

    /// Adds a file or folder that is wanted: a [`FolderPath`], or text, in which a slash may
    /// follow. Without any, everything is. If it is not a path, the download fails with
    /// [`FolderError::Path`].
    #[must_use]
    pub fn path<P>(mut self, path: P) -> Self
    where
        P: TryInto<FolderPath> + fmt::Display,
        P::Error: Into<FolderPathError>,
    {
        match FolderPath::named(path) {
            Ok(path) => self.paths.push(path),
            Err((path, source)) => self.refuse(FolderError::Path { path, source }),
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

    /// Sets which of the downloads that wait begins first, for each file of the folder.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets whether the folder is shared when it is complete. If not, it is in its place
    /// then, whole and durable, and no more: trackers no longer list this peer, none of its
    /// files is served, and nothing is recorded. Until then other peers get what is here,
    /// as from any download. A part of the folder that this peer shares already stays
    /// shared, with what has come to it.
    #[must_use]
    pub fn seed(mut self, seed: bool) -> Self {
        self.seed = seed;
        self
    }

    /// Begins the download paused: it is listed, and waits for
    /// [`FolderDownload::resume`].
    #[must_use]
    pub fn paused(mut self, options: PauseOptions) -> Self {
        self.paused = Some(options);
        self
    }

    /// Sets how fast all files of the folder together may be sent and received. It holds
    /// for the folder, so also for other handles of the same download, and when it is
    /// complete. If a limit is zero, the download fails with [`DownloadError::Config`].
    #[must_use]
    pub fn limits(mut self, limits: ContentLimits) -> Self {
        match limits.check() {
            Ok(()) => self.limits = Some(limits),
            Err(wrong) => self.refuse(DownloadError::from(wrong)),
        }
        self
    }

    /// Sets the [directory](Self::directory) to store the folder in.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
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
///
/// A download of a folder that is being downloaded already joins that one, which then
/// fetches what both want. Each call of
/// [`Peer::download_folder`](crate::Peer::download_folder) gives a handle of its own, and
/// the download goes on as long as one of them is there.
#[must_use = "dropping the handle cancels the download"]
pub struct FolderDownload {
    status: watch::Receiver<FolderStatus>,
    outcome: ReusableBoxFuture<'static, Result<Folder, FolderError>>,
    hold: Hold,
    /// Cancelled when this handle has cancelled its part, and the download goes on for
    /// others.
    left: CancellationToken,
    control: Arc<FolderControl>,
}

impl FolderDownload {
    pub(in crate::peer) fn new(
        status: watch::Receiver<FolderStatus>,
        hold: Hold,
        control: Arc<FolderControl>,
    ) -> Self {
        let left = CancellationToken::new();
        Self {
            outcome: ReusableBoxFuture::new(outcome(status.clone(), left.clone())),
            status,
            hold,
            left,
            control,
        }
    }

    /// The events from now on, after one event for each thing that is known already.
    /// The stream is bounded: progress that is not read merges into the latest. Neither a
    /// file that is [done](FolderEvent::FileDone) nor the last event is ever lost. The stream does not keep the download running.
    pub fn events(&self) -> FolderEvents {
        let news = News {
            status: self.status.clone(),
            left: self.left.clone(),
            paused: false,
            found: false,
            missing: 0,
            files: 0,
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

    /// The files that are wanted, in the order of their paths, and how far each is; none
    /// until the index is here. O(files of the folder).
    pub fn files(&self) -> Vec<FolderFile> {
        let status = self.status.borrow().clone();
        let control = self.control.last();
        let part = status
            .index
            .as_ref()
            .map(|index| (index, control.wanted(index)));
        let Some((whole, Some(part))) = part else {
            return Vec::new();
        };
        let logged = status.files.all().into_iter();
        let done: HashMap<&FolderPath, bool> = logged
            .filter_map(|file| Some((&whole.entries().get(file.entry)?.path, file.found)))
            .collect();
        let wanted = part.entries().iter().filter_map(FolderFile::of);
        wanted
            .map(|mut file| match done.get(&file.path) {
                Some(found) => file.completed(*found),
                None => {
                    file.verified_bytes = control.board.verified_bytes_of(&file.id);
                    file
                }
            })
            .collect()
    }

    /// Why nothing arrives at present for any of the files that are under way; `None` as
    /// long as something does.
    pub fn stall(&self) -> Option<StallReason> {
        self.status.borrow().stall
    }

    /// What has arrived for all files of the folder together, and at which rate. Owners
    /// and links are those of the file that has most of them; the length and the verified
    /// bytes are those of the folder. Chunks are not counted.
    pub fn stats(&self) -> Progress {
        self.status.borrow().stats()
    }

    /// Whether the download is paused by now.
    pub fn is_paused(&self) -> bool {
        self.status.borrow().paused
    }

    /// Pauses the download with all of its files, for all its handles, as
    /// [`Download::pause`](crate::Download::pause) does. Returns at once;
    /// [`FolderEvent::Paused`] comes when it is in effect, which is soon. May be called
    /// again with other options.
    ///
    /// With [`PeerBuilder::share_stored`](crate::PeerBuilder::share_stored) the download is
    /// still listed after a restart, paused, with everything that was asked for and set: also
    /// what is changed while it is paused. No effect on a download that has ended, or
    /// whose last file is here: that one completes.
    pub fn pause(&self, options: PauseOptions) {
        self.control.set_pause(Some(options));
    }

    /// Lets the download go on, for all its handles. Returns at once;
    /// [`FolderEvent::Unpaused`] comes when it does. No effect if it is not paused.
    pub fn resume(&self) {
        self.control.set_pause(None);
    }

    /// Changes which of the downloads that wait begins first, for all files of the folder
    /// that have not begun yet, and for all handles.
    pub fn set_priority(&self, priority: Priority) {
        self.control.set_priority(priority);
    }

    /// Which of the downloads that wait begins first.
    pub fn priority(&self) -> Priority {
        self.control.priority()
    }

    /// Ends the download when nothing arrives for one of its files for longer than this,
    /// as [`Download::set_patience`](crate::Download::set_patience) does, for all handles.
    ///
    /// Cancel safe: it waits for nobody.
    pub async fn set_patience(&self, patience: Option<Duration>) {
        self.control.last().set_patience(patience);
    }

    /// Adds an owner to ask, an [`Addr`] or text, in addition to those that are known and
    /// that a tracker names. No effect on a download that has ended.
    ///
    /// Cancel safe: it waits for nobody.
    ///
    /// # Errors
    /// [`ConfigError`] if it is not an address. An address that the transport cannot reach
    /// is tried in vain.
    pub async fn add_owner<A>(&self, addr: A) -> Result<(), ConfigError>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        let owner = checked_addr(addr)?;
        self.control.last().add_owners(vec![owner]);
        Ok(())
    }

    /// Ends the download, also one that was [detached](Self::detach) before. What has
    /// arrived is kept for the next download of the folder
    /// ([`discard`](Self::discard) deletes it). Returns at once; the outcome follows soon.
    /// It is [`DownloadError::Cancelled`], unless the download ends in another way before.
    /// A folder that is being published at that moment may be published.
    ///
    /// If there are other handles of the download, it goes on for them, and only this
    /// handle has that outcome. What this one wanted of the folder is still fetched.
    pub fn cancel(&self) {
        if self.hold.cancel() {
            self.left.cancel();
        }
    }

    /// Ends the download as [`cancel`](Self::cancel) does, and deletes what has arrived of
    /// the folder, also what an earlier download has left. Returns at once. When the
    /// outcome is [`DownloadError::Cancelled`], it is gone; it is
    /// [`FolderError::Storage`] if the storage could not delete it. What is in its place
    /// already stays: the whole folder, or the part of it that was here before.
    ///
    /// If there are other handles of the download, it goes on for them, nothing is
    /// deleted, and only this handle is cancelled. The last handle decides.
    pub fn discard(&self) {
        if self.hold.discard() {
            self.left.cancel();
        }
    }

    /// Lets the download run without a handle, until it ends or the peer stops.
    /// [`Peer::get_folder`](crate::Peer::get_folder) gives a handle again.
    pub fn detach(self) {
        self.hold.detach();
    }
}

impl Future for FolderDownload {
    type Output = Result<Folder, FolderError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.outcome.poll(cx));
        // For the next one that awaits it.
        let again = outcome(self.status.clone(), self.left.clone());
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

async fn outcome(
    mut status: watch::Receiver<FolderStatus>,
    left: CancellationToken,
) -> Result<Folder, FolderError> {
    let ended = tokio::select! {
        biased;
        ended = status.wait_for(|status| status.outcome.is_some()) => ended,
        () = left.cancelled() => return Err(DownloadError::Cancelled.into()),
    };
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
    /// Cancelled when the handle has left the download.
    left: CancellationToken,
    paused: bool,
    found: bool,
    /// How many paths that the folder lacks were told.
    missing: usize,
    /// How many files that are done were told.
    files: usize,
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
            let changed = tokio::select! {
                biased;
                changed = self.status.changed() => changed,
                () = self.left.cancelled() => {
                    self.ended = true;
                    let event = FolderEvent::Failed(DownloadError::Cancelled.into());
                    return Some((event, self));
                }
            };
            if changed.is_err() {
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
        if let Some(folder) = status.folder.clone().filter(|_| !self.found) {
            self.found = true;
            return Some(FolderEvent::Found(folder));
        }
        if self.paused != status.paused && status.outcome.is_none() {
            self.paused = status.paused;
            self.stall = None;
            return Some(match status.paused {
                true => FolderEvent::Paused,
                false => FolderEvent::Unpaused,
            });
        }
        if self.stall != status.stall && status.outcome.is_none() {
            self.stall = status.stall;
            let event = status.stall.map(FolderEvent::Stalled);
            return Some(event.unwrap_or(FolderEvent::Resumed));
        }
        if self.found
            && let Some(path) = status.missing.get(self.missing)
        {
            self.missing += 1;
            let path = path.clone();
            return Some(FolderEvent::NoSuchPath { path });
        }
        if self.found
            && let Some(file) = status.file_done(self.files)
        {
            self.files += 1;
            return Some(FolderEvent::FileDone(file));
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
