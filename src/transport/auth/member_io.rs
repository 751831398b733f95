//! The bytes of a session, as long as the other side is let in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::live::Ended;
use super::rustls_error::from_io;
use crate::transport::auth_error::AuthError;

/// A session with a member. Reading and writing fail once it is one no more.
pub(in crate::transport) struct MemberIo<S> {
    stream: S,
    ended: Ended,
}

impl<S> MemberIo<S> {
    pub(in crate::transport) fn new(stream: S, ended: Ended) -> Self {
        Self { stream, ended }
    }
}

/// With the refusal of the other side, where it has said one, and in words of ours.
fn told(error: io::Error) -> io::Error {
    match from_io(&error) {
        Some(auth @ AuthError::Refused { .. }) => failed(auth),
        // The text of the library is for those who program with it.
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            let text = "the connection was cut: TLS was not ended first";
            io::Error::new(io::ErrorKind::UnexpectedEof, text)
        }
        _ => error,
    }
}

fn failed(error: AuthError) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MemberIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.ended.poll(cx) {
            return Poll::Ready(Err(failed(error)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf).map_err(told)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MemberIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.ended.now() {
            return Poll::Ready(Err(failed(error)));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(told)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.ended.now() {
            return Poll::Ready(Err(failed(error)));
        }
        let stream = Pin::new(&mut self.stream);
        stream.poll_write_vectored(cx, bufs).map_err(told)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(told)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(told)
    }
}
