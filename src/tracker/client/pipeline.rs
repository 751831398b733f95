//! The NEEDs and OWNs under way on one connection. A session sends one after the other
//! without waiting, and the tracker answers in the same order. The pipeline knows
//! which answer belongs to which request; it sends and receives nothing.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::error::{Outcome, TrackerError};
use crate::content::ContentId;
use crate::protocol::{ContentKey, Found, OwnEntry, Token};

/// How many NEEDs a session may have under way: as many as a tracker answers in
/// one go. Further ones wait as commands.
pub(super) const MAX_NEEDS: usize = 32;

/// How many OWNs a session may have under way, each of them full. So a peer with very
/// many contents is back soon, at the pace at which the tracker answers, and whatever
/// else it asks for waits for no more than these.
pub(super) const MAX_OWNS: usize = 4;

/// How many callers may wait until a content is announced. Further ones wait as
/// commands.
const MAX_WAITING: usize = 1024;

/// A NEED, and where its outcome goes.
pub(super) struct Need {
    pub(super) key: ContentKey,
    pub(super) max_owners: u16,
    pub(super) done: oneshot::Sender<Outcome<Found>>,
    /// How often a connection has ended before it was answered, and when first.
    tries: usize,
    since: Option<Instant>,
}

impl Need {
    pub(super) fn new(
        key: ContentKey,
        max_owners: u16,
        done: oneshot::Sender<Outcome<Found>>,
    ) -> Self {
        Self {
            key,
            max_owners,
            done,
            tries: 0,
            since: None,
        }
    }

    /// Notes that a connection has ended before it was answered. Returns whether it is to be
    /// asked once more, where that is done so often and for so long.
    pub(super) fn goes_on(&mut self, now: Instant, (most, patience): (usize, Duration)) -> bool {
        self.tries += 1;
        let since = *self.since.get_or_insert(now);
        self.tries < most && now.saturating_duration_since(since) < patience
    }

    /// Tells the caller, unless it no longer waits.
    pub(super) fn finish(self, outcome: Outcome<Found>) {
        drop(self.done.send(outcome));
    }
}

/// How often a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    /// The tracker had forgotten the token of the first attempt.
    Second,
}

/// What was sent.
pub(super) enum Request {
    Need(Need),
    Own(Vec<OwnEntry>),
}

/// A request that was sent.
pub(super) struct Sent {
    pub(super) request: Request,
    /// The token that it was sent with.
    pub(super) token: Token,
    /// When the tracker must have answered.
    pub(super) deadline: Instant,
    pub(super) attempt: Attempt,
}

/// The requests that were sent, and the NEEDs to be sent again.
#[derive(Default)]
pub(super) struct Pipeline {
    sent: VecDeque<Sent>,
    /// How many of those are OWNs.
    owns: usize,
    to_repeat: VecDeque<(Need, Token)>,
}

impl Pipeline {
    /// Whether one more NEED may be sent.
    pub(super) fn has_room_for_need(&self) -> bool {
        self.sent.len() - self.owns + self.to_repeat.len() < MAX_NEEDS
    }

    /// Whether one more OWN may be sent.
    pub(super) fn has_room_for_own(&self) -> bool {
        self.owns < MAX_OWNS
    }

    /// Whether the tracker still has to answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether an OWN is under way.
    pub(super) fn is_announcing(&self) -> bool {
        self.owns > 0
    }

    /// Whether an OWN about this content is under way.
    pub(super) fn announces(&self, id: &ContentId) -> bool {
        self.sent.iter().any(|sent| match &sent.request {
            Request::Own(entries) => entries.iter().any(|entry| entry.id == *id),
            Request::Need(_) => false,
        })
    }

    /// When the tracker must have answered next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent.front().map(|sent| sent.deadline)
    }

    /// Adds a request that was sent.
    pub(super) fn push(&mut self, sent: Sent) {
        self.owns += usize::from(matches!(sent.request, Request::Own(_)));
        self.sent.push_back(sent);
    }

    /// Takes out the request that the next answer is for.
    pub(super) fn pop(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.owns -= usize::from(matches!(sent.request, Request::Own(_)));
        Some(sent)
    }

    /// Keeps a NEED to be sent again, as the tracker has forgotten this token.
    pub(super) fn repeat(&mut self, need: Need, token: Token) {
        self.to_repeat.push_back((need, token));
    }

    /// The token of the next NEED to be sent again.
    pub(super) fn forgotten_token(&self) -> Option<Token> {
        self.to_repeat.front().map(|(_, token)| *token)
    }

    /// Takes out the next NEED to be sent again.
    pub(super) fn pop_repeat(&mut self) -> Option<Need> {
        self.to_repeat.pop_front().map(|(need, _)| need)
    }

    /// Whether there are NEEDs to be sent again.
    pub(super) fn has_repeats(&self) -> bool {
        !self.to_repeat.is_empty()
    }

    /// Keeps the NEEDs to be sent again on another connection, if each is sent so often and for
    /// so long, and returns what was to be announced. Those that were sent too often end with
    /// this error.
    pub(super) fn interrupt(
        &mut self,
        now: Instant,
        within: (usize, Duration),
        error: &TrackerError,
    ) -> Vec<OwnEntry> {
        let mut unanswered = Vec::new();
        while let Some(sent) = self.pop() {
            match sent.request {
                Request::Need(mut need) => match need.goes_on(now, within) {
                    // No tracker has forgotten this token.
                    true => self.to_repeat.push_back((need, Token([0; 16]))),
                    false => need.finish(Err(error.clone())),
                },
                Request::Own(entries) => unanswered.extend(entries),
            }
        }
        unanswered
    }

    /// Ends all NEEDs with an error, and returns what was to be announced.
    pub(super) fn fail(&mut self, error: &TrackerError) -> Vec<OwnEntry> {
        let mut unanswered = Vec::new();
        while let Some(sent) = self.pop() {
            match sent.request {
                Request::Need(need) => need.finish(Err(error.clone())),
                Request::Own(entries) => unanswered.extend(entries),
            }
        }
        while let Some(need) = self.pop_repeat() {
            need.finish(Err(error.clone()));
        }
        unanswered
    }
}

/// Callers that wait until contents are announced.
#[derive(Default)]
pub(super) struct Waiting {
    contents: HashMap<ContentId, Vec<Caller>>,
    /// Those that wait for all contents.
    all: Vec<Caller>,
    len: usize,
}

/// Where the outcome of an announcement goes.
pub(super) type Caller = oneshot::Sender<Outcome<()>>;

impl Waiting {
    pub(super) fn has_room(&self) -> bool {
        self.len < MAX_WAITING
    }

    /// Whether somebody waits.
    pub(super) fn is_any(&self) -> bool {
        self.len > 0
    }

    /// Adds a caller that waits for one content, or for all.
    pub(super) fn push(&mut self, id: Option<ContentId>, caller: Caller) {
        self.len += 1;
        match id {
            Some(id) => self.contents.entry(id).or_default().push(caller),
            None => self.all.push(caller),
        }
    }

    /// Whether somebody waits for a content.
    pub(super) fn is_for(&self, id: &ContentId) -> bool {
        self.contents.contains_key(id)
    }

    /// Tells those who wait for a content.
    pub(super) fn tell(&mut self, id: &ContentId, outcome: &Outcome<()>) {
        let callers = self.contents.remove(id).unwrap_or_default();
        self.tell_each(callers, outcome);
    }

    /// Tells those who wait for all contents.
    pub(super) fn tell_all(&mut self) {
        let callers = std::mem::take(&mut self.all);
        self.tell_each(callers, &Ok(()));
    }

    /// Tells everybody of an error.
    pub(super) fn fail(&mut self, error: &TrackerError) {
        let contents = std::mem::take(&mut self.contents).into_values().flatten();
        let callers: Vec<_> = contents.chain(self.all.drain(..)).collect();
        self.tell_each(callers, &Err(error.clone()));
    }

    fn tell_each(&mut self, callers: Vec<Caller>, outcome: &Outcome<()>) {
        self.len -= callers.len();
        for caller in callers {
            // It may have gone.
            drop(caller.send(outcome.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need() -> Need {
        Need::new(ContentId::of(b"x").into(), 1, oneshot::channel().0)
    }

    #[test]
    fn need_is_asked_so_often_and_for_so_long() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut often = need();
        assert!(often.goes_on(now, (2, second)));
        assert!(!often.goes_on(now, (2, second)));
        let mut long = need();
        assert!(long.goes_on(now, (9, second)));
        assert!(long.goes_on(now + second / 2, (9, second)));
        assert!(!long.goes_on(now + second, (9, second)));
    }

    #[test]
    fn needs_that_are_asked_again_have_their_part_of_the_room() {
        let mut pipeline = Pipeline::default();
        for _ in 0..MAX_NEEDS {
            assert!(pipeline.has_room_for_need());
            pipeline.repeat(need(), Token([0; 16]));
        }
        assert!(!pipeline.has_room_for_need());
        pipeline.pop_repeat();
        assert!(pipeline.has_room_for_need());
    }
}
