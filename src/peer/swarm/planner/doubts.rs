//! How much is asked of links that have not proved themselves.
//!
//! Peers that take requests and never answer must not hold a download up. So
//! what is asked of unproven links does not count towards the request budget.
//! They are tried with a few chunks beside it, and with more when these bring
//! nothing for a while.

use std::time::{Duration, Instant};

use super::sources::Sources;

/// After what part of a link's patience others are tried as well.
const DOUBT: u32 = 4;

/// Whether a group of links makes its links take turns. The groups are counted
/// apart: a turn that is offered is worth more than a queue that never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    AlwaysOpen,
    TakesTurns,
}

impl Group {
    pub(super) fn of(takes_turns: bool) -> Self {
        match takes_turns {
            true => Self::TakesTurns,
            false => Self::AlwaysOpen,
        }
    }
}

/// Until when no more is asked of the unproven links of each group.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    by_group: [Option<Doubt>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// The moment, and the doubtful bytes, for which it was found.
    as_of: (Instant, u64),
    until: Option<Instant>,
}

impl Doubts {
    /// How long a link may take before others are tried as well, if it counts
    /// as silent after `silence`.
    pub(super) fn patience(silence: Duration) -> Duration {
        silence / DOUBT
    }

    /// Whether a group was looked at for the same moment and doubtful bytes. Many
    /// links are looked at in one moment.
    pub(super) fn is_fresh(&self, now: Instant, group: Group, doubtful: u64) -> bool {
        let doubt = self.by_group[group as usize];
        doubt.is_some_and(|doubt| doubt.as_of == (now, doubtful))
    }

    /// Finds out until when no more is asked of a group: while `enough` bytes
    /// were asked of it within the `patience`, and may well come. O(links).
    pub(super) fn refresh(
        &mut self,
        now: Instant,
        group: Group,
        sources: &Sources,
        enough: u64,
        patience: Duration,
    ) {
        let mut fresh = 0;
        let mut until = None;
        for source in sources.values() {
            if source.is_proven() || Group::of(source.takes_turns()) != group {
                continue;
            }
            let Some(ask) = source.live_asks().next() else {
                continue;
            };
            if now.duration_since(ask.at) < patience {
                fresh += source.live_bytes();
                let end = ask.at.checked_add(patience);
                until = until.into_iter().chain(end).min();
            }
        }
        let until = until.filter(|_| fresh >= enough);
        let as_of = (now, sources.totals().doubtful);
        self.by_group[group as usize] = Some(Doubt { as_of, until });
    }

    /// Until when no more is asked of a group, as of its last
    /// [`refresh`](Self::refresh).
    pub(super) fn until(&self, group: Group) -> Option<Instant> {
        self.by_group[group as usize]?.until
    }
}
