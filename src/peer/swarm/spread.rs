//! What a seeder suggests: every chunk once before any twice.

use crate::content::ChunkIndex;

/// How many chunks are suggested to a link that gets a slot: the one that it
/// asks for first, and the next, for which it asks while the first is sent.
const SUGGESTED: usize = 2;

/// How many chunks are looked at for a suggestion, at the most.
const SCAN: u32 = 4096;

/// How often each chunk was sent or suggested, by a cursor that goes round.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Empty before the first suggestion.
    times: Vec<u16>,
    cursor: u32,
}

impl Spread {
    /// A chunk is sent. One that was suggested was counted then; should it
    /// count twice, others only come sooner.
    pub(super) fn sent(&mut self, chunk: ChunkIndex) {
        if let Some(times) = self.times.get_mut(chunk.as_usize())
            && *times == 0
        {
            *times = 1;
        }
    }

    /// The chunks to suggest to a link that lacks some: those that were sent
    /// least often, in turn. A few steps each, as the cursor moves on.
    pub(super) fn suggest(
        &mut self,
        chunks: u32,
        lacks: impl Fn(ChunkIndex) -> bool,
    ) -> Vec<ChunkIndex> {
        self.times.resize(chunks as usize, 0);
        let mut best: Vec<ChunkIndex> = Vec::with_capacity(SUGGESTED);
        let mut second_choice: Option<ChunkIndex> = None;
        let least = self.times[self.cursor as usize % chunks as usize];
        for _ in 0..chunks.min(SCAN) {
            let chunk = ChunkIndex(self.cursor % chunks);
            self.cursor = (self.cursor + 1) % chunks;
            if !lacks(chunk) {
                continue;
            }
            if self.times[chunk.as_usize()] <= least {
                best.push(chunk);
            } else {
                second_choice.get_or_insert(chunk);
            }
            if best.len() == SUGGESTED {
                break;
            }
        }
        best.extend(second_choice.filter(|_| best.is_empty()));
        for chunk in &best {
            let times = &mut self.times[chunk.as_usize()];
            *times = times.saturating_add(1);
        }
        best
    }
}
