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
mod delivery;
mod doubts;
mod homes;
mod idle_links;
mod kept;
mod lanes;
mod open_chunks;
mod source;
mod sources;
mod urgent;

pub use answer::{Arrival, Released, Request};
pub use config::{PlannerConfig, Strategy};

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use budget::{MAX_TURNS, RequestBudget};
use chunk_states::{ChunkState, ChunkStates};
use doubts::{Doubts, Group};
use homes::Homes;
use idle_links::IdleLinks;
use lanes::{Lane, Lanes};
use open_chunks::{Closed, Lead, OpenChunks};
use source::Source;
use sources::Sources;
use urgent::Urgent;

use super::LinkId;
use super::block_layout::BlockLayout;
use super::chunk_set::ChunkSet;
use super::picker::Picker;
use super::piece_map::PieceState;
use super::read_window::ReadWindow;
use crate::content::{Bitfield, BlockRange, ChunkIndex};
use crate::protocol::limits::MAX_REQUESTS;

/// An overtaking link must promise to be faster by this factor. Otherwise two
/// links would take a block from each other in turns.
const OVERTAKE: f64 = 1.25;

/// A link that has sent nothing yet is tried with a block that would take longer than this
/// from another link.
const TRY_AFTER: Duration = Duration::from_millis(500);

/// An overtaking link must be faster by this factor if the other one has not shown yet
/// how fast it is: the wait for its first block counts as well, and it seems too slow.
const OVERTAKE_UNMEASURED: f64 = 2.0;

/// How many bytes all links together are asked for while somebody reads, before it is
/// known how fast they are: what a line of 10 Mbit/s carries in a long round trip. What
/// slow links were asked for has to be taken over from them, and a reader that goes
/// elsewhere at once waits behind it.
const READING_FIRST_WINDOW: u64 = 256 << 10;

/// How long readers can do without a link, beyond two round trips, when its round trip is
/// measured.
const PROBE: Duration = Duration::from_millis(100);

/// What is expected to be here within a round trip and this time is probably on its way,
/// and is not given up for a reader.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// How many chunks may be open beyond the usual bound for the sake of a reader.
const EXTRA_OPEN: usize = 1;

/// How many blocks are left to other links in a search for one that this link would send
/// sooner. It bounds the work for each request.
const MAX_LEFT: usize = 256;

/// The shortest pause before a link that found nothing to do looks again.
const RETRY: Duration = Duration::from_millis(5);

/// Why a link is not asked at present, though it would answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restraint {
    /// Others have been asked for enough, until something comes.
    UntilArrival,
    /// Others have been asked only now, and may well answer by then.
    Until(Instant),
}

/// What to ask a link for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Ask(Request),
    /// Nothing yet, but it may overtake another link later.
    Later,
    Nothing,
}

/// An urgent block to ask a link for.
#[derive(Debug, Clone, Copy)]
enum UrgentChoice {
    Take(Wanted),
    /// Other links would send all of them sooner, as it seems now.
    Left,
    Nothing,
}

/// An urgent block that is not here.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    block: BlockRange,
    /// The link that was asked for it.
    holder: Option<LinkId>,
    /// The only link that may send it.
    only: Option<LinkId>,
    /// When its reader will want it.
    due: Instant,
}

/// Plans one download.
#[derive(Debug)]
pub struct Planner {
    layout: BlockLayout,
    config: PlannerConfig,
    states: ChunkStates,
    /// The missing chunks.
    picker: Picker,
    open: OpenChunks,
    /// Chunks whose next copy must come from one link.
    exclusive: BTreeSet<ChunkIndex>,
    sources: Sources,
    homes: Homes,
    idle: IdleLinks,
    budget: RequestBudget,
    doubts: Doubts,
    /// What readers want next: it is asked for before everything else.
    urgent: Urgent,
    /// How many owners there are, if this peer is the only leecher.
    owners_alone: Option<usize>,
    /// No link is silent before.
    silence: Option<Instant>,
}

impl Planner {
    /// A planner for all chunks of a content that are not `present`.
    pub fn new(layout: BlockLayout, present: &Bitfield, config: PlannerConfig) -> Self {
        let mut picker = Picker::new(layout.geometry().chunks(), config.seed);
        for chunk in present.iter_missing() {
            picker.put(chunk);
        }
        Self {
            layout,
            config: PlannerConfig {
                max_requests: config.max_requests.min(MAX_REQUESTS),
                ..config
            },
            states: ChunkStates::new(present),
            picker,
            open: OpenChunks::new(layout),
            exclusive: BTreeSet::new(),
            sources: Sources::default(),
            homes: Homes::default(),
            idle: IdleLinks::default(),
            budget: RequestBudget::default(),
            doubts: Doubts::default(),
            urgent: Urgent::none(layout.geometry()),
            owners_alone: None,
            silence: None,
        }
    }

    /// Some of the present chunks were not verified yet. They are not asked
    /// for and are not done, until [`chunk_stored`](Self::chunk_stored) or
    /// [`chunk_failed`](Self::chunk_failed) is called for them. Call this
    /// before there are links.
    pub fn hold(&mut self, chunks: &Bitfield) {
        for chunk in chunks.iter() {
            if self.states.is_stored(chunk) {
                self.states.set(chunk, ChunkState::Held);
            }
        }
    }

    /// Whether nothing may be asked for until something held is
    /// [missing](Self::chunk_failed).
    pub fn is_all_held(&self) -> bool {
        let none = |state| self.states.count(state) == 0;
        none(ChunkState::Missing) && none(ChunkState::Open) && !none(ChunkState::Held)
    }

    /// Whether every chunk is stored.
    pub fn is_done(&self) -> bool {
        self.states.are_all_stored()
    }

    /// Changes the order from the next pick on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.config.strategy = strategy;
        self.homes.invalidate();
    }

    // Links and what they have.

    /// A link is a source from now on. It has nothing yet.
    pub fn link_added(&mut self, link: LinkId) {
        self.sources.insert(link, Source::new());
    }

    /// A link may send nothing: it is treated as one that was silent before.
    pub fn suspect(&mut self, link: LinkId) {
        self.sources.update(link, Source::suspect);
    }

    /// A link is gone: what was asked of it is free again.
    pub fn link_removed(&mut self, link: LinkId) -> Released {
        self.set_has(link, ChunkSet::Nothing);
        let Some(source) = self.sources.remove(link) else {
            return Released::default();
        };
        self.idle.remove(link);
        let led = self.open.led_by(link);
        let mut released = self.release(link, source.live_asks().map(|ask| ask.block), led);
        self.forget_unobtainable(&mut released);
        released
    }

    /// A link announces all of its chunks at once. What it was asked for before and
    /// lacks is free again. O(chunks) for a partial owner, O(1) for a seeder.
    pub fn link_has(&mut self, link: LinkId, has: ChunkSet) -> Released {
        let has = match has {
            ChunkSet::Some(chunks) if chunks.is_complete() => ChunkSet::All,
            ChunkSet::Some(chunks) if chunks.is_empty() => ChunkSet::Nothing,
            has => has,
        };
        self.sources.update(link, Source::announce);
        self.set_has(link, has);
        self.release_lacking(link)
    }

    /// Frees what a link was asked for, or leads, and lacks. Its answers still come.
    fn release_lacking(&mut self, link: LinkId) -> Released {
        let Some(source) = self.sources.get(link) else {
            return Released::default();
        };
        let lacks = |chunk| !source.has_chunk(chunk);
        let asked = source.live_asks().map(|ask| ask.block);
        let asked: Vec<BlockRange> = asked.filter(|block| lacks(block.chunk)).collect();
        if asked.is_empty() && !source.lead().is_some_and(lacks) {
            return Released::default();
        }
        let mut led = self.open.led_by(link);
        led.retain(|&chunk| lacks(chunk));
        for &chunk in &led {
            self.sources.drop_lead(link, chunk);
        }
        for &block in &asked {
            self.give_up(link, block);
        }
        let mut released = self.release(link, asked, led);
        self.forget_unobtainable(&mut released);
        released
    }

    /// Takes all requests back: their blocks are free again, and no link leads a chunk.
    /// What the links have stays known.
    pub fn give_back(&mut self) -> Released {
        let links: Vec<LinkId> = self.sources.iter().map(|(link, _)| link).collect();
        let mut all = Released::default();
        for link in links {
            let source = self.sources.get(link);
            let asked = source.into_iter().flat_map(Source::live_asks);
            let asked: Vec<BlockRange> = asked.map(|ask| ask.block).collect();
            let led = self.open.led_by(link);
            for &chunk in &led {
                self.sources.drop_lead(link, chunk);
            }
            for &block in &asked {
                self.give_up(link, block);
            }
            let released = self.release(link, asked.iter().copied(), led);
            all.forgotten.extend(released.forgotten);
            all.cancelled
                .extend(asked.into_iter().map(|block| (link, block)));
        }
        all
    }

    /// Asks nobody for anything any more. Returns the requests that were counted on, and
    /// whose answers still come.
    pub fn give_all_up(&mut self) -> Vec<(LinkId, BlockRange)> {
        let links: Vec<LinkId> = self.sources.iter().map(|(link, _)| link).collect();
        let mut dropped = Vec::new();
        for link in links {
            let source = self.sources.get(link);
            let asked = source.into_iter().flat_map(Source::live_asks);
            dropped.extend(asked.map(|ask| (link, ask.block)));
            self.link_has(link, ChunkSet::Nothing);
        }
        dropped
    }

    /// A link was asked for this by another plan, at these times, and its answers still
    /// come.
    pub fn link_owes(&mut self, link: LinkId, asks: Vec<(BlockRange, Instant)>) {
        let last = asks.iter().map(|(_, at)| *at).max();
        self.sources.update(link, |source| source.owe(asks));
        let due = last.and_then(|last| last.checked_add(self.config.max_silence));
        self.silence = self.silence.into_iter().chain(due).min();
    }

    /// A link has one more chunk. O(1), or O(chunks) for its first and its last.
    pub fn link_gained(&mut self, link: LinkId, chunk: ChunkIndex) {
        match self.sources.has(link) {
            ChunkSet::All => return,
            ChunkSet::Nothing => {
                let mut chunks = Bitfield::none(self.layout.geometry().chunks());
                chunks.insert(chunk);
                // It had nothing, so nothing was asked of it.
                self.link_has(link, ChunkSet::Some(chunks));
                return;
            }
            ChunkSet::Some(_) => {}
        }
        let waits = self.picker.is_waiting(chunk);
        let wanted = !self.states.is_stored(chunk);
        let gained = self.sources.update(link, |source| {
            let is_new = source.gain(chunk, waits, wanted);
            (is_new, source.became_seeder())
        });
        match gained {
            // The picker counts partial owners only.
            Some((true, true)) => {
                let before = self
                    .sources
                    .update(link, |source| source.set_has(ChunkSet::All, 0, 0));
                if let Some(ChunkSet::Some(mut counted)) = before {
                    counted.remove(chunk);
                    counted.iter().for_each(|chunk| self.picker.lost(chunk));
                }
                self.homes.invalidate();
            }
            Some((true, false)) => self.picker.gained(chunk),
            _ => {}
        }
    }

    /// A link lacks a chunk after all. A seeder becomes a partial owner for
    /// good: going back and forth would cost O(chunks) each time.
    fn link_lost(&mut self, link: LinkId, chunk: ChunkIndex) {
        let waits = self.picker.is_waiting(chunk);
        let wanted = !self.states.is_stored(chunk);
        if *self.sources.has(link) == ChunkSet::All {
            self.sources.update(link, Source::mark_unreliable);
            let mut has = Bitfield::all(self.layout.geometry().chunks());
            has.remove(chunk);
            self.set_has(link, ChunkSet::Some(has));
        } else if self.sources.update(link, |s| s.lose(chunk, waits, wanted)) == Some(true) {
            self.picker.lost(chunk);
        }
    }

    /// Replaces what a link has.
    fn set_has(&mut self, link: LinkId, has: ChunkSet) {
        let (candidates, wanted) = match &has {
            ChunkSet::Some(has) => {
                let candidates = self.picker.waiting().iter_common(has, 0).count();
                let wanted = has.iter().filter(|&chunk| !self.states.is_stored(chunk));
                (candidates as u32, wanted.count() as u32)
            }
            ChunkSet::Nothing | ChunkSet::All => (0, 0),
        };
        let change = |source: &mut Source| source.set_has(has.clone(), candidates, wanted);
        let Some(before) = self.sources.update(link, change) else {
            return;
        };
        self.homes.invalidate();
        // The picker counts partial owners only.
        if let ChunkSet::Some(chunks) = before {
            chunks.iter().for_each(|chunk| self.picker.lost(chunk));
        }
        if let ChunkSet::Some(chunks) = has {
            chunks.iter().for_each(|chunk| self.picker.gained(chunk));
        }
    }

    /// The other side suggests that a chunk is asked for. It is, if no other
    /// chunk is rarer. Only the latest few suggestions count.
    pub fn suggested(&mut self, link: LinkId, chunk: ChunkIndex) {
        if self.layout.geometry().contains(chunk) {
            self.sources.suggest(link, chunk);
        }
    }

    /// Whether a link answers requests. One that does not leads only chunks of
    /// which something is on its way: nothing else would tell when to stop
    /// waiting for it. See [`leads_no_more`](Self::leads_no_more).
    pub fn link_choked(&mut self, link: LinkId, choked: bool) -> Released {
        let changed = self
            .sources
            .update(link, |source| source.set_choked(choked));
        if changed.is_none() || !choked {
            return Released::default();
        }
        self.leads_no_more(link)
    }

    /// Leaves the chunks of which nothing is on its way from a link to others.
    /// For a choked link, when something has come.
    pub fn leads_no_more(&mut self, link: LinkId) -> Released {
        let mut led = self.open.led_by(link);
        if let Some(source) = self.sources.get(link) {
            let comes = |chunk| source.live_asks().any(|ask| ask.block.chunk == chunk);
            led.retain(|&chunk| !comes(chunk));
        }
        for &chunk in &led {
            self.sources.drop_lead(link, chunk);
        }
        self.release(link, [], led)
    }

    // Requests and answers.

    /// How many owners there are or will be, if this peer is the only leecher. In a crowd
    /// (`None`) owners make their links take turns, and little is asked for at a time.
    pub fn set_owners_alone(&mut self, owners: Option<usize>) {
        self.owners_alone = owners;
    }

    /// How much may be outstanding on a link.
    fn window(&self, now: Instant, source: &Source) -> u64 {
        let alone = self.owners_alone.filter(|_| !source.takes_turns());
        let Some(owners) = alone else {
            return source.window(now, &self.config);
        };
        let owners = owners.max(1) as u64;
        let wanted = self.states.count(ChunkState::Missing) + self.states.count(ChunkState::Open);
        let wanted = u64::from(wanted).min(self.config.max_open as u64);
        let part = (wanted * self.layout.geometry().chunk_len()).div_ceil(owners);
        let first = part.min(self.config.first_window);
        if self.urgent.is_empty() {
            return source.window_alone(now, &self.config, first);
        }
        if source.wants_probe() && self.is_calm(now, source) {
            // As little as possible, see `Source::has_room`.
            return 0;
        }
        let first = first.min(READING_FIRST_WINDOW / owners);
        source.window_reading(now, &self.config, self.layout.block_len(), first)
    }

    /// Whether readers have enough to go on with while the round trip of a link is
    /// measured.
    fn is_calm(&self, now: Instant, source: &Source) -> bool {
        let is_here = |chunk| {
            let state = self.states.get(chunk);
            matches!(state, ChunkState::Stored | ChunkState::Complete)
        };
        let mut missing = self.urgent.iter().filter(|(chunk, _)| !is_here(*chunk));
        let pause = source.round_trip().unwrap_or_default() * 2 + PROBE;
        missing.next().is_none_or(|(_, due)| due > now + pause)
    }

    /// Whether a link answers, has something, and may owe one more block.
    pub fn has_room(&self, now: Instant, link: LinkId) -> bool {
        self.sources.get(link).is_some_and(|source| {
            !source.is_choked()
                && source.has_anything()
                && source.has_room(&self.config, &self.layout, self.window(now, source))
        })
    }

    /// The length of the longest block that is asked for, in bytes.
    pub fn block_len(&self) -> u64 {
        self.layout.block_len()
    }

    /// What to ask a link for now. Call it until it returns `None`.
    pub fn next_request(&mut self, now: Instant, link: LinkId) -> Option<Request> {
        if !self.has_room(now, link) {
            return None;
        }
        if let Some(restraint) = self.assess(now, link) {
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
        let ask = |block| Request {
            block,
            overtaken: None,
        };
        let urgent = match self.urgent.is_empty() {
            true => UrgentChoice::Nothing,
            false => self.urgent_block(now, link),
        };
        if let UrgentChoice::Take(wanted) = urgent {
            return Choice::Ask(self.take_urgent(link, wanted));
        }
        if let Some(block) = self.free_block(link) {
            return Choice::Ask(ask(block));
        }
        match (urgent, self.overtake(now, link)) {
            (UrgentChoice::Left, Choice::Nothing) => Choice::Later,
            (_, choice) => choice,
        }
    }

    /// Notes a request that is sent now.
    fn ask(&mut self, now: Instant, link: LinkId, request: Request) {
        let Request { block, overtaken } = request;
        self.idle.remove(link);
        if let Some(victim) = overtaken {
            self.give_up(victim, block);
        }
        self.open.ask(link, block);
        self.sources.update(link, |source| source.ask(now, block));
        self.budget.asked(now);
        let silence = self.first_silence().min(self.config.max_silence);
        let earliest = now.checked_add(silence);
        self.silence = [self.silence, earliest].into_iter().flatten().min();
    }

    /// When a link that might overtake another looks again: when it could have
    /// sent a block.
    fn next_look(&self, now: Instant, link: LinkId) -> Option<Instant> {
        let rate = self.sources.get(link)?.rate(now);
        let pace = match rate {
            Some(rate) => Duration::try_from_secs_f64(self.layout.block_len() as f64 / rate).ok(),
            None => Some(TRY_AFTER / 4),
        };
        let pace = pace.unwrap_or(self.config.silence);
        now.checked_add(pace.min(self.config.silence).max(RETRY))
    }

    /// A block arrived from a link.
    pub fn block_arrived(&mut self, now: Instant, link: LinkId, block: BlockRange) -> Arrival {
        let answered = self.sources.update(link, |source| {
            let ask = source.answered(now, block)?;
            source.delivered(now, &ask);
            Some(ask)
        });
        let Some(ask) = answered.flatten() else {
            return Arrival::Unasked;
        };
        let took = now.duration_since(ask.at);
        self.budget.delivered(now, block.len.into(), took);
        self.answered(now);
        let arrival = self.open.arrived(link, block, ask.live);
        if let Arrival::Wanted {
            overtaken: Some(holder),
        } = arrival
        {
            self.give_up(holder, block);
        }
        arrival
    }

    /// A link will not send a block. It counts as lacking that chunk, unless
    /// it is choked or the request had been given up. `None` if the block was
    /// not asked of it. O(links), or O(chunks) for the first rejection of a
    /// seeder.
    pub fn rejected(&mut self, now: Instant, link: LinkId, block: BlockRange) -> Option<Released> {
        let answered = self
            .sources
            .update(link, |source| source.answered(now, block));
        let ask = answered??;
        self.answered(now);
        if !ask.live {
            return Some(Released::default());
        }
        let chunk = block.chunk;
        self.sources.drop_lead(link, chunk);
        let source = self.sources.get(link)?;
        if source.is_choked() {
            return Some(self.release(link, [block], vec![chunk]));
        }
        let others = source.live_asks().map(|ask| ask.block);
        let others: Vec<BlockRange> = others.filter(|other| other.chunk == chunk).collect();
        self.sources.update(link, Source::rejected);
        for &other in &others {
            self.give_up(link, other);
        }
        self.link_lost(link, chunk);
        let blocks = others.iter().copied().chain([block]);
        let mut released = self.release(link, blocks, vec![chunk]);
        let others = others.into_iter().map(|other| (link, other));
        released.cancelled.extend(others);
        self.forget_unobtainable(&mut released);
        Some(released)
    }

    /// An answer came, of any kind.
    fn answered(&mut self, now: Instant) {
        if self.sources.totals().live == 0 {
            self.budget.rested(now);
        }
    }

    /// Takes the requests of silent links back. Returns these links, and what
    /// is given up.
    pub fn handle_timeout(&mut self, now: Instant) -> (Vec<LinkId>, Released) {
        self.idle.handle_timeout(now);
        let mut all = Released::default();
        if self.silence.is_none_or(|silence| silence > now) {
            return (Vec::new(), all);
        }
        let first = self.first_silence();
        let is_silent = |source: &Source| {
            let deadline = source.deadline(&self.config, first);
            deadline.is_some_and(|deadline| deadline <= now)
        };
        let silent = self.sources.iter().filter(|(_, source)| is_silent(source));
        let silent: Vec<LinkId> = silent.map(|(link, _)| link).collect();
        for &link in &silent {
            let Some(blocks) = self.sources.update(link, |source| source.silent(now)) else {
                continue;
            };
            let led = self.open.led_by(link);
            let released = self.release(link, blocks.iter().copied(), led);
            all.forgotten.extend(released.forgotten);
            all.cancelled.extend(released.cancelled);
            all.cancelled.extend(blocks.into_iter().map(|b| (link, b)));
        }
        let deadlines = self.sources.values();
        let deadlines = deadlines.filter_map(|source| source.deadline(&self.config, first));
        self.silence = deadlines.min();
        (silent, all)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and then
    /// [`next_request`](Self::next_request) for the idle links; see
    /// [`next_idle`](Self::next_idle).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.idle.retry().filter(|_| !self.open.is_empty());
        self.silence.into_iter().chain(retry).min()
    }

    // How much is asked for.

    /// Why a link is not asked for anything at present, though it would answer.
    fn assess(&mut self, now: Instant, link: LinkId) -> Option<Restraint> {
        let source = self.sources.get(link)?;
        let takes_turns = source.takes_turns();
        if source.is_snubbed() && self.sources.totals().live > 0 {
            return Some(Restraint::UntilArrival);
        }
        if source.is_proven() {
            let spent = takes_turns && self.spends_budget(now);
            return spent.then_some(Restraint::UntilArrival);
        }
        let until = self.waits_for_doubtful(now, Group::of(takes_turns));
        until.map(Restraint::Until)
    }

    /// Measures the budget, and returns whether so much is asked for that links
    /// which take turns are not asked as well.
    fn spends_budget(&mut self, now: Instant) -> bool {
        let chunk_len = self.layout.geometry().chunk_len();
        let least = RequestBudget::least(self.picker.held_in_part(), chunk_len);
        let promised = self.sources.totals().promised();
        if promised < least {
            return false;
        }
        self.budget.refresh(now, self.config.slack);
        promised >= self.budget.pipe()
    }

    /// Looks at what was asked of unproven links, and returns until when no
    /// more is asked of those of a group. Where nobody takes turns, all are
    /// tried at once.
    fn waits_for_doubtful(&mut self, now: Instant, group: Group) -> Option<Instant> {
        let enough = u64::from(MAX_TURNS) * self.layout.geometry().chunk_len();
        let totals = self.sources.totals();
        if totals.turn_takers == 0 || totals.doubtful < enough {
            return None;
        }
        if !self.doubts.is_fresh(now, group, totals.doubtful) {
            let patience = self.patience();
            self.doubts
                .refresh(now, group, &self.sources, enough, patience);
        }
        self.doubts.until(group)
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
        if !self.sources.contains(link) {
            return false;
        }
        if let Some(restraint) = self.assess(now, link) {
            self.hold_back(link, restraint);
            return false;
        }
        let offers = self.offers(link);
        if !offers {
            self.idle.add(link);
        }
        offers
    }

    /// Holds all links back, if so much is asked for at present that none of
    /// them is asked for more. Returns whether that is so.
    pub fn hold_back_all(&mut self, now: Instant) -> bool {
        let all_take_turns = self.sources.totals().turn_takers >= self.sources.len();
        if !all_take_turns || !self.spends_budget(now) {
            return false;
        }
        let until = self.waits_for_doubtful(now, Group::TakesTurns);
        self.idle.look_again(until);
        let held_back = self.sources.totals().unproven == 0 || until.is_some();
        if held_back {
            self.idle.pass_over();
        }
        held_back
    }

    /// Whether some link was passed over since the last call. It may be asked
    /// when something has come.
    pub fn take_passed_over(&mut self) -> bool {
        self.idle.take_passed_over()
    }

    /// How long a link that has sent nothing yet may take.
    fn first_silence(&self) -> Duration {
        let block_len = self.layout.block_len();
        self.budget.first_silence(block_len, self.config.silence)
    }

    /// How long a link that has sent nothing yet may take before others are
    /// tried as well.
    fn patience(&self) -> Duration {
        Doubts::patience(self.first_silence())
    }

    // What readers want next.

    /// Readers want these parts of the content next: they are asked for before everything
    /// else. If a reader has gone elsewhere, what others were asked for and would keep it
    /// waiting is given up. O(chunks in the windows + requests).
    pub fn set_windows(&mut self, now: Instant, windows: &[ReadWindow]) -> Released {
        let geometry = self.layout.geometry();
        let surprise = self.urgent.is_surprised_by(windows, &geometry);
        self.urgent = Urgent::new(now, windows, geometry);
        self.picker.reserve(self.urgent.members());
        if !surprise {
            return Released::default();
        }
        self.homes.invalidate();
        let links: Vec<LinkId> = self.sources.iter().map(|(link, _)| link).collect();
        let mut all = Released::default();
        for link in links {
            let released = self.make_way(now, link);
            all.forgotten.extend(released.forgotten);
            all.cancelled.extend(released.cancelled);
        }
        all
    }

    /// Gives up what a link was asked for that is not urgent, except what is probably on
    /// its way.
    fn make_way(&mut self, now: Instant, link: LinkId) -> Released {
        let Some(source) = self.sources.get(link) else {
            return Released::default();
        };
        let soon = match (source.rate(now), source.round_trip()) {
            (Some(rate), Some(time)) => (rate * (time + UNDER_WAY).as_secs_f64()) as u64,
            _ => 0,
        };
        let soon = soon.max(self.layout.block_len());
        let mut before = 0;
        let mut blocks = Vec::new();
        for ask in source.live_asks() {
            let chunk = ask.block.chunk;
            if before >= soon && !self.urgent.contains(chunk) && self.open.is_shared(chunk) {
                blocks.push(ask.block);
            }
            before += u64::from(ask.block.len);
        }
        let mut led: Vec<ChunkIndex> = Vec::new();
        for &block in &blocks {
            self.give_up(link, block);
            self.sources.drop_lead(link, block.chunk);
            if self.open.leader(block.chunk) == Some(link) {
                led.push(block.chunk);
            }
        }
        let mut released = self.release(link, blocks.iter().copied(), led);
        released
            .cancelled
            .extend(blocks.into_iter().map(|block| (link, block)));
        released
    }

    /// An urgent block for a link: the first one that no other link would send sooner, or
    /// one that another link was asked for and would send too late.
    fn urgent_block(&mut self, now: Instant, link: LinkId) -> UrgentChoice {
        let lanes = self.lanes(now, link);
        self.search_urgent(now, link, lanes)
    }

    fn search_urgent(&self, now: Instant, link: LinkId, mut lanes: Lanes) -> UrgentChoice {
        let Some(&mine) = lanes.get(link) else {
            return UrgentChoice::Nothing;
        };
        let mut left = 0;
        let mut could_help = false;
        for wanted in self.urgent_blocks(link) {
            if left >= MAX_LEFT {
                break;
            }
            let chunk = wanted.block.chunk;
            let can_send = self.sources.has(link).contains(chunk);
            let soonest = match (wanted.holder, wanted.only) {
                (Some(holder), _) if can_send && self.comes_late(now, &mine, holder, wanted) => {
                    return UrgentChoice::Take(wanted);
                }
                (Some(_), _) => continue,
                (None, Some(only)) => Some(only),
                (None, None) => {
                    let has = |link| self.sources.has(link).contains(chunk);
                    lanes.assign(wanted.block.len, has)
                }
            };
            if soonest == Some(link) {
                return UrgentChoice::Take(wanted);
            }
            left += 1;
            could_help |= can_send && wanted.only.is_none();
        }
        match could_help {
            true => UrgentChoice::Left,
            false => UrgentChoice::Nothing,
        }
    }

    /// The links that urgent blocks may be left to, and this one. What a link can do that
    /// has sent nothing yet is not known: others are not relied on, and this one gets
    /// what would take long from others.
    fn lanes(&mut self, now: Instant, link: LinkId) -> Lanes {
        let typical = self.known_rate(now);
        let spent = self.sources.totals().turn_takers > 0 && self.spends_budget(now);
        let some_proven = self.sources.values().any(Source::is_proven);
        let mut lanes = Lanes::default();
        for (other, source) in self.sources.iter() {
            let restrained = spent && source.takes_turns();
            let unproven = some_proven && !source.is_proven();
            // This one has room, or it would not be looked at, even if it was silent.
            if other != link && (restrained || !source.may_be_asked(&self.layout)) {
                continue;
            }
            let delay = match unproven {
                true => TRY_AFTER.as_secs_f64(),
                false => 0.0,
            };
            if unproven && other != link {
                continue;
            }
            lanes.push(Lane {
                link: Some(other),
                free_in: source.finish_in(now, 0, typical) + delay,
                round_trip: source.round_trip().unwrap_or_default().as_secs_f64(),
                rate: source.rate(now).unwrap_or(typical).max(1.0),
            });
        }
        // Owners that are being dialled count at the start only: they may never come.
        let began = self.sources.values().any(|s| s.round_trip().is_some());
        let expected = self.owners_alone.filter(|_| !began).unwrap_or(0);
        lanes.expect(expected, typical);
        lanes
    }

    /// The mean of all known rates, or any, as long as nothing is known: then all links
    /// count as equally fast.
    fn known_rate(&self, now: Instant) -> f64 {
        let typical = self.typical_rate(now);
        if typical > 1.0 { typical } else { 1.0 }
    }

    /// The urgent blocks that are not here, in order, as far as a link could open their
    /// chunks.
    fn urgent_blocks(&self, link: LinkId) -> impl Iterator<Item = Wanted> {
        let chunks = self.urgent.iter();
        chunks.flat_map(move |(chunk, due)| {
            let is_missing = self.states.get(chunk) == ChunkState::Missing;
            let opens = is_missing && self.may_open_urgent(link, chunk);
            let closed = (0..self.layout.blocks(chunk)).take_while(move |_| opens);
            let closed = closed.map(move |position| (self.layout.block(chunk, position), None));
            let exclusive = !is_missing && !self.open.is_shared(chunk);
            let only = self.open.leader(chunk).filter(|_| exclusive);
            self.open
                .missing(chunk)
                .chain(closed)
                .map(move |(block, holder)| Wanted {
                    block,
                    holder,
                    only,
                    due,
                })
        })
    }

    /// Whether an urgent chunk may be opened for a link. One that must come from a single
    /// link has to wait until that link has asked for all of the one before.
    fn may_open_urgent(&self, link: LinkId, chunk: ChunkIndex) -> bool {
        let lead = self.sources.get(link).and_then(Source::lead);
        let must_lead = self.exclusive.contains(&chunk);
        self.has_place(EXTRA_OPEN)
            && !(must_lead && lead.is_some_and(|c| self.open.needs_leader(c)))
    }

    /// Whether a block that another link was asked for comes too late for its reader, and
    /// would come sooner from this one.
    fn comes_late(&self, now: Instant, mine: &Lane, holder: LinkId, wanted: Wanted) -> bool {
        let known = |link| self.sources.get(link).filter(|s| s.rate(now).is_some());
        let is_known = mine.link.and_then(known).is_some();
        if Some(holder) == mine.link || wanted.only.is_some() || !is_known {
            return false;
        }
        let Some(source) = self.sources.get(holder) else {
            return false;
        };
        let due_in = wanted.due.saturating_duration_since(now).as_secs_f64();
        let factor = match source.is_measured() {
            true => OVERTAKE,
            false => OVERTAKE_UNMEASURED,
        };
        let soon = mine.finish(wanted.block.len) * factor;
        let typical = self.known_rate(now);
        if source.finish_in(now, 0, typical) <= due_in.max(soon) {
            return false;
        }
        let asked_before = source
            .live_ask(wanted.block)
            .is_some_and(|ask| ask.at < now);
        let theirs = source.block_in(now, wanted.block, typical);
        asked_before && theirs > due_in && soon < theirs
    }

    fn take_urgent(&mut self, link: LinkId, wanted: Wanted) -> Request {
        let chunk = wanted.block.chunk;
        if self.states.get(chunk) == ChunkState::Missing {
            // All links may help with it, so none leads it, unless it must.
            self.open_chunk(chunk);
            if self.exclusive.contains(&chunk) {
                self.lead(link, chunk);
            }
        }
        Request {
            block: wanted.block,
            overtaken: wanted.holder,
        }
    }

    // Which block comes next.

    /// A free block for a link that is not urgent: of its own chunk, of one that nobody
    /// leads, of a new one, or of one that another link leads.
    fn free_block(&mut self, link: LinkId) -> Option<BlockRange> {
        let source = self.sources.get(link)?;
        // Where only the leader may ask, it asks for the rest first.
        let is_usual =
            |&chunk: &ChunkIndex| !self.urgent.contains(chunk) || self.open.needs_leader(chunk);
        let lead = source.lead().filter(is_usual);
        let own = lead.and_then(|chunk| self.open.first_free(chunk));
        if own.is_some() {
            return own;
        }
        let urgent = (!self.urgent.is_empty()).then(|| self.urgent.members());
        if let Some(orphan) = self.open.joinable(source.has(), Lead::Free, urgent) {
            self.lead(link, orphan);
            return self.open.first_free(orphan);
        }
        if self.may_open()
            && let Some(chunk) = self.pick(link)
        {
            self.open_chunk(chunk);
            self.lead(link, chunk);
            return self.open.first_free(chunk);
        }
        if !self.open.has_free() {
            return None;
        }
        let urgent = (!self.urgent.is_empty()).then(|| self.urgent.members());
        let has = self.sources.has(link);
        let chunk = self.open.joinable(has, Lead::Taken, urgent)?;
        self.open.first_free(chunk)
    }

    /// Whether a link has a free block, or a chunk that may be opened.
    fn offers(&self, link: LinkId) -> bool {
        let Some(source) = self.sources.get(link) else {
            return false;
        };
        let has_waiting = match source.has() {
            ChunkSet::Nothing => false,
            ChunkSet::Some(_) => source.candidates() > 0,
            ChunkSet::All => !self.picker.is_empty(),
        };
        let joinable = |lead| self.open.joinable(source.has(), lead, None).is_some();
        has_waiting && self.may_open() || joinable(Lead::Free) || joinable(Lead::Taken)
    }

    /// Takes over the block that would come last, if this link would send it
    /// sooner.
    fn overtake(&self, now: Instant, link: LinkId) -> Choice {
        // As long as chunks wait that may be opened, a link will come for them,
        // and nothing is held up.
        let waits = !self.picker.is_empty() && self.may_open();
        let Some(thief) = self.sources.get(link).filter(|_| !waits) else {
            return Choice::Nothing;
        };
        // A link that has sent nothing yet promises nothing. But where links are asked for
        // much at a time, little else may be left to try it with.
        let is_untried = thief.rate(now).is_none();
        let may_try = self.owners_alone.is_some() && thief.unanswered() == 0;
        if is_untried && !may_try {
            return Choice::Nothing;
        }
        let typical = self.typical_rate(now);
        let last = self.last_blocks(now, link, thief, typical);
        let Some((victim, block, theirs)) = last.max_by(|a, b| a.2.total_cmp(&b.2)) else {
            return Choice::Nothing;
        };
        let mine = match is_untried {
            true => TRY_AFTER.as_secs_f64(),
            false => thief.finish_in(now, block.len.into(), typical),
        };
        if mine * OVERTAKE < theirs {
            let overtaken = Some(victim);
            Choice::Ask(Request { block, overtaken })
        } else {
            Choice::Later
        }
    }

    /// The mean of all known rates.
    fn typical_rate(&self, now: Instant) -> f64 {
        let rates = self.sources.values().filter_map(|source| source.rate(now));
        let (count, sum) = rates.fold((0, 0.0), |(n, sum), rate| (n + 1, sum + rate));
        sum / f64::from(count)
    }

    /// The last block of each other link that a link could take over, and in
    /// how many seconds it is expected.
    fn last_blocks(
        &self,
        now: Instant,
        link: LinkId,
        thief: &Source,
        typical: f64,
    ) -> impl Iterator<Item = (LinkId, BlockRange, f64)> {
        let others = self.sources.iter().filter(move |(other, _)| *other != link);
        others.filter_map(move |(other, source)| {
            let last = source.live_asks().rev().find(|ask| {
                // A block that was asked for only now may have been taken from
                // this very link.
                let chunk = ask.block.chunk;
                ask.at < now && self.open.is_shared(chunk) && thief.has_chunk(chunk)
            })?;
            Some((other, last.block, source.finish_in(now, 0, typical)))
        })
    }

    /// The chunk that a link should open next.
    fn pick(&mut self, link: LinkId) -> Option<ChunkIndex> {
        let chunks = self.layout.geometry().chunks();
        let source = self.sources.get(link)?;
        if self.config.strategy == Strategy::RarestFirst
            && source.has_suggestions()
            && let Some(chunk) = self.pick_suggested(link)
        {
            return Some(chunk);
        }
        let source = self.sources.get(link)?;
        let has = match source.has() {
            ChunkSet::Nothing => return None,
            ChunkSet::Some(has) => Some(has),
            ChunkSet::All => None,
        };
        match self.config.strategy {
            Strategy::Sequential => self.picker.first_in(0..chunks, has),
            Strategy::RarestFirst if !self.sources.values().any(Source::is_leecher) => {
                let seeders = self.sources.seeders();
                self.homes.pick(link, &self.picker, seeders)
            }
            Strategy::RarestFirst if has.is_some() && source.candidates() == 0 => None,
            Strategy::RarestFirst => self.picker.rarest(has),
        }
    }

    /// A suggested chunk, unless a rarer one waits.
    fn pick_suggested(&mut self, link: LinkId) -> Option<ChunkIndex> {
        let picker = &self.picker;
        let waits = |chunk| picker.is_waiting(chunk) && picker.is_unreserved(chunk);
        let chunk = self.sources.next_suggestion(link, waits)?;
        let rarest = self.picker.rarest(None)?;
        (self.picker.copies(chunk) <= self.picker.copies(rarest)).then_some(chunk)
    }

    // Chunks as they open and close.

    /// Whether there is room for one more open chunk.
    fn may_open(&self) -> bool {
        self.has_place(0)
    }

    /// The same with so many more places.
    fn has_place(&self, extra: usize) -> bool {
        let open = self.states.count(ChunkState::Open) as usize;
        let complete = self.states.count(ChunkState::Complete) as usize;
        open + complete < self.config.max_open + extra
    }

    fn open_chunk(&mut self, chunk: ChunkIndex) {
        self.picker.take(chunk);
        self.sources.chunk_taken(chunk);
        self.states.set(chunk, ChunkState::Open);
        self.open.open(chunk, self.exclusive.contains(&chunk));
    }

    /// A link leads an open chunk from now on.
    fn lead(&mut self, link: LinkId, chunk: ChunkIndex) {
        // The chunk that it led before has no free block left. The link stays
        // the leader there: an exclusive chunk knows its sender by that.
        let before = self.sources.set_lead(link, chunk);
        debug_assert_ne!(before, Some(chunk));
        self.open.set_leader(chunk, link);
    }

    /// All blocks of a chunk are here: it is verified and written next.
    pub fn chunk_complete(&mut self, chunk: ChunkIndex) {
        let is_whole = self.open.is_whole(chunk);
        if let Some(Closed { leader, .. }) = self.open.close(chunk) {
            debug_assert!(is_whole, "a chunk is complete that lacks blocks");
            self.drop_lead(chunk, leader);
            self.states.set(chunk, ChunkState::Complete);
        }
    }

    /// A complete chunk is verified and written, or a held one verified.
    /// Returns whether idle links may find something now.
    pub fn chunk_stored(&mut self, chunk: ChunkIndex) -> bool {
        let was_full = !self.may_open();
        match self.states.get(chunk) {
            ChunkState::Complete | ChunkState::Held => {}
            ChunkState::Missing | ChunkState::Open | ChunkState::Stored => return false,
        }
        self.states.set(chunk, ChunkState::Stored);
        self.exclusive.remove(&chunk);
        self.sources.chunk_stored(chunk);
        was_full && self.may_open()
    }

    /// A complete or held chunk was bad: it is missing again. The next copy of
    /// a complete one comes from a single link.
    pub fn chunk_failed(&mut self, chunk: ChunkIndex) {
        match self.states.get(chunk) {
            ChunkState::Complete => {
                self.exclusive.insert(chunk);
            }
            ChunkState::Held => {}
            ChunkState::Missing | ChunkState::Open | ChunkState::Stored => return,
        }
        self.chunk_missing(chunk);
    }

    /// A chunk waits again to be asked for. O(links).
    fn chunk_missing(&mut self, chunk: ChunkIndex) {
        self.states.set(chunk, ChunkState::Missing);
        self.picker.put(chunk);
        self.sources.chunk_waits(chunk);
    }

    fn drop_lead(&mut self, chunk: ChunkIndex, leader: Option<LinkId>) {
        if let Some(leader) = leader {
            self.sources.drop_lead(leader, chunk);
        }
    }

    /// A block is no longer expected from a link. The caller decides from which
    /// link it is.
    fn give_up(&mut self, link: LinkId, block: BlockRange) {
        self.sources.update(link, |source| source.take_back(block));
    }

    /// Makes blocks free that were asked of a link, and leaves chunks that it
    /// led to others. Chunks of which nothing is left are missing again.
    fn release(
        &mut self,
        link: LinkId,
        blocks: impl IntoIterator<Item = BlockRange>,
        led: Vec<ChunkIndex>,
    ) -> Released {
        let mut released = Released::default();
        let mut touched: BTreeSet<ChunkIndex> = led.into_iter().collect();
        for block in blocks {
            if self.open.release(link, block) {
                touched.insert(block.chunk);
            }
        }
        for chunk in touched {
            self.open.drop_leader(chunk, link);
            if self.open.is_abandoned(chunk) {
                self.close(chunk, &mut released);
            }
        }
        released
    }

    /// Closes open chunks that no link has and of which nothing is on its way.
    /// They would keep their places forever.
    fn forget_unobtainable(&mut self, released: &mut Released) {
        let has = |chunk: &ChunkIndex| self.sources.values().any(|s| s.has_chunk(*chunk));
        let stuck: Vec<ChunkIndex> = self.open.unasked().filter(|c| !has(c)).collect();
        for chunk in stuck {
            self.close(chunk, released);
        }
    }

    /// An open chunk is missing again, with all that was asked for it.
    fn close(&mut self, chunk: ChunkIndex, released: &mut Released) {
        let Some(Closed { leader, asked }) = self.open.close(chunk) else {
            return;
        };
        self.drop_lead(chunk, leader);
        for &(link, block) in &asked {
            self.give_up(link, block);
        }
        released.cancelled.extend(asked);
        self.chunk_missing(chunk);
        released.forgotten.push(chunk);
    }

    // Questions.

    /// The state of each chunk in order, and how many of the links that have some chunks,
    /// and not all, have it.
    pub fn pieces(&self) -> impl Iterator<Item = (PieceState, u32)> {
        let chunks = (0..self.states.len()).map(ChunkIndex);
        chunks.map(|chunk| {
            let state = match self.states.get(chunk) {
                ChunkState::Missing => PieceState::Missing,
                ChunkState::Open => PieceState::UnderWay,
                ChunkState::Complete => PieceState::Arrived,
                ChunkState::Held => PieceState::Unchecked,
                ChunkState::Stored => PieceState::Stored,
            };
            (state, self.picker.copies(chunk).into())
        })
    }

    /// The first link at or after `from` that found nothing to ask for.
    pub fn next_idle(&self, from: LinkId) -> Option<LinkId> {
        self.idle.next_from(from)
    }

    /// What a link has.
    pub fn has(&self, link: LinkId) -> &ChunkSet {
        self.sources.has(link)
    }

    /// Whether a link has a chunk that is not stored yet.
    pub fn is_useful(&self, link: LinkId) -> bool {
        let has_wanted = |source: &Source| match source.has() {
            ChunkSet::Nothing => false,
            ChunkSet::All => !self.is_done(),
            ChunkSet::Some(_) => source.wanted() > 0,
        };
        self.sources.get(link).is_some_and(has_wanted)
    }

    /// Whether a link does not answer requests at present.
    pub fn is_choked(&self, link: LinkId) -> bool {
        self.sources.get(link).is_some_and(Source::is_choked)
    }

    /// What a link was asked for and has not answered, live or given up, and when.
    pub fn unanswered_asks(&self, link: LinkId) -> Vec<(BlockRange, Instant)> {
        let source = self.sources.get(link);
        let asks = source.into_iter().flat_map(Source::asks);
        asks.map(|ask| (ask.block, ask.at)).collect()
    }

    /// When the oldest request that is counted on was sent.
    pub fn oldest_live_ask(&self) -> Option<Instant> {
        let sources = self.sources.values();
        let oldest = sources.filter_map(|source| source.live_asks().next());
        oldest.map(|ask| ask.at).min()
    }

    /// How many requests a link has not answered, live or given up.
    pub fn unanswered(&self, link: LinkId) -> usize {
        self.sources.get(link).map_or(0, Source::unanswered)
    }

    /// Whether a link was asked for something and has not answered.
    pub fn owes(&self, link: LinkId) -> bool {
        self.unanswered(link) > 0
    }

    /// How many chunks a link has rejected since its last block.
    pub fn rejections(&self, link: LinkId) -> u32 {
        self.sources.get(link).map_or(0, Source::rejections)
    }

    /// How often in a row a link has been silent.
    pub fn snubs(&self, link: LinkId) -> u32 {
        self.sources.get(link).map_or(0, Source::snubs)
    }

    /// How many links were silent when they were last asked.
    pub fn snubbed(&self) -> usize {
        self.sources.totals().snubbed
    }

    /// Whether a link was asked for something, has sent nothing yet, and takes
    /// so long that others are tried as well.
    pub fn is_doubtful(&self, now: Instant, link: LinkId) -> bool {
        let unproven = self.sources.get(link).filter(|source| !source.is_proven());
        let asked = unproven.and_then(Source::oldest_ask);
        asked.is_some_and(|ask| now.duration_since(ask.at) >= self.patience())
    }

    /// Whether a link has something and would answer, but was not asked yet,
    /// while nothing is asked for but of unproven links.
    pub fn is_untried(&self, link: LinkId) -> bool {
        let untried = |source: &Source| {
            let unasked = !source.is_proven() && source.unanswered() == 0;
            unasked && !source.is_choked() && source.has_anything()
        };
        self.sources.totals().promised() == 0 && self.sources.get(link).is_some_and(untried)
    }

    /// Whether something is asked for of unproven links.
    pub fn has_doubts(&self) -> bool {
        self.sources.totals().doubtful > 0
    }

    /// The measured rate of a link, in bytes per second.
    pub fn rate(&self, now: Instant, link: LinkId) -> Option<f64> {
        self.sources.get(link)?.rate(now)
    }

    /// How many links owe a block.
    pub fn busy_links(&self) -> usize {
        let busy = |source: &&Source| source.live_bytes() > 0;
        self.sources.values().filter(busy).count()
    }

    /// Panics if the plan contradicts itself. For tests.
    pub fn check_invariants(&self) {
        self.picker.check_invariants();
        self.states.check_invariants();
        self.open.check_invariants();
        self.sources.check_invariants();
        let missing = self.states.count(ChunkState::Missing);
        assert_eq!(missing, self.picker.len());
        let open = self.states.count(ChunkState::Open) as usize;
        assert_eq!(open, self.open.leaders().count());
        self.check_leaders();
        self.check_requests();
        self.check_sources();
        for chunk in self.open.unasked() {
            let mut sources = self.sources.values();
            let obtainable = sources.any(|source| source.has_chunk(chunk));
            assert!(obtainable, "an open chunk that no link has");
        }
    }

    fn check_leaders(&self) {
        for (chunk, leader) in self.open.leaders() {
            assert_eq!(self.states.get(chunk), ChunkState::Open);
            assert!(leader.is_none_or(|leader| self.sources.contains(leader)));
            if self.open.needs_leader(chunk) {
                let leader = leader.and_then(|leader| self.sources.get(leader));
                let lead = leader.and_then(Source::lead);
                assert_eq!(lead, Some(chunk), "no link may ask for the rest");
            }
        }
        for (link, source) in self.sources.iter() {
            if let Some(lead) = source.lead() {
                assert_eq!(self.states.get(lead), ChunkState::Open);
                assert_eq!(self.open.leader(lead), Some(link));
            }
        }
    }

    fn check_requests(&self) {
        let mut asked: BTreeMap<LinkId, BTreeSet<BlockRange>> = BTreeMap::new();
        for (link, block) in self.open.asked() {
            asked.entry(link).or_default().insert(block);
        }
        for (link, source) in self.sources.iter() {
            let live: BTreeSet<BlockRange> = source.live_asks().map(|ask| ask.block).collect();
            assert_eq!(live, asked.remove(&link).unwrap_or_default());
            assert_eq!(live.len(), source.live_asks().count(), "asked twice");
            assert!(source.unanswered() <= self.config.max_requests);
        }
        assert!(asked.is_empty(), "asked of a link that is gone");
    }

    fn check_sources(&self) {
        for source in self.sources.values() {
            if let ChunkSet::Some(has) = source.has() {
                let candidates = self.picker.waiting().iter_common(has, 0).count();
                assert_eq!(candidates, source.candidates() as usize);
                let wanted = has.iter().filter(|&chunk| !self.states.is_stored(chunk));
                assert_eq!(wanted.count(), source.wanted() as usize);
            }
        }
    }
}
