//! The handle of a download: await it, watch it, cancel it, or drop it.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture, WaitForCancellationFutureOwned};

use crate::content::{Bitfield, Content, ContentName, NameError};
use crate::error::{DownloadError, checked_addr, checked_name};
use crate::peer::contents::choice::Choice;
use crate::peer::contents::common_place::CommonPlace;
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::passing::PassingStorage;
use crate::peer::contents::readers::ReaderBoard;
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::asked::Earlier;
use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::holders::Hold;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::priority::Priority;
use crate::peer::events::download_event::DownloadEvent;
use crate::peer::events::download_watchers::ReaderPlace;
use crate::peer::events::hub::Place;
use crate::peer::events::queue::EventQueue;
use crate::peer::events::topic::Topic;
use crate::peer::handles::reader::{ContentReader, ReaderOptions};
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::{Progress, StallReason, Strategy};
use crate::protocol::{Addr, AddrError};
use crate::storage::MemoryStorage;

/// What a download does if something else has its name in the storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfTaken {
    /// It fails with [`DownloadError::TargetExists`], and what is there stays.
    #[default]
    Fail,
    /// It replaces a file that has the name, in one step, when the content is complete,
    /// verified and durable, and not before. If this peer shares what is replaced, that
    /// is served from its other places ([`Peer::paths`](crate::Peer::paths)) or is among the
    /// [lost](crate::Peer::lost) from that moment on. Anything but a file stays, and the
    /// download fails.
    Overwrite,
}

/// What a download does differently from others; see
/// [`Peer::download_with`](crate::Peer::download_with).
///
/// Of one that joins another download of the same content, also a paused one, this counts:
///
/// | option | what it does to a download that is joined |
/// |---|---|
/// | [`owners`](Self::owners) | they are asked as well |
/// | [`limits`](fn@Self::limits) | they replace those of the content |
/// | [`priority`](fn@Self::priority) | the higher one counts |
/// | [`seed`](fn@Self::seed) | the content is shared if one of the two is to be |
/// | [`paused`](fn@Self::paused) | it is paused; without this it stays as it is |
/// | [`name`](fn@Self::name), [`directory`](fn@Self::directory), [`if_taken`](fn@Self::if_taken) | nothing: in the end a copy goes there |
/// | [`strategy`](fn@Self::strategy), [`existing`](fn@Self::existing) | nothing |
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// The name to store the content under, instead of the one that its owners
    /// use. It stays here: no tracker and no other peer is told. A download that joins
    /// one under another name copies the content to this one in the end.
    pub name: Option<ContentName>,
    /// Which chunk comes next. A download that joins another follows that one's order.
    pub strategy: Strategy,
    /// Which of the downloads that wait begins first. One that joins another raises the
    /// priority of that.
    pub priority: Priority,
    /// Whether the content is shared when it is complete: by default. A download that
    /// joins another has the content shared if one of the two is to. See
    /// [`seed`](Self::seed).
    pub seed: bool,
    /// Set if the download is paused from the start, and how. One that joins another
    /// pauses that.
    pub paused: Option<PauseOptions>,
    /// Owners that are known in addition to those that a tracker names. With
    /// them a download by id needs no tracker.
    pub owners: Vec<Addr>,
    /// How fast the content may be sent and received; see
    /// [`limits`](fn@Self::limits). `None` leaves the limits that it has.
    pub limits: Option<ContentLimits>,
    /// The directory to store the content in, instead of that of the storage: an absolute
    /// path, or one within the directory of the storage. It is created if it is missing.
    /// An interrupted download is resumed from there if the next one has the same
    /// directory. What is stored there is shared, and shared again after a restart, as
    /// anything else; [`Peer::remove`](crate::Peer::remove) does not delete it.
    pub directory: Option<PathBuf>,
    /// What to do if something else has the name in the storage.
    pub if_taken: IfTaken,
    /// A file that may have a part of the content, such as one that another program has
    /// copied. Whatever is right in it is copied and not fetched, at the same positions.
    /// It may be shorter, longer or damaged, and is not changed. A file that has all of it
    /// need not be copied: [`Peer::verify`](crate::Peer::verify) shares it from where it
    /// lies. A download that was paused and goes on after a restart does without the file if
    /// that is gone.
    pub existing: Option<PathBuf>,
    /// Where it goes instead of to the peer's storage. It does not stay there.
    pub(in crate::peer) memory: Option<MemoryStorage>,
    /// Where it passes through, instead.
    pub(in crate::peer) passing: Option<PassingStorage>,
    /// A place that it has together with another content, instead.
    pub(in crate::peer) common: Option<CommonPlace>,
    /// What was found out before the peer was started again.
    pub(in crate::peer) earlier: Option<Box<Earlier>>,
    /// The first text that was not an address or a name; the download fails with it.
    pub(in crate::peer) wrong: Option<DownloadError>,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            name: None,
            strategy: Strategy::default(),
            priority: Priority::default(),
            seed: true,
            paused: None,
            owners: Vec::new(),
            limits: None,
            directory: None,
            if_taken: IfTaken::default(),
            existing: None,
            memory: None,
            passing: None,
            common: None,
            earlier: None,
            wrong: None,
        }
    }
}

impl DownloadOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is for one caller only, and does not stay.
    pub(in crate::peer) fn is_private(&self) -> bool {
        self.memory.is_some() || self.passing.is_some()
    }

    /// Sets which of the downloads that wait begins first.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets whether the content is shared when it is complete. If not, it is in the
    /// storage then, verified and durable, and no more: trackers no longer list this peer,
    /// its links for the content are closed, and it is not recorded to be shared after a
    /// restart. Until then other peers get what is here, as from any download. A content
    /// that this peer shares already is still shared.
    #[must_use]
    pub fn seed(mut self, seed: bool) -> Self {
        self.seed = seed;
        self
    }

    /// Begins the download paused: it is listed, and waits for
    /// [`Download::resume`].
    #[must_use]
    pub fn paused(mut self, options: PauseOptions) -> Self {
        self.paused = Some(options);
        self
    }

    /// Sets the name to store the content under: a [`ContentName`], or text. No other
    /// peer is told. If it is not a content name, the download fails with
    /// [`DownloadError::Name`].
    #[must_use]
    pub fn name<N>(mut self, name: N) -> Self
    where
        N: TryInto<ContentName> + fmt::Display,
        N::Error: Into<NameError>,
    {
        match checked_name(name) {
            Ok(name) => self.name = Some(name),
            Err(wrong) => {
                self.wrong.get_or_insert(wrong);
            }
        }
        self
    }

    /// Sets the [directory](Self::directory) to store the content in.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Sets what to do if something else has the name in the storage.
    #[must_use]
    pub fn if_taken(mut self, if_taken: IfTaken) -> Self {
        self.if_taken = if_taken;
        self
    }

    /// Sets a file that may have a part of the content, and is
    /// [taken over](Self::existing).
    #[must_use]
    pub fn existing(mut self, path: impl Into<PathBuf>) -> Self {
        self.existing = Some(path.into());
        self
    }

    /// Sets the order in which the chunks are asked for.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
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
            Err(wrong) => {
                self.wrong.get_or_insert(wrong.into());
            }
        }
        self
    }
}

/// A download that runs in the background.
///
/// Await it for its outcome: the [`Content`], stored under its name, verified
/// and durable, or a [`DownloadError`]. Awaiting is cancel safe: `&mut download`
/// may be awaited any number of times, also after the end. Dropping the handle
/// cancels the download; a content that is complete stays, and is still shared.
///
/// A download of a content that is being downloaded already joins that one. Each call of
/// [`Peer::download`](crate::Peer::download) gives a handle of its own, and the download
/// goes on as long as one of them is there.
#[must_use = "dropping the handle cancels the download"]
pub struct Download {
    pub(super) status: watch::Receiver<ContentStatus>,
    /// Cancelled when there is an outcome, and when none comes any more.
    ended: CancellationToken,
    outcome: ReusableBoxFuture<'static, Result<Content, DownloadError>>,
    hold: Hold,
    /// Cancelled when this handle has cancelled its part, and the download goes on for
    /// others.
    left: CancellationToken,
    pub(super) inbox: mpsc::Sender<DriverInput>,
    control: Arc<DownloadControl>,
    readers: Arc<ReaderBoard>,
    /// Cancelled when the peer is shut down.
    stop: CancellationToken,
    pub(super) topic: Arc<Topic>,
}

impl Download {
    /// The handle of a download with this status, and what is cancelled at its end.
    pub(in crate::peer) fn new(
        (status, ended): (watch::Receiver<ContentStatus>, CancellationToken),
        hold: Hold,
        inbox: mpsc::Sender<DriverInput>,
        (control, topic): (Arc<DownloadControl>, Arc<Topic>),
        readers: Arc<ReaderBoard>,
        stop: CancellationToken,
    ) -> Self {
        let left = CancellationToken::new();
        Self {
            control,
            readers,
            stop,
            topic,
            outcome: ReusableBoxFuture::new(outcome(ended.clone(), left.clone(), status.clone())),
            status,
            ended,
            hold,
            left,
            inbox,
        }
    }

    /// The events from now on, in order, after one event for each thing that is known
    /// already. There may be many streams, each read at its own pace; nothing waits for one
    /// that is not read. One that begins when the download has ended has its last event,
    /// [`Finished`](DownloadEvent::Finished) or [`Failed`](DownloadEvent::Failed), too. The
    /// stream does not keep the download running, and costs nothing when it is dropped.
    ///
    /// Up to 1,024 events wait to be read, which takes at most some hundred KiB. Of
    /// [`Progress`](DownloadEvent::Progress) that is not read in time only the latest waits.
    /// When more would wait, the oldest [`Progress`](DownloadEvent::Progress) or
    /// [`ChunkVerified`](DownloadEvent::ChunkVerified) is dropped, and only if none of them
    /// waits, the oldest of the others. The stream tells how many are missing where they
    /// were ([`Missed`](DownloadEvent::Missed)). The last event is never dropped.
    pub fn events(&self) -> DownloadEvents {
        DownloadEvents::new(self)
    }

    /// How many downloads of this peer begin before this one; `None` if it has
    /// begun or ended, or waits for a tracker. O(downloads that wait).
    pub fn position(&self) -> Option<usize> {
        self.control.ticket().position()
    }

    /// What is wanted of the download.
    pub(in crate::peer) fn control(&self) -> &Arc<DownloadControl> {
        &self.control
    }

    /// Whether the download is paused by now.
    pub fn is_paused(&self) -> bool {
        self.status.borrow().is_paused()
    }

    /// How far the download is. [`Progress::uploaded`] goes on counting after its end,
    /// for as long as this peer shares the content.
    pub fn progress(&self) -> Progress {
        let status = self.status.borrow();
        let mut progress = status.progress().clone();
        progress.uploaded = status.uploads().bytes();
        progress
    }

    /// How many bytes are known to be durable: recorded by the storage, so that
    /// they survive a crash of the machine and are not fetched again, if the
    /// storage supports that. Verified bytes ([`Progress::verified_bytes`])
    /// survive only a crash of the process, until they become durable
    /// [`commit_bytes`] or [`commit_interval`] later.
    ///
    /// [`commit_bytes`]: crate::peer::swarm::SwarmConfig::commit_bytes
    /// [`commit_interval`]: crate::peer::swarm::SwarmConfig::commit_interval
    pub fn durable_bytes(&self) -> u64 {
        self.status.borrow().durable_bytes()
    }

    /// Why nothing arrives at present; `None` as long as something does.
    pub fn stall(&self) -> Option<StallReason> {
        self.status.borrow().stall()
    }

    /// Whether it is known what the chunks must be.
    #[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
    pub(in crate::peer) fn is_open(&self) -> bool {
        self.status.borrow().is_open()
    }

    pub(in crate::peer) fn inbox(&self) -> &mpsc::Sender<DriverInput> {
        &self.inbox
    }

    /// The content, once its manifest is known.
    pub fn content(&self) -> Option<Content> {
        self.status.borrow().content().cloned()
    }

    /// Which chunks are verified and stored; `None` if the manifest is not known yet, or
    /// the download has failed. A download that was paused before a restart tells how much it
    /// has ([`progress`](Self::progress)), and which chunks as soon as it goes on: the storage
    /// is not asked before that. O(chunks).
    ///
    /// Cancel safe.
    pub async fn verified_chunks(&self) -> Option<Bitfield> {
        if !self.topic.is_found() {
            return None;
        }
        let all = {
            let status = self.status.borrow();
            let chunks = status.progress().chunks?;
            status.complete().map(|_| Bitfield::all(chunks))
        };
        if all.is_some() {
            return all;
        }
        let (reply, answer) = oneshot::channel();
        let input = DriverInput::VerifiedChunks { reply };
        // Both fail only when the download has ended.
        self.inbox.send(input).await.ok()?;
        answer.await.ok()?
    }

    /// Reads the content while it is being downloaded, and afterwards. It waits for what
    /// is not here yet, and has that fetched first. There can be many readers. They do
    /// not keep the download running.
    pub fn reader(&self) -> ContentReader {
        self.reader_with(ReaderOptions::default())
    }

    /// [`reader`](Self::reader), with options.
    pub fn reader_with(&self, options: ReaderOptions) -> ContentReader {
        ContentReader::new(Arc::clone(&self.readers), self.stop.clone(), options)
    }

    /// Ends the download, also one that was [detached](Self::detach) before. What has
    /// arrived is kept for the next download of the content
    /// ([`discard`](Self::discard) deletes it). Returns at once; the outcome follows soon,
    /// and is [`DownloadError::Cancelled`], unless the download ends in another way before.
    /// A content that is being published at that moment is published. A complete content
    /// stays, and is still shared.
    ///
    /// If there are other handles of the download, it goes on for them, and only this
    /// handle has that outcome. A handle that somebody awaits is one of them. The last one
    /// decides, whatever the others did:
    ///
    /// | the last handle | the download | what has arrived |
    /// |---|---|---|
    /// | is dropped | ends, unless one was [detached](Self::detach) | is kept |
    /// | is detached | goes on | |
    /// | cancels | ends | is kept |
    /// | [discards](Self::discard) | ends | is deleted |
    pub fn cancel(&self) {
        if self.hold.cancel() {
            self.left.cancel();
        }
    }

    /// Ends the download as [`cancel`](Self::cancel) does, and deletes what has arrived of
    /// the content, also what an earlier download has left. Returns at once. When the
    /// outcome is [`DownloadError::Cancelled`], it is gone; it is
    /// [`DownloadError::Storage`] if the storage could not delete it. A download by name
    /// that has not found its content yet has nothing to delete. A content that is
    /// complete, or is being published at that moment, stays.
    ///
    /// If there are other handles of the download, it goes on for them, nothing is
    /// deleted, and only this handle is cancelled. The last handle decides.
    pub fn discard(&self) {
        if self.hold.discard() {
            self.left.cancel();
        }
    }

    /// Lets the download run without a handle, until it ends or the peer stops. Another
    /// call of [`Peer::download`](crate::Peer::download) gives a handle again.
    pub fn detach(self) {
        self.hold.detach();
    }
}

impl Future for Download {
    type Output = Result<Content, DownloadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.outcome.poll(cx));
        // For the next one that awaits it.
        let again = outcome(self.ended.clone(), self.left.clone(), self.status.clone());
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

async fn outcome(
    ended: CancellationToken,
    left: CancellationToken,
    status: watch::Receiver<ContentStatus>,
) -> Result<Content, DownloadError> {
    tokio::select! {
        biased;
        () = ended.cancelled() => final_outcome(&status.borrow()),
        () = left.cancelled() => Err(DownloadError::Cancelled),
        content = resting(status.clone()) => Ok(content),
    }
}

/// Waits until all is here of which only a part is wanted. What is wanted is another choice
/// when the download joins another one.
async fn resting(status: watch::Receiver<ContentStatus>) -> Content {
    loop {
        let choice = status.borrow().choice().cloned();
        let is_other = |status: &ContentStatus| match (status.choice(), &choice) {
            (Some(now), Some(before)) => !Arc::ptr_eq(now, before),
            (now, before) => now.is_some() != before.is_some(),
        };
        let mut news = status.clone();
        let rests = async {
            match &choice {
                Some(choice) => all_of(choice, status.clone()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            content = rests => return content,
            is_gone = async { news.wait_for(is_other).await.is_err() } => if is_gone {
                return std::future::pending().await;
            },
        }
    }
}

/// Waits until all of a choice is here.
async fn all_of(choice: &Choice, mut status: watch::Receiver<ContentStatus>) -> Content {
    loop {
        choice.here().await;
        let seen = status.wait_for(|status| status.content().is_some()).await;
        match seen.ok().and_then(|status| status.content().cloned()) {
            // Something else may be wanted by now.
            Some(content) if choice.rests() => return content,
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}

/// The outcome of a download that will not report anything more. A task that
/// was ended at once has reported none.
fn final_outcome(status: &ContentStatus) -> Result<Content, DownloadError> {
    let outcome = status.outcome().cloned();
    outcome.unwrap_or(Err(DownloadError::ShutDown))
}

/// The stream of [`Download::events`].
pub struct DownloadEvents {
    queue: Arc<EventQueue<DownloadEvent>>,
    /// Ready when the handle has cancelled its part, and the download goes on for others.
    left: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _place: ReaderPlace,
    _details: Option<Place>,
}

impl DownloadEvents {
    fn new(download: &Download) -> Self {
        let queue = Arc::default();
        let watchers = download.topic.watchers();
        Self {
            _place: watchers.add(&queue, &download.status),
            _details: None,
            left: Some(Box::pin(download.left.clone().cancelled_owned())),
            queue,
        }
    }

    /// The same with what happens around the content.
    pub(super) fn with_details(mut self, topic: &Topic) -> Self {
        self._details = Some(topic.add_details(&self.queue));
        self
    }
}

impl Stream for DownloadEvents {
    type Item = DownloadEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<DownloadEvent>> {
        let left = self.left.as_mut().map(|left| left.as_mut().poll(cx));
        if left.is_some_and(|left| left.is_ready()) {
            self.left = None;
            let cancelled = DownloadEvent::Failed(DownloadError::Cancelled);
            // It has no effect after another end.
            self.queue.push(cancelled);
            self.queue.close();
        }
        self.queue.poll_next(cx)
    }
}

impl fmt::Debug for DownloadEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadEvents").finish_non_exhaustive()
    }
}
