//! What an adversary does: see [`Adversary`]. It has the shape of the shipped
//! machine, and knows the content without having asked for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Adversary;
use super::wanted::Wanted;
use crate::content::{Bitfield, BlockRange, ChunkIndex, Manifest};
use crate::peer::swarm::{
    BlockGrid, DropReason, LinkId, LinkInfo, LinkMap, Output, Progress, manifest_part,
};
use crate::protocol::limits::MAX_REQUESTS;
use crate::protocol::{Addr, PeerId, PeerMessage, RefuseReason};

/// How many links an adversary has at the most: several times what an honest
/// peer takes.
const MAX_LINKS: usize = 200;

/// Requests outstanding on a link. A turn is good for one chunk, so more of
/// them would only be rejected.
const ASKED: usize = 8;

/// After so many chunk times a member that dropped or refused it is dialled
/// again.
const RETRY: u32 = 2;

/// How often it asks for the list of members, in chunk times.
const FIND: u32 = 20;

/// How long a flapper keeps a link, in chunk times.
const FLAPPER_STAYS: u32 = 5;

/// An impostor dials once in so many chunk times.
const IMPOSTOR_DIALS: u32 = 2;

/// Of so many requests a liar answers one.
const LIAR_ANSWERS: u64 = 64;

#[derive(Debug)]
pub(super) struct Script {
    kind: Adversary,
    me: PeerId,
    /// What it shows to who asks for the manifest, if it answers.
    manifest: Option<Arc<Manifest>>,
    grid: BlockGrid,
    /// The time of a chunk at its upload rate.
    chunk_time: Duration,
    rng: fastrand::Rng,
    targets: BTreeMap<Addr, Target>,
    /// All targets, in the order in which they are dialled.
    order: VecDeque<Addr>,
    dialling: usize,
    links: LinkMap<Link>,
    outputs: VecDeque<Output>,
    /// The next action; none for who never acts.
    next: Option<Instant>,
    /// When the list of members is asked for again.
    find: Instant,
    /// What a sybil lacks and has not asked for.
    wanted: Wanted,
    /// How many blocks of each chunk a sybil lacks.
    missing: Vec<u32>,
    got: Bitfield,
    /// Links so far, and requests.
    greeted: u64,
    requests: u64,
    /// The link to which a liar is sending.
    sending: Option<LinkId>,
    downloaded: u64,
    uploaded: u64,
}

#[derive(Debug)]
struct Target {
    complete: bool,
    /// It is being dialled, or there is a link.
    engaged: bool,
    /// It is not dialled before.
    from: Instant,
}

#[derive(Debug)]
struct Link {
    addr: Option<Addr>,
    since: Instant,
    has: Bitfield,
    /// The other side chokes.
    choked: bool,
    /// This side does.
    chokes: bool,
    asked: Vec<BlockRange>,
    /// What a taker asks for next: the rest of a chunk, and from where on it
    /// looks for the next one.
    rest: VecDeque<BlockRange>,
    cursor: u32,
    /// Requests of the other side that a flapper has taken.
    held: VecDeque<BlockRange>,
}

impl Script {
    /// An adversary that joins now. It shows `manifest`, or does not answer.
    pub(super) fn new(
        now: Instant,
        kind: Adversary,
        me: PeerId,
        content: &Manifest,
        manifest: Option<Arc<Manifest>>,
        chunk_time: Duration,
        seed: u64,
    ) -> Self {
        let grid = BlockGrid::of(content.geometry());
        let chunks = content.geometry().chunks();
        let takes = kind == Adversary::Sybil;
        let all = (0..chunks).filter(|_| takes).map(ChunkIndex);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut wanted = Wanted::none(chunks);
        wanted.extend(all.clone().flat_map(|chunk| blocks_of(grid, chunk)));
        // Not all of them at the same moment.
        let phase = chunk_time.mul_f64(rng.f64());
        Self {
            kind,
            me,
            manifest,
            grid,
            chunk_time,
            targets: BTreeMap::new(),
            order: VecDeque::new(),
            dialling: 0,
            links: LinkMap::default(),
            outputs: VecDeque::new(),
            next: (kind != Adversary::Squatter).then(|| now + phase),
            find: now + FIND * chunk_time,
            missing: all.map(|chunk| grid.blocks(chunk)).collect(),
            wanted,
            got: Bitfield::none(chunks),
            greeted: 0,
            requests: 0,
            sending: None,
            downloaded: 0,
            uploaded: 0,
            rng,
        }
    }

    pub(super) fn kind(&self) -> Adversary {
        self.kind
    }

    pub(super) fn me(&self) -> PeerId {
        self.me
    }

    pub(super) fn chunk_time(&self) -> Duration {
        self.chunk_time
    }

    /// Whether it says that it has all.
    pub(super) fn says_all(&self) -> bool {
        match self.kind {
            Adversary::Sybil | Adversary::Taker => false,
            Adversary::Silent
            | Adversary::Impostor
            | Adversary::Squatter
            | Adversary::Flapper
            | Adversary::Liar => true,
        }
    }

    /// Whether it takes those who dial it.
    pub(super) fn accepts(&self) -> bool {
        self.kind != Adversary::Squatter
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            downloaded: self.downloaded,
            uploaded: self.uploaded,
            verified_chunks: self.got.count(),
            links: self.links.len() as u32,
            ..Progress::default()
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let pause = match self.kind {
            Adversary::Flapper => self.chunk_time / 2,
            Adversary::Impostor => IMPOSTOR_DIALS * self.chunk_time,
            _ => self.chunk_time,
        };
        self.next = Some(now + pause);
        if self.find <= now {
            self.find = now + FIND * self.chunk_time;
            self.outputs.push_back(Output::FindOwners);
        }
        match self.kind {
            Adversary::Impostor => return self.dial_next(),
            Adversary::Flapper => self.flap(now),
            Adversary::Sybil | Adversary::Taker => {
                let links: Vec<LinkId> = self.links.keys().collect();
                for link in links {
                    self.ask(link);
                }
            }
            _ => {}
        }
        self.dial_all(now);
    }

    /// The members that the tracker lists. Who says that it has all is of no
    /// harm to those that have all.
    pub(super) fn owners_found(&mut self, now: Instant, owners: Vec<(Addr, bool)>) {
        let known = self.order.len();
        for (addr, complete) in owners {
            let target = self.targets.entry(addr).or_insert_with_key(|addr| {
                self.order.push_back(addr.clone());
                Target {
                    complete,
                    engaged: false,
                    from: now,
                }
            });
            target.complete |= complete;
        }
        self.rng.shuffle(&mut self.order.make_contiguous()[known..]);
        match self.kind {
            // The first at once: who has just come has no manifest yet.
            Adversary::Impostor if known == 0 => self.dial_next(),
            Adversary::Impostor => {}
            _ => self.dial_all(now),
        }
    }

    /// Dials whoever is not linked.
    fn dial_all(&mut self, now: Instant) {
        if self.kind == Adversary::Squatter {
            return;
        }
        let says_all = self.says_all();
        for addr in &self.order {
            if self.links.len() + self.dialling >= MAX_LINKS {
                break;
            }
            let Some(target) = self.targets.get_mut(addr) else {
                continue;
            };
            if target.engaged || target.from > now || target.complete && says_all {
                continue;
            }
            target.engaged = true;
            self.dialling += 1;
            let addr = addr.clone();
            self.outputs.push_back(Output::Dial { addr });
        }
    }

    /// Dials one, linked or not: it comes under another name each time.
    fn dial_next(&mut self) {
        if self.links.len() + self.dialling >= MAX_LINKS {
            return;
        }
        for _ in 0..self.order.len() {
            self.order.rotate_left(1);
            let addr = self.order.back();
            if let Some(addr) = addr.filter(|&addr| !self.targets[addr].complete) {
                self.dialling += 1;
                let addr = addr.clone();
                return self.outputs.push_back(Output::Dial { addr });
            }
        }
    }

    pub(super) fn link_up(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        if info.dialled {
            self.dialling -= 1;
        }
        if let Some(target) = info.addr.as_ref().and_then(|a| self.targets.get_mut(a)) {
            target.engaged = true;
        }
        let chunks = self.grid.geometry().chunks();
        self.links.insert(
            id,
            Link {
                addr: info.addr,
                since: now,
                has: Bitfield::none(chunks),
                choked: false,
                chokes: false,
                asked: Vec::new(),
                rest: VecDeque::new(),
                cursor: self.rng.u32(..chunks),
                held: VecDeque::new(),
            },
        );
        if self.links.len() > MAX_LINKS {
            return self.drop_link(now, id, RefuseReason::Busy);
        }
        self.greeted += 1;
        let all = self.says_all()
            && (self.kind != Adversary::Impostor || !self.greeted.is_multiple_of(2));
        let greeting = if all {
            PeerMessage::HaveAll
        } else if self.got.is_empty() {
            PeerMessage::HaveNone
        } else {
            PeerMessage::Bitfield(self.got.to_bytes())
        };
        self.send(id, greeting);
        match self.kind {
            Adversary::Silent => self.send(id, PeerMessage::Unchoke),
            Adversary::Sybil | Adversary::Taker => self.send(id, PeerMessage::Interested),
            _ => {}
        }
    }

    pub(super) fn link_down(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        self.sending.take_if(|sending| *sending == id);
        if self.kind == Adversary::Sybil {
            self.wanted.extend(link.asked);
        }
        if let Some(addr) = link.addr {
            self.lost(&addr, now + RETRY * self.chunk_time);
        }
    }

    pub(super) fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        self.dialling -= 1;
        self.lost(addr, now + RETRY * self.chunk_time);
    }

    /// A link to this address is gone, or a dial failed: if there is no other,
    /// it is dialled from then on.
    fn lost(&mut self, addr: &Addr, from: Instant) {
        let there = |link: &Link| link.addr.as_ref() == Some(addr);
        if self.links.values().any(there) {
            return;
        }
        if let Some(target) = self.targets.get_mut(addr) {
            target.engaged = false;
            target.from = from;
        }
    }

    fn drop_link(&mut self, now: Instant, link: LinkId, reason: RefuseReason) {
        let reason = DropReason::Refused(reason);
        self.outputs.push_back(Output::Drop { link, reason });
        self.link_down(now, link);
    }

    fn send(&mut self, link: LinkId, message: PeerMessage) {
        self.outputs.push_back(Output::Send { link, message });
    }

    pub(super) fn handle_message(&mut self, id: LinkId, message: PeerMessage) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let chunks = self.grid.geometry().chunks();
        match message {
            PeerMessage::HaveAll => link.has = Bitfield::all(chunks),
            PeerMessage::Bitfield(bytes) => {
                link.has = Bitfield::from_bytes(&bytes, chunks).expect("an honest bitfield");
            }
            PeerMessage::Have(chunk) => {
                link.has.insert(chunk);
            }
            PeerMessage::Choke => link.choked = true,
            PeerMessage::Unchoke => link.choked = false,
            // It asks again when something else happens, or both sides would
            // go on for ever in no time.
            PeerMessage::Reject(block) => return self.rejected(id, block),
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let len = data.len() as u32;
                self.block_came(id, BlockRange { chunk, offset, len });
            }
            PeerMessage::Request(block) => return self.requested(id, block),
            PeerMessage::Cancel(block) => {
                let held = link.held.iter().position(|held| *held == block);
                if held.is_some_and(|at| link.held.remove(at).is_some()) {
                    self.send(id, PeerMessage::Reject(block));
                }
                return;
            }
            PeerMessage::ManifestRequest { page: part } => {
                if let Some(manifest) = &self.manifest {
                    let reply = manifest_part(manifest, part);
                    self.send(id, reply);
                }
                return;
            }
            _ => return,
        }
        self.ask(id);
    }

    fn requested(&mut self, id: LinkId, block: BlockRange) {
        self.requests += 1;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        match self.kind {
            Adversary::Flapper if link.chokes || link.held.len() >= MAX_REQUESTS => {
                self.send(id, PeerMessage::Reject(block));
            }
            Adversary::Flapper => link.held.push_back(block),
            Adversary::Liar if self.requests % LIAR_ANSWERS == 1 && self.sending.is_none() => {
                self.sending = Some(id);
                self.outputs.push_back(Output::Read { link: id, block });
            }
            _ => {}
        }
    }

    pub(super) fn block_read(&mut self, link: LinkId, block: BlockRange, data: Bytes) {
        let (chunk, offset) = (block.chunk, block.offset);
        let message = PeerMessage::Block {
            chunk,
            offset,
            data,
        };
        self.send(link, message);
    }

    pub(super) fn messages_sent(&mut self, link: LinkId, bytes: u64) {
        self.uploaded += bytes;
        if bytes > 0 {
            self.sending.take_if(|sending| *sending == link);
        }
    }

    fn rejected(&mut self, id: LinkId, block: BlockRange) {
        if self.answered(id, block) && self.kind == Adversary::Sybil {
            self.wanted.extend([block]);
        }
    }

    fn block_came(&mut self, id: LinkId, block: BlockRange) {
        self.downloaded += u64::from(block.len);
        if !self.answered(id, block) || self.kind != Adversary::Sybil {
            return;
        }
        let missing = &mut self.missing[block.chunk.as_usize()];
        *missing -= 1;
        if *missing == 0 {
            self.got.insert(block.chunk);
            for link in self.links.keys() {
                let message = PeerMessage::Have(block.chunk);
                self.outputs.push_back(Output::Send { link, message });
            }
        }
    }

    /// Whether a link was asked for a block, which it is no longer.
    fn answered(&mut self, id: LinkId, block: BlockRange) -> bool {
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        let at = link.asked.iter().position(|asked| *asked == block);
        at.map(|at| link.asked.swap_remove(at)).is_some()
    }

    /// Asks for what a taker or a sybil may.
    fn ask(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        while !link.choked && link.asked.len() < ASKED {
            let block = match self.kind {
                Adversary::Taker => link.next_of_all(self.grid),
                Adversary::Sybil => {
                    let start = self.rng.u32(..link.has.chunks());
                    self.wanted.take(&link.has, start)
                }
                _ => None,
            };
            let Some(block) = block else {
                return;
            };
            link.asked.push(block);
            let message = PeerMessage::Request(block);
            self.outputs.push_back(Output::Send { link: id, message });
        }
    }

    /// Chokes who was not, and the other way round; drops who was there for
    /// long enough.
    fn flap(&mut self, now: Instant) {
        let links: Vec<LinkId> = self.links.keys().collect();
        for id in links {
            let Some(link) = self.links.get_mut(id) else {
                continue;
            };
            if now - link.since >= FLAPPER_STAYS * self.chunk_time {
                let addr = link.addr.clone();
                self.drop_link(now, id, RefuseReason::NotNeeded);
                if let Some(addr) = addr {
                    self.lost(&addr, now);
                }
                continue;
            }
            link.chokes = !link.chokes;
            let held = std::mem::take(&mut link.held);
            if link.chokes {
                self.send(id, PeerMessage::Choke);
                for block in held {
                    self.send(id, PeerMessage::Reject(block));
                }
                self.send(id, PeerMessage::NotInterested);
            } else {
                self.send(id, PeerMessage::Unchoke);
                self.send(id, PeerMessage::Interested);
            }
        }
    }
}

impl Link {
    /// The next block of all that the other side has, again and again, unless
    /// it is asked for already.
    fn next_of_all(&mut self, grid: BlockGrid) -> Option<BlockRange> {
        if self.rest.is_empty() {
            let mut all = self.has.iter_from(self.cursor).chain(self.has.iter());
            let chunk = all.next()?;
            self.rest.extend(blocks_of(grid, chunk));
            self.cursor = (chunk.0 + 1) % self.has.chunks();
        }
        let asked = self.asked.contains(self.rest.front()?);
        if asked { None } else { self.rest.pop_front() }
    }
}

fn blocks_of(grid: BlockGrid, chunk: ChunkIndex) -> impl Iterator<Item = BlockRange> {
    (0..grid.blocks(chunk)).map(move |position| grid.block(chunk, position))
}
