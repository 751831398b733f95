//! One direction of a connection inside the process: a queue of frames that is
//! bounded in bytes, and the two halves that hold it.
//!
//! What is on its way counts against the bound until the receiver takes it, so
//! the network behind never holds more than that for a link. While nothing is
//! shaped (see the module above), a frame goes from one half to the other
//! under the lock of this queue alone.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use futures::{Sink, Stream};

use super::network::Parcel;
use super::rates::FlowId;
use super::shared::{Shared, lock};
use crate::protocol::Frame;
use crate::transport::framed::PREFIX_LEN;
use crate::transport::{LimitHandle, TransportError, check_sendable};

/// How many bytes may be on a link in one direction, taken by the sink and not
/// yet read from the stream, before the sink takes no more: two of the longest
/// blocks, so that one is queued while another is on its way. The last frame
/// taken may run over it.
pub const LINK_BYTES: usize = 512 << 10;

/// What a frame counts as: what it would be on a byte stream. So frames
/// without a byte are bounded too.
pub(super) fn cost(frame: &Frame) -> usize {
    PREFIX_LEN + frame.len()
}

/// One direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Pipe(Mutex<PipeState>);

#[derive(Debug, Default)]
struct PipeState {
    inbox: VecDeque<Frame>,
    /// The cost of all that is on its way or in the inbox.
    used: usize,
    end: Option<End>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sender closed, and all that it sent is here.
    Finished,
    /// The network tore the connection.
    Reset,
}

fn reset() -> TransportError {
    io::Error::from(io::ErrorKind::ConnectionReset).into()
}

impl PipeState {
    fn check_writable(&self) -> Result<(), TransportError> {
        if self.end == Some(End::Reset) {
            return Err(reset());
        }
        if self.reader_gone {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
        Ok(())
    }
}

impl Pipe {
    /// A frame arrives. The waker is to be woken once no lock is held.
    pub(super) fn deliver(&self, frame: Frame) -> Option<Waker> {
        let mut state = lock(&self.0);
        if !state.reader_gone && state.end.is_none() {
            state.inbox.push_back(frame);
        }
        state.reader.take()
    }

    /// The end arrives, behind the last frame.
    pub(super) fn finish(&self) -> Option<Waker> {
        let mut state = lock(&self.0);
        state.end.get_or_insert(End::Finished);
        state.reader.take()
    }

    /// Tears the connection: what was not read yet is lost.
    pub(super) fn reset(&self) -> [Option<Waker>; 2] {
        let mut state = lock(&self.0);
        state.end = Some(End::Reset);
        state.inbox.clear();
        [state.reader.take(), state.writer.take()]
    }
}

/// The sending half.
pub(super) struct MemorySink {
    shared: Arc<Shared>,
    pipe: Arc<Pipe>,
    flow: FlowId,
    closed: bool,
}

impl MemorySink {
    pub(super) fn new(shared: Arc<Shared>, pipe: Arc<Pipe>, flow: FlowId) -> Self {
        Self {
            shared,
            pipe,
            flow,
            closed: false,
        }
    }

    fn finish(&mut self) {
        if !self.closed {
            self.closed = true;
            self.shared.send(self.flow, Parcel::End);
        }
    }
}

impl Sink<Frame> for MemorySink {
    type Error = TransportError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.closed {
            return Poll::Ready(Err(TransportError::Closed));
        }
        let mut state = lock(&self.pipe.0);
        state.check_writable()?;
        if state.used < LINK_BYTES {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), TransportError> {
        if self.closed {
            return Err(TransportError::Closed);
        }
        check_sendable(&frame)?;
        let mut state = lock(&self.pipe.0);
        state.check_writable()?;
        state.used += cost(&frame);
        let reader = if self.shared.is_plain() {
            state.inbox.push_back(frame);
            state.reader.take()
        } else {
            drop(state);
            self.shared.send(self.flow, Parcel::Frame(frame));
            return Ok(());
        };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(lock(&self.pipe.0).check_writable())
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
pub(super) struct MemoryStream {
    pipe: Arc<Pipe>,
    limits: LimitHandle,
}

impl MemoryStream {
    pub(super) fn new(pipe: Arc<Pipe>, limits: LimitHandle) -> Self {
        Self { pipe, limits }
    }

    /// Takes nothing more; the sender learns it.
    fn leave(&self) {
        let mut state = lock(&self.pipe.0);
        state.reader_gone = true;
        state.inbox.clear();
        state.reader = None;
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl Stream for MemoryStream {
    type Item = Result<Frame, TransportError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Two tasks that always find something to do let others run too.
        ready!(pin!(tokio::task::consume_budget()).poll(cx));
        let mut state = lock(&self.pipe.0);
        if state.reader_gone {
            return Poll::Ready(None);
        }
        let Some(frame) = state.inbox.pop_front() else {
            let Some(end) = state.end else {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            drop(state);
            self.leave();
            return Poll::Ready((end == End::Reset).then(|| Err(reset())));
        };
        state.used -= cost(&frame);
        let writer = match state.used < LINK_BYTES {
            true => state.writer.take(),
            false => None,
        };
        drop(state);
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
