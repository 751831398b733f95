//! The task of one link: frames in, frames out, nothing decided.
//!
//! A link on which something waits to be sent moves, or ends: the other side
//! takes each frame within [`FRAME_TIMEOUT`], or as many short ones as make
//! [`GROUP`], whatever it says meanwhile. That is the least pace of a reader.

use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::Place;
use super::driver::Input;
use super::swarm::LinkId;
use crate::protocol::limits::{FRAME_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE};
use crate::protocol::{PeerMessage, RefuseReason};
use crate::transport::framed::PREFIX_LEN;
use crate::transport::{Connection, FrameSink, FrameStream};

/// How many messages may wait for the network: all requests and answers that
/// the machine has outstanding, and its announcements. A link that lets more
/// pile up is ended.
pub(super) const QUEUE_LEN: usize = 2048;

/// How long a link may take to send what is queued once this side is done with
/// it, whatever it was waiting for.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes of short messages go to the network together, before this
/// side waits until all are taken. Longer ones go one by one, so that each has
/// its time.
const GROUP: usize = 4 << 10;

/// Carries messages until either side ends the link, or its place is given to
/// another; then reports that. This side ends it by dropping the queue's sender
/// and cancelling `closing`.
pub(super) async fn run(
    id: LinkId,
    connection: Connection,
    place: Place,
    queue: mpsc::Receiver<PeerMessage>,
    closing: CancellationToken,
    inbox: mpsc::Sender<Input>,
) {
    let Connection {
        remote,
        mut sink,
        stream,
        ..
    } = connection;
    let overdue = async {
        closing.cancelled().await;
        sleep(FAREWELL_TIMEOUT).await;
    };
    let ended = tokio::select! {
        biased;
        () = place.cut() => None,
        ended = write(id, &mut sink, queue, &inbox) => Some(ended),
        ended = read(id, stream, &inbox) => Some(ended),
        () = overdue => Some("the other side did not take the farewell".into()),
    };
    let ended = ended.unwrap_or_else(|| {
        let busy = PeerMessage::Refuse(RefuseReason::Busy);
        // As far as that takes no waiting.
        let _ = sink.send(busy.encode()).now_or_never();
        "another host needs the place".into()
    });
    drop((sink, place));
    tracing::debug!(link = id.0, %remote, %ended, "link ended");
    // When the swarm is gone already, nobody needs to know.
    let _ = inbox.send(Input::Down { link: id }).await;
}

async fn read(id: LinkId, mut stream: FrameStream, inbox: &mpsc::Sender<Input>) -> String {
    loop {
        let frame = match timeout(IDLE_TIMEOUT, stream.next()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return error.to_string(),
            Ok(None) => return "closed by the other side".into(),
            Err(_) => return "silent for too long".into(),
        };
        let message = match PeerMessage::decode(frame) {
            Ok(message) => message,
            Err(error) => return error.to_string(),
        };
        let heard = Input::Message { link: id, message };
        if inbox.send(heard).await.is_err() {
            // Nobody listens any more; the farewell is for the writer to send.
            return std::future::pending().await;
        }
    }
}

async fn write(
    id: LinkId,
    sink: &mut FrameSink,
    mut queue: mpsc::Receiver<PeerMessage>,
    inbox: &mpsc::Sender<Input>,
) -> String {
    loop {
        let first = match timeout(KEEP_ALIVE, queue.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => {
                return match sink.close().await {
                    Ok(()) => "closed by this side".into(),
                    Err(error) => error.to_string(),
                };
            }
            Err(_) => PeerMessage::KeepAlive,
        };
        let sent = match send(id, sink, first, &mut queue).await {
            Ok(sent) => sent,
            Err(error) => return error.to_string(),
        };
        // When the swarm is gone, what it had queued is still to be sent.
        let _ = inbox.send(sent).await;
    }
}

/// Sends a message and what waits behind it, up to a [`GROUP`].
async fn send(
    id: LinkId,
    sink: &mut FrameSink,
    first: PeerMessage,
    queue: &mut mpsc::Receiver<PeerMessage>,
) -> Result<Input, SendError> {
    let (mut messages, mut bytes, mut group) = (0, 0, 0);
    let mut next = Some(first);
    while let Some(message) = next {
        match &message {
            // From here, and not from the machine.
            PeerMessage::KeepAlive => {}
            PeerMessage::Block { data, .. } => {
                messages += 1;
                bytes += data.len() as u64;
            }
            _ => messages += 1,
        }
        let frame = message.encode();
        group += PREFIX_LEN + frame.len();
        timeout(FRAME_TIMEOUT, sink.feed(frame)).await??;
        next = match group < GROUP {
            true => queue.try_recv().ok(),
            false => None,
        };
    }
    timeout(FRAME_TIMEOUT, sink.flush()).await??;
    Ok(Input::Sent {
        link: id,
        messages,
        bytes,
    })
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the other side does not read")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Transport(#[from] crate::transport::TransportError),
}
