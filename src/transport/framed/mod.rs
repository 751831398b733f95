//! Frames over any byte stream: TLS, a Unix socket, a QUIC stream, a pipe.
//!
//! [`from_io`] makes a [`Connection`] of whatever reads and writes bytes, so
//! that a [`Transport`](super::Transport) of your own only has to dial and to
//! accept. On the wire a frame is a prefix of [`PREFIX_LEN`] bytes (the length
//! of the head, `u16`, and of the body, `u32`, both big-endian), the head, and
//! the body.
//!
//! What the reading half promises:
//! - Announced lengths are checked with the connection's [`LimitHandle`]
//!   before anything is allocated for them.
//! - A body is read straight into the allocation that is handed out; only the
//!   few bytes of it that came along with something else are copied.
//! - A frame that does not complete within
//!   [`FRAME_TIMEOUT`](crate::protocol::limits::FRAME_TIMEOUT) of its first
//!   byte ends the connection with [`TransportError::FrameTimeout`]. The clock
//!   does not stop while nobody polls, so a reader polls until it has the frame.
//! - The end of the byte stream between two frames is the end of the frames;
//!   inside one it is [`TransportError::Truncated`]. After an error the stream
//!   ends.
//! - While it waits for a frame it holds no buffer and no timer.
//!
//! What the writing half promises: bodies are never copied, many frames go out
//! in one vectored write, and it takes no more frames once [`MAX_QUEUED`]
//! bytes wait for the byte stream.
//!
//! ```
//! use bt_lite::protocol::Frame;
//! use bt_lite::transport::framed;
//! use futures::{SinkExt, StreamExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (here, there) = tokio::io::duplex(1 << 16);
//! let mut here = framed::from_io("pipe:there".parse()?, here);
//! let mut there = framed::from_io("pipe:here".parse()?, there);
//!
//! here.sink.send(Frame::head("hello")).await?;
//! here.sink.close().await?;
//! assert_eq!(there.stream.next().await, Some(Ok(Frame::head("hello"))));
//! assert_eq!(there.stream.next().await, None);
//! # Ok(())
//! # }
//! ```

mod reader;
mod writer;

use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(doc)]
use super::TransportError;
use super::{Addr, Connection, LimitHandle};
use reader::FrameReader;
use writer::FrameWriter;

pub use writer::MAX_QUEUED;

/// The bytes before each head: the lengths of head (`u16`) and body (`u32`).
pub const PREFIX_LEN: usize = 6;

/// A connection over a byte stream that reads and writes in one value. Where
/// the stream comes apart into two halves by itself, [`from_halves`] saves a
/// lock.
///
/// Must be polled inside a tokio runtime with time enabled.
pub fn from_io(
    remote: Addr,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Connection {
    let (read, write) = tokio::io::split(io);
    from_halves(remote, read, write)
}

/// A connection over the two halves of a byte stream. Each half may be polled
/// from its own task.
///
/// Must be polled inside a tokio runtime with time enabled.
pub fn from_halves(
    remote: Addr,
    read: impl AsyncRead + Send + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
) -> Connection {
    let limits = LimitHandle::default();
    let stream = FrameReader::new(read, limits.clone());
    Connection::new(remote, FrameWriter::new(write), stream, limits)
}
