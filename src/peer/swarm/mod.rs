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
//! Nothing else ever is: what an earlier download left behind is read and
//! verified first, a little at a time beside all else, and the content is
//! finished when no chunk is left that was not.

mod assembler;
mod blanks;
mod book;
mod config;
mod download;
mod grid;
mod keep;
mod link;
mod link_map;
mod links;
mod manifest_fetch;
mod messages;
mod output;
mod picker;
mod planner;
mod rate;
mod serve;
mod source;
mod spread;
mod transfer;
mod uploader;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

pub use assembler::{Assembled, Assembler, Inserted};
pub use config::SwarmConfig;
pub use grid::BlockGrid;
pub(crate) use link_map::LinkMap;
pub use manifest_fetch::ManifestClaim;
#[cfg(feature = "testing")]
pub(crate) use manifest_fetch::serve as manifest_part;
pub use output::{DropReason, LinkCookies, LinkId, LinkInfo, Output, Progress};
pub use picker::Picker;
pub use planner::{Arrival, Planner, PlannerConfig, Released, Request, Strategy};
pub use source::Has;
pub use uploader::{Turn, UploadLimits, Uploader};

use book::Book;
use link::Link;
use link_map::LinkSet;
use manifest_fetch::ManifestFetch;
use rate::RateMeter;
use spread::Spread;
use transfer::Transfer;

use crate::content::{ChunkIndex, ContentId, Manifest};
use crate::protocol::limits::MAX_REQUESTS;
use crate::protocol::{OwnState, PeerId, PeerMessage};

/// The machine of one content. See the [module docs](self).
#[derive(Debug)]
pub struct Swarm {
    id: ContentId,
    me: PeerId,
    config: SwarmConfig,
    phase: Phase,
    links: LinkMap<Link>,
    /// Links of which nothing came to be known, and links that were asked and take
    /// long to send anything; as counted last, and when.
    blanks: usize,
    doubtful: usize,
    blanks_counted: Option<Instant>,
    /// Until when each link is to say what it has, in the order of coming;
    /// those that have said are passed over.
    unsaid: VecDeque<(Instant, LinkId)>,
    book: Book,
    uploader: Uploader,
    outputs: VecDeque<Output>,
    /// Links that may have something to ask for.
    wake: LinkSet,
    /// Blocks became free, or chunks changed: the hungry look again.
    wake_hungry: bool,
    find: Find,
    /// When something last arrived that brought the download on.
    last_gain: Instant,
    /// It was said that nothing comes.
    gave_up: bool,
    /// Only what has come is still kept.
    stopping: bool,
    /// The chunks of a download in the order in which they were stored: what
    /// each link has yet to be told.
    log: Vec<ChunkIndex>,
    counts: Counts,
    /// Which chunks a seeder suggests.
    spread: Spread,
}

#[derive(Debug)]
enum Phase {
    Manifest(Box<ManifestFetch>),
    Opening(Arc<Manifest>),
    Transfer(Box<Transfer>),
    Seeding(Arc<Manifest>),
}

/// When owners are looked for.
#[derive(Debug)]
struct Find {
    running: bool,
    /// Never, when the pause is longer than time can tell.
    next: Option<Instant>,
    /// How often owners were looked for: ever more rarely.
    times: u32,
}

#[derive(Debug, Default)]
struct Counts {
    downloaded: u64,
    uploaded: u64,
    wasted: u64,
    /// Peers that sent something of what is stored.
    senders: BTreeSet<PeerId>,
    meter: RateMeter,
}

/// How many senders are counted, at the most.
const MAX_SENDERS: usize = 4096;

/// A link that was silent so often in a row is dropped.
const MAX_SNUBS: u32 = 3;

impl Swarm {
    /// The machine of a content that is to be downloaded.
    pub fn leecher(now: Instant, config: SwarmConfig, me: PeerId, id: ContentId) -> Self {
        let fetch = Phase::Manifest(Box::new(ManifestFetch::new(id)));
        let mut swarm = Self::new(now, config, me, id, fetch);
        // Already now, with nothing to offer yet: leechers that know each
        // other early pass the first chunks on without asking anybody.
        let announce = Output::Announce(OwnState::Partial);
        swarm.outputs.push_back(announce);
        swarm
    }

    /// The machine of a content that is there as a whole.
    pub fn seeder(now: Instant, config: SwarmConfig, me: PeerId, manifest: Arc<Manifest>) -> Self {
        Self::new(now, config, me, manifest.id(), Phase::Seeding(manifest))
    }

    fn new(now: Instant, config: SwarmConfig, me: PeerId, id: ContentId, phase: Phase) -> Self {
        let mut counts = Counts::default();
        counts.meter.began(now);
        let mut swarm = Self {
            id,
            me,
            uploader: Uploader::new(
                UploadLimits {
                    window: config.send_window,
                    requests: MAX_REQUESTS,
                    slots: config.upload_slots,
                },
                config.planner.seed,
            ),
            config,
            phase,
            links: LinkMap::default(),
            blanks: 0,
            doubtful: 0,
            blanks_counted: None,
            unsaid: VecDeque::new(),
            book: Book::default(),
            outputs: VecDeque::new(),
            wake: LinkSet::default(),
            wake_hungry: false,
            find: Find {
                running: false,
                next: Some(now),
                times: 0,
            },
            last_gain: now,
            gave_up: false,
            stopping: false,
            log: Vec::new(),
            counts,
            spread: Spread::default(),
        };
        swarm.measure();
        swarm
    }

    /// Tells the uploader the lengths, once they are known.
    fn measure(&mut self) {
        if let Some(manifest) = self.phase.manifest() {
            let geometry = manifest.geometry();
            let block_len = BlockGrid::of(geometry).block_len();
            self.uploader.measures(block_len, geometry.chunk_len());
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
            senders: self.counts.senders.len() as u32,
            links: self.links.len() as u32,
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing else
    /// happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unsaid = self.unsaid.front().map(|&(deadline, _)| deadline);
        if self.is_seeding() {
            return self.uploader.poll_timeout().into_iter().chain(unsaid).min();
        }
        let find = self.find.next.filter(|_| !self.find.running);
        let phase = match &self.phase {
            Phase::Manifest(fetch) => [fetch.poll_timeout(self.links_with_something()), None],
            Phase::Transfer(transfer) => [
                transfer.planner.poll_timeout(),
                transfer.commit.due(&self.config),
            ],
            _ => [None, None],
        };
        let wants_links = self.wants_links();
        let dial = wants_links.then(|| self.book.poll_timeout());
        let starves = self.starves_at();
        let first = [
            self.patience_ends(),
            self.uploader.poll_timeout(),
            dial.flatten(),
            starves.filter(|_| wants_links && self.book.has_claimed()),
            self.place_wanted_at(),
            self.blanks_due(),
            unsaid,
        ];
        let first = first.into_iter().chain(phase).flatten().min();
        // Whether owners are wanted is looked up only where it matters.
        let is_first = |find: &Instant| first.is_none_or(|first| *find < first);
        find.filter(|find| is_first(find) && self.wants_owners())
            .or(first)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_unsaid(now);
        match &mut self.phase {
            Phase::Manifest(fetch) => {
                for link in fetch.handle_timeout(now) {
                    self.drop_link(now, link, DropReason::Silent);
                }
            }
            Phase::Transfer(transfer) => {
                let (silent, released) = transfer.planner.handle_timeout(now);
                let snubs = |link: &LinkId| transfer.planner.snubs(*link);
                let lost = silent.iter().filter(|link| snubs(link) >= MAX_SNUBS);
                let lost: Vec<LinkId> = lost.copied().collect();
                for &link in &silent {
                    self.wake.add(link);
                }
                self.released(released);
                for link in lost {
                    self.drop_link(now, link, DropReason::Silent);
                }
            }
            _ => {}
        }
        if self.patience_ends().is_some_and(|end| end <= now) {
            // The driver ends the download; said once, until something comes.
            self.gave_up = true;
            self.outputs.push_back(Output::GaveUp);
        }
        self.settle(now);
    }

    fn links_with_something(&self) -> impl Iterator<Item = LinkId> {
        let links = self.links.iter().filter(|(_, l)| l.remote.is_anything());
        links.map(|(id, _)| id)
    }

    /// When to give up waiting for others: not before everybody was asked. What the storage takes its time
    /// for, or the hashing, is not theirs.
    fn patience_ends(&self) -> Option<Instant> {
        let others = match &self.phase {
            Phase::Manifest(fetch) => {
                let has_room = self.links.len() < self.config.max_links;
                let tries = has_room && self.book.has_untried();
                !fetch.is_checking() && !fetch.is_waiting(self.links_with_something()) && !tries
            }
            Phase::Transfer(transfer) => {
                transfer.checking.is_empty()
                    && transfer.unchecked.is_empty()
                    && !transfer.planner.is_done()
            }
            Phase::Opening(_) | Phase::Seeding(_) => false,
        };
        let waits = others && !self.gave_up;
        waits
            .then(|| self.last_gain.checked_add(self.config.patience))
            .flatten()
    }

    /// Does what the last input made possible.
    fn settle(&mut self, now: Instant) {
        if self.stopping {
            self.store();
            return self.finish_or_commit(now);
        }
        self.count_blanks(now);
        while self.wants_links() || self.wants_place(now) {
            // The manifest comes first, and leechers that have just come have
            // none.
            let seeder_first = self.book.dialling() == 0 && !self.is_supplied();
            let starving = self.book.has_claimed() && self.is_starving(now);
            let Some(addr) = self.book.dial(now, seeder_first, starving) else {
                break;
            };
            let leads_there = |link: &Link| link.solid && link.info.addr.as_ref() == Some(&addr);
            if self.links.values().any(leads_there) {
                // It had been forgotten, and was named again since.
                self.book.is_linked(&addr);
                continue;
            }
            self.outputs.push_back(Output::Dial { addr });
        }
        if !self.find.running
            && self.find.next.is_some_and(|next| next <= now)
            && self.wants_owners()
        {
            self.find.running = true;
            self.outputs.push_back(Output::FindOwners);
        }
        if let Phase::Manifest(fetch) = &mut self.phase {
            let mut requests = Vec::new();
            if let Some((link, parts)) = fetch.promote(now) {
                requests.extend(parts.map(|part| (link, part)));
            }
            let links = self.links.iter().filter(|(_, l)| l.remote.is_anything());
            let links = links.map(|(id, _)| id);
            while let Some(link) = fetch.start(now, links.clone()) {
                requests.push((link, 0));
            }
            for (link, part) in requests {
                self.send(link, PeerMessage::ManifestRequest { page: part });
            }
        }
        self.ask(now);
        self.store();
        self.finish_or_commit(now);
        self.upload(now);
        self.recheck();
    }

    /// Panics where the machine contradicts itself. For tests.
    pub fn check_invariants(&self) {
        self.uploader.check_invariants();
        self.book.check_invariants();
        assert!(self.links.len() <= self.config.max_links);
        if let Phase::Transfer(transfer) = &self.phase {
            transfer.planner.check_invariants();
            for (id, link) in self.links.iter() {
                // Else nothing would ever tell that it is wanted after all.
                let waits = link.choked && link.declined && transfer.planner.is_useful(id);
                let hungry = transfer.planner.next_hungry(id) == Some(id);
                assert!(!waits || hungry || self.wake.contains(id), "given up");
            }
            let geometry = transfer.manifest.geometry();
            let checking = transfer.checking.keys().map(|&c| geometry.len_of(c));
            let unverified = transfer.assembler.bytes() + checking.sum::<u64>();
            let bound = self.config.max_unverified.max(geometry.chunk_len() * 2);
            assert!(unverified <= bound);
            for chunk in transfer.checking.keys() {
                assert!(!transfer.stored.contains(*chunk));
            }
            for chunk in transfer.unchecked.iter() {
                assert!(!transfer.stored.contains(chunk));
            }
            assert!(!transfer.finishing || transfer.planner.is_done());
            let window = self.config.commit_bytes.max(geometry.chunk_len());
            assert!(transfer.commit.at_risk() <= window);
        }
    }
}

impl Phase {
    /// Whether a chunk is here, to be served.
    fn has(&self, chunk: ChunkIndex) -> bool {
        match self {
            Self::Manifest(_) | Self::Opening(_) => false,
            Self::Transfer(transfer) => transfer.stored.contains(chunk),
            Self::Seeding(manifest) => manifest.geometry().contains(chunk),
        }
    }

    fn manifest(&self) -> Option<&Arc<Manifest>> {
        match self {
            Self::Manifest(_) => None,
            Self::Opening(manifest) | Self::Seeding(manifest) => Some(manifest),
            Self::Transfer(transfer) => Some(&transfer.manifest),
        }
    }
}
