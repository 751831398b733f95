//! One connection of a tracker: reads requests, writes replies in their order.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::admission::Permit;
use super::revoking::denied;
use super::service::{Asker, SHUTDOWN_TIMEOUT, Service};
use crate::access::Who;
use crate::protocol::limits::{FRAME_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, TRACKER_FRAMES};
use crate::protocol::{Frame, Refusal, TrackerReply, TrackerRequest};
use crate::transport::{Connection, TransportError};

/// How many requests that have arrived together are answered together, before their
/// replies are flushed.
const BATCH: usize = 32;

/// How long a client may leave a batch of replies unread: as long as a frame may
/// take to arrive.
const WRITE_TIMEOUT: Duration = FRAME_TIMEOUT;

/// How long a connection that is turned away has to receive the message.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// How a conversation goes on after a batch of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Close,
}

/// Answers requests until the client goes, breaks the protocol, or is silent for
/// too long; or until the tracker stops, and then for no longer than
/// [`SHUTDOWN_TIMEOUT`].
pub(super) async fn serve(service: Arc<Service>, connection: Connection, permit: Permit) {
    let overdue = async {
        service.stop.cancelled().await;
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    let asker = Asker {
        who: Who {
            identity: connection.identity,
            remote: connection.remote.clone(),
        },
        local: connection.local.clone(),
    };
    let outcome = tokio::select! {
        outcome = converse(&service, connection, (&asker, &permit)) => outcome,
        () = overdue => Err(TransportError::Closed),
        () = permit.revoked() => Err(TransportError::Closed),
        () = denied(service.access.as_deref(), &asker.who) => {
            service.forget_all(&asker.who);
            Err(TransportError::Closed)
        }
    };
    if let Err(TransportError::Auth(error)) = &outcome
        && error.is_of_other_side()
    {
        // The transport does not let it in any more.
        service.forget_all(&asker.who);
    }
    if let Err(error) = outcome {
        debug!(%error, "tracker connection ended");
    }
}

/// Reads and answers until the connection must be closed, and closes it.
async fn converse(
    service: &Service,
    mut connection: Connection,
    (asker, permit): (&Asker, &Permit),
) -> Result<(), TransportError> {
    connection.limits.set(TRACKER_FRAMES);
    // The first request must come sooner than later ones.
    let mut patience = HANDSHAKE_TIMEOUT;
    loop {
        let first = tokio::select! {
            biased;
            () = service.stop.cancelled() => break,
            first = timeout(patience, connection.stream.next()) => first,
        };
        let Ok(first) = first else {
            break;
        };
        if patience != IDLE_TIMEOUT {
            permit.keep();
            patience = IDLE_TIMEOUT;
        }
        let batch = answer_batch(service, (&mut connection, asker), first);
        match timeout(WRITE_TIMEOUT, batch).await {
            Ok(Ok(Flow::Continue)) => {}
            Ok(Ok(Flow::Close)) => break,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(TransportError::FrameTimeout),
        }
        // So that a client that never stops asking takes turns with the others.
        tokio::task::yield_now().await;
    }
    let close = async {
        // Requests that have arrived by now are told why they are not answered.
        if service.stop.is_cancelled() {
            for _ in 0..BATCH {
                let Some(Some(Ok(_))) = connection.stream.next().now_or_never() else {
                    break;
                };
                let reply = service.refuse_shutting_down();
                if let Ok(reply) = reply.encode() {
                    connection.sink.feed(reply).await?;
                }
            }
        }
        connection.sink.close().await
    };
    timeout(WRITE_TIMEOUT, close)
        .await
        .unwrap_or(Err(TransportError::FrameTimeout))
}

/// Answers the first request and those that have arrived after it, all together, and
/// flushes the replies.
async fn answer_batch(
    service: &Service,
    (connection, asker): (&mut Connection, &Asker),
    first: Option<Result<Frame, TransportError>>,
) -> Result<Flow, TransportError> {
    let (requests, after) = read_batch(connection, first);
    for reply in service.answer_all(asker, requests).await {
        connection.sink.feed(Frame::head(reply)).await?;
    }
    let flow = match after {
        After::Continue => Flow::Continue,
        After::Close => Flow::Close,
        After::Refuse => {
            if let Ok(refusal) = service.refuse_malformed().encode() {
                connection.sink.feed(refusal).await?;
            }
            Flow::Close
        }
        After::Fail(error) => return Err(error),
    };
    connection.sink.flush().await?;
    Ok(flow)
}

/// What follows the requests of a batch.
enum After {
    Continue,
    /// The client has gone.
    Close,
    /// Something that is not a request.
    Refuse,
    /// The other side is not let in any more.
    Fail(TransportError),
}

/// The first request and those that have arrived after it, at most [`BATCH`].
fn read_batch(
    connection: &mut Connection,
    first: Option<Result<Frame, TransportError>>,
) -> (Vec<TrackerRequest>, After) {
    let mut requests = Vec::new();
    let mut next = Some(first);
    while let Some(frame) = next {
        let after = match frame.map(|frame| frame.map(TrackerRequest::decode)) {
            Some(Ok(Ok(request))) => {
                requests.push(request);
                None
            }
            Some(Ok(Err(error))) => {
                debug!(%error, "malformed request");
                Some(After::Refuse)
            }
            Some(Err(TransportError::Auth(error))) => Some(After::Fail(error.into())),
            Some(Err(
                error @ (TransportError::FrameTooLarge { .. } | TransportError::SpeaksTls),
            )) => {
                debug!(%error, "malformed request");
                Some(After::Refuse)
            }
            Some(Err(_)) | None => Some(After::Close),
        };
        if let Some(after) = after {
            return (requests, after);
        }
        if requests.len() == BATCH {
            break;
        }
        next = connection.stream.next().now_or_never();
    }
    (requests, After::Continue)
}

/// Tells a client that the tracker has no room for its connection, and closes it.
pub(super) async fn turn_away(
    stop: CancellationToken,
    mut connection: Connection,
    _permit: Permit,
) {
    let tell = async {
        if let Ok(reply) = TrackerReply::Refused(Refusal::Busy).encode() {
            connection.sink.send(reply).await?;
        }
        connection.sink.close().await
    };
    tokio::select! {
        () = stop.cancelled() => {}
        told = timeout(TURN_AWAY_TIMEOUT, tell) => {
            debug!(?told, "connection turned away");
        }
    }
}
