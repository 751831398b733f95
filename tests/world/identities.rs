//! A network in memory whose endpoints know each other: the identity of each follows from
//! its name. Nothing is proven; for that see the tests of TLS.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::transport::{Connection, Listener, PeerIdentity};
use bt_lite::{Addr, MemoryNetwork, MemoryTransport, Transport, TransportError};

/// Who the endpoint with this name is.
pub(crate) fn identity(name: &str) -> PeerIdentity {
    PeerIdentity::of_public_key(name.as_bytes())
}

/// Who is at an address: `memory:NAME` or `memory:NAME:PORT`.
fn identity_at(addr: &Addr) -> PeerIdentity {
    identity(addr.as_str().split(':').nth(1).unwrap_or_default())
}

/// The transport of one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Identified {
    inner: MemoryTransport,
    own: PeerIdentity,
    moved: Moved,
}

/// Where all that this endpoint has accepted is by now, once they have moved.
pub(crate) type Moved = Arc<Mutex<Option<Addr>>>;

impl Identified {
    pub(crate) fn new(network: &MemoryNetwork, name: &str) -> Self {
        Self {
            inner: network.endpoint(name),
            own: identity(name),
            moved: Moved::default(),
        }
    }

    /// Moves the other ends of what this endpoint accepts.
    pub(crate) fn moved(&self) -> Moved {
        Arc::clone(&self.moved)
    }
}

struct IdentifiedListener(Box<dyn Listener>, Moved);

fn identified(connection: Connection) -> Connection {
    let identity = identity_at(&connection.remote);
    connection.with_identity(identity)
}

#[async_trait]
impl Transport for Identified {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        self.inner.connect(addr).await.map(identified)
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        let listener = self.inner.listen(addr).await?;
        Ok(Box::new(IdentifiedListener(listener, self.moved())))
    }

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        self.inner.check(addr)
    }

    fn identity(&self) -> Option<PeerIdentity> {
        Some(self.own)
    }
}

#[async_trait]
impl Listener for IdentifiedListener {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        let connection = self.0.accept().await.map(identified)?;
        let (first, moved) = (connection.remote.clone(), Arc::clone(&self.1));
        Ok(connection.with_moving_remote(move || {
            let moved = moved.lock().expect("nobody panics here").clone();
            moved.unwrap_or_else(|| first.clone())
        }))
    }

    fn local_addr(&self) -> &Addr {
        self.0.local_addr()
    }
}
