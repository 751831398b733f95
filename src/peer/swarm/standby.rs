//! The links on which this side waits for a place at the other side.
//!
//! Such a link is no source and takes none of the places here. As long as it comes on,
//! a download that gets nothing does not give up.

use std::time::{Duration, Instant};

use super::link::Link;
use super::{LinkId, LinkMap, SwarmConfig};
use crate::content::BlockRange;

/// A line in which this side has not come on for this many times
/// [`SwarmConfig::patience`] is no reason to go on.
const STUCK: u32 = 30;

/// A side that lets others wait tells them their position every 30 s at least, so after
/// this long it has forgotten this one.
const SILENT: Duration = Duration::from_secs(65);

/// A link on which this side waits.
#[derive(Debug)]
struct Standby {
    link: Link,
    position: u32,
    /// When the position was last told.
    heard: Instant,
    /// When it was last better than ever before.
    advanced: Instant,
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

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.0.contains(id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.0.get_mut(id).map(|standby| &mut standby.link)
    }

    /// A new link is told to wait. It was asked for these before, at these times.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        id: LinkId,
        link: Link,
        position: u32,
        asks: Vec<(BlockRange, Instant)>,
    ) {
        let standby = Standby {
            link,
            position,
            heard: now,
            advanced: now,
            best: position,
            asks,
        };
        self.0.insert(id, standby);
    }

    /// A link is told its position again.
    pub(super) fn moved(&mut self, now: Instant, id: LinkId, position: u32) {
        if let Some(standby) = self.0.get_mut(id) {
            (standby.position, standby.heard) = (position, now);
            if position < standby.best {
                (standby.best, standby.advanced) = (position, now);
            }
        }
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

    /// Until when the wait is worth it, if no link is told anything more: the other side
    /// still tells the position, and it gets better.
    pub(super) fn worth_until(&self, config: &SwarmConfig) -> Option<Instant> {
        let until = |standby: &Standby| {
            let alive = standby.heard.checked_add(SILENT)?;
            let stuck = standby.advanced.checked_add(stuck_after(config))?;
            Some(alive.min(stuck))
        };
        self.0.values().filter_map(until).max()
    }
}

/// How long a wait that does not come on is worth it.
pub(super) fn stuck_after(config: &SwarmConfig) -> Duration {
    config.patience.saturating_mul(STUCK)
}
