//! Which chunks are wanted, if not all are, and what follows when all of these are here: the
//! machine rests. It serves what it has, and asks nobody for anything.

use std::time::Instant;

use super::parts::Parts;
use super::{leaving, pausing};
use crate::content::Bitfield;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::peer::swarm::{DropReason, LinkId};
use crate::protocol::RefuseReason;

/// Only these chunks are wanted from now on. All are, without any set.
pub(super) fn set_wanted(parts: &mut Parts, now: Instant, wanted: Option<Bitfield>) {
    parts.wanted = wanted.clone();
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return;
    };
    let rested = transfer.rests();
    let released = transfer.set_wanted(wanted);
    let rests = transfer.rests();
    parts.released(released);
    parts.wake_all();
    if rested && !rests {
        // It begins anew: that nothing has come meanwhile is nobody's fault.
        parts.gained(now);
        parts.effort.turn_moves(now);
        parts.uploader.set_seeding(false);
        if !parts.is_paused() {
            parts.book.retry(now);
            parts.owner_search.restart(now);
        }
    }
}

/// What was wanted is published.
pub(super) fn part_finished(parts: &mut Parts, now: Instant) {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return;
    };
    if transfer.part_finished() && transfer.rests() {
        parts.gained(now);
        parts.uploader.set_seeding(true);
        let is_seeder = |link: &Link| link.remote == RemoteChunks::All;
        let seeders = parts.links.iter().filter(|(_, link)| is_seeder(link));
        let seeders: Vec<LinkId> = seeders.map(|(id, _)| id).collect();
        for link in seeders {
            is_of_no_use(parts, now, link);
        }
        leaving::leave_lines(parts, now);
        pausing::decline_all(parts);
    }
}

/// Neither side of a link has anything for the other.
pub(super) fn is_of_no_use(parts: &mut Parts, now: Instant, link: LinkId) {
    let reason = DropReason::Refused(RefuseReason::NotNeeded);
    leaving::drop_link(parts, now, link, reason);
}
