//! One endpoint of a network: how it connects, and how it listens.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::addr;
use super::halves::connection;
use super::schedule::EndpointId;
use super::shared::SharedNetwork;
use crate::protocol::Addr;
use crate::transport::connection::Connection;
use crate::transport::error::TransportError;
use crate::transport::traits::{Listener, Transport};

/// How many connections may wait for one listener to accept them. Further ones
/// are refused.
pub const BACKLOG: usize = 1024;

/// One endpoint of a [`MemoryNetwork`](super::MemoryNetwork): a host with as many
/// ports as it likes.
///
/// It listens at `memory:NAME` or at `memory:NAME:PORT`; for port 0, the network
/// chooses a free port. It also connects from a port that the network chooses, so
/// that the accepting side sees `memory:NAME:PORT`.
///
/// Connecting takes the latency of a round trip. While the way is blocked (by a
/// partition or a stall), connecting waits, as on a real network: use a timeout.
/// It fails with [`io::ErrorKind::ConnectionRefused`] if nobody listens at the
/// address, if the endpoint refuses, or if [`BACKLOG`] connections already wait.
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    network: Arc<SharedNetwork>,
    id: EndpointId,
    addr: Addr,
}

impl MemoryTransport {
    pub(super) fn new(network: Arc<SharedNetwork>, id: EndpointId, name: &str) -> Self {
        Self {
            network,
            id,
            addr: addr::join(name, None),
        }
    }

    /// The address `memory:NAME` of this endpoint.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Waits for the time that a message takes from one endpoint to another.
    async fn travel(&self, from: EndpointId, to: EndpointId) {
        self.network.passable(from, to).await;
        let delay = self.network.update(|network, _| network.delay(from, to));
        if !delay.is_zero() {
            sleep(delay).await;
            self.network.passable(from, to).await;
        }
    }

    /// Asks the listener at an address for a connection. `None` if it is refused.
    fn dial(&self, target: EndpointId, port: Option<u16>, addr: &Addr) -> Option<Connection> {
        let network = &self.network;
        network.note_runtime();
        let new = network.update(|state, now| state.connect(now, self.id, target, port, addr))?;
        let dialled = connection(network, addr.clone(), &new.forth, &new.back);
        let accepted = connection(network, new.dialler, &new.back, &new.forth);
        new.backlog.try_send(accepted).ok()?;
        Some(dialled)
    }

    /// Listens at an address of this endpoint.
    pub(super) fn listener(&self, addr: &Addr) -> Result<MemoryListener, TransportError> {
        let (name, port) = addr::split(addr)?;
        if addr::join(name, None) != self.addr {
            return Err(TransportError::Address {
                addr: addr.clone(),
                reason: format!("it belongs to another endpoint than {}", self.addr),
            });
        }
        let (backlog, waiting) = mpsc::channel(BACKLOG);
        let (port, number) = self
            .network
            .update(|network, _| network.listen(self.id, port, backlog))
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))?;
        Ok(MemoryListener {
            transport: self.clone(),
            local: addr::join(name, port),
            port,
            number,
            waiting,
        })
    }
}

fn refused() -> TransportError {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        let (name, port) = addr::split(addr)?;
        let target = self.network.update(|network, _| network.find(name));
        let target = target.ok_or_else(refused)?;
        self.travel(self.id, target).await;
        let dialled = self.dial(target, port, addr);
        self.travel(target, self.id).await;
        dialled.ok_or_else(refused)
    }

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        addr::split(addr).map(drop)
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        Ok(Box::new(self.listener(addr)?))
    }
}

/// Accepts the connections of one address of an endpoint.
#[derive(Debug)]
pub struct MemoryListener {
    transport: MemoryTransport,
    local: Addr,
    port: Option<u16>,
    /// Distinguishes it from a later listener on the same port.
    number: u64,
    waiting: mpsc::Receiver<Connection>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        // The other end of the channel is gone once the endpoint was killed.
        self.waiting.recv().await.ok_or(TransportError::Closed)
    }

    fn local_addr(&self) -> &Addr {
        &self.local
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        let MemoryTransport { network, id, .. } = &self.transport;
        network.update(|network, _| {
            network
                .endpoint(*id)
                .remove_listener(self.port, self.number);
        });
    }
}
