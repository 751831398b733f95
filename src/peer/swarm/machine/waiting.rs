//! Links that wait for a place, here or at the other side.

use std::time::Instant;

use super::joining::Welcome;
use super::parts::Parts;
use super::{joining, leaving};
use crate::peer::swarm::link::Link;
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::peer::swarm::waiting_line::WhileWaiting;
use crate::peer::swarm::{DropReason, LinkId, Output};
use crate::protocol::{HostKey, PeerMessage, RefuseReason, ZoneTag};

/// Gives free places to those who wait, and from time to time the place of a link that
/// gives way to them: of one at a time, since a link that comes needs a round trip
/// until it asks.
pub(super) fn serve_line(parts: &mut Parts, now: Instant) {
    if parts.line.is_empty() {
        return;
    }
    let looks = parts.line.look(now);
    if looks {
        for id in parts.line.late(now) {
            leaving::violated(parts, now, id, "no Bitfield in time");
        }
        if let Some((least, next)) = exchange(parts, now) {
            leaving::drop_link(parts, now, least, DropReason::Refused(RefuseReason::Busy));
            end_wait(parts, now, next);
        }
    }
    while let Some(next) = next_in_line(parts, now) {
        end_wait(parts, now, next);
    }
    if looks {
        for (id, position) in parts.line.news(now) {
            joining::tell_position(parts, id, position);
        }
    }
}

/// The link that gives way to those who wait, if one does, and the one that gets its
/// place.
fn exchange(parts: &Parts, now: Instant) -> Option<(LinkId, LinkId)> {
    let hosts = parts.places(now).hosts();
    let most = hosts.values().max().copied()?;
    let (least, is_surplus) = parts.places(now).gives_way(&hosts)?;
    let share = parts.places(now).share(hosts.len());
    let next = parts.line.first(|host| {
        let count = hosts.get(host).copied().unwrap_or(0);
        count < share && (!is_surplus || count + 2 <= most)
    });
    Some((least, next?))
}

/// The link that gets the next free place, if there is one.
fn next_in_line(parts: &Parts, now: Instant) -> Option<LinkId> {
    if parts.links.len() >= parts.config.max_links {
        return None;
    }
    let (places, is_half_full) = (parts.places(now), joining::is_half_full(parts));
    let may = |host: &HostKey| !is_half_full || !places.has_its_share(host);
    parts.line.first(may)
}

/// A link has waited long enough: it gets a place.
fn end_wait(parts: &mut Parts, now: Instant, id: LinkId) {
    let Some(waiting) = parts.line.take(id) else {
        return;
    };
    let rejections = waiting.rejections();
    let mut link = waiting.link;
    link.has_waited = true;
    link.told = parts.outbox.offered();
    joining::attach(parts, now, id, link);
    if waiting.declined {
        parts.uploader.link_declined(id, true);
    }
    for rejection in rejections {
        parts.send(id, rejection);
    }
    joining::greet(parts, id);
}

/// The other side has no place for a new link, and tells the position in its line.
pub(super) fn queued(parts: &mut Parts, now: Instant, id: LinkId, position: u32) {
    let is_new = |link: &Link| link.info.dialled && link.remote == RemoteChunks::Unknown;
    if !parts.links.get(id).is_some_and(is_new) {
        return leaving::violated(parts, now, id, "a link has to wait that was accepted");
    }
    if parts.is_seeding() {
        return leaving::drop_link(parts, now, id, DropReason::Refused(RefuseReason::NotNeeded));
    }
    let asks = parts.planner().map(|planner| planner.unanswered_asks(id));
    leaving::give_all_back(parts, id);
    let Some(mut link) = parts.links.remove(id) else {
        return;
    };
    link.presumed_complete = false;
    // What it was asked early is free for others at once. It still answers.
    leaving::detach(parts, now, id);
    let asks = asks.unwrap_or_default();
    parts.standby.insert(id, link, position, asks);
    parts.effort.turn_moves(now);
    if parts.standby.len() > parts.config.sources
        && let Some(worst) = parts.standby.worst()
    {
        let reason = DropReason::Refused(RefuseReason::NotNeeded);
        leaving::drop_link(parts, now, worst, reason);
    }
}

/// A message arrived on a link that has no place, here or at the other side.
/// Returns it if the link has one from now on, and the message is one as on any link.
pub(super) fn heard_while_waiting(
    parts: &mut Parts,
    now: Instant,
    id: LinkId,
    message: PeerMessage,
) -> Option<PeerMessage> {
    if parts.standby.contains(id) {
        return heard_on_standby(parts, now, id, message);
    }
    let chunks = parts.manifest().map(|m| m.geometry().chunks());
    let (waiting, chunks) = (parts.line.get_mut(id)?, chunks?);
    let reason = match waiting.hears(message, chunks) {
        WhileWaiting::Nothing => return None,
        WhileWaiting::Left(reason) => DropReason::Left(reason),
        WhileWaiting::NotNeeded => DropReason::Refused(RefuseReason::NotNeeded),
        WhileWaiting::Violation(what) => DropReason::Violation(what),
    };
    leaving::drop_link(parts, now, id, reason);
    None
}

/// The same on a link on which this side waits.
fn heard_on_standby(
    parts: &mut Parts,
    now: Instant,
    id: LinkId,
    message: PeerMessage,
) -> Option<PeerMessage> {
    match message {
        PeerMessage::KeepAlive | PeerMessage::SamePeer(_) => {}
        // The end of the wait begins with it, if this side has said its own.
        PeerMessage::Cancel(block) if parts.zone.is_some() => {
            let zone = ZoneTag::of_mark(block);
            match parts.standby.get_mut(id).zip(zone) {
                Some((link, zone)) => link.zone = Some(zone),
                None => leaving::violated(parts, now, id, "a Cancel where nothing is asked for"),
            }
        }
        // Another link is asked for the manifest already.
        PeerMessage::ManifestReject { .. } => {}
        PeerMessage::Reject(block) => {
            if !parts.standby.rejected(id, block) {
                leaving::violated(parts, now, id, "a rejection of what was not asked for");
            }
        }
        PeerMessage::Queued { position } => {
            if parts.standby.moved(id, position) {
                parts.effort.turn_moves(now);
            }
        }
        PeerMessage::Refuse(reason) => leaving::refused(parts, now, id, reason),
        PeerMessage::Bitfield(_) | PeerMessage::HaveAll | PeerMessage::HaveNone => {
            got_place(parts, now, id);
            return Some(message);
        }
        _ => leaving::violated(
            parts,
            now,
            id,
            "more than a side may say that lets another wait",
        ),
    }
    None
}

/// The other side has a place for this one. Now the link needs one here.
fn got_place(parts: &mut Parts, now: Instant, id: LinkId) {
    let asks = parts.standby.unanswered(id);
    let Some(link) = parts.standby.remove(id) else {
        return;
    };
    if let Welcome::Refused(reason) = joining::welcome(parts, now, &link.info) {
        let reason = DropReason::Refused(reason);
        parts.outbox.push(Output::Drop { link: id, reason });
        return leaving::unlink_address(parts, now, &link);
    }
    joining::attach(parts, now, id, link);
    if let Some(planner) = parts.planner() {
        planner.link_owes(id, asks);
    }
    parts.effort.turn_moves(now);
    joining::send_proofs(parts, id);
    parts.send_haves(id);
}
