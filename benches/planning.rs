//! The time to cut a content into chunks, to split the chunks over owners, and to
//! check a manifest, by the number of chunks.
//!
//! `cargo bench --bench planning`

use std::hint::black_box;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bt_lite::content::{
    ChunkHash, ContentId, Geometry, LengthProof, MAX_CHUNK_LEN, MIN_CHUNK_LEN, TARGET_CHUNKS,
};
use bt_lite::{Manifest, split_evenly};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const CHUNKS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const OWNERS: u32 = 50;

/// A length that is cut into this many chunks, the last one of one byte.
fn length_of(chunks: u32) -> u64 {
    let chunk_len = match u64::from(chunks) {
        0..=TARGET_CHUNKS => MIN_CHUNK_LEN,
        _ => MAX_CHUNK_LEN,
    };
    u64::from(chunks - 1) * chunk_len + 1
}

fn cutting(c: &mut Criterion) {
    let mut group = c.benchmark_group("cut");
    for chunks in CHUNKS {
        let length = length_of(chunks);
        group.throughput(Throughput::Elements(chunks.into()));
        group.bench_function(BenchmarkId::new("ranges", chunks), |b| {
            b.iter(|| {
                let geometry = Geometry::of(black_box(length)).expect("a length within its bound");
                let ranges = geometry.indices().map(|chunk| geometry.range_of(chunk));
                ranges.fold(0, |sum, range| sum ^ range.end)
            });
        });
        group.bench_function(BenchmarkId::new("split", chunks), |b| {
            b.iter(|| {
                let parts = split_evenly(black_box(chunks).into(), OWNERS);
                parts.flatten().fold(0, |sum, chunk| sum ^ chunk)
            });
        });
    }
    group.finish();
}

/// A manifest with made-up hashes. Checking it needs only the data of the last
/// chunk, which is one byte.
fn made_up(chunks: u32) -> (ContentId, u64, Vec<ChunkHash>, LengthProof) {
    let length = length_of(chunks);
    let leaf = b"!";
    let mut last = blake3::Hasher::new();
    last.set_input_offset(length - 1).update(leaf);
    let mut hashes: Vec<ChunkHash> = (1..chunks)
        .map(|chunk| *blake3::hash(&chunk.to_be_bytes()).as_bytes())
        .collect();
    hashes.push(last.finalize_non_root());
    let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
    let id = merge_subtrees_root(&merged(left), &merged(right), Mode::Hash);
    let proof = LengthProof {
        leaf: leaf[..].into(),
        siblings: Vec::new(),
    };
    (ContentId::from_bytes(id.into()), length, hashes, proof)
}

fn merged(hashes: &[ChunkHash]) -> ChunkHash {
    match hashes {
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

fn manifest(c: &mut Criterion) {
    let mut group = c.benchmark_group("manifest");
    group.sample_size(10);
    for chunks in CHUNKS {
        let (id, length, hashes, proof) = made_up(chunks);
        group.throughput(Throughput::Elements(chunks.into()));
        group.bench_function(BenchmarkId::new("check", chunks), |b| {
            b.iter_batched(
                || (hashes.clone(), proof.clone()),
                |(hashes, proof)| Manifest::check(id, length, hashes, proof).expect("consistent"),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, cutting, manifest);
criterion_main!(benches);
