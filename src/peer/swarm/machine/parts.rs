//! What the machine is composed of, and what everything needs that works with it: to
//! send, to plan, to judge links. It knows none of the files beside it.

use std::sync::Arc;
use std::time::Instant;

use super::effort::Effort;
use super::keeping::Keeping;
use super::limit::DownloadLimit;
use crate::content::{Bitfield, ChunkIndex, ContentId, Manifest};
use crate::peer::swarm::address_book::AddressBook;
use crate::peer::swarm::ask_queue::AskQueue;
use crate::peer::swarm::block_layout::BlockLayout;
use crate::peer::swarm::contributor::Contributor;
use crate::peer::swarm::early::Early;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::newcomers::Newcomers;
use crate::peer::swarm::outbox::Outbox;
use crate::peer::swarm::owner_search::OwnerSearch;
use crate::peer::swarm::passage::Passage;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::places::{Census, Places};
use crate::peer::swarm::planner::{Planner, Released};
use crate::peer::swarm::progress::Counters;
use crate::peer::swarm::standby::StandbyLinks;
use crate::peer::swarm::super_seeding::SuperSeeding;
use crate::peer::swarm::supply::Supply;
use crate::peer::swarm::uploader::{UploadLimits, Uploader};
use crate::peer::swarm::waiting_line::WaitingLine;
use crate::peer::swarm::{LinkId, LinkMap, Output, ReadWindow, SwarmConfig};
use crate::protocol::limits::MAX_REQUESTS;
use crate::protocol::{Addr, DONT_HAVE_MARK, OwnState, PeerId, PeerMessage, ZoneTag};

/// The parts of the machine of one content.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) id: ContentId,
    pub(super) me: PeerId,
    /// The zone of this peer, if it is in one.
    pub(super) zone: Option<ZoneTag>,
    /// It fetches from other zones for its own.
    pub(super) imports: bool,
    /// The trackers were asked since this peer was announced, so they have said whether it does.
    pub(super) role_asked: bool,
    /// Where others are that do the same, as trackers say.
    pub(super) importers: Vec<Addr>,
    pub(super) config: SwarmConfig,
    pub(super) phase: Phase,
    /// What is asked for before the manifest is here and the storage is open.
    pub(super) early: Option<Box<Early>>,
    pub(super) links: LinkMap<Link>,
    /// Links that wait here for a place.
    pub(super) line: WaitingLine,
    /// Links on which this side waits for a place.
    pub(super) standby: StandbyLinks,
    pub(super) census: Census,
    pub(super) newcomers: Newcomers,
    pub(super) book: AddressBook,
    pub(super) uploader: Uploader,
    pub(super) outbox: Outbox,
    pub(super) ask_queue: AskQueue,
    pub(super) owner_search: OwnerSearch,
    pub(super) effort: Effort,
    pub(super) keeping: Keeping,
    /// How many peers were banned because they sent wrong bytes.
    pub(super) liars: u32,
    pub(super) counters: Counters,
    pub(super) super_seeding: SuperSeeding,
    /// What the readers of the content want next.
    pub(super) windows: Vec<ReadWindow>,
    /// The chunks that are wanted, if not all are.
    pub(super) wanted: Option<Bitfield>,
    /// Set if the content only passes through here.
    pub(super) passage: Option<Passage>,
    /// The uploader has its own.
    pub(super) limit: DownloadLimit,
}

impl Parts {
    /// The parts of a new machine.
    pub(super) fn new(
        now: Instant,
        config: SwarmConfig,
        me: PeerId,
        id: ContentId,
        phase: Phase,
    ) -> Self {
        let limits = UploadLimits {
            window: config.send_window,
            requests: MAX_REQUESTS,
            slots: config.upload_slots,
            strangers: (config.stranger_slots, config.optimistic_slots),
        };
        let mut parts = Self {
            id,
            me,
            zone: None,
            imports: false,
            role_asked: false,
            importers: Vec::new(),
            uploader: Uploader::new(limits, config.planner.seed),
            config,
            phase,
            early: None,
            links: LinkMap::default(),
            line: WaitingLine::default(),
            standby: StandbyLinks::default(),
            census: Census::default(),
            newcomers: Newcomers::default(),
            book: AddressBook::default(),
            outbox: Outbox::default(),
            ask_queue: AskQueue::default(),
            owner_search: OwnerSearch::new(now),
            effort: Effort::new(now),
            keeping: Keeping::default(),
            liars: 0,
            counters: Counters::new(now),
            super_seeding: SuperSeeding::default(),
            windows: Vec::new(),
            wanted: None,
            passage: None,
            limit: DownloadLimit::default(),
        };
        if parts.is_seeding() {
            parts.uploader.set_seeding(true);
        }
        parts.measure();
        parts
    }

    /// Tells the uploader the lengths, once they are known.
    pub(super) fn measure(&mut self) {
        if let Some(manifest) = self.phase.manifest() {
            let block_len = BlockLayout::for_content(manifest, false).block_len();
            let chunk_len = manifest.geometry().chunk_len();
            self.uploader.set_lengths(block_len, chunk_len);
        }
    }

    /// The manifest, once it is known.
    pub(super) fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.phase.manifest()
    }

    /// Whether the content is a torrent. Then the links are with BitTorrent clients.
    pub(super) fn is_torrent(&self) -> bool {
        self.manifest()
            .is_some_and(|manifest| manifest.is_torrent())
    }

    /// Whether the content is complete and published.
    pub(super) fn is_seeding(&self) -> bool {
        self.phase.is_seeding()
    }

    /// Whether a chunk is here and verified, so that it can be served.
    pub(super) fn has(&self, chunk: ChunkIndex) -> bool {
        self.phase.has(chunk) && self.passage.as_ref().is_none_or(|p| p.holds(chunk))
    }

    /// How much of what was offered a new link learns from the greeting.
    pub(super) fn greeted_with(&self) -> usize {
        match self.passage {
            Some(_) => 0,
            None => self.outbox.offered(),
        }
    }

    /// Says on a link that this side understands when a chunk is taken back.
    pub(super) fn mark(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && !link.marked
        {
            link.marked = true;
            let mark = PeerMessage::Cancel(DONT_HAVE_MARK);
            self.outbox.send(id, link, mark);
        }
    }

    /// Tells the trackers, unless the content only passes through.
    pub(super) fn announce(&mut self, state: OwnState) {
        if self.passage.is_none() {
            self.outbox.push(Output::Announce(state));
        }
    }

    /// What plans the requests, if any are sent: the transfer's, or the one before it.
    pub(super) fn planner(&mut self) -> Option<&mut Planner> {
        match &mut self.phase {
            Phase::Transfer(transfer) => Some(&mut transfer.planner),
            _ => self.early.as_mut().map(|early| &mut early.planner),
        }
    }

    /// The links, to be judged.
    pub(super) fn places(&self, now: Instant) -> Places<'_> {
        Places {
            now,
            links: &self.links,
            uploader: &self.uploader,
            phase: &self.phase,
            config: &self.config,
            importers: &self.importers,
        }
    }

    /// Whether the download is supplied.
    pub(super) fn supply(&self) -> Supply<'_> {
        Supply {
            links: &self.links,
            standby: &self.standby,
            book: &self.book,
            phase: &self.phase,
            census: &self.census,
            config: &self.config,
            last_gain: self.effort.last_gain(),
            turn_moved: self.effort.turn_moved(),
            is_searching: self.owner_search.is_running(),
            liars: self.liars,
            is_held: self.is_held(),
        }
    }

    /// Something arrived that brings the download on.
    pub(super) fn gained(&mut self, now: Instant) {
        if self.effort.gained(now) {
            self.outbox.push(Output::Resumed);
        }
    }

    /// Whether nobody is asked for anything.
    pub(super) fn is_paused(&self) -> bool {
        self.effort.pause().is_some()
    }

    /// Whether something more would be asked for if the limits allowed it.
    pub(super) fn is_held(&self) -> bool {
        let is_full = matches!(&self.phase, Phase::Transfer(transfer) if transfer.is_full());
        self.ask_queue.is_held() || self.limit.holds_pages() || is_full
    }

    /// Every link may have something to ask for.
    pub(super) fn wake_all(&mut self) {
        for link in self.links.keys() {
            self.ask_queue.wake(link);
        }
    }

    /// A link may have something of the content: those who watch are told, once.
    pub(super) fn owner_joined(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id) {
            self.outbox.owner_joined(link);
        }
    }

    /// Whether links wait here for a place. Only a seeder has them wait: who is refused by
    /// a leecher has others to ask, as the leecher itself has. A BitTorrent client cannot be
    /// told that it waits, and goes on as if it did not.
    pub(super) fn keeps_a_line(&self) -> bool {
        self.is_seeding() && self.config.max_waiting > 0 && !self.is_torrent()
    }

    /// Sends a message to a link that has a place.
    pub(super) fn send(&mut self, link: LinkId, message: PeerMessage) {
        if let Some(state) = self.links.get_mut(link) {
            self.outbox.send(link, state, message);
        }
    }

    /// Tells a link of the chunks that were stored meanwhile.
    pub(super) fn send_haves(&mut self, link: LinkId) {
        if let Some(state) = self.links.get_mut(link)
            && (self.passage.is_none() || state.takes_back)
        {
            self.outbox.send_haves(link, state);
        }
    }

    /// Sends the pages of the manifest that a link asked for and that may pass now.
    pub(super) fn send_pages(&mut self, link: LinkId) {
        if let Some(state) = self.links.get_mut(link) {
            let manifest = self.phase.manifest().map(|manifest| &**manifest);
            let (host, mut gate) = match self.uploader.gate_mut() {
                None => (None, None),
                gate => (Some(state.info.host.clone()), gate),
            };
            let admits = |bytes| match (&host, &mut gate) {
                (Some(host), Some(gate)) => {
                    let admitted = gate.admits(host, bytes);
                    if admitted {
                        gate.spend(host, bytes);
                    }
                    admitted
                }
                _ => true,
            };
            self.outbox.send_pages(link, state, manifest, admits);
        }
    }

    /// A link, as the sender of what it sends.
    pub(super) fn contributor(&self, link: LinkId) -> Option<Arc<Contributor>> {
        self.links.get(link).map(|l| Arc::clone(&l.contributor))
    }

    /// Blocks that were given up are cancelled, forgotten, and free for other links.
    pub(super) fn released(&mut self, released: Released) {
        for chunk in released.forgotten {
            self.counters.waste.dropped += match (&mut self.phase, &mut self.early) {
                (Phase::Transfer(transfer), _) => transfer.forget(chunk),
                (_, Some(early)) => early.forget(chunk),
                _ => 0,
            };
        }
        for (link, block) in released.cancelled {
            self.send(link, PeerMessage::Cancel(block));
            self.ask_queue.wake(link);
        }
        self.ask_queue.wake_idle();
    }
}
