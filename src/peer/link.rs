//! The task of one link: frames in, frames out, nothing decided.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::driver::Input;
use super::swarm::LinkId;
use crate::protocol::PeerMessage;
use crate::protocol::limits::{FRAME_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE};
use crate::transport::{Connection, FrameSink, FrameStream};

/// How many messages may wait for the network: all requests and answers that
/// the machine has outstanding, and its announcements. A link that lets more
/// pile up is ended.
pub(super) const QUEUE_LEN: usize = 2048;

/// How long a link may take to send what is queued once this side is done with
/// it, whatever it was waiting for.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How many queued messages are handed to the network before the machine
/// hears that they are gone.
const BATCH: usize = 32;

/// Carries messages until either side ends the link; then reports that. This
/// side ends it by dropping the queue's sender and cancelling `closing`.
pub(super) async fn run(
    id: LinkId,
    connection: Connection,
    queue: mpsc::Receiver<PeerMessage>,
    closing: CancellationToken,
    inbox: mpsc::Sender<Input>,
) {
    let Connection {
        remote,
        sink,
        stream,
        ..
    } = connection;
    let overdue = async {
        closing.cancelled().await;
        sleep(FAREWELL_TIMEOUT).await;
    };
    let ended = tokio::select! {
        biased;
        ended = write(id, sink, queue, &inbox) => ended,
        ended = read(id, stream, &inbox) => ended,
        () = overdue => "the other side did not take the farewell".into(),
    };
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
    mut sink: FrameSink,
    mut queue: mpsc::Receiver<PeerMessage>,
    inbox: &mpsc::Sender<Input>,
) -> String {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let waited = timeout(KEEP_ALIVE, queue.recv_many(&mut batch, BATCH)).await;
        let closed = waited == Ok(0);
        let messages = batch.len();
        if waited.is_err() {
            batch.push(PeerMessage::KeepAlive);
        }
        let mut bytes = 0;
        let sending = async {
            for message in batch.drain(..) {
                if let PeerMessage::Block { data, .. } = &message {
                    bytes += data.len() as u64;
                }
                let frame = message.encode();
                timeout(FRAME_TIMEOUT, sink.feed(frame)).await??;
            }
            if closed {
                sink.close().await?;
            } else {
                let all = FRAME_TIMEOUT * messages.max(1) as u32;
                timeout(all, sink.flush()).await??;
            }
            Ok::<_, SendError>(())
        };
        match sending.await {
            Ok(()) if closed => return "closed by this side".into(),
            Ok(()) => {}
            Err(error) => return error.to_string(),
        }
        let sent = Input::Sent {
            link: id,
            messages,
            bytes,
        };
        // When the swarm is gone, what it had queued is still to be sent.
        let _ = inbox.send(sent).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the other side does not read")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Transport(#[from] crate::transport::TransportError),
}
