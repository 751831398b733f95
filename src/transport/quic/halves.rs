//! The two directions of a stream, as bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ended;

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
