//! The machine itself: it takes every input, asks its parts what follows, and puts the
//! outputs in order. See the [module docs](super).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::address_book::{AddressBook, Farewell};
use super::ask_queue::AskQueue;
use super::block_layout::BlockLayout;
use super::chunk_set::ChunkSet;
use super::contributor::{Contributor, credits};
use super::early::Early;
use super::gate::{Allowance, Direction, Gate};
use super::link::{Choke, Interest, Link, MAX_WAITING_PAGES};
use super::manifest_fetch::{ManifestFetch, PageOutcome};
use super::newcomers::{self, Newcomers};
use super::outbox::Outbox;
use super::owner_search::OwnerSearch;
use super::page_asks::PageAsks;
use super::passage::Passage;
use super::phase::Phase;
use super::piece_map::{PieceMap, PieceState};
use super::places::{Census, GRACE, Places};
use super::planner::{Arrival, Planner, Released};
use super::progress::Counters;
use super::remote_chunks::RemoteChunks;
use super::same_peer::{self, SamePeer};
use super::standby::StandbyLinks;
use super::super_seeding::SuperSeeding;
use super::supply::{Supply, links_with_chunks};
use super::transfer::{Outlook, StorageStep, Transfer};
use super::uploader::{Turn, UploadLimits, Uploader};
use super::waiting_line::{WaitingLine, WhileWaiting};
use super::{
    BanReason, BannedPeer, ChunkBytes, DownloadStats, DropReason, LeaveReason, LinkCookies, LinkId,
    LinkInfo, LinkMap, LinkState, LinkStats, Output, Progress, ReadWindow, StallReason, Strategy,
    SwarmConfig, SwarmEvent, Waste,
};
use crate::content::{Bitfield, BlockRange, ChunkIndex, ContentId, Geometry, Manifest};
use crate::protocol::limits::{HASHES_PER_PAGE, MAX_BLOCK_LEN, MAX_REQUESTS};
use crate::protocol::{Addr, HostKey, LinkProof, OwnState, PeerId, PeerMessage, RefuseReason};

/// A link that was silent this many times in a row is dropped.
const MAX_SNUBS: u32 = 3;

/// A link that rejects this many chunks in a row, which it said to have, is dropped.
const MAX_REJECTIONS: u32 = 32;

/// For how long an old link that has nothing comes last.
const COMES_LAST: Duration = Duration::from_secs(60);

/// How many messages may wait for a link: several times what a peer that keeps to the
/// protocol can cause.
const MAX_QUEUED: usize = 4096;

/// How often addresses that did not answer are tried at once, because something else
/// answered.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The machine of one content. See the [module docs](super).
#[derive(Debug)]
pub struct Swarm {
    id: ContentId,
    me: PeerId,
    config: SwarmConfig,
    phase: Phase,
    /// What is asked for before the manifest is here and the storage is open.
    early: Option<Box<Early>>,
    links: LinkMap<Link>,
    /// Links that wait here for a place.
    line: WaitingLine,
    /// Links on which this side waits for a place.
    standby: StandbyLinks,
    census: Census,
    newcomers: Newcomers,
    book: AddressBook,
    uploader: Uploader,
    outbox: Outbox,
    ask_queue: AskQueue,
    owner_search: OwnerSearch,
    /// When something last arrived that brought the download on.
    last_gain: Instant,
    /// When a turn that is waited for last came nearer, or came, or was lost.
    turn_moved: Instant,
    effort: Effort,
    /// When addresses that did not answer were last tried at once.
    last_retry: Option<Instant>,
    /// How many peers were banned because they sent wrong bytes.
    liars: u32,
    counters: Counters,
    super_seeding: SuperSeeding,
    /// What the readers of the content want next.
    windows: Vec<ReadWindow>,
    /// Set if the content only passes through here.
    passage: Option<Passage>,
    /// Before the limits of the download, if there are any. The uploader has its own.
    gate: Option<Box<Gate>>,
    page_asks: PageAsks,
    /// Since when nothing more is asked for because of the limits.
    held_since: Option<Instant>,
}

/// What becomes of a new link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Welcome {
    /// It has a place.
    Place,
    /// It waits for one.
    Wait,
    Refused(RefuseReason),
}

/// What the machine tries to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    Going,
    /// It said that nothing arrives, and why.
    Stalled(StallReason),
    /// It said that it gives up; something may still arrive.
    GaveUp,
    /// Nobody is asked for anything.
    Paused(Serving),
    /// The download ends here. Only what has arrived is still stored.
    Stopping,
}

/// What becomes of the other peers while a download is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    /// They get what is here.
    Goes,
    /// They get nothing, and there are no links.
    Rests,
}

impl Swarm {
    /// The machine of a content that has to be downloaded.
    pub fn leecher(now: Instant, config: SwarmConfig, me: PeerId, id: ContentId) -> Self {
        let fetch = Phase::Manifest(Box::new(ManifestFetch::new(id)));
        let mut swarm = Self::new(now, config, me, id, fetch);
        // It announces itself at once, with nothing to offer yet. Leechers that know each
        // other early pass the first chunks on without asking a tracker again.
        let announce = Output::Announce(OwnState::Partial);
        swarm.outbox.push(announce);
        swarm
    }

    /// The content should have this length in bytes, by the word of a tracker. Owners that
    /// are named as complete are asked for blocks before the manifest is here. If the
    /// length turns out to be another one, these requests were in vain. Not for a content
    /// of which the storage has a part already.
    #[must_use]
    pub fn expecting(mut self, length: u64) -> Self {
        // Nobody knows the length of a content of 0 bytes from one that was not named.
        let geometry = Geometry::of(length).ok().filter(|_| length > 0);
        if let (Phase::Manifest(fetch), Some(geometry)) = (&mut self.phase, geometry) {
            fetch.expect(geometry.chunks());
            self.early = Some(Box::new(Early::new(
                BlockLayout::of(geometry),
                &self.config,
            )));
        }
        self
    }

    /// The content only passes through here: at most `window` bytes behind the position of
    /// its first reader are asked for, or two chunks if that is more, and what the reader
    /// has passed does not stay. So nothing of it is offered to anybody, neither to links
    /// nor to trackers. Nothing of it may be here at the start, and nothing may be
    /// [expected](Self::expecting).
    #[must_use]
    pub fn passing(mut self, window: u64) -> Self {
        self.passage = Some(Passage::new(window));
        // Nobody is to find it here.
        self.outbox = Outbox::default();
        self
    }

    /// The machine of a content that is complete in the storage.
    pub fn seeder(now: Instant, config: SwarmConfig, me: PeerId, manifest: Arc<Manifest>) -> Self {
        Self::new(now, config, me, manifest.id(), Phase::Seeding(manifest))
    }

    fn new(now: Instant, config: SwarmConfig, me: PeerId, id: ContentId, phase: Phase) -> Self {
        let limits = UploadLimits {
            window: config.send_window,
            requests: MAX_REQUESTS,
            slots: config.upload_slots,
        };
        let mut swarm = Self {
            id,
            me,
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
            last_gain: now,
            turn_moved: now,
            effort: Effort::Going,
            last_retry: None,
            liars: 0,
            counters: Counters::new(now),
            super_seeding: SuperSeeding::default(),
            windows: Vec::new(),
            passage: None,
            gate: None,
            page_asks: PageAsks::default(),
            held_since: None,
        };
        swarm.measure();
        swarm
    }

    /// Tells the uploader the lengths, once they are known.
    fn measure(&mut self) {
        if let Some(manifest) = self.phase.manifest() {
            let geometry = manifest.geometry();
            let block_len = BlockLayout::of(geometry).block_len();
            self.uploader.set_lengths(block_len, geometry.chunk_len());
        }
    }

    /// The content's identity.
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// The id by which other peers know this one.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// The manifest, once it is known.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.phase.manifest()
    }

    /// Whether the content is complete and published.
    pub fn is_seeding(&self) -> bool {
        self.phase.is_seeding()
    }

    /// Whether every whole chunk that has arrived is durable.
    pub fn is_saved(&self) -> bool {
        match &self.phase {
            Phase::Transfer(transfer) => transfer.is_saved(),
            _ => true,
        }
    }

    /// How far the content is.
    pub fn progress(&self, now: Instant) -> Progress {
        let mut progress = self.counters.progress(now);
        progress.links = self.links.len() as u32;
        progress.place_in_line = self.standby.position();
        self.phase.fill_in(&mut progress);
        if self.is_paused() {
            progress.rate = 0.0;
        }
        progress
    }

    /// What is done for the content at this moment, with all links. O(links).
    pub fn stats(&self, now: Instant) -> DownloadStats {
        let chunks = self.manifest().map(|m| m.geometry().chunks());
        let (download_rate, upload_rate) = self.counters.rates(now);
        let mut stats = DownloadStats {
            progress: self.progress(now),
            download_rate,
            upload_rate,
            waste: self.counters.waste,
            rejected: self.counters.rejected,
            links: Vec::new(),
            banned: self.counters.last_banned(),
        };
        let links = self.links.iter().map(|(id, link)| {
            let (sent, choked) = (self.uploader.sent_to(id), self.uploader.is_choked(id));
            link.stats(now, chunks, (sent, choked))
        });
        stats.links.extend(links);
        let without_place = |(link, state): (&Link, LinkState)| LinkStats {
            state,
            ..link.stats(now, chunks, (0, true))
        };
        let queued = self.standby.positions();
        let queued = queued.map(|(link, position)| (link, LinkState::Queued { position }));
        let waiting = self.line.positions();
        let waiting = waiting.map(|(link, position)| (link, LinkState::Waiting { position }));
        stats.links.extend(queued.chain(waiting).map(without_place));
        stats
    }

    /// The state of every chunk, and how many links have it; nothing until the content can
    /// be stored. O(chunks) while it is downloaded, otherwise O(links * chunks).
    pub fn piece_map(&self) -> Option<PieceMap> {
        let all = |link: &&Link| link.remote == RemoteChunks::All;
        let whole = self.links.values().filter(all).count() as u32;
        match &self.phase {
            Phase::Manifest(_) | Phase::Opening(_) => None,
            Phase::Transfer(transfer) => {
                let pieces = transfer.planner.pieces();
                let pieces = pieces.map(|(state, part)| (state, whole + part));
                Some(PieceMap::collect(pieces))
            }
            Phase::Seeding(manifest) => {
                let mut copies = vec![whole; manifest.geometry().chunks() as usize];
                for link in self.links.values() {
                    if let RemoteChunks::Some(has) = &link.remote {
                        has.iter().for_each(|chunk| copies[chunk.as_usize()] += 1);
                    }
                }
                let pieces = copies
                    .into_iter()
                    .map(|copies| (PieceState::Stored, copies));
                Some(PieceMap::collect(pieces))
            }
        }
    }

    /// Where the bytes of a chunk are.
    pub(crate) fn chunk_bytes(&self, chunk: ChunkIndex) -> ChunkBytes<'_> {
        match &self.phase {
            Phase::Transfer(transfer) => transfer.bytes_of(chunk),
            Phase::Seeding(_) => ChunkBytes::Stored,
            Phase::Manifest(_) | Phase::Opening(_) => ChunkBytes::Missing,
        }
    }

    /// The chunks that are verified and stored, once the content can be stored.
    pub fn verified_chunks(&self) -> Option<Bitfield> {
        match &self.phase {
            Phase::Manifest(_) | Phase::Opening(_) => None,
            Phase::Transfer(transfer) => Some(transfer.stored().clone()),
            Phase::Seeding(manifest) => Some(Bitfield::all(manifest.geometry().chunks())),
        }
    }

    /// What the readers of the content want next.
    pub fn set_read_windows(&mut self, now: Instant, windows: &[ReadWindow]) {
        self.windows = windows.to_vec();
        if let Some(early) = self.early.as_mut().filter(|_| self.links.len() == 0) {
            let layout = BlockLayout::at(early.geometry(), !windows.is_empty());
            early.cut_anew(layout, &self.config);
        }
        if let (Some(passage), Phase::Transfer(transfer)) = (&self.passage, &mut self.phase) {
            let geometry = transfer.manifest().geometry();
            if transfer.admit(passage.chunks(windows, &geometry)) {
                self.ask_queue.wake_idle();
            }
        }
        if let Some(planner) = self.planner() {
            let released = planner.set_windows(now, windows);
            self.released(released);
            for link in self.links.keys() {
                self.ask_queue.wake(link);
            }
        }
        self.settle(now);
    }

    /// Tells the trackers, unless the content only passes through.
    fn announce(&mut self, state: OwnState) {
        if self.passage.is_none() {
            self.outbox.push(Output::Announce(state));
        }
    }

    /// Asks for the missing chunks in another order from now on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.config.planner.strategy = strategy;
        if let Some(planner) = self.planner() {
            planner.set_strategy(strategy);
        }
    }

    /// What plans the requests, if any are sent: the transfer's, or the one before it.
    fn planner(&mut self) -> Option<&mut Planner> {
        match &mut self.phase {
            Phase::Transfer(transfer) => Some(&mut transfer.planner),
            _ => self.early.as_mut().map(|early| &mut early.planner),
        }
    }

    fn places(&self, now: Instant) -> Places<'_> {
        Places {
            now,
            links: &self.links,
            uploader: &self.uploader,
            phase: &self.phase,
            config: &self.config,
        }
    }

    fn supply(&self) -> Supply<'_> {
        Supply {
            links: &self.links,
            standby: &self.standby,
            book: &self.book,
            phase: &self.phase,
            census: &self.census,
            config: &self.config,
            last_gain: self.last_gain,
            turn_moved: self.turn_moved,
            is_searching: self.owner_search.is_running(),
            liars: self.liars,
            is_held: self.is_held(),
        }
    }
}

/// Outputs and time.
impl Swarm {
    /// What to do next, in order; `None` when there is nothing to do for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing else happens
    /// before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let greeting = self.newcomers.poll_timeout();
        let upload = self.uploader.poll_timeout();
        if self.is_seeding() {
            let line = self.line.poll_timeout();
            return upload.into_iter().chain(greeting).chain(line).min();
        }
        let phase = match &self.phase {
            Phase::Manifest(_) if self.is_paused() || self.page_asks.is_waiting() => None,
            Phase::Manifest(fetch) => match self.spares_manifest_until() {
                None => fetch.poll_timeout(links_with_chunks(&self.links)),
                until => until,
            },
            Phase::Transfer(transfer) => transfer.commit_due(&self.config),
            _ => None,
        };
        let planner = match &self.phase {
            Phase::Transfer(transfer) => Some(&transfer.planner),
            _ => self.early.as_ref().map(|early| &early.planner),
        };
        let requests = planner.and_then(Planner::poll_timeout);
        if self.is_paused() {
            return [upload, greeting, phase, requests]
                .into_iter()
                .flatten()
                .min();
        }
        let supply = self.supply();
        let wants_links = supply.wants_links();
        let dial = wants_links.then(|| self.book.poll_timeout());
        let starves = supply.starves_at();
        let first = [
            self.patience_ends(),
            supply.stalls_at().filter(|_| self.effort == Effort::Going),
            upload,
            dial.flatten(),
            supply.lapsed_due().filter(|_| wants_links),
            starves.filter(|_| wants_links && self.book.has_claimed()),
            supply.place_wanted_at(),
            supply.census_due(),
            greeting,
            phase,
            requests,
        ];
        let first = first.into_iter().flatten().min();
        // Whether owners are wanted takes a look at all links, so it is looked up only
        // where it matters.
        let is_first = |search: &Instant| first.is_none_or(|first| *search < first);
        let search = self.owner_search.next();
        search
            .filter(|search| is_first(search) && supply.wants_owners())
            .or(first)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_silent_newcomers(now);
        if let Phase::Manifest(fetch) = &mut self.phase
            && !self.page_asks.is_waiting()
        {
            for link in fetch.handle_timeout(now) {
                self.drop_link(now, link, DropReason::Silent);
            }
        }
        if let Some(planner) = self.planner() {
            let (silent, released) = planner.handle_timeout(now);
            let snubs = |link: &LinkId| planner.snubs(*link);
            let lost = silent.iter().filter(|link| snubs(link) >= MAX_SNUBS);
            let lost: Vec<LinkId> = lost.copied().collect();
            for &link in &silent {
                self.ask_queue.wake(link);
            }
            self.released(released);
            for link in lost {
                self.drop_link(now, link, DropReason::Silent);
            }
        }
        if self.patience_ends().is_some_and(|end| end <= now) {
            // The driver ends the download. This is said once, until something arrives.
            self.effort = Effort::GaveUp;
            let reason = self.supply().stall_reason(now);
            self.outbox.push(Output::GaveUp(reason));
        }
        let stalls = self.supply().stalls_at().is_some_and(|at| at <= now);
        if stalls && self.effort == Effort::Going {
            self.stalled(now);
        }
        self.settle(now);
    }

    /// Nothing arrives: says so, and why.
    fn stalled(&mut self, now: Instant) {
        let reason = self.supply().stall_reason(now);
        if self.effort != Effort::Stalled(reason) {
            self.effort = Effort::Stalled(reason);
            self.outbox.push(Output::Stalled(reason));
        }
    }

    /// Something has answered after a time in which nothing did: a tracker, or a peer
    /// about another content. If nothing arrives here, everybody is tried again at once.
    pub fn reachable_again(&mut self, now: Instant) {
        let tried = self.last_retry.and_then(|at| at.checked_add(RETRY_PAUSE));
        if self.is_seeding()
            || self.is_paused()
            || !self.supply().is_starving(now)
            || tried.is_some_and(|next| next > now)
        {
            return;
        }
        self.last_retry = Some(now);
        self.book.retry(now);
        self.owner_search.restart(now);
        self.settle(now);
    }

    /// When to give up, if nothing arrives before. Not if that was said already, and not
    /// when the download ends anyway.
    fn patience_ends(&self) -> Option<Instant> {
        let ends = self.supply().patience_ends();
        ends.filter(|_| matches!(self.effort, Effort::Going | Effort::Stalled(_)))
    }

    /// Something arrived that brings the download on.
    fn gained(&mut self, now: Instant) {
        self.last_gain = now;
        match self.effort {
            Effort::Stalled(_) => {
                self.effort = Effort::Going;
                self.outbox.push(Output::Resumed);
            }
            Effort::GaveUp => self.effort = Effort::Going,
            Effort::Going | Effort::Paused(_) | Effort::Stopping => {}
        }
    }

    /// Does what the last input made possible.
    fn settle(&mut self, now: Instant) {
        if self.effort == Effort::Stopping {
            self.write();
            return self.commit_or_publish(now);
        }
        if let Effort::Paused(serving) = self.effort {
            return self.settle_paused(now, serving);
        }
        if let Effort::Stalled(_) = self.effort
            && !self.is_seeding()
        {
            // The reason may be another one by now.
            self.stalled(now);
        }
        self.take_census(now);
        self.serve_line(now);
        self.dial(now);
        self.search_owners(now);
        // The pages come first, as nothing can be verified without them; but a content
        // with a single chunk needs none.
        if self.is_short() {
            self.ask(now);
        }
        self.fetch_manifest(now);
        self.ask(now);
        self.write();
        self.commit_or_publish(now);
        self.upload(now);
        self.recheck();
        self.settle_limits(now);
    }

    /// The same while nobody is asked for anything.
    fn settle_paused(&mut self, now: Instant, serving: Serving) {
        self.take_census(now);
        self.decline_all();
        self.write();
        self.commit_or_publish(now);
        self.upload(now);
        if serving == Serving::Goes {
            self.recheck();
        }
    }

    fn take_census(&mut self, now: Instant) {
        let mut census = std::mem::take(&mut self.census);
        let blank = census.count(self.places(now));
        self.census = census;
        for id in blank {
            let since = self.links.get(id).map_or(now, |link| link.since);
            match now.saturating_duration_since(since) < COMES_LAST {
                true => self.uploader.mark_never_told(id),
                // It has nobody else to ask, or others would have served it meanwhile.
                false => self.uploader.try_again(id),
            }
        }
    }

    /// Dials as many owners as are wanted.
    fn dial(&mut self, now: Instant) {
        while self.supply().wants_links() || self.supply().wants_place(now) {
            // The manifest comes first, and leechers that have just joined have none.
            let seeder_first = self.book.dialling() == 0 && !self.supply().is_supplied();
            let starving = self.book.has_last_resort() && self.supply().is_starving(now);
            let Some(addr) = self.book.dial(now, seeder_first, starving) else {
                break;
            };
            let leads_there =
                |link: &Link| link.is_proven && link.info.addr.as_ref() == Some(&addr);
            let mut links = self.links.values().chain(self.standby.values());
            if links.any(leads_there) {
                // The address had been forgotten, and was named again since.
                self.book.is_linked(&addr);
                continue;
            }
            self.outbox.push(Output::Dial { addr });
        }
    }

    fn search_owners(&mut self, now: Instant) {
        let due = self.owner_search.next().is_some_and(|next| next <= now);
        if due && self.supply().wants_owners() {
            self.owner_search.began();
            self.outbox.push(Output::FindOwners);
        }
    }

    /// Whether the content should have a single chunk.
    fn is_short(&self) -> bool {
        let chunks = |early: &Early| early.geometry().chunks();
        self.early
            .as_deref()
            .is_some_and(|early| chunks(early) == 1)
    }

    /// Until when the manifest need not be asked for.
    fn spares_manifest_until(&self) -> Option<Instant> {
        self.early.as_ref()?.spares_manifest_until()
    }

    /// Asks for the pages of the manifest that are due.
    fn fetch_manifest(&mut self, now: Instant) {
        match self.spares_manifest_until() {
            Some(until) if until > now => return,
            Some(_) => self.early.iter_mut().for_each(|early| early.doubt()),
            None => {}
        }
        self.ask_waiting_pages(now);
        if self.page_asks.is_waiting() {
            // As long as the limits hold these up, more would wait behind them.
            return;
        }
        let Phase::Manifest(fetch) = &mut self.phase else {
            return;
        };
        fetch.set_frugal(self.gate.is_some());
        let mut requests = Vec::new();
        if let Some((link, pages)) = fetch.promote(now) {
            requests.extend(pages.map(|page| (link, page)));
        }
        while let Some((link, pages)) = fetch.start(now, links_with_chunks(&self.links)) {
            requests.extend(pages.map(|page| (link, page)));
        }
        self.ask_pages(now, requests);
    }

    fn ask_pages(&mut self, now: Instant, pages: impl IntoIterator<Item = (LinkId, u32)>) {
        for (link, page) in pages {
            match self.gate {
                None => self.send(link, PeerMessage::ManifestRequest { page }),
                Some(_) => self.page_asks.push(link, page),
            }
        }
        self.ask_waiting_pages(now);
    }

    /// Asks for the pages that the limits let pass now.
    fn ask_waiting_pages(&mut self, now: Instant) {
        for (link, page) in self.page_asks.take_waiting() {
            let (Phase::Manifest(fetch), Some(state)) = (&mut self.phase, self.links.get(link))
            else {
                continue;
            };
            if let Some(gate) = &mut self.gate {
                let (host, bytes) = (&state.info.host, fetch.page_bytes(link, page));
                if !gate.admits(host, bytes) {
                    self.page_asks.push(link, page);
                    continue;
                }
                gate.spend(host, bytes);
                self.page_asks.counted(link, page, bytes);
            }
            fetch.page_passed(now, link);
            self.send(link, PeerMessage::ManifestRequest { page });
        }
    }

    /// Sends the requests that are due.
    fn ask(&mut self, now: Instant) {
        let owners = self.owners_alone();
        let planner = match &mut self.phase {
            Phase::Transfer(transfer) => Some(&mut transfer.planner),
            _ => {
                let early = self.early.as_mut().filter(|early| early.is_asking());
                early.map(|early| &mut early.planner)
            }
        };
        let Some(planner) = planner else {
            return self.ask_queue.clear();
        };
        planner.set_owners_alone(owners);
        let gate = self.gate.as_deref_mut();
        let messages = self.ask_queue.run(now, planner, &mut self.links, gate);
        for (link, message) in messages {
            self.send(link, message);
        }
    }

    /// How many owners there are or will be, if this peer is the only leecher as far as it
    /// knows. Others would have the owners make their links take turns.
    fn owners_alone(&self) -> Option<usize> {
        let may_lack = |link: &Link| link.remote != RemoteChunks::All && !link.is_presumed();
        let is_leecher = |link: &Link| may_lack(link) && (link.is_met() || !link.info.dialled);
        let others = self.book.has_incomplete()
            || self.standby.len() > 0
            || self.links.values().any(is_leecher);
        (!others).then(|| self.links.len() + self.book.dialling())
    }

    /// Writes what is verified, as far as a kill of the process may cost.
    fn write(&mut self) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            while let Some((chunk, pieces)) = transfer.next_write(&self.config) {
                self.outbox.push(Output::Store { chunk, pieces });
            }
        }
    }

    fn commit_or_publish(&mut self, now: Instant) {
        let outlook = match self.effort {
            Effort::Stopping => Outlook::Ends,
            Effort::Paused(_) => Outlook::Rests,
            Effort::Going | Effort::Stalled(_) | Effort::GaveUp => Outlook::GoesOn,
        };
        self.trust_leftover(now, outlook == Outlook::Ends);
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        match transfer.next_storage_step(now, &self.config, outlook) {
            Some(StorageStep::Publish) => self.outbox.push(Output::Finish),
            Some(StorageStep::Commit(verified)) => self.outbox.push(Output::Commit { verified }),
            None => {}
        }
    }

    /// Counts what an earlier download left behind as stored, if nobody has changed it
    /// and nothing else is missing.
    fn trust_leftover(&mut self, now: Instant, stopping: bool) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if stopping {
            return;
        }
        for chunk in transfer.trust_leftover().iter().flat_map(Bitfield::iter) {
            self.offer(now, chunk);
        }
    }

    /// Sends what the send window has room for, and passes the turns on.
    fn upload(&mut self, now: Instant) {
        while let Some(link) = self.uploader.in_the_way(now) {
            self.drop_link(now, link, DropReason::Silent);
        }
        loop {
            while let Some((link, block)) = self.uploader.next_block(now) {
                if block.offset == 0 && self.is_seeding() {
                    self.super_seeding.sent(link, block.chunk);
                }
                self.outbox.push(Output::Read { link, block });
            }
            match self.uploader.next_turn(now) {
                Some(Turn::Choke { link, rejected }) => {
                    self.super_seeding.returned(link);
                    self.send(link, PeerMessage::Choke);
                    for block in rejected {
                        self.send(link, PeerMessage::Reject(block));
                    }
                }
                Some(Turn::Unchoke { link }) => {
                    self.suggest(link);
                    self.send(link, PeerMessage::Unchoke);
                }
                None => return,
            }
        }
    }

    /// Gives back what nobody uses of what the limits allowed, and notes whether they hold
    /// this side up.
    fn settle_limits(&mut self, now: Instant) {
        if let Some(gate) = &mut self.gate {
            gate.reclaim(now);
        }
        self.uploader.reclaim(now);
        match (self.is_held(), self.held_since) {
            (true, None) => self.held_since = Some(now),
            (false, Some(since)) => {
                // That time does not count.
                let held = now.saturating_duration_since(since);
                self.last_gain = now.min(self.last_gain.checked_add(held).unwrap_or(now));
                self.held_since = None;
            }
            _ => {}
        }
    }

    /// Whether something more would be asked for if the limits allowed it.
    fn is_held(&self) -> bool {
        let is_full = matches!(&self.phase, Phase::Transfer(transfer) if transfer.is_full());
        self.ask_queue.is_held() || self.page_asks.is_waiting() || is_full
    }

    /// Reads what an earlier download left behind, a little at a time.
    fn recheck(&mut self) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            for chunk in transfer.next_rechecks() {
                self.outbox.push(Output::Recheck { chunk });
            }
        }
    }
}

/// Limits. Without them nothing here is called.
impl Swarm {
    /// Whether bytes that go this way are limited from now on: the payload of blocks, and
    /// the pages of the manifest. Then they pass only as far as
    /// [`allow`](Self::allow) says. What was asked for before is not held up.
    pub fn set_limited(&mut self, now: Instant, direction: Direction, limited: bool) {
        match direction {
            Direction::Upload => self.uploader.set_limited(limited),
            Direction::Download => {
                if !limited {
                    self.gate = None;
                } else if self.gate.is_none() {
                    self.gate = Some(Box::new(Gate::new(direction)));
                }
            }
        }
        self.resume_all(now);
        self.settle(now);
    }

    /// What this side would send, or ask for, if it were allowed. For each host one wish at
    /// a time, until it is [allowed](Self::allow).
    pub fn poll_wish(&mut self) -> Option<Allowance> {
        let download = self.gate.as_mut().and_then(|gate| gate.poll_wish());
        download.or_else(|| self.uploader.gate_mut()?.poll_wish())
    }

    /// What was allowed and is not used: nobody wants it any more, or the request that it
    /// was used for was rejected.
    pub fn poll_returned(&mut self) -> Option<Allowance> {
        let download = self.gate.as_mut().and_then(|gate| gate.poll_returned());
        download.or_else(|| self.uploader.gate_mut()?.poll_returned())
    }

    /// A [wish](Self::poll_wish) comes true. It is used at once, or soon returned.
    pub fn allow(&mut self, now: Instant, allowance: &Allowance) {
        let host = &allowance.host;
        match allowance.direction {
            Direction::Upload => {
                self.uploader.allow(now, allowance);
                let links = self
                    .links
                    .iter()
                    .filter(|(_, link)| link.info.host == *host);
                let links: Vec<LinkId> = links.map(|(id, _)| id).collect();
                for link in links {
                    self.send_pages(link);
                }
            }
            Direction::Download => {
                if let Some(gate) = &mut self.gate {
                    gate.allow(now, allowance);
                }
                self.ask_waiting_pages(now);
                while self.may_ask(host) && self.ask_queue.wake_held(Some(host), &self.links) {
                    self.ask(now);
                }
            }
        }
        self.settle(now);
    }

    /// Whether one more block of a host may be asked for.
    fn may_ask(&mut self, host: &HostKey) -> bool {
        let block_len = self.planner().map(|planner| planner.block_len());
        let covers = |len| self.gate.as_ref().is_none_or(|gate| gate.covers(host, len));
        block_len.is_some_and(covers)
    }

    /// Everything that the limits held up is tried again.
    fn resume_all(&mut self, now: Instant) {
        while self.ask_queue.wake_held(None, &self.links) {}
        self.ask_waiting_pages(now);
        let links: Vec<LinkId> = self.links.keys().collect();
        for link in links {
            self.send_pages(link);
        }
    }

    /// What was asked of a link will not come.
    fn give_allowance_back(&mut self, link: LinkId, bytes: u64) {
        if let (Some(gate), Some(state)) = (&mut self.gate, self.links.get(link)) {
            gate.give_back(&state.info.host, bytes);
        }
    }
}

/// Pausing.
impl Swarm {
    /// Asks nobody for anything until [`resume`](Self::resume), and dials nobody. What
    /// others were asked for is given back, what has arrived is stored and committed, and
    /// patience does not count. `serve` says whether others go on getting what is here;
    /// without that, all links are closed, and none is accepted. No effect on a content
    /// that is complete, or for which nothing is missing any more: that is published. May
    /// be called again with another `serve`.
    pub fn pause(&mut self, now: Instant, serve: bool) {
        if self.effort == Effort::Stopping || !self.may_pause() {
            return;
        }
        let serving = match serve {
            true => Serving::Goes,
            false => Serving::Rests,
        };
        let before = std::mem::replace(&mut self.effort, Effort::Paused(serving));
        if !matches!(before, Effort::Paused(_)) {
            self.give_back();
        }
        self.hang_up(now, serving);
        match (before, serving) {
            (Effort::Paused(Serving::Rests), Serving::Goes) => {
                self.announce(OwnState::Partial);
            }
            (Effort::Paused(Serving::Rests), _) | (_, Serving::Goes) => {}
            (_, Serving::Rests) => self.announce(OwnState::Gone),
        }
        self.settle(now);
    }

    /// Goes on after [`pause`](Self::pause): everybody is tried again at once. No effect on
    /// a download that is not paused.
    pub fn resume(&mut self, now: Instant) {
        let Effort::Paused(serving) = self.effort else {
            return;
        };
        self.effort = Effort::Going;
        self.last_gain = now;
        self.turn_moved = now;
        if serving == Serving::Rests {
            self.announce(OwnState::Partial);
        }
        self.book.retry(now);
        self.owner_search.restart(now);
        self.wake_all();
        self.settle(now);
    }

    /// Whether nobody is asked for anything.
    pub fn is_paused(&self) -> bool {
        matches!(self.effort, Effort::Paused(_))
    }

    /// Gives up after this long without anything; never with `None`. It counts from when
    /// something last arrived.
    pub fn set_patience(&mut self, now: Instant, patience: Option<Duration>) {
        self.config.patience = patience;
        self.settle(now);
    }

    fn may_pause(&self) -> bool {
        match &self.phase {
            Phase::Transfer(transfer) => !transfer.is_publishing(),
            Phase::Manifest(_) | Phase::Opening(_) => true,
            Phase::Seeding(_) => false,
        }
    }

    /// Takes back what others were asked for. Nobody is blamed.
    fn give_back(&mut self) {
        if let Phase::Manifest(fetch) = &mut self.phase {
            fetch.pause();
        }
        if let Some(planner) = self.planner() {
            let released = planner.give_back();
            self.released(released);
        }
        // They are looked at when the download goes on.
        self.wake_all();
    }

    fn wake_all(&mut self) {
        for link in self.links.keys() {
            self.ask_queue.wake(link);
        }
    }

    /// Closes the links that are of no use while the download is paused: this side would
    /// take a place from others.
    fn hang_up(&mut self, now: Instant, serving: Serving) {
        self.leave_lines(now);
        let serves = |link: &Link| link.remote != RemoteChunks::All && !link.is_presumed();
        let stays = |link: &Link| serving == Serving::Goes && serves(link);
        let leaving = self.links.iter().filter(|(_, link)| !stays(link));
        let leaving: Vec<(LinkId, bool)> = leaving.map(|(id, link)| (id, serves(link))).collect();
        for (id, serves) in leaving {
            let reason = DropReason::Refused(match serves {
                // It may come back.
                true => RefuseReason::Busy,
                false => RefuseReason::NotNeeded,
            });
            self.owner_left(id, reason.into());
            self.outbox.push(Output::Drop { link: id, reason });
            // What it owes was given back, so its host is not blamed.
            if let Some(link) = self.links.remove(id) {
                self.detach(now, id);
                self.unlink_address(now, &link);
            }
        }
    }

    /// Says that this side wants nothing, to those that owe no answer any more.
    fn decline_all(&mut self) {
        let interested = self.links.iter().filter(|(_, link)| link.is_interested());
        let interested: Vec<LinkId> = interested.map(|(id, _)| id).collect();
        for id in interested {
            let owes = self.planner().is_some_and(|planner| planner.owes(id));
            if let Some(link) = self.links.get_mut(id)
                && link.is_met()
                && !owes
            {
                link.interest = Interest::NotInterested;
                self.send(id, PeerMessage::NotInterested);
            }
        }
    }
}

/// Links come up and go down.
impl Swarm {
    /// A link is up: the handshake is done, or this side dialled and has said Hello. In
    /// that case [`link_met`](Self::link_met) tells later who answered. The machine may
    /// drop the link at once, if it is banned, or if there is no place for it; or have it
    /// wait for a place.
    pub fn link_up(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        match self.welcome(now, &info) {
            Welcome::Place => {}
            Welcome::Wait => return self.wait(now, id, info),
            Welcome::Refused(reason) => {
                let reason = DropReason::Refused(reason);
                self.outbox.push(Output::Drop { link: id, reason });
                if let Some(addr) = info.addr.filter(|_| info.dialled) {
                    self.book.dial_failed(now, &addr);
                    self.settle(now);
                }
                return;
            }
        }
        let complete = info.addr.as_ref().filter(|_| info.dialled);
        let complete = complete.is_some_and(|addr| self.book.is_complete(addr));
        let mut link = Link::new(now, id, info, self.outbox.offered());
        link.presumed_complete = complete && self.phase.is_beginning();
        self.attach(now, id, link);
        self.greet(id);
        self.use_early(id);
        self.settle(now);
    }

    /// A link has a place from now on.
    fn attach(&mut self, now: Instant, id: LinkId, mut link: Link) {
        self.book.linked(&link.info);
        let host = link.info.host.clone();
        let is_suspect = self.book.is_suspect(now, &host);
        if let Some(planner) = self.planner() {
            planner.link_added(id);
            if is_suspect {
                planner.suspect(id);
            }
        }
        self.newcomers.link_up(now, id, &self.links);
        link.since = now;
        link.lot = self.places(now).lot(&host);
        link.known_blank = self.book.is_known_blank(now, &host);
        self.uploader.link_added(now, id, &host);
        if link.known_blank {
            self.uploader.mark_never_told(id);
        }
        self.links.insert(id, link);
        self.count_lacks(id);
        self.owner_joined(id);
    }

    /// Says what this side has.
    fn greet(&mut self, id: LinkId) {
        self.send(id, self.greeting());
        self.send_proofs(id);
    }

    /// The other side of a link that this side dialled has said who it is. Call it before
    /// any message of that link. If it refuses instead, that is a message; if it does not
    /// answer, the link is [down](Self::link_down).
    pub fn link_met(
        &mut self,
        now: Instant,
        id: LinkId,
        peer: PeerId,
        cookies: Option<LinkCookies>,
    ) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.met(peer, cookies);
        if let Effort::Stalled(_) = self.effort {
            self.reachable_again(now);
        }
        self.newcomers.link_met(now, id, &self.links);
        let info = self.links.get(id).map(|link| link.info.clone());
        if let Some(info) = info.filter(|info| info.peer == Some(self.me)) {
            self.book.ban(&info.host, info.addr.as_ref());
            let reason = DropReason::Refused(RefuseReason::SelfConnection);
            self.drop_link(now, id, reason);
        } else {
            self.send_proofs(id);
        }
        self.settle(now);
    }

    /// Proves to other links of the same name that this is the same peer.
    fn send_proofs(&mut self, id: LinkId) {
        for proof in same_peer::proofs(&self.links, id) {
            self.send(id, PeerMessage::SamePeer(proof));
        }
    }

    /// The first message of this side.
    fn greeting(&self) -> PeerMessage {
        match &self.phase {
            _ if self.passage.is_some() => PeerMessage::HaveNone,
            Phase::Transfer(transfer) if !transfer.stored().is_empty() => {
                PeerMessage::Bitfield(transfer.stored().to_bytes())
            }
            Phase::Seeding(_) => PeerMessage::HaveAll,
            _ => PeerMessage::HaveNone,
        }
    }

    /// What becomes of a new link. When half of the places are taken, a link may not be
    /// worth one: earlier links of its host were useless, or its host has its share. Links
    /// that turned out to be useless give way at the same time.
    fn welcome(&mut self, now: Instant, info: &LinkInfo) -> Welcome {
        if info.peer == Some(self.me) {
            if info.dialled {
                self.book.ban(&info.host, info.addr.as_ref());
            }
            return Welcome::Refused(RefuseReason::SelfConnection);
        }
        if self.book.is_banned(info) {
            return Welcome::Refused(RefuseReason::Banned);
        }
        if let Effort::Paused(serving) = self.effort
            && (info.dialled || serving == Serving::Rests)
        {
            return Welcome::Refused(RefuseReason::Busy);
        }
        let is_half_full = self.is_half_full();
        if is_half_full {
            if !info.dialled && self.book.is_suspect(now, &info.host) {
                return Welcome::Refused(RefuseReason::Busy);
            }
            for link in self.places(now).useless() {
                self.drop_link(now, link, DropReason::Silent);
            }
        }
        let has_its_share =
            is_half_full && !info.dialled && self.places(now).has_its_share(&info.host);
        if self.keeps_a_line() && !info.dialled {
            if has_its_share || !self.has_place_for(now, info) {
                return self.welcome_to_line(now, info);
            }
            return Welcome::Place;
        }
        match !has_its_share && self.make_room(now, info) {
            true => Welcome::Place,
            false => Welcome::Refused(RefuseReason::Busy),
        }
    }

    /// Whether there is a place for a newcomer that could wait as well. Those who come
    /// together draw lots for the places.
    fn has_place_for(&mut self, now: Instant, newcomer: &LinkInfo) -> bool {
        if self.links.len() < self.config.max_links {
            return true;
        }
        let Some(loser) = self.places(now).loser(newcomer) else {
            return false;
        };
        self.drop_link(now, loser, DropReason::Refused(RefuseReason::Busy));
        true
    }

    fn is_half_full(&self) -> bool {
        self.links.len() >= self.config.max_links / 2
    }

    /// Makes a place for a link, if all are taken. The least useful link gives way, if it
    /// is less useful than a newcomer. Returns whether there is a place.
    fn make_room(&mut self, now: Instant, newcomer: &LinkInfo) -> bool {
        if self.links.len() < self.config.max_links {
            return true;
        }
        let starving = self.supply().is_starving(now);
        let Some(least) = self.places(now).least_useful(newcomer, starving) else {
            return false;
        };
        self.drop_link(now, least, DropReason::Refused(RefuseReason::Busy));
        true
    }

    /// Keeps some places for newcomers until they have said what they have. Those who wait
    /// need none: they say it meanwhile.
    fn keep_places_free(&mut self, now: Instant) {
        if self.keeps_a_line() {
            return;
        }
        while let Some(link) = self.places(now).surplus_blank() {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::Busy));
        }
    }

    /// Ends links that did not say in time what they have.
    fn end_silent_newcomers(&mut self, now: Instant) {
        while let Some(link) = self.newcomers.next_late(now, &self.links) {
            self.violated(now, link, "no Bitfield in time");
        }
    }

    /// The other side proves that another link is with the same peer.
    fn same_peer(&mut self, now: Instant, id: LinkId, proof: LinkProof) {
        match same_peer::received(&mut self.links, id, proof) {
            SamePeer::TooMany => self.violated(now, id, "too many proofs"),
            SamePeer::Unknown => {}
            SamePeer::Drop(link) => {
                self.drop_link(now, link, DropReason::Refused(RefuseReason::Duplicate));
            }
        }
    }

    /// A link went down. Unknown links are ignored, so a link that the machine dropped
    /// may be reported as well.
    pub fn link_down(&mut self, now: Instant, link: LinkId) {
        self.left(now, link);
        self.owner_left(link, LeaveReason::Ended);
        self.remove_link(now, link);
        self.settle(now);
    }

    /// The other side ends a link. A host whose link came and went without any use may do
    /// so again and again, so it is suspected.
    fn left(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get(id) else {
            return;
        };
        let is_new = now.saturating_duration_since(link.since) < GRACE;
        if is_new && !link.info.dialled && link.received == 0 && self.uploader.sent_to(id) == 0 {
            self.book.suspect(now, &link.info.host);
        }
    }

    fn remove_link(&mut self, now: Instant, id: LinkId) {
        self.give_all_back(id);
        if let Some(link) = self.links.remove(id) {
            if link.is_met() {
                self.blame_host(now, id, &link);
            }
            self.detach(now, id);
            self.unlink_address(now, &link);
        } else if let Some(link) = self.standby.remove(id) {
            self.turn_moved = now;
            self.unlink_address(now, &link);
        } else {
            self.line.remove(id);
            return;
        }
        if !self.is_seeding() && !self.supply().is_supplied() {
            self.owner_search.hurry(now, &self.config);
        }
    }

    /// The limits of the download get back what was asked of a link that is gone.
    fn give_all_back(&mut self, id: LinkId) {
        if self.gate.is_none() {
            return;
        }
        let asks = self.planner().map(|planner| planner.unanswered_asks(id));
        let asked = asks.into_iter().flatten();
        let asked: u64 = asked.map(|(block, _)| u64::from(block.len)).sum();
        let pages = self.page_asks.link_removed(id);
        self.give_allowance_back(id, asked + pages);
    }

    /// A link has a place no more: nothing is asked of it or sent to it.
    fn detach(&mut self, now: Instant, id: LinkId) {
        self.ask_queue.link_removed(id);
        self.uploader.link_removed(now, id);
        self.super_seeding.returned(id);
        if let Phase::Manifest(fetch) = &mut self.phase {
            fetch.passed(id, true);
        }
        if let Some(planner) = self.planner() {
            let released = planner.link_removed(id);
            self.released(released);
        }
    }

    /// A link that is gone and was useless is held against its host; but not if another
    /// link from there was useful.
    fn blame_host(&mut self, now: Instant, id: LinkId, link: &Link) {
        let planner = self.phase.planner();
        let owes = planner.is_some_and(|planner| planner.owes(id));
        let host = &link.info.host;
        let alone = self.links.iter().all(|(other, state)| {
            state.info.host != *host || state.received == 0 && !self.uploader.has_told(other)
        });
        let places = self.places(now);
        let blank = places.is_blank(id, link) && places.is_old(link);
        if alone && blank {
            self.book.never_had_anything(now, host);
        }
        if alone && link.received == 0 && (owes || self.uploader.is_mute(now, id)) {
            self.book.suspect(now, host);
        }
    }

    /// The address of a link that is gone may be dialled again, unless another link has
    /// it. What another link merely claims does not count beside a proven address, and
    /// losing a claim does not matter while a link with that address is up.
    fn unlink_address(&mut self, now: Instant, link: &Link) {
        let Some(addr) = &link.info.addr else {
            return;
        };
        let has_it = |other: &Link| {
            let counts = other.is_proven || !link.is_proven;
            counts && other.info.addr.as_ref() == Some(addr)
        };
        if !self.links.values().chain(self.standby.values()).any(has_it) {
            self.book.unlinked(now, addr);
        }
    }

    /// A link may have something of the content: those who watch are told, once.
    fn owner_joined(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id) {
            self.outbox.owner_joined(link);
        }
    }

    /// The same when it is about to be forgotten.
    fn owner_left(&mut self, id: LinkId, why: LeaveReason) {
        let owner = self.links.get(id).filter(|link| link.is_owner);
        if let Some(owner) = owner.and_then(Link::remote_peer) {
            let left = SwarmEvent::OwnerLeft { owner, why };
            self.outbox.push(Output::Event(left));
        }
    }

    fn drop_link(&mut self, now: Instant, link: LinkId, reason: DropReason) {
        if self.links.contains(link) || self.line.contains(link) || self.standby.contains(link) {
            self.owner_left(link, reason.into());
            self.outbox.push(Output::Drop { link, reason });
            self.remove_link(now, link);
        }
    }

    fn violated(&mut self, now: Instant, link: LinkId, what: &'static str) {
        self.drop_link(now, link, DropReason::Violation(what));
    }

    /// Drops the link of a liar, if it is still up, and refuses further ones by what is
    /// proven: the address, if this side dialled it, or else the host that the link came
    /// from. Never by the name or the address that the other side said, which could be
    /// an honest peer's.
    fn ban(&mut self, now: Instant, liar: &Contributor, why: BanReason) {
        if let Some(peer) = liar.remote_peer() {
            let banned = BannedPeer { peer, why };
            if self.counters.banned(&banned) {
                let event = SwarmEvent::Banned(banned);
                self.outbox.push(Output::Event(event));
            }
        }
        let dialled = liar.addr.as_ref().filter(|_| liar.dialled);
        self.liars = self.liars.saturating_add(1);
        self.book.ban(&liar.host, dialled);
        if let Some(addr) = liar.addr.as_ref().filter(|_| !liar.dialled) {
            self.book.disproved(addr);
        }
        self.drop_link(now, liar.link, DropReason::Refused(RefuseReason::Banned));
    }

    /// The tracker, or the user, named owners: their addresses, and whether each of them
    /// is complete. An empty list says that there are none, or that nobody answered.
    pub fn owners_found(&mut self, now: Instant, owners: impl IntoIterator<Item = (Addr, bool)>) {
        let mut named = false;
        for (addr, complete) in owners {
            self.book.named(now, addr, complete);
            named = true;
        }
        let is_supplied = self.supply().is_supplied();
        self.owner_search.ended(now, is_supplied, &self.config);
        if named && let Effort::Stalled(_) = self.effort {
            self.book.retry(now);
        }
        self.settle(now);
    }

    /// A dial failed, or its handshake did.
    pub fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        self.book.dial_failed(now, addr);
        self.settle(now);
    }
}

/// Links that wait for a place, here or at the other side.
impl Swarm {
    /// Whether links wait here for a place. Only a seeder has them wait: who is refused by
    /// a leecher has others to ask, as the leecher itself has.
    fn keeps_a_line(&self) -> bool {
        self.is_seeding() && self.config.max_waiting > 0
    }

    /// Whether there is room in the line. If it is full, a link of the host that has most
    /// of it gives way.
    fn welcome_to_line(&mut self, now: Instant, info: &LinkInfo) -> Welcome {
        if self.line.len() >= self.config.max_waiting {
            let Some(surplus) = self.line.surplus(&info.host) else {
                return Welcome::Refused(RefuseReason::Busy);
            };
            self.drop_link(now, surplus, DropReason::Refused(RefuseReason::Busy));
        }
        Welcome::Wait
    }

    fn wait(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        let link = Link::new(now, id, info, self.outbox.offered());
        let position = self.line.join(now, id, link);
        self.tell_position(id, position);
        self.settle(now);
    }

    fn tell_position(&mut self, id: LinkId, position: u32) {
        if let Some(waiting) = self.line.get_mut(id) {
            let message = PeerMessage::Queued { position };
            self.outbox.send(id, &mut waiting.link, message);
        }
    }

    /// Gives free places to those who wait, and from time to time the place of a link that
    /// gives way to them: of one at a time, since a link that comes needs a round trip
    /// until it asks.
    fn serve_line(&mut self, now: Instant) {
        if self.line.is_empty() {
            return;
        }
        let looks = self.line.look(now);
        if looks {
            for id in self.line.late(now) {
                self.violated(now, id, "no Bitfield in time");
            }
            if let Some((least, next)) = self.exchange(now) {
                self.drop_link(now, least, DropReason::Refused(RefuseReason::Busy));
                self.end_wait(now, next);
            }
        }
        while let Some(next) = self.next_in_line(now) {
            self.end_wait(now, next);
        }
        if looks {
            for (id, position) in self.line.news(now) {
                self.tell_position(id, position);
            }
        }
    }

    /// The link that gives way to those who wait, if one does, and the one that gets its
    /// place.
    fn exchange(&self, now: Instant) -> Option<(LinkId, LinkId)> {
        let hosts = self.places(now).hosts();
        let most = hosts.values().max().copied()?;
        let (least, is_surplus) = self.places(now).gives_way(&hosts)?;
        let share = self.places(now).share(hosts.len());
        let next = self.line.first(|host| {
            let count = hosts.get(host).copied().unwrap_or(0);
            count < share && (!is_surplus || count + 2 <= most)
        });
        Some((least, next?))
    }

    /// The link that gets the next free place, if there is one.
    fn next_in_line(&self, now: Instant) -> Option<LinkId> {
        if self.links.len() >= self.config.max_links {
            return None;
        }
        let (places, is_half_full) = (self.places(now), self.is_half_full());
        let may = |host: &HostKey| !is_half_full || !places.has_its_share(host);
        self.line.first(may)
    }

    /// A link has waited long enough: it gets a place.
    fn end_wait(&mut self, now: Instant, id: LinkId) {
        let Some(waiting) = self.line.take(id) else {
            return;
        };
        let rejections = waiting.rejections();
        let mut link = waiting.link;
        link.has_waited = true;
        link.told = self.outbox.offered();
        self.attach(now, id, link);
        if waiting.declined {
            self.uploader.link_declined(id, true);
        }
        for rejection in rejections {
            self.send(id, rejection);
        }
        self.greet(id);
    }

    /// The other side has no place for a new link, and tells the position in its line.
    fn queued(&mut self, now: Instant, id: LinkId, position: u32) {
        let is_new = |link: &Link| link.info.dialled && link.remote == RemoteChunks::Unknown;
        if !self.links.get(id).is_some_and(is_new) {
            return self.violated(now, id, "a link has to wait that was accepted");
        }
        if self.is_seeding() {
            return self.drop_link(now, id, DropReason::Refused(RefuseReason::NotNeeded));
        }
        let asks = self.planner().map(|planner| planner.unanswered_asks(id));
        self.give_all_back(id);
        let Some(mut link) = self.links.remove(id) else {
            return;
        };
        link.presumed_complete = false;
        // What it was asked early is free for others at once. It still answers.
        self.detach(now, id);
        let asks = asks.unwrap_or_default();
        self.standby.insert(id, link, position, asks);
        self.turn_moved = now;
        if self.standby.len() > self.config.sources
            && let Some(worst) = self.standby.worst()
        {
            let reason = DropReason::Refused(RefuseReason::NotNeeded);
            self.drop_link(now, worst, reason);
        }
    }

    /// A message arrived on a link that has no place, here or at the other side.
    fn heard_while_waiting(&mut self, now: Instant, id: LinkId, message: PeerMessage) {
        if self.standby.contains(id) {
            return self.heard_on_standby(now, id, message);
        }
        let chunks = self.manifest().map(|m| m.geometry().chunks());
        let (Some(waiting), Some(chunks)) = (self.line.get_mut(id), chunks) else {
            return;
        };
        let reason = match waiting.hears(message, chunks) {
            WhileWaiting::Nothing => return,
            WhileWaiting::Left(reason) => DropReason::Left(reason),
            WhileWaiting::NotNeeded => DropReason::Refused(RefuseReason::NotNeeded),
            WhileWaiting::Violation(what) => DropReason::Violation(what),
        };
        self.drop_link(now, id, reason);
    }

    /// The same on a link on which this side waits.
    fn heard_on_standby(&mut self, now: Instant, id: LinkId, message: PeerMessage) {
        match message {
            PeerMessage::KeepAlive | PeerMessage::SamePeer(_) => {}
            // Another link is asked for the manifest already.
            PeerMessage::ManifestReject { .. } => {}
            PeerMessage::Reject(block) => {
                if !self.standby.rejected(id, block) {
                    self.violated(now, id, "a rejection of what was not asked for");
                }
            }
            PeerMessage::Queued { position } => {
                if self.standby.moved(id, position) {
                    self.turn_moved = now;
                }
            }
            PeerMessage::Refuse(reason) => self.refused(now, id, reason),
            PeerMessage::Bitfield(_) | PeerMessage::HaveAll | PeerMessage::HaveNone => {
                self.got_place(now, id);
                self.handle_message(now, id, message);
            }
            _ => self.violated(now, id, "more than a side may say that lets another wait"),
        }
    }

    /// The other side has a place for this one. Now the link needs one here.
    fn got_place(&mut self, now: Instant, id: LinkId) {
        let asks = self.standby.unanswered(id);
        let Some(link) = self.standby.remove(id) else {
            return;
        };
        if let Welcome::Refused(reason) = self.welcome(now, &link.info) {
            let reason = DropReason::Refused(reason);
            self.outbox.push(Output::Drop { link: id, reason });
            return self.unlink_address(now, &link);
        }
        self.attach(now, id, link);
        if let Some(planner) = self.planner() {
            planner.link_owes(id, asks);
        }
        self.turn_moved = now;
        self.send_proofs(id);
        self.send_haves(id);
    }

    /// This side needs nothing any more.
    fn leave_lines(&mut self, now: Instant) {
        let standby: Vec<LinkId> = self.standby.keys().collect();
        for link in standby {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
        }
    }
}

/// Messages.
impl Swarm {
    /// A message arrived on a link. Messages of unknown links are ignored.
    pub fn handle_message(&mut self, now: Instant, link: LinkId, message: PeerMessage) {
        let Some(state) = self.links.get(link) else {
            self.heard_while_waiting(now, link, message);
            return self.settle(now);
        };
        if !state.is_met() && !matches!(message, PeerMessage::Refuse(_)) {
            self.violated(now, link, "a message before the Hello");
            return self.settle(now);
        }
        match message {
            PeerMessage::KeepAlive => {}
            PeerMessage::SamePeer(proof) => self.same_peer(now, link, proof),
            PeerMessage::Hello(_) | PeerMessage::Open(_) => {
                self.violated(now, link, "a message that only begins something");
            }
            PeerMessage::Refuse(reason) => self.refused(now, link, reason),
            PeerMessage::Queued { position } => self.queued(now, link, position),
            PeerMessage::Bitfield(bytes) => self.greeted(now, link, RemoteChunks::unread(bytes)),
            PeerMessage::HaveAll => self.greeted(now, link, RemoteChunks::All),
            PeerMessage::HaveNone => self.greeted(now, link, RemoteChunks::None),
            PeerMessage::Have(chunk) => {
                if !self.gained_chunk(now, link, chunk) {
                    // Most messages in a crowd are this one, and nothing follows from
                    // them yet.
                    return;
                }
            }
            PeerMessage::Suggest(chunk) => self.suggested(link, chunk),
            PeerMessage::Interested => self.uploader.link_declined(link, false),
            PeerMessage::NotInterested => self.uploader.link_declined(link, true),
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
            } => self.block_arrived(now, link, chunk, offset, data),
            PeerMessage::Choke => self.choked(now, link, Choke::Choked),
            PeerMessage::Unchoke => self.choked(now, link, Choke::Unchoked),
            PeerMessage::ManifestRequest { page } => self.page_requested(link, page),
            PeerMessage::ManifestLength { length, proof } => {
                self.page_asks.answered(link, 0);
                self.page_arrived(now, link, |fetch| {
                    fetch.length_arrived(now, link, length, &proof)
                });
            }
            PeerMessage::ManifestHashes { page, hashes } => {
                self.page_asks.answered(link, page);
                self.page_arrived(now, link, |fetch| {
                    fetch.hashes_arrived(now, link, page, &hashes)
                });
            }
            PeerMessage::ManifestReject { page } => self.page_rejected(link, page),
        }
        self.check_queue(now, link);
        self.settle(now);
    }

    /// Messages were handed to the network, with `bytes` bytes of blocks among them.
    pub fn messages_sent(&mut self, now: Instant, link: LinkId, messages: usize, bytes: u64) {
        let Some(state) = self.links.get_mut(link) else {
            let waiting = self.line.get_mut(link).map(|waiting| &mut waiting.link);
            if let Some(state) = waiting.or_else(|| self.standby.get_mut(link)) {
                state.messages_sent(messages);
            }
            return;
        };
        state.messages_sent(messages);
        state.up.add(now, bytes);
        self.send_pages(link);
        self.send_haves(link);
        if bytes > 0 {
            self.counters.uploaded(now, bytes);
            self.uploader.sent(now, link, bytes);
            self.settle(now);
        }
    }

    /// How many bytes of blocks were sent.
    pub fn uploaded(&self) -> u64 {
        self.counters.totals().1
    }

    /// How many bytes of blocks arrived, and how many of them in vain.
    pub(crate) fn downloaded(&self) -> (u64, Waste) {
        (self.counters.totals().0, self.counters.waste)
    }

    fn send(&mut self, link: LinkId, message: PeerMessage) {
        if let Some(state) = self.links.get_mut(link) {
            self.outbox.send(link, state, message);
        }
    }

    fn send_haves(&mut self, link: LinkId) {
        if let Some(state) = self.links.get_mut(link) {
            self.outbox.send_haves(link, state);
        }
    }

    fn send_pages(&mut self, link: LinkId) {
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

    /// Drops a link that does not read the answers to what it asks.
    fn check_queue(&mut self, now: Instant, link: LinkId) {
        let overflows =
            |link: &Link| link.queued > MAX_QUEUED || link.pages.waiting() > MAX_WAITING_PAGES;
        if self.links.get(link).is_some_and(overflows) {
            self.violated(now, link, "more questions than it reads answers");
        }
    }

    /// The other side says that it ends the link.
    fn refused(&mut self, now: Instant, link: LinkId, reason: RefuseReason) {
        let standby = self.standby.get_mut(link).map(|state| &*state);
        let state = self.links.get(link).or(standby);
        let state = state.filter(|state| state.info.dialled);
        let dialled = state.and_then(|state| state.info.addr.clone());
        match reason {
            RefuseReason::Busy | RefuseReason::Duplicate | RefuseReason::NotNeeded => {}
            _ => self.left(now, link),
        }
        self.drop_link(now, link, DropReason::Left(reason));
        let Some(addr) = dialled else {
            return;
        };
        let farewell = match reason {
            RefuseReason::Busy => Farewell::Full,
            RefuseReason::UnknownContent => Farewell::Gone,
            _ => Farewell::Refused,
        };
        self.book.said_farewell(&addr, farewell);
        if farewell == Farewell::Full {
            self.book.had_no_place(now, &addr);
            self.turn_moved = now;
        }
    }

    /// The other side says for the first time what it has.
    fn greeted(&mut self, now: Instant, id: LinkId, remote: RemoteChunks) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.remote != RemoteChunks::Unknown {
            return self.violated(now, id, "a second Bitfield");
        }
        link.remote = remote;
        if let Some(addr) = link.info.addr.as_ref()
            && link.remote == RemoteChunks::All
        {
            self.book.said_complete(addr);
        }
        self.use_early(id);
        self.use_remote(now, id);
        self.owner_joined(id);
        self.keep_places_free(now);
    }

    /// Asks a link that has everything, before the manifest is here. What it was asked for
    /// on the word of a tracker is free again, if it has not.
    fn use_early(&mut self, id: LinkId) {
        let (Some(early), Some(link)) = (&mut self.early, self.links.get(id)) else {
            return;
        };
        // In a crowd, what comes next is chosen with care, once it is known who has what.
        let asks = early.is_asking() && !self.book.has_incomplete();
        let has = match link.has() {
            ChunkSet::All if asks => ChunkSet::All,
            _ => ChunkSet::Nothing,
        };
        if early.planner.has(id) != &has {
            let released = early.planner.link_has(id, has);
            self.released(released);
            self.ask_queue.wake(id);
        }
    }

    /// Reads what a link said to have, once the length is known, and gives it to the
    /// planner.
    fn use_remote(&mut self, now: Instant, id: LinkId) {
        let (Some(manifest), Some(link)) = (self.phase.manifest(), self.links.get_mut(id)) else {
            return;
        };
        if !link.remote.resolve(manifest.geometry().chunks()) {
            return self.violated(now, id, "a Bitfield of another content");
        }
        let has = link.has();
        self.count_lacks(id);
        match &mut self.phase {
            Phase::Transfer(transfer) => {
                let released = transfer.planner.link_has(id, has);
                self.released(released);
                self.ask_queue.wake(id);
            }
            Phase::Seeding(_) if has == ChunkSet::All => {
                self.drop_link(now, id, DropReason::Refused(RefuseReason::NotNeeded));
            }
            _ => {}
        }
    }

    /// The other side has one more chunk. Returns whether something may follow from it
    /// now.
    fn gained_chunk(&mut self, now: Instant, id: LinkId, chunk: ChunkIndex) -> bool {
        let is_first = newcomers::is_silent(&self.links, id);
        if is_first && let Some(link) = self.links.get_mut(id) {
            // A link whose first message is this one had nothing before.
            link.remote = RemoteChunks::None;
            self.count_lacks(id);
        }
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        let chunks = self.phase.manifest().map(|m| m.geometry().chunks());
        let exists = match chunks {
            None => link.remote.gained_unread(chunk),
            Some(chunks) => chunk.0 < chunks && link.remote.resolve(chunks),
        };
        if !exists {
            self.violated(now, id, "a chunk that the content lacks");
            return true;
        }
        if let Some(chunks) = chunks
            && !link.remote.gained(chunk, chunks)
        {
            return false;
        }
        self.outbox.owner_joined(link);
        let here = self.phase.has(chunk);
        if self.uploader.is_untold(id) {
            self.book.trust(&link.info.host);
        }
        let turns_change = self.uploader.link_gained(id, here);
        if is_first {
            // It may have been asked for more, on the word of a tracker.
            if let Phase::Manifest(fetch) = &mut self.phase {
                fetch.retry(id);
            }
            self.use_early(id);
            self.use_remote(now, id);
            return true;
        }
        match &mut self.phase {
            Phase::Manifest(fetch) => {
                fetch.retry(id);
                true
            }
            Phase::Transfer(transfer) => {
                transfer.planner.link_gained(id, chunk);
                // Nothing can be asked of a link that chokes this side and knows that
                // it would be asked.
                let askable = !link.is_choked() || !link.is_interested();
                if askable {
                    self.ask_queue.wake(id);
                }
                askable || turns_change
            }
            Phase::Seeding(_) if link.remote == RemoteChunks::All => {
                self.drop_link(now, id, DropReason::Refused(RefuseReason::NotNeeded));
                true
            }
            _ => turns_change,
        }
    }

    fn suggested(&mut self, link: LinkId, chunk: ChunkIndex) {
        // Before the manifest is here nothing can be asked for, and by then the
        // suggestion is outdated.
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.planner.suggested(link, chunk);
            self.ask_queue.wake(link);
        }
    }

    fn choked(&mut self, now: Instant, link: LinkId, choke: Choke) {
        if choke == Choke::Unchoked && self.links.get(link).is_some_and(Link::is_choked) {
            self.turn_moved = now;
        }
        if let Some(planner) = self.planner() {
            let is_choked = choke == Choke::Choked;
            let released = planner.link_choked(link, is_choked);
            self.released(released);
            self.ask_queue.wake(link);
        }
        if let Some(link) = self.links.get_mut(link) {
            link.set_choke(now, choke);
        }
    }
}

/// The manifest.
impl Swarm {
    fn page_requested(&mut self, link: LinkId, page: u32) {
        if let Some(state) = self.links.get_mut(link) {
            state.pages.asked(page);
            self.send_pages(link);
        }
    }

    fn page_rejected(&mut self, link: LinkId, page: u32) {
        let counted = self.page_asks.answered(link, page);
        self.give_allowance_back(link, counted);
        if let Phase::Manifest(fetch) = &mut self.phase {
            fetch.page_rejected(link, page);
        }
    }

    fn page_arrived(
        &mut self,
        now: Instant,
        link: LinkId,
        step: impl FnOnce(&mut ManifestFetch) -> PageOutcome,
    ) {
        let Some(sender) = self.contributor(link) else {
            return;
        };
        let Phase::Manifest(fetch) = &mut self.phase else {
            // Another link was faster.
            return;
        };
        match step(fetch) {
            PageOutcome::More(pages) => {
                self.gained(now);
                self.ask_pages(now, pages.map(|page| (link, page)));
            }
            PageOutcome::Whole(claim) => {
                fetch.checking(sender);
                self.gained(now);
                if claim.chunks() <= HASHES_PER_PAGE as usize {
                    let manifest = claim.check();
                    self.claim_checked(now, link, manifest);
                } else {
                    self.outbox.push(Output::CheckManifest { link, claim });
                }
            }
            PageOutcome::Lie => self.ban(now, &sender, BanReason::BadManifest),
            PageOutcome::Unasked => {}
        }
    }

    fn contributor(&self, link: LinkId) -> Option<Arc<Contributor>> {
        self.links.get(link).map(|l| Arc::clone(&l.contributor))
    }

    /// The manifest that a link sent was checked. `None` says that the link lied.
    pub fn manifest_checked(&mut self, now: Instant, link: LinkId, manifest: Option<Manifest>) {
        self.claim_checked(now, link, manifest);
        self.settle(now);
    }

    fn claim_checked(&mut self, now: Instant, link: LinkId, manifest: Option<Manifest>) {
        let Phase::Manifest(fetch) = &mut self.phase else {
            return;
        };
        let Some(sender) = fetch.checked(link) else {
            return;
        };
        let Some(manifest) = manifest else {
            return self.ban(now, &sender, BanReason::BadManifest);
        };
        self.has_manifest(now, manifest);
    }

    /// The manifest is here, and proven.
    fn has_manifest(&mut self, now: Instant, manifest: Manifest) {
        let geometry = manifest.geometry();
        if self
            .early
            .as_ref()
            .is_some_and(|early| !early.fits(geometry))
        {
            self.give_early_up(geometry);
        }
        let manifest = Arc::new(manifest);
        self.gained(now);
        self.outbox.push(Output::Open(Arc::clone(&manifest)));
        self.phase = Phase::Opening(manifest);
        self.measure();
    }

    /// What was asked for early was in vain. Requests for what the content has, by its true
    /// geometry, are cancelled.
    fn give_early_up(&mut self, geometry: Geometry) {
        let Some(early) = &mut self.early else {
            return;
        };
        let (dropped, lost) = early.give_up();
        self.counters.waste.dropped += lost;
        let dropped = dropped.into_iter();
        for (link, block) in dropped.filter(|(_, block)| geometry.contains_block(*block)) {
            self.send(link, PeerMessage::Cancel(block));
        }
    }

    /// The only chunk of the content should be here: then its manifest follows from it.
    fn use_short_chunk(&mut self, now: Instant) {
        let early = self.early.as_ref().filter(|_| !self.phase.is_known());
        if let Some(manifest) = early.and_then(|early| early.short_manifest(self.id)) {
            self.has_manifest(now, manifest);
        }
    }
}

/// Downloading.
impl Swarm {
    /// The storage is open and has the chunks in `present`. Those in `verified` are
    /// offered at once. The others are not asked for, but are offered only when
    /// [`chunk_rechecked`](Self::chunk_rechecked) has called them good. Ignored unless
    /// [`Output::Open`] asked for it.
    ///
    /// # Panics
    /// If `present` or `verified` belongs to another content.
    pub fn opened(&mut self, now: Instant, present: &Bitfield, verified: &Bitfield) {
        let Phase::Opening(manifest) = &self.phase else {
            return;
        };
        assert_eq!(present.chunks(), manifest.geometry().chunks());
        assert_eq!(verified.chunks(), present.chunks());
        let manifest = Arc::clone(manifest);
        let transfer = match self.early.take() {
            Some(early) if early.is_asking() && present.is_empty() => {
                let (transfer, to_hash) = Transfer::begun(manifest, *early, &self.config);
                for (chunk, pieces) in to_hash {
                    self.outbox.push(Output::Verify { chunk, pieces });
                }
                transfer
            }
            early => {
                self.early = early;
                self.give_early_up(manifest.geometry());
                let layout = BlockLayout::at(manifest.geometry(), !self.windows.is_empty());
                let mut transfer = Transfer::new(manifest, present, verified, layout, &self.config);
                if let Some(passage) = &self.passage {
                    let geometry = transfer.manifest().geometry();
                    let chunks = passage.chunks(&self.windows, &geometry);
                    transfer = transfer.admitting(chunks, &self.config);
                }
                self.add_links(now, transfer)
            }
        };
        self.outbox.offer(transfer.stored().iter());
        self.phase = Phase::Transfer(Box::new(transfer));
        self.gained(now);
        let links: Vec<LinkId> = self.links.keys().collect();
        for link in links {
            self.count_lacks(link);
            self.use_remote(now, link);
            self.send_haves(link);
        }
        self.settle(now);
    }

    /// Tells a new transfer of the links, and of what they were asked for early and in
    /// vain.
    fn add_links(&mut self, now: Instant, mut transfer: Transfer) -> Transfer {
        let early = self.early.take();
        for (id, link) in self.links.iter() {
            transfer.planner.link_added(id);
            if self.book.is_suspect(now, &link.info.host) {
                transfer.planner.suspect(id);
            }
            transfer.planner.link_choked(id, link.is_choked());
            if let Some(early) = &early {
                transfer.planner.link_owes(id, early.unanswered(id));
            }
        }
        // Nothing was asked for, so nothing is given up.
        transfer.planner.set_windows(now, &self.windows);
        transfer
    }

    fn block_arrived(
        &mut self,
        now: Instant,
        link: LinkId,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
    ) {
        let len = data.len() as u64;
        self.counters.downloaded(now, len);
        let Some(sender) = self.contributor(link) else {
            return;
        };
        let Some(planner) = self.planner() else {
            self.counters.waste.late += len;
            return self.answered_late(now, link);
        };
        let block = BlockRange {
            chunk,
            offset,
            len: len as u32,
        };
        let passed_over = planner.take_passed_over();
        let arrival = planner.block_arrived(now, link, block);
        if passed_over {
            // Others may be asked again.
            self.ask_queue.wake_idle();
        }
        match arrival {
            Arrival::Unasked => {
                self.counters.waste.late += len;
                return self.violated(now, link, "a block that was not asked for");
            }
            Arrival::Late => self.counters.waste.late += len,
            Arrival::Wanted { overtaken } => {
                self.keep_block(now, sender, chunk, offset, data);
                self.gained(now);
                self.counters.rate.arrived(now, len);
                if let Some(other) = overtaken {
                    self.send(other, PeerMessage::Cancel(block));
                    self.ask_queue.wake(other);
                }
            }
        }
        self.delivered(now, link, len);
        self.ask_queue.wake(link);
    }

    /// Keeps a block that was wanted, and has its chunk hashed if that is whole.
    fn keep_block(
        &mut self,
        now: Instant,
        sender: Arc<Contributor>,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
    ) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            if let Some(pieces) = transfer.insert(sender, chunk, offset, data) {
                self.outbox.push(Output::Verify { chunk, pieces });
            }
        } else if let Some(early) = &mut self.early {
            early.insert(sender, chunk, offset, data);
            self.use_short_chunk(now);
        }
    }

    /// A link has sent a block that it was asked for: its address is proven, and its host
    /// is trusted.
    fn delivered(&mut self, now: Instant, id: LinkId, len: u64) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.received == 0 {
            self.book.trust(&link.info.host);
        }
        link.received += len;
        link.down.add(now, len);
        link.is_proven = true;
        if let Some(addr) = &link.info.addr {
            self.book.proved(addr);
        }
        if link.is_choked()
            && let Some(planner) = self.planner()
        {
            let released = planner.leads_no_more(id);
            self.released(released);
        }
    }

    fn rejected(&mut self, now: Instant, link: LinkId, block: BlockRange) {
        let Some(planner) = self.planner() else {
            return self.answered_late(now, link);
        };
        let Some(released) = planner.rejected(now, link, block) else {
            return self.violated(now, link, "a rejection of what was not asked for");
        };
        let rejections = planner.rejections(link);
        self.give_allowance_back(link, block.len.into());
        self.counters.rejected += 1;
        // Before the length is proven, the other side may be right to reject.
        let useless = rejections >= MAX_REJECTIONS && self.early.is_none();
        if let Some(early) = &mut self.early {
            early.doubt();
        }
        self.released(released);
        self.ask_queue.wake(link);
        if useless || self.is_exhausted(link) {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
        }
    }

    /// Blocks that were given up are cancelled, forgotten, and free for other links.
    fn released(&mut self, released: Released) {
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

    /// Whether a link has nothing missing left but what it rejected. After a new
    /// handshake it may give what it could not give this time.
    fn is_exhausted(&self, id: LinkId) -> bool {
        let (Phase::Transfer(transfer), Some(link)) = (&self.phase, self.links.get(id)) else {
            return false;
        };
        let planner = &transfer.planner;
        let chunks = transfer.manifest().geometry().chunks();
        link.remote.count().min(chunks) > planner.has(id).count(chunks)
            && !planner.is_useful(id)
            && !planner.is_done()
    }

    /// A request was answered when nothing is asked for any more.
    fn answered_late(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        match link.unanswered.checked_sub(1) {
            Some(unanswered) => link.unanswered = unanswered,
            None => self.violated(now, id, "an answer to what was not asked for"),
        }
    }

    /// A chunk was hashed. A bad one is blamed on the peers that sent it.
    pub fn chunk_verified(&mut self, now: Instant, chunk: ChunkIndex, good: bool) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        let Some(hashed) = transfer.chunk_hashed(chunk, good) else {
            return;
        };
        if !good {
            self.gained(now);
            self.counters.waste.bad += hashed.wasted;
            self.ask_queue.wake_idle();
        }
        for liar in hashed.liars {
            self.ban(now, &liar, BanReason::BadChunk { chunk });
        }
        self.settle(now);
    }

    /// A verified chunk is in the storage: from now on it is offered to others.
    pub fn chunk_stored(&mut self, now: Instant, chunk: ChunkIndex) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        let Some(assembled) = transfer.chunk_written(now, chunk) else {
            return;
        };
        for peer in assembled.senders.iter().filter_map(|sender| sender.peer) {
            self.counters.contributed(peer);
        }
        let senders: BTreeSet<LinkId> = assembled.senders.iter().map(|s| s.link).collect();
        for id in senders {
            if let Some(link) = self.links.get_mut(id) {
                self.outbox.send_receipt(id, link, chunk);
            }
        }
        for (owner, bytes) in credits(&assembled) {
            self.outbox.push(Output::Credit { owner, bytes });
        }
        self.offer(now, chunk);
        self.settle(now);
    }

    /// A chunk is stored and verified: from now on it is offered to others.
    fn offer(&mut self, now: Instant, chunk: ChunkIndex) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if transfer.offer(chunk) {
            self.ask_queue.wake_idle();
        }
        self.gained(now);
        if self.passage.is_none() {
            self.outbox.offer([chunk]);
        }
        for (id, link) in self.links.iter() {
            if link.remote != RemoteChunks::Unknown && !link.remote.has(chunk) {
                self.uploader.link_lacks(id);
            }
        }
        let links: Vec<LinkId> = self.links.keys().collect();
        for link in links {
            self.send_haves(link);
            if self.is_exhausted(link) {
                self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
            }
        }
    }

    /// A chunk that an earlier download left behind was read and hashed. A good one is
    /// offered from now on. A bad one is missing, and nobody is blamed for it.
    pub fn chunk_rechecked(&mut self, now: Instant, chunk: ChunkIndex, good: bool) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if !transfer.chunk_rechecked(chunk, good) {
            return;
        }
        self.gained(now);
        if good {
            self.offer(now, chunk);
        } else {
            self.ask_queue.wake_idle();
        }
        self.settle(now);
    }

    /// As far as the storage can tell, nobody has changed what an earlier download left
    /// behind. So when the rest has arrived, the content is published without reading
    /// every chunk of it first. A chunk for which
    /// [`chunk_rechecked`](Self::chunk_rechecked) was not called has to be verified when
    /// it is read to be served.
    pub fn left_untouched(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.left_untouched();
        }
        self.settle(now);
    }

    /// Everything that was stored before the commit began is durable.
    pub fn committed(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.committed();
        }
        self.settle(now);
    }

    /// The download stops here. From now on the only outputs are those that store what
    /// has arrived, until [`is_saved`](Self::is_saved).
    pub fn stop(&mut self, now: Instant) {
        self.effort = Effort::Stopping;
        self.settle(now);
    }

    /// The storage has published the content: it is complete, and seeded from now on.
    pub fn finished(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &self.phase else {
            return;
        };
        if !transfer.is_publishing() {
            return;
        }
        for (id, link) in self.links.iter_mut() {
            link.unanswered = transfer.planner.unanswered(id);
        }
        let manifest = Arc::clone(transfer.manifest());
        self.gained(now);
        if self.is_paused() {
            // Nothing is left to pause.
            self.effort = Effort::Going;
        }
        self.phase = Phase::Seeding(manifest);
        self.announce(OwnState::Complete);
        let is_seeder = |link: &Link| link.remote == RemoteChunks::All;
        let seeders = self.links.iter().filter(|(_, link)| is_seeder(link));
        let seeders: Vec<LinkId> = seeders.map(|(id, _)| id).collect();
        for link in seeders {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
        }
        self.leave_lines(now);
        self.settle(now);
    }
}

/// Serving.
impl Swarm {
    fn requested(&mut self, now: Instant, link: LinkId, block: BlockRange) {
        if block.len > MAX_BLOCK_LEN {
            return self.violated(now, link, "a request for more than a block");
        }
        // A peer that has no manifest yet may ask by a length that is wrong.
        let geometry = self.manifest().map(|manifest| manifest.geometry());
        let exists = geometry.is_some_and(|geometry| geometry.contains_block(block));
        let offered = self.passage.is_none() && self.phase.has(block.chunk);
        if !exists || !offered || !self.uploader.requested(link, block) {
            return self.send(link, PeerMessage::Reject(block));
        }
        if block.offset == 0 && self.is_seeding() {
            self.super_seeding.asked(link, block.chunk);
            if self.uploader.is_contended() {
                self.suggest(link);
            }
        }
    }

    /// A block was read for a link. Without its bytes (the storage failed, or returned
    /// another number of bytes), the request is rejected.
    pub fn block_read(
        &mut self,
        now: Instant,
        link: LinkId,
        block: BlockRange,
        data: Option<Bytes>,
    ) {
        if self.links.contains(link) {
            let data = data.filter(|data| data.len() as u64 == u64::from(block.len));
            let message = match data {
                Some(data) => PeerMessage::Block {
                    chunk: block.chunk,
                    offset: block.offset,
                    data,
                },
                None => {
                    self.uploader.failed(now, link, block.len.into());
                    self.uploader.give_back(link, block.len.into());
                    PeerMessage::Reject(block)
                }
            };
            self.send(link, message);
        }
        self.settle(now);
    }

    /// Suggests chunks to a link whose turn it is: those that this seeder sent least
    /// often.
    fn suggest(&mut self, id: LinkId) {
        let (Phase::Seeding(manifest), Some(link)) = (&self.phase, self.links.get(id)) else {
            return;
        };
        let chunks = manifest.geometry().chunks();
        let lacks = |chunk| !link.remote.has(chunk);
        for chunk in self.super_seeding.suggest(id, chunks, lacks) {
            self.send(id, PeerMessage::Suggest(chunk));
        }
    }

    /// Counts again how many of the chunks that are here a link lacks. O(chunks).
    fn count_lacks(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id) else {
            return;
        };
        let lacks = self.phase.lacked_by(&link.remote);
        self.uploader.link_has(id, link.remote.count(), lacks);
    }
}

#[cfg(any(test, feature = "testing"))]
impl Swarm {
    /// Panics where the machine contradicts itself. For tests.
    pub fn check_invariants(&self) {
        self.uploader.check_invariants();
        self.book.check_invariants();
        assert!(self.links.len() <= self.config.max_links);
        if let Some(early) = &self.early {
            early.check_invariants(&self.config);
            assert!(self.phase.is_beginning());
        }
        self.line.check_invariants();
        assert!(self.line.len() <= self.config.max_waiting);
        assert!(self.line.is_empty() || self.is_seeding());
        assert!(self.standby.len() <= self.config.sources);
        assert!(self.standby.len() == 0 || !self.is_seeding());
        assert!(!self.is_paused() || !self.is_seeding());
        assert!(!self.is_paused() || self.standby.len() == 0);
        assert!(self.effort != Effort::Paused(Serving::Rests) || self.links.len() == 0);
        if self.is_paused() {
            let planner = match &self.phase {
                Phase::Transfer(transfer) => Some(&transfer.planner),
                _ => self.early.as_ref().map(|early| &early.planner),
            };
            let asks = planner.is_some_and(|planner| planner.busy_links() > 0);
            assert!(!asks, "a paused download asks");
        }
        for id in self.links.keys() {
            assert!(!self.line.contains(id) && !self.standby.contains(id));
        }
        if let Phase::Transfer(transfer) = &self.phase {
            transfer.check_invariants(&self.config);
            for (id, link) in self.links.iter() {
                // Otherwise nothing would ever tell that it is wanted after all.
                let useful = transfer.planner.is_useful(id);
                let waits = link.is_choked() && !link.is_interested() && useful;
                let idle = transfer.planner.next_idle(id) == Some(id);
                assert!(!waits || idle || self.ask_queue.contains(id), "given up");
            }
        }
    }
}
