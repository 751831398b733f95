//! The handle of a download: await it, watch it, cancel it, or drop it.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use crate::content::{Bitfield, ChunkIndex, Content, ContentName, NameError};
use crate::error::{DownloadError, checked_addr, checked_name};
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::passing::PassingStorage;
use crate::peer::contents::readers::ReaderBoard;
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::holders::Hold;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::priority::Priority;
use crate::peer::events::event::PeerEvent;
use crate::peer::events::hub::Subscription;
use crate::peer::events::topic::Topic;
use crate::peer::handles::reader::{ContentReader, ReaderOptions};
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::{BannedPeer, LeaveReason, Progress, RemotePeer, StallReason, Strategy};
use crate::protocol::{Addr, AddrError};
use crate::storage::MemoryStorage;

/// What happens to a download.
///
/// With the feature `serde` an event is saved as a JSON object whose field `event` has the
/// name of the variant in lower case with underscores, as in
/// `{"event":"stalled","reason":"silent","links":2}`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "event", rename_all = "snake_case")
)]
pub enum DownloadEvent {
    /// The download waits until others have ended
    /// ([`PeerConfig::max_downloads`](crate::peer::PeerConfig::max_downloads)).
    Queued,
    /// The manifest is known: what the content is, and how long. Comes again
    /// if something else has a name in the storage that the user did not ask
    /// for; then with the name that the content gets instead.
    Found(Content),
    /// How far the download is. Events that are not read merge into the latest.
    Progress(Progress),
    /// Nothing arrives at present, and why. The download goes on as long as its handle is
    /// held, unless [`SwarmConfig::patience`] ends it, and tries everybody again as soon
    /// as a tracker or a peer answers. Comes again when the reason changes; of several
    /// changes that are not read the last one counts.
    ///
    /// A download that begins while no tracker answers
    /// ([`StallReason::NoTracker`]) is not active: others may begin before it.
    ///
    /// [`SwarmConfig::patience`]: crate::peer::swarm::SwarmConfig::patience
    Stalled(StallReason),
    /// Something arrives again. Comes only after [`Stalled`](Self::Stalled), and not if
    /// the download was paused meanwhile.
    Resumed,
    /// The download was [paused](Download::pause), by this or another handle: nobody is
    /// asked for anything. Of several pauses that are not read only the last one counts;
    /// but the last one comes in any case, also when the download has ended by then.
    Paused,
    /// The download goes on, or waits for its turn. Comes only after
    /// [`Paused`](Self::Paused).
    Unpaused,
    /// A linked peer said for the first time that it has something of the content. This
    /// and the next four only come from [`Download::detailed_events`].
    OwnerJoined(RemotePeer),
    /// The link with an owner is gone.
    OwnerLeft {
        /// Who.
        #[cfg_attr(feature = "serde", serde(flatten))]
        owner: RemotePeer,
        /// Why.
        #[cfg_attr(feature = "serde", serde(flatten))]
        why: LeaveReason,
    },
    /// A peer lied, and is not admitted any more.
    Banned(BannedPeer),
    /// A chunk is right.
    ChunkVerified {
        /// Which one.
        chunk: ChunkIndex,
    },
    /// So many of the four events before were dropped here, since they were not read in
    /// time.
    Missed {
        /// How many.
        events: u64,
    },
    /// The content is stored, published and durable. The last event.
    Finished(Content),
    /// The download has failed. The last event.
    Failed(DownloadError),
}

/// What a download does if something else has its name in the storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfTaken {
    /// It fails with [`DownloadError::TargetExists`], and what is there stays.
    #[default]
    Fail,
    /// It replaces a file that has the name, in one step, when the content is complete,
    /// verified and durable, and not before. If this peer shares what is replaced, that
    /// is among the [lost](crate::Peer::lost) as soon as somebody reads it. Anything but a
    /// file stays, and the download fails.
    Overwrite,
}

/// What a download does differently from others; see
/// [`Peer::download_with`](crate::Peer::download_with).
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
    /// It may be shorter, longer or damaged, and is not changed.
    pub existing: Option<PathBuf>,
    /// Where it goes instead of to the peer's storage. It does not stay there.
    pub(in crate::peer) memory: Option<MemoryStorage>,
    /// Where it passes through, instead.
    pub(in crate::peer) passing: Option<PassingStorage>,
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
            wrong: None,
        }
    }
}

impl DownloadOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
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

    /// The events from now on, after one event for each thing that is known
    /// already. The stream is bounded: progress that is not read merges into
    /// the latest, and the last event, [`Finished`](DownloadEvent::Finished) or
    /// [`Failed`](DownloadEvent::Failed), is never lost. The stream does not
    /// keep the download running.
    pub fn events(&self) -> DownloadEvents {
        DownloadEvents::new(self.status.clone(), self.left.clone())
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

    /// Tells the driver something. Waits while the download is looking for its content.
    /// No effect on a download that has ended.
    pub(in crate::peer) async fn tell(&self, input: DriverInput) {
        // Fails only when the download has ended.
        let _ = self.inbox.send(input).await;
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
    /// [`commit_bytes`] or [`commit_interval`] later. What an interrupted
    /// download left behind is counted from the first commit of this one on.
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

    pub(in crate::peer) fn inbox(&self) -> &mpsc::Sender<DriverInput> {
        &self.inbox
    }

    /// The content, once its manifest is known.
    pub fn content(&self) -> Option<Content> {
        self.status.borrow().content().cloned()
    }

    /// Which chunks are verified and stored; `None` if the manifest is not known yet, or
    /// the download has failed. O(chunks).
    ///
    /// Cancel safe.
    pub async fn verified_chunks(&self) -> Option<Bitfield> {
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
    /// ([`discard`](Self::discard) deletes it). Returns at once; the outcome follows soon, and is [`DownloadError::Cancelled`], unless the
    /// download ends in another way before. A content that is being published at that
    /// moment is published. A complete content stays, and is still shared.
    ///
    /// If there are other handles of the download, it goes on for them, and only this
    /// handle has that outcome.
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

    /// Changes the order in which the missing chunks are asked for. Returns
    /// when the change is in effect: requests that are made from then on follow
    /// it, those that are on their way stay. While the download is still
    /// looking for the content, this waits. Once the download has ended, it
    /// returns at once and has no effect.
    ///
    /// Cancel safe: if the future is dropped, the order changes or it does not.
    pub async fn set_strategy(&self, strategy: Strategy) {
        let (done, heard) = oneshot::channel();
        let input = DriverInput::SetStrategy { strategy, done };
        // Both fail only when the download has ended.
        if self.inbox.send(input).await.is_ok() {
            let _ = heard.await;
        }
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
    status: watch::Receiver<ContentStatus>,
    left: CancellationToken,
    /// Waits until the status has changed. Returns whether anything may change
    /// after that.
    changed: ReusableBoxFuture<'static, bool>,
    next: NextEvent,
    /// The content and the progress of the last such events.
    found: Option<Content>,
    shown: Option<Progress>,
    /// The last reason that was told, until the download resumed.
    stall: Option<StallReason>,
    was_queued: bool,
    pauses: PausesTold,
    /// What is told beside the status.
    details: Option<Subscription>,
}

/// Which pauses were told.
#[derive(Debug, Clone, Copy)]
struct PausesTold {
    /// How often the download was paused or resumed by then.
    count: u64,
    is_paused: bool,
}

/// Where the next event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextEvent {
    /// From the present status, if that has something new.
    Status,
    /// From the next status.
    Change,
    /// The status changes no more, and its outcome is the last event.
    Outcome,
    /// There is none.
    End,
}

impl DownloadEvents {
    fn new(status: watch::Receiver<ContentStatus>, left: CancellationToken) -> Self {
        let pauses = PausesTold::before(status.borrow().pauses());
        Self {
            changed: ReusableBoxFuture::new(changed(status.clone(), left.clone())),
            pauses,
            status,
            left,
            next: NextEvent::Status,
            found: None,
            shown: None,
            stall: None,
            was_queued: false,
            details: None,
        }
    }

    /// The same with the events of the content.
    pub(super) fn with_details(mut self, details: Subscription) -> Self {
        self.details = Some(details);
        self
    }

    /// The next event of the content that is there.
    fn take_detail(&mut self, cx: &Context<'_>) -> Option<DownloadEvent> {
        while let Poll::Ready(event) = self.details.as_ref()?.poll_next(cx) {
            let Some(event) = event else {
                self.details = None;
                return None;
            };
            return Some(match event {
                PeerEvent::OwnerJoined { owner, .. } => DownloadEvent::OwnerJoined(owner),
                PeerEvent::OwnerLeft { owner, why, .. } => DownloadEvent::OwnerLeft { owner, why },
                PeerEvent::Banned { banned, .. } => DownloadEvent::Banned(banned),
                PeerEvent::ChunkVerified { chunk, .. } => DownloadEvent::ChunkVerified { chunk },
                PeerEvent::Missed { events } => DownloadEvent::Missed { events },
                // The status tells of it.
                _ => continue,
            });
        }
        None
    }

    /// What is new in the present status.
    fn take_news(&mut self) -> Option<DownloadEvent> {
        let status = self.status.borrow_and_update();
        if let Some(content) = status.content()
            && self.found.as_ref() != Some(content)
        {
            self.found = Some(content.clone());
            return Some(DownloadEvent::Found(content.clone()));
        }
        if let Some(event) = self.pauses.next(status.pauses()) {
            // What was told of a stall is outdated.
            self.stall = None;
            return Some(event);
        }
        let queued = status.is_queued();
        if queued && !std::mem::replace(&mut self.was_queued, queued) {
            return Some(DownloadEvent::Queued);
        }
        self.was_queued = queued;
        let stall = status.stall();
        let ended = status.outcome().is_some();
        if stall != self.stall && !ended {
            self.stall = stall;
            return Some(stall.map_or(DownloadEvent::Resumed, DownloadEvent::Stalled));
        }
        let progress = status.progress();
        if self.found.is_some()
            && self.shown.as_ref() != Some(progress)
            && !matches!(status.outcome(), Some(Err(_)))
        {
            self.shown = Some(progress.clone());
            return Some(DownloadEvent::Progress(progress.clone()));
        }
        let outcome = status.outcome()?;
        self.next = NextEvent::End;
        Some(last_event(outcome.clone()))
    }
}

impl PausesTold {
    /// Nothing was told of a download that was paused or resumed so often, except that it
    /// was not paused first.
    fn before(count: u64) -> Self {
        Self {
            count: count - count % 2,
            is_paused: false,
        }
    }

    /// The next event, when the download was paused or resumed so often. Of what was not
    /// told in time, the last pause is told, and what came after it.
    fn next(&mut self, count: u64) -> Option<DownloadEvent> {
        if self.count == count {
            return None;
        }
        let is_paused = count % 2 == 1;
        if self.is_paused != is_paused {
            self.count = count;
        }
        self.is_paused = !self.is_paused;
        Some(match self.is_paused {
            true => DownloadEvent::Paused,
            false => DownloadEvent::Unpaused,
        })
    }
}

impl Stream for DownloadEvents {
    type Item = DownloadEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<DownloadEvent>> {
        if self.next == NextEvent::End {
            return Poll::Ready(None);
        }
        if let Some(event) = self.take_detail(cx) {
            return Poll::Ready(Some(event));
        }
        loop {
            match self.next {
                NextEvent::Status => {
                    if let Some(event) = self.take_news() {
                        return Poll::Ready(Some(event));
                    }
                    let next = changed(self.status.clone(), self.left.clone());
                    self.changed.set(next);
                    self.next = NextEvent::Change;
                }
                NextEvent::Change => {
                    self.next = match ready!(self.changed.poll(cx)) {
                        true => NextEvent::Status,
                        false => NextEvent::Outcome,
                    };
                }
                NextEvent::Outcome => {
                    self.next = NextEvent::End;
                    let outcome = match self.left.is_cancelled() {
                        true => Err(DownloadError::Cancelled),
                        false => final_outcome(&self.status.borrow()),
                    };
                    return Poll::Ready(Some(last_event(outcome)));
                }
                NextEvent::End => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for DownloadEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadEvents")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

fn last_event(outcome: Result<Content, DownloadError>) -> DownloadEvent {
    match outcome {
        Ok(content) => DownloadEvent::Finished(content),
        Err(error) => DownloadEvent::Failed(error),
    }
}

async fn changed(mut status: watch::Receiver<ContentStatus>, left: CancellationToken) -> bool {
    tokio::select! {
        biased;
        changed = status.changed() => changed.is_ok(),
        () = left.cancelled() => false,
    }
}
