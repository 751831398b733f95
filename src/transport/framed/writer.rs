//! The writing half: from frames to bytes.
//!
//! Frames wait in a queue of byte chunks. Prefixes and short heads are gathered
//! into one chunk. A body or a long head is a chunk of its own, which shares the
//! frame's memory. The same queue serves byte streams with and without vectored
//! writes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Sink;
use tokio::io::AsyncWrite;

use super::prefix::{self, PREFIX_LEN};
use crate::protocol::Frame;
use crate::transport::connection::check_sendable;
use crate::transport::error::TransportError;

/// How many bytes may wait before the sink accepts no more frames: four of the
/// longest blocks. That fills a socket's buffer in one call, and is still little
/// enough that a new frame is sent soon. The last frame may exceed the limit.
pub const MAX_QUEUED: usize = 1 << 20;

/// How many chunks may wait. This bounds the memory of the queue itself when
/// bodies are tiny.
const MAX_CHUNKS: usize = 4 * MAX_SLICES;

/// How many chunks go into one vectored write.
pub(in crate::transport) const MAX_SLICES: usize = 64;

/// Heads up to this length, in bytes, are copied next to their prefix, which is
/// cheaper than a chunk of their own.
const COPIED_HEAD: usize = 512;

/// Where chunks are written: any byte stream, or something that can keep a chunk instead of a
/// copy of it.
pub(in crate::transport) trait ChunkWrite {
    /// Writes once, as much of the first chunks as is accepted, and returns how many bytes
    /// that is.
    fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>>;

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<W: AsyncWrite + Unpin> ChunkWrite for W {
    fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(self);
        if chunks.len() > 1 && io.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut filled = 0;
            for (slice, chunk) in slices.iter_mut().zip(chunks) {
                *slice = IoSlice::new(chunk);
                filled += 1;
            }
            io.poll_write_vectored(cx, &slices[..filled])
        } else {
            io.poll_write(cx, chunks.front().map_or(&[], |chunk| chunk))
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(self), cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(self), cx)
    }
}

/// Drops what was written of the first chunks.
fn advance(chunks: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(chunk) = chunks.front_mut() {
        if written < chunk.len() {
            chunk.advance(written);
            return;
        }
        written -= chunk.len();
        chunks.pop_front();
    }
}

/// Writes all chunks, several with one call.
///
/// Not cancel safe: some of the bytes may be written.
#[cfg(feature = "bittorrent")]
pub(crate) async fn write_chunks(
    io: &mut (impl AsyncWrite + Unpin),
    mut chunks: VecDeque<Bytes>,
) -> io::Result<()> {
    while !chunks.is_empty() {
        let written = std::future::poll_fn(|cx| io.poll_write_chunks(cx, &chunks)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(&mut chunks, written);
    }
    Ok(())
}

/// Frames into a byte stream.
pub(in crate::transport) struct FrameWriter<W> {
    io: W,
    /// Chunks in their order on the wire. `gathered` comes after the last one.
    chunks: VecDeque<Bytes>,
    gathered: BytesMut,
    /// Bytes in `chunks` and `gathered`.
    queued: usize,
    state: WriteState,
}

enum WriteState {
    Open,
    Closing,
    Closed,
    /// A write failed; every later call gets the same error.
    Failed(TransportError),
}

impl<W: ChunkWrite + Unpin> FrameWriter<W> {
    pub(in crate::transport) fn new(io: W) -> Self {
        Self {
            io,
            chunks: VecDeque::new(),
            gathered: BytesMut::new(),
            queued: 0,
            state: WriteState::Open,
        }
    }

    /// The byte stream. What is not written is dropped.
    #[cfg(feature = "_quic")]
    pub(in crate::transport) fn into_io(self) -> W {
        self.io
    }

    fn push(&mut self, frame: Frame) {
        self.queued += PREFIX_LEN + frame.len();
        // `start_send` has checked both lengths.
        prefix::put(&mut self.gathered, &frame);
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

    /// Makes a chunk of the gathered bytes.
    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(self.gathered.split().freeze());
        }
    }

    fn is_full(&self) -> bool {
        self.queued >= MAX_QUEUED || self.chunks.len() >= MAX_CHUNKS
    }

    /// Writes once, as much as the byte stream accepts.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal();
        let written = ready!(self.io.poll_write_chunks(cx, &self.chunks))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.queued -= written;
        advance(&mut self.chunks, written);
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued > 0 {
            ready!(self.poll_write(cx))?;
        }
        // An idle connection holds no memory.
        self.gathered = BytesMut::new();
        self.io.poll_flush(cx)
    }

    /// Makes a failed write final: a part of a frame may already be on its way.
    fn failed(&mut self, error: io::Error) -> TransportError {
        let error = TransportError::from(error);
        self.state = WriteState::Failed(error.clone());
        self.chunks.clear();
        self.gathered = BytesMut::new();
        self.queued = 0;
        error
    }

    fn check_open(&self) -> Result<(), TransportError> {
        match &self.state {
            WriteState::Open => Ok(()),
            WriteState::Closing | WriteState::Closed => Err(TransportError::Closed),
            WriteState::Failed(error) => Err(error.clone()),
        }
    }
}

impl<W: ChunkWrite + Unpin> Sink<Frame> for FrameWriter<W> {
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
            WriteState::Closed => return Poll::Ready(Ok(())),
            WriteState::Failed(error) => return Poll::Ready(Err(error.clone())),
            WriteState::Open | WriteState::Closing => {}
        }
        self.poll_drain(cx).map_err(|error| self.failed(error))
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if matches!(self.state, WriteState::Closed) {
            return Poll::Ready(Ok(()));
        }
        self.state = WriteState::Closing;
        ready!(self.io.poll_shutdown(cx)).map_err(|error| self.failed(error))?;
        self.state = WriteState::Closed;
        Poll::Ready(Ok(()))
    }
}

#[cfg(all(test, feature = "bittorrent"))]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn chunks_are_written_in_order_however_few_bytes_are_taken() {
        let (mut this, mut other) = tokio::io::duplex(7);
        let chunks = [&b"abc"[..], b"", b"defghijklmnop", b"q"].map(Bytes::from_static);
        let mut all = vec![0; 17];
        let (written, read) = tokio::join!(
            write_chunks(&mut this, chunks.into()),
            other.read_exact(&mut all)
        );
        written.unwrap();
        read.unwrap();
        assert_eq!(all, b"abcdefghijklmnopq");
        drop(other);
        let failed = write_chunks(&mut this, VecDeque::from([Bytes::from_static(b"r")])).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
