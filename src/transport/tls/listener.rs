//! The listener: connections on their way through the handshake.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::large_reads::LargeReads;
use super::session::admit;
use crate::descriptors::{descriptor_limit, handshakes_share};
use crate::protocol::Addr;
use crate::transport::auth::{
    Authenticator, HandshakeConfig, HandshakeCounts, Handshaking, Side, handshake_failed,
};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;
use crate::transport::error::TransportError;
use crate::transport::stream::{ByteStream, StreamListener};
use crate::transport::traits::Listener;

/// Accepts connections, and hands out those that are through the handshake.
pub(super) struct TlsListener<L> {
    streams: L,
    auth: Authenticator,
    handshakes: Handshaking,
}

impl<L> TlsListener<L>
where
    L: StreamListener,
    L::Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    pub(super) fn new(
        streams: L,
        auth: Authenticator,
        mut config: HandshakeConfig,
        counts: Arc<HandshakeCounts>,
    ) -> Self {
        let share = descriptor_limit().map(handshakes_share);
        let share = share.and_then(|share| usize::try_from(share).ok());
        config.max = config.max.min(share.unwrap_or(usize::MAX));
        Self {
            streams,
            auth,
            handshakes: Handshaking::new(config, counts),
        }
    }

    /// Begins the handshake of a connection.
    fn begin(&mut self, stream: ByteStream<L::Stream>) {
        if let Some(place) = self.handshakes.take(&stream.remote) {
            let auth = self.auth.clone();
            self.handshakes
                .begin(place, async move { handshake(&auth, stream).await });
        }
    }
}

/// The handshake of a connection that the other side has opened.
async fn handshake<S>(auth: &Authenticator, stream: ByteStream<S>) -> Result<Connection, AuthError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::clone(auth.server_config()));
    let ByteStream { io, remote, local } = stream;
    let io = acceptor
        .accept(LargeReads::new(io))
        .await
        .map_err(|error| handshake_failed(&error))?;
    let stream = ByteStream::new(TlsStream::Server(io), remote, local);
    admit(auth, stream, Side::Server).await
}

#[async_trait]
impl<L> Listener for TlsListener<L>
where
    L: StreamListener,
    L::Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    /// Cancel safe: the handshakes are kept, and go on with the next call.
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        loop {
            tokio::select! {
                biased;
                connection = self.handshakes.next() => return Ok(connection),
                accepted = self.streams.accept_stream() => match accepted {
                    Ok(stream) => self.begin(stream),
                    Err(error) => {
                        // Most likely too many files are open.
                        self.handshakes.make_room();
                        return Err(error);
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> &Addr {
        self.streams.local_addr()
    }
}
