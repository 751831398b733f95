//! What becomes of a chunk that is whole: it is verified, written, offered to others and
//! made durable, and in the end the content is published.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::keeping::Keeping;
use super::leaving;
use super::parts::Parts;
use crate::content::{Bitfield, ChunkIndex};
use crate::peer::swarm::contributor::credits;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::peer::swarm::transfer::{Outlook, StorageStep};
use crate::peer::swarm::{BanReason, DropReason, LinkId, Output};
use crate::protocol::{OwnState, RefuseReason};

/// Writes what is verified, as far as a kill of the process may cost.
pub(super) fn write(parts: &mut Parts) {
    if let Phase::Transfer(transfer) = &mut parts.phase {
        while let Some((chunk, pieces)) = transfer.next_write(&parts.config) {
            parts.outbox.push(Output::Store { chunk, pieces });
        }
    }
}

/// Makes durable what is written, when it is time to, and publishes what is complete.
pub(super) fn commit_or_publish(parts: &mut Parts, now: Instant) {
    let outlook = parts.effort.outlook();
    trust_leftover(parts, now, outlook == Outlook::Ends);
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return;
    };
    match transfer.next_storage_step(now, &parts.config, outlook) {
        Some(StorageStep::Publish) => parts.outbox.push(Output::Finish),
        Some(StorageStep::PublishPart(verified)) => {
            parts.outbox.push(Output::FinishPart { verified });
        }
        Some(StorageStep::Commit(verified)) => parts.outbox.push(Output::Commit { verified }),
        None => {}
    }
}

/// Counts what an earlier download left behind as stored, if nobody has changed it
/// and nothing else is missing.
fn trust_leftover(parts: &mut Parts, now: Instant, stopping: bool) {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return;
    };
    if stopping {
        return;
    }
    for chunk in transfer.trust_leftover().iter().flat_map(Bitfield::iter) {
        offer(parts, now, chunk);
    }
}

/// Whether somebody else has put something into the storage that has to be verified.
pub(super) fn has_found(parts: &Parts) -> bool {
    matches!(&parts.phase, Phase::Transfer(transfer) if transfer.has_found())
}

/// Reads what an earlier download left behind, a little at a time.
pub(super) fn recheck(parts: &mut Parts) {
    if let Phase::Transfer(transfer) = &mut parts.phase {
        for chunk in transfer.next_rechecks() {
            parts.outbox.push(Output::Recheck { chunk });
        }
    }
}

/// Whether a link has nothing missing left but what it rejected. After a new
/// handshake it may give what it could not give this time.
pub(super) fn is_exhausted(parts: &Parts, id: LinkId) -> bool {
    let (Phase::Transfer(transfer), Some(link)) = (&parts.phase, parts.links.get(id)) else {
        return false;
    };
    let planner = &transfer.planner;
    let chunks = transfer.manifest().geometry().chunks();
    link.remote.count().min(chunks) > planner.has(id).count(chunks)
        && !planner.is_useful(id)
        && !planner.wants_nothing()
}

/// A chunk was hashed. Returns whether it was to be.
pub(super) fn chunk_verified(
    parts: &mut Parts,
    now: Instant,
    chunk: ChunkIndex,
    good: bool,
) -> bool {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return false;
    };
    let Some(hashed) = transfer.chunk_hashed(chunk, good) else {
        return false;
    };
    if !good {
        parts.gained(now);
        parts.counters.waste.bad += hashed.wasted;
    }
    if !good || hashed.wakes {
        parts.ask_queue.wake_idle();
    }
    for liar in hashed.liars {
        leaving::ban(parts, now, &liar, BanReason::BadChunk { chunk });
    }
    true
}

/// A chunk was hashed, is good, and was written at once. Returns whether it was to be.
pub(super) fn chunk_written(parts: &mut Parts, now: Instant, chunk: ChunkIndex) -> bool {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return false;
    };
    let Some(proven) = transfer.chunk_proven(chunk) else {
        return false;
    };
    if proven.wakes {
        parts.ask_queue.wake_idle();
    }
    for liar in proven.liars {
        leaving::ban(parts, now, &liar, BanReason::BadChunk { chunk });
    }
    chunk_stored(parts, now, chunk)
}

/// A verified chunk was written. Returns whether it was to be.
pub(super) fn chunk_stored(parts: &mut Parts, now: Instant, chunk: ChunkIndex) -> bool {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return false;
    };
    let Some(assembled) = transfer.chunk_written(now, chunk) else {
        return false;
    };
    for peer in assembled.senders.iter().filter_map(|sender| sender.peer) {
        parts.counters.contributed(peer);
    }
    let senders: BTreeSet<LinkId> = assembled.senders.iter().map(|s| s.link).collect();
    for id in senders {
        if let Some(link) = parts.links.get_mut(id)
            && (parts.passage.is_none() || link.takes_back)
        {
            parts.outbox.send_receipt(id, link, chunk);
        }
    }
    for (owner, bytes) in credits(&assembled) {
        parts.outbox.push(Output::Credit { owner, bytes });
    }
    offer(parts, now, chunk);
    true
}

/// A chunk is stored and verified: from now on it is offered to others.
fn offer(parts: &mut Parts, now: Instant, chunk: ChunkIndex) {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return;
    };
    if transfer.offer(chunk) {
        parts.ask_queue.wake_idle();
    }
    parts.gained(now);
    if parts.has(chunk) {
        parts.outbox.offer([chunk]);
        let lacks = |link: &Link| {
            link.remote != RemoteChunks::Unknown
                && !link.remote.has(chunk)
                && (parts.passage.is_none() || link.takes_back)
        };
        for (id, _) in parts.links.iter().filter(|(_, link)| lacks(link)) {
            parts.uploader.link_lacks(id);
        }
    }
    let links: Vec<LinkId> = parts.links.keys().collect();
    for link in links {
        parts.send_haves(link);
        if is_exhausted(parts, link) && !parts.places(now).keeps(link) {
            leaving::drop_link(
                parts,
                now,
                link,
                DropReason::Refused(RefuseReason::NotNeeded),
            );
        }
    }
}

/// Somebody else may have put these chunks into the storage. Returns whether one of them is
/// missing.
pub(super) fn chunks_found(parts: &mut Parts, chunks: &[ChunkIndex]) -> bool {
    let mut any = false;
    for &chunk in chunks {
        let Phase::Transfer(transfer) = &mut parts.phase else {
            return false;
        };
        if let Some(released) = transfer.found(chunk) {
            parts.released(released);
            any = true;
        }
    }
    any
}

/// A chunk of an earlier download was read and hashed. Returns whether it was to be.
pub(super) fn chunk_rechecked(
    parts: &mut Parts,
    now: Instant,
    chunk: ChunkIndex,
    good: bool,
) -> bool {
    let Phase::Transfer(transfer) = &mut parts.phase else {
        return false;
    };
    if !transfer.chunk_rechecked(chunk, good) {
        return false;
    }
    parts.gained(now);
    if good {
        offer(parts, now, chunk);
    } else {
        parts.ask_queue.wake_idle();
    }
    true
}

/// The content is published. Returns whether it was to be.
pub(super) fn finished(parts: &mut Parts, now: Instant) -> bool {
    let Phase::Transfer(transfer) = &parts.phase else {
        return false;
    };
    if !transfer.is_publishing() {
        return false;
    }
    for (id, link) in parts.links.iter_mut() {
        link.unanswered = transfer.planner.unanswered(id);
    }
    let manifest = Arc::clone(transfer.manifest());
    parts.gained(now);
    parts.effort.finished();
    parts.keeping = Keeping::default();
    parts.phase = Phase::Seeding(manifest);
    parts.uploader.set_seeding(true);
    parts.announce(OwnState::Complete);
    let is_seeder = |link: &Link| link.remote == RemoteChunks::All;
    let seeders = parts.links.iter().filter(|(_, link)| is_seeder(link));
    let seeders: Vec<LinkId> = seeders.map(|(id, _)| id).collect();
    for link in seeders {
        leaving::drop_link(
            parts,
            now,
            link,
            DropReason::Refused(RefuseReason::NotNeeded),
        );
    }
    leaving::leave_lines(parts, now);
    true
}
