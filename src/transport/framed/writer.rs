//! The writing half: from frames to bytes.
//!
//! Frames wait as a queue of chunks. Prefixes and small heads are gathered
//! into one chunk; a body, or a long head, is a chunk of its own that shares
//! the frame's memory. So the same queue serves a byte stream that can write
//! many chunks at once and one that cannot.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Sink;
use tokio::io::AsyncWrite;

use super::PREFIX_LEN;
use crate::protocol::Frame;
use crate::transport::{TransportError, check_sendable};

/// How many bytes may wait before the sink takes no more frames: four of the
/// longest blocks, enough to fill a socket's buffer in one call, and little
/// enough that what is decided now is sent soon. The last frame taken may run
/// over it.
pub const MAX_QUEUED: usize = 1 << 20;

/// How many chunks may wait: bounds the queue's own memory when bodies are
/// tiny.
const MAX_CHUNKS: usize = 4 * MAX_SLICES;

/// How many chunks go into one vectored write.
const MAX_SLICES: usize = 64;

/// Heads up to this length, in bytes, are copied next to their prefix: less
/// work than a chunk.
const COPIED_HEAD: usize = 512;

/// Frames into a byte stream.
pub(super) struct FrameWriter<W> {
    io: W,
    /// Chunks behind each other on the wire; `gathered` comes after the last.
    chunks: VecDeque<Bytes>,
    gathered: BytesMut,
    /// Bytes in `chunks` and `gathered`.
    queued: usize,
    state: State,
}

enum State {
    Open,
    Closing,
    Closed,
    Failed(TransportError),
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(super) fn new(io: W) -> Self {
        Self {
            io,
            chunks: VecDeque::new(),
            gathered: BytesMut::new(),
            queued: 0,
            state: State::Open,
        }
    }

    fn push(&mut self, frame: Frame) {
        self.queued += PREFIX_LEN + frame.len();
        // Both lengths were checked and fit.
        self.gathered.put_u16(frame.head.len() as u16);
        self.gathered.put_u32(frame.body.len() as u32);
        if frame.head.len() <= COPIED_HEAD {
            self.gathered.put_slice(&frame.head);
        } else {
            self.push_chunk(frame.head);
        }
        if !frame.body.is_empty() {
            self.push_chunk(frame.body);
        }
    }

    fn push_chunk(&mut self, chunk: Bytes) {
        self.seal();
        self.chunks.push_back(chunk);
    }

    /// Makes a chunk of what was gathered.
    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(self.gathered.split().freeze());
        }
    }

    fn is_full(&self) -> bool {
        self.queued >= MAX_QUEUED || self.chunks.len() >= MAX_CHUNKS
    }

    /// Writes once, as much as the byte stream takes.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal();
        let io = Pin::new(&mut self.io);
        let written = if self.chunks.len() > 1 && io.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut filled = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                filled += 1;
            }
            ready!(io.poll_write_vectored(cx, &slices[..filled]))?
        } else {
            ready!(io.poll_write(cx, self.chunks.front().map_or(&[], |chunk| chunk)))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.queued -= written;
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued > 0 {
            ready!(self.poll_write(cx))?;
        }
        // An idle connection holds no memory.
        self.gathered = BytesMut::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// A failed write is final: part of a frame may be gone.
    fn failed(&mut self, error: io::Error) -> TransportError {
        let error = TransportError::from(error);
        self.state = State::Failed(error.clone());
        self.chunks.clear();
        self.gathered = BytesMut::new();
        self.queued = 0;
        error
    }

    fn check_open(&self) -> Result<(), TransportError> {
        match &self.state {
            State::Open => Ok(()),
            State::Closing | State::Closed => Err(TransportError::Closed),
            State::Failed(error) => Err(error.clone()),
        }
    }
}

impl<W: AsyncWrite + Unpin> Sink<Frame> for FrameWriter<W> {
    type Error = TransportError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        self.check_open()?;
        while self.is_full() {
            ready!(self.poll_write(cx)).map_err(|error| self.failed(error))?;
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), TransportError> {
        self.check_open()?;
        check_sendable(&frame)?;
        self.push(frame);
        Ok(())
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        match &self.state {
            State::Closed => return Poll::Ready(Ok(())),
            State::Failed(error) => return Poll::Ready(Err(error.clone())),
            State::Open | State::Closing => {}
        }
        self.poll_drain(cx).map_err(|error| self.failed(error))
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if matches!(self.state, State::Closed) {
            return Poll::Ready(Ok(()));
        }
        self.state = State::Closing;
        ready!(Pin::new(&mut self.io).poll_shutdown(cx)).map_err(|error| self.failed(error))?;
        self.state = State::Closed;
        Poll::Ready(Ok(()))
    }
}
