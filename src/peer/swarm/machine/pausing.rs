//! Pausing and resuming.
//!
//! A pause loses nothing that is on its way. Nobody is asked for more, and what was asked
//! for is cancelled; but the links stay until all of it is answered, or for
//! [`keeping::ARRIVES`](super::keeping). What has arrived of chunks that are not whole stays
//! in memory, and is counted as waste only when it is given up after all.

use std::time::Instant;

use super::effort::Serving;
use super::leaving;
use super::parts::Parts;
use crate::peer::swarm::link::{Interest, Link};
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::peer::swarm::{DropReason, LinkId, Output};
use crate::protocol::{OwnState, PeerMessage, RefuseReason};

/// Asks nobody for anything from now on. Returns whether that may be.
pub(super) fn pause(parts: &mut Parts, now: Instant, serve: bool) -> bool {
    if parts.effort.is_stopping() || !may_pause(parts) {
        return false;
    }
    let serving = match serve {
        true => Serving::Goes,
        false => Serving::Rests,
    };
    let before = parts.effort.pauses(serving);
    if before.is_none() {
        parts.keeping.pauses(now);
        parts.limit.note(now, false);
        give_back(parts);
    }
    leaving::leave_lines(parts, now);
    hang_up(parts, now, serving);
    match (before, serving) {
        (Some(Serving::Rests), Serving::Goes) => parts.announce(OwnState::Partial),
        (Some(Serving::Rests), _) | (_, Serving::Goes) => {}
        (_, Serving::Rests) => parts.announce(OwnState::Gone),
    }
    true
}

/// Goes on. Returns whether it was paused.
pub(super) fn resume(parts: &mut Parts, now: Instant) -> bool {
    let Some(serving) = parts.effort.resumes(now) else {
        return false;
    };
    parts.keeping.resumes(now);
    if serving == Serving::Rests {
        parts.announce(OwnState::Partial);
    }
    parts.book.retry(now);
    parts.owner_search.restart(now);
    parts.wake_all();
    true
}

/// Whether something is missing.
fn may_pause(parts: &Parts) -> bool {
    match &parts.phase {
        Phase::Transfer(transfer) => !transfer.is_publishing(),
        Phase::Manifest(_) | Phase::Opening(_) => true,
        Phase::Seeding(_) => false,
    }
}

/// Takes back what others were asked for. Nobody is blamed.
fn give_back(parts: &mut Parts) {
    if let Phase::Manifest(fetch) = &mut parts.phase {
        fetch.pause();
    }
    if let Some(planner) = parts.planner() {
        planner.keep_partial();
        let released = planner.give_back();
        parts.released(released);
    }
    // They are looked at when the download goes on.
    parts.wake_all();
}

/// What follows while it is paused.
pub(super) fn settle(parts: &mut Parts, now: Instant, serving: Serving) {
    decline_all(parts);
    if parts.keeping.is_arriving() {
        hang_up(parts, now, serving);
    }
}

/// Those who may come back have had their time: what nobody has is given up.
pub(super) fn handle_timeout(parts: &mut Parts, now: Instant) {
    if parts.keeping.ends(now)
        && let Some(planner) = parts.planner()
    {
        let released = planner.keep_no_more();
        parts.released(released);
    }
}

/// Closes the links that are of no use while the download is paused: this side would
/// take a place from others. Those that may still send what they were asked for stay until
/// they have.
fn hang_up(parts: &mut Parts, now: Instant, serving: Serving) {
    let planner = match &parts.phase {
        Phase::Transfer(transfer) => Some(&transfer.planner),
        _ => parts.early.as_ref().map(|early| &early.planner),
    };
    let owes = |id| planner.is_some_and(|planner| planner.owes(id));
    let owed = parts.links.keys().any(owes);
    let arrives = parts.keeping.arrives(now, owed);
    let serves = |link: &Link| link.remote != RemoteChunks::All && !link.is_presumed();
    let stays = |id, link: &Link| serving == Serving::Goes && serves(link) || arrives && owes(id);
    let leaving = parts.links.iter().filter(|(id, link)| !stays(*id, link));
    let leaving: Vec<(LinkId, bool)> = leaving.map(|(id, link)| (id, serves(link))).collect();
    for (id, serves) in leaving {
        let reason = DropReason::Refused(match serves {
            // It may come back.
            true => RefuseReason::Busy,
            false => RefuseReason::NotNeeded,
        });
        leaving::owner_left(parts, id, reason.into());
        parts.outbox.push(Output::Drop { link: id, reason });
        // What it owes was given back, so its host is not blamed.
        if let Some(link) = parts.links.remove(id) {
            leaving::detach(parts, now, id);
            leaving::unlink_address(parts, now, &link);
        }
    }
}

/// Says that this side wants nothing, to those that owe no answer any more.
pub(super) fn decline_all(parts: &mut Parts) {
    let interested = parts.links.iter().filter(|(_, link)| link.is_interested());
    let interested: Vec<LinkId> = interested.map(|(id, _)| id).collect();
    for id in interested {
        let owes = parts.planner().is_some_and(|planner| planner.owes(id));
        if let Some(link) = parts.links.get_mut(id)
            && link.is_met()
            && !owes
        {
            link.interest = Interest::NotInterested;
            parts.send(id, PeerMessage::NotInterested);
        }
    }
}
