//! What a link is asked for when no reader waits for anything: of the chunk that it leads,
//! of one that nobody leads, of a new one, or of one that another link leads.
//!
//! A new chunk is the first missing one, or one that its owner suggests, or the rarest.
//! Among seeders each has its own part of the content. A link with another zone is asked only
//! for what comes from no near one.

use super::super::LinkId;
use super::super::chunk_set::ChunkSet;
use super::config::Strategy;
use super::far::Nearness;
use super::homes::Homes;
use super::ledger::Ledger;
use super::open_chunks::Lead;
use super::source::Source;
use crate::content::{Bitfield, BlockRange, ChunkIndex};

/// Chooses blocks that no reader waits for.
#[derive(Debug)]
pub(super) struct UsualOrder {
    strategy: Strategy,
    homes: Homes,
    /// The generation of the ledger for which the homes were split.
    split_for: u64,
}

impl UsualOrder {
    pub(super) fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            homes: Homes::default(),
            split_for: 0,
        }
    }

    pub(super) fn set_strategy(&mut self, strategy: Strategy) {
        self.strategy = strategy;
        self.homes.invalidate();
    }

    /// Readers want other chunks than before: what is left is split anew.
    pub(super) fn split_anew(&mut self) {
        self.homes.invalidate();
    }

    /// A free block for a link, and not of the `urgent` chunks. Opens its chunk, if it is
    /// missing. A far link has a `limit`.
    pub(super) fn take_block(
        &mut self,
        ledger: &mut Ledger,
        link: LinkId,
        urgent: Option<&Bitfield>,
        limit: Option<Nearness>,
    ) -> Option<BlockRange> {
        let source = ledger.sources().get(link)?;
        // Where only the leader may ask, it asks for the rest first.
        let is_usual = |&chunk: &ChunkIndex| {
            !urgent.is_some_and(|urgent| urgent.contains(chunk))
                || ledger.open().needs_leader(chunk)
        };
        let lead = source.lead().filter(is_usual);
        let own = lead.and_then(|chunk| ledger.open().first_free(chunk));
        if own.is_some() {
            return own;
        }
        let may = |ledger: &Ledger, chunk| {
            let is_urgent = urgent.is_some_and(|urgent| urgent.contains(chunk));
            !is_urgent && ledger.is_within(limit, chunk)
        };
        let fits = |chunk| may(ledger, chunk);
        let orphan = ledger.open().joinable(source.has(), Lead::Free, fits);
        if let Some(orphan) = orphan {
            ledger.lead(link, orphan);
            return ledger.open().first_free(orphan);
        }
        if ledger.may_open()
            && let Some(chunk) = self.pick(ledger, link, limit)
        {
            ledger.open_chunk(chunk);
            if let Some(far) = ledger.far_mut().filter(|_| limit.is_some()) {
                far.fetches(chunk);
            }
            ledger.lead(link, chunk);
            return ledger.open().first_free(chunk);
        }
        let has = ledger.sources().has(link);
        let fits = |chunk| may(ledger, chunk);
        let chunk = ledger.open().joinable(has, Lead::Taken, fits)?;
        ledger.open().first_free(chunk)
    }

    /// The chunk that a link should open next.
    fn pick(
        &mut self,
        ledger: &mut Ledger,
        link: LinkId,
        limit: Option<Nearness>,
    ) -> Option<ChunkIndex> {
        let source = ledger.sources().get(link)?;
        if self.strategy == Strategy::RarestFirst
            && source.has_suggestions()
            && let Some(chunk) = pick_suggested(ledger, link, limit)
        {
            return Some(chunk);
        }
        match (limit, self.strategy) {
            (None, _) => {}
            (Some(nearness), Strategy::Sequential) => return ledger.first_far(link, nearness),
            (Some(nearness), Strategy::RarestFirst) => return ledger.rare_far(link, nearness),
        }
        let source = ledger.sources().get(link)?;
        let has = match source.has() {
            ChunkSet::Nothing => return None,
            ChunkSet::Some(has) => Some(has),
            ChunkSet::All => None,
        };
        match self.strategy {
            Strategy::Sequential => {
                let chunks = ledger.layout().geometry().chunks();
                ledger.picker().first_in(0..chunks, has)
            }
            Strategy::RarestFirst if !ledger.sources().values().any(Source::is_leecher) => {
                if self.split_for != ledger.generation() {
                    self.split_for = ledger.generation();
                    self.homes.invalidate();
                }
                let seeders = ledger.sources().seeders();
                self.homes.pick(link, ledger.picker(), seeders)
            }
            Strategy::RarestFirst if has.is_some() && source.candidates() == 0 => None,
            Strategy::RarestFirst => ledger.rarest(link),
        }
    }
}

/// A suggested chunk, unless a rarer one waits.
fn pick_suggested(
    ledger: &mut Ledger,
    link: LinkId,
    limit: Option<Nearness>,
) -> Option<ChunkIndex> {
    let chunk = ledger.next_suggestion(link)?;
    if limit.is_some() {
        return ledger.is_within(limit, chunk).then_some(chunk);
    }
    let copies = ledger.picker().copies(chunk);
    (copies <= ledger.copies_of_rarest()?).then_some(chunk)
}

/// Whether a link has a free block, or a chunk that may be opened. A far link has a `limit`.
pub(super) fn offers(ledger: &Ledger, link: LinkId, limit: Option<Nearness>) -> bool {
    let Some(source) = ledger.sources().get(link) else {
        return false;
    };
    let has_waiting = match source.has() {
        _ if limit.is_some_and(|nearness| ledger.first_far(link, nearness).is_none()) => false,
        ChunkSet::Nothing => false,
        ChunkSet::Some(_) => source.candidates() > 0,
        ChunkSet::All => !ledger.picker().is_empty(),
    };
    let fits = |chunk| ledger.is_within(limit, chunk);
    let joinable = |lead| ledger.open().joinable(source.has(), lead, fits).is_some();
    has_waiting && ledger.may_open() || joinable(Lead::Free) || joinable(Lead::Taken)
}
