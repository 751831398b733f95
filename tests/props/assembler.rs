//! The assembler, compared with a map of what arrived; and how chunks are cut.

use std::collections::BTreeMap;

use bt_lite::content::BlockRange;
use bt_lite::testing::machine::{Assembler, BlockLayout, Inserted};
use bt_lite::{ChunkIndex, Geometry};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Arrive {
        chunk: u32,
        position: u32,
        sender: u8,
    },
    Misaligned {
        chunk: u32,
        offset: u32,
        len: usize,
    },
    Discard(u32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let arrive = (0u32..3, 0u32..4, any::<u8>());
    let arrive = arrive.prop_map(|(chunk, position, sender)| Op::Arrive {
        chunk,
        position,
        sender,
    });
    let off = (any::<u32>(), any::<u32>(), 0usize..40_000);
    let near = (0u32..4, 0u32..70_000, 0usize..40_000);
    let off = prop_oneof![off, near];
    vec(
        prop_oneof![
            8 => arrive,
            2 => off.prop_map(|(chunk, offset, len)| Op::Misaligned { chunk, offset, len }),
            1 => (0u32..4).prop_map(Op::Discard),
        ],
        0..60,
    )
}

proptest! {
    #[test]
    fn assembler_after_any_script_agrees_with_a_map(ops in ops(), short in 1u64..131_072) {
        // Only the last three chunks are used: 128 KiB each in four blocks, the
        // last one shorter.
        let geometry = Geometry::of((64 << 20) + (1 << 17) + short).unwrap();
        let layout = BlockLayout::of(geometry);
        let first = geometry.chunks() - 3;
        let mut assembler = Assembler::new(layout);
        let mut model: BTreeMap<u32, BTreeMap<u32, (u8, Bytes)>> = BTreeMap::new();
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                Op::Arrive { chunk, position, sender } => {
                    let chunk = ChunkIndex(first + chunk);
                    let block = layout.block(chunk, position % layout.blocks(chunk));
                    let data = Bytes::from(vec![step as u8; block.len as usize]);
                    let inserted = assembler.insert(sender, chunk, block.offset, data.clone());
                    let held = model.entry(chunk.0).or_default();
                    if held.contains_key(&block.offset) {
                        prop_assert_eq!(inserted, Inserted::Duplicate);
                        continue;
                    }
                    held.insert(block.offset, (sender, data));
                    if held.len() < layout.blocks(chunk) as usize {
                        prop_assert_eq!(inserted, Inserted::Kept);
                        continue;
                    }
                    let Inserted::Complete(assembled) = inserted else {
                        return Err(TestCaseError::fail("a whole chunk was kept back"));
                    };
                    let whole = model.remove(&chunk.0).unwrap();
                    let (senders, pieces): (Vec<_>, Vec<_>) = whole.into_values().unzip();
                    prop_assert_eq!(assembled.chunk, chunk);
                    prop_assert_eq!(assembled.senders, senders);
                    prop_assert_eq!(assembled.pieces, pieces);
                }
                Op::Misaligned { chunk, offset, len } => {
                    let chunk = ChunkIndex(chunk.wrapping_add(first));
                    let block = BlockRange { chunk, offset, len: len as u32 };
                    if layout.position(block).is_none() {
                        let data = Bytes::from(vec![0; len]);
                        prop_assert_eq!(assembler.insert(0, chunk, offset, data), Inserted::Misaligned);
                    }
                }
                Op::Discard(chunk) => {
                    let gone = model.remove(&(first + chunk)).unwrap_or_default();
                    let gone: Vec<_> = gone.into_values().collect();
                    prop_assert_eq!(assembler.discard(ChunkIndex(first + chunk)), gone);
                }
            }
            let held = model.values().flat_map(|chunk| chunk.values());
            let bytes: u64 = held.map(|(_, data)| data.len() as u64).sum();
            prop_assert_eq!(assembler.bytes(), bytes);
            let chunks = model.values().filter(|chunk| !chunk.is_empty()).count();
            prop_assert_eq!(assembler.chunks(), chunks);
        }
    }

    #[test]
    fn blocks_of_a_chunk_cover_exactly_its_bytes(length in prop_oneof![0u64..1 << 22, 0u64..1 << 40], at: u32) {
        let geometry = Geometry::of(length).unwrap();
        let layout = BlockLayout::of(geometry);
        let chunk = ChunkIndex(at % geometry.chunks());
        let mut end = 0;
        for position in 0..layout.blocks(chunk) {
            let block = layout.block(chunk, position);
            prop_assert_eq!(u64::from(block.offset), end);
            prop_assert!(geometry.contains_block(block));
            prop_assert_eq!(layout.position(block), Some(position));
            end += u64::from(block.len);
        }
        prop_assert_eq!(end, geometry.len_of(chunk));
    }
}
