//! The planner: which block is asked of which link.
//!
//! ```text
//!             pick                 last block            verified, written
//!  Missing ─────────▶ Open ───────────────────▶ Complete ────────▶ Stored
//!     ▲                 │ no block, no request       │
//!     └─────────────────┴────────────────────────────┘ failed verification
//! ```
//! A chunk that an earlier download left behind is Held until it was verified.
//! If it is good, it becomes Stored, and if not, Missing.
//!
//! A chunk is in exactly one of these states, and each block of an open chunk
//! is free, asked of exactly one link, or here. When a request is given up (its
//! link is gone, is silent, or is overtaken by a faster one), the same step
//! makes its block free or asks another link.
//!
//! The planner knows no bytes, no clock and no network.

mod answer;
mod budget;
mod chunk_states;
mod config;
mod deadlines;
mod delivery;
mod doubts;
mod end_game;
mod far;
mod homes;
mod idle_links;
mod lanes;
mod ledger;
mod line_meter;
mod open_chunks;
mod request_windows;
mod restraints;
mod silences;
mod source;
mod sources;
mod urgent;
mod usual_order;

pub use answer::{Arrival, Released, Request};
pub use config::{PlannerConfig, Strategy};

use std::time::{Duration, Instant};

use chunk_states::ChunkState;
use deadlines::{Deadlines, Supply, UrgentChoice};
use end_game::{TRY_AFTER, Takeover, takeover};
use far::{ALONE, CLEARLY_SLOWER, FLOWS, FarRule, NEAR_PATIENCE, Nearness, PATIENCE};
use idle_links::IdleLinks;
use ledger::Ledger;
use request_windows::{RequestWindows, Room};
use restraints::{Restraint, Restraints};
use silences::Silences;
use source::Source;
use usual_order::{UsualOrder, offers};

use super::LinkId;
use super::block_layout::BlockLayout;
use super::chunk_set::ChunkSet;
use super::piece_map::PieceState;
use super::read_window::ReadWindow;
use crate::content::{Bitfield, BlockRange, ChunkIndex};
use crate::protocol::limits::MAX_REQUESTS;

/// The shortest pause before a link that found nothing to do looks again.
const RETRY: Duration = Duration::from_millis(5);

/// Plans one download.
#[derive(Debug)]
pub struct Planner {
    silence: Duration,
    /// The chunks, the links, and what was asked of whom.
    ledger: Ledger,
    /// What readers want next.
    deadlines: Deadlines,
    /// What comes after that.
    usual: UsualOrder,
    windows: RequestWindows,
    restraints: Restraints,
    silences: Silences,
    idle: IdleLinks,
    /// When a block came last, or since when there are far links.
    served: Option<Instant>,
    /// Nothing has come since then for so long that near links count no longer.
    is_vain: bool,
    /// This peer fetches from other zones.
    imports: bool,
    /// It becomes one that does if nothing arrives for so long; others need not at the same time.
    patience: Duration,
}

impl Planner {
    /// A planner for all chunks of a content that are not `present`.
    pub fn new(layout: BlockLayout, present: &Bitfield, config: PlannerConfig) -> Self {
        let config = PlannerConfig {
            max_requests: config.max_requests.min(MAX_REQUESTS),
            ..config
        };
        let seed = config.seed;
        Self {
            silence: config.silence,
            ledger: Ledger::new(layout, present, &config),
            deadlines: Deadlines::new(layout.geometry()),
            usual: UsualOrder::new(config.strategy),
            restraints: Restraints::new(&config, layout.block_len()),
            silences: Silences::new(config.clone()),
            windows: RequestWindows::new(config),
            idle: IdleLinks::default(),
            served: None,
            is_vain: false,
            imports: false,
            patience: PATIENCE + PATIENCE.mul_f64(fastrand::Rng::with_seed(seed).f64()),
        }
    }

    /// Some of the present chunks were not verified yet. They are not asked
    /// for and are not done, until [`chunk_stored`](Self::chunk_stored) or
    /// [`chunk_failed`](Self::chunk_failed) is called for them. Call this
    /// before there are links.
    pub fn hold(&mut self, chunks: &Bitfield) {
        self.ledger.hold(chunks);
    }

    /// Whether nothing may be asked for until something held is
    /// [missing](Self::chunk_failed).
    pub fn is_all_held(&self) -> bool {
        self.ledger.is_all_held()
    }

    /// Nobody wants a chunk that is not whole: it is not asked for, and nobody is of use for
    /// it. Returns what was asked for of it; nothing if it is whole, held or stored, or was not
    /// wanted before.
    pub fn shelve(&mut self, chunk: ChunkIndex) -> Option<Released> {
        self.ledger.shelve(chunk)
    }

    /// The opposite.
    pub fn unshelve(&mut self, chunk: ChunkIndex) {
        self.ledger.unshelve(chunk);
    }

    /// Whether every chunk is stored or [shelved](Self::shelve).
    pub fn wants_nothing(&self) -> bool {
        self.ledger.wants_nothing()
    }

    /// Whether every chunk is stored.
    pub fn is_done(&self) -> bool {
        self.ledger.is_done()
    }

    /// Changes the order from the next pick on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.usual.set_strategy(strategy);
    }

    // Links and what they have.

    /// A link is a source from now on. It has nothing yet.
    pub fn link_added(&mut self, link: LinkId) {
        self.ledger.link_added(link);
    }

    /// A link may send nothing: it is treated as one that was silent before.
    pub fn suspect(&mut self, link: LinkId) {
        self.ledger.suspect(link);
    }

    /// A link is in another zone, with this number. It is asked only if this peer
    /// [imports](Self::import).
    pub fn link_is_far(&mut self, now: Instant, link: LinkId, zone: u32) {
        self.served.get_or_insert(now);
        self.ledger.link_is_far(now, link, zone);
    }

    /// What this peer is called among those that fetch for its zone.
    pub fn set_name(&mut self, name: u64) {
        self.ledger.set_name(name);
    }

    /// This peer fetches from other zones what its zone lacks, and shares that out with
    /// [others](Self::link_imports) that do.
    pub fn import(&mut self) {
        self.imports = true;
    }

    /// Whether this peer fetches from other zones.
    pub fn imports(&self) -> bool {
        self.imports
    }

    /// A near link is with a peer of this name that fetches for the zone.
    pub fn link_imports(&mut self, now: Instant, link: LinkId, name: u64) {
        self.ledger.is_importer(now, link, name);
    }

    /// A near link fetches a chunk for the zone.
    pub fn claimed(&mut self, now: Instant, link: LinkId, chunk: ChunkIndex) {
        self.ledger.claimed(now, link, chunk);
    }

    /// The chunks that this peer has asked far links for since the last call.
    pub fn take_claims(&mut self) -> Vec<ChunkIndex> {
        let far = self.ledger.far_mut();
        far.map(|far| far.take_untold()).unwrap_or_default()
    }

    /// What a far link may be asked for; `None` for a near one.
    fn limit(&self, now: Instant, link: LinkId) -> Option<Nearness> {
        self.ledger.far()?;
        self.ledger.sources().get(link).filter(|s| s.is_far())?;
        let is_crowd = self.ledger.sources().totals().turn_takers > 0;
        Some(match self.imports {
            false => Nearness::Suffices,
            true if !self.has_room_far(link) => Nearness::Suffices,
            true if self.is_vain || self.is_faster_than_near(now, link) => Nearness::IsSlower,
            true if is_crowd => Nearness::Shares,
            true => Nearness::Counts,
        })
    }

    /// On which line a far link is, and how many links on it owe something.
    fn line_of(&self, link: LinkId) -> Option<(usize, usize)> {
        let line = |source: &Source| source.far().map(|zone| zone as usize % FLOWS);
        let sources = self.ledger.sources();
        let here = sources.get(link).and_then(line)?;
        let busy = |source: &&Source| line(source) == Some(here) && source.live_bytes() > 0;
        Some((here, sources.values().filter(busy).count()))
    }

    /// Whether a far link may be asked while others owe something.
    fn has_room_far(&self, link: LinkId) -> bool {
        let source = self.ledger.sources().get(link);
        let is_busy = source.is_some_and(|source| source.live_bytes() > 0);
        let far = self.ledger.far().zip(self.line_of(link));
        is_busy || far.is_none_or(|(far, (line, busy))| far.has_room(line, busy))
    }

    /// Looks for what other importers leave lying that far links would be asked for at once.
    fn look_far(&mut self, now: Instant) {
        let is_due = self.ledger.far().is_some_and(|far| far.is_due(now));
        if !self.imports || !is_due {
            return;
        }
        let is_far = |(_, source): &(LinkId, &Source)| source.is_far();
        let links = self.ledger.sources().iter().filter(is_far);
        let may = |link: &LinkId| self.has_room(now, *link) && self.has_room_far(*link);
        let links: Vec<LinkId> = links.map(|(link, _)| link).filter(may).collect();
        self.ledger.look_far(now, &links);
    }

    /// Whether near links together are slower than a far one. Where links take turns, each has a
    /// small rate for each of many, and that says nothing.
    fn is_faster_than_near(&self, now: Instant, link: LinkId) -> bool {
        let sources = self.ledger.sources();
        let rate = sources.get(link).and_then(|source| source.rate(now));
        let is_crowd = sources.totals().turn_takers > 0;
        rate.is_some_and(|rate| !is_crowd && sources.near_are_slower(now, rate * CLEARLY_SLOWER))
    }

    /// When near links count no longer, if nothing comes before; or, for one that is no importer,
    /// when it becomes one.
    fn vain_at(&self) -> Option<Instant> {
        self.ledger.far()?;
        let patience = match self.imports {
            true => NEAR_PATIENCE,
            false if self.ledger.sources().values().all(Source::is_far) => ALONE,
            false => self.patience,
        };
        let patience = self.restraints.first_silence().max(patience);
        self.served?.checked_add(patience)
    }

    /// A link is gone: what was asked of it is free again.
    pub fn link_removed(&mut self, link: LinkId) -> Released {
        self.idle.remove(link);
        self.ledger.link_removed(link)
    }

    /// A link announces all of its chunks at once. What it was asked for before and
    /// lacks is free again. O(chunks) for a partial owner, O(1) for a seeder.
    pub fn link_has(&mut self, link: LinkId, has: ChunkSet) -> Released {
        self.ledger.link_has(link, has)
    }

    /// Takes all requests back: their blocks are free again, and no link leads a chunk.
    /// What the links have stays known.
    pub fn give_back(&mut self) -> Released {
        self.ledger.give_back()
    }

    /// Asks nobody for anything any more. Returns the requests that were counted on, and
    /// whose answers still come.
    pub fn give_all_up(&mut self) -> Vec<(LinkId, BlockRange)> {
        self.ledger.give_all_up()
    }

    /// From now on a chunk of which something is here stays open, whether or not a link
    /// has it: links that are gone are expected back.
    pub fn keep_partial(&mut self) {
        self.ledger.keep_partial();
    }

    /// The opposite. What no link has is given up.
    pub fn keep_no_more(&mut self) -> Released {
        self.ledger.keep_no_more()
    }

    /// A block came [late](Arrival::Late), and all that was asked for of its chunk has been
    /// given up. The chunk is opened for it, if there is a place. Returns whether it is
    /// kept.
    pub fn keep_late(&mut self, link: LinkId, block: BlockRange) -> bool {
        self.ledger.keep_late(link, block)
    }

    /// A link has a chunk no longer, by its own word. What it was asked for of that chunk
    /// is free for others; it still answers. Returns also whether it was asked for some.
    pub fn link_withdrew(&mut self, link: LinkId, chunk: ChunkIndex) -> (Released, bool) {
        self.ledger.link_withdrew(link, chunk)
    }

    /// A link was asked for this by another plan, at these times, and its answers still
    /// come.
    pub fn link_owes(&mut self, link: LinkId, asks: Vec<(BlockRange, Instant)>) {
        if let Some(last) = asks.iter().map(|(_, at)| *at).max() {
            self.silences.owed(last);
        }
        self.ledger.link_owes(link, asks);
    }

    /// A link has one more chunk. O(1), or O(chunks) for its first and its last.
    pub fn link_gained(&mut self, link: LinkId, chunk: ChunkIndex) {
        self.ledger.link_gained(link, chunk);
    }

    /// The other side suggests that a chunk is asked for. It is, if no other
    /// chunk is rarer. Only the latest few suggestions count.
    pub fn suggested(&mut self, link: LinkId, chunk: ChunkIndex) {
        self.ledger.suggested(link, chunk);
    }

    /// Whether a link answers requests. One that does not leads only chunks of
    /// which something is on its way: nothing else would tell when to stop
    /// waiting for it. See [`leads_no_more`](Self::leads_no_more).
    pub fn link_choked(&mut self, link: LinkId, choked: bool) -> Released {
        self.ledger.link_choked(link, choked)
    }

    /// Leaves the chunks of which nothing is on its way from a link to others.
    /// For a choked link, when something has come.
    pub fn leads_no_more(&mut self, link: LinkId) -> Released {
        self.ledger.leads_no_more(link)
    }

    // Requests and answers.

    /// How many owners there are or will be, if this peer is the only leecher. In a crowd
    /// (`None`) owners make their links take turns, and little is asked for at a time.
    pub fn set_owners_alone(&mut self, owners: Option<usize>) {
        self.windows.set_owners_alone(owners);
    }

    /// Whether a link answers, has something, and may owe one more block.
    pub fn has_room(&self, now: Instant, link: LinkId) -> bool {
        self.room(now, link) == Room::Now
    }

    fn room(&self, now: Instant, link: LinkId) -> Room {
        let urgent = self.deadlines.urgent();
        self.windows.room(now, &self.ledger, urgent, link)
    }

    /// The length of the longest block that is asked for, in bytes.
    pub fn block_len(&self) -> u64 {
        self.ledger.layout().block_len()
    }

    /// What to ask a link for now. Call it until it returns `None`.
    pub fn next_request(&mut self, now: Instant, link: LinkId) -> Option<Request> {
        let room = self.room(now, link);
        self.ledger.set_full(link, room == Room::None);
        match room {
            Room::Now => {}
            Room::At(at) => {
                self.idle.add(link);
                self.idle.look_again(Some(at));
                return None;
            }
            Room::None => return None,
        }
        if let Some(restraint) = self.restraints.assess(now, &self.ledger, link) {
            self.hold_back(link, restraint);
            return None;
        }
        let choice = self.choose(now, link);
        match choice {
            Choice::Ask(request) => {
                self.ask(now, link, request);
                return Some(request);
            }
            Choice::Later => {
                self.idle.add(link);
                self.idle.look_again(self.next_look(now, link));
            }
            Choice::Nothing => self.idle.add(link),
        }
        None
    }

    /// What to ask a link for that has room.
    fn choose(&mut self, now: Instant, link: LinkId) -> Choice {
        let supply = self.supply(now);
        let limit = self.limit(now, link);
        let urgent = self
            .deadlines
            .take_block(now, &mut self.ledger, link, supply);
        if let UrgentChoice::Take(request) = urgent {
            return Choice::Ask(request);
        }
        let members = self.deadlines.urgent().members();
        let usual = self
            .usual
            .take_block(&mut self.ledger, link, members, limit);
        if let Some(block) = usual {
            return Choice::Ask(Request {
                block,
                overtaken: None,
            });
        }
        let may_try = supply.owners_alone.is_some();
        match takeover(&self.ledger, now, link, may_try, limit) {
            Takeover::Take(request) => Choice::Ask(request),
            Takeover::Later => Choice::Later,
            Takeover::Nothing if urgent == UrgentChoice::Left => Choice::Later,
            Takeover::Nothing => Choice::Nothing,
        }
    }

    fn supply(&mut self, now: Instant) -> Supply {
        let some_take_turns = self.ledger.sources().totals().turn_takers > 0;
        Supply {
            is_spent: some_take_turns && self.restraints.spends_budget(now, &self.ledger),
            owners_alone: self.windows.owners_alone(),
        }
    }

    /// Notes a request that is sent now.
    fn ask(&mut self, now: Instant, link: LinkId, request: Request) {
        self.idle.remove(link);
        self.ledger.ask(now, link, request);
        self.restraints.asked(now);
        self.silences.asked(now, self.restraints.first_silence());
    }

    /// When a link that might overtake another looks again: when it could have
    /// sent a block.
    fn next_look(&self, now: Instant, link: LinkId) -> Option<Instant> {
        let rate = self.ledger.sources().get(link)?.rate(now);
        let pace = match rate {
            Some(rate) => Duration::try_from_secs_f64(self.block_len() as f64 / rate).ok(),
            None => Some(TRY_AFTER / 4),
        };
        let pace = pace.unwrap_or(self.silence);
        now.checked_add(pace.min(self.silence).max(RETRY))
    }

    /// A block arrived from a link.
    pub fn block_arrived(&mut self, now: Instant, link: LinkId, block: BlockRange) -> Arrival {
        let (arrival, took) = self.ledger.block_arrived(now, link, block);
        if self.served.is_some() {
            (self.served, self.is_vain) = (Some(now), false);
        }
        if let (Some(took), Some(_)) = (took, self.ledger.far())
            && let Some((line, busy)) = self.line_of(link)
            && let Some(far) = self.ledger.far_mut()
        {
            far.delivered(now, line, took, busy);
        }
        if let Some(took) = took {
            self.restraints.delivered(now, block.len.into(), took);
            self.restraints.answered(now, &self.ledger);
        }
        arrival
    }

    /// A link will not send a block. It counts as lacking that chunk, unless
    /// it is choked or the request had been given up. `None` if the block was
    /// not asked of it. O(links), or O(chunks) for the first rejection of a
    /// seeder.
    pub fn rejected(&mut self, now: Instant, link: LinkId, block: BlockRange) -> Option<Released> {
        let released = self.ledger.rejected(now, link, block)?;
        self.restraints.answered(now, &self.ledger);
        Some(released)
    }

    /// Takes the requests of silent links back. Returns these links, and what
    /// is given up.
    pub fn handle_timeout(&mut self, now: Instant) -> (Vec<LinkId>, Released) {
        self.idle.handle_timeout(now);
        self.look_far(now);
        self.is_vain = self.vain_at().is_some_and(|at| at <= now);
        if self.is_vain && !self.imports {
            (self.imports, self.is_vain) = (true, false);
            self.served = Some(now);
        }
        let first = self.restraints.first_silence();
        let (silent, released) = self.silences.handle_timeout(now, &mut self.ledger, first);
        for &link in &silent {
            let line = self.line_of(link);
            if let (Some((line, _)), Some(far)) = (line, self.ledger.far_mut()) {
                far.was_silent(now, line);
            }
        }
        (silent, released)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and then
    /// [`next_request`](Self::next_request) for the idle links; see
    /// [`next_idle`](Self::next_idle).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.idle.retry().filter(|_| !self.ledger.open().is_empty());
        let far = self
            .ledger
            .far()
            .filter(|_| self.imports && !self.is_done());
        let far = far.and_then(FarRule::poll_timeout);
        let vain = self.vain_at().filter(|_| !self.is_vain && !self.is_done());
        let times = self.silences.next().into_iter().chain(retry);
        times.chain(far).chain(vain).min()
    }

    /// Leaves a link idle that is not to be asked at present.
    fn hold_back(&mut self, link: LinkId, restraint: Restraint) {
        self.idle.add(link);
        self.idle.pass_over();
        if let Restraint::Until(until) = restraint {
            self.idle.look_again(Some(until));
        }
    }

    /// Looks again whether there is something to ask a link for, choked or not.
    /// If not, the link is idle from now on.
    pub fn reconsider(&mut self, now: Instant, link: LinkId) -> bool {
        if !self.ledger.sources().contains(link) {
            return false;
        }
        if let Some(restraint) = self.restraints.assess(now, &self.ledger, link) {
            self.hold_back(link, restraint);
            return false;
        }
        let offers = offers(&self.ledger, link, self.limit(now, link));
        if !offers {
            self.idle.add(link);
        }
        offers
    }

    /// Holds all links back, if so much is asked for at present that none of
    /// them is asked for more. Returns whether that is so.
    pub fn hold_back_all(&mut self, now: Instant) -> bool {
        let Some(held_back) = self.restraints.holds_all_back(now, &self.ledger) else {
            return false;
        };
        self.idle.look_again(held_back.until);
        if held_back.all {
            self.idle.pass_over();
        }
        held_back.all
    }

    /// Whether some link was passed over since the last call. It may be asked
    /// when something has come.
    pub fn take_passed_over(&mut self) -> bool {
        self.idle.take_passed_over()
    }

    /// Readers want these parts of the content next: they are asked for before everything
    /// else. If a reader has gone elsewhere, what others were asked for and would keep it
    /// waiting is given up. O(chunks in the windows + requests).
    pub fn set_windows(&mut self, now: Instant, windows: &[ReadWindow]) -> Released {
        if !self.deadlines.set_windows(now, &mut self.ledger, windows) {
            return Released::default();
        }
        self.usual.split_anew();
        let windows = &self.windows;
        self.deadlines
            .make_way(now, &mut self.ledger, |source| windows.is_alone(source))
    }

    /// The line of a link carried something else than a block.
    pub fn carried(&mut self, link: LinkId, bytes: u64) {
        self.ledger.carried(link, bytes);
    }

    // Chunks.

    /// All blocks of a chunk are here: it is verified and written next.
    pub fn chunk_complete(&mut self, chunk: ChunkIndex) {
        self.ledger.chunk_complete(chunk);
    }

    /// A complete chunk is being hashed from now on. While many are, no further chunk is
    /// opened.
    pub fn hashing_began(&mut self) {
        self.ledger.hashing_began();
    }

    /// A complete chunk was hashed. Returns whether idle links may find something now.
    pub fn hashing_ended(&mut self) -> bool {
        self.ledger.hashing_ended()
    }

    /// A complete chunk is verified and written, or a held one verified.
    /// Returns whether idle links may find something now.
    pub fn chunk_stored(&mut self, chunk: ChunkIndex) -> bool {
        self.ledger.chunk_stored(chunk)
    }

    /// A chunk that is not whole may have come to the storage in another way: it is held
    /// until it was verified. Returns what was asked for of it; nothing if it is whole, held
    /// or stored.
    pub fn chunk_found(&mut self, chunk: ChunkIndex) -> Option<Released> {
        self.ledger.chunk_found(chunk)
    }

    /// These chunks come in another way, as it seems: they are opened for nobody but readers.
    /// Returns whether they are others than before.
    pub fn set_elsewhere(&mut self, chunks: Option<Bitfield>) -> bool {
        let changed = self.ledger.set_elsewhere(chunks);
        if changed {
            self.usual.split_anew();
        }
        changed
    }

    /// A complete or held chunk was bad: it is missing again. The next copy of
    /// a complete one comes from a single link.
    pub fn chunk_failed(&mut self, chunk: ChunkIndex) {
        self.ledger.chunk_failed(chunk);
    }

    // Questions.

    /// The state of each chunk in order, and how many of the links that have some chunks,
    /// and not all, have it.
    pub fn pieces(&self) -> impl Iterator<Item = (PieceState, u32)> {
        let chunks = (0..self.ledger.states().len()).map(ChunkIndex);
        chunks.map(|chunk| {
            let state = match self.ledger.states().get(chunk) {
                ChunkState::Missing => PieceState::Missing,
                ChunkState::Shelved => PieceState::NotWanted,
                ChunkState::Open => PieceState::UnderWay,
                ChunkState::Complete => PieceState::Arrived,
                ChunkState::Held => PieceState::Unchecked,
                ChunkState::Stored => PieceState::Stored,
            };
            (state, self.ledger.picker().copies(chunk).into())
        })
    }

    /// The first link at or after `from` that found nothing to ask for.
    pub fn next_idle(&self, from: LinkId) -> Option<LinkId> {
        self.idle.next_from(from)
    }

    /// The open chunks of which something is on its way.
    pub fn asked_chunks(&self) -> impl Iterator<Item = ChunkIndex> {
        self.ledger.open().asked_chunks()
    }

    /// What a link has.
    pub fn has(&self, link: LinkId) -> &ChunkSet {
        self.ledger.sources().has(link)
    }

    /// Whether a link has a chunk that is not stored yet.
    pub fn is_useful(&self, link: LinkId) -> bool {
        let has_wanted = |source: &Source| match source.has() {
            ChunkSet::Nothing => false,
            ChunkSet::All => !self.wants_nothing(),
            ChunkSet::Some(_) => source.wanted() > 0,
        };
        self.ledger.sources().get(link).is_some_and(has_wanted)
    }

    /// Whether a link does not answer requests at present.
    pub fn is_choked(&self, link: LinkId) -> bool {
        self.ledger
            .sources()
            .get(link)
            .is_some_and(Source::is_choked)
    }

    /// What a link was asked for and has not answered, live or given up, and when.
    pub fn unanswered_asks(&self, link: LinkId) -> Vec<(BlockRange, Instant)> {
        let source = self.ledger.sources().get(link);
        let asks = source.into_iter().flat_map(Source::asks);
        asks.map(|ask| (ask.block, ask.at)).collect()
    }

    /// When the oldest request that is counted on was sent.
    pub fn oldest_live_ask(&self) -> Option<Instant> {
        let sources = self.ledger.sources().values();
        let oldest = sources.filter_map(|source| source.live_asks().next());
        oldest.map(|ask| ask.at).min()
    }

    /// How many requests a link has not answered, live or given up.
    pub fn unanswered(&self, link: LinkId) -> usize {
        self.ledger
            .sources()
            .get(link)
            .map_or(0, Source::unanswered)
    }

    /// Whether a link was asked for something and has not answered.
    pub fn owes(&self, link: LinkId) -> bool {
        self.unanswered(link) > 0
    }

    /// How many chunks a link has rejected since its last block.
    pub fn rejections(&self, link: LinkId) -> u32 {
        self.ledger
            .sources()
            .get(link)
            .map_or(0, Source::rejections)
    }

    /// How often in a row a link has been silent.
    pub fn snubs(&self, link: LinkId) -> u32 {
        self.ledger.sources().get(link).map_or(0, Source::snubs)
    }

    /// How many links were silent when they were last asked.
    pub fn snubbed(&self) -> usize {
        self.ledger.sources().totals().snubbed
    }

    /// Whether a link was asked for something, has sent nothing yet, and takes
    /// so long that others are tried as well.
    pub fn is_doubtful(&self, now: Instant, link: LinkId) -> bool {
        let unproven = self
            .ledger
            .sources()
            .get(link)
            .filter(|source| !source.is_proven());
        let asked = unproven.and_then(Source::oldest_ask);
        asked.is_some_and(|ask| now.duration_since(ask.at) >= self.restraints.patience())
    }

    /// Whether a link has something and would answer, but was not asked yet,
    /// while nothing is asked for but of unproven links.
    pub fn is_untried(&self, link: LinkId) -> bool {
        let untried = |source: &Source| {
            let unasked = !source.is_proven() && source.unanswered() == 0;
            unasked && !source.is_choked() && source.has_anything()
        };
        self.ledger.sources().totals().promised() == 0
            && self.ledger.sources().get(link).is_some_and(untried)
    }

    /// Whether something is asked for of unproven links.
    pub fn has_doubts(&self) -> bool {
        self.ledger.sources().totals().doubtful > 0
    }

    /// The measured rate of a link, in bytes per second.
    pub fn rate(&self, now: Instant, link: LinkId) -> Option<f64> {
        self.ledger.sources().get(link)?.rate(now)
    }

    /// How many links owe a block.
    pub fn busy_links(&self) -> usize {
        let busy = |source: &&Source| source.live_bytes() > 0;
        self.ledger.sources().values().filter(busy).count()
    }

    /// Panics if the plan contradicts itself. For tests.
    pub fn check_invariants(&self) {
        self.ledger.check_invariants();
    }
}

/// What to ask a link for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Ask(Request),
    /// Nothing yet, but perhaps later.
    Later,
    Nothing,
}
