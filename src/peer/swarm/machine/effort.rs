//! What the machine tries to do, and when it last came nearer to that.
//!
//! ```text
//!            nothing arrives          patience ends
//!    Going ─────────────────▶ Stalled ─────────────▶ GaveUp
//!    ▲ ▲ ▲                       │                      │
//!    │ │ └───────────────────────┴── something arrives ─┘
//!    │ └─ resume ─ Paused ◀─ pause ── any of these
//!    └─ begin                         any ── stop ──▶ Stopping
//! ```

use std::time::{Duration, Instant};

use crate::peer::swarm::StallReason;
use crate::peer::swarm::transfer::Outlook;

/// How often addresses that did not answer are tried at once, because something else
/// answered.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the machine tries to do.
#[derive(Debug)]
pub(super) struct Effort {
    aim: Aim,
    /// When something last arrived that brought the download on.
    last_gain: Instant,
    /// When a turn that is waited for last came nearer, or came, or was lost.
    turn_moved: Instant,
    /// When addresses that did not answer were last tried at once.
    last_retry: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Going,
    /// It said that nothing arrives, and why.
    Stalled(StallReason),
    /// It said that it gives up; something may still arrive.
    GaveUp,
    /// Nobody is asked for anything.
    Paused(Serving),
    /// The download ends here. Only what has arrived is still stored.
    Stopping,
}

/// What becomes of the other peers while a download is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serving {
    /// They get what is here.
    Goes,
    /// They get nothing, and there are no links.
    Rests,
}

impl Effort {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            aim: Aim::Going,
            last_gain: now,
            turn_moved: now,
            last_retry: None,
        }
    }

    /// Whether others are asked for what is missing, and nothing was said to the contrary.
    pub(super) fn is_going(&self) -> bool {
        self.aim == Aim::Going
    }

    /// Whether it said that nothing arrives.
    pub(super) fn is_stalled(&self) -> bool {
        matches!(self.aim, Aim::Stalled(_))
    }

    /// Whether patience counts.
    pub(super) fn is_patient(&self) -> bool {
        self.is_going() || self.is_stalled()
    }

    /// Whether the download ends here.
    pub(super) fn is_stopping(&self) -> bool {
        self.aim == Aim::Stopping
    }

    /// How it is paused, if it is.
    pub(super) fn pause(&self) -> Option<Serving> {
        match self.aim {
            Aim::Paused(serving) => Some(serving),
            _ => None,
        }
    }

    /// What the storage may expect.
    pub(super) fn outlook(&self) -> Outlook {
        match self.aim {
            Aim::Stopping => Outlook::Ends,
            Aim::Paused(_) => Outlook::Rests,
            Aim::Going | Aim::Stalled(_) | Aim::GaveUp => Outlook::GoesOn,
        }
    }

    /// When something last arrived that brought the download on.
    pub(super) fn last_gain(&self) -> Instant {
        self.last_gain
    }

    /// When a turn that is waited for last came nearer, or came, or was lost.
    pub(super) fn turn_moved(&self) -> Instant {
        self.turn_moved
    }

    /// Something arrived that brings the download on. Returns whether it had said that
    /// nothing does.
    #[must_use]
    pub(super) fn gained(&mut self, now: Instant) -> bool {
        self.last_gain = now;
        let was_stalled = self.is_stalled();
        if was_stalled || self.aim == Aim::GaveUp {
            self.aim = Aim::Going;
        }
        was_stalled
    }

    /// A turn that is waited for came nearer, or came, or was lost.
    pub(super) fn turn_moves(&mut self, now: Instant) {
        self.turn_moved = now;
    }

    /// For this long until now it was not the others' turn to do something: that time does
    /// not count.
    pub(super) fn not_counting(&mut self, now: Instant, time: Duration) {
        self.last_gain = now.min(self.last_gain.checked_add(time).unwrap_or(now));
    }

    /// Nothing arrives. Returns whether that, or the reason, is new.
    #[must_use]
    pub(super) fn stalls(&mut self, reason: StallReason) -> bool {
        let is_new = self.aim != Aim::Stalled(reason);
        self.aim = Aim::Stalled(reason);
        is_new
    }

    /// Nothing has arrived for too long.
    pub(super) fn gives_up(&mut self) {
        self.aim = Aim::GaveUp;
    }

    /// Nobody is asked for anything from now on. Returns how it was paused before.
    pub(super) fn pauses(&mut self, serving: Serving) -> Option<Serving> {
        let before = self.pause();
        self.aim = Aim::Paused(serving);
        before
    }

    /// Goes on after a pause. Returns how it was paused.
    pub(super) fn resumes(&mut self, now: Instant) -> Option<Serving> {
        let before = self.pause()?;
        self.aim = Aim::Going;
        self.last_gain = now;
        self.turn_moved = now;
        Some(before)
    }

    /// Everything is here, and nothing is left to pause.
    pub(super) fn finished(&mut self) {
        if self.pause().is_some() {
            self.aim = Aim::Going;
        }
    }

    /// The download ends here.
    pub(super) fn stops(&mut self) {
        self.aim = Aim::Stopping;
    }

    /// Whether everybody may be tried again at once. If so, that counts as done.
    #[must_use]
    pub(super) fn may_retry(&mut self, now: Instant) -> bool {
        let next = self.last_retry.and_then(|at| at.checked_add(RETRY_PAUSE));
        let may = next.is_none_or(|next| next <= now);
        if may {
            self.last_retry = Some(now);
        }
        may
    }
}
