//! What users are told of a content: figures about it.

use std::time::Instant;

use super::parts::Parts;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::piece_map::{PieceMap, PieceState};
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::peer::swarm::{DownloadStats, LinkState, LinkStats, Progress};

/// How far the content is.
pub(super) fn progress(parts: &Parts, now: Instant) -> Progress {
    let mut progress = parts.counters.progress(now);
    progress.links = parts.links.len() as u32;
    progress.place_in_line = parts.standby.position();
    parts.phase.fill_in(&mut progress);
    let is_going = !parts.is_paused() && !parts.phase.is_content();
    progress.limited = is_going && parts.limit.bounds(now);
    if parts.is_paused() {
        progress.rate = 0.0;
    }
    progress
}

/// What is done for the content at this moment. O(links).
pub(super) fn stats(parts: &Parts, now: Instant) -> DownloadStats {
    let chunks = parts.manifest().map(|m| m.geometry().chunks());
    let known = (parts.zone, chunks);
    let (download_rate, upload_rate) = parts.counters.rates(now);
    let mut stats = DownloadStats {
        progress: progress(parts, now),
        download_rate,
        upload_rate,
        waste: parts.counters.waste,
        far: parts.counters.far,
        rejected: parts.counters.rejected,
        links: Vec::new(),
        banned: parts.counters.last_banned(),
    };
    let links = parts.links.iter().map(|(id, link)| {
        let (sent, choked) = (parts.uploader.sent_to(id), parts.uploader.is_choked(id));
        link.stats(now, known, (sent, choked))
    });
    stats.links.extend(links);
    let without_place = |(link, state): (&Link, LinkState)| LinkStats {
        state,
        ..link.stats(now, known, (0, true))
    };
    let queued = parts.standby.positions();
    let queued = queued.map(|(link, position)| (link, LinkState::Queued { position }));
    let waiting = parts.line.positions();
    let waiting = waiting.map(|(link, position)| (link, LinkState::Waiting { position }));
    stats.links.extend(queued.chain(waiting).map(without_place));
    stats
}

/// The state of every chunk, and how many links have it.
pub(super) fn piece_map(parts: &Parts) -> Option<PieceMap> {
    let all = |link: &&Link| link.remote == RemoteChunks::All;
    let whole = parts.links.values().filter(all).count() as u32;
    match &parts.phase {
        Phase::Manifest(_) | Phase::Opening(_) => None,
        Phase::Transfer(transfer) => {
            let pieces = transfer.planner.pieces();
            let pieces = pieces.map(|(state, part)| (state, whole + part));
            Some(PieceMap::collect(pieces))
        }
        Phase::Seeding(manifest) => {
            let mut copies = vec![whole; manifest.geometry().chunks() as usize];
            for link in parts.links.values() {
                if let RemoteChunks::Some(has) = &link.remote {
                    has.iter().for_each(|chunk| copies[chunk.as_usize()] += 1);
                }
            }
            let pieces = copies
                .into_iter()
                .map(|copies| (PieceState::Stored, copies));
            Some(PieceMap::collect(pieces))
        }
    }
}
