//! What follows from the time that passes: when the machine wants to be called, and what
//! is overdue by then.

use std::time::{Duration, Instant};

use super::parts::Parts;
use super::pausing;
use super::{asking, leaving, zones};
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::planner::Planner;
use crate::peer::swarm::supply::links_with_chunks;
use crate::peer::swarm::{DropReason, LinkId, Output};

/// A link that was silent this many times in a row is dropped.
const MAX_SNUBS: u32 = 3;

/// For how long an old link that has nothing comes last.
const COMES_LAST: Duration = Duration::from_secs(60);

/// When something is due, if nothing else happens before.
pub(super) fn poll_timeout(parts: &Parts) -> Option<Instant> {
    let greeting = parts.newcomers.poll_timeout();
    let upload = parts.uploader.poll_timeout();
    if parts.is_seeding() {
        let line = parts.line.poll_timeout();
        return upload.into_iter().chain(greeting).chain(line).min();
    }
    let phase = match &parts.phase {
        Phase::Manifest(_) if parts.is_paused() || parts.limit.holds_pages() => None,
        Phase::Manifest(fetch) => match asking::spares_manifest_until(parts) {
            None => fetch.poll_timeout(links_with_chunks(&parts.links)),
            until => until,
        },
        Phase::Transfer(transfer) => transfer.commit_due(&parts.config),
        _ => None,
    };
    let planner = match &parts.phase {
        Phase::Transfer(transfer) => Some(&transfer.planner),
        _ => parts.early.as_ref().map(|early| &early.planner),
    };
    let requests = planner.and_then(Planner::poll_timeout);
    let kept = parts.keeping.poll_timeout();
    if parts.is_paused() {
        return [upload, greeting, phase, requests, kept]
            .into_iter()
            .flatten()
            .min();
    }
    let supply = parts.supply();
    let wants_links = supply.wants_links();
    let dial = wants_links.then(|| parts.book.poll_timeout());
    let starves = supply.starves_at();
    let first = [
        patience_ends(parts),
        supply.stalls_at().filter(|_| parts.effort.is_going()),
        upload,
        dial.flatten(),
        supply.lapsed_due().filter(|_| wants_links),
        starves.filter(|_| wants_links && parts.book.has_claimed()),
        supply.place_wanted_at(),
        supply.census_due(),
        greeting,
        phase,
        requests,
        kept,
    ];
    let first = first.into_iter().flatten().min();
    // Whether owners are wanted takes a look at all links, so it is looked up only
    // where it matters.
    let is_first = |search: &Instant| first.is_none_or(|first| *search < first);
    let search = parts.owner_search.next();
    search
        .filter(|search| is_first(search) && (zones::wants_role(parts) || supply.wants_owners()))
        .or(first)
}

/// Time has passed.
pub(super) fn handle_timeout(parts: &mut Parts, now: Instant) {
    end_silent_newcomers(parts, now);
    if let Phase::Manifest(fetch) = &mut parts.phase
        && !parts.limit.holds_pages()
    {
        for link in fetch.handle_timeout(now) {
            leaving::drop_link(parts, now, link, DropReason::Silent);
        }
    }
    if let Some(planner) = parts.planner() {
        let (silent, released) = planner.handle_timeout(now);
        let snubs = |link: &LinkId| planner.snubs(*link);
        let lost = silent.iter().filter(|link| snubs(link) >= MAX_SNUBS);
        let lost: Vec<LinkId> = lost.copied().collect();
        for &link in &silent {
            parts.ask_queue.wake(link);
        }
        parts.released(released);
        for link in lost {
            leaving::drop_link(parts, now, link, DropReason::Silent);
        }
    }
    pausing::handle_timeout(parts, now);
    if patience_ends(parts).is_some_and(|end| end <= now) {
        // The driver ends the download. This is said once, until something arrives.
        parts.effort.gives_up();
        let reason = parts.supply().stall_reason(now);
        parts.outbox.push(Output::GaveUp(reason));
    }
    let stalls = parts.supply().stalls_at().is_some_and(|at| at <= now);
    if stalls && parts.effort.is_going() {
        stalled(parts, now);
    }
}

/// Nothing arrives: says so, and why.
pub(super) fn stalled(parts: &mut Parts, now: Instant) {
    let reason = parts.supply().stall_reason(now);
    if parts.effort.stalls(reason) {
        parts.outbox.push(Output::Stalled(reason));
    }
}

/// When to give up, if nothing arrives before. Not if that was said already, and not
/// when the download ends anyway.
fn patience_ends(parts: &Parts) -> Option<Instant> {
    let ends = parts.supply().patience_ends();
    ends.filter(|_| parts.effort.is_patient())
}

/// Counts the links of doubtful use, from time to time.
pub(super) fn take_census(parts: &mut Parts, now: Instant) {
    let mut census = std::mem::take(&mut parts.census);
    let blank = census.count(parts.places(now));
    parts.census = census;
    for id in blank {
        let since = parts.links.get(id).map_or(now, |link| link.since);
        match now.saturating_duration_since(since) < COMES_LAST {
            true => parts.uploader.mark_never_told(id),
            // It has nobody else to ask, or others would have served it meanwhile.
            false => parts.uploader.try_again(id),
        }
    }
}

/// Ends links that did not say in time what they have.
fn end_silent_newcomers(parts: &mut Parts, now: Instant) {
    while let Some(link) = parts.newcomers.next_late(now, &parts.links) {
        leaving::violated(parts, now, link, "no Bitfield in time");
    }
}
