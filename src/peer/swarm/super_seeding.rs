//! Super seeding (BEP 16): a seeder suggests every chunk once before any chunk twice.
//!
//! A chunk counts as sent from the moment when it is suggested. If it is not sent after
//! all, because the link's turn ended or the link is gone, it is suggested to the next
//! link.

use std::collections::{BTreeMap, BTreeSet};

use super::LinkId;
use crate::content::ChunkIndex;

/// How many suggestions a link has that it did not ask for yet: one to ask for now, and
/// one to ask for while the first is sent.
const SUGGESTED: usize = 2;

/// How many suggested chunks may wait to be sent to a link, whatever it asks for and
/// cancels.
const MAX_PROMISED: usize = 16;

/// How many chunks are looked at for one suggestion at most.
const SCAN: u32 = 4096;

/// How often each chunk was sent or suggested. A cursor goes round over them.
#[derive(Debug, Default)]
pub(super) struct SuperSeeding {
    /// Empty before the first suggestion.
    times: Vec<u16>,
    cursor: u32,
    /// The chunks that were suggested to each link and not sent yet.
    promised: BTreeMap<LinkId, Vec<Promise>>,
    /// Chunks that were suggested and sent to nobody after all.
    returned: BTreeSet<ChunkIndex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Promise {
    chunk: ChunkIndex,
    asked: bool,
}

impl SuperSeeding {
    /// A link asks for a chunk.
    pub(super) fn asked(&mut self, link: LinkId, chunk: ChunkIndex) {
        let promised = self.promised.get_mut(&link).into_iter().flatten();
        for promise in promised.filter(|promise| promise.chunk == chunk) {
            promise.asked = true;
        }
    }

    /// A chunk is sent to a link. It may have been suggested or not.
    pub(super) fn sent(&mut self, link: LinkId, chunk: ChunkIndex) {
        let promised = self.promised.get_mut(&link).and_then(|promised| {
            let at = promised.iter().position(|p| p.chunk == chunk)?;
            Some(promised.swap_remove(at))
        });
        if promised.is_none()
            && let Some(times) = self.times.get_mut(chunk.as_usize())
        {
            *times = times.saturating_add(1);
        }
    }

    /// A link's turn ended, or the link is gone: its suggestions are void.
    pub(super) fn returned(&mut self, link: LinkId) {
        for Promise { chunk, .. } in self.promised.remove(&link).unwrap_or_default() {
            let times = &mut self.times[chunk.as_usize()];
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.returned.insert(chunk);
            }
        }
    }

    /// The chunks to suggest to a link: those that it lacks and that were sent least often,
    /// until it has enough to ask for. Each one takes a few steps of the cursor.
    pub(super) fn suggest(
        &mut self,
        link: LinkId,
        chunks: u32,
        lacks: impl Fn(ChunkIndex) -> bool,
    ) -> Vec<ChunkIndex> {
        self.times.resize(chunks as usize, 0);
        let promised = self.promised.entry(link).or_default();
        let open = promised.iter().filter(|promise| !promise.asked).count();
        let wanted = SUGGESTED.saturating_sub(open);
        let wanted = wanted.min(MAX_PROMISED.saturating_sub(promised.len()));
        let mut best: Vec<ChunkIndex> = Vec::with_capacity(wanted);
        while best.len() < wanted
            && let Some(chunk) = self.returned.pop_first()
        {
            if lacks(chunk) && self.times[chunk.as_usize()] == 0 {
                best.push(chunk);
            }
        }
        let mut second_choice: Option<ChunkIndex> = None;
        let least = self.times[self.cursor as usize % chunks as usize];
        for _ in 0..chunks.min(SCAN) {
            if best.len() == wanted {
                break;
            }
            let chunk = ChunkIndex(self.cursor % chunks);
            self.cursor = (self.cursor + 1) % chunks;
            if !lacks(chunk) || promised.iter().any(|p| p.chunk == chunk) {
                continue;
            }
            if self.times[chunk.as_usize()] <= least {
                best.push(chunk);
            } else {
                second_choice.get_or_insert(chunk);
            }
        }
        best.extend(second_choice.filter(|_| best.is_empty()));
        for &chunk in &best {
            let times = &mut self.times[chunk.as_usize()];
            *times = times.saturating_add(1);
            promised.push(Promise {
                chunk,
                asked: false,
            });
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_that_came_to_nothing_goes_to_the_next_link() {
        let mut seeding = SuperSeeding::default();
        let [one, two] = [LinkId(1), LinkId(2)];
        let first = seeding.suggest(one, 5, |_| true);
        assert_eq!(first, [ChunkIndex(0), ChunkIndex(1)]);
        // The first is asked for and sent, and another is promised for it.
        seeding.asked(one, ChunkIndex(0));
        seeding.sent(one, ChunkIndex(0));
        assert_eq!(seeding.suggest(one, 5, |_| true), [ChunkIndex(2)]);
        seeding.returned(one);
        let next = seeding.suggest(two, 5, |_| true);
        assert_eq!(next, [ChunkIndex(1), ChunkIndex(2)]);
        for chunk in next {
            seeding.asked(two, chunk);
            seeding.sent(two, chunk);
        }
        let rest = seeding.suggest(two, 5, |_| true);
        assert_eq!(rest, [ChunkIndex(3), ChunkIndex(4)]);
        assert_eq!(seeding.times, [1; 5], "every chunk once before any twice");
    }

    #[test]
    fn asking_for_all_that_is_suggested_and_taking_it_back_is_bounded() {
        let mut seeding = SuperSeeding::default();
        for _ in 0..100 {
            for chunk in seeding.suggest(LinkId(1), 1000, |_| true) {
                seeding.asked(LinkId(1), chunk);
            }
        }
        assert_eq!(seeding.promised[&LinkId(1)].len(), MAX_PROMISED);
        for _ in 0..100 {
            seeding.returned(LinkId(1));
            seeding.suggest(LinkId(1), 1000, |_| true);
        }
        assert!(seeding.returned.len() <= MAX_PROMISED);
    }
}
