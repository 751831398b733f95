//! What a tracker was told lately: what it may have lost when its store has another history
//! by now.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

use crate::protocol::OwnEntry;

/// How long before a heartbeat what was told may be lost although the store was there at
/// that heartbeat: longer than a replica is behind that is promoted.
const BEHIND: Duration = Duration::from_secs(10);

/// How many entries are remembered. Who announces more within a heartbeat announces all of
/// it again.
const MAX_LATELY: usize = 10_000;

/// The entries that were told since [`BEHIND`] before the last heartbeat.
#[derive(Debug, Default)]
pub(super) struct Lately {
    told: VecDeque<(Instant, OwnEntry)>,
    /// Until when some of what was told is not remembered.
    forgotten: Option<Instant>,
}

impl Lately {
    /// The tracker was told of these entries.
    pub(super) fn told(&mut self, now: Instant, entries: &[OwnEntry]) {
        for entry in entries {
            if self.told.len() == MAX_LATELY {
                self.forgotten = self.told.pop_front().map(|(at, _)| at);
            }
            self.told.push_back((now, entry.clone()));
        }
    }

    /// The tracker has answered a heartbeat, and its history is as before.
    pub(super) fn heard(&mut self, now: Instant) {
        let is_safe = |at: Instant| now.saturating_duration_since(at) > BEHIND;
        while self.told.front().is_some_and(|(at, _)| is_safe(*at)) {
            self.told.pop_front();
        }
        self.forgotten = self.forgotten.filter(|at| !is_safe(*at));
    }

    /// All of it, from now on to be told again; or `None` if that is too much to remember.
    pub(super) fn take(&mut self) -> Option<Vec<OwnEntry>> {
        let told = std::mem::take(&mut self.told);
        match self.forgotten.take() {
            None => Some(told.into_iter().map(|(_, entry)| entry).collect()),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentId;
    use crate::protocol::OwnState;

    fn entry(number: u8) -> OwnEntry {
        let id = ContentId::from_bytes([number; 32]);
        OwnEntry::new(id, "name".parse().unwrap(), 1, OwnState::Complete)
    }

    #[test]
    fn what_a_heartbeat_has_outlived_is_not_told_again() {
        let (mut lately, begun) = (Lately::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        lately.told(at(0), &[entry(1)]);
        lately.told(at(15), &[entry(2)]);
        lately.heard(at(20));
        lately.told(at(60), &[entry(3)]);
        assert_eq!(lately.take(), Some(vec![entry(2), entry(3)]));
        assert_eq!(lately.take(), Some(Vec::new()));
    }

    #[test]
    fn too_much_is_not_remembered_until_a_heartbeat_has_outlived_it() {
        let (mut lately, begun) = (Lately::default(), Instant::now());
        let many: Vec<OwnEntry> = (0..=MAX_LATELY).map(|number| entry(number as u8)).collect();
        lately.told(begun, &many);
        assert_eq!(lately.take(), None);
        lately.told(begun, &many);
        lately.heard(begun + 2 * BEHIND);
        assert_eq!(lately.take(), Some(Vec::new()));
    }
}
