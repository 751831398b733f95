//! Incoming connections: they shake hands, and become sessions.
//!
//! A connection has a place among the handshakes until it has shaken hands, or
//! was refused and has gone. From then on it has one among the sessions; see
//! [`admission`](crate::peer::session::admission). A connection that has to give way is
//! told so, if that takes no waiting.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::timeout;

use super::channels::Channels;
use super::guard::SessionGuard;
use super::handshake::{HandshakeError, check_peer, hear, refuse, say};
use super::task::SessionTask;
use crate::access::Verdict;
use crate::peer::session::admission::ConnectionPlace;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::LinkInfo;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, Listener, TransportError};

/// The first pause after a failed accept; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections until the peer stops.
pub(in crate::peer) async fn run(shared: Arc<PeerShared>, mut listener: Box<dyn Listener>) {
    let stop = shared.tasks.stop.clone();
    let mut pause = FIRST_PAUSE;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok(connection) => {
                pause = FIRST_PAUSE;
                let promised = shared.transport.identity().is_some();
                match connection.check_identity(promised) {
                    Ok(()) => admit(&shared, connection),
                    Err(error) => tracing::warn!(%error, "a connection is not served"),
                }
            }
            Err(TransportError::Closed) => {
                tracing::warn!("the listener is closed");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "accepting failed");
                // Most likely too many files are open, and a connection that
                // has not shaken hands has one of them.
                shared.admission.make_room();
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// Gives a connection a task of its own.
fn admit(shared: &Arc<PeerShared>, mut connection: Connection) {
    let place = shared.admission.handshake(&connection.remote);
    let own = Arc::clone(shared);
    let tasks = &shared.tasks;
    let span = tracing::info_span!(parent: &tasks.span, "session", remote = %connection.remote);
    tasks.spawn(span, async move {
        let shaken = timeout(HANDSHAKE_TIMEOUT, introduce(&own, &mut connection));
        let welcome = tokio::select! {
            biased;
            () = own.tasks.stop.cancelled() => return,
            () = place.cut() => {
                let busy = PeerMessage::Refuse(RefuseReason::Busy);
                let _ = say(&mut connection, busy).now_or_never();
                return;
            }
            shaken = shaken => shaken,
        };
        drop(place);
        let Ok(Some((info, place, guard))) = welcome else {
            return;
        };
        let session = SessionTask {
            contents: Arc::clone(&own.contents),
            channels: Arc::new(Channels::new(false, guard)),
            info,
            remote: connection.remote.clone(),
            awaits: None,
            stop: own.tasks.stop.clone(),
        };
        drop(own);
        session.run(connection, place).await;
    });
}

/// Reads the Hello and answers it. Returns nothing if there is no session.
async fn introduce(
    shared: &PeerShared,
    connection: &mut Connection,
) -> Option<(LinkInfo, ConnectionPlace, Option<SessionGuard>)> {
    let hello = match hear(&mut connection.stream, &connection.limits).await {
        Ok(hello) => hello,
        Err(error) => {
            tracing::debug!(%error, "no handshake");
            // To who speaks TLS, any answer in the clear says that this peer does not.
            if let HandshakeError::Protocol(ProtocolError::Version { .. })
            | HandshakeError::Transport(TransportError::SpeaksTls) = error
            {
                refuse(connection, RefuseReason::Version).await;
            }
            return None;
        }
    };
    if let Err(error) = check_peer(&hello, connection.identity) {
        tracing::debug!(%error, "no handshake");
        refuse(connection, RefuseReason::Identity).await;
        return None;
    }
    let guard = shared.guard.of(connection);
    if let Some(guard) = &guard {
        let refused = match guard.may_connect().await {
            Verdict::Allowed(_) => None,
            Verdict::Denied => Some(RefuseReason::Denied),
            // It may come again soon.
            Verdict::Unknown => Some(RefuseReason::Busy),
        };
        if let Some(reason) = refused {
            tracing::debug!(%reason, "not allowed");
            refuse(connection, reason).await;
            return None;
        }
    }
    let place = match hello.peer == shared.identity.id {
        true => Err(RefuseReason::SelfConnection),
        false => shared
            .admission
            .accept(&connection.remote)
            .ok_or(RefuseReason::Busy),
    };
    let place = match place {
        Ok(place) => place,
        Err(reason) => {
            tracing::debug!(%reason, "refused");
            refuse(connection, reason).await;
            return None;
        }
    };
    let said = shared.identity.hello();
    let cookie = said.cookie;
    say(connection, PeerMessage::Hello(said)).await.ok()?;
    let info = LinkInfo::accepted(hello.peer, &connection.remote, hello.listen);
    Some((info.with_cookies(cookie, hello.cookie), place, guard))
}
