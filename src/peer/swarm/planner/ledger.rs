//! What is known of all chunks and links, and what was asked of whom.
//!
//! Everybody may look at it. Only its own methods change it, and each of them keeps this
//! true: a chunk is in exactly one state, and each block of an open chunk is free, asked of
//! exactly one link, or here. The link that was asked knows the same of itself.
//!
//! It does not know which block is best.

mod far_links;
mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::LinkId;
use super::super::block_layout::BlockLayout;
use super::super::chunk_set::ChunkSet;
use super::super::picker::Picker;
use super::answer::{Arrival, Released, Request};
use super::chunk_states::{ChunkState, ChunkStates};
use super::config::PlannerConfig;
use super::far::FarRule;
use super::open_chunks::{Closed, OpenChunks};
use super::source::Source;
use super::sources::Sources;
use crate::content::{Bitfield, BlockRange, ChunkIndex};

/// How many bytes of whole chunks may wait to be hashed before no further chunk is opened: the
/// processor or the disk is behind then, and what comes would only wait in memory. It is
/// what a line of 1 Gbit/s carries in 67 ms. Two chunks may always wait.
const MAX_UNHASHED: u64 = 8 << 20;

/// The chunks, the links, and the requests.
#[derive(Debug)]
pub(super) struct Ledger {
    layout: BlockLayout,
    max_open: usize,
    max_requests: usize,
    /// How many complete chunks wait to be hashed, or are being hashed.
    unhashed: usize,
    states: ChunkStates,
    /// The missing chunks.
    picker: Picker,
    open: OpenChunks,
    /// Chunks whose next copy must come from one link.
    exclusive: BTreeSet<ChunkIndex>,
    sources: Sources,
    /// Set if some link was far.
    far: Option<Box<FarRule>>,
    /// What this peer is called among those that fetch for its zone.
    name: u64,
    /// How often all that some link has was replaced.
    generation: u64,
}

impl Ledger {
    /// All chunks that are not `present` are missing, and there are no links.
    pub(super) fn new(layout: BlockLayout, present: &Bitfield, config: &PlannerConfig) -> Self {
        let mut picker = Picker::new(layout.geometry().chunks(), config.seed);
        for chunk in present.iter_missing() {
            picker.put(chunk);
        }
        Self {
            layout,
            max_open: config.max_open,
            max_requests: config.max_requests,
            unhashed: 0,
            states: ChunkStates::new(present),
            picker,
            open: OpenChunks::new(layout),
            exclusive: BTreeSet::new(),
            sources: Sources::default(),
            far: None,
            name: 0,
            generation: 0,
        }
    }

    // To look at.

    pub(super) fn layout(&self) -> &BlockLayout {
        &self.layout
    }

    pub(super) fn states(&self) -> &ChunkStates {
        &self.states
    }

    /// The missing chunks.
    pub(super) fn picker(&self) -> &Picker {
        &self.picker
    }

    pub(super) fn open(&self) -> &OpenChunks {
        &self.open
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Whether the next copy of a chunk must come from one link.
    pub(super) fn is_exclusive(&self, chunk: ChunkIndex) -> bool {
        self.exclusive.contains(&chunk)
    }

    /// A number that changes when all that some link has is replaced.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    // Chunks that were here before.

    /// Some of the present chunks were not verified yet. They are not asked
    /// for and are not done, until [`chunk_stored`](Self::chunk_stored) or
    /// [`chunk_failed`](Self::chunk_failed) is called for them. Call this
    /// before there are links.
    pub(super) fn hold(&mut self, chunks: &Bitfield) {
        for chunk in chunks.iter() {
            if self.states.is_stored(chunk) {
                self.states.set(chunk, ChunkState::Held);
            }
        }
    }

    /// A chunk that is not whole may be in the storage after all. It is held from now on.
    /// Returns what was asked for of it; nothing if it is whole, held or stored.
    pub(super) fn chunk_found(&mut self, chunk: ChunkIndex) -> Option<Released> {
        let mut released = Released::default();
        match self.states.get(chunk) {
            ChunkState::Missing => {}
            ChunkState::Open => self.close(chunk, &mut released),
            ChunkState::Complete | ChunkState::Held | ChunkState::Stored | ChunkState::Shelved => {
                return None;
            }
        }
        self.picker.take(chunk);
        self.sources.chunk_taken(chunk);
        self.states.set(chunk, ChunkState::Held);
        Some(released)
    }

    /// Nobody wants a chunk that is not whole. Returns what was asked for of it; nothing if it
    /// is whole, held or stored, or was not wanted before.
    pub(super) fn shelve(&mut self, chunk: ChunkIndex) -> Option<Released> {
        let released = self.chunk_found(chunk)?;
        self.states.set(chunk, ChunkState::Shelved);
        self.sources.chunk_unwanted(chunk);
        Some(released)
    }

    /// A chunk that nobody wanted is wanted again.
    pub(super) fn unshelve(&mut self, chunk: ChunkIndex) {
        if self.states.get(chunk) == ChunkState::Shelved {
            self.sources.chunk_wanted(chunk);
            self.chunk_missing(chunk);
        }
    }

    /// Whether every chunk is stored, or not wanted at present.
    pub(super) fn wants_nothing(&self) -> bool {
        self.states.are_none_wanted()
    }

    /// Whether nothing may be asked for until something held is
    /// [missing](Self::chunk_failed).
    pub(super) fn is_all_held(&self) -> bool {
        let none = |state| self.states.count(state) == 0;
        none(ChunkState::Missing) && none(ChunkState::Open) && !none(ChunkState::Held)
    }

    /// Whether every chunk is stored.
    pub(super) fn is_done(&self) -> bool {
        self.states.are_all_stored()
    }

    // Links and what they have.

    /// A link is a source from now on. It has nothing yet.
    pub(super) fn link_added(&mut self, link: LinkId) {
        self.sources.insert(link, Source::new());
    }

    /// A link may send nothing: it is treated as one that was silent before.
    pub(super) fn suspect(&mut self, link: LinkId) {
        self.sources.update(link, Source::suspect);
    }

    /// A link is gone: what was asked of it is free again.
    pub(super) fn link_removed(&mut self, link: LinkId) -> Released {
        self.set_has(link, ChunkSet::Nothing);
        self.importer_gone(link);
        let Some(source) = self.sources.remove(link) else {
            return Released::default();
        };
        let led = self.open.led_by(link);
        let mut released = self.release(link, source.live_asks().map(|ask| ask.block), led);
        self.forget_unobtainable(&mut released);
        released
    }

    /// A link announces all of its chunks at once. What it was asked for before and
    /// lacks is free again. O(chunks) for a partial owner, O(1) for a seeder.
    pub(super) fn link_has(&mut self, link: LinkId, has: ChunkSet) -> Released {
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
    pub(super) fn give_back(&mut self) -> Released {
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
    pub(super) fn give_all_up(&mut self) -> Vec<(LinkId, BlockRange)> {
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
    pub(super) fn link_owes(&mut self, link: LinkId, asks: Vec<(BlockRange, Instant)>) {
        self.sources.update(link, |source| source.owe(asks));
    }

    /// A link has one more chunk. O(1), or O(chunks) for its first and its last.
    pub(super) fn link_gained(&mut self, link: LinkId, chunk: ChunkIndex) {
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
        let wanted = self.states.is_wanted(chunk);
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
                    self.near_changed(link, &ChunkSet::Some(counted), &ChunkSet::All);
                    self.near_completed(link);
                }
                self.generation += 1;
            }
            Some((true, false)) => {
                self.picker.gained(chunk);
                self.near_gained(link, chunk);
            }
            _ => {}
        }
    }

    /// A link lacks a chunk after all. A seeder becomes a partial owner for
    /// good: going back and forth would cost O(chunks) each time.
    fn link_lost(&mut self, link: LinkId, chunk: ChunkIndex) {
        let waits = self.picker.is_waiting(chunk);
        let wanted = self.states.is_wanted(chunk);
        if *self.sources.has(link) == ChunkSet::All {
            self.sources.update(link, Source::mark_unreliable);
            let mut has = Bitfield::all(self.layout.geometry().chunks());
            has.remove(chunk);
            self.set_has(link, ChunkSet::Some(has));
        } else if self.sources.update(link, |s| s.lose(chunk, waits, wanted)) == Some(true) {
            self.picker.lost(chunk);
            self.near_lost(link, chunk);
        }
    }

    /// Replaces what a link has.
    fn set_has(&mut self, link: LinkId, has: ChunkSet) {
        let (candidates, wanted) = match &has {
            ChunkSet::Some(has) => {
                let candidates = self.picker.waiting().iter_common(has, 0).count();
                let wanted = has.iter().filter(|&chunk| self.states.is_wanted(chunk));
                (candidates as u32, wanted.count() as u32)
            }
            ChunkSet::Nothing | ChunkSet::All => (0, 0),
        };
        let change = |source: &mut Source| source.set_has(has.clone(), candidates, wanted);
        let Some(before) = self.sources.update(link, change) else {
            return;
        };
        self.generation += 1;
        self.near_changed(link, &before, &has);
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
    pub(super) fn suggested(&mut self, link: LinkId, chunk: ChunkIndex) {
        if self.layout.geometry().contains(chunk) {
            self.sources.suggest(link, chunk);
        }
    }

    /// Whether a link answers requests. One that does not leads only chunks of
    /// which something is on its way: nothing else would tell when to stop
    /// waiting for it. See [`leads_no_more`](Self::leads_no_more).
    pub(super) fn link_choked(&mut self, link: LinkId, choked: bool) -> Released {
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
    pub(super) fn leads_no_more(&mut self, link: LinkId) -> Released {
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

    /// Notes a request that is sent now.
    pub(super) fn ask(&mut self, now: Instant, link: LinkId, request: Request) {
        let Request { block, overtaken } = request;
        if let Some(victim) = overtaken {
            self.give_up(victim, block);
        }
        self.open.ask(link, block);
        self.sources.update(link, |source| source.ask(now, block));
    }

    /// Notes whether a link owes as much as it may.
    pub(super) fn set_full(&mut self, link: LinkId, is_full: bool) {
        self.sources.update(link, |source| source.set_full(is_full));
    }

    /// A block arrived from a link. Returns also how long it took since it was asked for.
    pub(super) fn block_arrived(
        &mut self,
        now: Instant,
        link: LinkId,
        block: BlockRange,
    ) -> (Arrival, Option<Duration>) {
        let answered = self.sources.update(link, |source| {
            let ask = source.answered(now, block)?;
            source.delivered(now, &ask);
            Some(ask)
        });
        let Some(ask) = answered.flatten() else {
            return (Arrival::Unasked, None);
        };
        let took = now.duration_since(ask.at);
        let arrival = self.open.arrived(link, block, ask.live);
        if let Arrival::Wanted {
            overtaken: Some(holder),
        } = arrival
        {
            self.give_up(holder, block);
        }
        (arrival, Some(took))
    }

    /// A link will not send a block. It counts as lacking that chunk, unless
    /// it is choked or the request had been given up. `None` if the block was
    /// not asked of it. O(links), or O(chunks) for the first rejection of a
    /// seeder.
    pub(super) fn rejected(
        &mut self,
        now: Instant,
        link: LinkId,
        block: BlockRange,
    ) -> Option<Released> {
        let answered = self
            .sources
            .update(link, |source| source.answered(now, block));
        let ask = answered??;
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

    /// A link was silent for too long: takes all that it was asked for back.
    pub(super) fn link_silent(&mut self, now: Instant, link: LinkId) -> Released {
        let Some(blocks) = self.sources.update(link, |source| source.silent(now)) else {
            return Released::default();
        };
        let led = self.open.led_by(link);
        let mut released = self.release(link, blocks.iter().copied(), led);
        let blocks = blocks.into_iter().map(|block| (link, block));
        released.cancelled.extend(blocks);
        released
    }

    /// Takes some requests back, and leaves the chunks that the link leads for them.
    pub(super) fn take_back(&mut self, link: LinkId, blocks: &[BlockRange]) -> Released {
        let mut led: Vec<ChunkIndex> = Vec::new();
        for &block in blocks {
            self.give_up(link, block);
            self.sources.drop_lead(link, block.chunk);
            if self.open.leader(block.chunk) == Some(link) {
                led.push(block.chunk);
            }
        }
        let mut released = self.release(link, blocks.iter().copied(), led);
        let blocks = blocks.iter().map(|&block| (link, block));
        released.cancelled.extend(blocks);
        released
    }

    /// The line of a link carried something else than a block.
    pub(super) fn carried(&mut self, link: LinkId, bytes: u64) {
        self.sources.update(link, |source| source.carried(bytes));
    }

    // Chunks as they open and close.

    /// The next chunk that a link suggests, and that waits and is not asked for in another
    /// order. Drops the suggestions before.
    pub(super) fn next_suggestion(&mut self, link: LinkId) -> Option<ChunkIndex> {
        let picker = &self.picker;
        let waits = |chunk| picker.is_waiting(chunk) && picker.is_unreserved(chunk);
        self.sources.next_suggestion(link, waits)
    }

    /// The rarest missing chunk that a link has and that is not asked for in another
    /// order.
    pub(super) fn rarest(&mut self, link: LinkId) -> Option<ChunkIndex> {
        match self.sources.has(link) {
            ChunkSet::Nothing => None,
            ChunkSet::Some(has) => self.picker.rarest(Some(has)),
            ChunkSet::All => self.picker.rarest(None),
        }
    }

    /// How many links that have a part of the content have the rarest missing chunk.
    pub(super) fn copies_of_rarest(&mut self) -> Option<u16> {
        let rarest = self.picker.rarest(None)?;
        Some(self.picker.copies(rarest))
    }

    /// These chunks are asked for in another order than the usual one.
    pub(super) fn reserve(&mut self, chunks: Option<&Bitfield>) {
        self.picker.reserve(chunks);
    }

    /// These chunks come in another way, as it seems. Returns whether they are others than
    /// before.
    pub(super) fn set_elsewhere(&mut self, chunks: Option<Bitfield>) -> bool {
        self.picker.set_elsewhere(chunks)
    }

    /// Whether there is room for one more open chunk.
    pub(super) fn may_open(&self) -> bool {
        self.has_place(0)
    }

    /// The same with so many more places.
    pub(super) fn has_place(&self, extra: usize) -> bool {
        let open = self.states.count(ChunkState::Open) as usize;
        let complete = self.states.count(ChunkState::Complete) as usize;
        open + complete < self.max_open + extra && self.unhashed < self.max_unhashed() + extra
    }

    fn max_unhashed(&self) -> usize {
        let chunks = MAX_UNHASHED / self.layout.geometry().chunk_len();
        usize::try_from(chunks).unwrap_or(usize::MAX).max(2)
    }

    /// A complete chunk is being hashed from now on.
    pub(super) fn hashing_began(&mut self) {
        self.unhashed += 1;
    }

    /// A complete chunk was hashed. Returns whether idle links may find something now.
    pub(super) fn hashing_ended(&mut self) -> bool {
        let was_full = !self.may_open();
        self.unhashed = self.unhashed.saturating_sub(1);
        was_full && self.may_open()
    }

    pub(super) fn open_chunk(&mut self, chunk: ChunkIndex) {
        self.picker.take(chunk);
        self.sources.chunk_taken(chunk);
        self.states.set(chunk, ChunkState::Open);
        self.open.open(chunk, self.exclusive.contains(&chunk));
    }

    /// A link leads an open chunk from now on.
    pub(super) fn lead(&mut self, link: LinkId, chunk: ChunkIndex) {
        // The chunk that it led before has no free block left. The link stays
        // the leader there: an exclusive chunk knows its sender by that.
        let before = self.sources.set_lead(link, chunk);
        debug_assert_ne!(before, Some(chunk));
        self.open.set_leader(chunk, link);
    }

    /// All blocks of a chunk are here: it is verified and written next.
    pub(super) fn chunk_complete(&mut self, chunk: ChunkIndex) {
        let is_whole = self.open.is_whole(chunk);
        if let Some(Closed { leader, .. }) = self.open.close(chunk) {
            debug_assert!(is_whole, "a chunk is complete that lacks blocks");
            self.drop_lead(chunk, leader);
            self.states.set(chunk, ChunkState::Complete);
        }
    }

    /// A complete chunk is verified and written, or a held one verified.
    /// Returns whether idle links may find something now.
    pub(super) fn chunk_stored(&mut self, chunk: ChunkIndex) -> bool {
        let was_full = !self.may_open();
        match self.states.get(chunk) {
            ChunkState::Complete | ChunkState::Held => {}
            ChunkState::Missing | ChunkState::Open | ChunkState::Stored | ChunkState::Shelved => {
                return false;
            }
        }
        self.states.set(chunk, ChunkState::Stored);
        self.exclusive.remove(&chunk);
        self.sources.chunk_unwanted(chunk);
        if let Some(far) = &mut self.far {
            far.is_here(chunk);
        }
        was_full && self.may_open()
    }

    /// A complete or held chunk was bad: it is missing again. The next copy of
    /// a complete one comes from a single link.
    pub(super) fn chunk_failed(&mut self, chunk: ChunkIndex) {
        match self.states.get(chunk) {
            ChunkState::Complete => {
                self.exclusive.insert(chunk);
            }
            ChunkState::Held => {}
            ChunkState::Missing | ChunkState::Open | ChunkState::Stored | ChunkState::Shelved => {
                return;
            }
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

    /// Panics if the plan contradicts itself. For tests.
    pub(super) fn check_invariants(&self) {
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
        self.check_far();
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
            assert!(source.unanswered() <= self.max_requests);
        }
        assert!(asked.is_empty(), "asked of a link that is gone");
    }

    fn check_sources(&self) {
        for source in self.sources.values() {
            if let ChunkSet::Some(has) = source.has() {
                let candidates = self.picker.waiting().iter_common(has, 0).count();
                assert_eq!(candidates, source.candidates() as usize);
                let wanted = has.iter().filter(|&chunk| self.states.is_wanted(chunk));
                assert_eq!(wanted.count(), source.wanted() as usize);
            }
        }
    }
}
