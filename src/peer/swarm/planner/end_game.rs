//! The end of a download: a link that finds nothing else takes over what would come last
//! from another.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::answer::Request;
use super::ledger::Ledger;
use super::source::{Source, Typical};
use crate::content::BlockRange;

/// An overtaking link must promise to be faster by this factor. Otherwise two
/// links would take a block from each other in turns.
pub(super) const OVERTAKE: f64 = 1.25;

/// The same factor if the other link has sent so few blocks that they may have come in one
/// burst, or with a pause: then its rate is not known well.
const OVERTAKE_EARLY: f64 = 2.0;

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
/// nothing yet are tried if `may_try`.
pub(super) fn takeover(ledger: &Ledger, now: Instant, link: LinkId, may_try: bool) -> Takeover {
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
    let last = last_blocks(ledger, now, link, thief, typical);
    let Some(last) = last.max_by(|a, b| a.comes_in.total_cmp(&b.comes_in)) else {
        return Takeover::Nothing;
    };
    let mine = match is_untried {
        true => TRY_AFTER.as_secs_f64(),
        false => thief.finish_in(now, last.block.len.into(), typical),
    };
    if mine * last.factor < last.comes_in && last.can_be_recalled() {
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
    /// By how much another link must be faster.
    factor: f64,
}

impl LastBlock {
    /// Whether a cancellation is at the other side before the block is sent. If it is not,
    /// the block comes twice, and the line that carries it could have carried another one.
    fn can_be_recalled(&self) -> bool {
        self.comes_in > self.round_trip
    }
}

/// The last block of each other link that a link could take over.
fn last_blocks(
    ledger: &Ledger,
    now: Instant,
    link: LinkId,
    thief: &Source,
    typical: Typical,
) -> impl Iterator<Item = LastBlock> {
    let others = ledger.sources().iter();
    let others = others.filter(move |(other, _)| *other != link);
    others.filter_map(move |(other, source)| {
        let last = source.live_asks().rev().find(|ask| {
            // A block that was asked for only now may have been taken from
            // this very link.
            let chunk = ask.block.chunk;
            ask.at < now && ledger.open().is_shared(chunk) && thief.has_chunk(chunk)
        })?;
        let round_trip = source.round_trip();
        let is_new = round_trip.is_some() && !source.has_shown_rate();
        Some(LastBlock {
            link: other,
            block: last.block,
            comes_in: source.finish_in(now, 0, typical),
            round_trip: round_trip.map_or(typical.travel, |trip| trip.as_secs_f64()),
            factor: if is_new { OVERTAKE_EARLY } else { OVERTAKE },
        })
    })
}
