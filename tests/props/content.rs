//! The split into ranges, and how a content is cut into chunks.

use bt_lite::content::{
    BlockRange, MAX_CHUNK_LEN, MAX_CHUNKS, MAX_CONTENT_LEN, MIN_CHUNK_LEN, PieceLenError,
    TARGET_CHUNKS,
};
use bt_lite::testing::machine::BlockLayout;
use bt_lite::{Bitfield, ChunkIndex, Geometry, TooLong, split_evenly};
use proptest::prelude::*;

/// Each of these numbers, one less, and one more.
fn around(centers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let near = |n: u64| [n.saturating_sub(1), n, n.saturating_add(1)];
    centers.into_iter().flat_map(near).collect()
}

/// Every length at which the geometry of a content changes, with its neighbours:
/// no bytes, one leaf, one chunk, the maximum number of chunks of each chunk
/// length, and the maximum length.
pub(crate) fn boundary_lengths() -> Vec<u64> {
    let leaves = [0, 1, 64, 1 << 10];
    let chunks = [1, 2, 3, 7, 8].map(|n| n * MIN_CHUNK_LEN);
    let doublings = (MIN_CHUNK_LEN.ilog2()..=MAX_CHUNK_LEN.ilog2())
        .flat_map(|log| [(TARGET_CHUNKS / 2) << log, TARGET_CHUNKS << log]);
    let powers = (0..=MAX_CONTENT_LEN.ilog2()).map(|log| 1 << log);
    let mut lengths = around(
        leaves
            .into_iter()
            .chain(chunks)
            .chain(doublings)
            .chain(powers)
            .chain([MAX_CONTENT_LEN - 1]),
    );
    lengths.retain(|&length| length <= MAX_CONTENT_LEN);
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

fn check_split(total: u64, parts: u32) {
    let split = split_evenly(total, parts);
    assert_eq!(split.len(), parts as usize);
    let (least, most) = (total / u64::from(parts), total.div_ceil(u64::from(parts)));
    let (mut at, mut shorter_came) = (0, false);
    for part in split {
        assert_eq!(part.start, at, "{total} units in {parts} parts");
        let len = part.end - part.start;
        assert!(
            (least..=most).contains(&len),
            "{total} units in {parts} parts: {part:?}"
        );
        assert!(
            len == least || !shorter_came,
            "the longer ranges come first"
        );
        shorter_came |= len == least;
        at = part.end;
    }
    assert_eq!(at, total, "{total} units in {parts} parts");
}

#[test]
fn split_around_every_power_of_two_covers_each_unit_once() {
    for total in around((0..=63).map(|log| 1 << log)) {
        (1..=200).for_each(|parts| check_split(total, parts));
    }
}

#[test]
fn split_into_no_parts_is_empty() {
    assert_eq!(split_evenly(0, 0).len(), 0);
    assert_eq!(split_evenly(u64::MAX, 0).next(), None);
}

fn check_geometry(length: u64) {
    let geometry = Geometry::of(length).unwrap();
    assert_eq!(geometry.length(), length);

    // The rule as documented: double the chunk length until 1024 chunks suffice.
    let mut chunk_len = MIN_CHUNK_LEN;
    while length.div_ceil(chunk_len) > TARGET_CHUNKS && chunk_len < MAX_CHUNK_LEN {
        chunk_len *= 2;
    }
    assert_eq!(geometry.chunk_len(), chunk_len, "length {length}");
    assert!(geometry.chunks() >= 1 && geometry.chunks() <= MAX_CHUNKS);

    check_chunks(geometry);
}

/// Checks that the chunks follow one another and are the content.
fn check_chunks(geometry: Geometry) {
    let (length, chunk_len) = (geometry.length(), geometry.chunk_len());
    let mut at = 0;
    for chunk in geometry.indices() {
        let range = geometry.range_of(chunk);
        let len = range.end - range.start;
        assert_eq!(range.start, at, "chunk {chunk} of length {length}");
        assert_eq!(
            (range.start, len),
            (geometry.offset_of(chunk), geometry.len_of(chunk))
        );
        assert!(len > 0 || length == 0);
        assert!(len == chunk_len || chunk == geometry.last());
        at = range.end;
    }
    assert_eq!(at, length);

    let after = ChunkIndex(geometry.chunks());
    assert!(geometry.contains(geometry.last()) && !geometry.contains(after));
    check_blocks(geometry);
}

/// Checks blocks at the end of the last chunk.
fn check_blocks(geometry: Geometry) {
    let chunk = geometry.last();
    let len = geometry.len_of(chunk) as u32;
    let block = |offset, len| BlockRange { chunk, offset, len };
    assert!(geometry.contains_block(block(0, len)));
    assert!(!geometry.contains_block(block(0, len + 1)));
    assert!(!geometry.contains_block(block(1, len)));
    assert!(!geometry.contains_block(block(u32::MAX, u32::MAX)));
    assert_eq!(geometry.contains_block(block(0, 0)), len == 0);
    assert_eq!(
        geometry.contains_block(block(len.saturating_sub(1), 1)),
        len > 0
    );
    assert!(!geometry.contains_block(BlockRange {
        chunk: ChunkIndex(geometry.chunks()),
        offset: 0,
        len: 1
    }));
}

#[test]
fn chunks_cover_the_content_at_every_boundary_length() {
    boundary_lengths().into_iter().for_each(check_geometry);
}

#[test]
fn longest_content_has_the_most_and_longest_chunks() {
    let geometry = Geometry::of(MAX_CONTENT_LEN).unwrap();
    assert_eq!(geometry.chunks(), MAX_CHUNKS);
    assert_eq!(geometry.chunk_len(), MAX_CHUNK_LEN);
}

#[test]
fn geometry_of_a_longer_content_is_refused() {
    let powers = (MAX_CONTENT_LEN.ilog2() + 1..64).map(|log| 1 << log);
    let beyond = around(powers)
        .into_iter()
        .chain([MAX_CONTENT_LEN + 1, u64::MAX]);
    for length in beyond {
        assert_eq!(Geometry::of(length), Err(TooLong { length }));
    }
}

/// Checks how a torrent is cut, which is as its maker has chosen.
fn check_torrent(length: u64, piece_len: u64) {
    let geometry = Geometry::of_torrent(length, piece_len).unwrap();
    assert_eq!(
        (geometry.length(), geometry.chunk_len()),
        (length, piece_len)
    );
    assert_eq!(u64::from(geometry.chunks()), length.div_ceil(piece_len));
    check_chunks(geometry);
    let all = Bitfield::all(geometry.chunks());
    assert_eq!(geometry.bytes_of(&all), length);
    check_layout(BlockLayout::of_torrent(geometry));
}

/// Checks that the blocks of a torrent are the longest that every client answers.
fn check_layout(layout: BlockLayout) {
    let geometry = layout.geometry();
    for chunk in [ChunkIndex(0), geometry.last()] {
        let mut at = 0;
        for position in 0..layout.blocks(chunk) {
            let block = layout.block(chunk, position);
            assert!(geometry.contains_block(block));
            assert_eq!(layout.position(block), Some(position));
            assert_eq!(
                (u64::from(block.offset), block.offset % (16 << 10)),
                (at, 0)
            );
            at += u64::from(block.len);
            assert!(block.len == 16 << 10 || at == geometry.len_of(chunk));
        }
        assert_eq!(at, geometry.len_of(chunk));
    }
}

#[test]
fn torrent_is_cut_into_pieces_of_any_length() {
    for piece_len in [1, 3, 16_383, 16 << 10, 100_000, 1 << 20, MAX_CHUNK_LEN] {
        for pieces in [1, 2, 1000] {
            for length in around([pieces * piece_len]) {
                if (1..=u64::from(MAX_CHUNKS) * piece_len).contains(&length) {
                    check_torrent(length, piece_len);
                }
            }
        }
    }
}

#[test]
fn torrent_that_cannot_be_cut_is_refused() {
    for piece_len in [0, MAX_CHUNK_LEN + 1, u64::MAX] {
        let refused = Err(PieceLenError::Length { piece_len });
        assert_eq!(Geometry::of_torrent(1, piece_len), refused);
    }
    assert_eq!(Geometry::of_torrent(0, 1), Err(PieceLenError::Empty));
    for piece_len in [1, 100_000, MAX_CHUNK_LEN] {
        let most = u64::from(MAX_CHUNKS) * piece_len;
        let geometry = Geometry::of_torrent(most, piece_len).unwrap();
        assert_eq!(geometry.chunks(), MAX_CHUNKS);
        let pieces = u64::from(MAX_CHUNKS) + 1;
        let refused = Err(PieceLenError::Pieces { pieces });
        assert_eq!(Geometry::of_torrent(most + 1, piece_len), refused);
    }
    let pieces = u64::MAX;
    let refused = Err(PieceLenError::Pieces { pieces });
    assert_eq!(Geometry::of_torrent(u64::MAX, 1), refused);
}

proptest! {
    #[test]
    fn pieces_of_any_length_cover_a_torrent(
        piece_len in 1..=MAX_CHUNK_LEN,
        pieces in 0u64..300,
        rest: prop::sample::Index,
    ) {
        let rest = 1 + rest.index(piece_len as usize) as u64;
        check_torrent(pieces * piece_len + rest, piece_len);
    }

    #[test]
    fn split_of_any_total_covers_each_unit_once(
        total: u64,
        parts in prop_oneof![1u32..=200, Just(4096u32)],
    ) {
        check_split(total, parts);
    }

    #[test]
    fn split_with_more_parts_than_units_ends_with_empty_ranges(total in 0u64..200, more in 1u32..200) {
        check_split(total, total as u32 + more);
    }

    #[test]
    fn chunks_cover_a_content_of_any_length(length in 0u64..=32 << 30) {
        check_geometry(length);
    }

    #[test]
    fn any_length_is_accepted_or_refused(length: u64) {
        prop_assert_eq!(Geometry::of(length).is_ok(), length <= MAX_CONTENT_LEN);
    }
}
