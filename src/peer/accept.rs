//! Incoming links: heard out, and handed to the content that they are about.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::driver::{Input, NewLink};
use super::handshake::{HandshakeError, hear, refuse, say};
use super::shared::Shared;
use super::swarm::LinkInfo;
use crate::protocol::limits::{HANDSHAKE_TIMEOUT, LINK_FRAMES};
use crate::protocol::{PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, Listener, TransportError};

/// The first pause after a failed accept; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections until the peer stops.
pub(super) async fn run(shared: Arc<Shared>, mut listener: Box<dyn Listener>) {
    let stop = shared.stop.clone();
    let mut pause = FIRST_PAUSE;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok(connection) => {
                pause = FIRST_PAUSE;
                admit(&shared, connection);
            }
            Err(TransportError::Closed) => {
                tracing::warn!("the listener is closed");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "accepting failed");
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// Gives a connection a task of its own, if there is a place for it.
fn admit(shared: &Arc<Shared>, connection: Connection) {
    let (Some(place), Some(host_place)) = (shared.place(), shared.host_place(&connection.remote))
    else {
        tracing::debug!(remote = %connection.remote, "too many links");
        if let Ok(place) = Arc::clone(&shared.turning_away).try_acquire_owned() {
            let stop = shared.stop.clone();
            shared.spawn(async move {
                let _place = place;
                let told = refuse(connection, RefuseReason::Busy);
                stop.run_until_cancelled(told).await;
            });
        }
        return;
    };
    let own = Arc::clone(shared);
    shared.spawn(async move {
        let heard = timeout(HANDSHAKE_TIMEOUT, introduce(&own, connection));
        let stop = own.stop.clone();
        if let Some(Ok(Some((inbox, mut link)))) = stop.run_until_cancelled(heard).await {
            link.places = (Some(place), Some(host_place));
            // A driver that has ended meanwhile drops the link with its inbox.
            let _ = inbox.send(Input::Link(Box::new(link))).await;
        }
    });
}

/// Hears the Hello and answers it.
async fn introduce(
    shared: &Shared,
    mut connection: Connection,
) -> Option<(tokio::sync::mpsc::Sender<Input>, NewLink)> {
    connection.limits.set(LINK_FRAMES);
    let hello = match hear(&mut connection).await {
        Ok(hello) => hello,
        Err(error) => {
            tracing::debug!(remote = %connection.remote, %error, "no handshake");
            if let HandshakeError::Protocol(ProtocolError::Version { .. }) = error {
                refuse(connection, RefuseReason::Version).await;
            }
            return None;
        }
    };
    let refusal = match shared.swarm(&hello.content) {
        _ if hello.peer == shared.id => RefuseReason::SelfConnection,
        None => RefuseReason::UnknownContent,
        Some(swarm) => {
            let said = shared.hello(hello.content);
            let cookie = said.cookie;
            say(&mut connection, PeerMessage::Hello(said)).await.ok()?;
            let info = LinkInfo::accepted(hello.peer, &connection.remote, hello.listen);
            let link = NewLink {
                connection,
                info: info.with_cookies(cookie, hello.cookie),
                places: (None, None),
            };
            return Some((swarm.inbox, link));
        }
    };
    refuse(connection, refusal).await;
    None
}
