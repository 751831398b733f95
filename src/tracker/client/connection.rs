//! The connection to one tracker: frames out and in, each within a time limit,
//! and errors that name the tracker.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;
use tracing::debug;

use super::error::{Outcome, TrackerError};
use super::fleet::Fleet;
use crate::protocol::limits::TRACKER_FRAMES;
use crate::protocol::{Addr, Frame, TrackerReply, TrackerRequest};
use crate::transport::{AuthError, Connection, PeerIdentity, Transport, TransportError};

/// The connection to a tracker of a fleet, open or not.
pub(super) struct TrackerConnection {
    fleet: Arc<Fleet>,
    /// The one that was tried last.
    tracker: Addr,
    transport: Arc<dyn Transport>,
    /// How long connecting and each exchange may take.
    patience: Duration,
    open: Option<Connection>,
    was_open: bool,
}

impl TrackerConnection {
    /// A connection to this tracker at first.
    pub(super) fn new(
        (fleet, tracker): (Arc<Fleet>, Addr),
        transport: Arc<dyn Transport>,
        patience: Duration,
    ) -> Self {
        Self {
            fleet,
            tracker,
            transport,
            patience,
            open: None,
            was_open: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Where the tracker is, as the transport has connected, if it is open.
    pub(super) fn remote(&self) -> Option<&Addr> {
        self.open.as_ref().map(|connection| &connection.remote)
    }

    /// Who the tracker has proven to be, if it is open.
    pub(super) fn identity(&self) -> Option<PeerIdentity> {
        self.open.as_ref()?.identity
    }

    /// The error for a tracker that has not proven to be the one that is expected.
    pub(super) fn is_another(&self) -> TrackerError {
        let error = self
            .identity()
            .map_or(AuthError::Missing, AuthError::UnknownKey);
        self.unreachable(error.into())
    }

    /// Whether the last attempt to connect has succeeded.
    pub(super) fn was_open(&self) -> bool {
        self.was_open
    }

    /// The tracker that is used, or was tried last.
    pub(super) fn tracker(&self) -> &Addr {
        &self.tracker
    }

    /// Connects to the tracker, or of several to the first that can be reached. All of that
    /// takes no longer than one request may.
    pub(super) async fn open(&mut self) -> Outcome<()> {
        self.was_open = false;
        let turns = self.fleet.len().max(1);
        let patience = self.patience / u32::try_from(turns).unwrap_or(u32::MAX);
        for _ in 1..turns {
            match self.open_current(patience).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    debug!(%error, "on to the next tracker");
                    self.fleet.move_on_from(&self.tracker);
                }
            }
        }
        self.open_current(patience).await
    }

    async fn open_current(&mut self, patience: Duration) -> Outcome<()> {
        if let Some(current) = self.fleet.current() {
            self.tracker = current;
        }
        let connect = self.transport.connect(&self.tracker);
        let connected = timeout(patience, connect).await;
        let connection = self.in_time(connected)?;
        let known = connection.check_identity(self.transport.identity().is_some());
        known.map_err(|error| self.unreachable(error.into()))?;
        connection.limits.set(TRACKER_FRAMES);
        (self.open, self.was_open) = (Some(connection), true);
        Ok(())
    }

    /// Drops the connection, if it is open. Another tracker is next, if there is one.
    pub(super) fn abandon(&mut self) {
        self.open = None;
        self.fleet.move_on_from(&self.tracker);
    }

    /// Closes the connection, if it is open. There is no time limit.
    pub(super) async fn close(&mut self) -> Outcome<()> {
        if let Some(mut connection) = self.open.take() {
            let closed = connection.sink.close().await;
            closed.map_err(|source| self.unreachable(source))?;
        }
        Ok(())
    }

    /// Sends a request without waiting for the answer. It is under way once the
    /// connection is [flushed](Self::flush).
    pub(super) async fn feed(&mut self, request: &TrackerRequest) -> Outcome<()> {
        let frame = request.encode().map_err(TrackerError::Invalid)?;
        let Some(connection) = &mut self.open else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let fed = timeout(self.patience, connection.sink.feed(frame)).await;
        self.in_time(fed)
    }

    pub(super) async fn flush(&mut self) -> Outcome<()> {
        let Some(connection) = &mut self.open else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let flushed = timeout(self.patience, connection.sink.flush()).await;
        self.in_time(flushed)
    }

    /// The next frame, within this time.
    pub(super) async fn next_within(&mut self, patience: Duration) -> Outcome<Frame> {
        let next = timeout(patience, self.next()).await;
        next.unwrap_or_else(|_| Err(self.timed_out()))
    }

    /// The next frame, whenever it comes.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Outcome<Frame> {
        let Some(connection) = &mut self.open else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let item = connection.stream.next().await;
        let frame = item.unwrap_or(Err(TransportError::Closed));
        frame.map_err(|source| self.unreachable(source))
    }

    /// Sends a request and waits for its reply. No other reply may be owed.
    pub(super) async fn request(&mut self, request: &TrackerRequest) -> Outcome<TrackerReply> {
        let frame = request.encode().map_err(TrackerError::Invalid)?;
        let Some(connection) = &mut self.open else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let exchange = async {
            connection.sink.send(frame).await?;
            let reply = connection.stream.next().await;
            reply.unwrap_or(Err(TransportError::Closed))
        };
        let exchanged = timeout(self.patience, exchange).await;
        let frame = self.in_time(exchanged)?;
        TrackerReply::decode(frame).map_err(|source| TrackerError::Protocol {
            tracker: self.tracker.clone(),
            source,
        })
    }

    fn in_time<T, E>(&self, done: Result<Result<T, TransportError>, E>) -> Outcome<T> {
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(self.unreachable(source)),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// The error for a reply that is not the one expected.
    pub(super) fn refused(&self, reply: TrackerReply) -> TrackerError {
        match reply {
            TrackerReply::Refused(refusal) => TrackerError::Refused {
                tracker: self.tracker.clone(),
                refusal,
            },
            _ => self.unexpected(),
        }
    }

    pub(super) fn unexpected(&self) -> TrackerError {
        TrackerError::Unexpected {
            tracker: self.tracker.clone(),
        }
    }

    fn unreachable(&self, source: TransportError) -> TrackerError {
        TrackerError::Unreachable {
            tracker: self.tracker.clone(),
            source,
        }
    }

    pub(super) fn timed_out(&self) -> TrackerError {
        TrackerError::TimedOut {
            tracker: self.tracker.clone(),
        }
    }
}
