//! The time of one announce, by the number of peers.
//!
//! `cargo bench --bench registry`

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bt_lite::protocol::{
    OwnEntry, OwnState, OwnerRef, Token, TrackerReply, TrackerRequest, Upload,
};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
use bt_lite::{Addr, ContentId};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// How many owners each content has, except the popular one.
const OWNERS_EACH: u32 = 50;

/// How many owners a NEED asks for.
const K: u16 = 16;

struct World {
    registry: ShardedRegistry,
    now: Instant,
    peers: Vec<(Addr, Token)>,
    turn: usize,
}

fn id(number: u32) -> ContentId {
    ContentId::of(&number.to_le_bytes())
}

fn own(token: Token, number: u32, state: OwnState) -> TrackerRequest {
    TrackerRequest::Own {
        token,
        entries: vec![OwnEntry::new(
            id(number),
            format!("content-{number}").parse().expect("a name"),
            1 << 30,
            state,
        )],
    }
}

impl World {
    /// Every peer owns content 0 and one of those with few owners. A tenth of the
    /// peers have uploaded.
    fn new(peers: u32) -> Self {
        let now = Instant::now();
        let mut world = Self {
            registry: ShardedRegistry::new(RegistryConfig::default(), [1; 32], 1, 1, now),
            now,
            peers: Vec::new(),
            turn: 0,
        };
        for number in 0..peers {
            let ip = Ipv4Addr::from_bits(0x0a00_0000 + number);
            let source: Addr = format!("{ip}:4000").parse().expect("an address");
            let request = TrackerRequest::Register {
                listen: Some(source.clone()),
                token: None,
            };
            let token = match world.handle(&source, &request) {
                TrackerReply::Registered(registered) => registered.token,
                other => panic!("{other:?}"),
            };
            let few = 1 + number / OWNERS_EACH;
            for content in [0, few] {
                let reply = world.handle(&source, &own(token, content, OwnState::Complete));
                assert_eq!(reply, TrackerReply::Done);
            }
            world.peers.push((source, token));
        }
        world.now += Duration::from_secs(1);
        for number in 0..peers as usize / 10 {
            let (source, token) = world.peers[number].clone();
            if let Some(owner) = world.any_owner(&source, token) {
                let bytes = 1000 * (number as u64 + 1);
                let uploads = vec![Upload::new(owner, bytes)];
                world.handle(&source, &TrackerRequest::Update { token, uploads });
            }
        }
        world
    }

    fn handle(&mut self, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        self.registry.handle(self.now, source, request)
    }

    fn any_owner(&mut self, source: &Addr, token: Token) -> Option<OwnerRef> {
        let request = TrackerRequest::Need {
            token,
            key: id(0).into(),
            max_owners: K,
        };
        match self.handle(source, &request) {
            TrackerReply::Found(found) => found.owners.last().map(|owner| owner.owner),
            _ => None,
        }
    }

    /// A different peer each time, far in memory from the last one.
    fn next(&mut self) -> (Addr, Token) {
        self.turn = (self.turn + 7919) % self.peers.len();
        self.peers[self.turn].clone()
    }
}

fn announces(c: &mut Criterion) {
    let mut group = c.benchmark_group("announce");
    for peers in [1_000, 100_000] {
        let mut world = World::new(peers);
        group.bench_function(BenchmarkId::new("heartbeat", peers), |b| {
            b.iter(|| {
                let (source, token) = world.next();
                let listen = Some(source.clone());
                let token = Some(token);
                let request = TrackerRequest::Register { listen, token };
                black_box(world.handle(&source, &request))
            });
        });
        group.bench_function(BenchmarkId::new("own", peers), |b| {
            b.iter(|| {
                let (source, token) = world.next();
                world.handle(&source, &own(token, 0, OwnState::Gone));
                black_box(world.handle(&source, &own(token, 0, OwnState::Complete)))
            });
        });
        for (name, content) in [("need_of_few_owners", 1), ("need_of_all_peers", 0)] {
            group.bench_function(BenchmarkId::new(name, peers), |b| {
                b.iter(|| {
                    let (source, token) = world.next();
                    let request = TrackerRequest::Need {
                        token,
                        key: id(content).into(),
                        max_owners: K,
                    };
                    black_box(world.handle(&source, &request))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, announces);
criterion_main!(benches);
