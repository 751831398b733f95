//! The seam below frames: transports of byte streams. What is wrapped around one, such
//! as TLS, works over all of them.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Connection;
use super::error::TransportError;
use super::framed;
use crate::protocol::Addr;

/// Connects to other programs and accepts connections from them, as
/// [`Transport`](super::Transport) does, but carries bytes. Its methods promise what
/// those of `Transport` do.
#[async_trait]
pub trait StreamTransport: Send + Sync + 'static {
    /// The bytes of one connection. What is written arrives unchanged and in order, or
    /// reading and writing fail.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// What accepts connections.
    type Listener: StreamListener<Stream = Self::Stream>;

    /// Connects to a listener.
    ///
    /// Cancel safe: if the future is dropped, no connection is left behind.
    ///
    /// # Errors
    /// [`TransportError::Address`] if this transport cannot read the address,
    /// [`TransportError::Io`] if nobody answers there.
    async fn connect_stream(&self, addr: &Addr)
    -> Result<ByteStream<Self::Stream>, TransportError>;

    /// Listens at an address.
    ///
    /// # Errors
    /// [`TransportError::Address`] if this transport cannot read the address,
    /// [`TransportError::Io`] if it cannot listen there.
    async fn listen_for_streams(&self, addr: &Addr) -> Result<Self::Listener, TransportError>;

    /// Checks that an address can be connected to, as far as its text tells.
    ///
    /// # Errors
    /// [`TransportError::Address`].
    fn check_addr(&self, addr: &Addr) -> Result<(), TransportError> {
        let _ = addr;
        Ok(())
    }

    /// The addresses that a name stands for, the preferred one first.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As those of [`connect_stream`](Self::connect_stream).
    async fn resolve_addr(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        Ok(vec![addr.clone()])
    }
}

/// Accepts byte streams until it is dropped.
#[async_trait]
pub trait StreamListener: Send + 'static {
    /// The bytes of one connection.
    type Stream;

    /// Accepts the next connection.
    ///
    /// Cancel safe: dropping the future loses no connection.
    ///
    /// # Errors
    /// An error concerns one connection or is temporary. The caller may call again after
    /// a pause.
    async fn accept_stream(&mut self) -> Result<ByteStream<Self::Stream>, TransportError>;

    /// The address at which others can connect to this listener.
    fn local_addr(&self) -> &Addr;
}

/// One connection that carries bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct ByteStream<S> {
    /// The bytes.
    pub io: S,
    /// The address of the other side.
    pub remote: Addr,
    /// The address of this side, if the transport knows it.
    pub local: Option<Addr>,
}

impl<S> ByteStream<S> {
    /// Puts the bytes and the addresses together.
    pub fn new(io: S, remote: Addr, local: Option<Addr>) -> Self {
        Self { io, remote, local }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream<S> {
    /// Frames over these bytes.
    pub fn framed(self) -> Connection {
        let connection = framed::from_io(self.remote, self.io);
        match self.local {
            Some(local) => connection.with_local(local),
            None => connection,
        }
    }
}
