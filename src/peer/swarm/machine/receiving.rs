//! Blocks arrive, or are rejected.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::parts::Parts;
use super::{leaving, manifest_pages, storing, zones};
use crate::content::{BlockRange, ChunkIndex};
use crate::peer::swarm::contributor::Contributor;
use crate::peer::swarm::link::{Link, MAX_WAITING_PAGES};
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::planner::Arrival;
use crate::peer::swarm::{DropReason, LinkId};
use crate::protocol::{PeerMessage, RefuseReason};

/// A link that rejects this many chunks in a row, which it said to have, is dropped.
const MAX_REJECTIONS: u32 = 32;

/// How many messages may wait for a link: several times what a peer that keeps to the
/// protocol can cause.
const MAX_QUEUED: usize = 4096;

/// Drops a link that does not read the answers to what it asks.
pub(super) fn check_queue(parts: &mut Parts, now: Instant, link: LinkId) {
    let overflows =
        |link: &Link| link.queued > MAX_QUEUED || link.pages.waiting() > MAX_WAITING_PAGES;
    if parts.links.get(link).is_some_and(overflows) {
        leaving::violated(parts, now, link, "more questions than it reads answers");
    }
}

/// A block arrived, asked for or not.
pub(super) fn block_arrived(
    parts: &mut Parts,
    now: Instant,
    link: LinkId,
    chunk: ChunkIndex,
    offset: u32,
    data: Bytes,
) {
    let len = data.len() as u64;
    parts.counters.downloaded(now, len);
    if zones::is_far(parts, link) {
        parts.counters.far.downloaded += len;
    }
    let Some(sender) = parts.contributor(link) else {
        return;
    };
    let Some(planner) = parts.planner() else {
        parts.counters.waste.late += len;
        return answered_late(parts, now, link);
    };
    let block = BlockRange {
        chunk,
        offset,
        len: len as u32,
    };
    let passed_over = planner.take_passed_over();
    let mut arrival = planner.block_arrived(now, link, block);
    if arrival == Arrival::Late && planner.keep_late(link, block) {
        arrival = Arrival::Wanted { overtaken: None };
    }
    if passed_over {
        // Others may be asked again.
        parts.ask_queue.wake_idle();
    }
    match arrival {
        Arrival::Unasked => {
            parts.counters.waste.late += len;
            return leaving::violated(parts, now, link, "a block that was not asked for");
        }
        Arrival::Late => parts.counters.waste.late += len,
        Arrival::Wanted { overtaken } => {
            keep_block(parts, now, sender, chunk, offset, data);
            parts.gained(now);
            parts.counters.rate.arrived(now, len);
            if let Some(other) = overtaken {
                parts.send(other, PeerMessage::Cancel(block));
                parts.ask_queue.wake(other);
            }
        }
    }
    delivered(parts, now, link, len);
    parts.ask_queue.wake(link);
}

/// Keeps a block that was wanted, and has its chunk hashed if that is whole.
fn keep_block(
    parts: &mut Parts,
    now: Instant,
    sender: Arc<Contributor>,
    chunk: ChunkIndex,
    offset: u32,
    data: Bytes,
) {
    if let Phase::Transfer(transfer) = &mut parts.phase {
        if let Some(whole) = transfer.insert(sender, chunk, offset, data, &parts.config) {
            parts.outbox.push(whole.into());
        }
    } else if let Some(early) = &mut parts.early {
        early.insert(sender, chunk, offset, data);
        manifest_pages::use_short_chunk(parts, now);
    }
}

/// A link has sent a block that it was asked for: its address is proven, and its host
/// is trusted.
fn delivered(parts: &mut Parts, now: Instant, id: LinkId, len: u64) {
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    if link.received == 0 {
        parts.book.trust(&link.info.host);
    }
    link.withdrawals.delivered();
    link.received += len;
    link.down.add(now, len);
    link.is_proven = true;
    parts.uploader.gave(id, len);
    if let Some(addr) = &link.info.addr {
        parts.book.proved(addr);
    }
    if link.is_choked()
        && let Some(planner) = parts.planner()
    {
        let released = planner.leads_no_more(id);
        parts.released(released);
    }
}

/// A link will not send a block.
pub(super) fn rejected(parts: &mut Parts, now: Instant, link: LinkId, block: BlockRange) {
    let Some(planner) = parts.planner() else {
        return answered_late(parts, now, link);
    };
    let Some(released) = planner.rejected(now, link, block) else {
        return leaving::violated(parts, now, link, "a rejection of what was not asked for");
    };
    let rejections = planner.rejections(link);
    leaving::give_allowance_back(parts, link, block.len.into());
    parts.counters.rejected += 1;
    // Before the length is proven, the other side may be right to reject.
    let useless = rejections >= MAX_REJECTIONS && parts.early.is_none();
    if let Some(early) = &mut parts.early {
        early.doubt();
    }
    parts.released(released);
    parts.ask_queue.wake(link);
    let useless = useless || storing::is_exhausted(parts, link);
    if useless && !parts.places(now).keeps(link) {
        leaving::drop_link(
            parts,
            now,
            link,
            DropReason::Refused(RefuseReason::NotNeeded),
        );
    }
}

/// A request was answered when nothing is asked for any more.
fn answered_late(parts: &mut Parts, now: Instant, id: LinkId) {
    let Some(link) = parts.links.get_mut(id) else {
        return;
    };
    match link.unanswered.checked_sub(1) {
        Some(unanswered) => link.unanswered = unanswered,
        None => leaving::violated(parts, now, id, "an answer to what was not asked for"),
    }
}
