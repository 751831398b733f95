//! One direction of a connection inside the process: a queue of frames that is
//! bounded in bytes.
//!
//! Frames that are on their way count against the bound until the receiver takes
//! them, so the network never holds more than that for a link.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::lock::lock;
use crate::protocol::Frame;
use crate::transport::error::TransportError;
use crate::transport::framed::PREFIX_LEN;

/// How many bytes may be on a link in one direction, accepted by the sink and not
/// yet read from the stream, before the sink accepts no more, unless
/// [`set_link_bytes`](super::MemoryNetwork::set_link_bytes) changes it: two of the
/// longest blocks, so that one is queued while another is on its way. The last frame
/// may exceed the limit.
pub const LINK_BYTES: usize = 512 << 10;

/// What a frame counts as, in bytes: its length on a byte stream. So frames
/// without a byte are bounded too.
pub(super) fn cost(frame: &Frame) -> usize {
    PREFIX_LEN + frame.len()
}

/// What the sender puts on a flow.
#[derive(Debug)]
pub(super) enum FlowItem {
    Frame(Frame),
    /// The sender closed.
    End,
}

/// One direction of one connection.
///
/// Methods that return a [`Waker`] leave it to the caller to wake it once no
/// lock is held.
#[derive(Debug)]
pub(super) struct Pipe {
    /// The sink accepts frames while fewer bytes are on the link.
    limit: usize,
    state: Mutex<PipeState>,
}

#[derive(Debug, Default)]
struct PipeState {
    inbox: VecDeque<Frame>,
    /// The cost of all frames that are on their way or in the inbox.
    used: usize,
    end: Option<End>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sender closed, and all its frames have arrived.
    Finished,
    /// The network reset the connection.
    Reset,
}

/// What [`Pipe::poll_take`] got.
pub(super) enum Taken {
    /// A frame, and the writer if it waited for the room.
    Frame(Frame, Option<Waker>),
    /// The sender closed, or nobody reads any more.
    End,
    /// The network reset the connection.
    Reset,
}

/// What both halves get after a reset.
pub(super) fn reset_error() -> TransportError {
    io::Error::from(io::ErrorKind::ConnectionReset).into()
}

impl PipeState {
    fn check_writable(&self) -> Result<(), TransportError> {
        if self.end == Some(End::Reset) {
            return Err(reset_error());
        }
        if self.reader_gone {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
        Ok(())
    }
}

impl Pipe {
    /// An empty pipe that holds about that many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    /// Fails if the other side will never read.
    pub(super) fn check_writable(&self) -> Result<(), TransportError> {
        lock(&self.state).check_writable()
    }

    /// Waits for room.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut state = lock(&self.state);
        state.check_writable()?;
        if state.used < self.limit {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Counts a frame that starts its way through the network.
    pub(super) fn reserve(&self, frame: &Frame) -> Result<(), TransportError> {
        let mut state = lock(&self.state);
        state.check_writable()?;
        state.used += cost(frame);
        Ok(())
    }

    /// Sends a frame that arrives at once.
    pub(super) fn send_at_once(&self, frame: Frame) -> Result<Option<Waker>, TransportError> {
        let mut state = lock(&self.state);
        state.check_writable()?;
        state.used += cost(&frame);
        state.inbox.push_back(frame);
        Ok(state.reader.take())
    }

    /// A frame arrives that was counted by [`reserve`](Self::reserve).
    pub(super) fn deliver(&self, frame: Frame) -> Option<Waker> {
        let mut state = lock(&self.state);
        if !state.reader_gone && state.end.is_none() {
            state.inbox.push_back(frame);
        }
        state.reader.take()
    }

    /// The end arrives, after the last frame.
    pub(super) fn finish(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.end.get_or_insert(End::Finished);
        state.reader.take()
    }

    /// Resets the connection: frames that were not read yet are lost.
    pub(super) fn reset(&self) -> [Option<Waker>; 2] {
        let mut state = lock(&self.state);
        state.end = Some(End::Reset);
        state.inbox.clear();
        [state.reader.take(), state.writer.take()]
    }

    /// Takes the next frame, or the end.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut state = lock(&self.state);
        if state.reader_gone {
            return Poll::Ready(Taken::End);
        }
        let Some(frame) = state.inbox.pop_front() else {
            return match state.end {
                Some(End::Finished) => Poll::Ready(Taken::End),
                Some(End::Reset) => Poll::Ready(Taken::Reset),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        state.used -= cost(&frame);
        let writer = match state.used < self.limit {
            true => state.writer.take(),
            false => None,
        };
        Poll::Ready(Taken::Frame(frame, writer))
    }

    /// The reader takes nothing more. The writer will learn of it.
    pub(super) fn close_reader(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.reader_gone = true;
        state.inbox.clear();
        state.reader = None;
        state.writer.take()
    }
}
