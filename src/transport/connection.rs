//! A connection: its two halves, and the limits on the frames that it reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::{Sink, Stream};

use super::auth_error::AuthError;
use super::error::TransportError;
use super::identity::PeerIdentity;
use super::membership::Membership;
use super::whereabouts::{Now, Whereabouts};
use crate::protocol::limits::MAX_FRAMES;
use crate::protocol::{Addr, Frame, FrameLimits};

/// Frames to the other side. `feed` may keep frames back until `flush`. Closing
/// flushes, and then tells the other side that no more frames will come. A frame
/// over [`MAX_FRAMES`] is refused with [`TransportError::FrameTooLarge`], and
/// the sink stays usable.
pub type FrameSink = Box<dyn Sink<Frame, Error = TransportError> + Send + Unpin>;

/// Frames from the other side, in the order in which they were sent. The stream
/// ends (`None`) when the other side closes between two frames. An error is its
/// last item.
pub type FrameStream = Box<dyn Stream<Item = Result<Frame, TransportError>> + Send + Unpin>;

/// A two-way connection. Dropping both halves closes it.
///
/// An implementation guarantees: frames arrive whole, unchanged, in order, and
/// at most once; the sink is pending while the other side does not read, so that
/// memory stays bounded; the two halves work independently of each other;
/// polling them is cancel safe.
///
/// Of the order, one thing may be given up: a frame of a channel may arrive after one of
/// another channel that was sent later (PROTOCOL.md, 2.2, has the rules). So datagrams that
/// are lost need not hold up all contents.
#[non_exhaustive]
pub struct Connection {
    /// The address of the other side. For an accepted connection, it may be an
    /// address that nobody can connect to. It is where the other side was when the
    /// connection was made; see [`with_moving_remote`](Self::with_moving_remote).
    pub remote: Addr,
    /// The address of this side, as the other side reaches it, if the transport knows
    /// it. A tracker names owners on its own machine by it.
    pub local: Option<Addr>,
    /// Who the other side is, if the transport has it prove that.
    pub identity: Option<PeerIdentity>,
    /// Frames to the other side.
    pub sink: FrameSink,
    /// Frames from the other side.
    pub stream: FrameStream,
    /// The limits that the stream enforces. The holder of the connection may
    /// tighten them.
    pub limits: LimitHandle,
    /// Tells where the other side is by now.
    moves: Option<Now>,
    /// Tells whether the other side is still let in.
    membership: Option<Membership>,
}

impl Connection {
    /// Makes a connection of two halves. Before it allocates memory for a frame,
    /// the stream must check the frame against `limits`; if the frame exceeds
    /// them, the stream must end with [`TransportError::FrameTooLarge`].
    pub fn new(
        remote: Addr,
        sink: impl Sink<Frame, Error = TransportError> + Send + Unpin + 'static,
        stream: impl Stream<Item = Result<Frame, TransportError>> + Send + Unpin + 'static,
        limits: LimitHandle,
    ) -> Self {
        Self {
            remote,
            local: None,
            identity: None,
            sink: Box::new(sink),
            stream: Box::new(stream),
            limits,
            moves: None,
            membership: None,
        }
    }

    /// The same, with the address of this side.
    #[must_use]
    pub fn with_local(mut self, local: Addr) -> Self {
        self.local = Some(local);
        self
    }

    /// The same, with what the other side has proven to be.
    #[must_use]
    pub fn with_identity(mut self, identity: PeerIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The same, of a transport whose connections outlive a change of the address, as QUIC's
    /// do. `now` tells where the other side is by now; it is called often. An
    /// [`AccessPolicy`](crate::access::AccessPolicy) is told that address, and asked again
    /// when it changes; a tracker lists the peer there.
    #[must_use]
    pub fn with_moving_remote(mut self, now: impl Fn() -> Addr + Send + Sync + 'static) -> Self {
        self.moves = Some(Arc::new(now));
        self
    }

    /// The same, of a transport that may let in no more whom it has let in
    /// ([`Transport::membership_changes`](super::Transport::membership_changes)).
    #[must_use]
    pub fn with_membership(mut self, membership: Membership) -> Self {
        self.membership = Some(membership);
        self
    }

    /// Whether the other side is still let in, whatever becomes of the halves. Nothing if the
    /// transport does not tell.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.membership.clone()
    }

    /// Where the other side is now. That is [`remote`](Self::remote), unless the connection
    /// outlives a change of the address.
    pub fn remote_now(&self) -> Addr {
        self.whereabouts().now()
    }

    /// Where the other side is, whatever becomes of the halves.
    pub(crate) fn whereabouts(&self) -> Whereabouts {
        Whereabouts::new(self.remote.clone(), self.moves.clone())
    }

    /// Checks that the other side has an identity if `transport` promises one
    /// ([`Transport::identity`](super::Transport::identity)), so that nobody is spoken to
    /// in the clear by mistake.
    pub(crate) fn check_identity(&self, promised: bool) -> Result<(), AuthError> {
        match self.identity {
            None if promised => Err(AuthError::Missing),
            _ => Ok(()),
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

/// The frame limits of one connection, shared by its stream and its holder. They
/// start at [`MAX_FRAMES`], which fits every message; over the same transport, a
/// tracker then accepts much smaller frames than a peer.
#[derive(Debug, Clone)]
pub struct LimitHandle(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    head: AtomicU32,
    body: AtomicU32,
}

impl Default for LimitHandle {
    fn default() -> Self {
        Self(Arc::new(Limits {
            head: AtomicU32::new(MAX_FRAMES.head.into()),
            body: AtomicU32::new(MAX_FRAMES.body),
        }))
    }
}

impl LimitHandle {
    /// Sets the limits for all frames that are read from now on.
    pub fn set(&self, limits: FrameLimits) {
        self.0.head.store(limits.head.into(), Ordering::Relaxed);
        self.0.body.store(limits.body, Ordering::Relaxed);
    }

    /// Checks the announced lengths of a frame, in bytes.
    ///
    /// # Errors
    /// [`TransportError::FrameTooLarge`].
    pub fn check(&self, head: usize, body: usize) -> Result<(), TransportError> {
        check_len(head, self.0.head.load(Ordering::Relaxed) as usize)?;
        check_len(body, self.0.body.load(Ordering::Relaxed) as usize)
    }
}

/// Checks that a frame is within [`MAX_FRAMES`]: no receiver accepts more.
pub(super) fn check_sendable(frame: &Frame) -> Result<(), TransportError> {
    check_len(frame.head.len(), MAX_FRAMES.head.into())?;
    check_len(frame.body.len(), MAX_FRAMES.body as usize)
}

fn check_len(len: usize, max: usize) -> Result<(), TransportError> {
    if len > max {
        return Err(TransportError::FrameTooLarge { len, max });
    }
    Ok(())
}
