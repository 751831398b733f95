//! Between the swarm machine of one content and the world: carries messages,
//! bytes and time, and decides nothing.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::INLINE_HASH_LEN;
use super::download::Status;
use super::handshake::{HandshakeError, dial};
use super::link;
use super::share::{HashError, manifest_of, off_thread};
use super::shared::{Claim, HostPlace, Shared};
use super::swarm::{DropReason, LinkId, LinkInfo, Output, Strategy, Swarm};
use crate::content::{Bitfield, BlockRange, ChunkIndex, Content, ContentName, Manifest};
use crate::error::DownloadError;
use crate::protocol::{Addr, OwnEntry, OwnState, PeerMessage, RefuseReason};
use crate::storage::{Blob, Partial, StorageError};
use crate::tracker::TrackerError;
use crate::transport::Connection;

/// How many inputs may wait for a driver: with a block each, 16 MiB.
pub(super) const INBOX_LEN: usize = 64;

/// How often the progress is looked at when nothing happens.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of a download waits for the trackers to take that it is
/// complete; they hear of it later all the same.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// What comes from outside.
pub(super) enum Input {
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
pub(super) struct NewLink {
    pub(super) connection: Connection,
    pub(super) info: LinkInfo,
    /// Given back when the link ends.
    pub(super) places: (Option<OwnedSemaphorePermit>, Option<HostPlace>),
}

/// What the driver started has ended.
enum Done {
    Dialled {
        addr: Addr,
        link: Result<Box<NewLink>, HandshakeError>,
    },
    Found(Vec<(Addr, bool)>),
    Opened(Result<Opened, StorageError>),
    Verified {
        chunk: ChunkIndex,
        good: bool,
    },
    Stored {
        chunk: ChunkIndex,
        result: Result<(), StorageError>,
    },
    Read {
        link: LinkId,
        block: BlockRange,
        result: Result<Bytes, StorageError>,
    },
    Committed(Result<(), StorageError>),
    Finished(Result<(), StorageError>),
    Told(OwnState),
}

enum Opened {
    /// The target of this download.
    Partial(Partial),
    /// The very content is there under its name.
    Whole(Arc<dyn Blob>),
    /// Something else is.
    Other,
}

/// The driver's end of a link. Dropping it closes the link behind what is
/// queued.
struct Outlet {
    queue: mpsc::Sender<PeerMessage>,
    _closing: DropGuard,
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    /// Given back before the inbox closes: who waits for that finds it free.
    claim: Claim,
    swarm: Swarm,
    content: Content,
    blob: Option<Arc<dyn Blob>>,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        claim: Claim,
        swarm: Swarm,
        content: Content,
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
            blob,
            inbox: inbox.1,
            to_inbox: inbox.0,
            links: BTreeMap::new(),
            jobs: FuturesUnordered::new(),
            status,
            failed: None,
        }
    }

    /// Owners that are known from the start.
    pub(super) fn owners_found(&mut self, owners: Vec<(Addr, bool)>) {
        self.swarm.owners_found(now(), owners);
    }

    /// Runs until it is stopped, or a download fails. `cancel` ends a download
    /// and leaves a content alone that is complete, or being published.
    pub(super) async fn run(mut self, stop: CancellationToken, cancel: CancellationToken) {
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
            self.published |= timeout(patience, published).await.unwrap_or(false);
        }
        let Self {
            shared,
            claim,
            swarm,
            content,
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
            _ => RefuseReason::NotNeeded,
        };
        tracing::debug!(content = %content.id, %reason, "content ended");
        // Noted before anybody can share the content again.
        let gone = announced && !stopping;
        let mut gone = pin!(gone.then(|| shared.trackers.own(entry(&content, OwnState::Gone))));
        let gone = async {
            match gone.as_mut().as_pin_mut() {
                // A tracker that does not hear it finds out by the owner's refusal.
                Some(own) => drop(own.await),
                None => {}
            }
        };
        let mut gone = pin!(gone);
        let told = futures::poll!(gone.as_mut());
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
            places,
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
            let _places = places;
            link::run(id, connection, messages, closing, inbox).await;
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
            Done::Opened(Ok(opened)) => self.opened(opened),
            Done::Verified { chunk, good } => self.swarm.chunk_verified(now(), chunk, good),
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
            Done::Read {
                link,
                block,
                result,
            } => {
                if let Err(error) = &result {
                    tracing::warn!(content = %self.content.id, %error, "reading for a peer failed");
                }
                self.swarm.block_read(now(), link, block, result.ok());
            }
            Done::Committed(Ok(())) => self.swarm.committed(now()),
            Done::Finished(Ok(())) => {
                self.published = true;
                self.publishing = false;
                self.swarm.finished(now());
                self.show_progress();
            }
            Done::Told(OwnState::Complete) => {
                let content = self.content.clone();
                self.status.send_modify(|status| status.ended(Ok(content)));
            }
            Done::Told(_) => {}
            Done::Opened(Err(source))
            | Done::Committed(Err(source))
            | Done::Finished(Err(source)) => {
                self.publishing = false;
                self.storage_failed(None, source);
            }
        }
    }

    fn opened(&mut self, opened: Opened) {
        let (blob, present) = match opened {
            Opened::Partial(partial) => (partial.blob, partial.present),
            Opened::Whole(blob) => {
                self.published = true;
                let chunks = self.swarm.manifest().map(|m| m.geometry().chunks());
                (blob, Bitfield::all(chunks.unwrap_or_default()))
            }
            Opened::Other => {
                self.failed = Some(DownloadError::TargetExists {
                    name: self.content.name.clone(),
                    id: self.content.id,
                });
                return;
            }
        };
        self.blob = Some(blob);
        self.swarm.opened(now(), &present);
        self.show_progress();
    }

    fn storage_failed(&mut self, chunk: Option<ChunkIndex>, source: StorageError) {
        let Content { id, name, .. } = self.content.clone();
        self.failed = Some(match source {
            StorageError::Exists { .. } => DownloadError::TargetExists { name, id },
            source => DownloadError::Storage { id, chunk, source },
        });
    }

    fn perform_outputs(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            self.perform(output);
        }
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
            Output::Open(manifest) => self.open(manifest),
            Output::Verify { chunk, pieces } => self.verify(chunk, pieces),
            Output::Store { chunk, pieces } => {
                let offset = self.offset_of(chunk);
                self.on_blob(move |blob| async move {
                    let result = blob.write_at(offset, pieces).await;
                    Done::Stored { chunk, result }
                });
            }
            Output::Read { link, block } => {
                let offset = self.offset_of(block.chunk) + u64::from(block.offset);
                self.on_blob(move |blob| async move {
                    let result = blob.read_at(offset, block.len as usize).await;
                    Done::Read {
                        link,
                        block,
                        result,
                    }
                });
            }
            Output::Commit { verified } => self
                .on_blob(move |blob| async move { Done::Committed(blob.commit(&verified).await) }),
            Output::Finish => {
                self.publishing = true;
                let published = self.published;
                self.on_blob(move |blob| async move {
                    Done::Finished(if published {
                        Ok(())
                    } else {
                        blob.finish().await
                    })
                });
            }
            Output::Announce(state) => {
                self.announced = true;
                let entry = entry(&self.content, state);
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

    fn dial(&mut self, addr: Addr) {
        let shared = Arc::clone(&self.shared);
        let id = self.content.id;
        self.job(async move {
            let link = async {
                let place = shared.place().ok_or(HandshakeError::Full)?;
                let (connection, hello) = dial(&shared, &addr, id).await?;
                Ok(Box::new(NewLink {
                    connection,
                    info: LinkInfo {
                        peer: hello.peer,
                        addr: Some(addr.clone()),
                        dialled: true,
                    },
                    places: (Some(place), None),
                }))
            };
            let link = link.await;
            Done::Dialled { addr, link }
        });
    }

    fn find_owners(&mut self) {
        let shared = Arc::clone(&self.shared);
        let id = self.content.id;
        self.job(async move {
            let wanted = shared.config.owners_wanted;
            let owners = match shared.trackers.need(id.into(), wanted).await {
                Ok(found) => found.owners,
                Err(error) => {
                    if error != TrackerError::NoTracker {
                        tracing::warn!(content = %id, %error, "finding owners failed");
                    }
                    Vec::new()
                }
            };
            let owners = owners.into_iter().map(|owner| (owner.addr, owner.complete));
            Done::Found(owners.collect())
        });
    }

    fn open(&mut self, manifest: Arc<Manifest>) {
        // Only the manifest proves the length; a tracker merely repeats it.
        self.content.length = manifest.geometry().length();
        let content = self.content.clone();
        self.status.send_modify(|status| status.found(content));
        self.show_progress();
        let shared = Arc::clone(&self.shared);
        let name = self.content.name.clone();
        self.job(async move {
            let opened = match shared.storage.create(&name, &manifest).await {
                Ok(partial) => Ok(Opened::Partial(partial)),
                Err(StorageError::Exists { .. }) => existing(&shared, &name, &manifest).await,
                Err(error) => Err(error),
            };
            Done::Opened(opened)
        });
    }

    fn verify(&mut self, chunk: ChunkIndex, pieces: Vec<Bytes>) {
        let Some(manifest) = self.swarm.manifest().cloned() else {
            return;
        };
        let len = pieces.iter().map(Bytes::len).sum::<usize>();
        let verify = move || manifest.verify(chunk, pieces.iter().map(|piece| &piece[..]));
        if len <= INLINE_HASH_LEN {
            self.swarm.chunk_verified(now(), chunk, verify());
        } else {
            self.job(async move {
                let good = off_thread(verify).await;
                Done::Verified { chunk, good }
            });
        }
    }

    fn on_blob<F: Future<Output = Done> + Send + 'static>(
        &mut self,
        work: impl FnOnce(Arc<dyn Blob>) -> F,
    ) {
        if let Some(blob) = &self.blob {
            let work = work(Arc::clone(blob));
            self.job(work);
        }
    }

    fn job(&mut self, job: impl Future<Output = Done> + Send + 'static) {
        self.jobs.push(Box::pin(job));
    }

    fn offset_of(&self, chunk: ChunkIndex) -> u64 {
        let manifest = self.swarm.manifest();
        manifest.map_or(0, |manifest| manifest.geometry().offset_of(chunk))
    }

    fn show_progress(&mut self) {
        let progress = self.swarm.progress(now());
        self.status
            .send_if_modified(|status| status.moved(progress));
    }
}

/// What stands under the name already: the content itself, or something else.
async fn existing(
    shared: &Shared,
    name: &ContentName,
    manifest: &Manifest,
) -> Result<Opened, StorageError> {
    let blob = match shared.storage.open(name).await {
        Ok(blob) => blob,
        Err(error @ (StorageError::Io { .. } | StorageError::NotFound { .. })) => {
            return Err(error);
        }
        Err(_) => return Ok(Opened::Other),
    };
    if blob.length() != manifest.geometry().length() {
        return Ok(Opened::Other);
    }
    match manifest_of(&*blob).await {
        Ok(found) if found.id() == manifest.id() => Ok(Opened::Whole(blob)),
        Err(HashError::Storage(error)) => Err(error),
        Ok(_) | Err(HashError::Manifest(_)) => Ok(Opened::Other),
    }
}

fn entry(content: &Content, state: OwnState) -> OwnEntry {
    OwnEntry {
        id: content.id,
        name: content.name.clone(),
        length: content.length,
        state,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
