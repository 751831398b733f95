//! Sets of bytes, as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of bytes: ranges of which none touches another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        let touched: Vec<(u64, u64)> = self
            .0
            .range(..=end)
            .rev()
            .take_while(|(_, to)| **to >= start)
            .map(|(from, to)| (*from, *to))
            .collect();
        for (from, to) in touched {
            self.0.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    /// Removes a range.
    pub(super) fn remove(&mut self, range: &Range<u64>) {
        for part in self.within(range) {
            let last = self.0.range(..=part.start).next_back();
            let Some((from, to)) = last.map(|(from, to)| (*from, *to)) else {
                continue;
            };
            self.0.remove(&from);
            self.insert(from..part.start);
            self.insert(part.end..to);
        }
    }

    /// Adds all of another set.
    pub(super) fn extend(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }

    /// All ranges, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(from, to)| *from..*to)
    }

    /// Whether all of a range is in it.
    pub(super) fn covers(&self, range: &Range<u64>) -> bool {
        let before = self.0.range(..=range.start).next_back();
        range.is_empty() || before.is_some_and(|(_, to)| *to >= range.end)
    }

    /// The parts of a range that are in it, in order.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut parts: Vec<Range<u64>> = self
            .0
            .range(..range.end)
            .rev()
            .take_while(|(_, to)| **to > range.start)
            .map(|(from, to)| (*from).max(range.start)..(*to).min(range.end))
            .collect();
        parts.reverse();
        parts
    }

    /// The parts of a range that are not in it, in order.
    pub(super) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = range.start;
        for part in self.within(range) {
            missing.push(at..part.start);
            at = part.end;
        }
        missing.push(at..range.end);
        missing.retain(|part| !part.is_empty());
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_a_set_of_bytes(
            added in prop::collection::vec((0..60u64, 0..12u64), 0..12),
            (from, len) in (0..60u64, 0..20u64),
        ) {
            let (mut ranges, mut naive) = (Ranges::default(), BTreeSet::new());
            for (from, len) in added {
                ranges.insert(from..from + len);
                naive.extend(from..from + len);
            }
            prop_assert!(ranges.iter().flatten().eq(naive.iter().copied()));
            let all: Vec<_> = ranges.iter().collect();
            prop_assert!(all.windows(2).all(|two| two[0].end < two[1].start));
            let asked = from..from + len;
            prop_assert_eq!(ranges.covers(&asked), asked.clone().all(|at| naive.contains(&at)));
            let within = ranges.within(&asked).into_iter().flatten();
            prop_assert!(within.eq(asked.clone().filter(|at| naive.contains(at))));
            let missing = ranges.missing(&asked).into_iter().flatten();
            prop_assert!(missing.eq(asked.clone().filter(|at| !naive.contains(at))));
            let mut rest = ranges.clone();
            rest.remove(&asked);
            let kept = naive.iter().copied().filter(|at| !asked.contains(at));
            prop_assert!(rest.iter().flatten().eq(kept));
            let mut both = Ranges::default();
            both.insert(asked.clone());
            both.extend(&ranges);
            naive.extend(asked);
            prop_assert!(both.iter().flatten().eq(naive));
        }
    }
}
