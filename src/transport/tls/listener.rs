//! The listener: connections on their way through the handshake.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::session::{admit, failed};
use super::stats::TlsCounts;
use crate::descriptors::{descriptor_limit, handshakes_share};
use crate::protocol::Addr;
use crate::transport::auth::{
    Authenticator, HandshakeConfig, HandshakeEnd, HandshakePlace, HandshakePlaces, Side,
};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;
use crate::transport::error::TransportError;
use crate::transport::stream::{ByteStream, StreamListener};
use crate::transport::traits::Listener;

/// How a handshake has ended, and whose place it had.
type Shaken = (HandshakePlace, Option<Result<Connection, AuthError>>);

/// Accepts connections, and hands out those that are through the handshake.
pub(super) struct TlsListener<L> {
    streams: L,
    auth: Authenticator,
    config: HandshakeConfig,
    counts: Arc<TlsCounts>,
    places: HandshakePlaces,
    /// They make progress while the listener accepts.
    handshakes: FuturesUnordered<BoxFuture<'static, Shaken>>,
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
        counts: Arc<TlsCounts>,
    ) -> Self {
        let share = descriptor_limit().map(handshakes_share);
        let share = share.and_then(|share| usize::try_from(share).ok());
        config.max = config.max.min(share.unwrap_or(usize::MAX));
        Self {
            streams,
            auth,
            config,
            counts,
            places: HandshakePlaces::new(config),
            handshakes: FuturesUnordered::new(),
        }
    }

    /// Begins the handshake of a connection.
    fn begin(&mut self, stream: ByteStream<L::Stream>) {
        let Some(place) = self.places.take(&stream.remote) else {
            self.counts.unheard.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (auth, patience) = (self.auth.clone(), self.config.timeout);
        self.handshakes.push(Box::pin(async move {
            let cut = place.cut.clone();
            let shaken = timeout(patience, handshake(&auth, stream));
            let ended = cut.run_until_cancelled(shaken).await;
            let ended = ended.map(|shaken| shaken.unwrap_or(Err(AuthError::TimedOut)));
            (place, ended)
        }));
        self.note_taken();
    }

    /// Gives the place of a handshake back. Returns the connection, if there is one.
    fn end(&mut self, (place, ended): Shaken) -> Option<Connection> {
        let (count, end, connection) = match ended {
            Some(Ok(connection)) => (&self.counts.accepted, HandshakeEnd::Done, Some(connection)),
            Some(Err(error)) => {
                tracing::debug!(%error, "a handshake has failed");
                (&self.counts.failed, HandshakeEnd::Failed, None)
            }
            None => (&self.counts.gave_way, HandshakeEnd::Cut, None),
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.places.end(place, end);
        self.note_taken();
        connection
    }

    fn note_taken(&self) {
        let taken = self.places.taken() as u64;
        self.counts.under_way.store(taken, Ordering::Relaxed);
    }
}

/// The handshake of a connection that the other side has opened.
async fn handshake<S>(auth: &Authenticator, stream: ByteStream<S>) -> Result<Connection, AuthError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::clone(auth.server_config()));
    let ByteStream { io, remote, local } = stream;
    let io = acceptor.accept(io).await.map_err(failed)?;
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
                Some(shaken) = self.handshakes.next() => {
                    if let Some(connection) = self.end(shaken) {
                        return Ok(connection);
                    }
                }
                accepted = self.streams.accept_stream() => match accepted {
                    Ok(stream) => self.begin(stream),
                    Err(error) => {
                        // Most likely too many files are open.
                        self.places.make_room();
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
