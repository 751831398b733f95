//! The network as one process has it: when that has crashed, nothing more comes from it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bt_lite::transport::{Connection, Listener, MemoryTransport, TransportError};
use bt_lite::{Addr, Transport};

#[derive(Clone)]
pub(crate) struct Gate {
    transport: MemoryTransport,
    closed: Arc<AtomicBool>,
}

impl Gate {
    pub(crate) fn new(transport: MemoryTransport) -> Self {
        let closed = Arc::default();
        Self { transport, closed }
    }

    /// The connections that are there must be reset by the network.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn pass(&self) -> Result<(), TransportError> {
        match self.closed.load(Ordering::Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::NetworkDown).into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Transport for Gate {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        self.pass()?;
        let connection = self.transport.connect(addr).await?;
        self.pass()?;
        Ok(connection)
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        self.pass()?;
        self.transport.listen(addr).await
    }

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        self.transport.check(addr)
    }
}
