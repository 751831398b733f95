//! The script of an adversary; see [`Adversary`]. It takes the calls of the shipped
//! state machine. It knows the manifest from the start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::adversary::Adversary;
use super::wanted::WantedBlocks;
use crate::content::{Bitfield, BlockRange, ChunkIndex, Manifest};
use crate::peer::swarm::block_layout::BlockLayout;
use crate::peer::swarm::{DropReason, LinkId, LinkInfo, LinkMap, Output, Progress, manifest_page};
use crate::protocol::limits::MAX_REQUESTS;
use crate::protocol::{Addr, PeerId, PeerMessage, RefuseReason};

/// The most links of an adversary: several times as many as an honest peer
/// accepts.
const MAX_LINKS: usize = 200;

/// The most outstanding requests on a link. An upload turn lasts for one chunk, so
/// more requests would only be rejected.
const MAX_ASKED: usize = 8;

/// How long it waits before it dials a member again that dropped or refused it, in
/// chunk times.
const RETRY: u32 = 2;

/// How often it asks the tracker for owners, in chunk times.
const FIND: u32 = 20;

/// How long a flapper keeps a link, in chunk times.
const FLAPPER_STAYS: u32 = 5;

/// How often an impostor dials, in chunk times.
const IMPOSTOR_DIALS: u32 = 2;

/// A liar answers one of this many requests.
const LIAR_ANSWERS: u64 = 64;

#[derive(Debug)]
pub(super) struct AdversaryScript {
    kind: Adversary,
    me: PeerId,
    /// The manifest that it sends; `None` if it does not answer.
    manifest: Option<Arc<Manifest>>,
    layout: BlockLayout,
    /// The time that a chunk takes at its upload rate.
    chunk_time: Duration,
    rng: fastrand::Rng,
    targets: BTreeMap<Addr, DialTarget>,
    /// All targets, in the order in which they are dialled.
    order: VecDeque<Addr>,
    dialling: usize,
    links: LinkMap<AdversaryLink>,
    outputs: VecDeque<Output>,
    /// The time of the next action; `None` if it never acts.
    next: Option<Instant>,
    /// When it asks the tracker for owners again.
    find: Instant,
    /// The blocks that a sybil lacks and has not asked for.
    wanted: WantedBlocks,
    /// How many blocks of each chunk a sybil lacks.
    missing: Vec<u32>,
    /// The chunks that a sybil has downloaded.
    got: Bitfield,
    /// How many links it has had so far.
    greeted: u64,
    /// How many requests it has got so far.
    requests: u64,
    /// The link on which a liar is sending.
    sending: Option<LinkId>,
    downloaded: u64,
    uploaded: u64,
}

#[derive(Debug)]
struct DialTarget {
    complete: bool,
    /// It is being dialled, or is linked.
    engaged: bool,
    /// The earliest time to dial it.
    from: Instant,
}

#[derive(Debug)]
struct AdversaryLink {
    addr: Option<Addr>,
    since: Instant,
    has: Bitfield,
    /// The other side chokes this side.
    choked: bool,
    /// This side chokes the other side.
    chokes: bool,
    asked: Vec<BlockRange>,
    /// The rest of the chunk that a taker or a hider asks for.
    rest: VecDeque<BlockRange>,
    /// From where on a taker or a hider looks for the next chunk.
    cursor: u32,
    /// Requests of the other side that a flapper has accepted.
    held: VecDeque<BlockRange>,
}

impl AdversaryScript {
    /// The script of an adversary that joins now. It sends `manifest`, or does not
    /// answer for it.
    pub(super) fn new(
        now: Instant,
        kind: Adversary,
        me: PeerId,
        content: &Manifest,
        manifest: Option<Arc<Manifest>>,
        chunk_time: Duration,
        seed: u64,
    ) -> Self {
        let layout = BlockLayout::of(content.geometry());
        let chunks = content.geometry().chunks();
        let takes = kind == Adversary::Sybil;
        let all = (0..chunks).filter(|_| takes).map(ChunkIndex);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut wanted = WantedBlocks::none(chunks);
        wanted.extend(all.clone().flat_map(|chunk| blocks_of(layout, chunk)));
        // Adversaries do not all act at the same moment.
        let phase = chunk_time.mul_f64(rng.f64());
        Self {
            kind,
            me,
            manifest,
            layout,
            chunk_time,
            targets: BTreeMap::new(),
            order: VecDeque::new(),
            dialling: 0,
            links: LinkMap::default(),
            outputs: VecDeque::new(),
            next: (kind != Adversary::Squatter).then(|| now + phase),
            find: now + FIND * chunk_time,
            missing: all.map(|chunk| layout.blocks(chunk)).collect(),
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

    /// Whether it claims to have all chunks.
    pub(super) fn claims_all(&self) -> bool {
        match self.kind {
            Adversary::Sybil | Adversary::Taker | Adversary::Hider => false,
            Adversary::Silent
            | Adversary::Impostor
            | Adversary::Squatter
            | Adversary::Flapper
            | Adversary::Liar => true,
        }
    }

    /// Whether it accepts dials.
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
            Adversary::Sybil | Adversary::Taker | Adversary::Hider => {
                let links: Vec<LinkId> = self.links.keys().collect();
                for link in links {
                    self.ask(link);
                }
            }
            _ => {}
        }
        self.dial_all(now);
    }

    /// Adds the owners that the tracker names, and dials them. An adversary that
    /// claims to have all chunks cannot harm complete members, so it dials only the
    /// others.
    pub(super) fn owners_found(&mut self, now: Instant, owners: Vec<(Addr, bool)>) {
        let known = self.order.len();
        for (addr, complete) in owners {
            let target = self.targets.entry(addr).or_insert_with_key(|addr| {
                self.order.push_back(addr.clone());
                DialTarget {
                    complete,
                    engaged: false,
                    from: now,
                }
            });
            target.complete |= complete;
        }
        self.rng.shuffle(&mut self.order.make_contiguous()[known..]);
        match self.kind {
            // The first dial is at once: newcomers have no manifest yet.
            Adversary::Impostor if known == 0 => self.dial_next(),
            Adversary::Impostor => {}
            _ => self.dial_all(now),
        }
    }

    /// Dials all members that are not linked.
    fn dial_all(&mut self, now: Instant) {
        if self.kind == Adversary::Squatter {
            return;
        }
        let claims_all = self.claims_all();
        for addr in &self.order {
            if self.links.len() + self.dialling >= MAX_LINKS {
                break;
            }
            let Some(target) = self.targets.get_mut(addr) else {
                continue;
            };
            if target.engaged || target.from > now || target.complete && claims_all {
                continue;
            }
            target.engaged = true;
            self.dialling += 1;
            let addr = addr.clone();
            self.outputs.push_back(Output::Dial { addr });
        }
    }

    /// Dials the next member, linked or not: it uses another peer id each time.
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
        let chunks = self.layout.geometry().chunks();
        self.links.insert(
            id,
            AdversaryLink {
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
        let all = self.claims_all()
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
            Adversary::Sybil | Adversary::Taker | Adversary::Hider => {
                self.send(id, PeerMessage::Interested);
            }
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
            self.redial_later(&addr, now + RETRY * self.chunk_time);
        }
    }

    pub(super) fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        self.dialling -= 1;
        self.redial_later(addr, now + RETRY * self.chunk_time);
    }

    /// A link to this address is gone, or a dial failed. If there is no other link,
    /// the address may be dialled again at the time `from`.
    fn redial_later(&mut self, addr: &Addr, from: Instant) {
        let leads_there = |link: &AdversaryLink| link.addr.as_ref() == Some(addr);
        if self.links.values().any(leads_there) {
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
        let chunks = self.layout.geometry().chunks();
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
            // It does not ask again at once. Otherwise both sides would go on for
            // ever without any time passing.
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
                    let reply = manifest_page(manifest, part);
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
        if self.take_asked(id, block) && self.kind == Adversary::Sybil {
            self.wanted.extend([block]);
        }
    }

    fn block_came(&mut self, id: LinkId, block: BlockRange) {
        self.downloaded += u64::from(block.len);
        if !self.take_asked(id, block) {
            return;
        }
        if self.kind == Adversary::Hider {
            let link = self.links.get(id);
            if link.is_some_and(|link| link.asked.is_empty() && link.rest.is_empty()) {
                self.send(id, PeerMessage::Have(block.chunk));
            }
        }
        if self.kind != Adversary::Sybil {
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

    /// Removes a request. Returns whether it was outstanding.
    fn take_asked(&mut self, id: LinkId, block: BlockRange) -> bool {
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        let at = link.asked.iter().position(|asked| *asked == block);
        at.map(|at| link.asked.swap_remove(at)).is_some()
    }

    /// Requests blocks, as many as a taker, a hider or a sybil may.
    fn ask(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        while !link.choked && link.asked.len() < MAX_ASKED {
            let block = match self.kind {
                // One chunk at a time.
                Adversary::Hider if link.rest.is_empty() && !link.asked.is_empty() => None,
                Adversary::Taker | Adversary::Hider => link.next_of_all(self.layout),
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

    /// Chokes the links that it does not choke, unchokes the others, and drops links
    /// that are old enough.
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
                    self.redial_later(&addr, now);
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

impl AdversaryLink {
    /// The next block of all that the other side has, over and over, unless it is
    /// already asked for.
    fn next_of_all(&mut self, layout: BlockLayout) -> Option<BlockRange> {
        if self.rest.is_empty() {
            let mut all = self.has.iter_from(self.cursor).chain(self.has.iter());
            let chunk = all.next()?;
            self.rest.extend(blocks_of(layout, chunk));
            self.cursor = (chunk.0 + 1) % self.has.chunks();
        }
        let asked = self.asked.contains(self.rest.front()?);
        if asked { None } else { self.rest.pop_front() }
    }
}

fn blocks_of(layout: BlockLayout, chunk: ChunkIndex) -> impl Iterator<Item = BlockRange> {
    (0..layout.blocks(chunk)).map(move |position| layout.block(chunk, position))
}
