//! From the pages of the manifest to the open storage.

use std::sync::Arc;
use std::time::Instant;

use super::parts::Parts;
use super::{announced, asking, leaving, zones};
use crate::content::{Bitfield, Geometry, Manifest};
use crate::peer::swarm::block_layout::BlockLayout;
use crate::peer::swarm::manifest_fetch::{ManifestFetch, PageOutcome};
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::transfer::Transfer;
use crate::peer::swarm::{BanReason, LinkId, Output};
use crate::protocol::PeerMessage;
use crate::protocol::limits::HASHES_PER_PAGE;

/// A page will not come.
pub(super) fn page_rejected(parts: &mut Parts, link: LinkId, page: u32) {
    let host = parts.links.get(link).map(|link| &link.info.host);
    parts.limit.page_rejected(link, page, host);
    if let Phase::Manifest(fetch) = &mut parts.phase {
        fetch.page_rejected(link, page);
    }
}

/// A page arrived: the fetch of the manifest takes a step.
pub(super) fn page_arrived(
    parts: &mut Parts,
    now: Instant,
    link: LinkId,
    step: impl FnOnce(&mut ManifestFetch) -> PageOutcome,
) {
    let Some(sender) = parts.contributor(link) else {
        return;
    };
    let Phase::Manifest(fetch) = &mut parts.phase else {
        // Another link was faster.
        return;
    };
    match step(fetch) {
        PageOutcome::More(pages) => {
            parts.gained(now);
            asking::ask_pages(parts, now, pages.map(|page| (link, page)));
        }
        PageOutcome::Whole(claim) => {
            fetch.checking(sender);
            parts.gained(now);
            if claim.chunks() <= HASHES_PER_PAGE as usize {
                let manifest = claim.check();
                claim_checked(parts, now, link, manifest);
            } else {
                parts.outbox.push(Output::CheckManifest { link, claim });
            }
        }
        PageOutcome::Lie => leaving::ban(parts, now, &sender, BanReason::BadManifest),
        PageOutcome::Unasked => {}
    }
}

/// The manifest that a link sent was checked.
pub(super) fn claim_checked(
    parts: &mut Parts,
    now: Instant,
    link: LinkId,
    manifest: Option<Manifest>,
) {
    let Phase::Manifest(fetch) = &mut parts.phase else {
        return;
    };
    let Some(sender) = fetch.checked(link) else {
        return;
    };
    let Some(manifest) = manifest else {
        return leaving::ban(parts, now, &sender, BanReason::BadManifest);
    };
    has_manifest(parts, now, manifest);
}

/// The manifest is here, and proven.
fn has_manifest(parts: &mut Parts, now: Instant, manifest: Manifest) {
    let geometry = manifest.geometry();
    if parts
        .early
        .as_ref()
        .is_some_and(|early| !early.fits(geometry))
    {
        give_early_up(parts, geometry);
    }
    let manifest = Arc::new(manifest);
    parts.gained(now);
    parts.outbox.push(Output::Open(Arc::clone(&manifest)));
    parts.phase = Phase::Opening(manifest);
    parts.measure();
}

/// What was asked for early was in vain. Requests for what the content has, by its true
/// geometry, are cancelled.
fn give_early_up(parts: &mut Parts, geometry: Geometry) {
    let Some(early) = &mut parts.early else {
        return;
    };
    let (dropped, lost) = early.give_up();
    parts.counters.waste.dropped += lost;
    let dropped = dropped.into_iter();
    for (link, block) in dropped.filter(|(_, block)| geometry.contains_block(*block)) {
        parts.send(link, PeerMessage::Cancel(block));
    }
}

/// The only chunk of the content should be here: then its manifest follows from it.
pub(super) fn use_short_chunk(parts: &mut Parts, now: Instant) {
    let early = parts.early.as_ref().filter(|_| !parts.phase.is_known());
    if let Some(manifest) = early.and_then(|early| early.short_manifest(parts.id)) {
        has_manifest(parts, now, manifest);
    }
}

/// The storage is open. Returns whether it was to be.
pub(super) fn opened(
    parts: &mut Parts,
    now: Instant,
    present: &Bitfield,
    verified: &Bitfield,
) -> bool {
    let Phase::Opening(manifest) = &parts.phase else {
        return false;
    };
    assert_eq!(present.chunks(), manifest.geometry().chunks());
    assert_eq!(verified.chunks(), present.chunks());
    let manifest = Arc::clone(manifest);
    let transfer = match parts.early.take() {
        Some(early) if early.is_asking() && present.is_empty() => {
            let (transfer, to_hash) = Transfer::begun(manifest, *early, &parts.config);
            for whole in to_hash {
                parts.outbox.push(whole.into());
            }
            transfer
        }
        early => {
            parts.early = early;
            give_early_up(parts, manifest.geometry());
            let layout = BlockLayout::for_content(&manifest, !parts.windows.is_empty());
            let mut transfer = Transfer::new(manifest, present, verified, layout, &parts.config);
            if let Some(passage) = &parts.passage {
                let geometry = transfer.manifest().geometry();
                let chunks = passage.chunks(&parts.windows, &geometry);
                transfer = transfer.admitting(chunks, &parts.config);
            }
            if parts.wanted.is_some() {
                // Nobody was asked for anything yet.
                transfer.set_wanted(parts.wanted.clone());
            }
            add_links(parts, now, transfer)
        }
    };
    parts.outbox.offer(transfer.stored().iter());
    parts.phase = Phase::Transfer(Box::new(transfer));
    parts.gained(now);
    let links: Vec<LinkId> = parts.links.keys().collect();
    for link in links {
        announced::count_lacks(parts, link);
        announced::use_remote(parts, now, link);
        parts.send_haves(link);
    }
    true
}

/// Tells a new transfer of the links, and of what they were asked for early and in
/// vain.
fn add_links(parts: &mut Parts, now: Instant, mut transfer: Transfer) -> Transfer {
    let early = parts.early.take();
    zones::prepare(&mut transfer.planner, &parts.me, parts.imports);
    for (id, link) in parts.links.iter() {
        transfer.planner.link_added(id);
        if parts.book.is_suspect(now, &link.info.host) {
            transfer.planner.suspect(id);
        }
        zones::Facts::of(link, parts.zone).show(&mut transfer.planner, now, id);
        transfer.planner.link_choked(id, link.is_choked());
        if let Some(early) = &early {
            transfer.planner.link_owes(id, early.unanswered(id));
        }
    }
    // Nothing was asked for, so nothing is given up.
    transfer.planner.set_windows(now, &parts.windows);
    transfer
}
