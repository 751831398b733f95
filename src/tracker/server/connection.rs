//! One connection of a tracker: reads requests, writes replies in their order.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::admission::Permit;
use super::questions::{BATCH, Questions};
use super::recording::count_error;
use super::revoking::denied;
use super::service::{Asker, SHUTDOWN_TIMEOUT, Service};
use crate::protocol::limits::{FRAME_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, TRACKER_FRAMES};
use crate::protocol::{Frame, Refusal, TrackerReply, TrackerRequest};
use crate::transport::{Connection, TransportError};

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
/// too long; or until the tracker drains or stops, and then for no longer than
/// [`SHUTDOWN_TIMEOUT`].
pub(super) async fn serve(service: Arc<Service>, connection: Connection, permit: Permit) {
    let overdue = async {
        service.stop.cancelled().await;
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    let asker = Asker::of(&connection);
    let outcome = tokio::select! {
        outcome = converse(&service, connection, (&asker, &permit)) => outcome,
        () = overdue => Err(TransportError::Closed),
        () = permit.revoked() => Err(TransportError::Closed),
        () = denied(service.access.as_deref(), &asker) => {
            service.forget_all(&asker.who()).await;
            Err(TransportError::Closed)
        }
    };
    if let Err(TransportError::Auth(error)) = &outcome
        && error.is_of_other_side()
    {
        // The transport does not let it in any more.
        service.forget_all(&asker.who()).await;
    }
    if let Err(error) = outcome {
        count_error(&error);
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
            () = service.draining.cancelled() => break,
            first = timeout(patience, connection.stream.next()) => first,
        };
        let Ok(first) = first else {
            break;
        };
        if patience != IDLE_TIMEOUT {
            permit.keep();
            patience = IDLE_TIMEOUT;
        }
        let flow = answer(service, (&mut connection, asker), first).await?;
        if flow == Flow::Close {
            return in_time(connection.sink.close()).await;
        }
        // So that a client that never stops asking takes turns with the others.
        tokio::task::yield_now().await;
    }
    if service.draining.is_cancelled() && !service.stop.is_cancelled() {
        return send_away(service, (&mut connection, asker)).await;
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
    in_time(close).await
}

/// Answers what has arrived, tells the client to go elsewhere, and waits until it has gone, or
/// the tracker stops.
async fn send_away(
    service: &Service,
    (connection, asker): (&mut Connection, &Asker),
) -> Result<(), TransportError> {
    if let Some(first) = connection.stream.next().now_or_never() {
        let flow = answer(service, (&mut *connection, asker), first).await?;
        if flow == Flow::Close {
            return in_time(connection.sink.close()).await;
        }
    }
    // If it has asked something meanwhile, this is the answer to it, and nothing that follows
    // is carried out. If not, this is as good as the end of the connection.
    let told = async {
        if let Ok(reply) = TrackerReply::Refused(Refusal::ShuttingDown).encode() {
            connection.sink.send(reply).await?;
        }
        connection.sink.close().await
    };
    in_time(told).await?;
    // A connection that is dropped with something unread may lose what was sent last.
    let gone = async { while let Some(Ok(_)) = connection.stream.next().await {} };
    tokio::select! {
        () = gone => {}
        () = service.stop.cancelled() => {}
    }
    Ok(())
}

/// Answers the first request and those that have arrived after it.
async fn answer(
    service: &Service,
    asked: (&mut Connection, &Asker),
    first: Option<Result<Frame, TransportError>>,
) -> Result<Flow, TransportError> {
    match &service.access {
        Some(_) => answer_asked(service, asked, first).await,
        None => in_time(answer_batch(service, asked, first)).await,
    }
}

/// What is written must be taken within [`WRITE_TIMEOUT`].
async fn in_time<T>(
    write: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let written = timeout(WRITE_TIMEOUT, write).await;
    written.unwrap_or(Err(TransportError::FrameTimeout))
}

/// Answers the first request and those that arrive until all are answered, if somebody is
/// asked about each. A reply is flushed when the next one is not ready.
async fn answer_asked(
    service: &Service,
    (connection, asker): (&mut Connection, &Asker),
    first: Option<Result<Frame, TransportError>>,
) -> Result<Flow, TransportError> {
    let Connection { sink, stream, .. } = connection;
    let mut questions = Questions::new(service, asker);
    let mut next = Some(first);
    // What is said last, once there is nothing more to read.
    let mut last = None;
    let mut broken = None;
    let (mut answered, mut unflushed) = (0, false);
    loop {
        if let Some(frame) = next.take() {
            match frame.map(|frame| decoded(service, frame)) {
                Some(Ok(request)) => questions.ask(request),
                Some(Err(Refused::Auth(error))) => return Err(error),
                Some(Err(Refused::Broken(error))) => (last, broken) = (Some(None), Some(error)),
                Some(Err(Refused::Told(reply))) => last = Some(reply),
                None => last = Some(None),
            }
        }
        // One who asks on and on is sent away as well.
        let goes_on = !service.draining.is_cancelled();
        let may_read = goes_on && last.is_none() && questions.has_room();
        if may_read && let Some(frame) = stream.next().now_or_never() {
            next = Some(frame);
            continue;
        }
        let asked = match questions.next().now_or_never() {
            Some(Some(asked)) => asked,
            Some(None) => break,
            None => {
                if std::mem::take(&mut unflushed) {
                    in_time(sink.flush()).await?;
                }
                tokio::select! {
                    Some(asked) = questions.next() => asked,
                    frame = stream.next(), if may_read => {
                        next = Some(frame);
                        continue;
                    }
                }
            }
        };
        let reply = service.answer(asker, asked).await;
        in_time(sink.feed(Frame::head(reply.head))).await?;
        unflushed = true;
        if reply.ends {
            last = Some(None);
            break;
        }
        answered += 1;
        if answered % BATCH == 0 {
            in_time(sink.flush()).await?;
            tokio::task::yield_now().await;
        }
    }
    if let Some(error) = broken {
        let _ = in_time(sink.close()).await;
        return Err(error);
    }
    let flow = match last {
        Some(_) => Flow::Close,
        None => Flow::Continue,
    };
    if let Some(reply) = last.flatten() {
        in_time(sink.feed(reply)).await?;
    }
    in_time(sink.flush()).await?;
    Ok(flow)
}

/// Answers the first request and those that have arrived after it, all together, and
/// flushes the replies.
async fn answer_batch(
    service: &Service,
    (connection, asker): (&mut Connection, &Asker),
    first: Option<Result<Frame, TransportError>>,
) -> Result<Flow, TransportError> {
    let (requests, refused) = read_batch(service, connection, first);
    for reply in service.answer_all(asker, requests).await {
        connection.sink.feed(Frame::head(reply)).await?;
    }
    let flow = match refused {
        None => Flow::Continue,
        Some(Refused::Auth(error)) => return Err(error),
        Some(Refused::Broken(error)) => {
            // It may be that replies still arrive.
            let _ = connection.sink.close().await;
            return Err(error);
        }
        Some(Refused::Told(reply)) => {
            if let Some(reply) = reply {
                connection.sink.feed(reply).await?;
            }
            Flow::Close
        }
    };
    connection.sink.flush().await?;
    Ok(flow)
}

/// The first request and those that have arrived after it, at most [`BATCH`], and what
/// behind them is no request.
fn read_batch(
    service: &Service,
    connection: &mut Connection,
    first: Option<Result<Frame, TransportError>>,
) -> (Vec<TrackerRequest>, Option<Refused>) {
    let mut requests = Vec::new();
    let mut next = Some(first);
    while let Some(frame) = next {
        // The client may have gone.
        let Some(frame) = frame else {
            return (requests, Some(Refused::Told(None)));
        };
        match decoded(service, frame) {
            Ok(request) => requests.push(request),
            Err(refused) => return (requests, Some(refused)),
        }
        if requests.len() == BATCH {
            break;
        }
        next = connection.stream.next().now_or_never();
    }
    (requests, None)
}

/// What was read is no request: the connection ends.
enum Refused {
    /// The other side is not let in any more.
    Auth(TransportError),
    /// Nothing more can be read.
    Broken(TransportError),
    /// It is told this, if anything.
    Told(Option<Frame>),
}

fn decoded(
    service: &Service,
    frame: Result<Frame, TransportError>,
) -> Result<TrackerRequest, Refused> {
    match frame.map(TrackerRequest::decode) {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(error)) => {
            debug!(%error, "malformed request");
            Err(Refused::Told(service.refuse_malformed().encode().ok()))
        }
        Err(error @ (TransportError::FrameTooLarge { .. } | TransportError::SpeaksTls)) => {
            debug!(%error, "malformed request");
            Err(Refused::Told(service.refuse_malformed().encode().ok()))
        }
        Err(error @ TransportError::Auth(_)) => Err(Refused::Auth(error)),
        Err(error) => Err(Refused::Broken(error)),
    }
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
