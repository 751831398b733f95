//! Zones: who is near, and what comes from far away to which of those who are near each other.

use std::time::Instant;

use super::leaving;
use super::parts::Parts;
use crate::content::ChunkIndex;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::{LinkId, LinkKind};
use crate::protocol::{PeerMessage, ZoneTag};

/// How many near links are told that a chunk comes, and tell others. In a zone of any size about
/// one in three thousand peers does not hear of it then (e^-8).
const TOLD: usize = 8;

/// Spreads those who are told: 2^32 divided by the golden ratio, as a multiplier (Knuth, The
/// Art of Computer Programming, volume 3, section 6.4).
const SPREAD: u32 = 0x9E37_79B9;

/// Says in which zone this side is.
pub(super) fn say(parts: &mut Parts, id: LinkId) {
    let Some(zone) = parts.zone else {
        return;
    };
    let speaks_ours = |link: &Link| link.info.kind == LinkKind::Own;
    if parts.links.get(id).is_some_and(speaks_ours) {
        parts.send(id, PeerMessage::Cancel(zone.mark()));
    }
}

/// The other side says in which zone it is. Its first word counts.
pub(super) fn told(parts: &mut Parts, now: Instant, id: LinkId, zone: ZoneTag) {
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    link.zone.get_or_insert(zone);
    use_zone(parts, now, id);
}

/// Tells the planner of a link that is in another zone.
pub(super) fn use_zone(parts: &mut Parts, now: Instant, id: LinkId) {
    let is_far = is_far(parts, id);
    if let Some(planner) = parts.planner().filter(|_| is_far) {
        planner.link_is_far(now, id);
        parts.ask_queue.wake(id);
    }
}

/// Whether both sides of a link have said where they are, and that is not the same zone.
pub(super) fn is_far(parts: &Parts, id: LinkId) -> bool {
    let link = parts.links.get(id);
    link.is_some_and(|link| link.is_far_from(parts.zone))
}

/// The other side says that a chunk comes to this zone.
pub(super) fn comes(parts: &mut Parts, now: Instant, id: LinkId, chunk: ChunkIndex) {
    let chunks = parts.manifest().map(|m| m.geometry().chunks());
    let link = parts.links.get(id);
    let is_near = link.is_some_and(|link| link.zone.is_some() && link.zone == parts.zone);
    if !is_near || chunks.is_some_and(|chunks| chunk.0 >= chunks) {
        return leaving::violated(parts, now, id, "a chunk that comes to another zone");
    }
    if let Phase::Transfer(transfer) = &mut parts.phase
        && transfer.planner.comes(now, chunk)
    {
        tell(parts, chunk, Some(id));
    }
}

/// Tells near links of the chunks that this side has just asked far ones for.
pub(super) fn tell_what_comes(parts: &mut Parts) {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return;
    };
    for chunk in transfer.planner.take_coming() {
        tell(parts, chunk, None);
    }
}

/// Tells some near links that a chunk comes: for each chunk others of them.
fn tell(parts: &mut Parts, chunk: ChunkIndex, but: Option<LinkId>) {
    let lacks_it = |(id, link): &(LinkId, &Link)| {
        link.zone == parts.zone && Some(*id) != but && !link.remote.has(chunk)
    };
    let near: Vec<LinkId> = parts
        .links
        .iter()
        .filter(lacks_it)
        .map(|(id, _)| id)
        .collect();
    if near.is_empty() {
        return;
    }
    let seed = parts.config.planner.seed as u32;
    let start = (chunk.0 ^ seed).wrapping_mul(SPREAD) as usize % near.len();
    let told = near.iter().cycle().skip(start).take(TOLD.min(near.len()));
    for &id in told {
        parts.send(id, PeerMessage::Coming(chunk));
    }
}
