//! What the user has changed of a download since it was asked for.
//!
//! It is a state and not a row of messages: it holds the last value of each setting, so
//! whoever sets one waits for nobody, and a download that does not run yet keeps it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::peer::limits::ContentLimits;
use crate::peer::swarm::Strategy;
use crate::protocol::Addr;

/// How many owners that the user has named are kept: as many as the address book of a
/// content has room for. The oldest ones give way.
pub(in crate::peer) const MAX_ADDED_OWNERS: usize = 1024;

/// The settings of one download. `None` is as it was asked for.
#[derive(Debug, Clone, Default)]
pub(in crate::peer) struct Settings {
    /// Which chunk comes next.
    pub(in crate::peer) strategy: Option<Strategy>,
    /// How long it goes on without anything.
    pub(in crate::peer) patience: Option<Option<Duration>>,
    /// How fast the content may be sent and received.
    pub(in crate::peer) limits: Option<ContentLimits>,
    /// The owners that the user has named, the last ones at the end, each once.
    owners: VecDeque<Addr>,
    /// How often an owner was added.
    added: u64,
    /// Grows with each change.
    version: u64,
}

impl Settings {
    /// Adds owners. Adding one again has it tried again.
    pub(in crate::peer) fn add_owners(&mut self, owners: impl IntoIterator<Item = Addr>) {
        for owner in owners {
            self.owners.retain(|known| *known != owner);
            if self.owners.len() == MAX_ADDED_OWNERS {
                self.owners.pop_front();
            }
            self.owners.push_back(owner);
            self.added += 1;
        }
    }

    /// The owners that the user has named.
    pub(in crate::peer) fn owners(&self) -> impl Iterator<Item = &Addr> {
        self.owners.iter()
    }

    /// Those that were added after the first `seen` were, and how many were by now.
    pub(in crate::peer) fn owners_since(&self, seen: u64) -> (Vec<Addr>, u64) {
        let new = usize::try_from(self.added - seen).unwrap_or(usize::MAX);
        let known = self.owners.len().saturating_sub(new);
        (
            self.owners.iter().skip(known).cloned().collect(),
            self.added,
        )
    }

    /// Grows with each change.
    pub(in crate::peer) fn version(&self) -> u64 {
        self.version
    }

    /// It has changed.
    pub(in crate::peer) fn note_change(&mut self) {
        self.version += 1;
    }

    /// What is set in another one is set here as well.
    pub(in crate::peer) fn take_over(&mut self, other: &Self) {
        self.strategy = other.strategy.or(self.strategy);
        self.patience = other.patience.or(self.patience);
        self.limits = other.limits.or(self.limits);
        self.add_owners(other.owners.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: usize) -> Addr {
        format!("memory:{number}").parse().unwrap()
    }

    #[test]
    fn owners_are_kept_once_and_the_oldest_give_way() {
        let mut settings = Settings::default();
        settings.add_owners([addr(1), addr(2)]);
        let (all, seen) = settings.owners_since(0);
        assert_eq!((all, seen), (vec![addr(1), addr(2)], 2));
        assert_eq!(settings.owners_since(seen).0, []);
        // One that is known is tried again.
        settings.add_owners([addr(1)]);
        assert_eq!(settings.owners_since(seen), (vec![addr(1)], 3));
        assert!(settings.owners().eq([&addr(2), &addr(1)]));
        settings.add_owners((0..2 * MAX_ADDED_OWNERS).map(addr));
        assert_eq!(settings.owners().count(), MAX_ADDED_OWNERS);
        let (new, _) = settings.owners_since(seen);
        assert_eq!(new.len(), MAX_ADDED_OWNERS);
        assert_eq!(new.last(), Some(&addr(2 * MAX_ADDED_OWNERS - 1)));
    }

    #[test]
    fn settings_of_another_one_count() {
        let set = |strategy, patience| Settings {
            strategy,
            patience,
            ..Settings::default()
        };
        let mut mine = set(Some(Strategy::Sequential), Some(None));
        mine.take_over(&set(Some(Strategy::RarestFirst), None));
        assert_eq!(mine.strategy, Some(Strategy::RarestFirst));
        assert_eq!(mine.patience, Some(None));
    }
}
