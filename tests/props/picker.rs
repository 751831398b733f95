//! The picker, compared with a fresh count after each step.

use bt_lite::testing::machine::Picker;
use bt_lite::{Bitfield, ChunkIndex};
use proptest::collection::vec;
use proptest::prelude::*;

const LINKS: usize = 5;

#[derive(Debug, Clone)]
enum Op {
    Put(u32),
    Take(u32),
    /// A link gains a chunk, or loses it if it has it.
    Toggle(usize, u32),
}

fn ops(chunks: u32) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0..chunks).prop_map(Op::Put),
        (0..chunks).prop_map(Op::Take),
        (0..LINKS, 0..chunks).prop_map(|(link, chunk)| Op::Toggle(link, chunk)),
        (0..LINKS, 0..chunks).prop_map(|(link, chunk)| Op::Toggle(link, chunk)),
    ];
    vec(op, 0..120)
}

proptest! {
    #[test]
    fn picker_after_any_script_agrees_with_counting(
        (chunks, ops) in (1u32..40).prop_flat_map(|chunks| (Just(chunks), ops(chunks))),
        seed: u64,
    ) {
        let mut picker = Picker::new(chunks, seed);
        let mut waiting = Bitfield::none(chunks);
        let mut has = vec![Bitfield::none(chunks); LINKS];
        for op in ops {
            match op {
                Op::Put(chunk) => {
                    picker.put(ChunkIndex(chunk));
                    waiting.insert(ChunkIndex(chunk));
                }
                Op::Take(chunk) => {
                    picker.take(ChunkIndex(chunk));
                    waiting.remove(ChunkIndex(chunk));
                }
                Op::Toggle(link, chunk) => {
                    let chunk = ChunkIndex(chunk);
                    if has[link].insert(chunk) {
                        picker.gained(chunk);
                    } else {
                        has[link].remove(chunk);
                        picker.lost(chunk);
                    }
                }
            }
            picker.check_invariants();
            prop_assert_eq!(picker.waiting(), &waiting);
            let copies = |chunk: ChunkIndex| has.iter().filter(|h| h.contains(chunk)).count();
            for chunk in (0..chunks).map(ChunkIndex) {
                prop_assert_eq!(usize::from(picker.copies(chunk)), copies(chunk));
            }
            let rarest = waiting.iter().map(copies).min();
            prop_assert_eq!(picker.rarest(None).map(copies), rarest);
            for has in &has {
                let rarest = waiting.iter_common(has, 0).map(copies).min();
                let picked = picker.rarest(Some(has));
                prop_assert_eq!(picked.map(copies), rarest);
                prop_assert!(picked.is_none_or(|c| has.contains(c) && waiting.contains(c)));
                let first = waiting.iter_common(has, chunks / 3).next();
                let first = first.filter(|chunk| chunk.0 < chunks / 2);
                prop_assert_eq!(picker.first_in(chunks / 3..chunks / 2, Some(has)), first);
            }
        }
    }

    #[test]
    fn picker_past_its_scan_still_finds_a_candidate(seed: u64, start in 0u32..9000, len in 1u32..200) {
        const CHUNKS: u32 = 10_000;
        let mut picker = Picker::new(CHUNKS, seed);
        for chunk in (0..CHUNKS).map(ChunkIndex) {
            picker.put(chunk);
            picker.gained(chunk);
        }
        let mut has = Bitfield::none(CHUNKS);
        for chunk in (start..start + len).map(ChunkIndex) {
            has.insert(chunk);
            picker.gained(chunk);
        }
        let picked = picker.rarest(Some(&has));
        prop_assert!(picked.is_some_and(|chunk| has.contains(chunk)));
    }
}

#[test]
fn ties_are_broken_by_the_seed() {
    let first = |seed| {
        let mut picker = Picker::new(1000, seed);
        (0..1000)
            .map(ChunkIndex)
            .for_each(|chunk| picker.put(chunk));
        picker.rarest(None)
    };
    assert_eq!(first(1), first(1));
    assert!((2..10).any(|seed| first(seed) != first(1)));
}
