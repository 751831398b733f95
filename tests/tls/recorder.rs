//! What passes over the wire, as one who listens to it sees it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bt_lite::transport::{ByteStream, StreamListener, StreamTransport};
use bt_lite::{Addr, ContentId, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Everything that went over the wire in one direction of one side after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<TapeState>>);

#[derive(Debug, Default)]
struct TapeState {
    read: Vec<u8>,
    written: Vec<u8>,
}

impl Tape {
    pub(crate) fn read(&self) -> Vec<u8> {
        self.0.lock().unwrap().read.clone()
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        self.0.lock().unwrap().written.clone()
    }

    /// Asserts that neither the name of the content, nor its id, nor a piece of it can be
    /// read, but that there is something.
    pub(crate) fn expect_unreadable(&self, name: &str, id: &ContentId, bytes: &[u8]) {
        let hex = id.to_string();
        let secrets = [
            name.as_bytes(),
            id.as_bytes(),
            hex.as_bytes(),
            &bytes[..bytes.len().min(32)],
            b"memory:",
        ];
        for wire in [self.read(), self.written()] {
            assert!(!wire.is_empty(), "nothing was recorded");
            for secret in secrets {
                let found = wire.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "{:?} is readable", String::from_utf8_lossy(secret));
            }
        }
    }
}

/// A transport whose wire is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Recorded<S> {
    pub(crate) inner: S,
    pub(crate) tape: Tape,
}

impl<S> Recorded<S> {
    pub(crate) fn new(inner: S) -> Self {
        let tape = Tape::default();
        Self { inner, tape }
    }
}

pub(crate) struct RecordedListener<L> {
    inner: L,
    tape: Tape,
}

pub(crate) struct RecordedIo<S> {
    inner: S,
    tape: Tape,
}

impl<S> RecordedIo<S> {
    fn stream(stream: ByteStream<S>, tape: &Tape) -> ByteStream<Self> {
        let io = Self {
            inner: stream.io,
            tape: tape.clone(),
        };
        ByteStream::new(io, stream.remote, stream.local)
    }
}

#[async_trait]
impl<S: StreamTransport> StreamTransport for Recorded<S> {
    type Stream = RecordedIo<S::Stream>;
    type Listener = RecordedListener<S::Listener>;

    async fn connect_stream(
        &self,
        addr: &Addr,
    ) -> Result<ByteStream<Self::Stream>, TransportError> {
        let stream = self.inner.connect_stream(addr).await?;
        Ok(RecordedIo::stream(stream, &self.tape))
    }

    async fn listen_for_streams(&self, addr: &Addr) -> Result<Self::Listener, TransportError> {
        Ok(RecordedListener {
            inner: self.inner.listen_for_streams(addr).await?,
            tape: self.tape.clone(),
        })
    }
}

#[async_trait]
impl<L: StreamListener> StreamListener for RecordedListener<L> {
    type Stream = RecordedIo<L::Stream>;

    async fn accept_stream(&mut self) -> Result<ByteStream<Self::Stream>, TransportError> {
        let stream = self.inner.accept_stream().await?;
        Ok(RecordedIo::stream(stream, &self.tape))
    }

    fn local_addr(&self) -> &Addr {
        self.inner.local_addr()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        self.tape.0.lock().unwrap().read.extend_from_slice(new);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = written {
            let mut tape = self.tape.0.lock().unwrap();
            tape.written.extend_from_slice(&buf[..len]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
