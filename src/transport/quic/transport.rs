//! The transport: how it connects and listens.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use quinn::{ConnectError, Connecting};
use tokio::sync::watch;
use tokio::time::timeout;

use super::endpoints::Endpoints;
use super::error::unreachable;
use super::listener::QuicListener;
use super::session::{HandshakeFailure, shake_hands};
use super::settings;
use crate::protocol::Addr;
use crate::transport::auth::{
    Authenticator, HandshakeConfig, HandshakeCounts, HandshakeStats, Pins, Side, Verdict,
};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;
use crate::transport::error::TransportError;
use crate::transport::identity::PeerIdentity;
use crate::transport::stream::StreamTransport;
use crate::transport::tcp::{TcpTransport, connect_first};
use crate::transport::traits::{Listener, Transport};

/// The name that the library wants to have. It is not sent.
const NO_NAME: &str = "peer";

/// QUIC, with both sides authenticated as over [TLS](super::super::auth). A peer over it has
/// the id of its key. Addresses are written and looked up as those of
/// [`TcpTransport`]; a listener at `[::]` serves IPv6 and IPv4.
///
/// A clone is a handle to the same sockets. What is dialled goes out from the address that
/// the transport listens at, if it listens. Connections go on when the address of the side
/// that has dialled changes. They belong to the runtime in which they were made.
///
/// An address where nobody listens is noticed only when the handshake has taken too long
/// ([`HandshakeConfig::timeout`]).
///
/// ```
/// use bt_lite::transport::QuicTransport;
/// use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
/// use bt_lite::{MemoryStorage, Peer, ShareSource, Tracker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = Secret::generate()?;
/// let member = || -> Result<_, Box<dyn std::error::Error>> {
///     let trust = Trust::Secret(secret.clone());
///     let auth = Authenticator::new(Identity::generate()?, trust)?;
///     Ok(QuicTransport::new(auth))
/// };
///
/// let tracker = Tracker::builder(member()?).bind("127.0.0.1:0").await?;
/// let owner = Peer::builder(member()?, MemoryStorage::new())
///     .tracker(tracker.local_addr())
///     .listen("127.0.0.1:0")
///     .start()
///     .await?;
/// let shared = owner.share(ShareSource::bytes("plan", "for members only")).await?;
///
/// let peer = Peer::builder(member()?, MemoryStorage::new())
///     .tracker(tracker.local_addr())
///     .start()
///     .await?;
/// peer.download(shared.id).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct QuicTransport {
    auth: Authenticator,
    handshakes: HandshakeConfig,
    /// Who must be at which address.
    pinned: Pins,
    counts: Arc<HandshakeCounts>,
    endpoints: Arc<Endpoints>,
    /// Reads addresses, and looks up names.
    names: TcpTransport,
}

impl QuicTransport {
    /// Makes a transport. It has no socket until it connects or listens.
    pub fn new(auth: Authenticator) -> Self {
        Self {
            auth,
            handshakes: HandshakeConfig::default(),
            pinned: Pins::default(),
            counts: Arc::default(),
            endpoints: Arc::default(),
            names: TcpTransport::new(),
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

    /// What decides who is let in.
    pub fn auth(&self) -> &Authenticator {
        &self.auth
    }

    /// How handshakes have ended so far.
    pub fn stats(&self) -> HandshakeStats {
        self.counts.stats()
    }

    /// Dials from another port from now on, where it does not dial from a listener, and
    /// moves what it has dialled there; connections go on. That serves after a change of
    /// networks that the operating system does not tell of.
    ///
    /// # Errors
    /// There is no other port. Then nothing has changed.
    pub fn rebind(&self) -> Result<(), TransportError> {
        Ok(self.endpoints.rebind()?)
    }

    /// Begins a handshake. Returns also where it is noted why the other side is refused,
    /// and the port that it goes out from.
    fn begin(&self, target: SocketAddr) -> io::Result<(Connecting, Verdict, u16)> {
        let mut is_new = false;
        loop {
            let endpoint = self.endpoints.dial_from(target)?;
            let (config, verdict) = settings::client(&self.auth).map_err(io::Error::other)?;
            match endpoint.connect_with(config, target, NO_NAME) {
                Ok(connecting) => {
                    let port = endpoint.local_addr()?.port();
                    return Ok((connecting, verdict, port));
                }
                Err(ConnectError::EndpointStopping) if !is_new => {
                    self.endpoints.forget();
                    is_new = true;
                }
                Err(error) => {
                    let kind = io::ErrorKind::AddrNotAvailable;
                    return Err(io::Error::new(kind, error));
                }
            }
        }
    }

    async fn dial(&self, target: SocketAddr) -> io::Result<Connection> {
        let (connecting, verdict, port) = self.begin(target)?;
        let shaking = shake_hands(&self.auth, connecting, Side::Client, port);
        let failed = match timeout(self.handshakes.timeout, shaking).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(failed)) => failed,
            // Nothing came back at all, or not enough of it.
            Err(_) => HandshakeFailure::Quic(quinn::ConnectionError::TimedOut),
        };
        if let Some(refusal) = verdict.refusal() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal));
        }
        if let HandshakeFailure::Quic(error) = &failed
            && let Some(error) = unreachable(error)
        {
            return Err(error);
        }
        let failed = AuthError::from(failed);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, failed))
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        let targets = self.names.targets(addr).await?;
        let connection = connect_first(targets, |target| self.dial(target)).await?;
        self.pinned.check(addr, connection.identity)?;
        self.counts.connected.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    /// May take a second if the address is in use, for which it waits.
    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        for target in self.names.targets(addr).await? {
            let config = settings::server(&self.auth).map_err(io::Error::other)?;
            match self.endpoints.listen(target, config).await {
                Ok(socket) => {
                    let (auth, counts) = (self.auth.clone(), Arc::clone(&self.counts));
                    let listener = QuicListener::new(socket, auth, self.handshakes, counts);
                    return Ok(Box::new(listener));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        self.names.check_addr(addr)
    }

    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        self.names.resolve_addr(addr).await
    }

    fn identity(&self) -> Option<PeerIdentity> {
        Some(self.auth.identity())
    }

    fn membership_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.auth.membership_changes())
    }
}
