//! The reading half: from bytes to frames.
//!
//! There are two buffers. Small things (prefixes, heads, control messages) are
//! read in batches into `pending`. A body has a [`Buffer`] of its own, and its
//! reads may run [`PEEK`] bytes past its end. When blocks follow each other, that
//! already reads the next prefix and head, so that a block costs no extra read.
//! The bytes past the end move to `pending`.
//!
//! Heads are copied out of `pending`: they are small, and a head that shared the
//! memory of the batch would keep all of it alive.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Sleep, sleep};

use super::prefix;
use crate::buffers::Buffer;
use crate::protocol::Frame;
use crate::protocol::limits::FRAME_TIMEOUT;
use crate::transport::connection::LimitHandle;
use crate::transport::error::TransportError;

/// How much is read at once outside of bodies, in bytes: enough for hundreds of
/// control messages, and little to copy when a body begins in it.
const BATCH: usize = 4 << 10;

/// How far a read may run past the end of a body, in bytes: enough for a prefix
/// and the head of a block.
const PEEK: usize = 64;

/// Frames from a byte stream.
pub(in crate::transport) struct FrameReader<R> {
    io: R,
    limits: LimitHandle,
    state: ReadState,
    /// Whether no frame has come yet.
    is_first: bool,
    /// Bytes that are read but not yet parsed.
    pending: BytesMut,
    /// Set while the reader waits inside a frame.
    deadline: Option<Pin<Box<Sleep>>>,
}

enum ReadState {
    /// Between two frames, or inside a prefix.
    Prefix,
    /// Both lengths are known, and within the limits.
    Head { head: usize, body: usize },
    /// `bytes` grows to `len`, and by up to [`PEEK`] more.
    Body {
        head: Bytes,
        bytes: Buffer,
        len: usize,
    },
    /// Closed or broken.
    End,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(in crate::transport) fn new(io: R, limits: LimitHandle) -> Self {
        Self {
            io,
            limits,
            state: ReadState::Prefix,
            is_first: true,
            pending: BytesMut::new(),
            deadline: None,
        }
    }

    /// Parses the bytes that are there. Returns `None` if a frame needs more.
    fn parse(&mut self) -> Result<Option<Frame>, TransportError> {
        if matches!(self.state, ReadState::Prefix)
            && let Some((head, body)) = prefix::take(&mut self.pending)
        {
            if let Err(error) = self.limits.check(head, body) {
                return Err(match self.is_first && prefix::is_tls(head, body) {
                    true => TransportError::SpeaksTls,
                    false => error,
                });
            }
            self.is_first = false;
            self.state = ReadState::Head { head, body };
        }
        if let ReadState::Head { head, body: len } = self.state
            && self.pending.len() >= head
        {
            let head = take(&mut self.pending, head);
            if self.pending.len() >= len {
                let body = take(&mut self.pending, len);
                self.state = ReadState::Prefix;
                return Ok(Some(Frame { head, body }));
            }
            let mut bytes = Buffer::with_room(len + PEEK);
            bytes.extend_from_slice(&self.pending);
            self.pending = BytesMut::new();
            self.state = ReadState::Body { head, bytes, len };
        }
        match std::mem::replace(&mut self.state, ReadState::Prefix) {
            ReadState::Body {
                head,
                mut bytes,
                len,
            } if bytes.len() >= len => {
                self.pending = BytesMut::from(&bytes[len..]);
                bytes.truncate(len);
                let body = bytes.freeze();
                Ok(Some(Frame { head, body }))
            }
            state => {
                self.state = state;
                Ok(None)
            }
        }
    }

    /// Reads what the current state can use. Returns 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.state {
            ReadState::Body { bytes, len, .. } => {
                let room = *len + PEEK - bytes.len();
                poll_read(&mut self.io, cx, &mut **bytes, room)
            }
            state => {
                let missing = match state {
                    ReadState::Head { head, .. } => *head - self.pending.len(),
                    _ => 0,
                };
                let room = missing.max(BATCH);
                // Allocates exactly this much; growing in place would double it.
                if self.pending.capacity() - self.pending.len() < room {
                    let mut roomy = BytesMut::with_capacity(self.pending.len() + room);
                    roomy.extend_from_slice(&self.pending);
                    self.pending = roomy;
                }
                let read = poll_read(&mut self.io, cx, &mut self.pending, room);
                if self.pending.is_empty() {
                    // An idle connection holds no memory.
                    self.pending = BytesMut::new();
                }
                read
            }
        }
    }

    /// Whether a part of a frame is there.
    pub(in crate::transport) fn is_inside_a_frame(&self) -> bool {
        !matches!(self.state, ReadState::Prefix) || !self.pending.is_empty()
    }

    /// Waits for the deadline of the frame that is being read. The timer starts
    /// with the first wait, right after the first byte was seen, so that a frame
    /// that arrives at once costs no timer.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_inside_a_frame() {
            return Poll::Pending;
        }
        self.deadline
            .get_or_insert_with(|| Box::pin(sleep(FRAME_TIMEOUT)))
            .as_mut()
            .poll(cx)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, TransportError>>> {
        loop {
            if let Some(frame) = self.parse()? {
                self.deadline = None;
                return Poll::Ready(Some(Ok(frame)));
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.is_inside_a_frame() => {
                    return Poll::Ready(Some(Err(TransportError::Truncated)));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending => {
                    ready!(self.poll_deadline(cx));
                    return Poll::Ready(Some(Err(TransportError::FrameTimeout)));
                }
            }
        }
    }
}

impl<R: AsyncRead + Unpin> Stream for FrameReader<R> {
    type Item = Result<Frame, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if matches!(self.state, ReadState::End) {
            return Poll::Ready(None);
        }
        let item = ready!(self.poll_frame(cx));
        if !matches!(item, Some(Ok(_))) {
            self.state = ReadState::End;
            self.pending = BytesMut::new();
            self.deadline = None;
        }
        Poll::Ready(item)
    }
}

/// Takes a copy of the first `len` bytes, so that they do not keep the batch
/// alive.
fn take(pending: &mut BytesMut, len: usize) -> Bytes {
    let bytes = Bytes::copy_from_slice(&pending[..len]);
    pending.advance(len);
    bytes
}

/// Reads up to `room` bytes into the spare capacity. The future keeps no state
/// between polls, so that a new one can be made for each poll.
fn poll_read<R: AsyncRead + Unpin>(
    io: &mut R,
    cx: &mut Context<'_>,
    buf: &mut impl BufMut,
    room: usize,
) -> Poll<io::Result<usize>> {
    let mut buf = buf.limit(room);
    std::pin::pin!(io.read_buf(&mut buf)).poll(cx)
}
