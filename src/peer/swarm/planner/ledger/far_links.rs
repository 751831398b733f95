//! Links with other zones, and what they are not asked for.

use std::time::Instant;

use super::super::super::LinkId;
use super::super::super::chunk_set::ChunkSet;
use super::super::chunk_states::ChunkState;
use super::super::far::{FarRule, Nearness};
use super::super::source::Source;
use super::Ledger;
use crate::content::ChunkIndex;

impl Ledger {
    /// A link is in another zone. O(links * chunks) for the first one.
    pub(in super::super) fn link_is_far(&mut self, now: Instant, link: LinkId) {
        let is_news = self
            .sources
            .get(link)
            .is_some_and(|source| !source.is_far());
        if !is_news {
            return;
        }
        self.sources.update(link, Source::set_far);
        if let Some(far) = &mut self.far {
            far.near_had(self.sources.has(link));
            return;
        }
        let geometry = self.layout.geometry();
        let mut far = FarRule::new(now, geometry.chunks(), geometry.chunk_len());
        let near = self.sources.values().filter(|source| !source.is_far());
        near.for_each(|source| far.near_has(source.has()));
        self.far = Some(Box::new(far));
    }

    /// What keeps far links from being asked for everything, if some link was far.
    pub(in super::super) fn far(&self) -> Option<&FarRule> {
        self.far.as_deref()
    }

    /// The same, to be changed.
    pub(in super::super) fn far_mut(&mut self) -> Option<&mut FarRule> {
        self.far.as_deref_mut()
    }

    /// A chunk comes to another peer of the zone. Returns whether that is news, and this peer
    /// would have asked for it as well.
    pub(in super::super) fn comes(&mut self, now: Instant, chunk: ChunkIndex) -> bool {
        let geometry = self.layout.geometry();
        if !geometry.contains(chunk) || self.states.get(chunk) != ChunkState::Missing {
            return false;
        }
        let far = self.far.get_or_insert_with(|| {
            let far = FarRule::new(now, geometry.chunks(), geometry.chunk_len());
            let mut far = Box::new(far);
            let near = self.sources.values();
            near.for_each(|source| far.near_has(source.has()));
            far
        });
        far.comes(now, chunk)
    }

    /// Whether a chunk is among those that a link may be asked for: all, or what a far link
    /// may be asked for.
    pub(in super::super) fn is_within(&self, limit: Option<Nearness>, chunk: ChunkIndex) -> bool {
        match (limit, &self.far) {
            (Some(nearness), Some(far)) => far.allows(chunk, nearness),
            _ => true,
        }
    }

    /// A rare missing chunk that a far link has and may be asked for.
    pub(in super::super) fn rare_far(
        &mut self,
        link: LinkId,
        nearness: Nearness,
    ) -> Option<ChunkIndex> {
        let withheld = self.far.as_ref()?.withheld(nearness)?;
        match self.sources.has(link) {
            ChunkSet::Nothing => None,
            ChunkSet::Some(has) => self.picker.rare_but(Some(has), withheld),
            ChunkSet::All => self.picker.rare_but(None, withheld),
        }
    }

    /// The first missing chunk that a far link has and may be asked for.
    pub(in super::super) fn first_far(
        &self,
        link: LinkId,
        nearness: Nearness,
    ) -> Option<ChunkIndex> {
        let withheld = self.far.as_ref()?.withheld(nearness)?;
        let waiting = self.picker.waiting();
        let has = match self.sources.has(link) {
            ChunkSet::Nothing => return None,
            ChunkSet::Some(has) => has,
            ChunkSet::All => waiting,
        };
        let mut chunks = waiting.iter_common_but(has, withheld, 0);
        chunks.find(|&chunk| self.picker.is_unreserved(chunk))
    }

    /// A link that is not far has other chunks than before.
    pub(super) fn near_changed(&mut self, link: LinkId, had: &ChunkSet, has: &ChunkSet) {
        if let Some(far) = self.far_of_near(link) {
            far.near_had(had);
            far.near_has(has);
        }
    }

    /// The same with one chunk more.
    pub(super) fn near_gained(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let Some(far) = self.far_of_near(link) {
            far.near_gained(chunk);
        }
    }

    /// The same with one chunk less.
    pub(super) fn near_lost(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let Some(far) = self.far_of_near(link) {
            far.near_lost(chunk);
        }
    }

    /// A link has sent a block.
    pub(in super::super) fn near_sent(&mut self, now: Instant, link: LinkId, bytes: u64) {
        if let Some(far) = self.far_of_near(link) {
            far.near_sent(now, bytes);
        }
    }

    fn far_of_near(&mut self, link: LinkId) -> Option<&mut FarRule> {
        let is_near = self
            .sources
            .get(link)
            .is_some_and(|source| !source.is_far());
        self.far.as_deref_mut().filter(|_| is_near)
    }

    /// Panics if the rule knows something else of the near links than they have. For tests.
    pub(super) fn check_far(&self) {
        if let Some(far) = &self.far {
            let near = self.sources.values().filter(|source| !source.is_far());
            far.check_invariants(near.map(Source::has));
        }
    }
}
