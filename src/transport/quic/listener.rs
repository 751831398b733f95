//! The listener: connections on their way through the handshake.

use std::sync::Arc;

use async_trait::async_trait;
use quinn::Incoming;

use super::endpoints::Listening;
use super::error::failed;
use super::session::shake_hands;
use crate::protocol::Addr;
use crate::transport::auth::{Authenticator, HandshakeConfig, HandshakeCounts, Handshaking, Side};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;
use crate::transport::error::TransportError;
use crate::transport::tcp::canonical;
use crate::transport::traits::Listener;

/// Accepts connections, and hands out those that are through the handshake.
pub(super) struct QuicListener {
    socket: Listening,
    local: Addr,
    auth: Authenticator,
    handshakes: Handshaking,
}

impl QuicListener {
    pub(super) fn new(
        socket: Listening,
        auth: Authenticator,
        config: HandshakeConfig,
        counts: Arc<HandshakeCounts>,
    ) -> Self {
        Self {
            local: socket.local().into(),
            socket,
            auth,
            handshakes: Handshaking::new(config, counts),
        }
    }

    /// Begins a handshake, or has the other side prove its address first.
    fn begin(&mut self, incoming: Incoming) {
        let remote = canonical(incoming.remote_address()).into();
        let is_proven = incoming.remote_address_validated();
        let place = match is_proven {
            true => self.handshakes.take(&remote),
            false => self.handshakes.take_unproven(&remote),
        };
        let Some(place) = place else {
            if is_proven {
                incoming.refuse();
            } else {
                // It may be retried: its address is not proven.
                let _ = incoming.retry();
            }
            return;
        };
        let (auth, port) = (self.auth.clone(), self.socket.local().port());
        self.handshakes.begin(place, async move {
            let connecting = incoming.accept().map_err(|error| failed(&error))?;
            let shaken = shake_hands(&auth, connecting, Side::Server, port).await;
            shaken.map_err(AuthError::from)
        });
    }
}

#[async_trait]
impl Listener for QuicListener {
    /// Cancel safe: the handshakes are kept, and go on with the next call.
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        loop {
            let incoming = tokio::select! {
                biased;
                connection = self.handshakes.next() => return Ok(connection),
                incoming = self.socket.endpoint().accept() => incoming,
            };
            match incoming {
                Some(incoming) => self.begin(incoming),
                None => return Err(TransportError::Closed),
            }
        }
    }

    fn local_addr(&self) -> &Addr {
        &self.local
    }
}
