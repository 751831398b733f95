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
    pub(in super::super) fn link_is_far(&mut self, now: Instant, link: LinkId, zone: u32) {
        let is_news = self
            .sources
            .get(link)
            .is_some_and(|source| !source.is_far());
        if !is_news {
            return;
        }
        self.sources.update(link, |source| source.set_far(zone));
        if let Some(far) = &mut self.far {
            far.near_had(self.sources.has(link));
            far.rival_removed(link);
            return;
        }
        self.make_far(now);
    }

    /// Keeps in mind from now on what near links have.
    fn make_far(&mut self, now: Instant) -> &mut FarRule {
        let (geometry, name, sources) = (self.layout.geometry(), self.name, &self.sources);
        self.far.get_or_insert_with(|| {
            let mut far = FarRule::new(now, name, geometry.chunks(), geometry.chunk_len());
            let near = sources.values().filter(|source| !source.is_far());
            near.for_each(|source| far.near_has(source.has()));
            Box::new(far)
        })
    }

    /// What this peer is called among those that fetch for its zone.
    pub(in super::super) fn set_name(&mut self, name: u64) {
        self.name = name;
        if let Some(far) = &mut self.far {
            far.set_name(name);
        }
    }

    /// A near link is with a peer of this name that fetches for the zone.
    pub(in super::super) fn is_importer(&mut self, now: Instant, link: LinkId, name: u64) {
        let source = self.sources.get(link);
        if source.is_some_and(|source| !source.is_far() && !source.is_seeder()) {
            self.make_far(now).rival_added(link, name);
        }
    }

    /// What keeps far links from being asked for everything, if some link was far.
    pub(in super::super) fn far(&self) -> Option<&FarRule> {
        self.far.as_deref()
    }

    /// The same, to be changed.
    pub(in super::super) fn far_mut(&mut self) -> Option<&mut FarRule> {
        self.far.as_deref_mut()
    }

    /// A near link says that it fetches a chunk for the zone.
    pub(in super::super) fn claimed(&mut self, now: Instant, link: LinkId, chunk: ChunkIndex) {
        let is_lacking = self.layout.geometry().contains(chunk)
            && matches!(
                self.states.get(chunk),
                ChunkState::Missing | ChunkState::Open
            );
        if let Some(far) = self.far.as_mut().filter(|_| is_lacking) {
            far.claimed(now, link, chunk);
        }
    }

    /// Looks what other importers leave lying, of what these links have.
    pub(in super::super) fn look_far(&mut self, now: Instant, links: &[LinkId]) {
        let have: Vec<&ChunkSet> = links.iter().map(|link| self.sources.has(*link)).collect();
        if let Some(far) = &mut self.far {
            far.handle_timeout(now, self.picker.waiting(), &have);
        }
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
            if *has == ChunkSet::All {
                far.rival_removed(link);
            }
        }
    }

    /// A link that is not far and had a part has everything now.
    pub(super) fn near_completed(&mut self, link: LinkId) {
        if let Some(far) = self.far_of_near(link) {
            far.near_completed();
        }
    }

    /// A link is gone.
    pub(super) fn importer_gone(&mut self, link: LinkId) {
        if let Some(far) = &mut self.far {
            far.rival_removed(link);
        }
    }

    /// The same with one chunk more.
    pub(super) fn near_gained(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let Some(far) = self.far_of_near(link) {
            far.near_gained(link, chunk);
        }
    }

    /// The same with one chunk less.
    pub(super) fn near_lost(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let Some(far) = self.far_of_near(link) {
            far.near_lost(chunk);
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
