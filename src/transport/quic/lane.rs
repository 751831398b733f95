//! A stream for one channel, in one direction: its number, and then frames.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use quinn::{Connection, RecvStream, SendStream};
use tokio::io::AsyncWrite;

use super::error::ended;
use super::halves::WriteHalf;
use crate::protocol::ChannelId;
use crate::transport::framed::ChunkWrite;

/// The sending side. The stream is opened with the first write, and waits then until the
/// other side allows one more.
pub(super) enum Lane {
    Opening(BoxFuture<'static, io::Result<SendStream>>),
    Open(WriteHalf),
}

impl Lane {
    pub(super) fn new(connection: &Connection, channel: ChannelId) -> Self {
        Self::Opening(open(connection.clone(), channel).boxed())
    }
}

async fn open(connection: Connection, channel: ChannelId) -> io::Result<SendStream> {
    let opened = connection.open_uni().await;
    let mut send = opened.map_err(|error| ended(&error))?;
    send.write_all(&channel.0.to_be_bytes()).await?;
    Ok(send)
}

/// Reads of which channel a stream is that the other side has opened.
pub(super) async fn channel_of(mut recv: RecvStream) -> io::Result<(ChannelId, RecvStream)> {
    let mut channel = [0; 4];
    let read = recv.read_exact(&mut channel).await;
    read.map_err(io::Error::other)?;
    Ok((ChannelId(u32::from_be_bytes(channel)), recv))
}

impl ChunkWrite for Lane {
    fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Open(half) => return half.poll_write_chunks(cx, chunks),
                Self::Opening(opening) => {
                    let send = ready!(opening.as_mut().poll(cx))?;
                    *self = Self::Open(WriteHalf(send));
                }
            }
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Open(half) => AsyncWrite::poll_shutdown(Pin::new(half), cx),
            Self::Opening(_) => Poll::Ready(Ok(())),
        }
    }
}
