//! Downloading: blocks come in, verified chunks go to the storage, and whoever
//! lied is found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::link::{Remote, Sender};
use super::link_map::LinkSet;
use super::transfer::{Checking, Commit, Stage, Suspect, Transfer};
use super::{
    Arrival, Assembler, BlockGrid, DropReason, Inserted, LinkId, MAX_SENDERS, Output, Phase,
    Planner, Request, Swarm,
};
use crate::content::{Bitfield, BlockRange, ChunkIndex};
use crate::protocol::{Addr, OwnState, PeerMessage, RefuseReason};

/// A link that rejects so many chunks in a row which it said to have is of no
/// use.
const MAX_REJECTIONS: u32 = 32;

impl Swarm {
    /// The storage is open, with these chunks in it, of which some are verified
    /// already. The others are not asked for, and not offered either before
    /// [`chunk_rechecked`](Self::chunk_rechecked) has called them good. Ignored
    /// unless it was asked for.
    ///
    /// # Panics
    /// If `present` or `verified` is not of this content.
    pub fn opened(&mut self, now: Instant, present: &Bitfield, verified: &Bitfield) {
        let Phase::Opening(manifest) = &self.phase else {
            return;
        };
        assert_eq!(present.chunks(), manifest.geometry().chunks());
        assert_eq!(verified.chunks(), present.chunks());
        let (mut stored, mut unchecked) = (present.clone(), present.clone());
        for chunk in present.iter() {
            if verified.contains(chunk) {
                unchecked.remove(chunk);
            } else {
                stored.remove(chunk);
            }
        }
        let grid = BlockGrid::of(manifest.geometry());
        let mut planner = self.config.planner.clone();
        let in_memory = self.config.max_unverified / manifest.geometry().chunk_len();
        let in_memory = usize::try_from(in_memory).unwrap_or(usize::MAX);
        planner.max_open = planner.max_open.min(in_memory).max(2);
        let mut transfer = Transfer {
            manifest: Arc::clone(manifest),
            planner: Planner::new(grid, present, planner),
            assembler: Assembler::new(grid),
            checking: BTreeMap::new(),
            suspects: BTreeMap::new(),
            stored,
            unchecked,
            recheck_from: 0,
            untouched: false,
            unwritten: VecDeque::new(),
            commit: Commit::default(),
            finishing: false,
        };
        transfer.planner.hold(&transfer.unchecked);
        for (id, link) in self.links.iter_mut() {
            transfer.planner.link_added(id);
            if self.book.is_suspect(now, &link.info.host) {
                transfer.planner.suspect(id);
            }
            transfer.planner.link_choked(id, link.choked);
        }
        self.log.extend(transfer.stored.iter());
        self.phase = Phase::Transfer(Box::new(transfer));
        self.last_gain = now;
        let links: Vec<LinkId> = self.links.keys().collect();
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
        let Some(sender) = self.links.get(link).map(|l| Arc::clone(&l.sender)) else {
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
        // Others may be asked again.
        self.wake_hungry |= transfer.planner.take_passed_over();
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
                    let stage = Stage::Hashing;
                    let checking = Checking { assembled, stage };
                    transfer.checking.insert(chunk, checking);
                }
                if let Some(other) = overtaken {
                    self.send(other, PeerMessage::Cancel(block));
                    self.wake.add(other);
                }
            }
        }
        if let Some(state) = self.links.get_mut(link) {
            if state.received == 0 {
                self.book.trust(&state.info.host);
            }
            state.received += len;
            state.solid = true;
            if let Some(addr) = &state.info.addr {
                self.book.proved(addr);
            }
            if state.choked
                && let Phase::Transfer(transfer) = &mut self.phase
            {
                let released = transfer.planner.leads_no_more(link);
                self.released(released);
            }
        }
        self.wake.add(link);
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
        self.wake.add(link);
        if useless || self.is_exhausted(link) {
            self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
        }
    }

    /// Whether nothing of use is left of a link but what it rejected. Linked
    /// anew, it may give what it could not give this once.
    fn is_exhausted(&self, id: LinkId) -> bool {
        let (Phase::Transfer(transfer), Some(link)) = (&self.phase, self.links.get(id)) else {
            return false;
        };
        let planner = &transfer.planner;
        let chunks = transfer.manifest.geometry().chunks();
        link.remote.count().min(chunks) > planner.has(id).count(chunks)
            && !planner.is_useful(id)
            && !planner.is_done()
    }

    /// The answer to a request came when nothing is asked for any more.
    pub(super) fn answered_late(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
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
        if checking.stage != Stage::Hashing {
            return;
        }
        let liars: Vec<Arc<Sender>> = if good {
            checking.stage = Stage::Verified;
            transfer.unwritten.push_back(chunk);
            let pieces = &checking.assembled.pieces;
            let suspects = transfer.suspects.remove(&chunk).unwrap_or_default();
            let lied = suspects
                .into_iter()
                .zip(pieces)
                .filter(|(suspect, piece)| suspect.hash != blake3::hash(piece));
            lied.map(|(suspect, _)| suspect.sender).collect()
        } else {
            self.last_gain = now;
            let Some(Checking { assembled, .. }) = transfer.checking.remove(&chunk) else {
                return;
            };
            self.counts.wasted += transfer.manifest.geometry().len_of(chunk);
            transfer.planner.chunk_failed(chunk);
            self.wake_hungry = true;
            let links: BTreeSet<LinkId> = assembled.senders.iter().map(|s| s.link).collect();
            if links.len() == 1 {
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
        let writing = |checking: &Checking| checking.stage == Stage::Writing;
        if !transfer.checking.get(&chunk).is_some_and(writing) {
            return;
        }
        let Some(Checking { assembled, .. }) = transfer.checking.remove(&chunk) else {
            return;
        };
        let length = transfer.manifest.geometry().len_of(chunk);
        transfer.commit.writing -= length;
        transfer.commit.bytes += length;
        transfer.commit.since.get_or_insert(now);
        let mut credits: BTreeMap<Addr, u64> = BTreeMap::new();
        for (sender, piece) in assembled.senders.iter().zip(&assembled.pieces) {
            if self.counts.senders.len() < MAX_SENDERS {
                self.counts.senders.insert(sender.peer);
            }
            if let Some(addr) = &sender.addr {
                *credits.entry(addr.clone()).or_default() += piece.len() as u64;
            }
        }
        let senders: BTreeSet<LinkId> = assembled.senders.iter().map(|s| s.link).collect();
        for link in senders {
            self.tell_sender(link, chunk);
        }
        let credits = credits.into_iter();
        self.outputs
            .extend(credits.map(|(owner, bytes)| Output::Credit { owner, bytes }));
        self.offer(now, chunk);
        self.settle(now);
    }

    /// A chunk is here and verified: it is offered from now on.
    pub(super) fn offer(&mut self, now: Instant, chunk: ChunkIndex) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        self.last_gain = now;
        self.wake_hungry |= transfer.planner.chunk_stored(chunk);
        transfer.stored.insert(chunk);
        self.log.push(chunk);
        for (id, link) in self.links.iter() {
            if link.remote != Remote::Unknown && !link.remote.has(chunk) {
                self.uploader.link_lacks(id);
            }
        }
        let links: Vec<LinkId> = self.links.keys().collect();
        for link in links {
            self.tell_haves(link);
            if self.is_exhausted(link) {
                self.drop_link(now, link, DropReason::Refused(RefuseReason::NotNeeded));
            }
        }
    }

    /// The storage has published the content: it is complete, and seeded.
    pub fn finished(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &self.phase else {
            return;
        };
        if !transfer.finishing {
            return;
        }
        for (id, link) in self.links.iter_mut() {
            link.owed = transfer.planner.unanswered(id);
        }
        let manifest = Arc::clone(&transfer.manifest);
        self.phase = Phase::Seeding(manifest);
        self.outputs.push_back(Output::Announce(OwnState::Complete));
        let seeders = self.links.iter().filter(|(_, l)| l.remote == Remote::All);
        let seeders: Vec<LinkId> = seeders.map(|(id, _)| id).collect();
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
        let mut requests = Vec::new();
        let mut interests = Vec::new();
        let mut hungry = std::mem::take(&mut self.wake_hungry).then_some(LinkId(0));
        // Links that were silent get what the others leave.
        let mut silent = LinkSet::default();
        loop {
            let woken = self.wake.pop_first();
            // The hungry are woken again when something has come.
            let next = woken.or_else(|| {
                let next = transfer.planner.next_hungry(hungry?)?;
                let served = transfer.planner.hold_back_all(now);
                let after = next.0.checked_add(1).map(LinkId);
                hungry = after.filter(|_| !served);
                (!served).then_some(next)
            });
            if let Some(link) = next
                && transfer.planner.snubs(link) > 0
            {
                silent.add(link);
                continue;
            }
            let Some(link) = next.or_else(|| silent.pop_first()) else {
                break;
            };
            let before = requests.len();
            while let Some(request) = transfer.planner.next_request(now, link) {
                requests.push((link, request));
                if let Some(other) = request.overtaken {
                    self.wake.add(other);
                }
            }
            let asked = requests.len() > before;
            if !asked && woken.is_none() && !transfer.planner.is_choked(link) {
                // As hungry as it was.
                continue;
            }
            let Some(state) = self.links.get_mut(link) else {
                continue;
            };
            if asked {
                state.declined = false;
            } else if state.declined {
                if state.choked && transfer.planner.reconsider(now, link) {
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
}
