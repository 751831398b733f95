//! The NEEDs under way on one connection. A session sends one after the other
//! without waiting, and the tracker answers in the same order. The queue knows
//! which answer belongs to which NEED; it sends and receives nothing.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::{Outcome, TrackerError};
use crate::protocol::{ContentKey, Found, Token};

/// How many NEEDs a session may have under way: as many as a tracker answers in
/// one go. Further ones wait as commands.
pub(super) const PIPELINE: usize = 32;

/// A NEED, and where its outcome goes.
pub(super) struct Need {
    pub(super) key: ContentKey,
    pub(super) max_owners: u16,
    pub(super) done: oneshot::Sender<Outcome<Found>>,
}

impl Need {
    /// Tells the caller, unless it no longer waits.
    pub(super) fn finish(self, outcome: Outcome<Found>) {
        drop(self.done.send(outcome));
    }
}

/// How often a NEED was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    /// The tracker had forgotten the token of the first attempt.
    Second,
}

/// A NEED that was sent.
pub(super) struct SentNeed {
    pub(super) need: Need,
    /// The token that it was sent with.
    pub(super) token: Token,
    /// When the tracker must have answered.
    pub(super) deadline: Instant,
    pub(super) attempt: Attempt,
}

/// The NEEDs that were sent, and those to be sent again: together at most
/// [`PIPELINE`].
#[derive(Default)]
pub(super) struct NeedQueue {
    sent: VecDeque<SentNeed>,
    to_repeat: VecDeque<SentNeed>,
}

impl NeedQueue {
    /// Whether one more may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.sent.len() + self.to_repeat.len() < PIPELINE
    }

    /// Whether the tracker still has to answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.sent.is_empty()
    }

    /// When the tracker must have answered next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent.front().map(|sent| sent.deadline)
    }

    /// Adds a NEED that was sent.
    pub(super) fn push(&mut self, sent: SentNeed) {
        self.sent.push_back(sent);
    }

    /// Takes out the NEED that the next answer is for.
    pub(super) fn pop(&mut self) -> Option<SentNeed> {
        self.sent.pop_front()
    }

    /// Keeps a NEED to be sent again.
    pub(super) fn repeat(&mut self, sent: SentNeed) {
        self.to_repeat.push_back(sent);
    }

    /// The token of the next NEED to be sent again.
    pub(super) fn forgotten_token(&self) -> Option<Token> {
        self.to_repeat.front().map(|sent| sent.token)
    }

    /// Takes out the next NEED to be sent again.
    pub(super) fn pop_repeat(&mut self) -> Option<Need> {
        self.to_repeat.pop_front().map(|sent| sent.need)
    }

    /// Ends all NEEDs with an error.
    pub(super) fn fail(&mut self, error: &TrackerError) {
        for sent in self.sent.drain(..).chain(self.to_repeat.drain(..)) {
            sent.need.finish(Err(error.clone()));
        }
    }
}
