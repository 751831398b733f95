//! Whole machines, linked by a message pump with virtual time and a seed:
//! what is sent on a link arrives in order, between links in any order, and
//! storages take their time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo, Output, Swarm, SwarmConfig};
use bt_lite::protocol::{Addr, PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex, Manifest};
use bytes::Bytes;

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
}

struct Node {
    peer: PeerId,
    swarm: Swarm,
    kind: Kind,
    leecher: bool,
    dead: bool,
    stored: BTreeMap<ChunkIndex, Vec<u8>>,
    /// The node at the other end of each link.
    links: BTreeMap<LinkId, usize>,
    /// Requests that came and were not answered yet.
    owes: BTreeMap<LinkId, Vec<BlockRange>>,
    bad_chunks: usize,
    bans: usize,
    timeouts: (Option<Instant>, u32),
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
    Call {
        node: usize,
        call: Call,
    },
    Store {
        node: usize,
        chunk: ChunkIndex,
        bytes: Vec<u8>,
    },
    Dial {
        node: usize,
        addr: Addr,
    },
    Die {
        node: usize,
    },
}

pub(crate) struct World {
    content: Bytes,
    manifest: Arc<Manifest>,
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
    pub(crate) fn new(seed: u64, length: usize, kinds: &[(Kind, bool)]) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut content = vec![0; length];
        rng.fill(&mut content);
        let manifest = Arc::new(Manifest::of(&content).unwrap());
        let now = Instant::now();
        let mut world = Self {
            content: content.into(),
            manifest: Arc::clone(&manifest),
            nodes: Vec::new(),
            now,
            rng,
            events: BTreeMap::new(),
            sequence: 0,
            last: BTreeMap::new(),
            links: 0,
        };
        for (at, &(kind, leecher)) in kinds.iter().enumerate() {
            let mut me = [at as u8; 16];
            me[0] = world.rng.u8(..);
            let mut config = SwarmConfig::default();
            config.planner.seed = world.rng.u64(..);
            config.patience = Duration::from_secs(3600);
            config.find_interval = Duration::from_secs(5);
            let swarm = match leecher {
                true => Swarm::leecher(now, config, PeerId(me), manifest.id()),
                false => Swarm::seeder(now, config, PeerId(me), Arc::clone(&manifest)),
            };
            let mut stored = BTreeMap::new();
            if !leecher {
                for chunk in manifest.geometry().indices() {
                    stored.insert(chunk, world.chunk(chunk));
                }
            }
            if let Kind::Dies(ms) = kind {
                world.push(Duration::from_millis(ms), Event::Die { node: at });
            }
            world.nodes.push(Node {
                peer: PeerId(me),
                swarm,
                kind,
                leecher,
                dead: false,
                stored,
                links: BTreeMap::new(),
                owes: BTreeMap::new(),
                bad_chunks: 0,
                bans: 0,
                timeouts: (None, 0),
            });
        }
        world
    }

    fn chunk(&self, chunk: ChunkIndex) -> Vec<u8> {
        let range = self.manifest.geometry().range_of(chunk);
        self.content[range.start as usize..range.end as usize].to_vec()
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    fn soon(&mut self) -> Duration {
        Duration::from_micros(self.rng.u64(1..30_000))
    }

    /// Behind everything that is on its way to that end of the link.
    fn in_order(&mut self, node: usize, link: LinkId, event: Event) {
        let at = self.now + self.soon();
        let last = self.last.entry((node, link)).or_insert(at);
        *last = at.max(*last);
        let after = last.duration_since(self.now);
        self.push(after, event);
    }

    fn later(&mut self, node: usize, call: impl FnOnce(&mut Swarm, Instant) + 'static) {
        let after = self.soon();
        self.push(
            after,
            Event::Call {
                node,
                call: Box::new(call),
            },
        );
    }

    /// Runs until every honest leecher has the content.
    pub(crate) fn run(&mut self) {
        for steps in 0.. {
            assert!(steps < 300_000, "the swarm does not come to an end");
            let waits = |n: &Node| n.leecher && n.kind == Kind::Honest && !n.swarm.is_seeding();
            if !self.nodes.iter().any(waits) {
                break;
            }
            self.step();
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if node.leecher && node.kind == Kind::Honest {
                let bytes: Vec<u8> = node.stored.values().flatten().copied().collect();
                assert!(bytes == self.content, "other bytes at {at}");
                assert!(
                    node.bad_chunks == 0 || node.bans > 0,
                    "a liar got away at {at}"
                );
            }
        }
        // Everything asked of those that keep to the protocol is answered.
        for _ in 0..20_000 {
            if self.events.is_empty() {
                break;
            }
            self.step();
        }
        for node in &self.nodes {
            for (link, owes) in &node.owes {
                let open = node.links.contains_key(link) && node.kind == Kind::Honest;
                assert!(!open || owes.is_empty(), "requests without an answer");
            }
        }
    }

    fn step(&mut self) {
        let timers = self.nodes.iter().enumerate().filter(|(_, n)| !n.dead);
        let timer = timers
            .filter_map(|(at, n)| Some((n.swarm.poll_timeout()?, at)))
            .min();
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
                    return self.in_order(other, link, Event::Down { node: other, link });
                }
                this.links.insert(link, other);
                this.swarm.link_up(now, link, info);
                node
            }
            Event::Down { node, link } => {
                self.nodes[node].links.remove(&link);
                self.nodes[node].swarm.link_down(now, link);
                node
            }
            Event::Message {
                node,
                link,
                message,
            } => {
                let this = &mut self.nodes[node];
                if this.dead || !this.links.contains_key(&link) {
                    return;
                }
                if let PeerMessage::Request(block) = message {
                    this.owes.entry(link).or_default().push(block);
                }
                this.swarm.handle_message(now, link, message);
                node
            }
            Event::Call { node, call } => {
                call(&mut self.nodes[node].swarm, now);
                node
            }
            Event::Store { node, chunk, bytes } => {
                self.nodes[node].stored.insert(chunk, bytes);
                self.nodes[node].swarm.chunk_stored(now, chunk);
                node
            }
            Event::Dial { node, addr: to } => {
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
                    self.in_order(node, link, here);
                    self.in_order(target, link, there);
                }
                node
            }
            Event::Die { node } => {
                self.nodes[node].dead = true;
                let links = std::mem::take(&mut self.nodes[node].links);
                for (link, other) in links {
                    self.in_order(other, link, Event::Down { node: other, link });
                }
                return;
            }
        };
        if !self.nodes[node].dead {
            self.outputs(node);
        }
    }

    fn outputs(&mut self, node: usize) {
        self.nodes[node].swarm.check_invariants();
        while let Some(output) = self.nodes[node].swarm.poll_output() {
            match output {
                Output::Send { link, message } => self.send(node, link, message),
                Output::Dial { addr } => {
                    let after = self.soon();
                    self.push(after, Event::Dial { node, addr });
                }
                Output::Drop { link, reason } => {
                    let Some(other) = self.nodes[node].links.remove(&link) else {
                        continue;
                    };
                    if reason == DropReason::Refused(RefuseReason::Banned) {
                        self.nodes[node].bans += 1;
                        let liar = matches!(self.nodes[other].kind, Kind::Liar(_));
                        assert!(liar, "{other} is honest and banned");
                    }
                    if let DropReason::Violation(what) = reason {
                        let kind = self.nodes[other].kind;
                        assert!(
                            kind == Kind::Silent || kind == Kind::Rejecting,
                            "{kind:?}: {what}"
                        );
                    }
                    self.in_order(other, link, Event::Down { node: other, link });
                }
                Output::FindOwners => {
                    let others = (0..self.nodes.len()).filter(|&at| at != node);
                    let others = others.filter(|&at| !self.nodes[at].dead);
                    let owners: Vec<_> = others
                        .map(|at| (addr(at), !self.nodes[at].leecher))
                        .collect();
                    self.later(node, move |swarm, now| swarm.owners_found(now, owners));
                }
                Output::Open(manifest) => {
                    let none = Bitfield::none(manifest.geometry().chunks());
                    self.later(node, move |swarm, now| swarm.opened(now, &none));
                }
                Output::Verify { chunk, pieces } => {
                    let good = self.manifest.verify(chunk, pieces.iter().map(|p| &p[..]));
                    self.nodes[node].bad_chunks += usize::from(!good);
                    self.later(node, move |swarm, now| {
                        swarm.chunk_verified(now, chunk, good)
                    });
                }
                Output::Store { chunk, pieces } => {
                    let bytes = pieces.concat();
                    assert!(bytes == self.chunk(chunk), "unverified bytes are stored");
                    let after = self.soon();
                    self.push(after, Event::Store { node, chunk, bytes });
                }
                Output::Read { link, block } => {
                    let start = block.offset as usize;
                    let chunk = self.nodes[node].stored.get(&block.chunk);
                    let chunk = chunk.expect("only stored chunks are read");
                    let data = Bytes::copy_from_slice(&chunk[start..start + block.len as usize]);
                    self.later(node, move |s, now| {
                        s.block_read(now, link, block, Some(data))
                    });
                }
                Output::Commit { .. } => self.later(node, |swarm, now| swarm.committed(now)),
                Output::Finish => self.later(node, |swarm, now| swarm.finished(now)),
                Output::GaveUp => panic!("{node} gave up"),
                _ => {}
            }
        }
    }

    fn send(&mut self, node: usize, link: LinkId, mut message: PeerMessage) {
        let bytes = match &message {
            PeerMessage::Block { data, .. } => data.len() as u64,
            _ => 0,
        };
        self.later(node, move |swarm, now| {
            swarm.messages_sent(now, link, 1, bytes)
        });
        let stored: BTreeSet<ChunkIndex> = self.nodes[node].stored.keys().copied().collect();
        let answer = match &message {
            PeerMessage::Have(chunk) => {
                assert!(stored.contains(chunk), "offers what is not stored");
                None
            }
            PeerMessage::Bitfield(bytes) => {
                let chunks = self.manifest.geometry().chunks();
                let offered = Bitfield::from_bytes(bytes, chunks).unwrap();
                assert!(offered.iter().all(|chunk| stored.contains(&chunk)));
                None
            }
            PeerMessage::HaveAll => {
                assert_eq!(stored.len(), self.manifest.geometry().chunks() as usize);
                None
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let (start, len) = (*offset as usize, data.len());
                assert!(
                    self.chunk(*chunk)[start..start + len] == data[..],
                    "bad bytes are served"
                );
                Some(BlockRange {
                    chunk: *chunk,
                    offset: *offset,
                    len: len as u32,
                })
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
        if let Some(&other) = self.nodes[node].links.get(&link) {
            self.in_order(
                other,
                link,
                Event::Message {
                    node: other,
                    link,
                    message,
                },
            );
        }
    }
}
