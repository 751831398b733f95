//! What comes over links, and who takes it.

use std::sync::Arc;
use std::time::Instant;

use super::link::Remote;
use super::manifest_fetch::{ManifestFetch, Part};
use super::{DropReason, Has, LinkId, Output, Phase, Swarm};
use crate::content::{ChunkIndex, Manifest};
use crate::protocol::limits::HASHES_PER_PAGE;
use crate::protocol::{PeerMessage, RefuseReason};

impl Swarm {
    /// A message came from a link. Messages of unknown links are ignored.
    pub fn handle_message(&mut self, now: Instant, link: LinkId, message: PeerMessage) {
        if !self.links.contains(link) {
            return;
        }
        match message {
            PeerMessage::KeepAlive => {}
            PeerMessage::SamePeer(proof) => self.same_peer(now, link, proof),
            PeerMessage::Hello(_) => self.violated(now, link, "a second Hello"),
            PeerMessage::Refuse(reason) => {
                let state = self.links.get(link).filter(|state| state.info.dialled);
                let dialled = state.and_then(|state| state.info.addr.clone());
                match reason {
                    RefuseReason::Busy | RefuseReason::Duplicate | RefuseReason::NotNeeded => {}
                    _ => self.left(now, link),
                }
                self.drop_link(now, link, DropReason::Left(reason));
                if let Some(addr) = dialled.filter(|_| reason == RefuseReason::Busy) {
                    self.book.had_no_place(now, &addr);
                }
            }
            PeerMessage::Bitfield(bytes) => self.has_came(now, link, Remote::unread(bytes)),
            PeerMessage::HaveAll => self.has_came(now, link, Remote::All),
            PeerMessage::HaveNone => self.has_came(now, link, Remote::None),
            PeerMessage::Have(chunk) => {
                if !self.have_came(now, link, chunk) {
                    // Most of what comes in a crowd is this, and of no
                    // consequence yet.
                    return;
                }
            }
            PeerMessage::Suggest(chunk) => self.suggested(link, chunk),
            PeerMessage::Interested => self.uploader.link_declined(link, false),
            PeerMessage::NotInterested => self.uploader.link_declined(link, true),
            PeerMessage::Request(block) => self.requested(now, link, block),
            PeerMessage::Cancel(block) => {
                if self.uploader.cancelled(link, block) {
                    self.send(link, PeerMessage::Reject(block));
                }
            }
            PeerMessage::Reject(block) => self.rejected(now, link, block),
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => self.block_came(now, link, chunk, offset, data),
            PeerMessage::Choke => self.choked(link, true),
            PeerMessage::Unchoke => self.choked(link, false),
            PeerMessage::ManifestRequest { page: part } => {
                self.manifest_requested(link, part);
            }
            PeerMessage::ManifestLength { length, proof } => {
                self.manifest_part(now, link, |fetch| {
                    fetch.length_came(now, link, length, &proof)
                });
            }
            PeerMessage::ManifestHashes { page: part, hashes } => {
                self.manifest_part(now, link, |fetch| {
                    fetch.hashes_came(now, link, part, &hashes)
                });
            }
            PeerMessage::ManifestReject { .. } => {
                if let Phase::Manifest(fetch) = &mut self.phase {
                    fetch.passed(link, false);
                }
            }
        }
        self.check_queue(now, link);
        self.settle(now);
    }

    pub(super) fn has_came(&mut self, now: Instant, id: LinkId, remote: Remote) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.remote != Remote::Unknown {
            return self.violated(now, id, "a second Bitfield");
        }
        link.remote = remote;
        self.use_remote(now, id);
        self.keep_places_free(now);
    }

    /// Reads what a link said to have, once the length is known, and gives it
    /// to the planner.
    pub(super) fn use_remote(&mut self, now: Instant, id: LinkId) {
        let (Some(manifest), Some(link)) = (self.phase.manifest(), self.links.get_mut(id)) else {
            return;
        };
        if !link.remote.resolve(manifest.geometry().chunks()) {
            return self.violated(now, id, "a Bitfield of another content");
        }
        let has = link.remote.known();
        self.count_lacks(id);
        match &mut self.phase {
            Phase::Transfer(transfer) => {
                transfer.planner.link_has(id, has);
                self.wake.add(id);
            }
            Phase::Seeding(_) if has == Has::All => {
                self.drop_link(now, id, DropReason::Refused(RefuseReason::NotNeeded));
            }
            _ => {}
        }
    }

    /// Returns whether something may follow from it now.
    pub(super) fn have_came(&mut self, now: Instant, id: LinkId, chunk: ChunkIndex) -> bool {
        if let Some(link) = self.links.get_mut(id)
            && link.remote == Remote::Unknown
        {
            // Whose first word this is had nothing before.
            link.remote = Remote::None;
            self.count_lacks(id);
        }
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        let chunks = self.phase.manifest().map(|m| m.geometry().chunks());
        let known = match chunks {
            None => link.remote.gained_unread(chunk),
            Some(chunks) => chunk.0 < chunks && link.remote.resolve(chunks),
        };
        if !known {
            self.violated(now, id, "a chunk that the content lacks");
            return true;
        }
        if let Some(chunks) = chunks
            && !link.remote.gained(chunk, chunks)
        {
            return false;
        }
        let here = self.phase.has(chunk);
        if self.uploader.is_untold(id) {
            self.book.trust(&link.info.host);
        }
        let turns_change = self.uploader.link_gained(id, here);
        match &mut self.phase {
            Phase::Manifest(fetch) => {
                fetch.retry(id);
                true
            }
            Phase::Transfer(transfer) => {
                transfer.planner.link_gained(id, chunk);
                // Nothing can be asked of a link that is choked and knows
                // that it would be.
                let askable = !link.choked || link.declined;
                if askable {
                    self.wake.add(id);
                }
                askable || turns_change
            }
            Phase::Seeding(_) if link.remote == Remote::All => {
                self.drop_link(now, id, DropReason::Refused(RefuseReason::NotNeeded));
                true
            }
            _ => turns_change,
        }
    }

    pub(super) fn suggested(&mut self, link: LinkId, chunk: ChunkIndex) {
        // Of no use before the manifest is there, and then soon outdated.
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.planner.suggested(link, chunk);
            self.wake.add(link);
        }
    }

    pub(super) fn choked(&mut self, link: LinkId, choked: bool) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            let released = transfer.planner.link_choked(link, choked);
            self.released(released);
            self.wake.add(link);
        }
        if let Some(link) = self.links.get_mut(link) {
            link.choked = choked;
        }
    }

    /// The manifest that a link has sent was checked; without one, the link
    /// lied.
    pub fn manifest_checked(&mut self, now: Instant, link: LinkId, manifest: Option<Manifest>) {
        self.claim_checked(now, link, manifest);
        self.settle(now);
    }

    fn claim_checked(&mut self, now: Instant, link: LinkId, manifest: Option<Manifest>) {
        let Phase::Manifest(fetch) = &mut self.phase else {
            return;
        };
        let Some(sender) = fetch.checked(link) else {
            return;
        };
        let Some(manifest) = manifest else {
            return self.ban(now, &sender);
        };
        let manifest = Arc::new(manifest);
        self.last_gain = now;
        self.outputs.push_back(Output::Open(Arc::clone(&manifest)));
        self.phase = Phase::Opening(manifest);
        self.measure();
    }

    pub(super) fn manifest_part(
        &mut self,
        now: Instant,
        link: LinkId,
        step: impl FnOnce(&mut ManifestFetch) -> Part,
    ) {
        let Phase::Manifest(fetch) = &mut self.phase else {
            // The answer of a link that was passed over meanwhile.
            return;
        };
        match step(fetch) {
            Part::More(parts) => {
                self.last_gain = now;
                self.gave_up = false;
                for part in parts {
                    self.send(link, PeerMessage::ManifestRequest { page: part });
                }
            }
            Part::Whole(claim) => {
                self.last_gain = now;
                let Some(sender) = self.links.get(link).map(|l| Arc::clone(&l.sender)) else {
                    return;
                };
                fetch.checking(sender);
                if claim.chunks() <= HASHES_PER_PAGE as usize {
                    let manifest = claim.check();
                    self.claim_checked(now, link, manifest);
                } else {
                    let check = Output::CheckManifest { link, claim };
                    self.outputs.push_back(check);
                }
            }
            Part::Lie => {
                if let Some(liar) = self.links.get(link).map(|l| Arc::clone(&l.sender)) {
                    self.ban(now, &liar);
                }
            }
            Part::Unasked => {}
        }
    }
}
