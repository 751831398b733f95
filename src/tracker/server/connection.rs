//! One connection of a tracker: reads requests, writes replies in their order.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::admission::Place;
use super::{SHUTDOWN_TIMEOUT, Shared};
use crate::protocol::limits::{FRAME_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, TRACKER_FRAMES};
use crate::protocol::{Addr, Frame, Refusal, TrackerReply, TrackerRequest};
use crate::transport::{Connection, TransportError};

/// How many requests that have arrived together are answered before their
/// replies are flushed.
const BATCH: usize = 32;

/// How long a client may leave a batch of replies unread: as long as a frame
/// may take to arrive.
const WRITE_TIMEOUT: Duration = FRAME_TIMEOUT;

/// How long a connection that is one too many has to take that message.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers until the client goes, misbehaves, or is silent for too long; or
/// until the tracker stops, and then for no longer than [`SHUTDOWN_TIMEOUT`].
pub(super) async fn serve(shared: Arc<Shared>, connection: Connection, place: Place) {
    let remote = connection.remote.clone();
    let overdue = async {
        shared.stop.cancelled().await;
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    let outcome = tokio::select! {
        outcome = converse(&shared, connection, &place) => outcome,
        () = overdue => Err(TransportError::Closed),
        () = place.taken() => Err(TransportError::Closed),
    };
    if let Err(error) = outcome {
        debug!(%remote, %error, "tracker connection ended");
    }
}

async fn converse(
    shared: &Shared,
    mut connection: Connection,
    place: &Place,
) -> Result<(), TransportError> {
    connection.limits.set(TRACKER_FRAMES);
    let mut patience = HANDSHAKE_TIMEOUT;
    loop {
        let first = tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            first = timeout(patience, connection.stream.next()) => first,
        };
        let Ok(first) = first else {
            break;
        };
        if patience != IDLE_TIMEOUT {
            place.keep();
            patience = IDLE_TIMEOUT;
        }
        let batch = answer_batch(shared, &mut connection, first);
        match timeout(WRITE_TIMEOUT, batch).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => break,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(TransportError::FrameTimeout),
        }
        // A client that never stops asking takes turns with the others.
        tokio::task::yield_now().await;
    }
    let farewell = async {
        if shared.stop.is_cancelled() {
            for _ in 0..BATCH {
                let Some(Some(Ok(_))) = connection.stream.next().now_or_never() else {
                    break;
                };
                let reply = shared.refuse(Refusal::ShuttingDown);
                if let Ok(reply) = reply.encode() {
                    connection.sink.feed(reply).await?;
                }
            }
        }
        connection.sink.close().await
    };
    timeout(WRITE_TIMEOUT, farewell)
        .await
        .unwrap_or(Err(TransportError::FrameTimeout))
}

/// Answers the first request and those that have arrived behind it, and
/// flushes the replies together. Returns whether the conversation goes on.
async fn answer_batch(
    shared: &Shared,
    connection: &mut Connection,
    first: Option<Result<Frame, TransportError>>,
) -> Result<bool, TransportError> {
    let mut next = first;
    let mut open = true;
    for answered in 1..=BATCH {
        let Some(frame) = next.take() else {
            return connection.sink.flush().await.map(|()| false);
        };
        let (reply, readable) = answer(shared, &connection.remote, frame);
        if let Some(reply) = reply {
            connection.sink.feed(reply).await?;
        }
        open = readable;
        if !open || answered == BATCH {
            break;
        }
        match connection.stream.next().now_or_never() {
            Some(frame) => next = frame,
            None => break,
        }
    }
    connection.sink.flush().await?;
    Ok(open)
}

/// The reply to what was read, and whether there is sense in reading on.
fn answer(
    shared: &Shared,
    remote: &Addr,
    frame: Result<Frame, TransportError>,
) -> (Option<Frame>, bool) {
    match frame.map(TrackerRequest::decode) {
        Ok(Ok(request)) => (Some(Frame::head(shared.answer(remote, &request))), true),
        Ok(Err(error)) => {
            debug!(%remote, %error, "malformed request");
            (shared.refuse(Refusal::Malformed).encode().ok(), false)
        }
        Err(error @ TransportError::FrameTooLarge { .. }) => {
            debug!(%remote, %error, "malformed request");
            (shared.refuse(Refusal::Malformed).encode().ok(), false)
        }
        Err(_) => (None, false),
    }
}

/// Tells a connection that is one too many, and closes it.
pub(super) async fn turn_away(stop: CancellationToken, mut connection: Connection, _place: Place) {
    let tell = async {
        if let Ok(reply) = TrackerReply::Refused(Refusal::Busy).encode() {
            connection.sink.send(reply).await?;
        }
        connection.sink.close().await
    };
    tokio::select! {
        () = stop.cancelled() => {}
        told = timeout(TURN_AWAY_TIMEOUT, tell) => {
            debug!(remote = %connection.remote, ?told, "connection turned away");
        }
    }
}
