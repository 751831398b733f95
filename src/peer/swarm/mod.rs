//! The swarm machine: all that a peer decides about one content.
//!
//! [`Swarm`] is pure. What happens comes in through its methods, each with the
//! time at which it happened; what is to be done comes out of
//! [`poll_output`](Swarm::poll_output), and [`poll_timeout`](Swarm::poll_timeout)
//! says when to call [`handle_timeout`](Swarm::handle_timeout). The same inputs
//! give the same outputs, always.
//!
//! ```text
//!  links up and down ─┐   ┌───────────────────────────┐   ┌─▶ messages, dials, drops
//!  messages ──────────┤   │ Swarm                     │   ├─▶ chunks to verify, to store
//!  verified, stored ──┼──▶│   ManifestFetch   Book    ├───┼─▶ blocks to read
//!  read, sent ────────┤   │   Planner + Assembler     │   ├─▶ owners to find, to credit
//!  owners, time ──────┘   │   Uploader                │   └─▶ announcements, the end
//!                         └───────────────────────────┘
//! ```
//! A content goes through these phases; a seeder starts in the last one:
//!
//! ```text
//!  Manifest ──▶ Opening ──▶ Transfer ──▶ Finishing ──▶ Seeding
//!   (fetch)     (storage)   (blocks)      (publish)
//! ```
//! A chunk that was verified and written is offered to others from then on.
//! Nothing else ever is.

mod assembler;
mod book;
mod config;
mod grid;
mod link;
mod manifest_fetch;
mod output;
mod picker;
mod planner;
mod rate;
mod source;
mod uploader;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

pub use assembler::{Assembled, Assembler, Inserted};
pub use config::SwarmConfig;
pub use grid::BlockGrid;
pub use output::{DropReason, LinkId, LinkInfo, Output, Progress};
pub use picker::Picker;
pub use planner::{Arrival, Planner, PlannerConfig, Request, Strategy};
pub use source::Has;
pub use uploader::Uploader;

use book::Book;
use link::{Link, Remote};
use manifest_fetch::{ManifestFetch, Part};
use rate::RateMeter;

use crate::content::{Bitfield, BlockRange, ChunkIndex, ContentId, Manifest};
use crate::protocol::{Addr, OwnState, PeerId, PeerMessage, RefuseReason};

/// The machine of one content. See the [module docs](self).
#[derive(Debug)]
pub struct Swarm {
    id: ContentId,
    me: PeerId,
    config: SwarmConfig,
    phase: Phase,
    links: BTreeMap<LinkId, Link>,
    book: Book,
    uploader: Uploader,
    outputs: VecDeque<Output>,
    /// Links that may have something to ask for.
    wake: BTreeSet<LinkId>,
    /// Blocks became free, or chunks changed: the hungry look again.
    wake_hungry: bool,
    find: Find,
    /// When something last arrived that brought the download on.
    last_gain: Instant,
    /// The chunks of a download in the order in which they were stored: what
    /// each link has yet to be told.
    log: Vec<ChunkIndex>,
    counts: Counts,
}

#[derive(Debug)]
enum Phase {
    Manifest(ManifestFetch),
    Opening(Arc<Manifest>),
    Transfer(Box<Transfer>),
    Seeding(Arc<Manifest>),
}

/// What a download holds while blocks travel.
#[derive(Debug)]
struct Transfer {
    manifest: Arc<Manifest>,
    planner: Planner,
    assembler: Assembler,
    /// Chunks that are being verified or written.
    checking: BTreeMap<ChunkIndex, Assembled>,
    /// Bad copies that several links had sent, to be held against a good one.
    suspects: BTreeMap<ChunkIndex, Vec<Suspect>>,
    stored: Bitfield,
    commit: Commit,
    /// All is stored, and the storage publishes it.
    finishing: bool,
}

/// A block of a bad copy, and who sent it.
#[derive(Debug)]
struct Suspect {
    peer: PeerId,
    addr: Option<Addr>,
    piece: Bytes,
}

#[derive(Debug, Default)]
struct Commit {
    /// Bytes stored since the last commit began, and when the first was.
    bytes: u64,
    since: Option<Instant>,
    running: bool,
}

/// When owners are looked for.
#[derive(Debug)]
struct Find {
    running: bool,
    next: Instant,
    /// How often in a row it brought nothing useful.
    fruitless: u32,
}

#[derive(Debug, Default)]
struct Counts {
    downloaded: u64,
    uploaded: u64,
    wasted: u64,
    meter: RateMeter,
}

/// How many bad copies are kept to find liars among several senders. Past it
/// a chunk is still fetched from one link at a time.
const MAX_SUSPECTS: usize = 4;

/// How many messages may wait for a link before it is told of further chunks.
const MAX_QUEUED_HAVES: usize = 256;

/// A link that was silent so often in a row is dropped.
const MAX_SNUBS: u32 = 3;

impl Swarm {
    /// The machine of a content that is to be downloaded.
    pub fn leecher(now: Instant, config: SwarmConfig, me: PeerId, id: ContentId) -> Self {
        Self::new(now, config, me, id, Phase::Manifest(ManifestFetch::new(id)))
    }

    /// The machine of a content that is there as a whole.
    pub fn seeder(now: Instant, config: SwarmConfig, me: PeerId, manifest: Arc<Manifest>) -> Self {
        Self::new(now, config, me, manifest.id(), Phase::Seeding(manifest))
    }

    fn new(now: Instant, config: SwarmConfig, me: PeerId, id: ContentId, phase: Phase) -> Self {
        let mut counts = Counts::default();
        counts.meter.began(now);
        Self {
            id,
            me,
            uploader: Uploader::new(config.send_window, config.planner.max_requests),
            config,
            phase,
            links: BTreeMap::new(),
            book: Book::default(),
            outputs: VecDeque::new(),
            wake: BTreeSet::new(),
            wake_hungry: false,
            find: Find {
                running: false,
                next: now,
                fruitless: 0,
            },
            last_gain: now,
            log: Vec::new(),
            counts,
        }
    }

    /// The content's identity.
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// How other peers tell this one apart.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// The manifest, once it is known.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.phase.manifest()
    }

    /// Asks for the missing chunks in another order from now on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.config.planner.strategy = strategy;
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.planner.set_strategy(strategy);
        }
    }

    /// Whether all of the content is there and published.
    pub fn is_seeding(&self) -> bool {
        matches!(self.phase, Phase::Seeding(_))
    }

    /// What is to be done next, in order; `None` when nothing is for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How far things are.
    pub fn progress(&self, now: Instant) -> Progress {
        let chunks = self.manifest().map(|manifest| manifest.geometry());
        let (stored, bytes, owners) = match &self.phase {
            Phase::Transfer(transfer) => (
                transfer.stored.count(),
                transfer.stored_bytes(),
                transfer.planner.busy_links(),
            ),
            Phase::Seeding(manifest) => {
                let geometry = manifest.geometry();
                (geometry.chunks(), geometry.length(), 0)
            }
            _ => (0, 0, 0),
        };
        Progress {
            length: chunks.map(|geometry| geometry.length()),
            chunks: chunks.map(|geometry| geometry.chunks()),
            verified_bytes: bytes,
            verified_chunks: stored,
            downloaded: self.counts.downloaded,
            uploaded: self.counts.uploaded,
            wasted: self.counts.wasted,
            rate: if self.is_seeding() {
                0.0
            } else {
                self.counts.meter.rate(now).unwrap_or(0.0)
            },
            owners: owners as u32,
            links: self.links.len() as u32,
        }
    }

    // ---- links ----------------------------------------------------------

    /// A link is up: the handshake is done. The machine may drop it at once,
    /// if it is banned, a duplicate, or one too many.
    pub fn link_up(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        if let Some(addr) = &info.addr {
            self.book.named(now, addr.clone(), false);
            self.book.linked(addr);
        }
        let refused = if info.peer == self.me {
            if let Some(addr) = &info.addr {
                self.book.ban(info.peer, Some(addr));
            }
            Some(DropReason::Refused(RefuseReason::SelfConnection))
        } else if self.book.is_banned(info.peer, info.addr.as_ref()) {
            Some(DropReason::Refused(RefuseReason::Banned))
        } else {
            self.settle_duplicate(now, &info)
        };
        let refused = refused.or_else(|| {
            let full = self.links.len() >= self.config.max_links;
            full.then_some(DropReason::Refused(RefuseReason::Busy))
        });
        if let Some(reason) = refused {
            self.outputs.push_back(Output::Drop { link: id, reason });
            if let Some(addr) = &info.addr
                && !self
                    .links
                    .values()
                    .any(|l| l.info.addr.as_ref() == Some(addr))
            {
                self.book.unlinked(now, addr);
            }
            return;
        }
        let link = Link::new(info, self.log.len());
        let greeting = match &mut self.phase {
            Phase::Transfer(transfer) => {
                transfer.planner.link_added(id);
                if transfer.stored.is_empty() {
                    PeerMessage::HaveNone
                } else {
                    PeerMessage::Bitfield(transfer.stored.to_bytes())
                }
            }
            Phase::Seeding(_) => PeerMessage::HaveAll,
            _ => PeerMessage::HaveNone,
        };
        self.links.insert(id, link);
        self.send(id, greeting);
        self.settle(now);
    }

    /// Of two links between the same two peers, the one that the smaller id
    /// dialled stays; of two that the same side dialled, the newer.
    fn settle_duplicate(&mut self, now: Instant, info: &LinkInfo) -> Option<DropReason> {
        let mut links = self.links.iter();
        let (&old, existing) = links.find(|(_, link)| link.info.peer == info.peer)?;
        let reason = DropReason::Refused(RefuseReason::Duplicate);
        if existing.info.dialled != info.dialled && info.dialled != (self.me < info.peer) {
            return Some(reason);
        }
        self.drop_link(now, old, reason);
        if let Some(addr) = &info.addr {
            self.book.linked(addr);
        }
        None
    }

    /// A link went down. Unknown links are ignored, so that a link which the
    /// machine dropped may be reported as well.
    pub fn link_down(&mut self, now: Instant, link: LinkId) {
        self.remove_link(now, link);
        self.settle(now);
    }

    fn remove_link(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.wake.remove(&id);
        self.uploader.link_removed(id);
        if let Some(addr) = &link.info.addr {
            self.book.unlinked(now, addr);
        }
        match &mut self.phase {
            Phase::Manifest(fetch) => fetch.passed(id, true),
            Phase::Transfer(transfer) => {
                for chunk in transfer.planner.link_removed(id) {
                    transfer.forget(chunk, &mut self.counts);
                }
                self.wake_hungry = true;
            }
            _ => {}
        }
    }

    fn drop_link(&mut self, now: Instant, link: LinkId, reason: DropReason) {
        if self.links.contains_key(&link) {
            self.outputs.push_back(Output::Drop { link, reason });
            self.remove_link(now, link);
        }
    }

    /// Drops a link whose peer lied, and never links to that peer again.
    fn ban(&mut self, now: Instant, id: LinkId) {
        if let Some(link) = self.links.get(&id) {
            let (peer, addr) = (link.info.peer, link.info.addr.clone());
            self.drop_link(now, id, DropReason::Refused(RefuseReason::Banned));
            self.book.ban(peer, addr.as_ref());
        }
    }

    fn violated(&mut self, now: Instant, link: LinkId, what: &'static str) {
        self.drop_link(now, link, DropReason::Violation(what));
    }

    fn send(&mut self, link: LinkId, message: PeerMessage) {
        if let Some(state) = self.links.get_mut(&link) {
            state.queued += 1;
            self.outputs.push_back(Output::Send { link, message });
        }
    }

    /// Messages were handed to the network, with so many bytes of blocks.
    pub fn messages_sent(&mut self, now: Instant, link: LinkId, messages: usize, bytes: u64) {
        if let Some(state) = self.links.get_mut(&link) {
            state.queued -= messages;
            self.counts.uploaded += bytes;
            self.uploader.sent(link, bytes);
            self.tell_haves(link);
            self.settle(now);
        }
    }

    // ---- owners ---------------------------------------------------------

    /// The tracker, or the user, named owners: addresses, and whether each has
    /// all. An empty list says that there are none, or that nobody answered.
    pub fn owners_found(&mut self, now: Instant, owners: impl IntoIterator<Item = (Addr, bool)>) {
        for (addr, complete) in owners {
            self.book.named(now, addr, complete);
        }
        self.find.running = false;
        let pause = if self.useful_links() > 0 {
            self.config.find_interval
        } else {
            let doubled = self.config.find_retry * 2u32.pow(self.find.fruitless.min(8));
            self.find.fruitless += 1;
            doubled.min(self.config.find_interval)
        };
        self.find.next = now + pause;
        self.settle(now);
    }

    /// A dial failed, or its handshake.
    pub fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        self.book.dial_failed(now, addr);
        self.settle(now);
    }

    /// Links that have something which is missing here.
    fn useful_links(&self) -> usize {
        match &self.phase {
            Phase::Manifest(_) | Phase::Opening(_) => {
                let has = |link: &&Link| link.remote.is_anything();
                self.links.values().filter(has).count()
            }
            Phase::Transfer(transfer) => {
                let useful = |link: &&LinkId| transfer.planner.is_useful(**link);
                self.links.keys().filter(useful).count()
            }
            Phase::Seeding(_) => 0,
        }
    }

    // ---- messages -------------------------------------------------------

    /// A message came from a link. Messages of unknown links are ignored.
    pub fn handle_message(&mut self, now: Instant, link: LinkId, message: PeerMessage) {
        if !self.links.contains_key(&link) {
            return;
        }
        match message {
            PeerMessage::KeepAlive => {}
            PeerMessage::Hello(_) => self.violated(now, link, "a second Hello"),
            PeerMessage::Refuse(reason) => self.drop_link(now, link, DropReason::Left(reason)),
            PeerMessage::Bitfield(bytes) => self.has_came(now, link, Remote::Raw(bytes)),
            PeerMessage::HaveAll => self.has_came(now, link, Remote::All),
            PeerMessage::HaveNone => self.has_came(now, link, Remote::None),
            PeerMessage::Have(chunk) => self.have_came(now, link, chunk),
            PeerMessage::Suggest(_) => {}
            PeerMessage::Request(block) => self.requested(now, link, block),
            PeerMessage::Cancel(block) => {
                if self.uploader.cancelled(link, block) {
                    self.send(link, PeerMessage::Reject(block));
                }
            }
            PeerMessage::Reject(block) => self.rejected(now, link, block),
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => self.block_came(now, link, chunk, offset, data),
            PeerMessage::Choke => self.choked(link, true),
            PeerMessage::Unchoke => self.choked(link, false),
            PeerMessage::ManifestRequest { part } => {
                let reply = match self.manifest() {
                    Some(manifest) => manifest_fetch::serve(manifest, part),
                    None => PeerMessage::ManifestReject { part },
                };
                self.send(link, reply);
            }
            PeerMessage::ManifestLength { length, proof } => {
                self.manifest_part(now, link, |fetch| {
                    fetch.length_came(now, link, length, &proof)
                });
            }
            PeerMessage::ManifestHashes { part, hashes } => {
                self.manifest_part(now, link, |fetch| {
                    fetch.hashes_came(now, link, part, &hashes)
                });
            }
            PeerMessage::ManifestReject { .. } => {
                if let Phase::Manifest(fetch) = &mut self.phase {
                    fetch.passed(link, false);
                }
            }
        }
        self.settle(now);
    }

    fn has_came(&mut self, now: Instant, id: LinkId, remote: Remote) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.remote != Remote::Unknown {
            return self.violated(now, id, "a second Bitfield");
        }
        link.remote = remote;
        self.use_remote(now, id);
    }

    /// Reads what a link said to have, once the length is known, and gives it
    /// to the planner.
    fn use_remote(&mut self, now: Instant, id: LinkId) {
        let (Some(manifest), Some(link)) = (self.phase.manifest(), self.links.get_mut(&id)) else {
            return;
        };
        let Some(has) = link.remote.resolve(manifest.geometry().chunks()) else {
            return self.violated(now, id, "a Bitfield of another content");
        };
        match &mut self.phase {
            Phase::Transfer(transfer) => {
                transfer.planner.link_has(id, has);
                self.wake.insert(id);
            }
            Phase::Seeding(_) if has == Has::All => {
                self.drop_link(now, id, DropReason::Refused(RefuseReason::NotNeeded));
            }
            _ => {}
        }
    }

    fn have_came(&mut self, now: Instant, id: LinkId, chunk: ChunkIndex) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let geometry = self.phase.manifest().map(|manifest| manifest.geometry());
        if geometry.is_some_and(|geometry| !geometry.contains(chunk)) {
            return self.violated(now, id, "a chunk that the content lacks");
        }
        link.remote.gained(chunk, geometry.map(|g| g.chunks()));
        match &mut self.phase {
            Phase::Manifest(fetch) => fetch.retry(id),
            Phase::Transfer(transfer) => {
                transfer.planner.link_gained(id, chunk);
                self.wake.insert(id);
            }
            Phase::Seeding(_) if link.remote == Remote::All => {
                self.drop_link(now, id, DropReason::Refused(RefuseReason::NotNeeded));
            }
            _ => {}
        }
    }

    fn choked(&mut self, link: LinkId, choked: bool) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.planner.link_choked(link, choked);
            self.wake.insert(link);
        }
        if let Some(link) = self.links.get_mut(&link) {
            link.choked = choked;
        }
    }

    // ---- the manifest ---------------------------------------------------

    fn manifest_part(
        &mut self,
        now: Instant,
        link: LinkId,
        step: impl FnOnce(&mut ManifestFetch) -> Part,
    ) {
        let Phase::Manifest(fetch) = &mut self.phase else {
            // The answer of a link that was passed over meanwhile.
            return;
        };
        match step(fetch) {
            Part::More(parts) => {
                self.last_gain = now;
                for part in parts {
                    self.send(link, PeerMessage::ManifestRequest { part });
                }
            }
            Part::Done(manifest) => {
                self.last_gain = now;
                let open = Output::Open(Arc::clone(&manifest));
                self.outputs.push_back(open);
                self.phase = Phase::Opening(manifest);
            }
            Part::Lie => self.ban(now, link),
            Part::Unasked => {}
        }
    }

    /// The storage is open, with these chunks in it. Ignored unless it was
    /// asked for.
    ///
    /// # Panics
    /// If `present` is not of this content.
    pub fn opened(&mut self, now: Instant, present: &Bitfield) {
        let Phase::Opening(manifest) = &self.phase else {
            return;
        };
        assert_eq!(present.chunks(), manifest.geometry().chunks());
        let grid = BlockGrid::of(manifest.geometry());
        let mut planner = self.config.planner.clone();
        let in_memory = self.config.max_unverified / manifest.geometry().chunk_len();
        planner.max_open = planner.max_open.min(in_memory as usize).max(2);
        let mut transfer = Transfer {
            manifest: Arc::clone(manifest),
            planner: Planner::new(grid, present, planner),
            assembler: Assembler::new(grid),
            checking: BTreeMap::new(),
            suspects: BTreeMap::new(),
            stored: present.clone(),
            commit: Commit::default(),
            finishing: false,
        };
        for (&id, link) in &mut self.links {
            transfer.planner.link_added(id);
            transfer.planner.link_choked(id, link.choked);
        }
        self.phase = Phase::Transfer(Box::new(transfer));
        self.log.extend(present.iter());
        if !present.is_empty() {
            self.outputs.push_back(Output::Announce(OwnState::Partial));
        }
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.use_remote(now, link);
            self.tell_haves(link);
        }
        self.settle(now);
    }

    // ---- downloading ----------------------------------------------------

    fn block_came(
        &mut self,
        now: Instant,
        link: LinkId,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
    ) {
        let len = data.len() as u64;
        self.counts.downloaded += len;
        let Phase::Transfer(transfer) = &mut self.phase else {
            self.counts.wasted += len;
            return;
        };
        let block = BlockRange {
            chunk,
            offset,
            len: len as u32,
        };
        match transfer.planner.block_arrived(now, link, block) {
            Arrival::Unasked => {
                self.counts.wasted += len;
                return self.violated(now, link, "a block that was not asked for");
            }
            Arrival::Late => self.counts.wasted += len,
            Arrival::Wanted { overtaken } => {
                self.last_gain = now;
                self.counts.meter.arrived(now, len);
                let inserted = transfer.assembler.insert(link, chunk, offset, data);
                if let Inserted::Complete(assembled) = inserted {
                    transfer.planner.chunk_complete(chunk);
                    self.outputs.push_back(Output::Verify {
                        chunk,
                        pieces: assembled.pieces.clone(),
                    });
                    transfer.checking.insert(chunk, assembled);
                }
                if let Some(other) = overtaken {
                    self.send(other, PeerMessage::Cancel(block));
                    self.wake.insert(other);
                }
            }
        }
        if let Some(addr) = self.links.get(&link).and_then(|l| l.info.addr.as_ref()) {
            self.book.proved(addr);
        }
        self.wake.insert(link);
    }

    fn rejected(&mut self, now: Instant, link: LinkId, block: BlockRange) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        match transfer.planner.rejected(now, link, block) {
            Some(forgotten) => {
                for chunk in forgotten {
                    transfer.forget(chunk, &mut self.counts);
                }
                self.wake_hungry = true;
                self.wake.insert(link);
            }
            None => self.violated(now, link, "a rejection of what was not asked for"),
        }
    }

    /// A chunk was hashed. Bad ones are blamed on who sent them.
    pub fn chunk_verified(&mut self, now: Instant, chunk: ChunkIndex, good: bool) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        let Some(assembled) = transfer.checking.get(&chunk) else {
            return;
        };
        let mut liars: Vec<(PeerId, Option<Addr>)> = Vec::new();
        if good {
            if let Some(suspects) = transfer.suspects.remove(&chunk) {
                let pieces = suspects.into_iter().zip(&assembled.pieces);
                let lied = pieces.filter(|(suspect, piece)| suspect.piece != *piece);
                liars.extend(lied.map(|(suspect, _)| (suspect.peer, suspect.addr)));
            }
            self.outputs.push_back(Output::Store {
                chunk,
                pieces: assembled.pieces.clone(),
            });
        } else if let Some(assembled) = transfer.checking.remove(&chunk) {
            self.counts.wasted += transfer.manifest.geometry().len_of(chunk);
            transfer.planner.chunk_failed(chunk);
            self.wake_hungry = true;
            let senders: BTreeSet<LinkId> = assembled.senders.iter().copied().collect();
            let sender_of = |id: &LinkId| self.links.get(id).map(|link| &link.info);
            if let (1, Some(liar)) = (senders.len(), senders.first()) {
                liars.extend(sender_of(liar).map(|info| (info.peer, info.addr.clone())));
            } else if transfer.suspects.len() < MAX_SUSPECTS {
                let pieces = assembled.senders.iter().zip(assembled.pieces);
                let suspects = pieces.map(|(id, piece)| {
                    let info = sender_of(id);
                    Suspect {
                        peer: info.map_or(self.me, |info| info.peer),
                        addr: info.and_then(|info| info.addr.clone()),
                        piece,
                    }
                });
                transfer.suspects.insert(chunk, suspects.collect());
            }
        }
        for (peer, addr) in liars {
            self.ban_peer(now, peer, addr.as_ref());
        }
        self.settle(now);
    }

    fn ban_peer(&mut self, now: Instant, peer: PeerId, addr: Option<&Addr>) {
        // A suspect whose link was gone before its block was found bad is not
        // known any more, and stands here as this peer itself.
        if peer == self.me {
            return;
        }
        let mut links = self.links.iter();
        match links.find(|(_, link)| link.info.peer == peer) {
            Some((&link, _)) => self.ban(now, link),
            None => self.book.ban(peer, addr),
        }
    }

    /// A verified chunk is in the storage: from now on it is offered.
    pub fn chunk_stored(&mut self, now: Instant, chunk: ChunkIndex) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        let Some(assembled) = transfer.checking.remove(&chunk) else {
            return;
        };
        transfer.planner.chunk_stored(chunk);
        transfer.stored.insert(chunk);
        self.log.push(chunk);
        let length = transfer.manifest.geometry().len_of(chunk);
        transfer.commit.bytes += length;
        transfer.commit.since.get_or_insert(now);
        if self.log.len() == 1 {
            self.outputs.push_back(Output::Announce(OwnState::Partial));
        }
        for (link, piece) in assembled.senders.iter().zip(&assembled.pieces) {
            let addr = self.links.get(link).and_then(|l| l.info.addr.clone());
            if let Some(owner) = addr {
                let bytes = piece.len() as u64;
                self.outputs.push_back(Output::Credit { owner, bytes });
            }
        }
        self.wake_hungry = true;
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.tell_haves(link);
        }
        self.settle(now);
    }

    /// What was stored before the commit began is durable.
    pub fn committed(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.commit.running = false;
        }
        self.settle(now);
    }

    /// The storage has published the content: it is complete, and seeded.
    pub fn finished(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &self.phase else {
            return;
        };
        let manifest = Arc::clone(&transfer.manifest);
        self.phase = Phase::Seeding(manifest);
        self.outputs.push_back(Output::Announce(OwnState::Complete));
        let seeders = self.links.iter().filter(|(_, l)| l.remote == Remote::All);
        let seeders: Vec<LinkId> = seeders.map(|(&id, _)| id).collect();
        for link in seeders {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
        }
        self.settle(now);
    }

    /// Tells a link of the chunks that were stored meanwhile, as long as it
    /// takes messages.
    fn tell_haves(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        while link.queued < MAX_QUEUED_HAVES
            && let Some(&chunk) = self.log.get(link.told)
        {
            link.told += 1;
            if link.remote != Remote::All {
                link.queued += 1;
                let message = PeerMessage::Have(chunk);
                self.outputs.push_back(Output::Send { link: id, message });
            }
        }
    }

    // ---- uploading ------------------------------------------------------

    fn requested(&mut self, now: Instant, link: LinkId, block: BlockRange) {
        let known = self.manifest().map(|manifest| manifest.geometry());
        if known.is_some_and(|geometry| !geometry.contains_block(block)) {
            return self.violated(now, link, "a request past the end of a chunk");
        }
        let owned = match &self.phase {
            Phase::Seeding(_) => true,
            Phase::Transfer(transfer) => transfer.stored.contains(block.chunk),
            _ => false,
        };
        if !owned || !self.uploader.requested(link, block) {
            self.send(link, PeerMessage::Reject(block));
        }
    }

    /// A block was read for a link; without its bytes (the storage failed), it
    /// is rejected.
    pub fn block_read(
        &mut self,
        now: Instant,
        link: LinkId,
        block: BlockRange,
        data: Option<Bytes>,
    ) {
        if self.links.contains_key(&link) {
            match data {
                Some(data) => self.send(
                    link,
                    PeerMessage::Block {
                        chunk: block.chunk,
                        offset: block.offset,
                        data,
                    },
                ),
                None => {
                    self.uploader.sent(link, block.len.into());
                    self.send(link, PeerMessage::Reject(block));
                }
            }
        }
        self.settle(now);
    }

    // ---- time, and what follows from everything -------------------------

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing else
    /// happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_seeding() {
            return None;
        }
        let mut next = vec![self.last_gain + self.config.patience];
        if !self.find.running && self.wants_owners() {
            next.push(self.find.next);
        }
        if self.wants_links() {
            next.extend(self.book.poll_timeout());
        }
        match &self.phase {
            Phase::Manifest(fetch) => next.extend(fetch.poll_timeout()),
            Phase::Transfer(transfer) => {
                next.extend(transfer.planner.poll_timeout());
                next.extend(transfer.commit.due(&self.config));
            }
            _ => {}
        }
        next.into_iter().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Manifest(fetch) => {
                fetch.handle_timeout(now);
            }
            Phase::Transfer(transfer) => {
                let (taken_back, forgotten) = transfer.planner.handle_timeout(now);
                for chunk in forgotten {
                    transfer.forget(chunk, &mut self.counts);
                }
                let silent: BTreeSet<LinkId> = taken_back.iter().map(|(link, _)| *link).collect();
                let lost = silent
                    .iter()
                    .filter(|link| transfer.planner.snubs(**link) >= MAX_SNUBS);
                let lost: Vec<LinkId> = lost.copied().collect();
                self.wake.extend(&silent);
                self.wake_hungry = true;
                for (link, block) in taken_back {
                    self.send(link, PeerMessage::Cancel(block));
                }
                for link in lost {
                    self.drop_link(now, link, DropReason::Silent);
                }
            }
            _ => {}
        }
        if !self.is_seeding() && self.last_gain + self.config.patience <= now {
            // The driver ends the download; until it does, say it once.
            self.last_gain = now;
            self.outputs.push_back(Output::GaveUp);
        }
        self.settle(now);
    }

    fn wants_links(&self) -> bool {
        !self.is_seeding()
            && self.links.len() + self.book.dialling()
                < self.config.sources.min(self.config.max_links)
    }

    fn wants_owners(&self) -> bool {
        self.wants_links() && !self.book.has_candidates()
            || !self.is_seeding() && self.useful_links() == 0
    }

    /// Does what the last input made possible.
    fn settle(&mut self, now: Instant) {
        while self.wants_links() {
            let Some(addr) = self.book.dial(now) else {
                break;
            };
            self.outputs.push_back(Output::Dial { addr });
        }
        if !self.find.running && self.find.next <= now && self.wants_owners() {
            self.find.running = true;
            self.outputs.push_back(Output::FindOwners);
        }
        if let Phase::Manifest(fetch) = &mut self.phase {
            let links = self.links.iter().filter(|(_, l)| l.remote.is_anything());
            if let Some(link) = fetch.start(now, links.map(|(&id, _)| id)) {
                self.send(link, PeerMessage::ManifestRequest { part: 0 });
            }
        }
        self.ask(now);
        self.finish_or_commit(now);
        let rank = |link: LinkId| self.links.get(&link).map_or(0, |l| l.remote.count());
        while let Some((link, block)) = self.uploader.next_block(rank) {
            self.outputs.push_back(Output::Read { link, block });
        }
    }

    /// Sends the requests that are due.
    fn ask(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            self.wake.clear();
            return;
        };
        if std::mem::take(&mut self.wake_hungry) {
            self.wake.extend(transfer.planner.hungry());
        }
        let mut requests = Vec::new();
        while let Some(link) = self.wake.pop_first() {
            while let Some(request) = transfer.planner.next_request(now, link) {
                requests.push((link, request));
                if let Some(other) = request.overtaken {
                    self.wake.insert(other);
                }
            }
        }
        for (link, Request { block, overtaken }) in requests {
            if let Some(other) = overtaken {
                self.send(other, PeerMessage::Cancel(block));
            }
            self.send(link, PeerMessage::Request(block));
        }
    }

    fn finish_or_commit(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if transfer.finishing || transfer.commit.running {
            return;
        }
        if transfer.planner.is_done() {
            transfer.finishing = true;
            self.outputs.push_back(Output::Finish);
        } else if transfer
            .commit
            .due(&self.config)
            .is_some_and(|due| due <= now)
            || transfer.commit.bytes >= self.config.commit_bytes
        {
            transfer.commit = Commit {
                running: true,
                ..Commit::default()
            };
            self.outputs.push_back(Output::Commit {
                verified: transfer.stored.clone(),
            });
        }
    }

    /// Panics where the machine contradicts itself. For tests.
    pub fn check_invariants(&self) {
        self.uploader.check_invariants();
        self.book.check_invariants();
        assert!(self.links.len() <= self.config.max_links);
        if let Phase::Transfer(transfer) = &self.phase {
            transfer.planner.check_invariants();
            let bound = transfer.manifest.geometry().chunk_len() * 2;
            assert!(transfer.assembler.bytes() <= self.config.max_unverified.max(bound));
        }
    }
}

impl Phase {
    fn manifest(&self) -> Option<&Arc<Manifest>> {
        match self {
            Self::Manifest(_) => None,
            Self::Opening(manifest) | Self::Seeding(manifest) => Some(manifest),
            Self::Transfer(transfer) => Some(&transfer.manifest),
        }
    }
}

impl Transfer {
    fn stored_bytes(&self) -> u64 {
        let geometry = self.manifest.geometry();
        let full = u64::from(self.stored.count()) * geometry.chunk_len();
        let last = geometry.last();
        if self.stored.contains(last) {
            full - (geometry.chunk_len() - geometry.len_of(last))
        } else {
            full
        }
    }

    fn forget(&mut self, chunk: ChunkIndex, counts: &mut Counts) {
        let blocks = self.assembler.discard(chunk);
        counts.wasted += blocks
            .iter()
            .map(|(_, data)| data.len() as u64)
            .sum::<u64>();
    }
}

impl Commit {
    fn due(&self, config: &SwarmConfig) -> Option<Instant> {
        let since = self.since.filter(|_| !self.running)?;
        Some(since + config.commit_interval)
    }
}
