//! The chunks that readers want next, and by when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::read_window::ReadWindow;
use crate::content::{Bitfield, ChunkIndex, Geometry};

/// How many windows are looked at; further readers get their chunks in the usual order.
/// A program that plays a content has one or two.
pub(super) const MAX_WINDOWS: usize = 32;

/// How many chunks are urgent at a time: the default readahead in the shortest chunks,
/// for two readers. It bounds the work for each request.
const MAX_URGENT: usize = 1024;

/// Nothing is due later than this.
const LATEST: Duration = Duration::from_secs(3600);

/// The chunks that lie in the windows of readers.
#[derive(Debug)]
pub(super) struct Urgent {
    /// The first that is due first; of those that are due together, the one that is
    /// nearest to its reader.
    order: Vec<(ChunkIndex, Instant)>,
    members: Bitfield,
}

impl Urgent {
    /// No chunk.
    pub(super) fn none(geometry: Geometry) -> Self {
        Self {
            order: Vec::new(),
            members: Bitfield::none(geometry.chunks()),
        }
    }

    /// The chunks of these windows.
    pub(super) fn new(now: Instant, windows: &[ReadWindow], geometry: Geometry) -> Self {
        let mut all: BTreeMap<ChunkIndex, (Instant, u64)> = BTreeMap::new();
        for window in windows.iter().take(MAX_WINDOWS) {
            for chunk in window.chunks(&geometry).take(MAX_URGENT).map(ChunkIndex) {
                let distance = geometry.offset_of(chunk).saturating_sub(window.position);
                let seconds = window.rate.map_or(0.0, |rate| distance as f64 / rate);
                let time = Duration::try_from_secs_f64(seconds).unwrap_or(LATEST);
                let due = now.checked_add(time.min(LATEST)).unwrap_or(now);
                let rank = all.entry(chunk).or_insert((due, distance));
                *rank = (*rank).min((due, distance));
            }
        }
        let mut order: Vec<_> = all.into_iter().collect();
        order.sort_by_key(|&(_, rank)| rank);
        order.truncate(MAX_URGENT);
        let mut urgent = Self::none(geometry);
        for (chunk, (due, _)) in order {
            urgent.members.insert(chunk);
            urgent.order.push((chunk, due));
        }
        urgent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn contains(&self, chunk: ChunkIndex) -> bool {
        self.members.contains(chunk)
    }

    /// The chunks as a set; `None` if there are none.
    pub(super) fn members(&self) -> Option<&Bitfield> {
        (!self.is_empty()).then_some(&self.members)
    }

    /// The chunks with the times at which they are due, the most urgent first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ChunkIndex, Instant)> {
        self.order.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_comes_first_by_the_rate_of_its_reader() {
        let geometry = Geometry::of(100 * (16 << 10)).unwrap();
        let now = Instant::now();
        let len = geometry.chunk_len();
        let slow = ReadWindow::new(len / 2, 3 * len, Some(len as f64));
        let fast = ReadWindow::new(50 * len, 2 * len, Some(10.0 * len as f64));
        let urgent = Urgent::new(now, &[slow, fast], geometry);
        let chunks: Vec<u32> = urgent.iter().map(|(chunk, _)| chunk.0).collect();
        assert_eq!(chunks, [0, 50, 51, 1, 2, 3]);
        let due: Vec<u128> = urgent
            .iter()
            .map(|(_, due)| (due - now).as_millis())
            .collect();
        assert_eq!(due, [0, 0, 100, 500, 1500, 2500]);
    }

    #[test]
    fn readers_that_take_whatever_comes_are_served_side_by_side() {
        let geometry = Geometry::of(100 * (16 << 10)).unwrap();
        let window = |chunk| ReadWindow::new(chunk * geometry.chunk_len(), 40_000, None);
        let urgent = Urgent::new(Instant::now(), &[window(90), window(3)], geometry);
        let chunks: Vec<u32> = urgent.iter().map(|(chunk, _)| chunk.0).collect();
        assert_eq!(chunks, [3, 90, 4, 91, 5, 92]);
    }
}
