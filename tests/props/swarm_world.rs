//! Whole machines, linked by a message pump with virtual time and a seed:
//! what is sent on a link arrives in order, between links in any order, and
//! storages take their time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo, Output, Swarm, SwarmConfig};
use bt_lite::protocol::{Addr, PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};
use bytes::Bytes;

use crate::sample::Sample;

/// How a node behaves towards others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// Corrupts every block, or about every other.
    Liar(bool),
    /// Never sends a block.
    Silent,
    /// Rejects every request.
    Rejecting,
    /// Honest, and gone for good after so many milliseconds.
    Dies(u64),
    /// Honest, gone after so many milliseconds, and back after so many more
    /// with what it had stored.
    Returns(u64, u64),
}

impl Kind {
    /// Whether it can be counted on, sooner or later.
    fn stays(self) -> bool {
        matches!(self, Self::Honest | Self::Returns(..))
    }
}

/// What goes wrong without anybody's fault.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The longest way of a message, in milliseconds; 0 for 30.
    pub(crate) latency: u64,
    /// How much longer the ways from every third node are.
    pub(crate) lag: u64,
    /// A link breaks about so often, in milliseconds.
    pub(crate) cuts: Option<u64>,
    /// A node stands still about so often, and for how long at the most.
    pub(crate) stalls: Option<(u64, u64)>,
    /// One in so many reads fails.
    pub(crate) bad_reads: Option<u32>,
    /// Chunks of which blocks may be on their way.
    pub(crate) max_open: Option<usize>,
}

/// What happened, to tell that the case was one at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Bad chunks to which several had contributed.
    pub(crate) co_sent: u64,
    /// Chunks that came again, from one peer.
    pub(crate) exclusive: u64,
    /// Liars that were found among several senders.
    pub(crate) convicted: u64,
    pub(crate) bans: u64,
    pub(crate) cuts: u64,
    pub(crate) returns: u64,
    pub(crate) cancels: u64,
    /// Blocks that leechers sent.
    pub(crate) shared: u64,
}

struct Node {
    peer: PeerId,
    swarm: Swarm,
    kind: Kind,
    leecher: bool,
    dead: bool,
    /// How often it went: what its machine wanted before concerns no other.
    life: u32,
    stored: Bitfield,
    stalled_until: Option<Instant>,
    /// The node at the other end of each link.
    links: BTreeMap<LinkId, usize>,
    /// Requests that came and were not answered yet.
    owes: BTreeMap<LinkId, Vec<BlockRange>>,
    /// Who sent it bad bytes.
    lied_to_by: BTreeSet<usize>,
    /// Who sent bad bytes of chunks of which several had sent blocks.
    suspects: BTreeMap<ChunkIndex, BTreeSet<usize>>,
    /// Who must have been banned.
    caught: BTreeSet<usize>,
    timeouts: (Option<Instant>, u32),
    /// When the machine wants to be called.
    timer: Option<Instant>,
}

type Call = Box<dyn FnOnce(&mut Swarm, Instant)>;

enum Event {
    Up {
        node: usize,
        link: LinkId,
        other: usize,
        dialled: bool,
    },
    Down {
        node: usize,
        link: LinkId,
    },
    Message {
        node: usize,
        link: LinkId,
        message: PeerMessage,
    },
    /// The driver of a node has done something.
    Call {
        node: usize,
        life: u32,
        call: Call,
    },
    Verified {
        node: usize,
        life: u32,
        chunk: ChunkIndex,
        liars: Option<BTreeSet<usize>>,
    },
    Store {
        node: usize,
        life: u32,
        chunk: ChunkIndex,
    },
    Dial {
        node: usize,
        life: u32,
        addr: Addr,
    },
    Die {
        node: usize,
    },
    Back {
        node: usize,
    },
    Cut,
    Stall,
}

pub(crate) struct World {
    sample: Sample,
    faults: Faults,
    pub(crate) counts: Counts,
    /// Whose blocks came, by the address of their bytes, which are kept so that
    /// no others get it.
    senders: BTreeMap<usize, (Bytes, usize)>,
    /// Nothing goes wrong any more.
    calm: bool,
    nodes: Vec<Node>,
    now: Instant,
    rng: fastrand::Rng,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    last: BTreeMap<(usize, LinkId), Instant>,
    links: u64,
}

fn addr(node: usize) -> Addr {
    format!("memory:{node}").parse().unwrap()
}

impl World {
    /// Nodes of these kinds, with the chunks that each has at first.
    pub(crate) fn new(
        seed: u64,
        sample: &Sample,
        kinds: &[(Kind, Bitfield)],
        faults: Faults,
    ) -> Self {
        let mut world = Self {
            sample: sample.clone(),
            faults,
            counts: Counts::default(),
            senders: BTreeMap::new(),
            calm: false,
            nodes: Vec::new(),
            now: Instant::now(),
            rng: fastrand::Rng::with_seed(seed),
            events: BTreeMap::new(),
            sequence: 0,
            last: BTreeMap::new(),
            links: 0,
        };
        for (at, (kind, present)) in kinds.iter().enumerate() {
            let mut me = [at as u8; 16];
            me[0] = world.rng.u8(..);
            if let Kind::Dies(ms) | Kind::Returns(ms, _) = *kind {
                world.push(Duration::from_millis(ms), Event::Die { node: at });
            }
            let (peer, leecher) = (PeerId(me), !present.is_complete());
            let swarm = world.machine(peer, leecher);
            world.nodes.push(Node {
                peer,
                swarm,
                kind: *kind,
                leecher,
                dead: false,
                life: 0,
                stored: present.clone(),
                stalled_until: None,
                links: BTreeMap::new(),
                owes: BTreeMap::new(),
                lied_to_by: BTreeSet::new(),
                suspects: BTreeMap::new(),
                caught: BTreeSet::new(),
                timeouts: (None, 0),
                timer: None,
            });
        }
        let long = world.is_long();
        for node in 0..world.nodes.len() {
            if long {
                world.acquaint(node);
            }
            world.outputs(node);
        }
        world.next_fault(Event::Cut);
        world.next_fault(Event::Stall);
        world
    }

    fn machine(&mut self, me: PeerId, leecher: bool) -> Swarm {
        let mut config = SwarmConfig::default();
        config.planner.seed = self.rng.u64(..);
        config.planner.max_open = self.faults.max_open.unwrap_or(config.planner.max_open);
        config.patience = Duration::from_secs(24 * 3600);
        config.find_interval = Duration::from_secs(5);
        let manifest = self.sample.manifest.clone();
        match leecher {
            true => Swarm::leecher(self.now, config, me, manifest.id()),
            false => Swarm::seeder(self.now, config, me, manifest),
        }
    }

    /// Leads a node to where it has the manifest, and knows nobody. Before, it
    /// would tell of each of a thousand chunks by itself.
    fn acquaint(&mut self, node: usize) {
        let (now, link) = (self.now, LinkId(u64::MAX));
        let (this, sample) = (&mut self.nodes[node], &self.sample);
        if !this.leecher {
            return;
        }
        let info = LinkInfo {
            peer: PeerId([0xff; 16]),
            addr: None,
            dialled: false,
        };
        this.swarm.link_up(now, link, info);
        this.swarm.handle_message(now, link, PeerMessage::HaveAll);
        for part in [0, 1].into_iter().filter_map(|part| sample.part(part)) {
            this.swarm.handle_message(now, link, part);
        }
        this.swarm.link_down(now, link);
        while let Some(output) = this.swarm.poll_output() {
            if let Output::FindOwners = output {
                this.swarm.owners_found(now, []);
            }
        }
        this.swarm.opened(now, &this.stored, &this.stored);
        self.outputs(node);
    }

    fn next_fault(&mut self, event: Event) {
        let often = match event {
            Event::Cut => self.faults.cuts,
            _ => self.faults.stalls.map(|stalls| stalls.0),
        };
        if let Some(ms) = often.filter(|_| !self.calm) {
            let after = Duration::from_millis(self.rng.u64(0..2 * ms));
            self.push(after, event);
        }
    }

    fn is_long(&self) -> bool {
        self.sample.manifest.geometry().chunks() > 100
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    fn soon(&mut self) -> Duration {
        let longest = match self.faults.latency {
            0 => 30_000,
            ms => ms * 1000,
        };
        Duration::from_micros(self.rng.u64(1..longest))
    }

    /// Behind everything that is on its way to that end of the link.
    fn in_order(&mut self, from: usize, node: usize, link: LinkId, event: Event) {
        let lag = if from % 3 == 2 { self.faults.lag } else { 0 };
        let mut at = self.now + self.soon() + Duration::from_millis(lag);
        for end in [from, node] {
            at = self.nodes[end]
                .stalled_until
                .map_or(at, |until| at.max(until));
        }
        let last = self.last.entry((node, link)).or_insert(at);
        *last = at.max(*last);
        let after = last.duration_since(self.now);
        self.push(after, event);
    }

    fn later(&mut self, node: usize, call: impl FnOnce(&mut Swarm, Instant) + 'static) {
        let (after, life) = (self.soon(), self.nodes[node].life);
        let call = Box::new(call);
        self.push(after, Event::Call { node, life, call });
    }

    /// Runs until everybody who stays has the content.
    pub(crate) fn run(&mut self) {
        for steps in 0.. {
            if steps == 300_000 {
                self.lament("the swarm does not come to an end");
            }
            let waits = |n: &Node| n.kind.stays() && !n.swarm.is_seeding();
            if !self.nodes.iter().any(waits) {
                break;
            }
            self.step();
        }
        for node in &self.nodes {
            assert!(!node.kind.stays() || node.stored.is_complete());
        }
        self.calm = true;
        // Everything asked of those that keep to the protocol is answered.
        for _ in 0..20_000 {
            if self.events.is_empty() {
                break;
            }
            self.step();
        }
        for node in &self.nodes {
            for (link, owes) in &node.owes {
                let open = node.links.contains_key(link) && node.kind.stays();
                assert!(!open || owes.is_empty(), "requests without an answer");
            }
        }
    }

    fn lament(&self, what: &str) -> ! {
        let node = |node: &Node| {
            let progress = node.swarm.progress(self.now);
            format!(
                "{:?} {}: {:?} {progress:?}\n",
                node.kind, node.dead, node.links
            )
        };
        let nodes: String = self.nodes.iter().map(node).collect();
        panic!("{what}\n{:?}\n{nodes}", self.counts);
    }

    fn step(&mut self) {
        let timers = self.nodes.iter().enumerate().filter(|(_, n)| !n.dead);
        let timer = timers.filter_map(|(at, n)| Some((n.timer?, at))).min();
        let event = self.events.first_key_value().map(|(&(at, _), _)| at);
        match timer {
            Some((at, node)) if event.is_none_or(|event| at <= event) => {
                self.now = self.now.max(at);
                let now = self.now;
                let (last, times) = self.nodes[node].timeouts;
                let times = if last == Some(now) { times + 1 } else { 0 };
                assert!(times < 20, "the timer of {node} does not move on");
                self.nodes[node].timeouts = (Some(now), times);
                self.nodes[node].swarm.handle_timeout(now);
                self.outputs(node);
            }
            _ => {
                let ((at, _), event) = self.events.pop_first().expect("something to wait for");
                self.now = at;
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        let node = match event {
            Event::Up {
                node,
                link,
                other,
                dialled,
            } => {
                let peer = self.nodes[other].peer;
                let info = LinkInfo {
                    peer,
                    addr: Some(addr(other)),
                    dialled,
                };
                let this = &mut self.nodes[node];
                if this.dead {
                    return self.in_order(node, other, link, Event::Down { node: other, link });
                }
                this.links.insert(link, other);
                this.swarm.link_up(now, link, info);
                node
            }
            Event::Down { node, link } => {
                self.nodes[node].links.remove(&link);
                self.nodes[node].owes.remove(&link);
                self.nodes[node].swarm.link_down(now, link);
                node
            }
            Event::Message {
                node,
                link,
                message,
            } => {
                let this = &mut self.nodes[node];
                let Some(&other) = this.links.get(&link).filter(|_| !this.dead) else {
                    return;
                };
                if is_lie(&self.sample, &message) {
                    this.lied_to_by.insert(other);
                }
                if let PeerMessage::Block { data, .. } = &message {
                    let address = data.as_ptr() as usize;
                    self.senders.insert(address, (data.clone(), other));
                }
                if let PeerMessage::Request(block) = message {
                    this.owes.entry(link).or_default().push(block);
                }
                this.swarm.handle_message(now, link, message);
                node
            }
            Event::Call { node, life, .. }
            | Event::Verified { node, life, .. }
            | Event::Store { node, life, .. }
            | Event::Dial { node, life, .. }
                if self.nodes[node].life != life =>
            {
                return;
            }
            Event::Call { node, call, .. } => {
                call(&mut self.nodes[node].swarm, now);
                node
            }
            Event::Verified {
                node, chunk, liars, ..
            } => {
                let this = &mut self.nodes[node];
                this.swarm.chunk_verified(now, chunk, liars.is_none());
                this.caught.extend(liars.unwrap_or_default());
                node
            }
            Event::Store { node, chunk, .. } => {
                self.nodes[node].stored.insert(chunk);
                self.nodes[node].swarm.chunk_stored(now, chunk);
                node
            }
            Event::Dial { node, addr: to, .. } => {
                let target = (0..self.nodes.len()).find(|&at| addr(at) == to).unwrap();
                if self.nodes[target].dead {
                    self.nodes[node].swarm.dial_failed(now, &to);
                } else {
                    self.links += 1;
                    let link = LinkId(self.links);
                    let here = Event::Up {
                        node,
                        link,
                        other: target,
                        dialled: true,
                    };
                    let there = Event::Up {
                        node: target,
                        link,
                        other: node,
                        dialled: false,
                    };
                    self.in_order(target, node, link, here);
                    self.in_order(node, target, link, there);
                }
                node
            }
            Event::Die { node } => {
                let this = &mut self.nodes[node];
                this.dead = true;
                this.life += 1;
                this.owes.clear();
                let links = std::mem::take(&mut this.links);
                if let Kind::Returns(_, ms) = this.kind {
                    self.push(Duration::from_millis(ms), Event::Back { node });
                }
                for (link, other) in links {
                    self.in_order(node, other, link, Event::Down { node: other, link });
                }
                return;
            }
            Event::Back { node } => {
                self.counts.returns += 1;
                let leecher = !self.nodes[node].stored.is_complete();
                let swarm = self.machine(self.nodes[node].peer, leecher);
                let this = &mut self.nodes[node];
                this.swarm = swarm;
                this.dead = false;
                this.lied_to_by.clear();
                this.suspects.clear();
                this.caught.clear();
                if self.is_long() {
                    self.acquaint(node);
                }
                node
            }
            Event::Cut => {
                self.next_fault(Event::Cut);
                let node = self.rng.usize(0..self.nodes.len());
                let links: Vec<_> = self.nodes[node].links.clone().into_iter().collect();
                if !links.is_empty() {
                    let (link, other) = links[self.rng.usize(0..links.len())];
                    self.counts.cuts += 1;
                    self.in_order(node, other, link, Event::Down { node: other, link });
                    self.in_order(other, node, link, Event::Down { node, link });
                }
                return;
            }
            Event::Stall => {
                self.next_fault(Event::Stall);
                let node = self.rng.usize(0..self.nodes.len());
                let longest = self.faults.stalls.map_or(1, |stalls| stalls.1);
                let stall = Duration::from_millis(self.rng.u64(0..longest));
                self.nodes[node].stalled_until = Some(now + stall);
                return;
            }
        };
        if !self.nodes[node].dead {
            self.outputs(node);
        }
    }

    fn outputs(&mut self, node: usize) {
        // Of a long content this takes its time, and few events matter to it.
        if !self.is_long() || self.sequence.is_multiple_of(32) {
            self.nodes[node].swarm.check_invariants();
        }
        while let Some(output) = self.nodes[node].swarm.poll_output() {
            match output {
                Output::Send { link, message } => self.send(node, link, message),
                Output::Dial { addr } => {
                    let (after, life) = (self.soon(), self.nodes[node].life);
                    self.push(after, Event::Dial { node, life, addr });
                }
                Output::Drop { link, reason } => {
                    let Some(other) = self.nodes[node].links.remove(&link) else {
                        continue;
                    };
                    if reason == DropReason::Refused(RefuseReason::Banned) {
                        self.counts.bans += 1;
                        let lied = self.nodes[node].lied_to_by.contains(&other);
                        assert!(lied, "{other} is honest and banned");
                    }
                    if let DropReason::Violation(what) = reason {
                        let kind = self.nodes[other].kind;
                        assert!(
                            kind == Kind::Silent || kind == Kind::Rejecting,
                            "{kind:?}: {what}"
                        );
                    }
                    self.nodes[node].owes.remove(&link);
                    self.in_order(node, other, link, Event::Down { node: other, link });
                }
                Output::FindOwners => {
                    let others = (0..self.nodes.len()).filter(|&at| at != node);
                    let others = others.filter(|&at| !self.nodes[at].dead);
                    let owners: Vec<_> = others
                        .map(|at| (addr(at), !self.nodes[at].leecher))
                        .collect();
                    self.later(node, move |swarm, now| swarm.owners_found(now, owners));
                }
                Output::Open(_) => {
                    let present = self.nodes[node].stored.clone();
                    self.later(node, move |swarm, now| {
                        swarm.opened(now, &present, &present)
                    });
                }
                Output::Verify { chunk, pieces } => {
                    let liars = self.judge(node, chunk, &pieces);
                    let (after, life) = (self.soon(), self.nodes[node].life);
                    let verified = Event::Verified {
                        node,
                        life,
                        chunk,
                        liars,
                    };
                    self.push(after, verified);
                }
                Output::Store { chunk, pieces } => {
                    assert!(self.sample.is_good(chunk, &pieces), "unverified bytes");
                    let caught = self.nodes[node].suspects.remove(&chunk);
                    let caught = caught.unwrap_or_default();
                    self.counts.convicted += caught.len() as u64;
                    self.nodes[node].caught.extend(caught);
                    let (after, life) = (self.soon(), self.nodes[node].life);
                    self.push(after, Event::Store { node, life, chunk });
                }
                Output::Read { link, block } => {
                    assert!(self.nodes[node].stored.contains(block.chunk));
                    let fails = self
                        .faults
                        .bad_reads
                        .is_some_and(|n| self.rng.u32(0..n) == 0);
                    let data = (!fails || self.calm).then(|| self.sample.block(block));
                    self.later(node, move |s, now| s.block_read(now, link, block, data));
                }
                Output::Commit { .. } => self.later(node, |swarm, now| swarm.committed(now)),
                Output::Finish => self.later(node, |swarm, now| swarm.finished(now)),
                Output::GaveUp => self.lament(&format!("{node} gave up")),
                _ => {}
            }
        }
        let this = &mut self.nodes[node];
        this.timer = this.swarm.poll_timeout();
        let linked = |liar: &usize| this.links.values().any(|other| other == liar);
        assert!(!this.caught.iter().any(linked), "a liar got away at {node}");
    }

    /// Of a bad chunk, who must be banned at once.
    fn judge(
        &mut self,
        node: usize,
        chunk: ChunkIndex,
        pieces: &[Bytes],
    ) -> Option<BTreeSet<usize>> {
        let sender = |piece: &Bytes| self.senders.get(&(piece.as_ptr() as usize)).map(|s| s.1);
        let senders: BTreeSet<usize> = pieces.iter().filter_map(sender).collect();
        let this = &mut self.nodes[node];
        if this.suspects.contains_key(&chunk) {
            self.counts.exclusive += 1;
            assert_eq!(senders.len(), 1, "a second copy is mixed");
        }
        if self.sample.is_good(chunk, pieces) {
            return None;
        }
        if senders.len() == 1 {
            return Some(senders);
        }
        self.counts.co_sent += 1;
        let good = self.sample.chunk(chunk);
        let mut start = 0;
        let mut liars = BTreeSet::new();
        for piece in pieces {
            let end = start + piece.len();
            liars.extend(sender(piece).filter(|_| good[start..end] != piece[..]));
            start = end;
        }
        this.suspects.insert(chunk, liars);
        Some(BTreeSet::new())
    }

    fn send(&mut self, node: usize, link: LinkId, mut message: PeerMessage) {
        let bytes = match &message {
            PeerMessage::Block { data, .. } => data.len() as u64,
            _ => 0,
        };
        self.later(node, move |swarm, now| {
            swarm.messages_sent(now, link, 1, bytes)
        });
        let stored = &self.nodes[node].stored;
        let answer = match &message {
            PeerMessage::Have(chunk) => {
                assert!(stored.contains(*chunk), "offers what is not stored");
                None
            }
            PeerMessage::Bitfield(bytes) => {
                let chunks = stored.chunks();
                let offered = Bitfield::from_bytes(bytes, chunks).unwrap();
                assert_eq!(offered.first_not_in(stored), None);
                None
            }
            PeerMessage::HaveAll => {
                assert!(stored.is_complete());
                None
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                assert!(!is_lie(&self.sample, &message), "bad bytes are served");
                self.counts.shared += u64::from(self.nodes[node].leecher);
                Some(BlockRange {
                    chunk: *chunk,
                    offset: *offset,
                    len: data.len() as u32,
                })
            }
            PeerMessage::Cancel(_) => {
                self.counts.cancels += 1;
                None
            }
            PeerMessage::Reject(block) => Some(*block),
            _ => None,
        };
        if let Some(block) = answer {
            let owes = self.nodes[node].owes.entry(link).or_default();
            let at = owes.iter().position(|b| *b == block);
            owes.remove(at.expect("an answer without a request"));
        }
        if let PeerMessage::Block {
            chunk,
            offset,
            data,
        } = &mut message
        {
            let block = BlockRange {
                chunk: *chunk,
                offset: *offset,
                len: data.len() as u32,
            };
            match self.nodes[node].kind {
                Kind::Liar(always) if !data.is_empty() && (always || self.rng.bool()) => {
                    let mut bytes = data.to_vec();
                    let at = self.rng.usize(0..bytes.len());
                    bytes[at] ^= 1;
                    *data = bytes.into();
                }
                Kind::Silent => return,
                Kind::Rejecting => message = PeerMessage::Reject(block),
                _ => {}
            }
        }
        if let PeerMessage::ManifestHashes { hashes, .. } = &mut message
            && self.nodes[node].kind == Kind::Liar(false)
            && self.rng.bool()
        {
            let mut bytes = hashes.to_vec();
            bytes[0] ^= 1;
            *hashes = bytes.into();
        }
        if let Some(&other) = self.nodes[node].links.get(&link) {
            let event = Event::Message {
                node: other,
                link,
                message,
            };
            self.in_order(node, other, link, event);
        }
    }
}

fn is_lie(sample: &Sample, message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Block {
            chunk,
            offset,
            data,
        } => {
            let start = *offset as usize;
            sample.chunk(*chunk)[start..start + data.len()] != data[..]
        }
        PeerMessage::ManifestHashes { .. } => sample.part(1).as_ref() != Some(message),
        _ => false,
    }
}
