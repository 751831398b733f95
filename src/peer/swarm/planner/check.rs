//! What holds between any two events.

use std::collections::{BTreeMap, BTreeSet};

use super::super::LinkId;
use super::super::source::{Has, Source};
use super::{Block, Planner, State};
use crate::content::BlockRange;

impl Planner {
    /// Panics where the plan contradicts itself. For tests.
    pub fn check_invariants(&self) {
        self.picker.check_invariants();
        let count = |state| self.states.iter().filter(|s| **s == state).count();
        assert_eq!(count(State::Missing), self.picker.len() as usize);
        assert_eq!(count(State::Open), self.open.len());
        assert_eq!(count(State::Complete), self.complete);
        assert_eq!(count(State::Held), self.held as usize);
        assert_eq!(count(State::Stored), self.stored as usize);
        let mut asked: BTreeMap<LinkId, BTreeSet<BlockRange>> = BTreeMap::new();
        for (&chunk, open) in &self.open {
            assert_eq!(self.states[chunk.as_usize()], State::Open);
            let free = open.blocks.iter().filter(|b| **b == Block::Free).count();
            assert_eq!(free, open.free as usize);
            assert!(free < open.blocks.len(), "open, and nothing came of it");
            assert!(open.lead.is_none_or(|lead| self.sources.contains(lead)));
            if open.exclusive && free > 0 {
                let leader = open.lead.and_then(|lead| self.sources.get(lead));
                let leads = |leader: &Source| leader.lead == Some(chunk);
                assert!(leader.is_some_and(leads), "nobody may ask for the rest");
            }
            for (position, block) in open.blocks.iter().enumerate() {
                if let Block::Asked(link) = block {
                    assert!(self.sources.contains(*link), "asked of a dead link");
                    assert!(!open.exclusive || open.lead == Some(*link));
                    let block = self.grid.block(chunk, position as u32);
                    asked.entry(*link).or_default().insert(block);
                }
            }
        }
        let takers = self.sources.values().filter(|source| source.takes_turns());
        assert_eq!(takers.count(), self.turn_takers);
        let live: u64 = self.sources.values().map(|source| source.live_bytes).sum();
        let unproven = self.sources.values().filter(|source| !source.is_proven());
        let doubtful: Vec<u64> = unproven.map(|source| source.live_bytes).collect();
        assert_eq!(doubtful.len(), self.unproven);
        let snubbed = self.sources.values().filter(|source| source.snubs > 0);
        assert_eq!(snubbed.count(), self.snubbed);
        assert_eq!(doubtful.iter().sum::<u64>(), self.doubtful);
        assert_eq!(live, self.live);
        let free: u32 = self.open.values().map(|open| open.free).sum();
        assert_eq!(free, self.free);
        let partial = |source: &&Source| matches!(source.has, Has::Some(_));
        assert_eq!(self.sources.values().filter(partial).count(), self.partial);
        for (link, source) in self.sources.iter() {
            let live: BTreeSet<BlockRange> = source.live_asks().map(|ask| ask.block).collect();
            assert_eq!(live, asked.remove(&link).unwrap_or_default());
            let bytes: u64 = live.iter().map(|block| u64::from(block.len)).sum();
            assert_eq!(bytes, source.live_bytes);
            assert_eq!(live.len(), source.live_asks().count(), "asked twice");
            assert!(source.asks.len() <= self.config.max_requests);
            if let Has::Some(has) = &source.has {
                let candidates = self.picker.waiting().iter_common(has, 0).count();
                assert_eq!(candidates, source.candidates as usize);
                let wanted = has
                    .iter()
                    .filter(|c| self.states[c.as_usize()] != State::Stored);
                assert_eq!(wanted.count(), source.wanted as usize);
            }
            if let Some(lead) = source.lead {
                let open = self.open.get(&lead).expect("a led chunk is open");
                assert_eq!(open.lead, Some(link));
            }
        }
        assert!(asked.is_empty());
        let waits = |source: &Source, chunk| source.has.contains(chunk);
        for (&chunk, open) in &self.open {
            let on_its_way = open.blocks.iter().any(|b| matches!(b, Block::Asked(_)));
            let somebody = self.sources.values().any(|s| waits(s, chunk));
            assert!(on_its_way || somebody, "an open chunk that nobody has");
        }
    }
}
