//! The bitfield, compared with a set of numbers.

use std::collections::BTreeSet;

use bt_lite::content::BitfieldError;
use bt_lite::{Bitfield, ChunkIndex};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeSet<u32>;

fn check(bits: &Bitfield, model: &Model) {
    let chunks = bits.chunks();
    assert_eq!(bits.count() as usize, model.len());
    assert_eq!(bits.is_empty(), model.is_empty());
    assert_eq!(bits.is_complete(), model.len() == chunks as usize);
    assert!(bits.iter().map(|c| c.0).eq(model.iter().copied()));
    let missing = (0..chunks).filter(|c| !model.contains(c));
    assert!(bits.iter_missing().map(|c| c.0).eq(missing));
    for chunk in (0..chunks + 70).chain([u32::MAX]) {
        assert_eq!(bits.contains(ChunkIndex(chunk)), model.contains(&chunk));
    }
    let bytes = bits.to_bytes();
    assert_eq!(bytes.len(), Bitfield::byte_len(chunks));
    for chunk in 0..chunks {
        let bit = bytes[chunk as usize / 8] & (0x80 >> (chunk % 8)) != 0;
        assert_eq!(bit, model.contains(&chunk), "chunk {chunk} in the bytes");
    }
    assert_eq!(Bitfield::from_bytes(&bytes, chunks).as_ref(), Ok(bits));
}

/// A number of chunks, most often near the end of a byte or a word.
fn chunks() -> impl Strategy<Value = u32> {
    prop_oneof![
        1u32..=300,
        (0u32..=4, 0u32..=2).prop_map(|(words, more)| (64 * words + more).max(2) - 1),
        (1u32..=32, 0u32..=2).prop_map(|(bytes, more)| 8 * bytes + more - 1),
    ]
}

fn set_of(chunks: u32) -> impl Strategy<Value = (Bitfield, Model)> {
    vec(0..chunks, 0..=2 * chunks as usize).prop_map(move |members| {
        let mut bits = Bitfield::none(chunks);
        for &member in &members {
            bits.insert(ChunkIndex(member));
        }
        (bits, members.into_iter().collect())
    })
}

proptest! {
    #[test]
    fn bitfield_equals_its_model_after_any_steps(
        (chunks, full, steps) in chunks().prop_flat_map(|chunks| {
            (Just(chunks), any::<bool>(), vec((any::<bool>(), 0..chunks), 0..200))
        })
    ) {
        let mut bits = if full { Bitfield::all(chunks) } else { Bitfield::none(chunks) };
        let mut model: Model = (0..if full { chunks } else { 0 }).collect();
        check(&bits, &model);
        for (insert, chunk) in steps {
            if insert {
                prop_assert_eq!(bits.insert(ChunkIndex(chunk)), model.insert(chunk));
            } else {
                prop_assert_eq!(bits.remove(ChunkIndex(chunk)), model.remove(&chunk));
            }
            prop_assert_eq!(bits.count() as usize, model.len());
        }
        check(&bits, &model);
    }

    #[test]
    fn first_not_in_is_the_minimum_of_the_difference(
        ((a, in_a), (b, in_b)) in chunks().prop_flat_map(|n| (set_of(n), set_of(n)))
    ) {
        let least = in_a.difference(&in_b).next().copied();
        prop_assert_eq!(a.first_not_in(&b).map(|c| c.0), least);
        prop_assert_eq!(a.first_not_in(&a), None);
    }

    #[test]
    fn intersect_keeps_the_chunks_in_both_sets(
        ((mut a, in_a), (b, in_b)) in chunks().prop_flat_map(|n| (set_of(n), set_of(n)))
    ) {
        a.intersect(&b);
        check(&a, &(&in_a & &in_b));
    }

    #[test]
    fn bytes_of_a_wrong_length_or_with_a_spare_bit_are_refused(
        (bits, _) in chunks().prop_flat_map(set_of),
        spare in 0u32..7,
    ) {
        let (chunks, expected) = (bits.chunks(), Bitfield::byte_len(bits.chunks()));
        let mut bytes = bits.to_bytes().to_vec();
        let shorter = &bytes[..expected - 1];
        prop_assert_eq!(
            Bitfield::from_bytes(shorter, chunks),
            Err(BitfieldError::Length { len: expected - 1, expected })
        );
        let spares = expected as u32 * 8 - chunks;
        if spare < spares {
            bytes[expected - 1] |= 1 << spare;
            prop_assert_eq!(Bitfield::from_bytes(&bytes, chunks), Err(BitfieldError::SpareBits));
        }
        bytes.push(0);
        prop_assert_eq!(
            Bitfield::from_bytes(&bytes, chunks),
            Err(BitfieldError::Length { len: expected + 1, expected })
        );
    }
}
