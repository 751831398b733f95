//! The time per event of the pure state machines with 50 links, by the number of
//! chunks. It must not grow with the content.
//!
//! `cargo bench --bench swarm`

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bt_lite::content::{BlockRange, ChunkHash, LengthProof};
use bt_lite::peer::swarm::{LinkId, LinkInfo, Output, PlannerConfig, Swarm, SwarmConfig};
use bt_lite::protocol::{PeerId, PeerMessage};
use bt_lite::testing::machine::{BlockLayout, ChunkSet, Picker, Planner};
use bt_lite::{Addr, Bitfield, ChunkIndex, ContentId, Geometry, Manifest};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const LINKS: u64 = 50;
/// The probability that a leecher has a chunk.
const SHARE: f64 = 0.3;

/// A content with this many chunks, the shortest one if possible.
fn geometry(chunks: u32) -> Geometry {
    let length = match chunks {
        0..=1024 => u64::from(chunks) * (16 << 10),
        _ => u64::from(chunks) * (16 << 20),
    };
    Geometry::of(length).expect("within the bounds")
}

fn has(chunks: u32, share: f64, rng: &mut fastrand::Rng) -> Bitfield {
    let mut has = Bitfield::none(chunks);
    for chunk in (0..chunks).map(ChunkIndex) {
        if rng.f64() < share {
            has.insert(chunk);
        }
    }
    has
}

fn picker(c: &mut Criterion) {
    let mut group = c.benchmark_group("picker");
    for chunks in [1_000, 10_000, 100_000, 1_000_000] {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut picker = Picker::new(chunks, 1);
        let links: Vec<Bitfield> = (0..LINKS).map(|_| has(chunks, SHARE, &mut rng)).collect();
        for chunk in (0..chunks).map(ChunkIndex) {
            picker.put(chunk);
            for link in &links {
                if link.contains(chunk) {
                    picker.gained(chunk);
                }
            }
        }
        group.bench_function(BenchmarkId::new("gain and lose", chunks), |b| {
            b.iter(|| {
                let chunk = ChunkIndex(rng.u32(0..chunks));
                picker.gained(chunk);
                picker.lost(chunk);
            });
        });
        group.bench_function(BenchmarkId::new("pick, take and put", chunks), |b| {
            b.iter(|| {
                let link = &links[rng.usize(0..links.len())];
                let chunk = picker
                    .rarest(Some(black_box(link)))
                    .expect("many chunks wait");
                picker.take(chunk);
                picker.put(chunk);
            });
        });
    }
    group.finish();
}

fn planner(c: &mut Criterion) {
    let mut group = c.benchmark_group("planner");
    for chunks in [1_000, 10_000, 100_000, 1_000_000] {
        let geometry = geometry(chunks);
        let fresh = || {
            let mut rng = fastrand::Rng::with_seed(5);
            let none = Bitfield::none(geometry.chunks());
            let config = PlannerConfig::default();
            let mut planner = Planner::new(BlockLayout::of(geometry), &none, config);
            for link in 0..LINKS {
                planner.link_added(LinkId(link));
                let has = match link {
                    0 => ChunkSet::All,
                    _ => ChunkSet::Some(has(geometry.chunks(), SHARE, &mut rng)),
                };
                planner.link_has(LinkId(link), has);
            }
            planner
        };
        group.bench_function(BenchmarkId::new("request and arrival", chunks), |b| {
            let mut planner = fresh();
            let mut now = Instant::now();
            let mut left = std::collections::BTreeMap::<ChunkIndex, u32>::new();
            let mut link = 0;
            b.iter(|| {
                link = (link + 1) % LINKS;
                now += Duration::from_micros(100);
                let Some(request) = planner.next_request(now, LinkId(link)) else {
                    if planner.is_done() {
                        planner = fresh();
                    }
                    return;
                };
                let block = request.block;
                planner.block_arrived(now, LinkId(link), block);
                let layout = BlockLayout::of(geometry);
                let left_of = left
                    .entry(block.chunk)
                    .or_insert_with(|| layout.blocks(block.chunk));
                *left_of -= 1;
                if *left_of == 0 {
                    left.remove(&block.chunk);
                    planner.chunk_complete(block.chunk);
                    planner.chunk_stored(block.chunk);
                }
            });
        });
    }
    group.finish();
}

/// A manifest with this many chunks of 16 MiB. The hashes are drawn at random,
/// except that of the last chunk, which is one byte.
fn manifest(chunks: u32) -> Manifest {
    let mut rng = fastrand::Rng::with_seed(7);
    let length = u64::from(chunks - 1) * (16 << 20) + 1;
    let mut hashes: Vec<ChunkHash> = (1..chunks)
        .map(|_| std::array::from_fn(|_| rng.u8(..)))
        .collect();
    let last = blake3::Hasher::new()
        .set_input_offset(length - 1)
        .update(&[0])
        .finalize_non_root();
    hashes.push(last);
    let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
    let id = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    let proof = LengthProof {
        leaf: Bytes::from_static(&[0]),
        siblings: Vec::new(),
    };
    Manifest::check(ContentId::from_bytes(*id.as_bytes()), length, hashes, proof)
        .expect("consistent")
}

fn subtree(hashes: &[ChunkHash]) -> ChunkHash {
    let [hash] = hashes else {
        let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
        return merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash);
    };
    *hash
}

/// A leecher with its links, and the requests that it has sent.
struct World {
    swarm: Swarm,
    now: Instant,
    requests: VecDeque<(LinkId, BlockRange)>,
    zeros: Bytes,
}

impl World {
    /// Gets the manifest from a seeder, and then links to leechers.
    fn new(manifest: &Arc<Manifest>, share: f64) -> Self {
        let (now, link) = (Instant::now(), LinkId(0));
        let config = SwarmConfig::default();
        let mut seeder = Swarm::seeder(now, config.clone(), PeerId([1; 16]), Arc::clone(manifest));
        let mut world = Self {
            swarm: Swarm::leecher(now, config, PeerId([0xff; 16]), manifest.id()),
            now,
            requests: VecDeque::new(),
            zeros: vec![0; 256 << 10].into(),
        };
        seeder.link_up(now, link, info(0xff));
        world.swarm.link_up(now, link, info(1));
        while world.swarm.manifest().is_none() {
            let mut waits = true;
            while let Some(output) = world.swarm.poll_output() {
                waits = false;
                match output {
                    Output::Send { message, .. } => {
                        world.swarm.messages_sent(now, link, 1, 0);
                        seeder.handle_message(now, link, message);
                    }
                    Output::CheckManifest { link, claim } => {
                        world.swarm.manifest_checked(now, link, claim.check());
                    }
                    _ => {}
                }
            }
            while let Some(output) = seeder.poll_output() {
                waits = false;
                if let Output::Send { message, .. } = output {
                    seeder.messages_sent(now, link, 1, 0);
                    world.swarm.handle_message(now, link, message);
                }
            }
            assert!(!waits, "the manifest does not arrive");
        }
        let chunks = manifest.geometry().chunks();
        let none = Bitfield::none(chunks);
        world.swarm.opened(now, &none, &none);
        let mut rng = fastrand::Rng::with_seed(9);
        for link in 1..LINKS {
            world.swarm.link_up(now, LinkId(link), info(link as u8 + 1));
            let has = has(chunks, share, &mut rng).to_bytes();
            let message = PeerMessage::Bitfield(has);
            world.swarm.handle_message(now, LinkId(link), message);
        }
        world.pump();
        world
    }

    /// Does at once what the machine asks for, except sending blocks.
    fn pump(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            match output {
                Output::Send { link, message } => {
                    self.swarm.messages_sent(self.now, link, 1, 0);
                    if let PeerMessage::Request(block) = message {
                        self.requests.push_back((link, block));
                    }
                }
                Output::Verify { chunk, .. } => self.swarm.chunk_verified(self.now, chunk, true),
                Output::Store { chunk, .. } => self.swarm.chunk_stored(self.now, chunk),
                Output::Commit { .. } => self.swarm.committed(self.now),
                _ => {}
            }
        }
    }

    /// Delivers the next requested block. Returns `false` if there is no request.
    fn block(&mut self) -> bool {
        let Some((link, block)) = self.requests.pop_front() else {
            return false;
        };
        self.now += Duration::from_micros(100);
        let message = PeerMessage::Block {
            chunk: block.chunk,
            offset: block.offset,
            data: self.zeros.slice(..block.len as usize),
        };
        self.swarm.handle_message(self.now, link, message);
        self.pump();
        true
    }

    /// A link announces a chunk.
    fn have(&mut self, link: u64, chunk: ChunkIndex) {
        let message = PeerMessage::Have(chunk);
        self.swarm.handle_message(self.now, LinkId(link), message);
        self.pump();
    }
}

fn info(peer: u8) -> LinkInfo {
    let (peer, dialled) = (PeerId([peer; 16]), peer == 1);
    let addr: Addr = format!("{peer}:1").parse().expect("a printable address");
    match dialled {
        true => LinkInfo::dialled(peer, addr),
        false => LinkInfo::accepted(peer, &addr, None),
    }
}

fn swarm(c: &mut Criterion) {
    let mut group = c.benchmark_group("swarm");
    group.sample_size(10);
    for chunks in [1_000, 10_000, 100_000, 1_000_000] {
        let manifest = Arc::new(manifest(chunks));
        group.bench_function(BenchmarkId::new("block", chunks), |b| {
            let mut world = World::new(&manifest, SHARE);
            b.iter_custom(|events| {
                let mut spent = Duration::ZERO;
                for _ in 0..events {
                    let started = Instant::now();
                    let came = world.block();
                    spent += started.elapsed();
                    if !came {
                        world = World::new(&manifest, SHARE);
                    }
                }
                spent
            });
        });
        group.bench_function(BenchmarkId::new("have", chunks), |b| {
            // Leechers that start with nothing announce one chunk after the other.
            let mut world = World::new(&manifest, 0.0);
            let mut told = 0;
            b.iter_custom(|events| {
                let mut spent = Duration::ZERO;
                for _ in 0..events {
                    let (link, chunk) = (1 + told % (LINKS - 1), told / (LINKS - 1));
                    if chunk >= u64::from(chunks) {
                        world = World::new(&manifest, 0.0);
                        told = 0;
                        continue;
                    }
                    told += 1;
                    let started = Instant::now();
                    world.have(link, ChunkIndex(chunk as u32));
                    spent += started.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, picker, planner, swarm);
criterion_main!(benches);
