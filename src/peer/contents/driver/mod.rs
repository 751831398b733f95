//! Between the swarm machine of one content and the world: carries messages,
//! bytes and time, and decides nothing.

mod beside;
mod choosing;
mod chunk_checks;
mod download_turn;
mod ending;
mod followed;
mod jobs;
mod open_content;
mod outlets;
mod reachable;
mod read_ahead;
mod read_queue;
mod reading;
mod remembering;
mod sibling;
mod store_queue;
mod target;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::content::{Bitfield, ChunkIndex, ContentName, Manifest};
use crate::error::DownloadError;
use crate::metrics::{self, Held};
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::hashing::INLINE_HASH_LEN;
use crate::peer::contents::inbox::{DriverInput, Inbox, NewLink};
use crate::peer::contents::listing::Listing;
use crate::peer::contents::outside::Outside;
use crate::peer::contents::readers::ReaderDesk;
use crate::peer::contents::role::Role;
use crate::peer::contents::status::{ContentStatus, StatusSender};
use crate::peer::contents::table::DriverClaim;
use crate::peer::contents::uploads::Uploads;
use crate::peer::limits::Seat;
use crate::peer::session::outlet::LinkEnd;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::{
    DownloadStats, DropReason, FarBytes, LinkId, Output, StallReason, Swarm, Waste,
};
use crate::protocol::{Addr, PeerMessage, RefuseReason};
use crate::storage::{Partial, StorageError};
use beside::Beside;
use chunk_checks::ChunkChecks;
use download_turn::TurnChange;
use followed::{Followed, next_choice};
use jobs::{JobResult, Jobs, Outcome};
use open_content::PublishBy;
use outlets::LinkOutlets;
use reachable::Reachable;
use read_ahead::ReadAhead;
use read_queue::{BlockRequest, ReadQueue};
use target::Target;
use watchers::Watchers;

pub(in crate::peer) use download_turn::DownloadTurn;
pub(in crate::peer) use open_content::OpenContent;
pub(in crate::peer) use target::TargetOptions;

/// How often the progress is published when nothing happens.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the content is visible under its name in the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publication {
    /// It is not.
    Hidden,
    /// It was found there; it may not be durable.
    Found,
    /// It is being published, or made durable.
    UnderWay,
    /// It is, and durable.
    Published,
}

/// Drives the machine of one content.
pub(in crate::peer) struct Driver {
    shared: Arc<PeerShared>,
    /// Given up before the inbox closes: a task that waits for it may claim the
    /// content at once.
    claim: DriverClaim,
    swarm: Swarm,
    listing: Listing,
    /// The name that the content gets if something else has its own. A name
    /// that the user wants has no replacement.
    fallback: Option<ContentName>,
    /// What is wanted of the content, if that may be a part.
    choice: Option<Followed>,
    /// When the download may ask others for something, until it is complete.
    turn: Option<DownloadTurn>,
    /// Set when the storage has opened the content.
    open: Option<OpenContent>,
    publication: Publication,
    /// Whether the storage can give the manifest back.
    recorded: bool,
    reads: ReadQueue,
    ahead: ReadAhead,
    /// How many bytes were read from memory in this turn.
    read_at_once: u64,
    /// How much of what the machine has counted is counted for the whole peer.
    received: (u64, Waste),
    checks: ChunkChecks,
    links: LinkOutlets,
    jobs: Jobs,
    reachable: Reachable,
    inbox: Inbox,
    status: StatusSender,
    /// What was sent of the content, with what other drivers of it have sent before.
    uploads: Uploads,
    /// What the peer has counted of the bytes that went from one zone to another.
    far: FarBytes,
    /// Those who read the content here.
    readers: ReaderDesk,
    /// How fast the content may be sent and received.
    limits: Seat,
    /// The content that has its bytes in the same place, if there is one.
    beside: Beside,
    /// Whether the content is served when it is complete.
    stays: bool,
    watchers: Watchers,
    /// Whether the storage is to record the download, if it is paused or was.
    is_record_due: bool,
    /// Why the download fails; ends the driver.
    failure: Option<DownloadError>,
    /// The span of all that this driver and its links log.
    span: Span,
    _counted: Held,
}

impl Driver {
    /// The driver of a content that has to be downloaded.
    pub(in crate::peer) fn new(
        shared: Arc<PeerShared>,
        claim: DriverClaim,
        swarm: Swarm,
        listing: Listing,
        inbox: Inbox,
        status: StatusSender,
    ) -> Self {
        let id = swarm.id();
        let uploads = status.borrow().uploads().clone();
        let group = match listing.its_role() {
            Role::File => shared.folders.of_file(&id).first().copied(),
            _ => None,
        };
        let limits = Seat::new(&shared.limiter, id, group);
        Self {
            uploads,
            far: FarBytes::default(),
            span: tracing::info_span!(parent: &shared.tasks.span, "content", %id),
            jobs: Jobs::new(Arc::clone(&shared), id, inbox.sender()),
            reachable: Reachable::new(&shared),
            watchers: Watchers::new(&shared, id),
            shared,
            claim,
            swarm,
            listing,
            fallback: None,
            choice: None,
            turn: None,
            open: None,
            publication: Publication::Hidden,
            recorded: false,
            reads: ReadQueue::default(),
            ahead: ReadAhead::default(),
            read_at_once: 0,
            received: (0, Waste::default()),
            checks: ChunkChecks::default(),
            links: LinkOutlets::default(),
            inbox,
            status,
            readers: ReaderDesk::default(),
            limits,
            beside: Beside::default(),
            stays: true,
            is_record_due: false,
            failure: None,
            _counted: Held::new(metrics::AWAKE),
        }
    }

    /// The content is complete, and here it is. `recorded` says that the storage
    /// has its manifest.
    pub(in crate::peer) fn serving(mut self, content: OpenContent, recorded: bool) -> Self {
        self.open = Some(content);
        self.recorded = recorded;
        self.publication = Publication::Published;
        self
    }

    /// These chunks have to be verified before they are served.
    pub(in crate::peer) fn unchecked(mut self, unchecked: Option<Bitfield>) -> Self {
        if let Some(unchecked) = unchecked {
            self.checks.distrust(unchecked);
        }
        self
    }

    /// The content is read here at this desk.
    pub(in crate::peer) fn readers(mut self, readers: ReaderDesk) -> Self {
        self.readers = readers;
        if self.publication == Publication::Published {
            self.complete_readers();
        }
        self
    }

    /// The content gets this name if something else has its own.
    pub(in crate::peer) fn fallback(mut self, name: Option<ContentName>) -> Self {
        self.fallback = name;
        self
    }

    /// The content is downloaded when this says so.
    pub(in crate::peer) fn turn(mut self, turn: DownloadTurn) -> Self {
        self.turn = Some(turn);
        self
    }

    /// The content belongs to a folder that is being fetched.
    pub(in crate::peer) fn of_folder(mut self, source: Option<Arc<FolderSource>>) -> Self {
        self.jobs.set_source(source);
        self
    }

    /// The download goes there.
    pub(in crate::peer) fn into_target(mut self, target: Option<TargetOptions>) -> Self {
        if let Some(target) = target {
            self.beside = Beside::new(target.sibling.clone());
            self.jobs.set_target(target);
        }
        self
    }

    /// The content is found and linked over another network.
    #[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
    pub(in crate::peer) fn outside(mut self, outside: Option<Arc<dyn Outside>>) -> Self {
        let choice = outside.as_ref().map(|outside| outside.choice());
        self.choice = choice.map(Followed::new);
        self.jobs.set_outside(outside);
        self
    }

    /// Owners that are known from the start.
    pub(in crate::peer) fn owners_found(&mut self, owners: Vec<(Addr, bool)>) {
        self.swarm.owners_found(now(), owners);
    }

    /// Runs until `stop`, or until the download fails. `cancel` ends a
    /// download, but not one that is complete or being published.
    pub(in crate::peer) fn run(
        self,
        stop: CancellationToken,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let span = self.span.clone();
        // In a box: a future would hold it once for each place where it may be.
        Box::new(self).drive(stop, cancel).instrument(span)
    }

    async fn drive(mut self: Box<Self>, stop: CancellationToken, cancel: CancellationToken) {
        let timer = tokio::time::sleep_until(Instant::now());
        tokio::pin!(timer);
        let mut seen = Instant::now();
        self.follow_turn();
        let reason = loop {
            // Others may keep the inbox full.
            if self.has_news() {
                self.follow_turn();
            }
            self.follow_choice();
            self.follow_readers();
            self.read_at_once = 0;
            self.count_received();
            self.perform_outputs();
            while self.limits.run(&mut self.swarm) {
                self.perform_outputs();
            }
            self.answer_readers();
            self.beside.tell(&self.swarm);
            if let Some(failure) = self.failure.take() {
                break failure;
            }
            // A storage that hangs does not hold up the end.
            if stop
                .run_until_cancelled(self.write_record())
                .await
                .is_none()
            {
                break DownloadError::ShutDown;
            }
            let seeding = self.swarm.is_seeding();
            let publishes = self.publication == Publication::UnderWay || self.publishes_part();
            let cancellable = !seeding && !publishes;
            let due = self.swarm.poll_timeout().map(Instant::from_std);
            let moves = !seeding && !self.swarm.is_paused() && !self.swarm.is_resting();
            let look = moves.then(|| seen + PROGRESS_INTERVAL);
            let due = due.into_iter().chain(look).min();
            if let Some(due) = due
                && due != timer.deadline()
            {
                timer.as_mut().reset(due);
            }
            if self.may_sleep() {
                match self.sleep() {
                    Ok(()) => return,
                    Err(awake) => self = awake,
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break DownloadError::ShutDown,
                () = cancel.cancelled(), if cancellable => break DownloadError::Cancelled,
                // Before the inbox, which others may keep full.
                () = &mut timer, if due.is_some() => {
                    self.limits.follow(&mut self.swarm);
                    self.swarm.handle_timeout(now());
                    seen = Instant::now();
                    self.show_progress();
                }
                () = self.reachable.again(), if !seeding => self.swarm.reachable_again(now()),
                Some(result) = self.jobs.next(), if !self.jobs.is_empty() => self.job_ended(result),
                Some(input) = self.inbox.recv() => self.input(input),
                () = self.readers.changed() => {}
                () = self.beside.changed(), if self.open.is_some() && !seeding => {
                    self.hear_of_sibling();
                }
                () = self.limits.news() => {}
                () = next_choice(&mut self.choice), if self.choice.is_some() => {}
                change = next_turn(&mut self.turn), if self.turn.is_some() => {
                    self.turn_changed(change);
                }
            }
            if self.publication == Publication::Published && self.turn.is_some() {
                self.record_end(true).await;
                self.turn = None;
            }
            if (self.publication == Publication::Published || self.is_resting()) && !self.stays {
                // It has not failed: its outcome is that it was published.
                break DownloadError::Cancelled;
            }
        };
        Box::pin((*self).end(reason)).await;
    }

    /// Whether nobody needs this driver: the content is complete, the trackers
    /// know, and no link is up.
    fn may_sleep(&self) -> bool {
        self.swarm.is_seeding()
            && !self.jobs.is_outside()
            && self.links.is_empty()
            && self.jobs.is_empty()
            && self.inbox.is_idle()
            && self.status.borrow().outcome().is_some()
    }

    /// Puts the content to sleep, unless something has come in.
    fn sleep(self: Box<Self>) -> Result<(), Box<Self>> {
        let Some(open) = &self.open else {
            return Err(self);
        };
        open.release();
        let asleep = self.asleep(open);
        // The table has one of the receivers.
        let counted = self.uploads.bytes() > 0 || self.status.receiver_count() > 1;
        let Self { claim, inbox, .. } = *self;
        match claim.sleep(asleep, &inbox, counted) {
            Ok(()) => {
                tracing::debug!("content asleep");
                Ok(())
            }
            Err(claim) => Err(Box::new(Self {
                claim,
                inbox,
                ..*self
            })),
        }
    }

    /// The content as it sleeps.
    fn asleep(&self, open: &OpenContent) -> Asleep {
        let (content, listed_as) = (&self.listing.content, self.listing.listed_as());
        let asleep = open.asleep(content.clone(), listed_as.clone(), self.recorded);
        let asleep = asleep.unverified(self.checks.unchecked().cloned());
        asleep.role(self.listing.its_role())
    }

    fn input(&mut self, input: DriverInput) {
        self.limits.follow(&mut self.swarm);
        match input {
            DriverInput::Link(link) => self.link_up(*link),
            DriverInput::Met {
                link,
                peer,
                cookies,
            } => {
                self.links.met(link, peer);
                self.swarm.link_met(now(), link, peer, Some(cookies));
            }
            DriverInput::Message { link, message } => self.message(link, message),
            DriverInput::Messages { link, messages } => {
                for message in messages {
                    self.message(link, message);
                }
            }
            DriverInput::Sent {
                link,
                messages,
                bytes,
            } => {
                let before = self.swarm.uploaded();
                self.swarm.messages_sent(now(), link, messages, bytes);
                self.count_sent(self.swarm.uploaded() - before);
            }
            DriverInput::Down { link } => {
                self.ahead.forget(link);
                self.links.end(link, LinkEnd::Left);
                self.swarm.link_down(now(), link);
            }
            DriverInput::Describe(told) => {
                if let Some(open) = &self.open
                    && self.publication == Publication::Published
                {
                    // The one who asked may have gone.
                    let _ = told.send(Arc::new(self.asleep(open)));
                }
            }
            DriverInput::Unreadable { blob, error } => self.unreadable(&blob, error),
            DriverInput::Owners(owners) => {
                let owners = owners.into_iter().map(|addr| (addr, false));
                let owners: Vec<_> = owners.collect();
                self.swarm.owners_found(now(), owners);
            }
            DriverInput::SetLimits(limits) => self.shared.limit_content(self.swarm.id(), limits),
            // Of all these the caller may have gone.
            DriverInput::VerifiedChunks { reply } => {
                let _ = reply.send(self.swarm.verified_chunks());
            }
            DriverInput::Stats { reply } => _ = reply.send(self.stats()),
            DriverInput::PieceMap { reply } => _ = reply.send(self.swarm.piece_map()),
        }
    }

    fn message(&mut self, link: LinkId, message: PeerMessage) {
        if let PeerMessage::Cancel(block) = message {
            self.ahead.cancelled(link, block);
        }
        self.swarm.handle_message(now(), link, message);
        self.count_received();
    }

    /// A chunk that was downloaded is good or bad.
    fn chunk_verified(&mut self, chunk: ChunkIndex, good: bool) {
        self.swarm.chunk_verified(now(), chunk, good);
        self.count_received();
        self.watchers.hashed(chunk, good);
    }

    /// The thread of the content has come to a chunk.
    fn chunk_checked(&mut self, chunk: ChunkIndex, outcome: Outcome) {
        match outcome {
            Outcome::Bad => self.chunk_verified(chunk, false),
            Outcome::Good => self.chunk_verified(chunk, true),
            Outcome::Stored(result) => self.chunk_stored(chunk, result),
            Outcome::Written(Err(source)) => self.storage_failed(Some(chunk), source),
            Outcome::Written(Ok(())) => {
                self.swarm.chunk_written(now(), chunk);
                self.count_received();
                self.watchers.hashed(chunk, true);
                self.show_progress();
            }
        }
    }

    /// A verified chunk was written.
    fn chunk_stored(&mut self, chunk: ChunkIndex, result: Result<(), StorageError>) {
        match result {
            Ok(()) => {
                self.swarm.chunk_stored(now(), chunk);
                self.show_progress();
            }
            Err(source) => self.storage_failed(Some(chunk), source),
        }
    }

    /// Counts for the whole peer what the machine has counted since the last time, before
    /// anybody hears what follows from it. Whatever happens to a content may show that
    /// something has come in vain.
    fn count_received(&mut self) {
        let (bytes, waste) = self.swarm.downloaded();
        let before = std::mem::replace(&mut self.received, (bytes, waste));
        if (bytes, waste) != before {
            let (bytes, waste) = (bytes - before.0, waste.since(&before.1));
            self.shared.traffic.received(now(), bytes, waste);
            self.count_far();
        }
    }

    /// Counts for the whole peer what went from one zone to another.
    fn count_far(&mut self) {
        let far = self.swarm.far_bytes();
        if far != self.far {
            self.shared.traffic.went_far(&far.since(&self.far));
            self.far = far;
        }
    }

    /// Bytes of blocks were sent.
    fn count_sent(&mut self, bytes: u64) {
        if bytes > 0 {
            self.uploads.add(bytes);
            self.shared.traffic.sent(now(), bytes);
            self.count_far();
        }
    }

    /// What is done for the content at this moment.
    fn stats(&self) -> DownloadStats {
        let mut stats = self.swarm.stats(now());
        stats.progress.uploaded = self.uploads.bytes();
        for link in &mut stats.links {
            link.remote = self.links.remote(link.link).cloned();
        }
        stats
    }

    fn link_up(&mut self, link: NewLink) {
        let NewLink {
            id,
            info,
            remote,
            outlet,
        } = link;
        let span = tracing::info_span!(
            parent: &self.span,
            "link",
            id = id.0,
            peer = tracing::field::Empty,
            %remote,
        );
        self.links.insert(id, outlet, span, remote);
        if let Some(peer) = info.peer {
            self.links.met(id, peer);
        }
        self.swarm.link_up(now(), id, info);
    }

    fn job_ended(&mut self, result: JobResult) {
        self.limits.follow(&mut self.swarm);
        match result {
            JobResult::Dialled { link: Ok(link), .. } => self.link_up(*link),
            JobResult::Dialled {
                addr,
                link: Err(error),
            } => {
                tracing::debug!(%addr, %error, "dial failed");
                self.swarm.dial_failed(now(), &addr);
            }
            JobResult::OwnersFound { owners, importers } => {
                if let Some(running) = self.turn.as_ref().and_then(DownloadTurn::running) {
                    running.named(owners.iter().map(|(addr, _)| addr.clone()));
                }
                if let Some(importers) = importers {
                    let others = owners.iter().take(importers.into());
                    let others = others.map(|(addr, _)| addr.clone());
                    self.swarm.import(now(), others);
                }
                self.swarm.owners_found(now(), owners);
            }
            JobResult::ManifestChecked { link, manifest } => {
                self.swarm.manifest_checked(now(), link, manifest);
            }
            JobResult::Opened(Ok((name, target))) => self.opened(name, target),
            JobResult::Checked(chunks) => {
                for (chunk, outcome) in chunks {
                    self.chunk_checked(chunk, outcome);
                }
            }
            JobResult::Rechecked { chunk, result } => self.rechecked(chunk, result),
            JobResult::Stored { chunk, result } => self.chunk_stored(chunk, result),
            JobResult::Read(read) => {
                self.reads.batch_ended();
                for block in read.due {
                    self.block_read(block);
                }
                for block in read.ahead {
                    if let Some(due) = self.ahead.read(block) {
                        self.block_read(due);
                    }
                }
            }
            JobResult::Committed(Ok(bytes)) => {
                self.set_durable_bytes(bytes);
                self.swarm.committed(now());
                self.note_durable();
            }
            JobResult::Published(Ok(recorded)) => {
                self.recorded = recorded;
                self.shared.losses.found(&self.listing.content.id);
                self.publication = Publication::Published;
                self.set_durable_bytes(self.listing.content.length);
                self.complete_readers();
                self.jobs.completed_outside();
                if !self.stays {
                    // The outcome is told when nobody can find it here any more.
                    return self.show_progress();
                }
                self.swarm.finished(now());
                self.show_progress();
                // The trackers hear of it next. They know already that something of it
                // is here.
                let content = self.listing.content.clone();
                self.status.send_modify(|status| status.end(Ok(content)));
                self.watchers.complete(&self.listing, self.stays);
            }
            JobResult::PartPublished { version, result } => self.part_published(version, result),
            JobResult::ReadHere(Some((chunk, error))) => self.read_failed(chunk, &error),
            JobResult::Announced | JobResult::ReadHere(None) => {}
            JobResult::Opened(Err(source))
            | JobResult::Committed(Err(source))
            | JobResult::Published(Err(source)) => {
                self.publication = Publication::Hidden;
                self.storage_failed(None, source);
            }
        }
    }

    fn perform_outputs(&mut self) {
        loop {
            while let Some(output) = self.swarm.poll_output() {
                self.perform(output);
            }
            self.start_checks();
            // Blocks that are in memory are sent at once.
            if !self.start_reads() {
                return;
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { link, message } => self.send(link, message),
            Output::Dial { addr } => self.jobs.dial(addr),
            Output::Drop { link, reason } => self.drop_link(link, reason),
            Output::FindOwners => self.jobs.find_owners(),
            Output::CheckManifest { link, claim } => self.jobs.check_manifest(link, claim),
            Output::Open(manifest) => self.open(manifest),
            Output::Verify {
                chunk,
                pieces,
                may_write,
            } => self.verify(chunk, pieces, may_write),
            Output::Recheck { chunk } => self.checks.recheck(chunk),
            Output::Store { chunk, pieces } => {
                if let Some(open) = self.open.clone() {
                    self.jobs.store(open, chunk, pieces);
                }
            }
            Output::Read { link, block } => self.read(BlockRequest { link, block }),
            Output::Commit { verified } => {
                if let Some(open) = self.open.clone() {
                    self.jobs.commit(open, verified);
                }
            }
            Output::Finish => self.publish(),
            Output::FinishPart { verified } => self.publish_part(verified),
            // It has no trackers of this network.
            Output::Announce(_) if self.jobs.is_outside() => {}
            Output::Announce(state) => {
                let (role, id) = (self.listing.its_role(), self.swarm.id());
                let has_files = || self.shared.folders.is_whole(&id);
                if let Some(state) = role.announced(state, has_files) {
                    let entry = self.listing.announce(state);
                    self.jobs.announce(entry);
                }
            }
            Output::Credit { owner, bytes } => {
                if !self.jobs.is_outside() {
                    self.shared.trackers.credit(&owner, bytes);
                }
            }
            Output::Event(event) => self.watchers.happened(event),
            Output::Stalled(reason) => {
                let is_first = self.status.borrow().stall().is_none();
                self.watchers.stalled(reason, is_first);
                self.show_stall(Some(reason));
            }
            Output::Resumed => {
                self.watchers.resumed();
                self.show_stall(None);
            }
            Output::GaveUp(reason) => {
                let progress = self.swarm.progress(now());
                let missing = progress.chunks.map(|all| all - progress.verified_chunks);
                let id = self.swarm.id();
                self.failure = Some(DownloadError::GaveUp {
                    id,
                    missing,
                    reason,
                });
            }
        }
    }

    fn send(&mut self, link: LinkId, message: PeerMessage) {
        if matches!(message, PeerMessage::Choke) {
            self.ahead.choked(link);
        }
        if !self.links.send(link, message) {
            self.ahead.forget(link);
            self.swarm.link_down(now(), link);
        }
    }

    fn drop_link(&mut self, link: LinkId, reason: DropReason) {
        tracing::debug!(link = link.0, %reason, "link dropped");
        let end = match reason {
            DropReason::Refused(reason) => LinkEnd::Refused(reason),
            DropReason::Silent => LinkEnd::Refused(RefuseReason::NotNeeded),
            DropReason::Left(_) => LinkEnd::Left,
            DropReason::Violation(_) => LinkEnd::Violation,
        };
        self.ahead.forget(link);
        self.links.end(link, end);
    }

    /// Opens the content in the storage.
    fn open(&mut self, manifest: Arc<Manifest>) {
        // Only the manifest proves the length; a tracker merely repeats it.
        self.listing.content.length = manifest.geometry().length();
        self.status.send_modify(ContentStatus::open);
        self.show_content();
        self.show_progress();
        self.readers.found(manifest.geometry());
        let name = self.listing.content.name.clone();
        self.jobs.open(name, self.fallback.clone(), manifest);
    }

    fn opened(&mut self, name: ContentName, target: Target) {
        if self.listing.content.name != name {
            self.listing.content.name = name;
            self.show_content();
        }
        let Some(manifest) = self.swarm.manifest().cloned() else {
            return;
        };
        let Partial {
            blob,
            present,
            verified,
            untouched,
        } = match target {
            Target::Partial(partial) => partial,
            Target::Whole(blob) => {
                self.publication = Publication::Found;
                let all = Bitfield::all(manifest.geometry().chunks());
                Partial {
                    blob,
                    present: all.clone(),
                    verified: all,
                    untouched: true,
                }
            }
        };
        // The file of a sibling is not this content's to delete.
        let is_written = self.publication != Publication::Found && !self.beside.is_any();
        self.open = Some(OpenContent::new(manifest, blob, is_written));
        self.swarm.opened(now(), &present, &verified);
        let mut unchecked = present;
        for chunk in verified.iter() {
            unchecked.remove(chunk);
        }
        if !unchecked.is_empty() {
            self.checks.distrust(unchecked);
            if untouched {
                self.swarm.left_untouched(now());
            }
        }
        self.show_progress();
        if self.publication == Publication::Hidden {
            // What the storage vouches for is durable.
            let bytes = self.status.borrow().progress().verified_bytes;
            self.set_durable_bytes(bytes);
        }
    }

    fn verify(&mut self, chunk: ChunkIndex, pieces: Vec<Bytes>, may_write: bool) {
        let Some(manifest) = self.swarm.manifest().cloned() else {
            return;
        };
        let len = pieces.iter().map(Bytes::len).sum::<usize>();
        if len <= INLINE_HASH_LEN {
            let good = manifest.verify(chunk, pieces.iter().map(|piece| &piece[..]));
            self.chunk_verified(chunk, good);
        } else {
            let write = self.open.as_ref().filter(|_| may_write);
            let write = write.and_then(|open| open.write_job(chunk, &pieces));
            self.jobs.verify(manifest, chunk, pieces, write);
        }
    }

    /// Publishes the content, and records that it is here.
    fn publish(&mut self) {
        let Some(open) = self.open.clone() else {
            return;
        };
        let by = match self.publication {
            Publication::Found => PublishBy::Syncing,
            _ => PublishBy::Finishing,
        };
        self.publication = Publication::UnderWay;
        self.stays = self.turn.as_ref().is_none_or(DownloadTurn::seeds);
        let listed_as = self.listing.listed_as().clone();
        let shared_as = Some(listed_as).filter(|_| self.stays);
        self.jobs
            .publish(open, by, self.listing.content.clone(), shared_as);
    }

    fn storage_failed(&mut self, chunk: Option<ChunkIndex>, source: StorageError) {
        let id = self.swarm.id();
        self.failure = Some(match source {
            StorageError::Exists { name, path } => DownloadError::TargetExists { name, id, path },
            source => DownloadError::Storage { id, chunk, source },
        });
    }

    fn show_content(&self) {
        let content = self.listing.content.clone();
        self.watchers.found(&content);
        self.status
            .send_modify(|status| status.set_content(content));
    }

    fn show_stall(&self, stall: Option<StallReason>) {
        self.status.send_modify(|status| status.set_stall(stall));
    }

    fn show_progress(&mut self) {
        let mut progress = self.swarm.progress(now());
        progress.uploaded = self.uploads.bytes();
        let is_open = self.open.is_some();
        self.status.send_if_modified(|status| {
            let before = status.progress();
            if !is_open && before.chunks.is_some() {
                // What is here may be known from before the peer was started.
                progress.length = before.length;
                progress.chunks = before.chunks;
                progress.verified_bytes = before.verified_bytes;
                progress.verified_chunks = before.verified_chunks;
            }
            status.set_progress(progress)
        });
    }

    /// Notes how many bytes are durable. No event tells of that.
    fn set_durable_bytes(&self, bytes: u64) {
        self.status.send_if_modified(|status| {
            status.set_durable_bytes(bytes);
            false
        });
    }
}

/// The next change of a turn.
///
/// Cancel safe.
async fn next_turn(turn: &mut Option<DownloadTurn>) -> TurnChange {
    match turn {
        Some(turn) => turn.changed().await,
        None => std::future::pending().await,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
