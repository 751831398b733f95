//! The time per event of the pure machines, by the number of chunks, with 50
//! links: it must not grow with the content.
//!
//! `cargo bench --bench swarm`

use std::hint::black_box;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::{BlockGrid, Has, LinkId, Picker, Planner, PlannerConfig};
use bt_lite::{Bitfield, ChunkIndex, Geometry};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const LINKS: u64 = 50;
/// A leecher has each chunk with this probability.
const SHARE: f64 = 0.3;

/// The shortest content with so many chunks, as far as there is one.
fn geometry(chunks: u32) -> Geometry {
    let length = match chunks {
        0..=1024 => u64::from(chunks) * (16 << 10),
        _ => u64::from(chunks) * (16 << 20),
    };
    Geometry::of(length).expect("within the bounds")
}

fn has(chunks: u32, rng: &mut fastrand::Rng) -> Bitfield {
    let mut has = Bitfield::none(chunks);
    for chunk in (0..chunks).map(ChunkIndex) {
        if rng.f64() < SHARE {
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
        let links: Vec<Bitfield> = (0..LINKS).map(|_| has(chunks, &mut rng)).collect();
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
                let chunk = picker.rarest(Some(black_box(link))).expect("plenty waits");
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
            let mut planner = Planner::new(BlockGrid::of(geometry), &none, config);
            for link in 0..LINKS {
                planner.link_added(LinkId(link));
                let has = match link {
                    0 => Has::All,
                    _ => Has::Some(has(geometry.chunks(), &mut rng)),
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
                let grid = BlockGrid::of(geometry);
                let left_of = left
                    .entry(block.chunk)
                    .or_insert_with(|| grid.blocks(block.chunk));
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

criterion_group!(benches, picker, planner);
criterion_main!(benches);
