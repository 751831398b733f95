//! The planner: which block is asked of which link.
//!
//! ```text
//!             pick                 last block            verified, written
//!  Missing ─────────▶ Open ───────────────────▶ Complete ────────▶ Stored
//!     ▲                 │ no block, no request       │
//!     └─────────────────┴────────────────────────────┘ failed verification
//! ```
//! What an earlier download left behind is Held until somebody has looked at
//! it: good, it is Stored, and bad, it is Missing.
//!
//! A chunk is in exactly one of these states, and each block of an open chunk
//! is free, asked of exactly one link, or there. A request that is given up
//! (its link went down, is silent, or is overtaken by a faster one) makes its
//! block free, or another link's, in the same step.
//!
//! The planner knows no bytes, no clock and no network.

mod appetite;
mod check;
mod choose;
mod links;
mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::link_map::{LinkMap, LinkSet};
use super::picker::Picker;
use super::rate::RateMeter;
use super::source::{Has, Source};
use super::{BlockGrid, LinkId};
use crate::content::{Bitfield, BlockRange, ChunkIndex};
use crate::protocol::limits::MAX_REQUESTS;

/// The bounds of a planner.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PlannerConfig {
    /// Chunks of which blocks were asked for, or that are being verified or
    /// written. In memory are no more than `SwarmConfig::max_unverified` allows;
    /// this bounds the work of looking through many small ones.
    pub max_open: usize,
    /// Requests outstanding on a link; more than [`MAX_REQUESTS`] count as that.
    pub max_requests: usize,
    /// Bytes outstanding on a link.
    pub max_window: u64,
    /// For how long, beyond two round trips, requests are kept waiting at the
    /// other side: covers the pauses of both programs.
    pub slack: Duration,
    /// A link that owes a block is silent after four times the time that a
    /// block should take, and after this at the earliest. 10 ms at the least.
    pub silence: Duration,
    /// And after this at the latest. 10 ms at the least.
    pub max_silence: Duration,
    /// Which chunk comes next.
    pub strategy: Strategy,
    /// Decides ties.
    pub seed: u64,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            max_open: 1024,
            max_requests: MAX_REQUESTS,
            max_window: 16 << 20,
            slack: Duration::from_millis(5),
            silence: Duration::from_secs(4),
            max_silence: Duration::from_secs(60),
            strategy: Strategy::RarestFirst,
            seed: 0,
        }
    }
}

/// Which chunk a download asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// The one that fewest links have; among seeders only, each its own
    /// contiguous part of the content.
    #[default]
    RarestFirst,
    /// The first one that is missing, for reading while it arrives.
    Sequential,
}

/// An overtaking link must promise to be so much faster than the one that a
/// block is taken from, or both would take it from each other.
const OVERTAKE: f64 = 1.25;

/// How many suggestions of a link are remembered.
const MAX_SUGGESTED: usize = 8;

/// How often a link that found nothing to do looks again, at the least.
const RETRY: Duration = Duration::from_millis(5);

/// A request to send, and perhaps one to take back for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to ask for.
    pub block: BlockRange,
    /// The link that is asked no longer, for the same block.
    pub overtaken: Option<LinkId>,
}

/// What an arrived block is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was wanted. Was it asked of another link meanwhile, that request is
    /// taken back.
    Wanted {
        /// The link that is asked no longer.
        overtaken: Option<LinkId>,
    },
    /// Its request was given up, and the block is there, or on its way from
    /// elsewhere.
    Late,
    /// Nobody asked for it.
    Unasked,
}

/// What is given up, when a link stops being counted on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Chunks whose blocks are to be forgotten.
    pub forgotten: Vec<ChunkIndex>,
    /// Requests to cancel, on links that are there.
    pub cancelled: Vec<(LinkId, BlockRange)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Open,
    Complete,
    Held,
    Stored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Free,
    Asked(LinkId),
    Here,
}

#[derive(Debug)]
struct Open {
    blocks: Vec<Block>,
    /// How many are free.
    free: u32,
    /// Only one link may send it: an earlier copy was bad, and several had
    /// sent it.
    exclusive: bool,
    /// The link that asks for its blocks first.
    lead: Option<LinkId>,
}

/// Plans one download.
#[derive(Debug)]
pub struct Planner {
    grid: BlockGrid,
    config: PlannerConfig,
    states: Vec<State>,
    picker: Picker,
    open: BTreeMap<ChunkIndex, Open>,
    complete: usize,
    held: u32,
    stored: u32,
    /// Chunks whose next copy must come from one link.
    exclusive: BTreeSet<ChunkIndex>,
    sources: LinkMap<Source>,
    /// How many sources have some chunks and not all.
    partial: usize,
    /// Whether the homes are those of the seeders that are there.
    homes_valid: bool,
    /// Sources that found nothing to ask for.
    hungry: LinkSet,
    /// When they look again, though nothing happened.
    retry: Option<Instant>,
    /// How many blocks of open chunks are free.
    free: u32,
    /// No link is silent before.
    silence: Option<Instant>,
    /// Bytes that are asked for and counted on, over all links, and how many of
    /// those of links that have not proved themselves.
    live: u64,
    doubtful: u64,
    /// How fast they come, and the shortest time from a request to its block.
    meter: RateMeter,
    round_trip: Option<Duration>,
    /// How many sources make their links take turns, and how many have not
    /// proved themselves.
    turn_takers: usize,
    unproven: usize,
    /// How many were silent when they were last asked.
    snubbed: usize,
    /// How many bytes are worth asking for at a time, as of that moment.
    appetite: Option<(Instant, u64)>,
    /// Until when links that have not proved themselves are not asked, as of
    /// that moment and so many doubtful bytes.
    /// First those that do not make their links take turns, then those that do.
    doubts: [Option<(Instant, u64, Option<Instant>)>; 2],
    /// Some link was not asked, as others had been asked for enough.
    passed_over: bool,
}

impl Planner {
    /// A planner for all chunks of a content that are not `present`.
    pub fn new(grid: BlockGrid, present: &Bitfield, config: PlannerConfig) -> Self {
        let chunks = grid.geometry().chunks();
        let mut picker = Picker::new(chunks, config.seed);
        let mut states = vec![State::Stored; chunks as usize];
        for chunk in present.iter_missing() {
            states[chunk.as_usize()] = State::Missing;
            picker.put(chunk);
        }
        Self {
            grid,
            config: PlannerConfig {
                max_requests: config.max_requests.min(MAX_REQUESTS),
                ..config
            },
            states,
            picker,
            open: BTreeMap::new(),
            complete: 0,
            held: 0,
            stored: present.count(),
            exclusive: BTreeSet::new(),
            sources: LinkMap::default(),
            partial: 0,
            homes_valid: false,
            hungry: LinkSet::default(),
            retry: None,
            free: 0,
            silence: None,
            live: 0,
            doubtful: 0,
            meter: RateMeter::default(),
            round_trip: None,
            turn_takers: 0,
            unproven: 0,
            snubbed: 0,
            appetite: None,
            doubts: [None; 2],
            passed_over: false,
        }
    }

    /// Some of the present chunks are here only as far as is known: not asked
    /// for, and not done either, until [`chunk_stored`](Self::chunk_stored) or
    /// [`chunk_failed`](Self::chunk_failed) says what they are. To be told
    /// before there are links.
    pub fn hold(&mut self, chunks: &Bitfield) {
        for chunk in chunks.iter() {
            let state = &mut self.states[chunk.as_usize()];
            if *state == State::Stored {
                *state = State::Held;
                self.stored -= 1;
                self.held += 1;
            }
        }
    }

    /// Whether every chunk is stored.
    pub fn is_done(&self) -> bool {
        self.stored == self.grid.geometry().chunks()
    }

    /// Changes the order from the next pick on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.config.strategy = strategy;
        self.homes_valid = false;
    }

    /// What to ask a link for now, if anything: call it until it says `None`.
    pub fn next_request(&mut self, now: Instant, link: LinkId) -> Option<Request> {
        let source = self.sources.get(link)?;
        if source.choked
            || matches!(source.has, Has::Nothing)
            || source.asks.len() >= self.config.max_requests
            || !source.has_room(now, &self.config, &self.grid)
        {
            return None;
        }
        if self.passes_over(now, link) {
            self.hungry.add(link);
            return None;
        }
        let (request, contested) = match self.free_block(link) {
            Some(block) => (Some((block, None)), false),
            None => self.overtake(now, link),
        };
        let source = self.sources.get(link)?;
        let Some((block, overtaken)) = request else {
            self.hungry.add(link);
            if !contested {
                return None;
            }
            let pace = source
                .rate(now)
                .map_or(0.0, |rate| self.grid.block_len() as f64 / rate);
            let pace = Duration::try_from_secs_f64(pace).unwrap_or(self.config.silence);
            self.look_again(now.checked_add(pace.min(self.config.silence).max(RETRY)));
            return None;
        };
        self.hungry.take(link);
        if let Some(victim) = overtaken {
            self.give_up(victim, block);
        }
        let position = self.grid.position(block)? as usize;
        let open = self.open.get_mut(&block.chunk)?;
        let was_free = u32::from(open.blocks[position] == Block::Free);
        open.free -= was_free;
        self.free -= was_free;
        open.blocks[position] = Block::Asked(link);
        self.with_source(link, |source| source.asked(now, block));
        self.meter.began(now);
        let silence = self.first_silence().min(self.config.max_silence);
        let earliest = now.checked_add(silence);
        self.silence = [self.silence, earliest].into_iter().flatten().min();
        Some(Request { block, overtaken })
    }

    /// A block arrived from a link.
    pub fn block_arrived(&mut self, now: Instant, link: LinkId, block: BlockRange) -> Arrival {
        let answered = self.with_source(link, |source| {
            let ask = source.answered(now, block)?;
            source.delivered(now, &ask);
            Some(ask)
        });
        let Some(ask) = answered.flatten() else {
            return Arrival::Unasked;
        };
        let took = now.duration_since(ask.at);
        self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
        self.meter.arrived(now, block.len.into());
        self.answered(now);
        let position = self.grid.position(block).expect("asked on the grid") as usize;
        let Some(open) = self.open.get_mut(&block.chunk) else {
            return Arrival::Late;
        };
        let overtaken = match open.blocks[position] {
            Block::Here => return Arrival::Late,
            // What others send of an exclusive chunk must not be mixed in.
            _ if open.exclusive && open.lead != Some(link) => return Arrival::Late,
            Block::Asked(holder) if holder == link && ask.live => None,
            // Perhaps of the same link, which was asked again after its first
            // request had been given up: it need not answer twice.
            Block::Asked(holder) => Some(holder),
            Block::Free => {
                open.free -= 1;
                self.free -= 1;
                None
            }
        };
        open.blocks[position] = Block::Here;
        if let Some(holder) = overtaken {
            self.give_up(holder, block);
        }
        Arrival::Wanted { overtaken }
    }

    /// A link will not send a block. It counts as lacking that chunk, unless
    /// it is choked or the request had been given up. `None` if nobody had
    /// asked. O(chunks) for the first rejection of a seeder, O(links) else.
    pub fn rejected(&mut self, now: Instant, link: LinkId, block: BlockRange) -> Option<Released> {
        let ask = self.with_source(link, |source| source.answered(now, block))??;
        self.answered(now);
        let source = self.sources.get_mut(link)?;
        if !ask.live {
            return Some(Released::default());
        }
        if source.lead == Some(block.chunk) {
            source.lead = None;
        }
        if source.choked {
            return Some(self.release(link, [block], vec![block.chunk]));
        }
        source.rejections = source.rejections.saturating_add(1);
        let of_chunk = source.live_asks().map(|ask| ask.block);
        let others: Vec<BlockRange> = of_chunk.filter(|b| b.chunk == block.chunk).collect();
        for &other in &others {
            self.give_up(link, other);
        }
        self.lost(link, block.chunk);
        let blocks = others.iter().copied().chain([block]);
        let mut released = self.release(link, blocks, vec![block.chunk]);
        let others = others.into_iter().map(|other| (link, other));
        released.cancelled.extend(others);
        self.forget_unobtainable(&mut released);
        Some(released)
    }

    /// Changes a source, and counts on what it promises then.
    fn with_source<R>(&mut self, link: LinkId, change: impl FnOnce(&mut Source) -> R) -> Option<R> {
        let source = self.sources.get_mut(link)?;
        let count = |source: &Source| {
            let unproven = !source.is_proven();
            let doubtful = if unproven { source.live_bytes } else { 0 };
            let snubbed = usize::from(source.snubs > 0);
            (source.live_bytes, doubtful, usize::from(unproven), snubbed)
        };
        let before = count(source);
        let result = change(source);
        let after = count(source);
        self.live = self.live - before.0 + after.0;
        self.doubtful = self.doubtful - before.1 + after.1;
        self.unproven = self.unproven - before.2 + after.2;
        self.snubbed = self.snubbed - before.3 + after.3;
        Some(result)
    }

    /// Counts an answer, whatever it was.
    fn answered(&mut self, now: Instant) {
        if self.live == 0 {
            self.meter.rested(now);
        }
    }

    /// All blocks of a chunk are there: it goes to be verified and written.
    pub fn chunk_complete(&mut self, chunk: ChunkIndex) {
        if let Some(open) = self.open.remove(&chunk) {
            debug_assert!(open.blocks.iter().all(|block| *block == Block::Here));
            self.drop_lead(chunk, open.lead);
            self.states[chunk.as_usize()] = State::Complete;
            self.complete += 1;
        }
    }

    /// A complete chunk is verified and written, or a held one verified.
    /// Returns whether the hungry may find something now.
    pub fn chunk_stored(&mut self, chunk: ChunkIndex) -> bool {
        let was_full = !self.may_open();
        match self.states[chunk.as_usize()] {
            State::Complete => self.complete -= 1,
            State::Held => self.held -= 1,
            _ => return false,
        }
        self.states[chunk.as_usize()] = State::Stored;
        self.exclusive.remove(&chunk);
        self.stored += 1;
        for source in self.sources.values_mut() {
            if let Has::Some(has) = &source.has
                && has.contains(chunk)
            {
                source.wanted -= 1;
            }
        }
        was_full && self.may_open()
    }

    /// Whether there is room in memory for one more chunk.
    fn may_open(&self) -> bool {
        self.open.len() + self.complete < self.config.max_open
    }

    /// A complete or held chunk was bad: it is missing again. The next copy of
    /// a complete one comes from a single link.
    pub fn chunk_failed(&mut self, chunk: ChunkIndex) {
        match self.states[chunk.as_usize()] {
            State::Complete => {
                self.exclusive.insert(chunk);
                self.complete -= 1;
            }
            State::Held => self.held -= 1,
            _ => return,
        }
        self.states[chunk.as_usize()] = State::Missing;
        self.put(chunk);
    }

    /// Takes the requests of silent links back. Returns these links with what
    /// is given up.
    pub fn handle_timeout(&mut self, now: Instant) -> (Vec<LinkId>, Released) {
        self.retry = self.retry.filter(|&retry| retry > now);
        let mut all = Released::default();
        if self.silence.is_none_or(|silence| silence > now) {
            return (Vec::new(), all);
        }
        let first = self.first_silence();
        let silent: Vec<LinkId> = self
            .sources
            .iter()
            .filter(|(_, source)| {
                let deadline = source.deadline(&self.config, first);
                deadline.is_some_and(|deadline| deadline <= now)
            })
            .map(|(link, _)| link)
            .collect();
        for &link in &silent {
            let Some(blocks) = self.with_source(link, |source| source.silent(now)) else {
                continue;
            };
            let led = self.led_by(link);
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
    /// [`next_request`](Self::next_request) for the hungry; see
    /// [`next_hungry`](Self::next_hungry).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.retry.filter(|_| !self.open.is_empty());
        self.silence.into_iter().chain(retry).min()
    }

    /// The first link at or behind `from` that found nothing to ask for, though
    /// something is missing.
    pub fn next_hungry(&self, from: LinkId) -> Option<LinkId> {
        self.hungry.next_from(from)
    }

    /// Whether a link does not answer requests at present.
    pub fn is_choked(&self, link: LinkId) -> bool {
        self.sources.get(link).is_some_and(|source| source.choked)
    }

    /// How many requests a link was sent and has not answered, counted on or
    /// given up.
    pub fn unanswered(&self, link: LinkId) -> usize {
        self.sources.get(link).map_or(0, |source| source.asks.len())
    }

    /// How many chunks a link has refused since its last block.
    pub fn rejections(&self, link: LinkId) -> u32 {
        self.sources.get(link).map_or(0, |source| source.rejections)
    }

    /// How often in a row a link has been silent.
    pub fn snubs(&self, link: LinkId) -> u32 {
        self.sources.get(link).map_or(0, |source| source.snubs)
    }

    /// Whether a link was asked for something and has not answered.
    pub fn owes(&self, link: LinkId) -> bool {
        self.unanswered(link) > 0
    }

    /// How many links were silent when they were last asked.
    pub fn snubbed(&self) -> usize {
        self.snubbed
    }

    /// The measured rate of a link, in bytes per second.
    pub fn rate(&self, now: Instant, link: LinkId) -> Option<f64> {
        self.sources.get(link)?.rate(now)
    }

    /// How many links owe a block.
    pub fn busy_links(&self) -> usize {
        let busy = |source: &&Source| source.live_bytes > 0;
        self.sources.values().filter(busy).count()
    }

    /// What a link has.
    pub fn has(&self, link: LinkId) -> &Has {
        self.sources
            .get(link)
            .map_or(&Has::Nothing, |source| &source.has)
    }
}
