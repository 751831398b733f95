//! The transport: how it connects.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use super::large_reads::LargeReads;
use super::listener::TlsListener;
use super::session::admit;
use crate::protocol::Addr;
use crate::transport::auth::{
    Authenticator, HandshakeConfig, HandshakeCounts, HandshakeStats, Pins, Side, handshake_failed,
};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;
use crate::transport::error::TransportError;
use crate::transport::identity::PeerIdentity;
use crate::transport::stream::{ByteStream, StreamTransport};
use crate::transport::traits::{Listener, Transport};

/// TLS 1.3 over a transport of byte streams, with both sides authenticated. Its addresses
/// are those of the transport below. A peer over it has the id of its key.
///
/// ```
/// use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
/// use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
/// use bt_lite::transport::TlsTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = Secret::generate()?;
/// let network = MemoryNetwork::new(1); // or TcpTransport::new()
/// let member = |name: &str| -> Result<_, Box<dyn std::error::Error>> {
///     let trust = Trust::Secret(secret.clone());
///     let auth = Authenticator::new(Identity::generate()?, trust)?;
///     Ok(TlsTransport::new(network.endpoint(name), auth))
/// };
///
/// let tracker = Tracker::builder(member("tracker")?).bind("memory:tracker").await?;
/// let owner = Peer::builder(member("owner")?, MemoryStorage::new())
///     .tracker(tracker.local_addr())
///     .listen("memory:owner")
///     .start()
///     .await?;
/// let shared = owner.share(ShareSource::bytes("plan", "for members only")).await?;
///
/// let peer = Peer::builder(member("peer")?, MemoryStorage::new())
///     .tracker(tracker.local_addr())
///     .start()
///     .await?;
/// peer.download(shared.id).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TlsTransport<S> {
    streams: S,
    auth: Authenticator,
    handshakes: HandshakeConfig,
    /// Who must be at which address.
    pinned: Pins,
    counts: Arc<HandshakeCounts>,
}

impl<S: StreamTransport> TlsTransport<S> {
    /// Wraps a transport.
    pub fn new(streams: S, auth: Authenticator) -> Self {
        Self {
            streams,
            auth,
            handshakes: HandshakeConfig::default(),
            pinned: Pins::default(),
            counts: Arc::default(),
        }
    }

    /// Sets how many handshakes there may be, and how long one may take.
    #[must_use]
    pub fn handshakes(mut self, config: HandshakeConfig) -> Self {
        self.handshakes = config;
        self
    }

    /// Connects to this address only if this identity is there, such as that of the tracker:
    /// without that, any member that can take over the address passes for it. The address
    /// counts as it is given, before a name is looked up, however it is spelt: in upper or lower
    /// case, or as another text of the same IP address.
    #[must_use]
    pub fn pin(mut self, addr: Addr, identity: PeerIdentity) -> Self {
        self.pinned.insert(&addr, identity);
        self
    }

    /// The transport below.
    pub fn streams(&self) -> &S {
        &self.streams
    }

    /// What decides who is let in.
    pub fn auth(&self) -> &Authenticator {
        &self.auth
    }

    /// How handshakes have ended so far.
    pub fn stats(&self) -> HandshakeStats {
        self.counts.stats()
    }

    async fn handshake(&self, stream: ByteStream<S::Stream>) -> Result<Connection, AuthError> {
        // No name is sent, and none is checked: the address tells nothing of who is there.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let connector = TlsConnector::from(Arc::clone(self.auth.client_config()));
        let ByteStream { io, remote, local } = stream;
        let io = connector
            .connect(name, LargeReads::new(io))
            .await
            .map_err(|error| handshake_failed(&error))?;
        let stream = ByteStream::new(TlsStream::Client(io), remote, local);
        admit(&self.auth, stream, Side::Client).await
    }
}

#[async_trait]
impl<S: StreamTransport> Transport for TlsTransport<S> {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        let stream = self.streams.connect_stream(addr).await?;
        let shaken = timeout(self.handshakes.timeout, self.handshake(stream)).await;
        let connection = shaken.unwrap_or(Err(AuthError::TimedOut))?;
        self.pinned.check(addr, connection.identity)?;
        self.counts.connected.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        let listener = self.streams.listen_for_streams(addr).await?;
        let counts = Arc::clone(&self.counts);
        let listener: TlsListener<S::Listener> =
            TlsListener::new(listener, self.auth.clone(), self.handshakes, counts);
        Ok(Box::new(listener))
    }

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        self.streams.check_addr(addr)
    }

    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        self.streams.resolve_addr(addr).await
    }

    fn identity(&self) -> Option<PeerIdentity> {
        Some(self.auth.identity())
    }

    fn membership_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.auth.membership_changes())
    }
}
