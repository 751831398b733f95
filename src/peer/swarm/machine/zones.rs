//! Zones: who is near, and who fetches from far away for those who are near each other.

use std::time::Instant;

use super::leaving;
use super::parts::Parts;
use crate::content::ChunkIndex;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::places::KEPT;
use crate::peer::swarm::planner::Planner;
use crate::peer::swarm::{LinkId, LinkKind};
use crate::protocol::{Addr, PeerId, PeerMessage, ZoneTag};

/// Says in which zone this side is. One that has waited for its place here would take that for a
/// violation, unless it has said its own zone.
pub(super) fn say(parts: &mut Parts, id: LinkId) {
    let Some(zone) = parts.zone else {
        return;
    };
    let understands = |link: &Link| !link.has_waited || link.zone.is_some();
    let may = |link: &Link| link.info.kind == LinkKind::Own && understands(link);
    if parts.links.get(id).is_some_and(may) {
        parts.send(id, PeerMessage::Cancel(zone.mark()));
    }
}

/// The other side says in which zone it is. Its first word counts.
pub(super) fn told(parts: &mut Parts, now: Instant, id: LinkId, zone: ZoneTag) {
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    if link.zone.is_none() {
        link.zone = Some(zone);
        if link.has_waited {
            // It got its place before this was read, and has not been told.
            say(parts, id);
        }
        introduce(parts, id);
    }
    use_zone(parts, now, id);
}

/// Tells the planner of a link that is in another zone, or fetches for this one.
pub(super) fn use_zone(parts: &mut Parts, now: Instant, id: LinkId) {
    let here = parts.zone;
    let facts = parts.links.get(id).map(|link| Facts::of(link, here));
    if let (Some(facts), Some(planner)) = (facts, parts.planner())
        && facts.show(planner, now, id)
    {
        parts.ask_queue.wake(id);
    }
}

/// What a plan has to know of a link.
pub(super) struct Facts {
    /// The number of the other zone that it is in.
    far: Option<u32>,
    /// What the other side is called where chunks are shared out, if it fetches for this zone.
    importer: Option<u64>,
}

impl Facts {
    pub(super) fn of(link: &Link, here: Option<ZoneTag>) -> Self {
        let far = link.zone.filter(|_| link.is_far_from(here));
        let importer = link.info.peer.as_ref().filter(|_| link.imports);
        Self {
            far: far.map(ZoneTag::number),
            importer: importer.map(name_of),
        }
    }

    /// Tells a plan. Returns whether there was anything to tell.
    pub(super) fn show(&self, planner: &mut Planner, now: Instant, link: LinkId) -> bool {
        if let Some(zone) = self.far {
            planner.link_is_far(now, link, zone);
        }
        if let Some(name) = self.importer {
            planner.link_imports(now, link, name);
        }
        self.far.is_some() || self.importer.is_some()
    }
}

/// Tells a new plan what it has to know of zones.
pub(super) fn prepare(planner: &mut Planner, me: &PeerId, imports: bool) {
    planner.set_name(name_of(me));
    if imports {
        planner.import();
    }
}

/// Whether both sides of a link have said where they are, and that is not the same zone.
pub(super) fn is_far(parts: &Parts, id: LinkId) -> bool {
    let link = parts.links.get(id);
    link.is_some_and(|link| link.is_far_from(parts.zone))
}

/// Whether a tracker has to say whether this peer fetches for its zone, and who else does. It
/// knows that for certain as soon as all are announced, which is after the first search.
pub(super) fn wants_role(parts: &Parts) -> bool {
    let waits = parts.zone.is_some() && !parts.role_asked && !parts.is_paused();
    waits && matches!(parts.phase, Phase::Transfer(_))
}

/// This peer fetches for its zone from now on, as a tracker says, or as nobody else does.
pub(super) fn import(parts: &mut Parts) {
    if parts.zone.is_none() || parts.imports {
        return;
    }
    parts.imports = true;
    let me = parts.me;
    if let Some(planner) = parts.planner() {
        prepare(planner, &me, true);
    }
    let links: Vec<LinkId> = parts.links.keys().collect();
    for id in links {
        introduce(parts, id);
        parts.ask_queue.wake(id);
    }
}

/// Others that fetch for the zone are at these addresses. The last word of a tracker counts.
pub(super) fn named(parts: &mut Parts, others: impl IntoIterator<Item = Addr>) {
    parts.importers = others.into_iter().take(KEPT).collect();
}

/// Tells a link of the same zone that this side fetches for it.
fn introduce(parts: &mut Parts, id: LinkId) {
    let link = parts.links.get(id);
    let is_near = link.is_some_and(|link| link.is_in_zone(parts.zone));
    if parts.imports && is_near && !parts.is_seeding() {
        parts.send(id, PeerMessage::Importing);
    }
}

/// The other side fetches for this zone.
pub(super) fn imports(parts: &mut Parts, now: Instant, id: LinkId) {
    let here = parts.zone;
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    if !link.is_in_zone(here) {
        return leaving::violated(parts, now, id, "an importer of another zone");
    }
    link.imports = true;
    use_zone(parts, now, id);
}

/// The other side fetches a chunk for this zone.
pub(super) fn comes(parts: &mut Parts, now: Instant, id: LinkId, chunk: ChunkIndex) {
    let chunks = parts.manifest().map(|m| m.geometry().chunks());
    let link = parts.links.get(id);
    let is_near = link.is_some_and(|link| link.is_in_zone(parts.zone));
    if !is_near || chunks.is_some_and(|chunks| chunk.0 >= chunks) {
        return leaving::violated(parts, now, id, "a chunk that comes to another zone");
    }
    if let Phase::Transfer(transfer) = &mut parts.phase {
        transfer.planner.claimed(now, id, chunk);
    }
}

/// Tells the others that fetch for the zone which chunks this side has just asked far links for,
/// and everybody that this side fetches, if nobody else seems to.
pub(super) fn tell(parts: &mut Parts) {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return;
    };
    let imports = transfer.planner.imports();
    let claims = transfer.planner.take_claims();
    if imports {
        import(parts);
    }
    if claims.is_empty() {
        return;
    }
    let others = parts.links.iter().filter(|(_, link)| link.imports);
    let others: Vec<LinkId> = others.map(|(id, _)| id).collect();
    for id in others {
        for &chunk in &claims {
            parts.send(id, PeerMessage::Coming(chunk));
        }
    }
}

/// What a peer is called where chunks are shared out.
pub(super) fn name_of(peer: &PeerId) -> u64 {
    let number = u128::from_be_bytes(peer.0);
    (number >> u64::BITS) as u64 ^ number as u64
}
