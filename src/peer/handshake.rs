//! The first message on a link, from both sides.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::shared::Shared;
use super::swarm::LinkInfo;
use crate::content::ContentId;
use crate::protocol::limits::{HANDSHAKE_TIMEOUT, LINK_FRAMES};
use crate::protocol::{Addr, FrameLimits, Hello, PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, TransportError};

/// How long a connection that is refused has to take that message and go.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Frames before the Hello was heard: a stranger has no body to send. The room
/// for one is for other versions, which are to be told that they are.
const HELLO_FRAMES: FrameLimits = FrameLimits {
    head: LINK_FRAMES.head,
    body: LINK_FRAMES.head as u32,
};

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

/// Hears what the other side of a connection wants. An acceptor answers.
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

/// Refuses an accepted connection, closes it, and waits for the other side to
/// do the same: what it sent meanwhile and nobody read would otherwise cost it
/// the answer, on TCP.
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
    // Whether the other side hears it is its own affair.
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
}
