//! What a driver starts, and hears the end of.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::open_content::{OpenContent, PublishBy};
use super::read_queue::{BatchRead, ReadBatch};
use super::store_queue::StoreQueue;
use super::target::{Target, TargetOptions, open_target};
use crate::content::{Bitfield, ChunkIndex, Content, ContentId, ContentName, Manifest};
use crate::error::DownloadError;
use crate::metrics::{self, Timer};
use crate::peer::contents::eviction::make_room;
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::hashing::off_thread;
use crate::peer::contents::inbox::{DriverInput, NewLink};
use crate::peer::contents::outside::Outside;
use crate::peer::contents::readers::Answer;
use crate::peer::contents::replaced::retire_replaced;
use crate::peer::contents::room::Reservation;
use crate::peer::session::HandshakeError;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::{LinkId, ManifestClaim};
use crate::protocol::{Addr, OwnEntry};
use crate::storage::{Storage, StorageError, WriteJob};
use crate::tracker::TrackerError;

/// How long the outcome of an announcement is waited for. The trackers are told later in
/// any case.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The end of a job.
pub(super) enum JobResult {
    Dialled {
        addr: Addr,
        link: Result<Box<NewLink>, HandshakeError>,
    },
    OwnersFound {
        owners: Vec<(Addr, bool)>,
        /// If this peer fetches for its zone: how many of the owners, the first ones, do so too.
        importers: Option<u16>,
    },
    ManifestChecked {
        link: LinkId,
        manifest: Option<Manifest>,
    },
    Opened(Result<(ContentName, Target), StorageError>),
    /// What the thread of the content has found out and done.
    Checked(Vec<(ChunkIndex, Outcome)>),
    /// A chunk of an earlier download is good or bad.
    Rechecked {
        chunk: ChunkIndex,
        result: Result<bool, StorageError>,
    },
    Stored {
        chunk: ChunkIndex,
        result: Result<(), StorageError>,
    },
    Read(BatchRead),
    /// This many bytes are durable.
    Committed(Result<u64, StorageError>),
    /// It is durable under its name. Whether the storage has its manifest.
    Published(Result<bool, StorageError>),
    /// The part that was wanted is durable under its names.
    PartPublished {
        /// Which version of what is wanted that was.
        version: u64,
        result: Result<(), StorageError>,
    },
    /// The trackers know the state, or cannot be told at present.
    Announced,
    /// A reader here has its answer; this is what failed.
    ReadHere(Option<(ChunkIndex, StorageError)>),
}

/// What came of a chunk on the thread of the content.
pub(super) enum Outcome {
    /// It is bad.
    Bad,
    /// It is good, and not written.
    Good,
    /// It is good, and was written, or could not be.
    Written(Result<(), StorageError>),
    /// It was verified before, and was written, or could not be.
    Stored(Result<(), StorageError>),
}

/// The jobs of one driver. They run while [`next`](Self::next) is polled;
/// dropping this drops them all.
pub(super) struct Jobs {
    shared: Arc<PeerShared>,
    id: ContentId,
    inbox: mpsc::Sender<DriverInput>,
    /// What the content belongs to, if that is a folder which is being fetched.
    source: Option<Arc<FolderSource>>,
    /// The network that it is found and linked over, if that is another one.
    outside: Option<Arc<dyn Outside>>,
    /// Where the content goes.
    target: TargetOptions,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// The thread that verifies and writes. Something in `running` waits for it as long as
    /// it has something to do.
    stores: StoreQueue<(ChunkIndex, Outcome)>,
    /// What the content takes of the room in the storage.
    _room: Reservation,
}

impl Jobs {
    /// The jobs of a driver with this inbox.
    pub(super) fn new(
        shared: Arc<PeerShared>,
        id: ContentId,
        inbox: mpsc::Sender<DriverInput>,
    ) -> Self {
        Self {
            _room: Reservation::none(&shared.room, id),
            target: TargetOptions::to(Arc::clone(&shared.storage)),
            shared,
            id,
            inbox,
            source: None,
            outside: None,
            running: FuturesUnordered::new(),
            stores: StoreQueue::new(),
        }
    }

    pub(super) fn set_source(&mut self, source: Option<Arc<FolderSource>>) {
        if let Some(source) = &source {
            self.target = TargetOptions::to(Arc::clone(&source.storage));
        }
        self.source = source;
    }

    pub(super) fn set_outside(&mut self, outside: Option<Arc<dyn Outside>>) {
        self.outside = outside;
    }

    /// Whether the content is found and linked over another network.
    pub(super) fn is_outside(&self) -> bool {
        self.outside.is_some()
    }

    /// Those who find the content over another network hear that all of it is here.
    pub(super) fn completed_outside(&self) {
        if let Some(outside) = &self.outside {
            outside.completed();
        }
    }

    /// Publishes the part that is wanted of a content which another network has.
    pub(super) fn finish_part(&self, verified: Bitfield, version: u64) {
        if let Some(outside) = self.outside.clone() {
            self.start(async move {
                let result = outside.finish_part(verified).await;
                JobResult::PartPublished { version, result }
            });
        }
    }

    /// Those who find the content over another network hear whether all that is wanted is here.
    pub(super) fn rests_outside(&self, rests: bool) {
        if let Some(outside) = &self.outside {
            outside.rests(rests);
        }
    }

    /// Where the content is stored.
    pub(super) fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.target.storage)
    }

    pub(super) fn set_target(&mut self, target: TargetOptions) {
        self.target = target;
    }

    /// The reader of a content that passes through has come to this position.
    pub(super) fn passed(&self, position: u64) {
        if let Some(passing) = &self.target.passing {
            passing.passed(position);
        }
    }

    /// The end of the next job, or `None` if none runs.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<JobResult> {
        let result = self.running.next().await?;
        Some(match result {
            Ended::Job(result) => result,
            Ended::Stores { chunks, left } => {
                if left {
                    self.await_stores();
                }
                JobResult::Checked(chunks)
            }
        })
    }

    /// Drops all that run.
    pub(super) fn stop(&mut self) {
        self.stores = StoreQueue::new();
        self.running = FuturesUnordered::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn dial(&self, addr: Addr) {
        let (dialler, id) = (Arc::clone(&self.shared.dialler), self.id);
        let (inbox, outside) = (self.inbox.clone(), self.outside.clone());
        self.start(async move {
            let timer = Timer::start();
            let link = match outside {
                Some(outside) => outside.dial(addr.clone(), inbox).await,
                None => dialler.open(addr.clone(), id, inbox).await,
            };
            let link = link.map(Box::new);
            let result = if link.is_ok() { "ok" } else { "failed" };
            timer.record_as(metrics::DIAL, ("result", result));
            JobResult::Dialled { addr, link }
        });
    }

    pub(super) fn find_owners(&self) {
        if let Some(outside) = self.outside.clone() {
            return self.start(async move {
                JobResult::OwnersFound {
                    owners: outside.owners().await,
                    importers: None,
                }
            });
        }
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        let source = self.source.clone();
        self.start(async move {
            let wanted = shared.config.owners_wanted;
            if let Some(source) = source {
                let (owners, importers) = source.owners(&shared.trackers, wanted).await;
                return JobResult::OwnersFound { owners, importers };
            }
            let (owners, importers) = match shared.trackers.need(id.into(), wanted).await {
                Ok(found) => (found.owners, found.importers),
                Err(error) => {
                    // A peer without trackers knows that, and need not hear it
                    // over and over.
                    if error != TrackerError::NoTracker {
                        tracing::warn!(%error, "finding owners failed");
                    }
                    (Vec::new(), None)
                }
            };
            let owners = owners.into_iter().map(|owner| (owner.addr, owner.complete));
            let owners = owners.collect();
            JobResult::OwnersFound { owners, importers }
        });
    }

    pub(super) fn check_manifest(&self, link: LinkId, claim: ManifestClaim) {
        self.start(async move {
            let manifest = off_thread(move || claim.check()).await;
            JobResult::ManifestChecked { link, manifest }
        });
    }

    pub(super) fn open(
        &self,
        name: ContentName,
        fallback: Option<ContentName>,
        manifest: Arc<Manifest>,
    ) {
        let (shared, target) = (Arc::clone(&self.shared), self.target.clone());
        let length = manifest.geometry().length();
        let content = Content::new(self.id, name.clone(), length);
        self.start(async move {
            if let Err(error) = make_room(&shared, &target.storage, &content).await {
                return JobResult::Opened(Err(error));
            }
            let opened = open_target(&target, name, fallback, &manifest).await;
            JobResult::Opened(opened)
        });
    }

    /// Verifies a chunk, and writes it if it is good and there is a way to.
    pub(super) fn verify(
        &self,
        manifest: Arc<Manifest>,
        chunk: ChunkIndex,
        pieces: Vec<Bytes>,
        write: Option<WriteJob>,
    ) {
        self.check(chunk, move || {
            if !manifest.verify(chunk, pieces.iter().map(|piece| &piece[..])) {
                return Outcome::Bad;
            }
            drop(pieces);
            write.map_or(Outcome::Good, |write| Outcome::Written(timed(write)))
        });
    }

    pub(super) fn recheck(&self, content: OpenContent, chunk: ChunkIndex) {
        let rechecked = async move {
            let result = content.verify(chunk).await;
            JobResult::Rechecked { chunk, result }
        };
        self.start(rechecked.instrument(chunk_span(chunk)));
    }

    /// Writes a chunk that was verified.
    pub(super) fn store(&self, content: OpenContent, chunk: ChunkIndex, pieces: Vec<Bytes>) {
        if let Some(write) = content.write_job(chunk, &pieces) {
            return self.check(chunk, move || Outcome::Stored(timed(write)));
        }
        let stored = async move {
            let timer = Timer::start();
            let result = content.write(chunk, pieces).await;
            timer.record(metrics::STORE);
            JobResult::Stored { chunk, result }
        };
        self.start(stored.instrument(chunk_span(chunk)));
    }

    pub(super) fn read(&self, content: OpenContent, batch: ReadBatch) {
        self.start(async move { JobResult::Read(content.read(batch).await) });
    }

    pub(super) fn commit(&self, content: OpenContent, verified: Bitfield) {
        self.start(async move {
            let timer = Timer::start();
            let result = content.commit(&verified).await;
            timer.record(metrics::COMMIT);
            JobResult::Committed(result)
        });
    }

    /// Reads a part of a chunk, a position and a length, for a reader here.
    pub(super) fn read_here(
        &self,
        content: OpenContent,
        (from, len): (u64, usize),
        chunk: ChunkIndex,
        reply: oneshot::Sender<Answer>,
    ) {
        let id = self.id;
        self.start(async move {
            let read = content.read_part(from, len).await;
            let failed = read.as_ref().err().cloned();
            let error = |source| {
                let chunk = Some(chunk);
                DownloadError::Storage { id, chunk, source }
            };
            // The reader may have gone.
            let _ = reply.send(read.map_err(error));
            JobResult::ReadHere(failed.map(|error| (chunk, error)))
        });
    }

    /// Publishes the content `named`, and has the storage remember it, if it is to be
    /// shared.
    pub(super) fn publish(
        &self,
        content: OpenContent,
        by: PublishBy,
        named: Content,
        shared_as: Option<ContentName>,
    ) {
        let shared = Arc::clone(&self.shared);
        // A folder is recorded as a whole, and what is for one caller only is not.
        let is_private = self.target.is_private && self.target.sibling.is_none();
        let is_unrecorded = self.source.is_some() || is_private;
        let overwrites = self.target.overwrites;
        let shared_as = shared_as.filter(|_| !is_unrecorded);
        self.start(async move {
            if let Err(error) = content.publish(by).await {
                return JobResult::Published(Err(error));
            }
            if overwrites {
                retire_replaced(&shared, &named.name).await;
            }
            let Some(listed_as) = shared_as else {
                return JobResult::Published(Ok(false));
            };
            let stored = || content.stored(named).listed_as(listed_as);
            let recorded = shared.remember(stored).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the content will not be shared after a restart");
                false
            });
            JobResult::Published(Ok(recorded))
        });
    }

    pub(super) fn announce(&self, entry: OwnEntry) {
        let trackers = self.shared.trackers.clone();
        let state = entry.state;
        let announced = async move {
            match timeout(ANNOUNCE_TIMEOUT, trackers.own(entry)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "announcing failed"),
                Err(_) => tracing::debug!("announcing takes long, and goes on"),
            }
            JobResult::Announced
        };
        self.start(announced.instrument(tracing::info_span!("announce", ?state)));
    }

    /// Has the thread of the content do something with a chunk.
    fn check(&self, chunk: ChunkIndex, work: impl FnOnce() -> Outcome + Send + 'static) {
        let span = chunk_span(chunk);
        if self.stores.push(move || (chunk, span.in_scope(work))) {
            self.await_stores();
        }
    }

    fn await_stores(&self) {
        let ended = self.stores.ended();
        self.running.push(Box::pin(async move {
            let (chunks, left) = ended.await;
            Ended::Stores { chunks, left }
        }));
    }

    fn start(&self, job: impl Future<Output = JobResult> + Send + 'static) {
        self.running
            .push(Box::pin(async move { Ended::Job(job.await) }));
    }
}

/// What a future in [`Jobs`] ends with.
enum Ended {
    Job(JobResult),
    /// Chunks came back from the thread of the content, and it may have more to do.
    Stores {
        chunks: Vec<(ChunkIndex, Outcome)>,
        left: bool,
    },
}

/// Writes, and records how long it takes.
fn timed(write: WriteJob) -> Result<(), StorageError> {
    let timer = Timer::start();
    let result = write();
    timer.record(metrics::STORE);
    result
}

/// The span of all that is logged while a chunk is hashed, read or written.
fn chunk_span(chunk: ChunkIndex) -> Span {
    tracing::trace_span!("chunk", %chunk)
}
