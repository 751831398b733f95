//! Between the swarm machine of one content and the world: carries messages,
//! bytes and time, and decides nothing.

mod jobs;
mod reads;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::admission::Place;
use super::download::Status;
use super::handshake::HandshakeError;
use super::link;
use super::serve::entry;
use super::share::off_thread;
use super::shared::{Claim, Shared};
use super::swarm::{DropReason, LinkId, LinkInfo, Output, Strategy, Swarm};
use crate::content::{Bitfield, ChunkIndex, Content, ContentName, Manifest};
use crate::error::DownloadError;
use crate::protocol::{Addr, OwnState, PeerMessage, RefuseReason};
use crate::storage::{Blob, Partial, StorageError};
use crate::transport::Connection;
use reads::{Checks, ReadBlock, Reads};

/// How many inputs may wait for a driver: with a block each, 16 MiB.
pub(in crate::peer) const INBOX_LEN: usize = 64;

/// How often the progress is looked at when nothing happens.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of a download waits for the trackers to take that it is
/// complete; they hear of it later all the same.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// What comes from outside.
pub(in crate::peer) enum Input {
    /// A link that has shaken hands.
    Link(Box<NewLink>),
    /// A message came.
    Message { link: LinkId, message: PeerMessage },
    /// Messages are gone, with so many bytes of blocks.
    Sent {
        link: LinkId,
        messages: usize,
        bytes: u64,
    },
    /// A link's task has ended.
    Down { link: LinkId },
    /// The user wants the chunks in another order.
    Strategy(Strategy),
}

/// A link that was not given to the machine yet.
pub(in crate::peer) struct NewLink {
    pub(in crate::peer) connection: Connection,
    pub(in crate::peer) info: LinkInfo,
    /// Given back when the link ends.
    pub(in crate::peer) place: Place,
}

/// What the driver started has ended.
enum Done {
    Dialled {
        addr: Addr,
        link: Result<Box<NewLink>, HandshakeError>,
    },
    Found(Vec<(Addr, bool)>),
    ManifestChecked {
        link: LinkId,
        manifest: Option<Manifest>,
    },
    Opened(Result<(ContentName, Opened), StorageError>),
    Verified {
        chunk: ChunkIndex,
        good: bool,
    },
    Checked {
        chunk: ChunkIndex,
        result: Result<bool, StorageError>,
    },
    Stored {
        chunk: ChunkIndex,
        result: Result<(), StorageError>,
    },
    Read(Vec<ReadBlock>),
    Committed {
        bytes: u64,
        result: Result<(), StorageError>,
    },
    Finished(Result<(), StorageError>),
    Told(OwnState),
}

enum Opened {
    /// The target of this download.
    Partial(Partial),
    /// The very content is there under its name.
    Whole(Arc<dyn Blob>),
}

/// The driver's end of a link. Dropping it closes the link behind what is
/// queued.
struct Outlet {
    queue: mpsc::Sender<PeerMessage>,
    _closing: DropGuard,
}

pub(in crate::peer) struct Driver {
    shared: Arc<Shared>,
    /// Given back before the inbox closes: who waits for that finds it free.
    claim: Claim,
    swarm: Swarm,
    content: Content,
    /// What trackers are told that it is called.
    listed_as: ContentName,
    /// Strangers have chosen its name: it gets another if that is taken.
    name_is_optional: bool,
    blob: Option<Arc<dyn Blob>>,
    /// Chunks of an earlier download that were not verified since.
    unchecked: Option<Bitfield>,
    checks: Checks,
    reads: Reads,
    /// The content is visible under its name already.
    published: bool,
    /// It is becoming so at this moment.
    publishing: bool,
    /// Trackers were told of it.
    announced: bool,
    inbox: mpsc::Receiver<Input>,
    /// For the tasks of links.
    to_inbox: mpsc::Sender<Input>,
    links: BTreeMap<LinkId, Outlet>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    status: watch::Sender<Status>,
    failed: Option<DownloadError>,
}

impl Driver {
    pub(in crate::peer) fn new(
        shared: Arc<Shared>,
        claim: Claim,
        swarm: Swarm,
        (content, listed_as): (Content, ContentName),
        blob: Option<Arc<dyn Blob>>,
        inbox: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            shared,
            claim,
            swarm,
            published: blob.is_some(),
            announced: blob.is_some(),
            publishing: false,
            content,
            listed_as,
            name_is_optional: false,
            blob,
            unchecked: None,
            checks: Checks::default(),
            reads: Reads::default(),
            inbox: inbox.1,
            to_inbox: inbox.0,
            links: BTreeMap::new(),
            jobs: FuturesUnordered::new(),
            status,
            failed: None,
        }
    }

    /// Owners that are known from the start.
    pub(in crate::peer) fn owners_found(&mut self, owners: Vec<(Addr, bool)>) {
        self.swarm.owners_found(now(), owners);
    }

    /// Its name is not what the user wants it to have: it may become its id.
    pub(in crate::peer) fn name_is_optional(&mut self) {
        self.name_is_optional = true;
    }

    /// Runs until it is stopped, or a download fails. `cancel` ends a download
    /// and leaves a content alone that is complete, or being published.
    pub(in crate::peer) async fn run(mut self, stop: CancellationToken, cancel: CancellationToken) {
        let timer = tokio::time::sleep_until(Instant::now());
        tokio::pin!(timer);
        let mut seen = Instant::now();
        let reason = loop {
            self.perform_outputs();
            if let Some(error) = self.failed.take() {
                break error;
            }
            let seeding = self.swarm.is_seeding();
            let due = self.swarm.poll_timeout().map(Instant::from_std);
            let look = (!seeding).then(|| seen + PROGRESS_INTERVAL);
            let due = due.into_iter().chain(look).min();
            if let Some(due) = due
                && due != timer.deadline()
            {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break DownloadError::ShutDown,
                () = cancel.cancelled(), if !seeding && !self.publishing => {
                    break DownloadError::Cancelled;
                }
                // Before the inbox, which somebody may keep full.
                () = &mut timer, if due.is_some() => {
                    self.swarm.handle_timeout(now());
                    seen = Instant::now();
                    self.show_progress();
                }
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done),
                Some(input) = self.inbox.recv() => self.input(input),
            }
        };
        self.end(reason).await;
    }

    /// Closes everything, and says how it ended.
    async fn end(mut self, reason: DownloadError) {
        if self.publishing {
            // Whether it became visible is not left open, if that can be.
            let published = async {
                while let Some(done) = self.jobs.next().await {
                    if let Done::Finished(result) = done {
                        return result.is_ok();
                    }
                }
                false
            };
            let patience = self.shared.config.shutdown_timeout;
            self.published = timeout(patience, published).await.unwrap_or(false);
        } else if !matches!(reason, DownloadError::Storage { .. }) {
            self.save().await;
        }
        let Self {
            shared,
            claim,
            swarm,
            content,
            listed_as,
            blob,
            published,
            announced,
            inbox,
            links,
            jobs,
            status,
            publishing,
            ..
        } = self;
        // Jobs first: nothing is written behind the back of who starts the
        // same download again.
        drop(jobs);
        drop(blob);
        let stopping = shared.stop.is_cancelled();
        let reason = match reason {
            _ if stopping => DownloadError::ShutDown,
            reason => reason,
        };
        let farewell = match reason {
            DownloadError::ShutDown if stopping => RefuseReason::ShuttingDown,
            DownloadError::ShutDown => RefuseReason::UnknownContent,
            _ if swarm.is_seeding() => RefuseReason::UnknownContent,
            _ => RefuseReason::NotNeeded,
        };
        tracing::debug!(content = %content.id, %reason, "content ended");
        // Noted before anybody can share the content again. A tracker that does
        // not hear it finds out by the owner's refusal.
        let gone = (announced && !stopping).then(|| entry(&content, &listed_as, OwnState::Gone));
        let mut gone = pin!(OptionFuture::from(
            gone.map(|gone| shared.trackers.own(gone))
        ));
        let told = futures::poll!(gone.as_mut());
        if swarm.is_seeding() && !stopping {
            shared
                .stop
                .run_until_cancelled(shared.forget(&content))
                .await;
        }
        drop(claim);
        for outlet in links.into_values() {
            // A link whose queue is full ends without a word.
            let _ = outlet.queue.try_send(PeerMessage::Refuse(farewell));
        }
        let complete = swarm.is_seeding() || publishing && published;
        let outcome = if complete {
            Ok(content.clone())
        } else {
            Err(reason)
        };
        status.send_modify(|status| status.ended(outcome));
        drop(inbox);
        if told.is_pending() {
            shared.stop.run_until_cancelled(gone).await;
        }
    }

    /// Makes durable what has come, so that nothing is fetched twice. Within
    /// half of the time that a peer has to stop, so that the farewells have the
    /// rest.
    async fn save(&mut self) {
        let patience = self.shared.config.shutdown_timeout / 2;
        let id = self.content.id;
        self.swarm.stop(now());
        let saved = timeout(patience, async {
            loop {
                while let Some(output) = self.swarm.poll_output() {
                    if let Output::Verify { .. } | Output::Store { .. } | Output::Commit { .. } =
                        output
                    {
                        self.perform(output);
                    }
                }
                if self.swarm.is_saved() || self.failed.is_some() {
                    return;
                }
                match self.jobs.next().await {
                    Some(
                        done @ (Done::Verified { .. }
                        | Done::Stored { .. }
                        | Done::Committed { .. }),
                    ) => self.done(done),
                    Some(_) => {}
                    None => return,
                }
            }
        });
        if saved.await.is_err() {
            tracing::warn!(content = %id, "not all that came could be made durable in time");
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Link(link) => self.link_up(*link),
            Input::Message { link, message } => self.swarm.handle_message(now(), link, message),
            Input::Sent {
                link,
                messages,
                bytes,
            } => self.swarm.messages_sent(now(), link, messages, bytes),
            Input::Down { link } => {
                self.links.remove(&link);
                self.swarm.link_down(now(), link);
            }
            Input::Strategy(strategy) => self.swarm.set_strategy(strategy),
        }
    }

    fn link_up(&mut self, link: NewLink) {
        let NewLink {
            connection,
            info,
            place,
        } = link;
        let id = self.shared.next_link();
        let (queue, messages) = mpsc::channel(link::QUEUE_LEN);
        let closing = CancellationToken::new();
        let outlet = Outlet {
            queue,
            _closing: closing.clone().drop_guard(),
        };
        self.links.insert(id, outlet);
        let inbox = self.to_inbox.clone();
        tracing::debug!(content = %self.content.id, link = id.0, peer = %info.peer, "link up");
        self.shared.spawn(async move {
            link::run(id, connection, place, messages, closing, inbox).await;
        });
        self.swarm.link_up(now(), id, info);
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Dialled { link: Ok(link), .. } => self.link_up(*link),
            Done::Dialled {
                addr,
                link: Err(error),
            } => {
                tracing::debug!(content = %self.content.id, %addr, %error, "dial failed");
                self.swarm.dial_failed(now(), &addr);
            }
            Done::Found(owners) => self.swarm.owners_found(now(), owners),
            Done::ManifestChecked { link, manifest } => {
                self.swarm.manifest_checked(now(), link, manifest);
            }
            Done::Opened(Ok((name, opened))) => self.opened(name, opened),
            Done::Verified { chunk, good } => self.swarm.chunk_verified(now(), chunk, good),
            Done::Checked { chunk, result } => self.checked(chunk, result),
            Done::Stored {
                chunk,
                result: Ok(()),
            } => {
                self.swarm.chunk_stored(now(), chunk);
                self.show_progress();
            }
            Done::Stored {
                chunk,
                result: Err(source),
            } => self.storage_failed(Some(chunk), source),
            Done::Read(blocks) => self.batch_read(blocks),
            Done::Committed {
                bytes,
                result: Ok(()),
            } => {
                self.are_durable(bytes);
                self.swarm.committed(now());
            }
            Done::Finished(Ok(())) => {
                self.published = true;
                self.publishing = false;
                self.are_durable(self.content.length);
                self.swarm.finished(now());
                self.show_progress();
            }
            Done::Told(OwnState::Complete) => {
                let content = self.content.clone();
                self.status.send_modify(|status| status.ended(Ok(content)));
            }
            Done::Told(_) => {}
            Done::Opened(Err(source))
            | Done::Committed {
                result: Err(source),
                ..
            }
            | Done::Finished(Err(source)) => {
                self.publishing = false;
                self.storage_failed(None, source);
            }
        }
    }

    fn perform_outputs(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            self.perform(output);
        }
        self.start_reads();
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { link, message } => self.send(link, message),
            Output::Dial { addr } => self.dial(addr),
            Output::Drop { link, reason } => {
                tracing::debug!(content = %self.content.id, link = link.0, %reason, "link dropped");
                if let Some(outlet) = self.links.remove(&link)
                    && let DropReason::Refused(reason) = reason
                {
                    let _ = outlet.queue.try_send(PeerMessage::Refuse(reason));
                }
            }
            Output::FindOwners => self.find_owners(),
            Output::CheckManifest { link, claim } => self.job(async move {
                let manifest = off_thread(move || claim.check()).await;
                Done::ManifestChecked { link, manifest }
            }),
            Output::Open(manifest) => self.open(manifest),
            Output::Verify { chunk, pieces } => self.verify(chunk, pieces),
            Output::Recheck { chunk } => self.recheck(chunk),
            Output::Store { chunk, pieces } => {
                let offset = self.offset_of(chunk);
                self.on_blob(move |blob| async move {
                    let result = blob.write_at(offset, pieces).await;
                    Done::Stored { chunk, result }
                });
            }
            Output::Read { link, block } => self.read(link, block),
            Output::Commit { verified } => {
                let bytes = self.bytes_of(&verified);
                self.on_blob(move |blob| async move {
                    let result = blob.commit(&verified).await;
                    Done::Committed { bytes, result }
                });
            }
            Output::Finish => {
                self.publishing = true;
                self.finish();
            }
            Output::Announce(state) => {
                self.announced = true;
                let entry = entry(&self.content, &self.listed_as, state);
                let trackers = self.shared.trackers.clone();
                self.job(async move {
                    match timeout(TELL_TIMEOUT, trackers.own(entry)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "announcing failed"),
                        Err(_) => tracing::debug!("announcing takes long, and goes on"),
                    }
                    Done::Told(state)
                });
            }
            Output::Credit { owner, bytes } => self.shared.trackers.credit(&owner, bytes),
            Output::GaveUp => {
                let progress = self.swarm.progress(now());
                let missing = progress.chunks.map(|all| all - progress.verified_chunks);
                self.failed = Some(DownloadError::GaveUp {
                    id: self.content.id,
                    missing: missing.unwrap_or(0),
                });
            }
        }
    }

    fn send(&mut self, link: LinkId, message: PeerMessage) {
        let Some(outlet) = self.links.get(&link) else {
            return;
        };
        if outlet.queue.try_send(message).is_err() {
            // It does not read, or has ended and says so soon.
            self.links.remove(&link);
            self.swarm.link_down(now(), link);
        }
    }

    fn show_progress(&mut self) {
        let progress = self.swarm.progress(now());
        self.status
            .send_if_modified(|status| status.moved(progress));
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
