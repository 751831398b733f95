//! Downloading: blocks come in, verified chunks go to the storage, and whoever
//! lied is found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::link::{Remote, Sender};
use super::transfer::{Checking, Commit, Suspect, Transfer};
use super::{
    Arrival, Assembler, BlockGrid, DropReason, Inserted, LinkId, Output, Phase, Planner, Request,
    Swarm,
};
use crate::content::{Bitfield, BlockRange, ChunkIndex};
use crate::protocol::{Addr, OwnState, PeerId, PeerMessage, RefuseReason};

/// A link that rejects so many chunks in a row which it said to have is of no
/// use.
const MAX_REJECTIONS: u32 = 32;

impl Swarm {
    /// The storage is open, with these chunks in it. Ignored unless it was
    /// asked for.
    ///
    /// # Panics
    /// If `present` is not of this content.
    pub fn opened(&mut self, now: Instant, present: &Bitfield) {
        let Phase::Opening(manifest) = &self.phase else {
            return;
        };
        assert_eq!(present.chunks(), manifest.geometry().chunks());
        let grid = BlockGrid::of(manifest.geometry());
        let mut planner = self.config.planner.clone();
        let in_memory = self.config.max_unverified / manifest.geometry().chunk_len();
        planner.max_open = planner.max_open.min(in_memory as usize).max(2);
        let mut transfer = Transfer {
            manifest: Arc::clone(manifest),
            planner: Planner::new(grid, present, planner),
            assembler: Assembler::new(grid),
            checking: BTreeMap::new(),
            suspects: BTreeMap::new(),
            stored: present.clone(),
            commit: Commit::default(),
            finishing: false,
        };
        for (&id, link) in &mut self.links {
            transfer.planner.link_added(id);
            transfer.planner.link_choked(id, link.choked);
        }
        self.phase = Phase::Transfer(Box::new(transfer));
        self.last_gain = now;
        self.log.extend(present.iter());
        // Already now, with nothing to offer yet: leechers that know each
        // other early pass the first chunks on without asking anybody.
        self.outputs.push_back(Output::Announce(OwnState::Partial));
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.count_lacks(link);
            self.use_remote(now, link);
            self.tell_haves(link);
        }
        self.settle(now);
    }

    pub(super) fn block_came(
        &mut self,
        now: Instant,
        link: LinkId,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
    ) {
        let len = data.len() as u64;
        self.counts.downloaded += len;
        let Some(sender) = self.links.get(&link).map(|l| Arc::clone(&l.sender)) else {
            return;
        };
        let Phase::Transfer(transfer) = &mut self.phase else {
            self.counts.wasted += len;
            return self.answered_late(now, link);
        };
        let block = BlockRange {
            chunk,
            offset,
            len: len as u32,
        };
        match transfer.planner.block_arrived(now, link, block) {
            Arrival::Unasked => {
                self.counts.wasted += len;
                return self.violated(now, link, "a block that was not asked for");
            }
            Arrival::Late => self.counts.wasted += len,
            Arrival::Wanted { overtaken } => {
                self.last_gain = now;
                self.gave_up = false;
                self.counts.meter.arrived(now, len);
                let inserted = transfer.assembler.insert(sender, chunk, offset, data);
                if let Inserted::Complete(assembled) = inserted {
                    transfer.planner.chunk_complete(chunk);
                    self.outputs.push_back(Output::Verify {
                        chunk,
                        pieces: assembled.pieces.clone(),
                    });
                    let verified = false;
                    let checking = Checking {
                        assembled,
                        verified,
                    };
                    transfer.checking.insert(chunk, checking);
                }
                if let Some(other) = overtaken {
                    self.send(other, PeerMessage::Cancel(block));
                    self.wake.insert(other);
                }
            }
        }
        if let Some(addr) = self.links.get(&link).and_then(|l| l.info.addr.as_ref()) {
            self.book.proved(addr);
        }
        self.wake.insert(link);
    }

    pub(super) fn rejected(&mut self, now: Instant, link: LinkId, block: BlockRange) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return self.answered_late(now, link);
        };
        let Some(released) = transfer.planner.rejected(now, link, block) else {
            return self.violated(now, link, "a rejection of what was not asked for");
        };
        let useless = transfer.planner.rejections(link) >= MAX_REJECTIONS;
        self.released(released);
        self.wake.insert(link);
        if useless {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
        }
    }

    /// The answer to a request came when nothing is asked for any more.
    pub(super) fn answered_late(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match link.owed.checked_sub(1) {
            Some(owed) => link.owed = owed,
            None => self.violated(now, id, "an answer to what was not asked for"),
        }
    }

    /// A chunk was hashed. Bad ones are blamed on who sent them.
    pub fn chunk_verified(&mut self, now: Instant, chunk: ChunkIndex, good: bool) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        let Some(checking) = transfer.checking.get_mut(&chunk) else {
            return;
        };
        if checking.verified {
            return;
        }
        let liars: Vec<Arc<Sender>> = if good {
            checking.verified = true;
            let pieces = checking.assembled.pieces.clone();
            let suspects = transfer.suspects.remove(&chunk).unwrap_or_default();
            let lied = suspects
                .into_iter()
                .zip(&pieces)
                .filter(|(suspect, piece)| suspect.hash != blake3::hash(piece));
            let liars = lied.map(|(suspect, _)| suspect.sender).collect();
            self.outputs.push_back(Output::Store { chunk, pieces });
            liars
        } else {
            self.last_gain = now;
            let Some(Checking { assembled, .. }) = transfer.checking.remove(&chunk) else {
                return;
            };
            self.counts.wasted += transfer.manifest.geometry().len_of(chunk);
            transfer.planner.chunk_failed(chunk);
            self.wake_hungry = true;
            let peers: BTreeSet<PeerId> = assembled.senders.iter().map(|s| s.peer).collect();
            if peers.len() == 1 {
                assembled.senders
            } else {
                let copies = assembled.senders.into_iter().zip(&assembled.pieces);
                let suspects = copies.map(|(sender, piece)| Suspect {
                    sender,
                    hash: blake3::hash(piece),
                });
                transfer.suspects.insert(chunk, suspects.collect());
                Vec::new()
            }
        };
        for liar in liars {
            self.ban(now, &liar);
        }
        self.settle(now);
    }

    /// A verified chunk is in the storage: from now on it is offered.
    pub fn chunk_stored(&mut self, now: Instant, chunk: ChunkIndex) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if !transfer.checking.get(&chunk).is_some_and(|c| c.verified) {
            return;
        }
        let Some(Checking { assembled, .. }) = transfer.checking.remove(&chunk) else {
            return;
        };
        self.last_gain = now;
        transfer.planner.chunk_stored(chunk);
        transfer.stored.insert(chunk);
        self.log.push(chunk);
        let length = transfer.manifest.geometry().len_of(chunk);
        transfer.commit.bytes += length;
        transfer.commit.since.get_or_insert(now);
        for (&id, link) in &self.links {
            if !link.remote.has(chunk) {
                self.uploader.link_lacks(id);
            }
        }
        let mut credits: BTreeMap<Addr, u64> = BTreeMap::new();
        for (sender, piece) in assembled.senders.iter().zip(&assembled.pieces) {
            if let Some(addr) = &sender.addr {
                *credits.entry(addr.clone()).or_default() += piece.len() as u64;
            }
        }
        let credits = credits.into_iter();
        self.outputs
            .extend(credits.map(|(owner, bytes)| Output::Credit { owner, bytes }));
        self.wake_hungry = true;
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.tell_haves(link);
        }
        self.settle(now);
    }

    /// What was stored before the commit began is durable.
    pub fn committed(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.commit.running = false;
        }
        self.settle(now);
    }

    /// The storage has published the content: it is complete, and seeded.
    pub fn finished(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &self.phase else {
            return;
        };
        if !transfer.finishing {
            return;
        }
        for (&id, link) in &mut self.links {
            link.owed = transfer.planner.unanswered(id);
        }
        let manifest = Arc::clone(&transfer.manifest);
        self.phase = Phase::Seeding(manifest);
        self.outputs.push_back(Output::Announce(OwnState::Complete));
        let seeders = self.links.iter().filter(|(_, l)| l.remote == Remote::All);
        let seeders: Vec<LinkId> = seeders.map(|(&id, _)| id).collect();
        for link in seeders {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
        }
        self.settle(now);
    }

    /// Sends the requests that are due.
    pub(super) fn ask(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            self.wake.clear();
            return;
        };
        if std::mem::take(&mut self.wake_hungry) {
            self.wake.extend(transfer.planner.hungry());
        }
        let mut requests = Vec::new();
        let mut interests = Vec::new();
        // Links that were silent get what the others leave.
        let (silent, prompt): (BTreeSet<LinkId>, _) = std::mem::take(&mut self.wake)
            .into_iter()
            .partition(|&link| transfer.planner.snubs(link) > 0);
        self.wake = prompt;
        let mut silent = silent.into_iter();
        while let Some(link) = self.wake.pop_first().or_else(|| silent.next()) {
            let before = requests.len();
            while let Some(request) = transfer.planner.next_request(now, link) {
                requests.push((link, request));
                if let Some(other) = request.overtaken {
                    self.wake.insert(other);
                }
            }
            let Some(state) = self.links.get_mut(&link) else {
                continue;
            };
            if requests.len() > before {
                state.declined = false;
            } else if state.declined {
                if state.choked && transfer.planner.has_free(link) {
                    state.declined = false;
                    interests.push((link, PeerMessage::Interested));
                }
            } else if !state.choked
                && state.remote.is_anything()
                && transfer.planner.unanswered(link) == 0
            {
                state.declined = true;
                interests.push((link, PeerMessage::NotInterested));
            }
        }
        for (link, message) in interests {
            self.send(link, message);
        }
        for (link, Request { block, overtaken }) in requests {
            if let Some(other) = overtaken {
                self.send(other, PeerMessage::Cancel(block));
            }
            self.send(link, PeerMessage::Request(block));
        }
    }

    pub(super) fn finish_or_commit(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if transfer.finishing || transfer.commit.running {
            return;
        }
        if transfer.planner.is_done() {
            transfer.finishing = true;
            transfer.commit = Commit::default();
            self.outputs.push_back(Output::Finish);
        } else if transfer
            .commit
            .due(&self.config)
            .is_some_and(|due| due <= now)
            || transfer.commit.bytes >= self.config.commit_bytes
        {
            transfer.commit = Commit {
                running: true,
                ..Commit::default()
            };
            self.outputs.push_back(Output::Commit {
                verified: transfer.stored.clone(),
            });
        }
    }
}
