//! The end of a download: a link that finds nothing else takes over what would come last
//! from another.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::answer::Request;
use super::far::Nearness;
use super::ledger::Ledger;
use super::source::Typical;
use crate::content::{BlockRange, ChunkIndex};

/// An overtaking link must promise to be faster by this factor. Otherwise two
/// links would take a block from each other in turns.
pub(super) const OVERTAKE: f64 = 1.25;

/// The same factor if the other link has sent so few blocks that they may have come in one
/// burst: then its rate is not known well. And if the block can hardly be called back any
/// more.
const OVERTAKE_CLEARLY: f64 = 2.0;

/// A link that has sent nothing yet is tried with a block that would take longer than this
/// from another link.
pub(super) const TRY_AFTER: Duration = Duration::from_millis(500);

/// What a link may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takeover {
    Take(Request),
    /// Nothing yet, but perhaps later.
    Later,
    Nothing,
}

/// The block that would come last, if a link would send it sooner. Those that have sent
/// nothing yet are tried if `may_try`. A far link has a `limit`.
pub(super) fn takeover(
    ledger: &Ledger,
    now: Instant,
    link: LinkId,
    may_try: bool,
    limit: Option<Nearness>,
) -> Takeover {
    // As long as chunks wait that may be opened, a link will come for them,
    // and nothing is held up.
    let waits = !ledger.picker().is_empty() && ledger.may_open();
    let Some(thief) = ledger.sources().get(link).filter(|_| !waits) else {
        return Takeover::Nothing;
    };
    // A link that has sent nothing yet promises nothing. But where links are asked for
    // much at a time, little else may be left to try it with.
    let is_untried = thief.rate(now).is_none();
    if is_untried && !(may_try && thief.unanswered() == 0) {
        return Takeover::Nothing;
    }
    let typical = ledger.sources().shown_typical(now);
    let may = |chunk| thief.has_chunk(chunk) && ledger.is_within(limit, chunk);
    let last = last_blocks(ledger, now, link, may, typical);
    let Some(last) = last.max_by(|a, b| a.comes_in.total_cmp(&b.comes_in)) else {
        return Takeover::Nothing;
    };
    let mine = match is_untried {
        true => TRY_AFTER.as_secs_f64(),
        false => thief.finish_in(now, last.block.len.into(), typical),
    };
    if last
        .factor()
        .is_some_and(|factor| mine * factor < last.comes_in)
    {
        let (block, overtaken) = (last.block, Some(last.link));
        Takeover::Take(Request { block, overtaken })
    } else {
        Takeover::Later
    }
}

/// The last block that a link was asked for.
#[derive(Debug, Clone, Copy)]
struct LastBlock {
    link: LinkId,
    block: BlockRange,
    /// Seconds until it is expected.
    comes_in: f64,
    /// Seconds that a request to that link and its block travel.
    round_trip: f64,
    /// Whether the link owes nothing else.
    is_only: bool,
    /// Whether the link has not shown yet how fast it is.
    is_new: bool,
}

impl LastBlock {
    /// By how much another link must be faster; `None` if the block is left where it is.
    ///
    /// If a cancellation is not at the other side before the block is sent, the block comes
    /// twice, and the line that carries it could have carried another one. That is worth it
    /// only if this block is all that is waited for on a slow line.
    fn factor(&self) -> Option<f64> {
        let can_be_recalled = self.comes_in > self.round_trip;
        match can_be_recalled && !self.is_new {
            true => Some(OVERTAKE),
            false => (can_be_recalled || self.is_only).then_some(OVERTAKE_CLEARLY),
        }
    }
}

/// The last block of each other link, of a chunk that a link `may` take over.
fn last_blocks(
    ledger: &Ledger,
    now: Instant,
    link: LinkId,
    may: impl Fn(ChunkIndex) -> bool,
    typical: Typical,
) -> impl Iterator<Item = LastBlock> {
    let others = ledger.sources().iter();
    let others = others.filter(move |(other, _)| *other != link);
    others.filter_map(move |(other, source)| {
        let last = source.live_asks().rev().find(|ask| {
            // A block that was asked for only now may have been taken from
            // this very link.
            let chunk = ask.block.chunk;
            ask.at < now && ledger.open().is_shared(chunk) && may(chunk)
        })?;
        let round_trip = source.round_trip();
        Some(LastBlock {
            link: other,
            block: last.block,
            comes_in: source.finish_in(now, 0, typical),
            round_trip: round_trip.map_or(typical.travel, |trip| trip.as_secs_f64()),
            is_only: source.live_asks().nth(1).is_none(),
            is_new: round_trip.is_some() && !source.has_shown_rate() && !source.pauses(now),
        })
    })
}
