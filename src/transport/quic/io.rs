//! The stream of a connection, as bytes in both directions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quinn::{Connection, ReadError, RecvStream, SendStream, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::error::{DONE, ended};

/// How long a side that has ended waits for the other to have everything. What TCP leaves
/// to the operating system must be done here, before the connection is closed.
const LINGER: Duration = Duration::from_secs(3);

/// One stream of one connection, which ends with it.
pub(super) struct QuicIo {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    /// Set while this side ends.
    closing: Option<BoxFuture<'static, ()>>,
}

impl QuicIo {
    pub(super) fn new(connection: Connection, (send, recv): (SendStream, RecvStream)) -> Self {
        Self {
            connection,
            send,
            recv,
            closing: None,
        }
    }

    /// Waits until the other side has everything, or is gone.
    fn acknowledged(&self) -> BoxFuture<'static, ()> {
        let stopped = self.send.stopped();
        timeout(LINGER, stopped).map(drop).boxed()
    }
}

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

impl AsyncRead for QuicIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.recv.poll_read_buf(cx, buf).map_err(read_failed)
    }
}

impl AsyncWrite for QuicIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let send = Pin::new(&mut self.send);
        send.poll_write(cx, buf).map_err(write_failed)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Waits until the other side has everything.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut closing = match self.closing.take() {
            Some(closing) => closing,
            None => {
                // It fails only if the other side has stopped it.
                let _ = self.send.finish();
                self.acknowledged()
            }
        };
        if closing.as_mut().poll(cx).is_pending() {
            self.closing = Some(closing);
            return Poll::Pending;
        }
        self.closing = Some(std::future::ready(()).boxed());
        Poll::Ready(Ok(()))
    }
}

impl Drop for QuicIo {
    /// What was written still arrives, as over TCP; the connection is closed after that.
    fn drop(&mut self) {
        let _ = self.send.finish();
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.connection.close_reason().is_some() {
            return;
        }
        let (acknowledged, connection) = (self.acknowledged(), self.connection.clone());
        runtime.spawn(async move {
            acknowledged.await;
            connection.close(DONE, b"");
        });
    }
}
