//! Whole machines, linked by a seeded message pump with virtual time. Messages
//! on one link arrive in order, messages on different links in any order, and
//! storage operations take time.

mod kind;
mod outputs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, LinkInfo, Output, Swarm, SwarmConfig};
use bt_lite::protocol::limits::HANDSHAKE_TIMEOUT;
use bt_lite::protocol::{Addr, PeerId, PeerMessage};
use bt_lite::{Bitfield, ChunkIndex};
use bytes::Bytes;

pub(crate) use self::kind::{Counts, Faults, Kind};
use self::outputs::is_lie;
use crate::sample::{Sample, link_info, with_cookies};

struct Node {
    /// The name that the node gives itself. Some liars use an honest node's name.
    peer: PeerId,
    addr: Addr,
    swarm: Swarm,
    kind: Kind,
    leecher: bool,
    dead: bool,
    /// How often the node has died. Work that an earlier machine started is
    /// ignored.
    life: u32,
    stored: Bitfield,
    stalled_until: Option<Instant>,
    /// The node at the other end of each link.
    links: BTreeMap<LinkId, usize>,
    /// Requests that arrived and are not answered yet.
    owes: BTreeMap<LinkId, Vec<BlockRange>>,
    /// All links of this life, and when each came up.
    known: BTreeMap<LinkId, (LinkInfo, Instant)>,
    /// Links that have said what they have.
    said: BTreeSet<LinkId>,
    /// The link that has just come up and may be refused.
    fresh: Option<LinkId>,
    /// Links that sent it bad bytes.
    lied_to_by: BTreeSet<LinkId>,
    /// Links that sent bad bytes for a chunk with several senders.
    suspects: BTreeMap<ChunkIndex, BTreeSet<LinkId>>,
    /// Links that the machine must have identified as liars.
    caught: BTreeSet<LinkId>,
    /// When the machine wants its next timeout call.
    timer: Option<Instant>,
}

impl Node {
    /// Whether a link has the address or the host of one of these liars. The
    /// address counts if this side dialled the liar, otherwise the host.
    fn is_banned(&self, info: &LinkInfo, liars: &BTreeSet<LinkId>) -> bool {
        liars.iter().any(|liar| {
            let (liar, _) = &self.known[liar];
            if liar.dialled {
                info.addr == liar.addr
            } else {
                !info.dialled && info.host == liar.host
            }
        })
    }

    /// A link that should have said by now what it has.
    fn unsaid(&self, now: Instant) -> Option<LinkId> {
        let mut links = self.links.keys().filter(|link| !self.said.contains(link));
        let late = |link: &&&LinkId| self.known[link].1 + HANDSHAKE_TIMEOUT <= now;
        links.find(|link| late(&link)).copied()
    }
}

fn says_what_it_has(message: &PeerMessage) -> bool {
    matches!(
        message,
        PeerMessage::Bitfield(_)
            | PeerMessage::HaveAll
            | PeerMessage::HaveNone
            | PeerMessage::Have(_)
    )
}

type Call = Box<dyn FnOnce(&mut Swarm, Instant)>;

enum Event {
    Up {
        node: usize,
        link: LinkId,
        other: usize,
        dialled: bool,
    },
    /// The other side of a link that the node dialled has said who it is.
    Met {
        node: usize,
        link: LinkId,
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
    /// The driver of a node reports a result.
    Call {
        node: usize,
        life: u32,
        call: Call,
    },
    Verified {
        node: usize,
        life: u32,
        chunk: ChunkIndex,
        liars: Option<BTreeSet<LinkId>>,
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
    /// The link that each block came from, by the address of the block's bytes.
    /// The bytes are kept so that the address is not reused.
    senders: BTreeMap<usize, (Bytes, LinkId)>,
    /// Set when faults have stopped.
    calm: bool,
    nodes: Vec<Node>,
    now: Instant,
    rng: fastrand::Rng,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    last: BTreeMap<(usize, LinkId), Instant>,
    links: u64,
}

/// Each reliable node has a host of its own. The others share one host, so that
/// a ban of that host affects several nodes.
fn addr(node: usize, kind: Kind) -> Addr {
    let addr = match kind.stays() {
        true => format!("host{node}:1"),
        false => format!("crowd:{node}"),
    };
    addr.parse().unwrap()
}

impl World {
    /// Creates nodes of these kinds, each with the chunks that it starts with.
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
            let first = world.nodes.first().map(|node| node.peer);
            let stolen = first.filter(|_| !kind.stays() && world.rng.bool());
            let peer = stolen.unwrap_or(PeerId(me));
            let leecher = !present.is_complete();
            let swarm = world.machine(peer, leecher, present.is_empty());
            world.nodes.push(Node {
                peer,
                addr: addr(at, *kind),
                swarm,
                kind: *kind,
                leecher,
                dead: false,
                life: 0,
                stored: present.clone(),
                stalled_until: None,
                links: BTreeMap::new(),
                owes: BTreeMap::new(),
                known: BTreeMap::new(),
                said: BTreeSet::new(),
                fresh: None,
                lied_to_by: BTreeSet::new(),
                suspects: BTreeMap::new(),
                caught: BTreeSet::new(),
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

    /// The length that a tracker tells a node, if any. It may be wrong.
    fn told_length(&mut self) -> Option<u64> {
        let length = self.sample.manifest.geometry().length();
        let chunk = 16 << 10;
        match self.rng.u32(0..12) {
            0..=3 => None,
            4 => Some(length.saturating_sub(1)),
            5 => Some(length + 1),
            6 => Some(length.saturating_sub(chunk)),
            7 => Some(length + chunk),
            8 => Some(self.rng.u64(..1 << 45)),
            _ => Some(length),
        }
    }

    fn machine(&mut self, me: PeerId, leecher: bool, starts_empty: bool) -> Swarm {
        let mut config = SwarmConfig::default();
        config.planner.seed = self.rng.u64(..);
        config.planner.max_open = self.faults.max_open.unwrap_or(config.planner.max_open);
        config.patience = None;
        config.find_interval = Duration::from_secs(5);
        let manifest = self.sample.manifest.clone();
        if !leecher {
            return Swarm::seeder(self.now, config, me, manifest);
        }
        if manifest.is_torrent() {
            return Swarm::with_manifest(self.now, config, me, manifest);
        }
        let swarm = Swarm::leecher(self.now, config, me, manifest.id());
        match self
            .told_length()
            .filter(|_| starts_empty && !self.is_long())
        {
            Some(length) => swarm.expecting(length),
            None => swarm,
        }
    }

    /// Brings a node to the state where it has the manifest and no links.
    /// Otherwise it would announce each of a thousand chunks one by one.
    fn acquaint(&mut self, node: usize) {
        let (now, link) = (self.now, LinkId(u64::MAX));
        let (this, sample) = (&mut self.nodes[node], &self.sample);
        if !this.leecher || sample.manifest.is_torrent() {
            return;
        }
        let info = link_info(PeerId([0xff; 16]), None, false);
        this.swarm.link_up(now, link, info);
        this.swarm.handle_message(now, link, PeerMessage::HaveAll);
        for page in [0, 1].into_iter().filter_map(|page| sample.page(page)) {
            this.swarm.handle_message(now, link, page);
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

    /// Schedules an event after everything already in flight to that end of the
    /// link.
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

    /// Runs until every reliable node has the content.
    pub(crate) fn run(&mut self) {
        for steps in 0.. {
            if steps == 300_000 {
                self.fail("the swarm does not finish");
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
        // Nodes that follow the protocol answer every request.
        for _ in 0..20_000 {
            if self.events.is_empty() {
                break;
            }
            self.step();
        }
        for node in &self.nodes {
            for (link, owes) in &node.owes {
                let open = node.links.contains_key(link) && node.kind.stays();
                assert!(!open || owes.is_empty(), "requests were not answered");
            }
        }
        if self.events.is_empty() && !self.sample.manifest.is_torrent() {
            self.check_merged();
        }
    }

    /// Two nodes that dialled each other keep one link, after both have learned of
    /// the duplicate.
    fn check_merged(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let mut others = BTreeSet::new();
            for (link, &other) in &node.links {
                let both = self.nodes[other].links.get(link) == Some(&at);
                assert!(
                    !both || others.insert(other),
                    "two links between {at} and {other}"
                );
            }
        }
    }

    fn fail(&self, what: &str) -> ! {
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
                self.nodes[node].swarm.handle_timeout(now);
                self.outputs(node);
                let next = self.nodes[node].timer;
                assert!(next.is_none_or(|next| next > now), "node {node} spins");
                let unsaid = self.nodes[node].unsaid(now);
                assert_eq!(
                    unsaid, None,
                    "a link never said what it has and is still up"
                );
            }
            _ => {
                let ((at, _), event) = self.events.pop_first().expect("no event and no timer left");
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
                let Node { peer, addr, .. } = &self.nodes[other];
                let info = link_info(*peer, Some(addr.clone()), dialled);
                let info = match self.sample.manifest.is_torrent() {
                    // BitTorrent clients share no secrets.
                    true => info,
                    false => with_cookies(info, link),
                };
                let this = &mut self.nodes[node];
                if this.dead {
                    return self.in_order(node, other, link, Event::Down { node: other, link });
                }
                this.links.insert(link, other);
                this.known.insert(link, (info.clone(), now));
                this.fresh = Some(link);
                let refused = this.is_banned(&info, &this.caught);
                let said = match info.addr.clone().filter(|_| dialled) {
                    Some(addr) => LinkInfo::unmet(addr),
                    None => info,
                };
                this.swarm.link_up(now, link, said);
                if !dialled {
                    self.in_order(node, other, link, Event::Met { node: other, link });
                }
                self.outputs(node);
                let this = &mut self.nodes[node];
                this.fresh = None;
                assert!(
                    !refused || !this.links.contains_key(&link),
                    "a banned liar was accepted again"
                );
                node
            }
            Event::Met { node, link } => {
                let this = &mut self.nodes[node];
                if this.dead || !this.links.contains_key(&link) {
                    return;
                }
                let Some((info, since)) = this.known.get_mut(&link) else {
                    return;
                };
                *since = now;
                let peer = info.peer.expect("it is known here");
                let cookies = info.cookies;
                this.swarm.link_met(now, link, peer, cookies);
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
                if this.dead || !this.links.contains_key(&link) {
                    return;
                }
                if is_lie(&self.sample, &message) {
                    this.lied_to_by.insert(link);
                }
                if says_what_it_has(&message) {
                    this.said.insert(link);
                }
                if let PeerMessage::Block { data, .. } = &message {
                    let address = data.as_ptr() as usize;
                    self.senders.insert(address, (data.clone(), link));
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
                let target = self.nodes.iter().position(|n| n.addr == to).unwrap();
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
                let Node { peer, stored, .. } = &self.nodes[node];
                let (leecher, starts_empty) = (!stored.is_complete(), stored.is_empty());
                let swarm = self.machine(*peer, leecher, starts_empty);
                let this = &mut self.nodes[node];
                this.swarm = swarm;
                this.dead = false;
                this.known.clear();
                this.said.clear();
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
}
