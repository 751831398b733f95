//! The links on which this side waits for a place at the other side.
//!
//! Such a link is no source and takes none of the places here. A download that has one is
//! more patient.

use std::time::Instant;

use super::link::Link;
use super::{LinkId, LinkMap};
use crate::content::BlockRange;

/// A link on which this side waits.
#[derive(Debug)]
struct Standby {
    link: Link,
    position: u32,
    /// The best position that was told.
    best: u32,
    /// What the other side was asked for, and when, before it told this one to wait, and
    /// has not answered.
    asks: Vec<(BlockRange, Instant)>,
}

/// The links on which this side waits.
#[derive(Debug, Default)]
pub(super) struct StandbyLinks(LinkMap<Standby>);

impl StandbyLinks {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = LinkId> {
        self.0.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Link> {
        self.0.values().map(|standby| &standby.link)
    }

    /// The links, each with the position that it was told last.
    pub(super) fn positions(&self) -> impl Iterator<Item = (&Link, u32)> {
        self.0
            .values()
            .map(|standby| (&standby.link, standby.position))
    }

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.0.contains(id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.0.get_mut(id).map(|standby| &mut standby.link)
    }

    /// A new link is told to wait. It was asked for these before, at these times.
    pub(super) fn insert(
        &mut self,
        id: LinkId,
        link: Link,
        position: u32,
        asks: Vec<(BlockRange, Instant)>,
    ) {
        let standby = Standby {
            link,
            position,
            best: position,
            asks,
        };
        self.0.insert(id, standby);
    }

    /// A link is told its position again. Returns whether it is better than ever before.
    pub(super) fn moved(&mut self, id: LinkId, position: u32) -> bool {
        let Some(standby) = self.0.get_mut(id) else {
            return false;
        };
        standby.position = position;
        let is_nearer = position < standby.best;
        standby.best = standby.best.min(position);
        is_nearer
    }

    /// A link rejects what it was asked for before. Returns whether it was.
    pub(super) fn rejected(&mut self, id: LinkId, block: BlockRange) -> bool {
        let Some(standby) = self.0.get_mut(id) else {
            return false;
        };
        let at = standby.asks.iter().position(|(asked, _)| *asked == block);
        at.map(|at| standby.asks.remove(at)).is_some()
    }

    /// What a link was asked for and has not answered, and when.
    pub(super) fn unanswered(&self, id: LinkId) -> Vec<(BlockRange, Instant)> {
        let standby = self.0.get(id);
        standby.map_or_else(Vec::new, |standby| standby.asks.clone())
    }

    /// The wait is over, or the link is gone.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<Link> {
        self.0.remove(id).map(|standby| standby.link)
    }

    /// The link with the worst position; of several, the newest.
    pub(super) fn worst(&self) -> Option<LinkId> {
        let worst = self.0.iter().max_by_key(|(id, s)| (s.position, *id));
        worst.map(|(id, _)| id)
    }

    /// The best position.
    pub(super) fn position(&self) -> Option<u32> {
        self.0.values().map(|standby| standby.position).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::swarm::link_info::LinkInfo;

    fn standby(positions: &[u32]) -> StandbyLinks {
        let (mut links, now) = (StandbyLinks::default(), Instant::now());
        for (id, position) in (0..).map(LinkId).zip(positions) {
            let info = LinkInfo::unmet("10.0.0.1:7".parse().expect("an address"));
            links.insert(id, Link::new(now, id, info, 0), *position, Vec::new());
        }
        links
    }

    #[test]
    fn only_a_place_nearer_than_ever_is_a_move() {
        let mut links = standby(&[5]);
        let moves = [4, 6, 5, 4, 3].map(|position| links.moved(LinkId(0), position));
        assert_eq!(moves, [true, false, false, false, true]);
        assert!(!links.moved(LinkId(1), 1));
    }

    #[test]
    fn worst_place_is_the_last_one_and_the_position_the_first() {
        let links = standby(&[2, 7, 5]);
        assert_eq!(links.worst(), Some(LinkId(1)));
        assert_eq!(links.position(), Some(2));
    }
}
