//! What the other side of a link says: what it has, what it suggests, and whether it lets
//! this side ask.

use std::time::Instant;

use super::parts::Parts;
use super::{choosing, leaving};
use crate::content::ChunkIndex;
use crate::peer::swarm::chunk_set::ChunkSet;
use crate::peer::swarm::link::{Choke, Link};
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::planner::Released;
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::peer::swarm::{DropReason, LinkId, newcomers};
use crate::protocol::RefuseReason;

/// The other side says for the first time what it has.
pub(super) fn greeted(parts: &mut Parts, now: Instant, id: LinkId, remote: RemoteChunks) {
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    if link.remote != RemoteChunks::Unknown {
        return leaving::violated(parts, now, id, "a second Bitfield");
    }
    link.remote = remote;
    if let Some(addr) = link.info.addr.as_ref()
        && link.remote == RemoteChunks::All
    {
        parts.book.said_complete(addr);
    }
    use_early(parts, id);
    use_remote(parts, now, id);
    parts.owner_joined(id);
    leaving::keep_places_free(parts, now);
}

/// Asks a link that has everything, before the manifest is here. What it was asked for
/// on the word of a tracker is free again, if it has not.
pub(super) fn use_early(parts: &mut Parts, id: LinkId) {
    let (Some(early), Some(link)) = (&mut parts.early, parts.links.get(id)) else {
        return;
    };
    // In a crowd, what comes next is chosen with care, once it is known who has what.
    let asks = early.is_asking() && !parts.book.has_incomplete();
    let has = match link.has() {
        ChunkSet::All if asks => ChunkSet::All,
        _ => ChunkSet::Nothing,
    };
    if early.planner.has(id) != &has {
        let released = early.planner.link_has(id, has);
        parts.released(released);
        parts.ask_queue.wake(id);
    }
}

/// Reads what a link said to have, once the length is known, and gives it to the
/// planner.
pub(super) fn use_remote(parts: &mut Parts, now: Instant, id: LinkId) {
    let (Some(manifest), Some(link)) = (parts.phase.manifest(), parts.links.get_mut(id)) else {
        return;
    };
    if !link.remote.resolve(manifest.geometry().chunks()) {
        return leaving::violated(parts, now, id, "a Bitfield of another content");
    }
    let has = link.has();
    count_lacks(parts, id);
    match &mut parts.phase {
        Phase::Transfer(transfer) => {
            let is_of_no_use = transfer.rests() && has == ChunkSet::All;
            let released = transfer.planner.link_has(id, has);
            parts.released(released);
            parts.ask_queue.wake(id);
            if is_of_no_use {
                choosing::is_of_no_use(parts, now, id);
            }
        }
        Phase::Seeding(_) if has == ChunkSet::All => {
            leaving::drop_link(parts, now, id, DropReason::Refused(RefuseReason::NotNeeded));
        }
        _ => {}
    }
}

/// The other side has one more chunk. Returns whether something may follow from it
/// now.
pub(super) fn gained_chunk(parts: &mut Parts, now: Instant, id: LinkId, chunk: ChunkIndex) -> bool {
    let is_first = newcomers::is_silent(&parts.links, id);
    if is_first && let Some(link) = parts.links.get_mut(id) {
        // A link whose first message is this one had nothing before.
        link.remote = RemoteChunks::None;
        count_lacks(parts, id);
    }
    let Some(link) = parts.links.get_mut(id) else {
        return false;
    };
    let chunks = parts.phase.manifest().map(|m| m.geometry().chunks());
    let exists = match chunks {
        None => link.remote.gained_unread(chunk),
        Some(chunks) => chunk.0 < chunks && link.remote.resolve(chunks),
    };
    if !exists {
        leaving::violated(parts, now, id, "a chunk that the content lacks");
        return true;
    }
    if let Some(chunks) = chunks
        && !link.remote.gained(chunk, chunks)
    {
        return false;
    }
    parts.outbox.owner_joined(link);
    let here = parts.phase.has(chunk) && parts.passage.as_ref().is_none_or(|p| p.holds(chunk));
    if parts.uploader.is_untold(id) {
        parts.book.trust(&link.info.host);
    }
    // What it had before is no news of what became of the blocks that it was sent.
    let is_news = !link.withdrawals.contains(chunk);
    let turns_change = is_news && parts.uploader.link_gained(id, here);
    if is_first {
        // It may have been asked for more, on the word of a tracker.
        if let Phase::Manifest(fetch) = &mut parts.phase {
            fetch.retry(id);
        }
        use_early(parts, id);
        use_remote(parts, now, id);
        return true;
    }
    match &mut parts.phase {
        Phase::Manifest(fetch) => {
            fetch.retry(id);
            true
        }
        Phase::Transfer(transfer) => {
            transfer.planner.link_gained(id, chunk);
            if transfer.rests() && link.remote == RemoteChunks::All {
                choosing::is_of_no_use(parts, now, id);
                return true;
            }
            // Nothing can be asked of a link that chokes this side and knows that
            // it would be asked.
            let askable = !link.is_choked() || !link.is_interested();
            if askable {
                parts.ask_queue.wake(id);
            }
            askable || turns_change
        }
        Phase::Seeding(_) if link.remote == RemoteChunks::All => {
            leaving::drop_link(parts, now, id, DropReason::Refused(RefuseReason::NotNeeded));
            true
        }
        _ => turns_change,
    }
}

/// The other side understands that this one takes chunks back.
pub(super) fn marked(parts: &mut Parts, id: LinkId) {
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    if !std::mem::replace(&mut link.takes_back, true) {
        parts.mark(id);
        count_lacks(parts, id);
        parts.send_haves(id);
    }
}

/// The other side has a chunk no longer. What it was asked for of that chunk is free for
/// others, and it is not asked again until it has got the chunk again.
pub(super) fn lost_chunk(parts: &mut Parts, now: Instant, id: LinkId, chunk: ChunkIndex) {
    let chunks = parts.phase.manifest().map(|m| m.geometry().chunks());
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    let exists = chunks.is_none_or(|chunks| chunk.0 < chunks && link.remote.resolve(chunks));
    if !link.marked || !exists {
        return leaving::violated(parts, now, id, "takes back what it cannot have offered");
    }
    let Some(chunks) = chunks else {
        link.remote.lost_unread(chunk);
        return use_early(parts, id);
    };
    if !link.remote.lost(chunk, chunks) {
        return;
    }
    let (released, was_asked) = match &mut parts.phase {
        Phase::Transfer(transfer) => transfer.planner.link_withdrew(id, chunk),
        _ => (Released::default(), false),
    };
    let flaps = link.withdrawals.taken_back(chunk, was_asked);
    parts.released(released);
    parts.ask_queue.wake(id);
    if flaps {
        leaving::violated(parts, now, id, "takes back too much");
    }
}

/// The other side suggests that a chunk is asked for.
pub(super) fn suggested(parts: &mut Parts, link: LinkId, chunk: ChunkIndex) {
    // Before the manifest is here nothing can be asked for, and by then the
    // suggestion is outdated.
    if let Phase::Transfer(transfer) = &mut parts.phase {
        transfer.planner.suggested(link, chunk);
        parts.ask_queue.wake(link);
    }
}

/// The other side lets this one ask from now on, or not.
pub(super) fn choked(parts: &mut Parts, now: Instant, link: LinkId, choke: Choke) {
    if choke == Choke::Unchoked && parts.links.get(link).is_some_and(Link::is_choked) {
        parts.effort.turn_moves(now);
    }
    if let Some(planner) = parts.planner() {
        let is_choked = choke == Choke::Choked;
        let released = planner.link_choked(link, is_choked);
        parts.released(released);
        parts.ask_queue.wake(link);
    }
    if let Some(link) = parts.links.get_mut(link) {
        link.set_choke(now, choke);
    }
}

/// Counts again how many of the chunks that are here a link lacks. O(chunks).
pub(super) fn count_lacks(parts: &mut Parts, id: LinkId) {
    let Some(link) = parts.links.get(id) else {
        return;
    };
    let lacks = match &parts.passage {
        None => parts.phase.lacked_by(&link.remote),
        Some(_) if !link.takes_back => 0,
        Some(passage) => parts.phase.lacked_by_of(passage.first(), &link.remote),
    };
    parts.uploader.link_has(id, link.remote.count(), lacks);
}
