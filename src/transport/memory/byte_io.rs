//! The network as a transport of byte streams: each write is a frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::endpoint::{MemoryListener, MemoryTransport};
use crate::protocol::limits::MAX_FRAMES;
use crate::protocol::{Addr, Frame};
use crate::transport::connection::{Connection, FrameSink, FrameStream};
use crate::transport::error::TransportError;
use crate::transport::stream::{ByteStream, StreamListener, StreamTransport};
use crate::transport::traits::{Listener, Transport};

/// The bytes of one connection of a [`MemoryTransport`].
pub struct MemoryStream {
    sink: FrameSink,
    stream: FrameStream,
    /// What has arrived and was not read yet.
    unread: Bytes,
}

impl std::fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStream").finish_non_exhaustive()
    }
}

fn byte_stream(connection: Connection) -> ByteStream<MemoryStream> {
    let io = MemoryStream {
        sink: connection.sink,
        stream: connection.stream,
        unread: Bytes::new(),
    };
    ByteStream::new(io, connection.remote, connection.local)
}

/// The error of the network itself, where it is one.
fn io_error(error: TransportError) -> io::Error {
    match error {
        TransportError::Io { kind, .. } => io::Error::new(kind, error),
        TransportError::Closed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(frame)) => self.unread = frame.body,
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..len]);
        self.unread.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(Pin::new(&mut self.sink).poll_ready(cx)).map_err(io_error)?;
        let len = buf.len().min(MAX_FRAMES.body as usize);
        let frame = Frame {
            head: Bytes::new(),
            body: Bytes::copy_from_slice(&buf[..len]),
        };
        let sent = Pin::new(&mut self.sink).start_send(frame);
        Poll::Ready(sent.map(|()| len).map_err(io_error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sink).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sink).poll_close(cx).map_err(io_error)
    }
}

#[async_trait]
impl StreamTransport for MemoryTransport {
    type Stream = MemoryStream;
    type Listener = MemoryListener;

    async fn connect_stream(
        &self,
        addr: &Addr,
    ) -> Result<ByteStream<MemoryStream>, TransportError> {
        self.connect(addr).await.map(byte_stream)
    }

    async fn listen_for_streams(&self, addr: &Addr) -> Result<MemoryListener, TransportError> {
        self.listener(addr)
    }

    fn check_addr(&self, addr: &Addr) -> Result<(), TransportError> {
        self.check(addr)
    }
}

#[async_trait]
impl StreamListener for MemoryListener {
    type Stream = MemoryStream;

    async fn accept_stream(&mut self) -> Result<ByteStream<MemoryStream>, TransportError> {
        self.accept().await.map(byte_stream)
    }

    fn local_addr(&self) -> &Addr {
        Listener::local_addr(self)
    }
}
