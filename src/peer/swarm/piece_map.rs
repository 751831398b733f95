//! The state of every chunk of a content, and how many peers have it.

use crate::content::ChunkIndex;

/// The state of every chunk, and how many linked peers have it: the result of
/// [`Download::piece_map`](crate::Download::piece_map).
///
/// It is kept in runs of neighbours that are alike, so that of a content that is complete
/// or has not begun is a single one. As JSON it is
/// `{"chunks":3,"runs":[{"first":0,"len":3,"state":"missing","copies":2}]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PieceMap {
    chunks: u32,
    runs: Vec<PieceRun>,
}

/// Neighbouring chunks that are in the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PieceRun {
    /// The first of them.
    pub first: ChunkIndex,
    /// How many there are; at least one.
    pub len: u32,
    /// How far each of them is.
    pub state: PieceState,
    /// How many linked peers have each of them, without this one and without links that
    /// wait for a place.
    pub copies: u32,
}

/// How far a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum PieceState {
    /// Nothing of it was asked for.
    Missing,
    /// The same, and nothing of it will be: no file is wanted that has bytes of it.
    NotWanted,
    /// Blocks of it are asked for, or have arrived.
    UnderWay,
    /// All of it is here, and is being verified or written.
    Arrived,
    /// An earlier download left it behind, and it was not verified yet.
    Unchecked,
    /// It is verified and stored, and others can have it.
    Stored,
}

impl PieceMap {
    /// The map of a content, from the state and the copies of each chunk in order.
    pub(super) fn collect(pieces: impl Iterator<Item = (PieceState, u32)>) -> Self {
        let mut map = Self::default();
        for (state, copies) in pieces {
            let first = ChunkIndex(map.chunks);
            map.chunks += 1;
            match map.runs.last_mut() {
                Some(run) if (run.state, run.copies) == (state, copies) => run.len += 1,
                _ => map.runs.push(PieceRun {
                    first,
                    len: 1,
                    state,
                    copies,
                }),
            }
        }
        map
    }

    /// How many chunks the content has.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The runs, in order. Together they are all chunks, and no neighbours are alike.
    pub fn runs(&self) -> &[PieceRun] {
        &self.runs
    }

    /// The run that a chunk belongs to; `None` if the content has no such chunk.
    /// O(log runs).
    pub fn get(&self, chunk: ChunkIndex) -> Option<PieceRun> {
        let after = self.runs.partition_point(|run| run.first <= chunk);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (chunk.0 < self.chunks).then_some(*run)
    }

    /// How many chunks are in this state. O(runs).
    pub fn count(&self, state: PieceState) -> u32 {
        let runs = self.runs.iter().filter(|run| run.state == state);
        runs.map(|run| run.len).sum()
    }

    /// How many whole copies of the content the linked peers have together: the number of
    /// copies of the rarest chunk. 0 of a content without chunks. O(runs).
    pub fn availability(&self) -> u32 {
        let copies = self.runs.iter().map(|run| run.copies);
        copies.min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_alike_are_one_run() {
        use PieceState::{Missing, Stored};
        let pieces = [(Stored, 1), (Stored, 1), (Stored, 2), (Missing, 2)];
        let map = PieceMap::collect(pieces.into_iter());
        assert_eq!(map.chunks(), 4);
        assert_eq!(map.runs().len(), 3);
        for (chunk, (state, copies)) in (0..).zip(pieces) {
            let run = map.get(ChunkIndex(chunk)).unwrap();
            assert_eq!((run.state, run.copies), (state, copies));
        }
        assert_eq!(map.get(ChunkIndex(4)), None);
        assert_eq!((map.count(Stored), map.count(Missing)), (3, 1));
        assert_eq!(map.availability(), 1);
        assert_eq!(PieceMap::default().get(ChunkIndex(0)), None);
    }
}
