//! NEEDs under way: a session sends one after the other without waiting, and
//! the tracker answers in the same order. Who asks for something else is
//! answered behind them.

use std::collections::VecDeque;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::TrackerError;
use super::session::{Outcome, Session, ends_session};
use crate::protocol::{ContentKey, Found, Frame, Refusal, Token, TrackerReply, TrackerRequest};
use crate::transport::TransportError;

/// How many NEEDs a session has under way at the most: as many as a tracker
/// answers in one go. Whoever comes later waits in the queue.
pub(super) const PIPELINE: usize = 32;

/// Who asks for what.
pub(super) struct Need {
    pub(super) key: ContentKey,
    pub(super) max_owners: u16,
    pub(super) done: oneshot::Sender<Outcome<Found>>,
}

impl Need {
    /// Whoever asked may have gone; then nobody is told.
    pub(super) fn end(self, outcome: Outcome<Found>) {
        drop(self.done.send(outcome));
    }
}

/// A NEED that was sent.
struct Asked {
    need: Need,
    token: Token,
    /// Until when it is to be answered.
    deadline: Instant,
    /// It was asked before, with a token that the tracker had forgotten.
    again: bool,
}

/// What is under way, and what is to be asked again: [`PIPELINE`] at the most
/// together.
#[derive(Default)]
pub(super) struct Needs {
    asked: VecDeque<Asked>,
    again: VecDeque<Asked>,
}

impl Needs {
    /// Whether one more may be asked.
    pub(super) fn has_room(&self) -> bool {
        self.asked.len() + self.again.len() < PIPELINE
    }

    /// Whether the tracker owes no answer.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// When the tracker has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.front().map(|asked| asked.deadline)
    }

    /// Nobody will be answered any more.
    pub(super) fn fail(&mut self, error: &TrackerError) {
        for asked in self.asked.drain(..).chain(self.again.drain(..)) {
            asked.need.end(Err(error.clone()));
        }
    }
}

impl Session {
    /// Asks, without waiting for the answer. What was asked is on its way once
    /// the connection is flushed.
    pub(super) async fn ask_for(&mut self, need: Need) -> Outcome<()> {
        self.put(need, false).await
    }

    async fn put(&mut self, need: Need, again: bool) -> Outcome<()> {
        if need.done.is_closed() {
            return Ok(());
        }
        let sent = match self.token {
            Some(token) => self.feed(&need, token).await.map(|()| token),
            None => Err(self.unexpected()),
        };
        match sent {
            Ok(token) => {
                let deadline = Instant::now() + self.setup.config.request_timeout;
                self.needs.asked.push_back(Asked {
                    need,
                    token,
                    deadline,
                    again,
                });
                Ok(())
            }
            Err(error) => {
                need.end(Err(error.clone()));
                Err(error)
            }
        }
    }

    async fn feed(&mut self, need: &Need, token: Token) -> Outcome<()> {
        let request = TrackerRequest::Need {
            token,
            key: need.key.clone(),
            max_owners: need.max_owners,
        };
        let frame = request.encode().map_err(TrackerError::Invalid)?;
        let patience = self.setup.config.request_timeout;
        let Some(connection) = &mut self.connection else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let fed = timeout(patience, connection.sink.feed(frame)).await;
        self.in_time(fed)
    }

    pub(super) async fn flush(&mut self) -> Outcome<()> {
        let patience = self.setup.config.request_timeout;
        let Some(connection) = &mut self.connection else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let flushed = timeout(patience, connection.sink.flush()).await;
        self.in_time(flushed)
    }

    /// What became of a wait for the transport.
    pub(super) fn in_time<T, E>(&self, done: Result<Result<T, TransportError>, E>) -> Outcome<T> {
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(self.unreachable(source)),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// Takes an answer, which is to the NEED that was asked first. An error is
    /// one after which the connection is of no more use; whoever asked has been
    /// told.
    pub(super) fn answered(&mut self, frame: Frame) -> Outcome<()> {
        let Some(asked) = self.needs.asked.pop_front() else {
            return Err(self.unexpected());
        };
        let error = match TrackerReply::decode(frame) {
            Ok(TrackerReply::Found(found)) => {
                self.setup.state.named(self.setup.index, &found);
                asked.need.end(Ok(found));
                return Ok(());
            }
            Ok(TrackerReply::Ambiguous(candidates)) => TrackerError::Ambiguous { candidates },
            Ok(TrackerReply::Refused(Refusal::UnknownToken)) if !asked.again => {
                self.needs.again.push_back(asked);
                return Ok(());
            }
            Ok(other) => self.refused(other),
            Err(source) => TrackerError::Protocol {
                tracker: self.setup.tracker.clone(),
                source,
            },
        };
        asked.need.end(Err(error.clone()));
        match &error {
            TrackerError::Ambiguous { .. } => Ok(()),
            TrackerError::Refused { refusal, .. } if !ends_session(refusal) => Ok(()),
            _ => Err(error),
        }
    }

    /// Waits for all answers that are owed, before something else is asked.
    pub(super) async fn settle(&mut self) -> Outcome<()> {
        if self.needs.is_empty() {
            return Ok(());
        }
        self.flush().await?;
        while let Some(deadline) = self.needs.deadline() {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.next_frame(left).await?;
            self.answered(frame)?;
        }
        Ok(())
    }

    /// The next frame that the tracker sends, if it comes in time.
    pub(super) async fn next_frame(&mut self, patience: Duration) -> Outcome<Frame> {
        let Some(connection) = &mut self.connection else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let item = timeout(patience, connection.stream.next()).await;
        self.in_time(item.map(|item| item.unwrap_or(Err(TransportError::Closed))))
    }

    /// Asks once more what was asked with a token that the tracker had
    /// forgotten, after one registration for all of it.
    pub(super) async fn ask_again(&mut self) -> Outcome<()> {
        let Some(first) = self.needs.again.front() else {
            return Ok(());
        };
        if self.token.is_none_or(|token| token == first.token) {
            self.register().await?;
        }
        while let Some(asked) = self.needs.again.pop_front() {
            self.put(asked.need, true).await?;
        }
        self.flush().await
    }
}
