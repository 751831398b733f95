//! The two directions of a stream, as bytes.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ended;
use crate::transport::framed::MAX_SLICES;

/// What arrives.
pub(super) struct ReadHalf(pub(super) RecvStream);

/// What is sent. To flush has no meaning: the library sends as soon as it may.
pub(super) struct WriteHalf(pub(super) SendStream);

fn read_failed(error: ReadError) -> io::Error {
    match error {
        ReadError::ConnectionLost(error) => ended(&error),
        error => error.into(),
    }
}

fn write_failed(error: WriteError) -> io::Error {
    match error {
        WriteError::ConnectionLost(error) => ended(&error),
        error => error.into(),
    }
}

impl WriteHalf {
    /// Writes once, as much of the first chunks as is accepted. The library keeps them, not
    /// copies, until the other side has received them.
    pub(super) fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        let mut chunks: Vec<Bytes> = chunks.iter().take(MAX_SLICES).cloned().collect();
        // The future keeps no state between polls, so that a new one can be made for each.
        let written = pin!(self.0.write_chunks(&mut chunks)).poll(cx);
        written
            .map_ok(|written| written.bytes)
            .map_err(write_failed)
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read_buf(cx, buf).map_err(read_failed)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let send = Pin::new(&mut self.0);
        send.poll_write(cx, buf).map_err(write_failed)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It fails only if the other side has stopped it.
        let _ = self.0.finish();
        Poll::Ready(Ok(()))
    }
}
