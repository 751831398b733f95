//! Frames over any byte stream: TLS, a Unix socket, a QUIC stream, a pipe.
//!
//! [`from_io`] makes a [`Connection`] of anything that reads and writes bytes, so
//! that your own [`Transport`](super::Transport) only has to connect and to
//! accept. On the wire, a frame is a prefix of [`PREFIX_LEN`] bytes (the length
//! of the head, `u16`, and of the body, `u32`, both big-endian), the head, and
//! the body.
//!
//! The reading half guarantees:
//! - It checks announced lengths against the connection's [`LimitHandle`]
//!   before it allocates memory for them.
//! - It reads a body directly into the memory that the frame hands out. It
//!   copies only the few bytes that arrived together with something else.
//! - A frame that is not complete within
//!   [`FRAME_TIMEOUT`](crate::protocol::limits::FRAME_TIMEOUT) of its first
//!   byte ends the connection with [`TransportError::FrameTimeout`]. The clock
//!   also runs while the stream is not polled, so poll until the frame is there.
//! - If the byte stream ends between two frames, the frames end. If it ends
//!   inside a frame, that is [`TransportError::Truncated`]. After an error the
//!   stream ends. If the first bytes are not ours but those of TLS, it is
//!   [`TransportError::SpeaksTls`].
//! - While it waits for a frame, it holds no buffer and no timer.
//!
//! The writing half guarantees: it never copies bodies, it sends many frames in
//! one vectored write, and it accepts no more frames while [`MAX_QUEUED`] bytes
//! wait to be written.
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

mod prefix;
mod reader;
mod writer;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, LimitHandle};
#[cfg(doc)]
use super::error::TransportError;
use crate::protocol::Addr;
pub(super) use reader::FrameReader;
pub(super) use writer::FrameWriter;
#[cfg(feature = "bittorrent")]
pub(crate) use writer::write_chunks;
#[cfg(feature = "_quic")]
pub(super) use writer::{ChunkWrite, MAX_SLICES};

pub use prefix::PREFIX_LEN;
pub use writer::MAX_QUEUED;

/// Makes a connection of a byte stream that is one value. If the byte stream
/// can be split into two halves of its own, [`from_halves`] saves a lock.
///
/// Must be polled inside a tokio runtime with time enabled.
pub fn from_io(
    remote: Addr,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Connection {
    let (read, write) = tokio::io::split(io);
    from_halves(remote, read, write)
}

/// Makes a connection of the two halves of a byte stream. Each half may be
/// polled from its own task.
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
