//! The first message on a link, from both sides.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::shared::PeerShared;
use super::swarm::LinkInfo;
use crate::content::ContentId;
use crate::protocol::limits::{HANDSHAKE_TIMEOUT, LINK_FRAMES};
use crate::protocol::{Addr, FrameLimits, Hello, PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, TransportError};

/// How long a connection that is refused has to read that message and close.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The frames that are read before the Hello. This version sends no body there;
/// the room for one lets other versions be told that theirs is not spoken here.
const HELLO_FRAMES: FrameLimits = FrameLimits {
    head: LINK_FRAMES.head,
    body: LINK_FRAMES.head as u32,
};

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("refused: {0}")]
    Refused(RefuseReason),
    #[error("the first message was not a Hello")]
    NoHello,
    #[error("the other side answered about another content")]
    OtherContent,
    #[error("the handshake took too long")]
    TimedOut,
    #[error("this peer has no place for another link")]
    Full,
}

/// Connects to an owner, and shakes hands about a content.
pub(super) async fn dial(
    shared: &PeerShared,
    addr: &Addr,
    content: ContentId,
) -> Result<(Connection, LinkInfo), HandshakeError> {
    let shake = async {
        let mut connection = shared.transport.connect(addr).await?;
        let said = shared.hello(content);
        let cookie = said.cookie;
        say(&mut connection, PeerMessage::Hello(said)).await?;
        let hello = hear(&mut connection).await?;
        if hello.content != content {
            return Err(HandshakeError::OtherContent);
        }
        let info = LinkInfo::dialled(hello.peer, addr.clone());
        Ok((connection, info.with_cookies(cookie, hello.cookie)))
    };
    timeout(HANDSHAKE_TIMEOUT, shake)
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}

/// Reads the Hello of the other side. The side that accepted answers it.
pub(super) async fn hear(connection: &mut Connection) -> Result<Hello, HandshakeError> {
    connection.limits.set(HELLO_FRAMES);
    let frame = connection.stream.next().await;
    connection.limits.set(LINK_FRAMES);
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

/// Refuses an accepted connection, closes it, and waits until the other side
/// does the same. If TCP were closed at once with bytes unread, the other side
/// would lose the answer to a reset.
pub(super) async fn refuse(connection: &mut Connection, reason: RefuseReason) {
    let farewell = async {
        say(connection, PeerMessage::Refuse(reason)).await?;
        connection.sink.close().await?;
        while connection
            .stream
            .next()
            .await
            .is_some_and(|frame| frame.is_ok())
        {}
        Ok::<_, TransportError>(())
    };
    // Nothing depends on whether the other side reads it.
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
}
