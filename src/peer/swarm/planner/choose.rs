//! Which block a link is asked for next.

use std::time::Instant;

use super::super::LinkId;
use super::super::source::{Has, Source};
use super::{Block, OVERTAKE, Planner, Strategy};
use crate::content::{BlockRange, ChunkIndex, split_evenly};

impl Planner {
    /// A free block for a link: of its own chunk, of one that nobody leads, of
    /// a new one, or of one that somebody else leads.
    pub(super) fn free_block(&mut self, link: LinkId) -> Option<BlockRange> {
        let lead = self.sources.get(link)?.lead;
        if let Some(block) = lead.and_then(|chunk| self.first_free(chunk)) {
            return Some(block);
        }
        if let Some(orphan) = self.joinable(link, false) {
            self.lead(link, orphan);
            return self.first_free(orphan);
        }
        if self.may_open()
            && let Some(chunk) = self.pick(link)
        {
            self.open_chunk(chunk);
            self.lead(link, chunk);
            return self.first_free(chunk);
        }
        let chunk = self.joinable(link, true)?;
        self.first_free(chunk)
    }

    /// An open chunk with a free block that a link could send, and that has a
    /// leader or none.
    pub(super) fn joinable(&self, link: LinkId, led: bool) -> Option<ChunkIndex> {
        let source = self.sources.get(link).filter(|_| self.free > 0)?;
        let mut chunks = self.open.iter();
        chunks.find_map(|(&chunk, open)| {
            let fits = open.free > 0
                && !open.exclusive
                && open.lead.is_some() == led
                && source.has.contains(chunk);
            fits.then_some(chunk)
        })
    }

    fn first_free(&self, chunk: ChunkIndex) -> Option<BlockRange> {
        let open = self.open.get(&chunk).filter(|open| open.free > 0)?;
        let position = open.blocks.iter().position(|b| *b == Block::Free)?;
        Some(self.grid.block(chunk, position as u32))
    }

    /// Takes over the block that would come last, if this link would have it
    /// sooner; and whether there is a block that it could take.
    pub(super) fn overtake(
        &self,
        now: Instant,
        link: LinkId,
    ) -> (Option<(BlockRange, Option<LinkId>)>, bool) {
        // As long as chunks wait that may be opened, somebody will come for
        // them, and nobody is held up.
        let waits = !self.picker.is_empty() && self.may_open();
        let Some(thief) = self.sources.get(link).filter(|_| !waits) else {
            return (None, false);
        };
        // Who has sent nothing yet promises nothing.
        if thief.rate(now).is_none() {
            return (None, false);
        }
        let rates = self.sources.values().filter_map(|source| source.rate(now));
        let (count, sum) = rates.fold((0, 0.0), |(n, sum), rate| (n + 1, sum + rate));
        let typical = sum / f64::from(count);
        let last = self
            .sources
            .iter()
            .filter(|(other, _)| *other != link)
            .filter_map(|(other, source)| {
                let last = source.live_asks().rev().find(|ask| {
                    let open = self.open.get(&ask.block.chunk);
                    // What was asked for only now may have been taken from
                    // this very link.
                    ask.at < now
                        && open.is_some_and(|open| !open.exclusive)
                        && thief.has.contains(ask.block.chunk)
                })?;
                Some((other, last.block, source.finish_in(now, 0, typical)))
            })
            .max_by(|a, b| a.2.total_cmp(&b.2));
        let Some((victim, block, theirs)) = last else {
            return (None, false);
        };
        let mine = thief.finish_in(now, block.len.into(), typical);
        let sooner = mine * OVERTAKE < theirs;
        (sooner.then_some((block, Some(victim))), true)
    }

    /// The chunk that a link should open next.
    fn pick(&mut self, link: LinkId) -> Option<ChunkIndex> {
        let chunks = self.grid.geometry().chunks();
        if self.config.strategy == Strategy::RarestFirst
            && let Some(chunk) = self.pick_suggested(link)
        {
            return Some(chunk);
        }
        let source = self.sources.get(link)?;
        let has = match &source.has {
            Has::Nothing => return None,
            Has::Some(has) => Some(has),
            Has::All => None,
        };
        match self.config.strategy {
            Strategy::Sequential => self.picker.first_in(0..chunks, has),
            Strategy::RarestFirst if self.is_among_seeders() => self.pick_at_home(link),
            Strategy::RarestFirst if has.is_some() && source.candidates == 0 => None,
            Strategy::RarestFirst => self.picker.rarest(has),
        }
    }

    /// Whether every source that has said what it has, has all.
    fn is_among_seeders(&self) -> bool {
        let leeches = |source: &Source| source.said && !matches!(source.has, Has::All);
        !self.sources.values().any(leeches)
    }

    /// A suggested chunk, unless a rarer one waits.
    fn pick_suggested(&mut self, link: LinkId) -> Option<ChunkIndex> {
        let source = self.sources.get_mut(link)?;
        while let Some(chunk) = source.suggested.pop_front() {
            if source.has.contains(chunk) && self.picker.is_waiting(chunk) {
                let rarest = self.picker.rarest(None)?;
                return (self.picker.copies(chunk) <= self.picker.copies(rarest)).then_some(chunk);
            }
        }
        None
    }

    /// Among seeders only: the next chunk of this link's part of the content;
    /// when that is done, a share of the part that would be done last.
    fn pick_at_home(&mut self, link: LinkId) -> Option<ChunkIndex> {
        if !self.homes_valid {
            self.split_homes();
        }
        loop {
            let home = self.sources.get(link)?.home.clone();
            if let Some(chunk) = self.picker.first_in(home.clone(), None) {
                self.sources.get_mut(link)?.home.start = chunk.0 + 1;
                return Some(chunk);
            }
            let others = self
                .sources
                .iter()
                .filter(|(other, source)| *other != link && !source.home.is_empty());
            let Some((richest, source)) = others.max_by_key(|(_, source)| source.home.len()) else {
                // What was given back behind the start of a home.
                return self.picker.first_in(0..self.grid.geometry().chunks(), None);
            };
            let theirs = source.home.clone();
            let middle = theirs.start + theirs.len() as u32 / 2;
            self.sources.get_mut(richest)?.home.end = middle;
            self.sources.get_mut(link)?.home = middle..theirs.end;
        }
    }

    /// The plain split: each seeder gets its own contiguous S/N of what waits.
    fn split_homes(&mut self) {
        self.homes_valid = true;
        let is_seeder = |source: &&mut Source| source.has == Has::All;
        let seeders = self.sources.values_mut().filter(is_seeder).count();
        let mut waiting = self.picker.waiting().iter();
        let mut start = 0;
        let shares = split_evenly(self.picker.len().into(), seeders as u32);
        for (source, share) in self.sources.values_mut().filter(is_seeder).zip(shares) {
            let len = (share.end - share.start) as usize;
            let last = len.checked_sub(1).and_then(|skip| waiting.nth(skip));
            let end = last.map_or(start, |chunk| chunk.0 + 1);
            source.home = start..end;
            start = end;
        }
    }
}
