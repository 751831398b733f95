//! What is left to do for peers that own more than is done at once: list all
//! that a peer owns at its new address or speed, or take it off the lists. It is
//! done in bounded steps by [`expire`](super::desk::Desk::expire), so that no
//! request costs more than another, and it is paced: all that a peer owns is gone
//! through once in a lease at the most, however often the peer changes.
//!
//! It knows peers as numbers of slots, and not what there is to do for one.

use std::collections::{BTreeMap, BTreeSet};

use super::wheel::Tick;

/// What there is to do for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    /// Bring its entries up to date, from this content on.
    Refresh(u32),
    /// Take them all away: it has said EXIT.
    Leave,
}

#[derive(Debug)]
struct Entry {
    chore: Chore,
    due: Tick,
    /// When the last round began.
    begun: Tick,
    /// Something has changed since then.
    again: bool,
    /// The round is over, and the entry is there so that the next one waits.
    over: bool,
}

/// The chores of one shard, by the slots of the peers.
#[derive(Debug, Default)]
pub(super) struct Chores {
    entries: BTreeMap<u32, Entry>,
    by_due: BTreeSet<(Tick, u32)>,
}

impl Chores {
    /// Something about a peer has changed: at once a round begins, or, if one
    /// has within the last lease, as soon as that is over.
    pub(super) fn refresh(&mut self, slot: u32, now: Tick) {
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.again = true;
            return;
        }
        let entry = Entry {
            chore: Chore::Refresh(0),
            due: now,
            begun: now,
            again: false,
            over: false,
        };
        self.by_due.insert((now, slot));
        self.entries.insert(slot, entry);
    }

    /// All of a peer's entries are to go, in place of whatever else.
    pub(super) fn leave(&mut self, slot: u32, now: Tick) {
        self.end(slot);
        let entry = Entry {
            chore: Chore::Leave,
            due: now,
            begun: now,
            again: false,
            over: false,
        };
        self.by_due.insert((now, slot));
        self.entries.insert(slot, entry);
    }

    /// Forgets whatever there was to do for a peer.
    pub(super) fn end(&mut self, slot: u32) {
        if let Some(entry) = self.entries.remove(&slot) {
            self.by_due.remove(&(entry.due, slot));
        }
    }

    /// A chore whose turn has come. [`go_on`](Self::go_on),
    /// [`round_over`](Self::round_over) or [`end`](Self::end) must follow.
    pub(super) fn due(&mut self, now: Tick) -> Option<(u32, Chore)> {
        loop {
            let &(due, slot) = self.by_due.first().filter(|(due, _)| *due <= now)?;
            let entry = self.entries.get_mut(&slot)?;
            if !entry.over {
                return Some((slot, entry.chore));
            }
            if !entry.again {
                self.end(slot);
                continue;
            }
            self.by_due.remove(&(due, slot));
            *entry = Entry {
                chore: Chore::Refresh(0),
                due: now,
                begun: now,
                again: false,
                over: false,
            };
            self.by_due.insert((now, slot));
        }
    }

    /// A part of a round is done: the next one begins with this content.
    pub(super) fn go_on(&mut self, slot: u32, content: u32) {
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.chore = Chore::Refresh(content);
        }
    }

    /// A round is over. The next one begins `pace` after this one has.
    pub(super) fn round_over(&mut self, slot: u32, pace: Tick) {
        if let Some(entry) = self.entries.get_mut(&slot) {
            self.by_due.remove(&(entry.due, slot));
            entry.over = true;
            entry.due = entry.begun.saturating_add(pace);
            self.by_due.insert((entry.due, slot));
        }
    }

    /// Whether a peer has said EXIT and is not gone yet.
    pub(super) fn is_leaving(&self, slot: u32) -> bool {
        let entry = self.entries.get(&slot);
        entry.is_some_and(|entry| entry.chore == Chore::Leave)
    }

    /// Whether a peer's entries are all as they should be.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn is_settled(&self, slot: u32) -> bool {
        let entry = self.entries.get(&slot);
        entry.is_none_or(|entry| entry.over && !entry.again)
    }

    /// When the next chore has its turn.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// For how many peers there is something to do, or was within a lease.
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
    fn peer_that_changes_all_the_time_is_gone_through_once_in_a_lease() {
        let mut chores = Chores::default();
        let mut rounds = 0;
        for tick in 0..1000 {
            chores.refresh(7, tick);
            while let Some((slot, chore)) = chores.due(tick) {
                assert_eq!(slot, 7);
                match chore {
                    Chore::Refresh(0) => chores.go_on(slot, 5),
                    Chore::Refresh(5) => {
                        rounds += 1;
                        chores.round_over(slot, 100);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(rounds, 10);
        assert!(!chores.is_settled(7));
        // What has changed last is seen to as well, and then all is forgotten.
        assert_eq!(chores.due(1000), Some((7, Chore::Refresh(0))));
        chores.round_over(7, 100);
        assert!(chores.is_settled(7));
        assert_eq!(chores.due(1100), None);
        assert_eq!((chores.next_due(), chores.len()), (None, 0));
    }

    #[test]
    fn exit_takes_the_place_of_whatever_was_to_do() {
        let mut chores = Chores::default();
        chores.refresh(1, 3);
        chores.leave(1, 4);
        assert_eq!(chores.due(4), Some((1, Chore::Leave)));
        assert!(chores.is_leaving(1) && !chores.is_settled(1));
        chores.end(1);
        assert_eq!((chores.due(9), chores.len()), (None, 0));
    }
}
