//! The two traits that a transport implements.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::connection::Connection;
use super::error::TransportError;
use super::identity::PeerIdentity;
use crate::protocol::Addr;

/// Connects to other programs and accepts connections from them.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Connects to a listener.
    ///
    /// Cancel safe: if the future is dropped, no connection is left behind.
    ///
    /// # Errors
    /// [`TransportError::Address`] if this transport cannot read the address,
    /// [`TransportError::Io`] if nobody answers there.
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError>;

    /// Listens at an address. If the address leaves a choice to the system (port
    /// 0), [`Listener::local_addr`] tells the address that was chosen.
    ///
    /// # Errors
    /// [`TransportError::Address`] if this transport cannot read the address,
    /// [`TransportError::Io`] if it cannot listen there.
    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError>;

    /// Checks that an address can be connected to, as far as its text tells. By default
    /// every address is good.
    ///
    /// # Errors
    /// [`TransportError::Address`].
    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        let _ = addr;
        Ok(())
    }

    /// The addresses that a name stands for, the preferred one first. By default, and for
    /// an address that is not a name, that is the address itself.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As those of [`connect`](Self::connect).
    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        Ok(vec![addr.clone()])
    }

    /// Who this side is to others, if the transport has both sides prove that. It must
    /// not change. Each connection must then have an
    /// [`identity`](Connection::identity), or it is refused; a peer has the
    /// [id](PeerIdentity::peer_id) of this identity, and so has each peer that it talks
    /// to. By default there is none.
    fn identity(&self) -> Option<PeerIdentity> {
        None
    }

    /// Changes when somebody whom the transport has let in is let in no more, so that a
    /// tracker looks at the memberships of those who have registered
    /// ([`Connection::with_membership`]), also if they are away. By default there is nothing
    /// to tell that. The number may be the same each time.
    fn membership_changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        (**self).connect(addr).await
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        (**self).listen(addr).await
    }

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        (**self).check(addr)
    }

    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        (**self).resolve(addr).await
    }

    fn identity(&self) -> Option<PeerIdentity> {
        (**self).identity()
    }

    fn membership_changes(&self) -> Option<watch::Receiver<u64>> {
        (**self).membership_changes()
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

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        (**self).check(addr)
    }

    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        (**self).resolve(addr).await
    }

    fn identity(&self) -> Option<PeerIdentity> {
        (**self).identity()
    }

    fn membership_changes(&self) -> Option<watch::Receiver<u64>> {
        (**self).membership_changes()
    }
}

/// Accepts connections until it is dropped. After that, its address refuses
/// them.
#[async_trait]
pub trait Listener: Send + 'static {
    /// Accepts the next connection.
    ///
    /// Cancel safe: dropping the future loses no connection.
    ///
    /// # Errors
    /// An error concerns one connection or is temporary (too many open files,
    /// for example). The caller may call again after a pause.
    async fn accept(&mut self) -> Result<Connection, TransportError>;

    /// The address at which others can connect to this listener.
    fn local_addr(&self) -> &Addr;
}
