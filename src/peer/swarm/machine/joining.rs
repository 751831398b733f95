//! Links come up: whether there is a place for them, and how they are greeted.

use std::time::Instant;

use super::effort::Serving;
use super::parts::Parts;
use super::{announced, leaving, owners, zones};
use crate::peer::swarm::link::{Interest, Link};
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::same_peer::SamePeer;
use crate::peer::swarm::{
    DropReason, LeaveReason, LinkCookies, LinkId, LinkInfo, LinkKind, Output, same_peer,
};
use crate::protocol::{LinkProof, PeerId, PeerMessage, RefuseReason};

/// What becomes of a new link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Welcome {
    /// It has a place.
    Place,
    /// It waits for one.
    Wait,
    Refused(RefuseReason),
}

/// A link is up. Returns whether something may follow from it.
pub(super) fn link_up(parts: &mut Parts, now: Instant, id: LinkId, info: LinkInfo) -> bool {
    match welcome(parts, now, &info) {
        Welcome::Place => {}
        Welcome::Wait => {
            wait(parts, now, id, info);
            return true;
        }
        Welcome::Refused(reason) => {
            let reason = DropReason::Refused(reason);
            parts.outbox.push(Output::Drop { link: id, reason });
            let dialled = info.addr.filter(|_| info.dialled);
            if let Some(addr) = &dialled {
                parts.book.dial_failed(now, addr);
            }
            return dialled.is_some();
        }
    }
    let complete = info.addr.as_ref().filter(|_| info.dialled);
    let complete = complete.is_some_and(|addr| parts.book.is_complete(addr));
    let mut link = Link::new(now, id, info, parts.greeted_with());
    // A BitTorrent client says itself what it has before it is asked.
    let is_presumed = complete && parts.phase.is_beginning();
    link.presumed_complete = is_presumed && !parts.is_torrent();
    let is_stranger = link.info.kind == LinkKind::Stranger;
    attach(parts, now, id, link);
    if is_stranger {
        // Links of this crate's protocol may ask from the start.
        parts.send(id, PeerMessage::Choke);
    }
    greet(parts, id);
    announced::use_early(parts, id);
    true
}

/// A link has a place from now on.
pub(super) fn attach(parts: &mut Parts, now: Instant, id: LinkId, mut link: Link) {
    parts.book.linked(&link.info);
    let host = link.info.host.clone();
    let is_suspect = parts.book.is_suspect(now, &host);
    if let Some(planner) = parts.planner() {
        planner.link_added(id);
        if is_suspect {
            planner.suspect(id);
        }
    }
    parts.newcomers.link_up(now, id, &parts.links);
    link.since = now;
    link.lot = parts.places(now).lot(&host);
    link.known_blank = parts.book.is_known_blank(now, &host);
    match link.info.kind {
        LinkKind::Own => parts.uploader.link_added(now, id, &host),
        LinkKind::Stranger => parts.uploader.stranger_added(id, &host),
    }
    if link.known_blank {
        parts.uploader.mark_never_told(id);
    }
    parts.links.insert(id, link);
    zones::use_zone(parts, now, id);
    announced::count_lacks(parts, id);
    parts.owner_joined(id);
}

/// Says what this side has.
pub(super) fn greet(parts: &mut Parts, id: LinkId) {
    // First, so that nothing is asked before it is known.
    zones::say(parts, id);
    if parts.phase.rests()
        && let Some(link) = parts.links.get_mut(id)
    {
        // Otherwise the other side would take this one for interested as soon as it is greeted.
        link.interest = Interest::NotInterested;
        parts.send(id, PeerMessage::NotInterested);
    }
    let greeting = greeting(parts);
    parts.send(id, greeting);
    if parts.passage.is_some() {
        parts.mark(id);
    }
    send_proofs(parts, id);
}

/// The other side of a link that this side dialled has said who it is. Returns whether
/// something may follow from it.
pub(super) fn link_met(
    parts: &mut Parts,
    now: Instant,
    id: LinkId,
    peer: PeerId,
    cookies: Option<LinkCookies>,
) -> bool {
    let Some(link) = parts.links.get_mut(id) else {
        return false;
    };
    link.met(peer, cookies);
    if parts.effort.is_stalled() {
        owners::reachable_again(parts, now);
    }
    parts.newcomers.link_met(now, id, &parts.links);
    zones::use_zone(parts, now, id);
    let info = parts.links.get(id).map(|link| link.info.clone());
    if let Some(info) = info.filter(|info| info.peer == Some(parts.me)) {
        parts.book.ban(&info.host, info.addr.as_ref());
        let reason = DropReason::Refused(RefuseReason::SelfConnection);
        leaving::drop_link(parts, now, id, reason);
    } else {
        send_proofs(parts, id);
    }
    true
}

/// Proves to other links of the same name that this is the same peer.
pub(super) fn send_proofs(parts: &mut Parts, id: LinkId) {
    for proof in same_peer::proofs(&parts.links, id) {
        parts.send(id, PeerMessage::SamePeer(proof));
    }
}

/// The first message of this side.
fn greeting(parts: &Parts) -> PeerMessage {
    match &parts.phase {
        _ if parts.passage.is_some() => PeerMessage::HaveNone,
        Phase::Transfer(transfer) if !transfer.stored().is_empty() => {
            PeerMessage::Bitfield(transfer.stored().to_bytes())
        }
        Phase::Seeding(_) => PeerMessage::HaveAll,
        _ => PeerMessage::HaveNone,
    }
}

/// What becomes of a new link. When half of the places are taken, a link may not be
/// worth one: earlier links of its host were useless, or its host has its share. Links
/// that turned out to be useless give way at the same time.
pub(super) fn welcome(parts: &mut Parts, now: Instant, info: &LinkInfo) -> Welcome {
    if info.peer == Some(parts.me) {
        if info.dialled {
            parts.book.ban(&info.host, info.addr.as_ref());
        }
        return Welcome::Refused(RefuseReason::SelfConnection);
    }
    if parts.book.is_banned(info) {
        return Welcome::Refused(RefuseReason::Banned);
    }
    if let Some(serving) = parts.effort.pause()
        && (info.dialled || serving == Serving::Rests)
    {
        return Welcome::Refused(RefuseReason::Busy);
    }
    let is_half_full = is_half_full(parts);
    if is_half_full {
        if !info.dialled && parts.book.is_suspect(now, &info.host) {
            return Welcome::Refused(RefuseReason::Busy);
        }
        for link in parts.places(now).useless() {
            leaving::drop_link(parts, now, link, DropReason::Silent);
        }
    }
    let has_its_share =
        is_half_full && !info.dialled && parts.places(now).has_its_share(&info.host);
    if parts.keeps_a_line() && !info.dialled {
        if has_its_share || !has_place_for(parts, now, info) {
            return welcome_to_line(parts, now, info);
        }
        return Welcome::Place;
    }
    match !has_its_share && make_room(parts, now, info) {
        true => Welcome::Place,
        false => Welcome::Refused(RefuseReason::Busy),
    }
}

/// Whether there is a place for a newcomer that could wait as well. Those who come
/// together draw lots for the places.
fn has_place_for(parts: &mut Parts, now: Instant, newcomer: &LinkInfo) -> bool {
    if parts.links.len() < parts.config.max_links {
        return true;
    }
    let Some(loser) = parts.places(now).loser(newcomer) else {
        return false;
    };
    leaving::drop_link(parts, now, loser, DropReason::Refused(RefuseReason::Busy));
    true
}

/// Whether half of the places are taken.
pub(super) fn is_half_full(parts: &Parts) -> bool {
    parts.links.len() >= parts.config.max_links / 2
}

/// Makes a place for a link, if all are taken. The least useful link gives way, if it
/// is less useful than a newcomer. Returns whether there is a place.
fn make_room(parts: &mut Parts, now: Instant, newcomer: &LinkInfo) -> bool {
    if parts.links.len() < parts.config.max_links {
        return true;
    }
    let starving = parts.supply().is_starving(now);
    let Some(least) = parts.places(now).least_useful(newcomer, starving) else {
        return false;
    };
    leaving::drop_link(parts, now, least, DropReason::Refused(RefuseReason::Busy));
    true
}

/// The other side proves that another link is with the same peer.
pub(super) fn same_peer(parts: &mut Parts, now: Instant, id: LinkId, proof: LinkProof) {
    match same_peer::received(&mut parts.links, id, proof) {
        SamePeer::TooMany => leaving::violated(parts, now, id, "too many proofs"),
        SamePeer::Unknown => {}
        SamePeer::Drop(link) => {
            leaving::drop_link(
                parts,
                now,
                link,
                DropReason::Refused(RefuseReason::Duplicate),
            );
        }
    }
}

/// A link went down.
pub(super) fn link_down(parts: &mut Parts, now: Instant, link: LinkId) {
    leaving::left(parts, now, link);
    leaving::owner_left(parts, link, LeaveReason::Ended);
    leaving::remove_link(parts, now, link);
}

/// Whether there is room in the line. If it is full, a link of the host that has most
/// of it gives way.
fn welcome_to_line(parts: &mut Parts, now: Instant, info: &LinkInfo) -> Welcome {
    if parts.line.len() >= parts.config.max_waiting {
        let Some(surplus) = parts.line.surplus(&info.host) else {
            return Welcome::Refused(RefuseReason::Busy);
        };
        leaving::drop_link(parts, now, surplus, DropReason::Refused(RefuseReason::Busy));
    }
    Welcome::Wait
}

/// A link waits for a place from now on.
fn wait(parts: &mut Parts, now: Instant, id: LinkId, info: LinkInfo) {
    let link = Link::new(now, id, info, parts.outbox.offered());
    let position = parts.line.join(now, id, link);
    tell_position(parts, id, position);
}

/// Tells a link that waits which one it is.
pub(super) fn tell_position(parts: &mut Parts, id: LinkId, position: u32) {
    if let Some(waiting) = parts.line.get_mut(id) {
        let message = PeerMessage::Queued { position };
        parts.outbox.send(id, &mut waiting.link, message);
    }
}
