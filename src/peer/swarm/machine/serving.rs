//! What others get: blocks, pages of the manifest, and turns.

use std::time::Instant;

use bytes::Bytes;

use super::effort::Serving;
use super::parts::Parts;
use super::{leaving, zones};
use crate::content::BlockRange;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::uploader::Turn;
use crate::peer::swarm::{DropReason, LinkId, Output};
use crate::protocol::PeerMessage;
use crate::protocol::limits::MAX_BLOCK_LEN;

/// Sends what the send window has room for, and passes the turns on.
pub(super) fn upload(parts: &mut Parts, now: Instant) {
    while let Some(link) = parts.uploader.in_the_way(now) {
        leaving::drop_link(parts, now, link, DropReason::Silent);
    }
    loop {
        while let Some((link, block)) = parts.uploader.next_block(now) {
            if block.offset == 0 && parts.is_seeding() {
                parts.super_seeding.sent(link, block.chunk);
            }
            match parts.has(block.chunk) {
                true => parts.outbox.push(Output::Read { link, block }),
                // It was taken back meanwhile.
                false => block_read(parts, now, link, block, None),
            }
        }
        match parts.uploader.next_turn(now) {
            Some(Turn::Choke { link, rejected }) => {
                parts.super_seeding.returned(link);
                parts.send(link, PeerMessage::Choke);
                for block in rejected {
                    parts.send(link, PeerMessage::Reject(block));
                }
            }
            Some(Turn::Unchoke { link }) => {
                suggest(parts, link);
                parts.send(link, PeerMessage::Unchoke);
            }
            None => return,
        }
    }
}

/// Messages were handed to the network. Returns whether something may follow from it.
pub(super) fn messages_sent(
    parts: &mut Parts,
    now: Instant,
    link: LinkId,
    messages: usize,
    bytes: u64,
) -> bool {
    let Some(state) = parts.links.get_mut(link) else {
        let waiting = parts.line.get_mut(link).map(|waiting| &mut waiting.link);
        if let Some(state) = waiting.or_else(|| parts.standby.get_mut(link)) {
            state.messages_sent(messages);
        }
        return false;
    };
    state.messages_sent(messages);
    state.up.add(now, bytes);
    parts.send_pages(link);
    parts.send_haves(link);
    if bytes > 0 {
        parts.counters.uploaded(now, bytes);
        if zones::is_far(parts, link) {
            parts.counters.far.uploaded += bytes;
        }
        parts.uploader.sent(now, link, bytes);
    }
    bytes > 0
}

/// The other side asks for a page of the manifest.
pub(super) fn page_requested(parts: &mut Parts, link: LinkId, page: u32) {
    if let Some(state) = parts.links.get_mut(link) {
        state.pages.asked(page);
        parts.send_pages(link);
    }
}

/// The other side asks for a block.
pub(super) fn requested(parts: &mut Parts, now: Instant, link: LinkId, block: BlockRange) {
    if block.len > MAX_BLOCK_LEN {
        return leaving::violated(parts, now, link, "a request for more than a block");
    }
    // A peer that has no manifest yet may ask by a length that is wrong.
    let geometry = parts.manifest().map(|manifest| manifest.geometry());
    let exists = geometry.is_some_and(|geometry| geometry.contains_block(block));
    let rests = parts.effort.pause() == Some(Serving::Rests);
    let offered = parts.has(block.chunk) && !rests;
    if !exists || !offered || !parts.uploader.requested(link, block) {
        return parts.send(link, PeerMessage::Reject(block));
    }
    if block.offset == 0 && parts.is_seeding() {
        parts.super_seeding.asked(link, block.chunk);
        if parts.uploader.is_contended() {
            suggest(parts, link);
        }
    }
}

/// A block was read for a link, or could not be.
pub(super) fn block_read(
    parts: &mut Parts,
    now: Instant,
    link: LinkId,
    block: BlockRange,
    data: Option<Bytes>,
) {
    if parts.links.contains(link) {
        let data = data.filter(|data| data.len() as u64 == u64::from(block.len));
        let message = match data {
            Some(data) => PeerMessage::Block {
                chunk: block.chunk,
                offset: block.offset,
                data,
            },
            None => {
                parts.uploader.failed(now, link, block.len.into());
                parts.uploader.give_back(link, block.len.into());
                PeerMessage::Reject(block)
            }
        };
        parts.send(link, message);
    }
}

/// Suggests chunks to a link whose turn it is: those that this seeder sent least
/// often.
fn suggest(parts: &mut Parts, id: LinkId) {
    let (Phase::Seeding(manifest), Some(link)) = (&parts.phase, parts.links.get(id)) else {
        return;
    };
    let chunks = manifest.geometry().chunks();
    let lacks = |chunk| !link.remote.has(chunk);
    for chunk in parts.super_seeding.suggest(id, chunks, lacks) {
        parts.send(id, PeerMessage::Suggest(chunk));
    }
}
