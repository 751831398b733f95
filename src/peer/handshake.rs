//! The first message on a link, from both sides.

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::shared::Shared;
use crate::content::ContentId;
use crate::protocol::limits::{HANDSHAKE_TIMEOUT, LINK_FRAMES};
use crate::protocol::{Addr, Hello, PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, TransportError};

/// Why no link came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("refused: {0}")]
    Refused(RefuseReason),
    #[error("something else than a Hello came first")]
    NoHello,
    #[error("the other side answered for another content")]
    OtherContent,
    #[error("the handshake took too long")]
    TimedOut,
    #[error("this peer has as many links as it takes")]
    Full,
}

/// Dials an owner and shakes hands about a content.
pub(super) async fn dial(
    shared: &Shared,
    addr: &Addr,
    content: ContentId,
) -> Result<(Connection, Hello), HandshakeError> {
    let shake = async {
        let mut connection = shared.transport.connect(addr).await?;
        connection.limits.set(LINK_FRAMES);
        say(&mut connection, PeerMessage::Hello(shared.hello(content))).await?;
        let hello = hear(&mut connection).await?;
        if hello.content != content {
            return Err(HandshakeError::OtherContent);
        }
        Ok((connection, hello))
    };
    timeout(HANDSHAKE_TIMEOUT, shake)
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}

/// Hears what an accepted connection is about. The caller answers.
pub(super) async fn hear(connection: &mut Connection) -> Result<Hello, HandshakeError> {
    let frame = connection.stream.next().await;
    match PeerMessage::decode(frame.unwrap_or(Err(TransportError::Closed))?)? {
        PeerMessage::Hello(hello) => Ok(hello),
        PeerMessage::Refuse(reason) => Err(HandshakeError::Refused(reason)),
        _ => Err(HandshakeError::NoHello),
    }
}

/// Sends one message during the handshake.
pub(super) async fn say(
    connection: &mut Connection,
    message: PeerMessage,
) -> Result<(), TransportError> {
    connection.sink.send(message.encode()).await
}

/// Refuses an accepted connection, and closes it.
pub(super) async fn refuse(mut connection: Connection, reason: RefuseReason) {
    let farewell = async {
        say(&mut connection, PeerMessage::Refuse(reason)).await?;
        connection.sink.close().await
    };
    // Whether the other side hears it is its own affair.
    let _ = timeout(HANDSHAKE_TIMEOUT, farewell).await;
}
