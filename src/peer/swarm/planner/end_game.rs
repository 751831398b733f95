//! The end of a download: a link that finds nothing else takes over what would come last
//! from another.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::answer::Request;
use super::ledger::Ledger;
use super::source::Source;
use crate::content::BlockRange;

/// An overtaking link must promise to be faster by this factor. Otherwise two
/// links would take a block from each other in turns.
pub(super) const OVERTAKE: f64 = 1.25;

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
    let typical = ledger.sources().typical_rate(now);
    let last = last_blocks(ledger, now, link, thief, typical);
    let Some((victim, block, theirs)) = last.max_by(|a, b| a.2.total_cmp(&b.2)) else {
        return Takeover::Nothing;
    };
    let mine = match is_untried {
        true => TRY_AFTER.as_secs_f64(),
        false => thief.finish_in(now, block.len.into(), typical),
    };
    if mine * OVERTAKE < theirs {
        let overtaken = Some(victim);
        Takeover::Take(Request { block, overtaken })
    } else {
        Takeover::Later
    }
}

/// The last block of each other link that a link could take over, and in
/// how many seconds it is expected.
fn last_blocks(
    ledger: &Ledger,
    now: Instant,
    link: LinkId,
    thief: &Source,
    typical: f64,
) -> impl Iterator<Item = (LinkId, BlockRange, f64)> {
    let others = ledger.sources().iter();
    let others = others.filter(move |(other, _)| *other != link);
    others.filter_map(move |(other, source)| {
        let last = source.live_asks().rev().find(|ask| {
            // A block that was asked for only now may have been taken from
            // this very link.
            let chunk = ask.block.chunk;
            ask.at < now && ledger.open().is_shared(chunk) && thief.has_chunk(chunk)
        })?;
        Some((other, last.block, source.finish_in(now, 0, typical)))
    })
}
