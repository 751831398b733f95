//! A transport behind a pointer does what the transport does: every method of the trait
//! is forwarded, also those with a default.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::transport::{Connection, Listener, PeerIdentity};
use bt_lite::{Addr, MemoryNetwork, MemoryTransport, Transport, TransportError};
use tokio::sync::watch;

use crate::world::traits::methods;

/// Writes down which of its methods were called.
#[derive(Clone)]
struct Written {
    calls: Arc<Mutex<Vec<&'static str>>>,
    inner: MemoryTransport,
}

impl Written {
    fn called(&self, method: &'static str) {
        self.calls.lock().unwrap().push(method);
    }
}

#[async_trait]
impl Transport for Written {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        self.called("connect");
        self.inner.connect(addr).await
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        self.called("listen");
        self.inner.listen(addr).await
    }

    fn check(&self, _: &Addr) -> Result<(), TransportError> {
        self.called("check");
        Err(TransportError::Closed)
    }

    async fn resolve(&self, _: &Addr) -> Result<Vec<Addr>, TransportError> {
        self.called("resolve");
        Ok(Vec::new())
    }

    fn identity(&self) -> Option<PeerIdentity> {
        self.called("identity");
        None
    }

    fn membership_changes(&self) -> Option<watch::Receiver<u64>> {
        self.called("membership_changes");
        None
    }
}

/// The source of the trait.
const SOURCE: &str = include_str!("../../src/transport/traits.rs");

async fn every_method_is_forwarded<T: Transport>(wrap: impl Fn(Written) -> T) {
    let network = MemoryNetwork::new(1);
    let written = Written {
        calls: Arc::default(),
        inner: network.endpoint("a"),
    };
    let transport = wrap(written.clone());
    let addr: Addr = "memory:a".parse().unwrap();
    let listener = transport.listen(&addr).await.unwrap();
    assert_eq!(listener.local_addr(), &addr);
    transport.connect(&addr).await.unwrap();
    assert_eq!(transport.check(&addr), Err(TransportError::Closed));
    assert_eq!(transport.resolve(&addr).await, Ok(Vec::new()));
    assert_eq!(transport.identity(), None);
    assert!(transport.membership_changes().is_none());

    let calls = written.calls.lock().unwrap();
    let called: BTreeSet<String> = calls.iter().map(|call| call.to_string()).collect();
    let methods = methods(SOURCE, "Transport");
    assert_eq!(called, methods);
    assert_eq!(calls.len(), methods.len(), "each is called once");
}

#[tokio::test(start_paused = true)]
async fn transport_behind_a_pointer_is_the_transport() {
    every_method_is_forwarded(|written| written).await;
    every_method_is_forwarded(Arc::new).await;
    every_method_is_forwarded(Box::new).await;
    every_method_is_forwarded(|written| Arc::new(written) as Arc<dyn Transport>).await;
    every_method_is_forwarded(|written| Box::new(written) as Box<dyn Transport>).await;
}
