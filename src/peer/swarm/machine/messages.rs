//! Every message goes to the part that it is for.

use std::time::Instant;

use super::parts::Parts;
use super::{announced, joining, leaving, manifest_pages, receiving, serving, waiting, zones};
use crate::peer::swarm::LinkId;
use crate::peer::swarm::link::Choke;
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::protocol::{DONT_HAVE_MARK, PeerMessage, ZoneTag};

/// A message arrived on a link, or on one that is unknown. Returns whether something may
/// follow from it.
pub(super) fn heard(
    parts: &mut Parts,
    now: Instant,
    link: LinkId,
    mut message: PeerMessage,
) -> bool {
    if !parts.links.contains(link) {
        match waiting::heard_while_waiting(parts, now, link, message) {
            Some(greeting) => message = greeting,
            None => return true,
        }
    }
    let Some(state) = parts.links.get(link) else {
        return true;
    };
    if !state.is_met() && !matches!(message, PeerMessage::Refuse(_)) {
        leaving::violated(parts, now, link, "a message before the Hello");
        return true;
    }
    match message {
        PeerMessage::KeepAlive => {}
        PeerMessage::SamePeer(proof) => joining::same_peer(parts, now, link, proof),
        PeerMessage::Hello(_) | PeerMessage::Open(_) => {
            leaving::violated(parts, now, link, "a message that only begins something");
        }
        PeerMessage::Refuse(reason) => leaving::refused(parts, now, link, reason),
        PeerMessage::Queued { position } => waiting::queued(parts, now, link, position),
        PeerMessage::Bitfield(bytes) => {
            announced::greeted(parts, now, link, RemoteChunks::unread(bytes))
        }
        PeerMessage::HaveAll => announced::greeted(parts, now, link, RemoteChunks::All),
        PeerMessage::HaveNone => announced::greeted(parts, now, link, RemoteChunks::None),
        PeerMessage::Have(chunk) => {
            if !announced::gained_chunk(parts, now, link, chunk) {
                // Most messages in a crowd are this one, and nothing follows from
                // them yet.
                return false;
            }
        }
        PeerMessage::DontHave(chunk) => announced::lost_chunk(parts, now, link, chunk),
        PeerMessage::Coming(chunk) => {
            zones::comes(parts, now, link, chunk);
            // Links are asked for less by it, and not for more.
            return false;
        }
        PeerMessage::Importing => zones::imports(parts, now, link),
        PeerMessage::Suggest(chunk) => announced::suggested(parts, link, chunk),
        PeerMessage::Interested => parts.uploader.link_declined(link, false),
        PeerMessage::NotInterested => parts.uploader.link_declined(link, true),
        PeerMessage::Request(block) => serving::requested(parts, now, link, block),
        PeerMessage::Cancel(block) => {
            if parts.uploader.cancelled(link, block) {
                parts.send(link, PeerMessage::Reject(block));
            } else if block == DONT_HAVE_MARK {
                announced::marked(parts, link);
            } else if let Some(zone) = ZoneTag::of_mark(block) {
                zones::told(parts, now, link, zone);
            }
        }
        PeerMessage::Reject(block) => receiving::rejected(parts, now, link, block),
        PeerMessage::Block {
            chunk,
            offset,
            data,
        } => receiving::block_arrived(parts, now, link, chunk, offset, data),
        PeerMessage::Choke => announced::choked(parts, now, link, Choke::Choked),
        PeerMessage::Unchoke => announced::choked(parts, now, link, Choke::Unchoked),
        PeerMessage::ManifestRequest { page } => serving::page_requested(parts, link, page),
        PeerMessage::ManifestLength { length, proof } => {
            parts.limit.page_answered(link, 0);
            manifest_pages::page_arrived(parts, now, link, |fetch| {
                fetch.length_arrived(now, link, length, &proof)
            });
        }
        PeerMessage::ManifestHashes { page, hashes } => {
            parts.limit.page_answered(link, page);
            if let Some(planner) = parts.planner() {
                planner.carried(link, hashes.len() as u64);
            }
            manifest_pages::page_arrived(parts, now, link, |fetch| {
                fetch.hashes_arrived(now, link, page, &hashes)
            });
        }
        PeerMessage::ManifestReject { page } => manifest_pages::page_rejected(parts, link, page),
    }
    receiving::check_queue(parts, now, link);
    true
}
