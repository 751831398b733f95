//! How fast blocks become a verified content, compared with the hash of the same
//! bytes. The difference is the cost of reassembly.
//!
//! `cargo bench --bench reassembly`

use std::hint::black_box;

use bt_lite::content::BlockRange;
use bt_lite::testing::machine::{Assembler, BlockLayout, Inserted};
use bt_lite::{ChunkIndex, Manifest};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LENGTH: usize = 64 << 20;

type Arrivals = Vec<BlockRange>;

fn reassemble(
    manifest: &Manifest,
    layout: BlockLayout,
    content: &Bytes,
    arrivals: &Arrivals,
) -> u32 {
    let mut assembler = Assembler::new(layout);
    let mut verified = vec![false; manifest.geometry().chunks() as usize];
    for block in arrivals {
        // The planner drops blocks of a chunk that is already stored.
        if verified[block.chunk.as_usize()] {
            continue;
        }
        let start = manifest.geometry().offset_of(block.chunk) as usize + block.offset as usize;
        let data = content.slice(start..start + block.len as usize);
        let inserted = assembler.insert((), block.chunk, block.offset, data);
        if let Inserted::Complete(chunk) = inserted {
            let good = manifest.verify(chunk.chunk, chunk.pieces.iter().map(|piece| &piece[..]));
            verified[chunk.chunk.as_usize()] = good;
        }
    }
    assert!(verified.iter().all(|good| *good));
    verified.len() as u32
}

fn reassembly(c: &mut Criterion) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut content = vec![0; LENGTH];
    rng.fill(&mut content);
    let content = Bytes::from(content);
    let manifest = Manifest::of(&content).expect("a content of this length");
    let layout = BlockLayout::of(manifest.geometry());
    let blocks =
        |chunk: ChunkIndex| (0..layout.blocks(chunk)).map(move |at| layout.block(chunk, at));
    let in_order: Arrivals = manifest.geometry().indices().flat_map(blocks).collect();
    let mut shuffled = in_order.clone();
    rng.shuffle(&mut shuffled);
    let duplicated: Arrivals = shuffled.iter().flat_map(|&block| [block, block]).collect();

    let mut group = c.benchmark_group("reassembly");
    group.throughput(Throughput::Bytes(LENGTH as u64));
    group.sample_size(10);
    group.bench_function("blake3 alone", |b| {
        b.iter(|| blake3::hash(black_box(&content)));
    });
    for (name, arrivals) in [
        ("in order", &in_order),
        ("shuffled", &shuffled),
        ("duplicated", &duplicated),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| reassemble(black_box(&manifest), layout, &content, arrivals));
        });
    }
    group.finish();
}

criterion_group!(benches, reassembly);
criterion_main!(benches);
