//! How frames travel between two programs: the seam, and the transports that
//! come with the crate.
//!
//! A transport moves [`Frame`]s and knows nothing of what is in them. To bring
//! your own, implement [`Transport`] and [`Listener`]; over any byte stream
//! [`framed::from_io`] makes the [`Connection`], so that it is a few lines. Run
//! the conformance suite `bt_lite::testing::transport` on it (feature
//! `testing`).

pub mod framed;
pub mod memory;
mod tcp;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures::{Sink, Stream};
use thiserror::Error;

pub use crate::protocol::{Addr, Frame, FrameLimits};
pub use memory::{MemoryNetwork, MemoryTransport};
pub use tcp::TcpTransport;

use crate::protocol::limits::MAX_FRAMES;

/// Reaches other programs and lets itself be reached.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Connects to a listener.
    ///
    /// Cancel safe: when the future is dropped, no connection stays behind.
    ///
    /// # Errors
    /// [`TransportError::Address`] for an address that this transport cannot
    /// read, [`TransportError::Io`] when nobody answers there.
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError>;

    /// Listens at an address. Where the address leaves something open (port
    /// 0), the listener knows what it became.
    ///
    /// # Errors
    /// [`TransportError::Address`] for an address that this transport cannot
    /// read, [`TransportError::Io`] when it cannot listen there.
    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError>;
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        (**self).connect(addr).await
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        (**self).listen(addr).await
    }
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Box<T> {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        (**self).connect(addr).await
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        (**self).listen(addr).await
    }
}

/// Accepts connections until it is dropped; from then on its address refuses
/// them.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The next connection.
    ///
    /// Cancel safe: a dropped future loses no connection.
    ///
    /// # Errors
    /// An error is of one connection or of a moment (too many open files, say);
    /// the caller may call again, after a pause.
    async fn accept(&mut self) -> Result<Connection, TransportError>;

    /// Where it listens, as others connect to it.
    fn local_addr(&self) -> &Addr;
}

/// Frames to the other side. `feed` may hold frames back until `flush`;
/// closing flushes, then tells the other side that no more will come. A frame
/// past [`MAX_FRAMES`] is refused with [`TransportError::FrameTooLarge`], and
/// the sink remains as it was.
pub type FrameSink = Box<dyn Sink<Frame, Error = TransportError> + Send + Unpin>;

/// Frames from the other side, in the order in which they were sent. It ends
/// (`None`) when the other side closed between two frames; an error is the
/// last item.
pub type FrameStream = Box<dyn Stream<Item = Result<Frame, TransportError>> + Send + Unpin>;

/// A two-way connection. Dropping both halves ends it.
///
/// What an implementer promises: frames arrive whole, unchanged, in order, and
/// at most once; the sink pushes back (is pending) when the other side does
/// not read, so that memory stays bounded; both halves work independently of
/// each other; polling them is cancel safe.
pub struct Connection {
    /// Where the other side is. For an accepted connection this may be an
    /// address that cannot be connected to.
    pub remote: Addr,
    /// Frames to the other side.
    pub sink: FrameSink,
    /// Frames from the other side.
    pub stream: FrameStream,
    /// The bounds that the stream keeps, which its holder may tighten.
    pub limits: LimitHandle,
}

impl Connection {
    /// A connection of two halves. The stream must consult `limits` for each
    /// frame before it allocates anything for it, and end with
    /// [`TransportError::FrameTooLarge`] past them.
    pub fn new(
        remote: Addr,
        sink: impl Sink<Frame, Error = TransportError> + Send + Unpin + 'static,
        stream: impl Stream<Item = Result<Frame, TransportError>> + Send + Unpin + 'static,
        limits: LimitHandle,
    ) -> Self {
        Self {
            remote,
            sink: Box::new(sink),
            stream: Box::new(stream),
            limits,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// The frame limits of one connection, shared by its stream and its holder: a
/// tracker takes much smaller frames than a peer, over the same transport. It
/// starts with the most that any message needs.
#[derive(Debug, Clone)]
pub struct LimitHandle(Arc<(AtomicU32, AtomicU32)>);

impl Default for LimitHandle {
    fn default() -> Self {
        let limits = Self(Arc::default());
        limits.set(MAX_FRAMES);
        limits
    }
}

impl LimitHandle {
    /// Sets the limits for the frames that are read from now on.
    pub fn set(&self, limits: FrameLimits) {
        self.0.0.store(limits.head.into(), Ordering::Relaxed);
        self.0.1.store(limits.body, Ordering::Relaxed);
    }

    /// Checks the announced lengths of a frame, in bytes.
    ///
    /// # Errors
    /// [`TransportError::FrameTooLarge`].
    pub fn check(&self, head: usize, body: usize) -> Result<(), TransportError> {
        for (len, max) in [(head, &self.0.0), (body, &self.0.1)] {
            let max = max.load(Ordering::Relaxed) as usize;
            if len > max {
                return Err(TransportError::FrameTooLarge { len, max });
            }
        }
        Ok(())
    }
}

/// Whether any receiver would take this frame.
fn check_sendable(frame: &Frame) -> Result<(), TransportError> {
    for (len, max) in [
        (frame.head.len(), usize::from(MAX_FRAMES.head)),
        (frame.body.len(), MAX_FRAMES.body as usize),
    ] {
        if len > max {
            return Err(TransportError::FrameTooLarge { len, max });
        }
    }
    Ok(())
}

/// What can go wrong between two programs. Another try may help, now or later,
/// but for [`Address`](Self::Address).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The transport cannot read this address.
    #[error("{addr} is no address of this transport: {reason}")]
    Address {
        /// The address.
        addr: Addr,
        /// What is wrong with it.
        reason: String,
    },
    /// The network or the operating system failed.
    #[error("{detail}")]
    Io {
        /// The kind of failure.
        kind: io::ErrorKind,
        /// What the operating system says.
        detail: String,
    },
    /// A head or body is longer than its limit, in bytes.
    #[error("a frame part of {len} bytes, where {max} are the most")]
    FrameTooLarge {
        /// The announced length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
    /// A frame did not complete in time after its first byte.
    #[error("a frame did not complete in time")]
    FrameTimeout,
    /// The connection is closed already.
    #[error("the connection is closed")]
    Closed,
}

impl From<io::Error> for TransportError {
    fn from(error: io::Error) -> Self {
        Self::Io {
            kind: error.kind(),
            detail: error.to_string(),
        }
    }
}
