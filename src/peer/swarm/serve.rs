//! Serving: what is offered, and the answers to what others ask for.

use std::time::Instant;

use bytes::Bytes;

use super::link::Remote;
use super::{DropReason, LinkId, Output, Phase, Swarm, Turn, manifest_fetch};
use crate::content::{BlockRange, ChunkIndex};
use crate::protocol::PeerMessage;
use crate::protocol::limits::MAX_BLOCK_LEN;

/// How many messages may wait for a link before it is told of further chunks.
const MAX_QUEUED_HAVES: usize = 256;

/// How many parts of the manifest are handed to a link at a time.
const MAX_PARTS_UNDER_WAY: usize = 2;

impl Swarm {
    /// Tells a link of the chunks that were stored meanwhile, as long as it
    /// takes messages.
    pub(super) fn tell_haves(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        while link.queued < MAX_QUEUED_HAVES
            && let Some(&chunk) = self.log.get(link.told)
        {
            link.told += 1;
            // The first also tells a seeder that there is somebody to serve.
            if link.remote != Remote::All || link.told == 1 {
                link.queued += 1;
                let message = PeerMessage::Have(chunk);
                self.outputs.push_back(Output::Send { link: id, message });
            }
        }
    }

    /// Tells a seeder of a chunk that it sent. Others are told of all chunks, and
    /// seeders of no others but the first; but who never hears what became of
    /// its blocks may take this side for one that only takes.
    pub(super) fn tell_sender(&mut self, id: LinkId, chunk: ChunkIndex) {
        let is_first = self.log.is_empty();
        let link = self.links.get(id).filter(|_| !is_first);
        if link.is_some_and(|link| link.remote == Remote::All) {
            self.send(id, PeerMessage::Have(chunk));
        }
    }

    pub(super) fn requested(&mut self, now: Instant, link: LinkId, block: BlockRange) {
        let known = self.manifest().map(|manifest| manifest.geometry());
        if block.len > MAX_BLOCK_LEN || known.is_some_and(|g| !g.contains_block(block)) {
            return self.violated(now, link, "a request past the end of a chunk");
        }
        if !self.phase.has(block.chunk) || !self.uploader.requested(link, block) {
            return self.send(link, PeerMessage::Reject(block));
        }
        if block.offset == 0 && self.is_seeding() {
            self.spread.asked(link, block.chunk);
            if self.uploader.is_contended() {
                self.suggest(link);
            }
        }
    }

    /// A block was read for a link; without its bytes (the storage failed,
    /// or gave another number of bytes), it is rejected.
    pub fn block_read(
        &mut self,
        now: Instant,
        link: LinkId,
        block: BlockRange,
        data: Option<Bytes>,
    ) {
        if self.links.contains(link) {
            match data.filter(|data| data.len() as u64 == u64::from(block.len)) {
                Some(data) => self.send(
                    link,
                    PeerMessage::Block {
                        chunk: block.chunk,
                        offset: block.offset,
                        data,
                    },
                ),
                None => {
                    self.uploader.failed(now, link, block.len.into());
                    self.send(link, PeerMessage::Reject(block));
                }
            }
        }
        self.settle(now);
    }

    /// Reads what is sent next, and passes the turns on.
    pub(super) fn upload(&mut self, now: Instant) {
        while let Some(link) = self.uploader.in_the_way(now) {
            self.drop_link(now, link, DropReason::Silent);
        }
        loop {
            while let Some((link, block)) = self.uploader.next_block(now) {
                if block.offset == 0 && self.is_seeding() {
                    self.spread.sent(link, block.chunk);
                }
                self.outputs.push_back(Output::Read { link, block });
            }
            match self.uploader.next_turn(now) {
                Some(Turn::Choke { link, rejected }) => {
                    self.spread.returned(link);
                    self.send(link, PeerMessage::Choke);
                    for block in rejected {
                        self.send(link, PeerMessage::Reject(block));
                    }
                }
                Some(Turn::Unchoke { link }) => {
                    self.suggest(link);
                    self.send(link, PeerMessage::Unchoke);
                }
                None => return,
            }
        }
    }

    /// Tells a link whose turn it is which chunks a seeder sent least.
    fn suggest(&mut self, id: LinkId) {
        let (Phase::Seeding(manifest), Some(link)) = (&self.phase, self.links.get(id)) else {
            return;
        };
        let chunks = manifest.geometry().chunks();
        let lacks = |chunk| !link.remote.has(chunk);
        let suggested = self.spread.suggest(id, chunks, lacks);
        for chunk in suggested {
            self.send(id, PeerMessage::Suggest(chunk));
        }
    }

    /// Counts anew what a link lacks of the chunks that are here. O(chunks).
    pub(super) fn count_lacks(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id) else {
            return;
        };
        let lacks = match (&self.phase, &link.remote) {
            // Who has not said what it has wants nothing yet.
            (_, Remote::All | Remote::Unknown) => 0,
            (Phase::Seeding(manifest), remote) => {
                manifest.geometry().chunks().saturating_sub(remote.count())
            }
            (Phase::Transfer(transfer), Remote::Some(has)) => {
                let both = transfer.stored.iter_common(has, 0).count() as u32;
                transfer.stored.count() - both
            }
            (Phase::Transfer(transfer), _) => transfer.stored.count(),
            _ => 0,
        };
        self.uploader.link_has(id, link.remote.count(), lacks);
    }

    pub(super) fn manifest_requested(&mut self, link: LinkId, part: u32) {
        if let Some(state) = self.links.get_mut(link) {
            state.parts_asked.push_back(part);
            self.send_parts(link);
        }
    }

    /// Sends parts of the manifest, few at a time: each is as long as a block.
    pub(super) fn send_parts(&mut self, id: LinkId) {
        while let Some(link) = self.links.get_mut(id)
            && link.parts.len() < MAX_PARTS_UNDER_WAY
            && let Some(part) = link.parts_asked.pop_front()
        {
            let reply = match self.phase.manifest() {
                Some(manifest) => manifest_fetch::serve(manifest, part),
                None => PeerMessage::ManifestReject { page: part },
            };
            if let PeerMessage::ManifestHashes { .. } = &reply {
                link.parts.push_back(link.handed + link.queued as u64);
            }
            self.send(id, reply);
        }
    }
}
