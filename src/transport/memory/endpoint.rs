//! One endpoint of a network: how it dials, and how it listens.

use std::io;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::rates::EndpointId;
use super::{MemoryNetwork, addr};
use crate::transport::{Addr, Connection, Listener, Transport, TransportError};

/// How many connections wait for one listener to accept them; more are
/// refused.
pub const BACKLOG: usize = 1024;

/// One endpoint of a [`MemoryNetwork`]: a host with as many ports as it likes.
///
/// It listens at `memory:NAME`, at `memory:NAME:PORT`, and, for port 0, at a
/// port of the network's choosing. It dials from a port of the network's
/// choosing, too, so that the acceptor sees `memory:NAME:PORT`.
///
/// Connecting takes the way there and back. While the way is blocked (a
/// partition, a stall), connecting waits, as it does on a real network: bound
/// it with a timeout. Where nobody listens, or the endpoint refuses, or
/// [`BACKLOG`] connections wait already, it fails with
/// [`io::ErrorKind::ConnectionRefused`].
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    id: EndpointId,
    addr: Addr,
}

impl MemoryTransport {
    pub(super) fn new(network: MemoryNetwork, name: &str) -> Self {
        let id = network.id(name);
        Self {
            network,
            id,
            addr: addr::join(name, None),
        }
    }

    /// `memory:NAME`.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// The network that this is an endpoint of.
    pub fn network(&self) -> &MemoryNetwork {
        &self.network
    }

    /// Something goes from one endpoint to another, and takes its time.
    async fn travel(&self, from: EndpointId, to: EndpointId) {
        let shared = &self.network.shared;
        shared.passable(from, to).await;
        let delay = shared.with(|core, _| core.delay(from, to));
        if !delay.is_zero() {
            sleep(delay).await;
            shared.passable(from, to).await;
        }
    }
}

fn refused() -> TransportError {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        let (name, port) = addr::split(addr)?;
        let shared = &self.network.shared;
        let target = shared.with(|core, _| core.find(name)).ok_or_else(refused)?;
        self.travel(self.id, target).await;
        let knock = shared.knock(self.id, target, port, addr);
        let dialled = knock.and_then(|knock| {
            knock.backlog.try_send(knock.accepted).ok()?;
            Some(knock.dialled)
        });
        self.travel(target, self.id).await;
        dialled.ok_or_else(refused)
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        let (name, port) = addr::split(addr)?;
        if name != &self.addr.as_str()["memory:".len()..] {
            return Err(TransportError::Address {
                addr: addr.clone(),
                reason: format!("it is not of this endpoint, {}", self.addr),
            });
        }
        let (backlog, waiting) = mpsc::channel(BACKLOG);
        let shared = &self.network.shared;
        let (port, number) = shared
            .with(|core, _| core.listen(self.id, port, backlog))
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))?;
        Ok(Box::new(MemoryListener {
            transport: self.clone(),
            local: addr::join(name, port),
            port,
            number,
            waiting,
        }))
    }
}

struct MemoryListener {
    transport: MemoryTransport,
    local: Addr,
    port: Option<u16>,
    /// Tells it from a later listener at the same port.
    number: u64,
    waiting: mpsc::Receiver<Connection>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        // Nothing comes any more once the endpoint was killed.
        self.waiting.recv().await.ok_or(TransportError::Closed)
    }

    fn local_addr(&self) -> &Addr {
        &self.local
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        let transport = &self.transport;
        transport.network.shared.with(|core, _| {
            let listeners = &mut core.endpoint(transport.id).listeners;
            if listeners
                .get(&self.port)
                .is_some_and(|slot| slot.id == self.number)
            {
                listeners.remove(&self.port);
            }
        });
    }
}
