//! The handshakes of one listener, under way side by side.
//!
//! They make progress while the listener accepts, and not otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::timeout;

use super::handshakes::{HandshakeConfig, HandshakeEnd, HandshakePlace, HandshakePlaces};
use super::stats::HandshakeCounts;
use crate::protocol::Addr;
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;

/// How a handshake has ended, and whose place it had.
type Shaken = (HandshakePlace, Option<Result<Connection, AuthError>>);

/// Handshakes that others have begun.
pub(in crate::transport) struct Handshaking {
    config: HandshakeConfig,
    counts: Arc<HandshakeCounts>,
    places: HandshakePlaces,
    under_way: FuturesUnordered<BoxFuture<'static, Shaken>>,
}

impl Handshaking {
    pub(in crate::transport) fn new(config: HandshakeConfig, counts: Arc<HandshakeCounts>) -> Self {
        Self {
            config,
            counts,
            places: HandshakePlaces::new(config),
            under_way: FuturesUnordered::new(),
        }
    }

    /// A place for a handshake with this remote; nothing if its host has failed too often
    /// of late.
    pub(in crate::transport) fn take(&mut self, remote: &Addr) -> Option<HandshakePlace> {
        let place = self.places.take(remote);
        if place.is_none() {
            self.counts.unheard.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// The same for a remote whose address may be somebody else's. Nothing if that has to
    /// be found out first.
    #[cfg(feature = "_quic")]
    pub(in crate::transport) fn take_unproven(&mut self, remote: &Addr) -> Option<HandshakePlace> {
        let place = self.places.take_unproven(remote);
        if place.is_none() {
            self.counts.retried.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// Begins a handshake.
    pub(in crate::transport) fn begin(
        &mut self,
        place: HandshakePlace,
        handshake: impl Future<Output = Result<Connection, AuthError>> + Send + 'static,
    ) {
        let patience = self.config.timeout;
        self.under_way.push(Box::pin(async move {
            let cut = place.cut.clone();
            let shaken = timeout(patience, handshake);
            let ended = cut.run_until_cancelled(shaken).await;
            let ended = ended.map(|shaken| shaken.unwrap_or(Err(AuthError::TimedOut)));
            (place, ended)
        }));
        self.note_taken();
    }

    /// The next connection whose handshake succeeds. Waits for ever if none is under way.
    ///
    /// Cancel safe.
    pub(in crate::transport) async fn next(&mut self) -> Connection {
        loop {
            match self.under_way.next().await {
                Some(shaken) => {
                    if let Some(connection) = self.end(shaken) {
                        return connection;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Has a handshake give way, if there is any.
    #[cfg(feature = "_tls")]
    pub(in crate::transport) fn make_room(&mut self) {
        // Nobody is to blame.
        let _ = self.places.make_room();
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
