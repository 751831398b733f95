//! What a seeder suggests: every chunk once before any twice.
//!
//! A chunk is counted for a link when it is suggested to it, or asked for by
//! it, and stays counted once it is sent. What was counted and is not sent,
//! because the link's turn ended or it is gone, is suggested to the next.

use std::collections::BTreeMap;

use super::LinkId;
use crate::content::ChunkIndex;

/// How many chunks a link that is served is ahead of what it is sent: the one
/// that it asks for first, and the next, for which it asks while the first is
/// sent.
const SUGGESTED: usize = 2;

/// How many chunks are looked at for a suggestion, at the most.
const SCAN: u32 = 4096;

/// How often each chunk was sent or promised, by a cursor that goes round.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Empty before the first suggestion.
    times: Vec<u16>,
    cursor: u32,
    /// What is counted for each link and was not sent yet.
    promised: BTreeMap<LinkId, Vec<Promise>>,
    /// Promises that came to nothing.
    returned: Vec<ChunkIndex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Promise {
    chunk: ChunkIndex,
    asked: bool,
}

impl Spread {
    /// A link asks for a chunk, which is here.
    pub(super) fn asked(&mut self, link: LinkId, chunk: ChunkIndex) {
        let Some(times) = self.times.get_mut(chunk.as_usize()) else {
            return;
        };
        let promised = self.promised.entry(link).or_default();
        match promised.iter_mut().find(|promise| promise.chunk == chunk) {
            Some(promise) => promise.asked = true,
            None => {
                *times = times.saturating_add(1);
                promised.push(Promise { chunk, asked: true });
            }
        }
    }

    /// A link is sent a chunk.
    pub(super) fn sent(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let Some(promised) = self.promised.get_mut(&link) {
            promised.retain(|promise| promise.chunk != chunk);
        }
    }

    /// A link's turn ended, or it is gone: nothing is promised to it any more.
    pub(super) fn returned(&mut self, link: LinkId) {
        for Promise { chunk, .. } in self.promised.remove(&link).unwrap_or_default() {
            let times = &mut self.times[chunk.as_usize()];
            *times = times.saturating_sub(1);
            self.returned.push(chunk);
        }
    }

    /// The chunks to suggest to a link that lacks some, until it has enough to
    /// ask for: those that were sent least often, in turn. A few steps each, as
    /// the cursor moves on.
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
        let mut best: Vec<ChunkIndex> = Vec::with_capacity(wanted);
        while best.len() < wanted
            && let Some(chunk) = self.returned.pop()
        {
            if lacks(chunk) && !promised.iter().any(|p| p.chunk == chunk) {
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
        let mut spread = Spread::default();
        let [one, two] = [LinkId(1), LinkId(2)];
        let first = spread.suggest(one, 5, |_| true);
        assert_eq!(first, [ChunkIndex(0), ChunkIndex(1)]);
        // The first is asked for and sent, and another is promised for it.
        spread.asked(one, ChunkIndex(0));
        spread.sent(one, ChunkIndex(0));
        assert_eq!(spread.suggest(one, 5, |_| true), [ChunkIndex(2)]);
        spread.returned(one);
        let mut next = spread.suggest(two, 5, |_| true);
        next.sort();
        assert_eq!(next, [ChunkIndex(1), ChunkIndex(2)]);
        for chunk in next {
            spread.asked(two, chunk);
            spread.sent(two, chunk);
        }
        let rest = spread.suggest(two, 5, |_| true);
        assert_eq!(rest, [ChunkIndex(3), ChunkIndex(4)]);
        assert_eq!(spread.times, [1; 5], "every chunk once before any twice");
    }
}
