//! The task of one link: frames in, frames out, nothing decided.
//!
//! A link on which something waits to be sent must make progress, or it ends:
//! the other side takes each frame within [`FRAME_TIMEOUT`], or as many short
//! ones as make [`GROUP_LEN`], whatever it sends meanwhile. This is the
//! slowest that a reader may be.

use std::convert::Infallible;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use tracing::field::display;

use super::admission::ConnectionPlace;
use super::hello::{AwaitedHello, HandshakeError};
use super::inbox::DriverInput;
use super::swarm::{LinkCookies, LinkId};
use crate::protocol::limits::{FRAME_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE};
use crate::protocol::{PeerMessage, RefuseReason};
use crate::transport::framed::PREFIX_LEN;
use crate::transport::{Connection, FrameSink, FrameStream, LimitHandle, TransportError};

/// How many messages may wait for the network: all requests and answers that
/// the machine has outstanding, and its announcements. A link that lets more
/// pile up is ended.
pub(super) const QUEUE_LEN: usize = 2048;

/// How long a link may take to send what is queued after this side has ended
/// it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes of short messages go to the network together, before this
/// side waits until all are taken. Longer ones go one by one, so that each has
/// its own timeout.
const GROUP_LEN: usize = 4 << 10;

/// What a driver gives to a link.
pub(super) struct LinkInput {
    pub(super) messages: mpsc::Receiver<PeerMessage>,
    /// Cancelled when the link is to end behind what is queued. The sender of
    /// the messages is dropped then.
    pub(super) closing: CancellationToken,
}

/// One link, from the Hello of this side to its end.
pub(super) struct LinkTask {
    id: LinkId,
    inbox: mpsc::Sender<DriverInput>,
    /// The span of all that it logs.
    span: Span,
}

impl LinkTask {
    /// A link that reports to this inbox.
    pub(super) fn new(id: LinkId, inbox: mpsc::Sender<DriverInput>, span: Span) -> Self {
        Self { id, inbox, span }
    }

    /// Carries messages until either side ends the link, or its place is given
    /// to another connection. Then reports the end. Messages go out before the
    /// `awaited` Hello has come.
    pub(super) async fn run(
        self,
        connection: Connection,
        awaited: Option<AwaitedHello>,
        place: ConnectionPlace,
        LinkInput { messages, closing }: LinkInput,
    ) {
        let Connection {
            mut sink,
            mut stream,
            limits,
            ..
        } = connection;
        let read = async {
            if let Some(awaited) = awaited {
                self.meet(&awaited, &mut stream, &limits).await?;
            }
            Err(self.read(&mut stream).await)
        };
        let overdue = async {
            closing.cancelled().await;
            sleep(FAREWELL_TIMEOUT).await;
        };
        let ended = tokio::select! {
            biased;
            () = place.cut() => None,
            ended = self.write(&mut sink, messages) => Some(ended),
            Err::<Infallible, _>(ended) = read => Some(ended),
            () = overdue => Some("the other side did not read the farewell".into()),
        };
        let ended = ended.unwrap_or_else(|| {
            let busy = PeerMessage::Refuse(RefuseReason::Busy);
            // Only if that takes no waiting: the place is taken already.
            let _ = sink.send(busy.encode()).now_or_never();
            "another host needs the place".into()
        });
        drop((sink, place));
        tracing::debug!(%ended, "link ended");
        // When the driver has ended, nobody needs to know.
        let _ = self.inbox.send(DriverInput::Down { link: self.id }).await;
    }

    /// Reads the answer to the Hello of this side, and reports who answered. Returns why
    /// there is no link if nobody did.
    async fn meet(
        &self,
        awaited: &AwaitedHello,
        stream: &mut FrameStream,
        limits: &LimitHandle,
    ) -> Result<(), String> {
        let link = self.id;
        let input = match awaited.hear(stream, limits).await {
            Ok(hello) => {
                self.span.record("peer", display(hello.peer));
                tracing::debug!("link up");
                DriverInput::Met {
                    link,
                    peer: hello.peer,
                    cookies: LinkCookies {
                        said: awaited.cookie,
                        heard: hello.cookie,
                    },
                }
            }
            Err(HandshakeError::Refused(reason)) => DriverInput::Message {
                link,
                message: PeerMessage::Refuse(reason),
            },
            Err(error) => return Err(error.to_string()),
        };
        // When the driver has ended, the writer ends the link.
        let _ = self.inbox.send(input).await;
        Ok(())
    }

    /// Reads until the link ends, and returns why it did.
    async fn read(&self, stream: &mut FrameStream) -> String {
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
            let link = self.id;
            let heard = DriverInput::Message { link, message };
            if self.inbox.send(heard).await.is_err() {
                // The driver has ended. The writer still has to send its
                // farewell, and ends the link.
                return std::future::pending().await;
            }
        }
    }

    /// Sends what is queued until the link ends, and returns why it did.
    async fn write(&self, sink: &mut FrameSink, mut queue: mpsc::Receiver<PeerMessage>) -> String {
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
            let sent = match self.send(sink, first, &mut queue).await {
                Ok(sent) => sent,
                Err(error) => return error.to_string(),
            };
            // When the driver has ended, what it queued is still to be sent.
            let _ = self.inbox.send(sent).await;
        }
    }

    /// Sends a message and what waits behind it, up to [`GROUP_LEN`].
    async fn send(
        &self,
        sink: &mut FrameSink,
        first: PeerMessage,
        queue: &mut mpsc::Receiver<PeerMessage>,
    ) -> Result<DriverInput, SendError> {
        let (mut messages, mut bytes, mut group) = (0, 0, 0);
        let mut next = Some(first);
        while let Some(message) = next {
            match &message {
                // The link itself sends these, and the machine counts its own.
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
            next = match group < GROUP_LEN {
                true => queue.try_recv().ok(),
                false => None,
            };
        }
        timeout(FRAME_TIMEOUT, sink.flush()).await??;
        Ok(DriverInput::Sent {
            link: self.id,
            messages,
            bytes,
        })
    }
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the other side does not read")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Transport(#[from] TransportError),
}
