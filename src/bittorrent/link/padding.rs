//! The ranges of a torrent's bytes that are nobody's: zeros between files (BEP 47), and
//! behind the last piece of each file of a v2 torrent. They are never asked for.

use std::ops::Range;

use crate::bittorrent::wire::MAX_ASKED_LEN;
use crate::content::{BlockRange, Geometry};

/// Where the padding is. The ranges are in order, not empty, and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Padding {
    ranges: Vec<Range<u64>>,
}

impl Padding {
    /// Padding in these ranges of the content, in any order.
    pub fn new(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        sorted.sort_by_key(|range| range.start);
        let mut ranges: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match ranges.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        Self { ranges }
    }

    /// The parts of a block that are data, in order, each short enough to be asked for.
    pub(super) fn data_parts(&self, geometry: &Geometry, block: BlockRange) -> Vec<BlockRange> {
        let origin = geometry.offset_of(block.chunk);
        let start = origin + u64::from(block.offset);
        let end = start + u64::from(block.len);
        let first = self.ranges.partition_point(|range| range.end <= start);
        let mut parts = Vec::with_capacity(1);
        let mut at = start;
        let padding = self.ranges[first..].iter().cloned();
        for range in padding
            .take_while(|r| r.start < end)
            .chain(std::iter::once(end..end))
        {
            while at < range.start {
                let len = (range.start - at).min(MAX_ASKED_LEN.into());
                parts.push(BlockRange {
                    chunk: block.chunk,
                    offset: (at - origin) as u32,
                    len: len as u32,
                });
                at += len;
            }
            at = at.max(range.end);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ChunkIndex;

    #[test]
    fn parts_are_what_is_not_padding() {
        let geometry = Geometry::of(100_000).expect("short");
        let padding = Padding::new([20_000..20_010, 20_005..20_020, 5..5, 32_768..49_152]);
        let parts = |chunk, offset, len| {
            let block = BlockRange {
                chunk: ChunkIndex(chunk),
                offset,
                len,
            };
            let parts = padding.data_parts(&geometry, block).into_iter();
            parts.map(|p| (p.offset, p.len)).collect::<Vec<_>>()
        };
        assert_eq!(geometry.chunk_len(), 16_384);
        assert_eq!(parts(0, 0, 16_384), [(0, 16_384)]);
        assert_eq!(parts(1, 0, 16_384), [(0, 3_616), (3_636, 12_748)]);
        assert_eq!(parts(1, 3_616, 20), []);
        assert_eq!(parts(1, 3_610, 30), [(3_610, 6), (3_636, 4)]);
        assert_eq!(parts(2, 0, 16_384), []);
    }
}
