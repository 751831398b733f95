//! The bytes of one content in memory.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::content::{Bitfield, Geometry};

/// Pieces by their offset. No piece is empty, and no two overlap. Bytes that no
/// piece covers are zeros.
#[derive(Debug, Default)]
pub(super) struct Pieces(BTreeMap<u64, Bytes>);

impl Pieces {
    pub(super) fn insert(&mut self, offset: u64, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.remove(offset..offset + piece.len() as u64);
        self.0.insert(offset, piece);
    }

    fn remove(&mut self, range: Range<u64>) {
        let touched: Vec<u64> = self.overlapping(&range).map(|(at, _)| at).collect();
        for at in touched {
            let Some(mut piece) = self.0.remove(&at) else {
                continue;
            };
            if range.end < at + piece.len() as u64 {
                let after = piece.split_off((range.end - at) as usize);
                self.0.insert(range.end, after);
            }
            if at < range.start {
                piece.truncate((range.start - at) as usize);
                self.0.insert(at, piece);
            }
        }
    }

    /// The pieces that have bytes in the range, with their offsets, in order.
    fn overlapping<'a>(
        &'a self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (u64, &'a Bytes)> + use<'a> {
        let before = self.0.range(..range.start).next_back();
        let start = range.start;
        before
            .filter(|(at, piece)| **at + piece.len() as u64 > start)
            .into_iter()
            .chain(self.0.range(range.clone()))
            .map(|(&at, piece)| (at, piece))
    }

    /// Reads a range; without a copy if one piece covers it.
    pub(super) fn read(&self, range: Range<u64>) -> Bytes {
        if range.is_empty() {
            return Bytes::new();
        }
        let slice = |at: u64, piece: &Bytes| {
            let end = range.end.min(at + piece.len() as u64);
            piece.slice((range.start.max(at) - at) as usize..(end - at) as usize)
        };
        if let Some((at, piece)) = self.overlapping(&range).next()
            && at <= range.start
            && range.end <= at + piece.len() as u64
        {
            return slice(at, piece);
        }
        let mut whole = BytesMut::zeroed((range.end - range.start) as usize);
        for (at, piece) in self.overlapping(&range) {
            let slice = slice(at, piece);
            let from = (range.start.max(at) - range.start) as usize;
            whole[from..from + slice.len()].copy_from_slice(&slice);
        }
        whole.freeze()
    }

    fn covers(&self, range: &Range<u64>) -> bool {
        let mut covered = range.start;
        for (at, piece) in self.overlapping(range) {
            if at > covered {
                return false;
            }
            covered = at + piece.len() as u64;
        }
        covered >= range.end
    }

    /// Removes all chunks but those in `kept`, and removes from `kept` the chunks
    /// that are incomplete.
    pub(super) fn retain(&mut self, geometry: &Geometry, kept: &mut Bitfield) {
        for chunk in geometry.indices() {
            let range = geometry.range_of(chunk);
            if kept.contains(chunk) && !self.covers(&range) {
                kept.remove(chunk);
            }
            if !kept.contains(chunk) {
                self.remove(range);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_read_like_one_array(
            writes in prop::collection::vec((0u64..64, 0usize..24, 1u8..), 0..24),
            reads in prop::collection::vec((0u64..64, 0u64..24), 1..12),
        ) {
            let mut model = [0u8; 96];
            let mut pieces = Pieces::default();
            for (at, len, fill) in writes {
                model[at as usize..][..len].fill(fill);
                pieces.insert(at, Bytes::from(vec![fill; len]));
            }
            for (at, len) in reads {
                let expected = &model[at as usize..][..len as usize];
                prop_assert_eq!(&pieces.read(at..at + len)[..], expected);
                let covered = expected.iter().all(|&byte| byte != 0);
                prop_assert_eq!(pieces.covers(&(at..at + len)), covered);
            }
        }
    }

    #[test]
    fn read_inside_one_piece_copies_nothing() {
        let piece = Bytes::from(vec![7; 100]);
        let mut pieces = Pieces::default();
        pieces.insert(50, piece.clone());
        pieces.insert(60, Bytes::from(vec![8; 10]));
        let before = pieces.read(50..60);
        let after = pieces.read(80..150);
        assert_eq!(before.as_ptr(), piece.as_ptr());
        assert_eq!(after.as_ptr(), piece[30..].as_ptr());
    }
}
