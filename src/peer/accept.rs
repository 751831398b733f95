//! Incoming connections: they shake hands, and are handed to the driver of the
//! content that they are about.
//!
//! A connection has a place among the handshakes until it has shaken hands, or
//! was refused and has gone. From then on it has one among the links; see
//! [`admission`](super::admission). A connection that has to give way is told
//! so, if that takes no waiting.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::admission::ConnectionPlace;
use super::handshake::{refuse, say};
use super::hello::{HandshakeError, hear};
use super::inbox::{DriverInput, NewLink};
use super::shared::PeerShared;
use super::swarm::LinkInfo;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, Hello, PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, Listener, TransportError};

/// The first pause after a failed accept; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections until the peer stops.
pub(super) async fn run(shared: Arc<PeerShared>, mut listener: Box<dyn Listener>) {
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
    let span = tracing::info_span!(parent: &shared.span, "handshake", remote = %connection.remote);
    shared.spawn(span, async move {
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
            awaited: None,
            place,
        };
        // A driver that has ended meanwhile drops the link with its inbox.
        let sent = inbox.send(DriverInput::Link(Box::new(link)));
        own.stop.run_until_cancelled(sent).await;
    });
}

/// The driver that gets a connection which has shaken hands.
struct Welcome {
    inbox: mpsc::Sender<DriverInput>,
    info: LinkInfo,
    place: ConnectionPlace,
}

/// Reads the Hello and answers it. Returns nothing if there is no link.
async fn introduce(shared: &PeerShared, connection: &mut Connection) -> Option<Welcome> {
    let hello = match hear(&mut connection.stream, &connection.limits).await {
        Ok(hello) => hello,
        Err(error) => {
            tracing::debug!(%error, "no handshake");
            if let HandshakeError::Protocol(ProtocolError::Version { .. }) = error {
                refuse(connection, RefuseReason::Version).await;
            }
            return None;
        }
    };
    let (inbox, place) = match admit_link(shared, &hello, &connection.remote) {
        Ok(admitted) => admitted,
        Err(reason) => {
            tracing::debug!(%reason, "refused");
            refuse(connection, reason).await;
            return None;
        }
    };
    let said = shared.hello(hello.content);
    let cookie = said.cookie;
    say(connection, PeerMessage::Hello(said)).await.ok()?;
    let info = LinkInfo::accepted(hello.peer, &connection.remote, hello.listen);
    Some(Welcome {
        inbox,
        info: info.with_cookies(cookie, hello.cookie),
        place,
    })
}

/// Finds the driver that a link is for, and a place for the link.
fn admit_link(
    shared: &PeerShared,
    hello: &Hello,
    remote: &Addr,
) -> Result<(mpsc::Sender<DriverInput>, ConnectionPlace), RefuseReason> {
    if hello.peer == shared.id {
        return Err(RefuseReason::SelfConnection);
    }
    let driver = shared.drivers.get(&hello.content);
    let driver = driver.ok_or(RefuseReason::UnknownContent)?;
    let place = shared.admission.accept(remote).ok_or(RefuseReason::Busy)?;
    Ok((driver.inbox, place))
}
