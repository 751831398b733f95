//! Reads in large pieces, for a library of TLS that asks for 4 KiB at a time.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How much is read at once, in bytes: four records of TLS, so that a call of the system is
/// shared by many reads, and still little to keep for a connection whose records nobody
/// takes.
const PIECE: usize = 64 << 10;

thread_local! {
    /// The memory of a piece that no stream needs at present. To give it back to the system
    /// and to take it again costs more than to read into it.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// A byte stream that is read in pieces of up to [`PIECE`] bytes. It holds memory only while
/// a part of one is still to be taken.
pub(super) struct LargeReads<S> {
    stream: S,
    unread: Option<BytesMut>,
}

impl<S> LargeReads<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            unread: None,
        }
    }
}

impl<S: AsyncRead + Unpin> LargeReads<S> {
    /// Reads a piece. After this nothing is there at the end of the stream alone.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // When the thread ends there is no spare one.
        let spare = || SPARE.try_with(Cell::take).unwrap_or_default();
        let mut unread = self.unread.take().unwrap_or_else(spare);
        unread.reserve(PIECE);
        let read = std::pin::pin!(self.stream.read_buf(&mut unread)).poll(cx);
        if unread.is_empty() {
            let _ = SPARE.try_with(|spare| spare.set(unread));
        } else {
            self.unread = Some(unread);
        }
        read.map_ok(drop)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LargeReads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.as_ref().is_none_or(BytesMut::is_empty) {
            ready!(self.poll_piece(cx))?;
        }
        if let Some(unread) = &mut self.unread {
            let len = buf.remaining().min(unread.len());
            buf.put_slice(&unread[..len]);
            unread.advance(len);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LargeReads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn small_reads_take_one_piece_and_nothing_is_held_when_it_is_taken() {
        let (here, mut there) = tokio::io::duplex(2 * PIECE);
        let sent: Vec<u8> = (0..2 * PIECE).map(|at| (at % 251) as u8).collect();
        there.write_all(&sent).await.unwrap();
        let mut reads = LargeReads::new(here);
        let mut arrived = vec![0; 4 << 10];
        reads.read_exact(&mut arrived).await.unwrap();
        let held = reads.unread.as_ref().map_or(0, BytesMut::len);
        let rest = PIECE - arrived.len();
        assert!(held >= rest, "{held} bytes are held, not {rest}");
        drop(there);
        reads.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, sent);
        assert!(reads.unread.is_none(), "nothing is held at the end");
    }

    #[tokio::test]
    async fn stream_that_waits_holds_no_memory() {
        let (here, mut there) = tokio::io::duplex(PIECE);
        let mut reads = LargeReads::new(here);
        there.write_all(b"word").await.unwrap();
        let mut word = [0; 4];
        reads.read_exact(&mut word).await.unwrap();
        assert!(futures::poll!(std::pin::pin!(reads.read_exact(&mut word))).is_pending());
        assert!(reads.unread.is_none());
    }
}
