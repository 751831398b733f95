//! The two halves of a connection inside the process.
//!
//! While nothing is shaped (see [`SharedNetwork::is_plain`]), a frame goes from one half
//! to the other under the lock of its pipe alone.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Sink, Stream};

use super::pipe::{FlowItem, Pipe, Taken, reset_error};
use super::schedule::FlowId;
use super::shared::SharedNetwork;
use super::state::Flow;
use crate::protocol::{Addr, Frame};
use crate::transport::connection::{Connection, LimitHandle, check_sendable};
use crate::transport::error::TransportError;

/// One side of a connection: it sends on one flow and receives on the other.
pub(super) fn connection(
    network: &Arc<SharedNetwork>,
    remote: Addr,
    outgoing: &Flow,
    incoming: &Flow,
) -> Connection {
    let limits = LimitHandle::default();
    let sink = MemorySink {
        network: network.clone(),
        pipe: outgoing.pipe.clone(),
        flow: outgoing.id,
        closed: false,
    };
    let stream = MemoryStream {
        network: network.clone(),
        pipe: incoming.pipe.clone(),
        flow: incoming.id,
        left: false,
        limits: limits.clone(),
    };
    Connection::new(remote, sink, stream, limits)
}

/// The sending half.
struct MemorySink {
    network: Arc<SharedNetwork>,
    pipe: Arc<Pipe>,
    flow: FlowId,
    closed: bool,
}

impl MemorySink {
    fn finish(&mut self) {
        if !self.closed {
            self.closed = true;
            self.network.send(self.flow, FlowItem::End);
        }
    }
}

impl Sink<Frame> for MemorySink {
    type Error = TransportError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.closed {
            return Poll::Ready(Err(TransportError::Closed));
        }
        self.pipe.poll_room(cx)
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), TransportError> {
        if self.closed {
            return Err(TransportError::Closed);
        }
        check_sendable(&frame)?;
        if self.network.is_plain() {
            if let Some(reader) = self.pipe.send_at_once(frame)? {
                reader.wake();
            }
        } else {
            self.pipe.reserve(&frame)?;
            self.network.send(self.flow, FlowItem::Frame(frame));
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.pipe.check_writable())
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The receiving half.
struct MemoryStream {
    network: Arc<SharedNetwork>,
    pipe: Arc<Pipe>,
    flow: FlowId,
    left: bool,
    limits: LimitHandle,
}

impl MemoryStream {
    /// Takes nothing more, and lets the sender know. What is on its way is lost.
    fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let writer = self.pipe.close_reader();
        self.network.abandon(self.flow);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl Stream for MemoryStream {
    type Item = Result<Frame, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Two tasks that always find a frame must still let other tasks run.
        ready!(pin!(tokio::task::consume_budget()).poll(cx));
        let (frame, writer) = match ready!(self.pipe.poll_take(cx)) {
            Taken::Frame(frame, writer) => (frame, writer),
            Taken::End => {
                self.leave();
                return Poll::Ready(None);
            }
            Taken::Reset => {
                self.leave();
                return Poll::Ready(Some(Err(reset_error())));
            }
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        if let Err(error) = self.limits.check(frame.head.len(), frame.body.len()) {
            self.leave();
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.leave();
    }
}
