//! A connection after the handshakes, and what was said on it before it became a link.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::timeout;

use super::handshake::{Shaken, WireHashes, dialled};
use super::known_peers::ConnectedPeer;
use super::rendezvous::Rendezvous;
use crate::bittorrent::wire::{ExtendedHandshake, Message};
use crate::peer::session::HandshakeError;
use crate::peer::session::admission::ConnectionPlace;
use crate::protocol::Addr;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::transport::{StreamTransport, TcpTransport, TransportError};

/// The bytes of a connection.
pub(super) type TcpIo = <TcpTransport as StreamTransport>::Stream;

/// A connection after the handshakes.
pub(super) struct Begun {
    pub(super) shaken: Shaken<TcpIo>,
    /// The other end of it.
    pub(super) remote: SocketAddr,
    /// What the other side has said since then, if the torrent was not known.
    pub(super) heard: Vec<Message>,
    /// This side has said that it has nothing.
    pub(super) said_none: bool,
    pub(super) place: ConnectionPlace,
    pub(super) connected: ConnectedPeer,
}

impl Begun {
    /// A connection that others have opened. Nothing if there is one with this client.
    pub(super) fn accepted(
        meeting: &Rendezvous,
        shaken: Shaken<TcpIo>,
        remote: SocketAddr,
        place: ConnectionPlace,
    ) -> Option<Self> {
        let Some(connected) = meeting.peers.connect((shaken.client, remote.ip()), None) else {
            tracing::debug!("connected already");
            return None;
        };
        Some(Self::new(shaken, remote, place, connected))
    }

    fn new(
        shaken: Shaken<TcpIo>,
        remote: SocketAddr,
        place: ConnectionPlace,
        connected: ConnectedPeer,
    ) -> Self {
        Self {
            shaken,
            remote,
            heard: Vec::new(),
            said_none: false,
            place,
            connected,
        }
    }

    /// Opens a connection.
    ///
    /// Cancel safe.
    pub(super) async fn dialled(
        meeting: &Arc<Rendezvous>,
        hashes: WireHashes,
        addr: &Addr,
    ) -> Result<Self, HandshakeError> {
        let (session, shared) = (&meeting.session, &meeting.session.shared);
        let place = timeout(HANDSHAKE_TIMEOUT, shared.admission.dial_when_free()).await;
        let place = place.map_err(|_| HandshakeError::Full)?;
        let shake = async {
            let stream = session.transport.connect_stream(addr).await?;
            let remote = stream.remote.socket_addr();
            let remote = remote.ok_or(HandshakeError::Transport(TransportError::Closed))?;
            let shaken = dialled(stream.io, hashes, session.oneself()).await;
            let shaken = shaken.map_err(|error| {
                tracing::debug!(%error, "no handshake");
                HandshakeError::NoHello
            })?;
            Ok((shaken, remote))
        };
        let (shaken, remote) = timeout(HANDSHAKE_TIMEOUT, shake)
            .await
            .unwrap_or(Err(HandshakeError::TimedOut))?;
        let connected = meeting
            .peers
            .connect((shaken.client, remote.ip()), Some(remote));
        let connected = connected.ok_or(HandshakeError::WrongPeer)?;
        Ok(Self::new(shaken, remote, place, connected))
    }

    /// What this side says of itself. The ids are filled in elsewhere.
    pub(super) fn about(&self, meeting: &Rendezvous) -> ExtendedHandshake {
        ExtendedHandshake {
            client: Some(format!("bt_lite {}", env!("CARGO_PKG_VERSION"))),
            port: meeting.session.port,
            your_ip: Some(self.remote.ip()),
            ..ExtendedHandshake::default()
        }
    }
}
