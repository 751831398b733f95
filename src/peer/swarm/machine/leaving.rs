//! Links end: they are dropped, refused, banned, or go down. What they owed is free for
//! others in the same step.

use std::time::Instant;

use super::parts::Parts;
use crate::peer::swarm::address_book::Farewell;
use crate::peer::swarm::contributor::Contributor;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::places::GRACE;
use crate::peer::swarm::{
    BanReason, BannedPeer, DropReason, LeaveReason, LinkId, Output, SwarmEvent,
};
use crate::protocol::RefuseReason;

/// What was asked of a link will not come.
pub(super) fn give_allowance_back(parts: &mut Parts, link: LinkId, bytes: u64) {
    let host = parts.links.get(link).map(|link| &link.info.host);
    parts.limit.give_back(host, bytes);
}

/// Keeps some places for newcomers until they have said what they have. Those who wait
/// need none: they say it meanwhile.
pub(super) fn keep_places_free(parts: &mut Parts, now: Instant) {
    if parts.keeps_a_line() {
        return;
    }
    while let Some(link) = parts.places(now).surplus_blank() {
        drop_link(parts, now, link, DropReason::Refused(RefuseReason::Busy));
    }
}

/// The other side ends a link. A host whose link came and went without any use may do
/// so again and again, so it is suspected.
pub(super) fn left(parts: &mut Parts, now: Instant, id: LinkId) {
    let Some(link) = parts.links.get(id) else {
        return;
    };
    let is_new = now.saturating_duration_since(link.since) < GRACE;
    if is_new && !link.info.dialled && link.received == 0 && parts.uploader.sent_to(id) == 0 {
        parts.book.suspect(now, &link.info.host);
    }
}

/// A link is gone, with a place or without one.
pub(super) fn remove_link(parts: &mut Parts, now: Instant, id: LinkId) {
    give_all_back(parts, id);
    if let Some(link) = parts.links.remove(id) {
        // Nobody is blamed for a pause.
        if link.is_met() && !parts.keeping.is_arriving() {
            blame_host(parts, now, id, &link);
        }
        detach(parts, now, id);
        unlink_address(parts, now, &link);
    } else if let Some(link) = parts.standby.remove(id) {
        parts.effort.turn_moves(now);
        unlink_address(parts, now, &link);
    } else {
        parts.line.remove(id);
        return;
    }
    if !parts.phase.is_content() && !parts.supply().is_supplied() {
        parts.owner_search.hurry(now, &parts.config);
    }
}

/// The limits of the download get back what was asked of a link that is gone.
pub(super) fn give_all_back(parts: &mut Parts, id: LinkId) {
    if !parts.limit.is_set() {
        return;
    }
    let asks = parts.planner().map(|planner| planner.unanswered_asks(id));
    let asked = asks.into_iter().flatten();
    let asked: u64 = asked.map(|(block, _)| u64::from(block.len)).sum();
    let host = parts.links.get(id).map(|link| &link.info.host);
    parts.limit.link_removed(id, host, asked);
}

/// A link has a place no more: nothing is asked of it or sent to it.
pub(super) fn detach(parts: &mut Parts, now: Instant, id: LinkId) {
    parts.ask_queue.link_removed(id);
    parts.uploader.link_removed(now, id);
    parts.super_seeding.returned(id);
    if let Phase::Manifest(fetch) = &mut parts.phase {
        fetch.passed(id, true);
    }
    if let Some(planner) = parts.planner() {
        let released = planner.link_removed(id);
        parts.released(released);
    }
}

/// A link that is gone and was useless is held against its host; but not if another
/// link from there was useful.
fn blame_host(parts: &mut Parts, now: Instant, id: LinkId, link: &Link) {
    let planner = parts.phase.planner();
    let owes = planner.is_some_and(|planner| planner.owes(id));
    let host = &link.info.host;
    let alone = parts.links.iter().all(|(other, state)| {
        state.info.host != *host || state.received == 0 && !parts.uploader.has_told(other)
    });
    let places = parts.places(now);
    let blank = places.is_blank(id, link) && places.is_old(link);
    if alone && blank {
        parts.book.never_had_anything(now, host);
    }
    if alone && link.received == 0 && (owes || parts.uploader.is_mute(now, id)) {
        parts.book.suspect(now, host);
    }
}

/// The address of a link that is gone may be dialled again, unless another link has
/// it. What another link merely claims does not count beside a proven address, and
/// losing a claim does not matter while a link with that address is up.
pub(super) fn unlink_address(parts: &mut Parts, now: Instant, link: &Link) {
    let Some(addr) = &link.info.addr else {
        return;
    };
    let has_it = |other: &Link| {
        let counts = other.is_proven || !link.is_proven;
        counts && other.info.addr.as_ref() == Some(addr)
    };
    if !parts
        .links
        .values()
        .chain(parts.standby.values())
        .any(has_it)
    {
        parts.book.unlinked(now, addr);
    }
}

/// The same when it is about to be forgotten.
pub(super) fn owner_left(parts: &mut Parts, id: LinkId, why: LeaveReason) {
    let owner = parts.links.get(id).filter(|link| link.is_owner);
    if let Some(owner) = owner.and_then(Link::remote_peer) {
        let left = SwarmEvent::OwnerLeft { owner, why };
        parts.outbox.push(Output::Event(left));
    }
}

/// Ends a link, if it is still there.
pub(super) fn drop_link(parts: &mut Parts, now: Instant, link: LinkId, reason: DropReason) {
    if parts.links.contains(link) || parts.line.contains(link) || parts.standby.contains(link) {
        owner_left(parts, link, reason.into());
        parts.outbox.push(Output::Drop { link, reason });
        remove_link(parts, now, link);
    }
}

/// The other side broke the protocol.
pub(super) fn violated(parts: &mut Parts, now: Instant, link: LinkId, what: &'static str) {
    drop_link(parts, now, link, DropReason::Violation(what));
}

/// Drops the link of a liar, if it is still up, and refuses further ones by what is
/// proven: the address, if this side dialled it, or else the host that the link came
/// from. Never by the name or the address that the other side said, which could be
/// an honest peer's.
pub(super) fn ban(parts: &mut Parts, now: Instant, liar: &Contributor, why: BanReason) {
    if let Some(peer) = liar.remote_peer() {
        let banned = BannedPeer { peer, why };
        if parts.counters.banned(&banned) {
            let event = SwarmEvent::Banned(banned);
            parts.outbox.push(Output::Event(event));
        }
    }
    let dialled = liar.addr.as_ref().filter(|_| liar.dialled);
    parts.liars = parts.liars.saturating_add(1);
    parts.book.ban(&liar.host, dialled);
    if let Some(addr) = liar.addr.as_ref().filter(|_| !liar.dialled) {
        parts.book.disproved(addr);
    }
    drop_link(
        parts,
        now,
        liar.link,
        DropReason::Refused(RefuseReason::Banned),
    );
}

/// This side needs nothing any more.
pub(super) fn leave_lines(parts: &mut Parts, now: Instant) {
    let standby: Vec<LinkId> = parts.standby.keys().collect();
    for link in standby {
        drop_link(
            parts,
            now,
            link,
            DropReason::Refused(RefuseReason::NotNeeded),
        );
    }
}

/// The other side says that it ends the link.
pub(super) fn refused(parts: &mut Parts, now: Instant, link: LinkId, reason: RefuseReason) {
    let standby = parts.standby.get_mut(link).map(|state| &*state);
    let state = parts.links.get(link).or(standby);
    let state = state.filter(|state| state.info.dialled);
    let dialled = state.and_then(|state| state.info.addr.clone());
    match reason {
        RefuseReason::Busy | RefuseReason::Duplicate | RefuseReason::NotNeeded => {}
        _ => left(parts, now, link),
    }
    drop_link(parts, now, link, DropReason::Left(reason));
    let Some(addr) = dialled else {
        return;
    };
    let farewell = match reason {
        RefuseReason::Busy => Farewell::Full,
        RefuseReason::UnknownContent => Farewell::Gone,
        _ => Farewell::Refused,
    };
    parts.book.said_farewell(&addr, farewell);
    if farewell == Farewell::Full {
        parts.book.had_no_place(now, &addr);
        parts.effort.turn_moves(now);
    }
}
