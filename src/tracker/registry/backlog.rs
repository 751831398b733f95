//! The jobs that are left to do for peers that own more contents than a request
//! handles at once: listing them with the peer's new address or speed, or taking
//! the peer off their lists. `handle_timeout` does them in bounded steps, so that
//! no request costs more than another. They are paced, too: however often a peer
//! changes, its contents are gone through at most once in a lease.
//!
//! The backlog knows peers as numbers of slots, and does no job itself.

use std::collections::{BTreeMap, BTreeSet};

use super::timer_wheel::Tick;

/// A job for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Bring the entries of the peer up to date, from this content on.
    Refresh { from: u32 },
    /// Remove all entries of the peer, which has said EXIT.
    Leave,
}

/// What the backlog has for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A round of refreshing is under way, and goes on with this content.
    Refreshing { from: u32, changed: bool },
    /// The round is over. The entry stays so that the next round waits.
    Resting { changed: bool },
    /// All entries of the peer must be removed.
    Leaving,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    due: Tick,
    /// When the current round began.
    begun: Tick,
}

impl Entry {
    fn new(phase: Phase, now: Tick) -> Self {
        Self {
            phase,
            due: now,
            begun: now,
        }
    }

    fn first_round(now: Tick) -> Self {
        let (from, changed) = (0, false);
        Self::new(Phase::Refreshing { from, changed }, now)
    }
}

/// The jobs of one shard, by the slots of the peers.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    entries: BTreeMap<u32, Entry>,
    by_due: BTreeSet<(Tick, u32)>,
}

impl Backlog {
    /// A peer has changed. A round begins at once or, if one has begun within the
    /// last lease, as soon as that lease is over.
    pub(super) fn refresh(&mut self, slot: u32, now: Tick) {
        match self.entries.get_mut(&slot).map(|entry| &mut entry.phase) {
            Some(Phase::Refreshing { changed, .. } | Phase::Resting { changed }) => {
                *changed = true;
            }
            Some(Phase::Leaving) => {}
            None => self.insert(slot, Entry::first_round(now)),
        }
    }

    /// All entries of a peer must be removed. This replaces any other job.
    pub(super) fn leave(&mut self, slot: u32, now: Tick) {
        self.end(slot);
        self.insert(slot, Entry::new(Phase::Leaving, now));
    }

    fn insert(&mut self, slot: u32, entry: Entry) {
        self.by_due.insert((entry.due, slot));
        self.entries.insert(slot, entry);
    }

    /// Forgets the job of a peer, if there is one.
    pub(super) fn end(&mut self, slot: u32) {
        if let Some(entry) = self.entries.remove(&slot) {
            self.by_due.remove(&(entry.due, slot));
        }
    }

    /// A job that is due. [`continue_at`](Self::continue_at),
    /// [`round_over`](Self::round_over) or [`end`](Self::end) must follow.
    pub(super) fn due(&mut self, now: Tick) -> Option<(u32, Job)> {
        loop {
            let &(_, slot) = self.by_due.first().filter(|(due, _)| *due <= now)?;
            match self.entries.get(&slot)?.phase {
                Phase::Refreshing { from, .. } => return Some((slot, Job::Refresh { from })),
                Phase::Leaving => return Some((slot, Job::Leave)),
                Phase::Resting { changed } => {
                    self.end(slot);
                    if changed {
                        self.insert(slot, Entry::first_round(now));
                    }
                }
            }
        }
    }

    /// A part of a round is done. The next part begins with this content.
    pub(super) fn continue_at(&mut self, slot: u32, content: u32) {
        if let Some(entry) = self.entries.get_mut(&slot)
            && let Phase::Refreshing { from, .. } = &mut entry.phase
        {
            *from = content;
        }
    }

    /// A round is over. The next one begins `pace` after this one began.
    pub(super) fn round_over(&mut self, slot: u32, pace: Tick) {
        if let Some(entry) = self.entries.get_mut(&slot)
            && let Phase::Refreshing { changed, .. } = entry.phase
        {
            self.by_due.remove(&(entry.due, slot));
            entry.phase = Phase::Resting { changed };
            entry.due = entry.begun.saturating_add(pace);
            self.by_due.insert((entry.due, slot));
        }
    }

    /// Whether a peer has said EXIT and still has entries.
    pub(super) fn is_leaving(&self, slot: u32) -> bool {
        let entry = self.entries.get(&slot);
        entry.is_some_and(|entry| entry.phase == Phase::Leaving)
    }

    /// Whether all entries of a peer are up to date.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn is_settled(&self, slot: u32) -> bool {
        let entry = self.entries.get(&slot);
        entry.is_none_or(|entry| entry.phase == Phase::Resting { changed: false })
    }

    /// When the next job is due.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// How many peers have an entry.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.by_due.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_that_changes_all_the_time_is_refreshed_once_in_a_lease() {
        let mut backlog = Backlog::default();
        let mut rounds = 0;
        for tick in 0..1000 {
            backlog.refresh(7, tick);
            while let Some((slot, job)) = backlog.due(tick) {
                assert_eq!(slot, 7);
                match job {
                    Job::Refresh { from: 0 } => backlog.continue_at(slot, 5),
                    Job::Refresh { from: 5 } => {
                        rounds += 1;
                        backlog.round_over(slot, 100);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(rounds, 10);
        assert!(!backlog.is_settled(7));
        // The last change is brought to the lists as well, and then the entry is
        // forgotten.
        assert_eq!(backlog.due(1000), Some((7, Job::Refresh { from: 0 })));
        backlog.round_over(7, 100);
        assert!(backlog.is_settled(7));
        assert_eq!(backlog.due(1100), None);
        assert_eq!((backlog.next_due(), backlog.len()), (None, 0));
    }

    #[test]
    fn exit_replaces_any_other_job() {
        let mut backlog = Backlog::default();
        backlog.refresh(1, 3);
        backlog.leave(1, 4);
        assert_eq!(backlog.due(4), Some((1, Job::Leave)));
        assert!(backlog.is_leaving(1) && !backlog.is_settled(1));
        backlog.end(1);
        assert_eq!((backlog.due(9), backlog.len()), (None, 0));
    }
}
