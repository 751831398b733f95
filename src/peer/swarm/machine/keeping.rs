//! What is on its way when a download is paused, and what stays of it.
//!
//! ```text
//!             pause            all has come, or time is over
//!  Nothing ─────────▶ Arriving ─────────────────────────────▶ Kept
//!     ▲                  ▲  │                                  │
//!     │ time is over     │  └───────────┬── resume ────────────┘
//!     └─────────────── Resumed ◀────────┘
//! ```

use std::time::{Duration, Instant};

/// For how long what was asked for before a pause may still come: what a line that is not
/// overloaded carries is here by then, and nobody waits longer for a download to rest.
pub(super) const ARRIVES: Duration = Duration::from_secs(2);

/// For how long after a pause parts of chunks stay that no link has: longer than it takes
/// to reach the same peers again.
const RETURNS: Duration = Duration::from_secs(10);

/// What stays of chunks that are not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Keeping {
    /// Only what some link has.
    #[default]
    Nothing,
    /// The download is paused, and until then what was asked for may still come.
    Arriving { until: Instant },
    /// It is paused, and nothing comes any more.
    Kept,
    /// It goes on, and until then those may come back that have the rest.
    Resumed { until: Instant },
}

impl Keeping {
    /// The download is paused.
    pub(super) fn pauses(&mut self, now: Instant) {
        let until = now + ARRIVES;
        *self = Self::Arriving { until };
    }

    /// Whether something may still come of what was asked for before a pause. `owed` says
    /// whether something was asked for that is not answered.
    pub(super) fn arrives(&mut self, now: Instant, owed: bool) -> bool {
        match self {
            Self::Arriving { until } if !owed || *until <= now => *self = Self::Kept,
            _ => {}
        }
        matches!(self, Self::Arriving { .. })
    }

    /// Whether a paused download still waits for something.
    pub(super) fn is_arriving(&self) -> bool {
        matches!(self, Self::Arriving { .. })
    }

    /// The download goes on.
    pub(super) fn resumes(&mut self, now: Instant) {
        let until = now + RETURNS;
        *self = Self::Resumed { until };
    }

    /// Whether what no link has is given up now.
    pub(super) fn ends(&mut self, now: Instant) -> bool {
        let ends = matches!(self, Self::Resumed { until } if *until <= now);
        if ends {
            *self = Self::Nothing;
        }
        ends
    }

    /// When that changes with the time.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match *self {
            Self::Arriving { until } | Self::Resumed { until } => Some(until),
            Self::Nothing | Self::Kept => None,
        }
    }
}
