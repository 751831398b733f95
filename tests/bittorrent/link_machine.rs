//! The real machine at both ends of links that speak BitTorrent: one seeder with a single
//! upload slot, and leechers that have to wait for their turns and serve each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bt_lite::bittorrent::wire::{ClientId, Message, Reserved};
use bt_lite::content::{Bitfield, BlockRange, Manifest};
use bt_lite::peer::swarm::{LinkId, LinkInfo, Output, Swarm, SwarmConfig};
use bt_lite::protocol::{Addr, PeerId, PeerMessage, RefuseReason};
use bt_lite::testing::bittorrent::{BitTorrentLink, LinkEnd, LinkEvent, LinkFacts};
use bytes::Bytes;

use crate::link_desk::{FAST, NOT_FAST};

const LEN: usize = 3 << 20;

fn content() -> Vec<u8> {
    (0..LEN).map(|at| (at * 31 + at / 977) as u8).collect()
}

struct Node {
    swarm: Swarm,
    /// By the number of the other node.
    links: Vec<Option<BitTorrentLink>>,
    arrives: VecDeque<(usize, Message)>,
    chokes: usize,
}

struct World {
    now: Instant,
    bytes: Bytes,
    manifest: Arc<Manifest>,
    nodes: Vec<Node>,
}

fn peer(node: usize) -> PeerId {
    PeerId([node as u8; 16])
}

fn addr(node: usize) -> Addr {
    format!("10.0.0.{}:1", node + 1).parse().unwrap()
}

impl World {
    fn new(leechers: usize) -> Self {
        let now = Instant::now();
        let bytes = Bytes::from(content());
        let manifest = Arc::new(Manifest::of(&bytes).unwrap());
        let config = SwarmConfig::default().stranger_slots(1).max_waiting(0);
        let nodes = (0..=leechers).map(|node| Node {
            swarm: match node {
                0 => Swarm::seeder(now, config.clone(), peer(0), manifest.clone()),
                _ => Swarm::leecher(now, config.clone(), peer(node), manifest.id()),
            },
            links: (0..=leechers).map(|_| None).collect(),
            arrives: VecDeque::new(),
            chokes: 0,
        });
        let nodes = nodes.collect();
        let mut world = Self {
            now,
            bytes,
            manifest,
            nodes,
        };
        for node in 1..=leechers {
            world.teach_manifest(node);
        }
        world
    }

    /// A torrent brings its manifest along. Here a link of this crate's own protocol does.
    fn teach_manifest(&mut self, node: usize) {
        let (now, link) = (self.now, LinkId(99));
        let mut teacher =
            Swarm::seeder(now, SwarmConfig::default(), peer(9), self.manifest.clone());
        let swarm = &mut self.nodes[node].swarm;
        teacher.link_up(now, link, LinkInfo::accepted(peer(node), &addr(node), None));
        swarm.link_up(now, link, LinkInfo::accepted(peer(9), &addr(9), None));
        loop {
            let mut moves = false;
            while let Some(output) = teacher.poll_output() {
                if let Output::Send { message, .. } = output {
                    swarm.handle_message(now, link, message);
                    teacher.messages_sent(now, link, 1, 0);
                    moves = true;
                }
            }
            while let Some(output) = swarm.poll_output() {
                moves = true;
                match output {
                    Output::Send { message, .. } => {
                        swarm.messages_sent(now, link, 1, 0);
                        teacher.handle_message(now, link, message);
                    }
                    Output::CheckManifest { link, claim } => {
                        swarm.manifest_checked(now, link, claim.check());
                    }
                    Output::Open(_) => {
                        swarm.link_down(now, link);
                        while swarm.poll_output().is_some() {}
                        let none = Bitfield::none(self.manifest.geometry().chunks());
                        return swarm.opened(now, &none, &none);
                    }
                    _ => {}
                }
            }
            assert!(moves, "the manifest does not come");
        }
    }

    fn connect(&mut self, a: usize, b: usize, agreed: Reserved) {
        let agreed = agreed.with(Reserved::EXTENDED);
        let geometry = self.manifest.geometry();
        for (node, other, dialled) in [(a, b, true), (b, a, false)] {
            let client = ClientId::of_this_crate([other as u8; 12]);
            let facts = LinkFacts::new(geometry, agreed, client);
            self.nodes[node].links[other] = Some(BitTorrentLink::new(self.now, facts));
            let info = match dialled {
                true => LinkInfo::dialled(peer(other), addr(other)),
                false => LinkInfo::accepted(peer(other), &addr(other), None),
            };
            let (id, info) = (LinkId(other as u64), info.of_stranger());
            self.nodes[node].swarm.link_up(self.now, id, info);
        }
    }

    fn read(&self, block: BlockRange) -> Bytes {
        let start = self.manifest.geometry().offset_of(block.chunk) + u64::from(block.offset);
        let start = start as usize;
        self.bytes.slice(start..start + block.len as usize)
    }

    /// One step of one node. Returns whether anything moved.
    fn step(&mut self, node: usize) -> bool {
        let now = self.now;
        let mut moves = false;
        while let Some((from, message)) = self.nodes[node].arrives.pop_front() {
            moves = true;
            if let Some(link) = &mut self.nodes[node].links[from] {
                link.handle_message(now, message);
            }
            self.hear(node, from);
        }
        while let Some(output) = self.nodes[node].swarm.poll_output() {
            moves = true;
            self.perform(node, output);
        }
        for other in 0..self.nodes.len() {
            self.hear(node, other);
            moves |= self.send(node, other);
        }
        moves
    }

    fn perform(&mut self, node: usize, output: Output) {
        let now = self.now;
        let swarm = &mut self.nodes[node].swarm;
        match output {
            Output::Send { link, message } => {
                self.nodes[node].chokes += usize::from(message == PeerMessage::Choke);
                if let Some(link) = &mut self.nodes[node].links[link.0 as usize] {
                    link.handle_peer_message(message);
                }
            }
            Output::Drop { link, reason } => {
                let is_kind = !matches!(reason, bt_lite::peer::swarm::DropReason::Violation(_));
                assert!(is_kind, "{node} dropped {link:?}: {reason:?}");
                self.disconnect(node, link.0 as usize);
            }
            Output::Verify { chunk, pieces, .. } => {
                let bytes = pieces.concat();
                let range = self.manifest.geometry().range_of(chunk);
                let good = bytes[..] == self.bytes[range.start as usize..range.end as usize];
                assert!(good, "wrong bytes");
                swarm.chunk_verified(now, chunk, good);
            }
            Output::Store { chunk, .. } => swarm.chunk_stored(now, chunk),
            Output::Commit { .. } => swarm.committed(now),
            Output::Finish => swarm.finished(now),
            Output::Read { link, block } => {
                let data = self.read(block);
                let swarm = &mut self.nodes[node].swarm;
                swarm.block_read(now, link, block, Some(data));
            }
            Output::Open(_) | Output::Recheck { .. } => panic!("a surprise"),
            _ => {}
        }
    }

    fn disconnect(&mut self, node: usize, other: usize) {
        self.nodes[node].links[other] = None;
        if self.nodes[other].links[node].take().is_some() {
            self.nodes[other]
                .swarm
                .link_down(self.now, LinkId(node as u64));
        }
    }

    /// The machine hears what a link has for it.
    fn hear(&mut self, node: usize, other: usize) {
        loop {
            let this = &mut self.nodes[node];
            let Some(event) = this.links[other]
                .as_mut()
                .and_then(BitTorrentLink::poll_event)
            else {
                return;
            };
            match event {
                LinkEvent::Machine(message) => {
                    this.swarm
                        .handle_message(self.now, LinkId(other as u64), message);
                }
                LinkEvent::End(LinkEnd::NotNeeded | LinkEnd::Refused(RefuseReason::Busy)) => {
                    this.swarm.link_down(self.now, LinkId(other as u64));
                    self.disconnect(node, other);
                }
                LinkEvent::End(end) => panic!("{node} to {other}: {end}"),
                _ => {}
            }
        }
    }

    /// Carries what a link has to say.
    fn send(&mut self, node: usize, other: usize) -> bool {
        let mut moves = false;
        loop {
            let Some(link) = &mut self.nodes[node].links[other] else {
                return moves;
            };
            let id = LinkId(other as u64);
            let mut settled = link.take_settled();
            let outgoing = link.poll_message(self.now);
            let is_over = outgoing.is_none() && settled == 0;
            let mut bytes = 0;
            if let Some(outgoing) = outgoing {
                settled += outgoing.of_machine;
                if let Message::Block { data, .. } = &outgoing.message {
                    bytes = data.len() as u64;
                }
                self.nodes[other]
                    .arrives
                    .push_back((node, outgoing.message));
            }
            self.nodes[node]
                .swarm
                .messages_sent(self.now, id, settled, bytes);
            if is_over {
                return moves;
            }
            moves = true;
        }
    }

    /// Until all have everything.
    fn run(&mut self) {
        for _ in 0..100_000 {
            let mut moves = false;
            for node in 0..self.nodes.len() {
                moves |= self.step(node);
                self.nodes[node].swarm.check_invariants();
                let links = self.nodes[node].links.iter().flatten();
                links.for_each(BitTorrentLink::check_invariants);
            }
            if self.nodes.iter().all(|node| node.swarm.is_seeding()) {
                return;
            }
            if !moves {
                self.pass_time();
            }
        }
        let done = self.nodes.iter().map(|node| node.swarm.is_seeding());
        panic!("it does not end: {:?}", done.collect::<Vec<_>>());
    }

    fn pass_time(&mut self) {
        let links = self
            .nodes
            .iter()
            .flat_map(|node| node.links.iter().flatten());
        let links = links.filter_map(BitTorrentLink::poll_timeout);
        let swarms = self
            .nodes
            .iter()
            .filter_map(|node| node.swarm.poll_timeout());
        let next = links.chain(swarms).min().expect("something is to come");
        self.now = self.now.max(next) + std::time::Duration::from_millis(1);
        for node in &mut self.nodes {
            node.swarm.handle_timeout(self.now);
            let links = node.links.iter_mut().flatten();
            links.for_each(|link| link.handle_timeout(self.now));
        }
    }
}

#[test]
fn machine_downloads_over_bittorrent() {
    for agreed in [FAST, NOT_FAST] {
        let mut world = World::new(1);
        world.connect(1, 0, agreed);
        world.run();
    }
}

#[test]
fn machines_take_turns_over_bittorrent_and_all_get_everything() {
    for agreed in [FAST, NOT_FAST] {
        let mut world = World::new(4);
        for a in 1..=4 {
            for b in 0..a {
                world.connect(a, b, agreed);
            }
        }
        world.run();
        assert!(world.nodes[0].chokes > 0, "nobody had to wait");
    }
}
