//! What is asked for: pages of the manifest, and blocks.

use std::time::Instant;

use super::parts::Parts;
use super::{withdrawing, zones};
use crate::peer::swarm::block_layout::BlockLayout;
use crate::peer::swarm::early::Early;
use crate::peer::swarm::link::Link;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::remote_chunks::RemoteChunks;
use crate::peer::swarm::supply::links_with_chunks;
use crate::peer::swarm::{LinkId, ReadWindow};
use crate::protocol::PeerMessage;

/// The readers of the content want this next.
pub(super) fn set_read_windows(parts: &mut Parts, now: Instant, windows: &[ReadWindow]) {
    parts.windows = windows.to_vec();
    if let Some(early) = parts.early.as_mut().filter(|_| parts.links.len() == 0) {
        let layout = BlockLayout::at(early.geometry(), !windows.is_empty());
        early.cut_anew(layout, &parts.config);
    }
    let mut passed = 0..0;
    if let (Some(passage), Phase::Transfer(transfer)) = (&mut parts.passage, &mut parts.phase) {
        let geometry = transfer.manifest().geometry();
        passed = passage.passed(windows, &geometry);
        if transfer.admit(passage.chunks(windows, &geometry)) {
            parts.ask_queue.wake_idle();
        }
    }
    withdrawing::passed(parts, passed);
    if let Some(planner) = parts.planner() {
        let released = planner.set_windows(now, windows);
        parts.released(released);
        for link in parts.links.keys() {
            parts.ask_queue.wake(link);
        }
    }
}

/// Whether the content should have a single chunk.
pub(super) fn is_short(parts: &Parts) -> bool {
    let chunks = |early: &Early| early.geometry().chunks();
    parts
        .early
        .as_deref()
        .is_some_and(|early| chunks(early) == 1)
}

/// Until when the manifest need not be asked for.
pub(super) fn spares_manifest_until(parts: &Parts) -> Option<Instant> {
    parts.early.as_ref()?.spares_manifest_until()
}

/// Asks for the pages of the manifest that are due.
pub(super) fn fetch_manifest(parts: &mut Parts, now: Instant) {
    match spares_manifest_until(parts) {
        Some(until) if until > now => return,
        Some(_) => parts.early.iter_mut().for_each(|early| early.doubt()),
        None => {}
    }
    ask_waiting_pages(parts, now);
    if parts.limit.holds_pages() {
        // As long as the limits hold these up, more would wait behind them.
        return;
    }
    let Phase::Manifest(fetch) = &mut parts.phase else {
        return;
    };
    fetch.set_frugal(parts.limit.is_set());
    let mut requests = Vec::new();
    if let Some((link, pages)) = fetch.promote(now) {
        requests.extend(pages.map(|page| (link, page)));
    }
    while let Some((link, pages)) = fetch.start(now, links_with_chunks(&parts.links)) {
        requests.extend(pages.map(|page| (link, page)));
    }
    ask_pages(parts, now, requests);
}

/// Asks for these pages, as soon as the limit lets them pass.
pub(super) fn ask_pages(
    parts: &mut Parts,
    now: Instant,
    pages: impl IntoIterator<Item = (LinkId, u32)>,
) {
    for (link, page) in pages {
        match parts.limit.is_set() {
            false => parts.send(link, PeerMessage::ManifestRequest { page }),
            true => parts.limit.page_waits(link, page),
        }
    }
    ask_waiting_pages(parts, now);
}

/// Asks for the pages that the limits let pass now.
pub(super) fn ask_waiting_pages(parts: &mut Parts, now: Instant) {
    for (link, page) in parts.limit.take_pages() {
        let (Phase::Manifest(fetch), Some(state)) = (&mut parts.phase, parts.links.get(link))
        else {
            continue;
        };
        let (host, bytes) = (&state.info.host, fetch.page_bytes(link, page));
        if !parts.limit.page_passes((link, page), host, bytes) {
            continue;
        }
        fetch.page_passed(now, link);
        parts.send(link, PeerMessage::ManifestRequest { page });
    }
}

/// Sends the requests that are due.
pub(super) fn ask(parts: &mut Parts, now: Instant) {
    let owners = owners_alone(parts);
    let planner = match &mut parts.phase {
        Phase::Transfer(transfer) => Some(&mut transfer.planner),
        _ => {
            let early = parts.early.as_mut().filter(|early| early.is_asking());
            early.map(|early| &mut early.planner)
        }
    };
    let Some(planner) = planner else {
        return parts.ask_queue.clear();
    };
    planner.set_owners_alone(owners);
    let gate = parts.limit.gate();
    let messages = parts.ask_queue.run(now, planner, &mut parts.links, gate);
    zones::tell(parts);
    for (link, message) in messages {
        parts.send(link, message);
    }
}

/// How many owners there are or will be, if this peer is the only leecher as far as it
/// knows. Others would have the owners make their links take turns.
fn owners_alone(parts: &Parts) -> Option<usize> {
    let may_lack = |link: &Link| link.remote != RemoteChunks::All && !link.is_presumed();
    let is_leecher = |link: &Link| may_lack(link) && (link.is_met() || !link.info.dialled);
    let others = parts.book.has_incomplete()
        || parts.standby.len() > 0
        || parts.links.values().any(is_leecher);
    (!others).then(|| parts.links.len() + parts.book.dialling())
}
