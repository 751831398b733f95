//! The time to encode and to decode a message.
//!
//! `cargo bench --bench codec`

use std::hint::black_box;

use bt_lite::content::{BlockRange, ChunkIndex, ContentId};
use bt_lite::protocol::limits::{MAX_BLOCK_LEN, MAX_OWNERS};
use bt_lite::protocol::{ChannelId, Found, ListedOwner, OwnerRef, PeerMessage, TrackerReply};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn encode_and_decode(message: PeerMessage) -> PeerMessage {
    let frame = black_box(message.encode(ChannelId(1)));
    let (_, message) = PeerMessage::decode(frame).expect("an encoded message decodes");
    message
}

fn link(c: &mut Criterion) {
    let (chunk, offset) = (ChunkIndex(7), 0);
    let range = BlockRange {
        chunk,
        offset,
        len: MAX_BLOCK_LEN,
    };
    let data = Bytes::from(vec![0; MAX_BLOCK_LEN as usize]);
    let block = PeerMessage::Block {
        chunk,
        offset,
        data,
    };
    let mut group = c.benchmark_group("encode_and_decode");
    for (name, message) in [
        ("have", PeerMessage::Have(chunk)),
        ("request", PeerMessage::Request(range)),
        ("block", block),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| encode_and_decode(black_box(message.clone())));
        });
    }
    group.finish();
}

fn tracker(c: &mut Criterion) {
    let owner = |i: u16| {
        ListedOwner::new(
            OwnerRef(i.into()),
            format!("10.0.{}.{}:7000", i / 256, i % 256)
                .parse()
                .expect("an address"),
            i.is_multiple_of(2),
        )
    };
    let reply = TrackerReply::Found(Found::new(
        ContentId::of(b"bt_lite"),
        "ubuntu.iso".parse().expect("a name"),
        1 << 30,
        (0..MAX_OWNERS).map(owner).collect(),
    ));
    let frame = reply.encode().expect("the reply is within its bounds");
    let mut group = c.benchmark_group("need_reply");
    group.throughput(Throughput::Elements(MAX_OWNERS.into()));
    group.bench_function("encode", |b| b.iter(|| black_box(&reply).encode()));
    group.bench_function("decode", |b| {
        b.iter(|| TrackerReply::decode(black_box(frame.clone())));
    });
    group.finish();
}

criterion_group!(benches, link, tracker);
criterion_main!(benches);
