//! Incoming connections: heard out, and handed to the content that they are
//! about.
//!
//! A connection has a place among the handshakes until it has shaken hands, or
//! was refused and has gone, and from then on one among the links; see
//! [`admission`](super::admission). Whoever has to give way is told so, as far
//! as that takes no waiting.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::admission::Place;
use super::driver::{Input, NewLink};
use super::handshake::{HandshakeError, hear, refuse, say};
use super::shared::Shared;
use super::swarm::LinkInfo;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, Listener, TransportError};

/// The first pause after a failed accept; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
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
                // Most likely there are too many open files, and a connection
                // that says nothing has one of them.
                shared.admission.make_room();
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// Gives a connection a task of its own.
fn admit(shared: &Arc<Shared>, mut connection: Connection) {
    let place = shared.admission.handshake(&connection.remote);
    let own = Arc::clone(shared);
    shared.spawn(async move {
        let shaken = timeout(HANDSHAKE_TIMEOUT, introduce(&own, &mut connection));
        let welcome = tokio::select! {
            biased;
            () = own.stop.cancelled() => return,
            () = place.cut() => {
                let busy = PeerMessage::Refuse(RefuseReason::Busy);
                let _ = say(&mut connection, busy).now_or_never();
                return;
            }
            shaken = shaken => shaken,
        };
        let Ok(Some(Welcome { inbox, info, place })) = welcome else {
            return;
        };
        let link = NewLink {
            connection,
            info,
            place,
        };
        // A driver that has ended meanwhile drops the link with its inbox.
        let sent = inbox.send(Input::Link(Box::new(link)));
        own.stop.run_until_cancelled(sent).await;
    });
}

/// Where a connection that has shaken hands belongs.
struct Welcome {
    inbox: mpsc::Sender<Input>,
    info: LinkInfo,
    place: Place,
}

/// Hears the Hello and answers it.
async fn introduce(shared: &Shared, connection: &mut Connection) -> Option<Welcome> {
    let hello = match hear(connection).await {
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
        Some(swarm) => match shared.admission.accept(&connection.remote) {
            None => RefuseReason::Busy,
            Some(place) => {
                let said = shared.hello(hello.content);
                let cookie = said.cookie;
                say(connection, PeerMessage::Hello(said)).await.ok()?;
                let info = LinkInfo::accepted(hello.peer, &connection.remote, hello.listen);
                return Some(Welcome {
                    inbox: swarm.inbox,
                    info: info.with_cookies(cookie, hello.cookie),
                    place,
                });
            }
        },
    };
    tracing::debug!(remote = %connection.remote, reason = %refusal, "refused");
    refuse(connection, refusal).await;
    None
}
