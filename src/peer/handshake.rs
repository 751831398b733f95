//! The first message on a link, from both sides.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::shared::PeerShared;
use crate::content::ContentId;
use crate::protocol::limits::{HANDSHAKE_TIMEOUT, LINK_FRAMES};
use crate::protocol::{
    Addr, FrameLimits, Hello, LinkCookie, PeerMessage, ProtocolError, RefuseReason,
};
use crate::transport::{Connection, FrameStream, LimitHandle, TransportError};

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

/// The Hello that answers the one of this side.
pub(super) struct AwaitedHello {
    content: ContentId,
    /// What this side said.
    pub(super) cookie: LinkCookie,
}

/// Connects to an owner and says Hello about a content. The answer is read by the task
/// of the link, which sends meanwhile.
pub(super) async fn dial(
    shared: &PeerShared,
    addr: &Addr,
    content: ContentId,
) -> Result<(Connection, AwaitedHello), HandshakeError> {
    let shake = async {
        let mut connection = shared.transport.connect(addr).await?;
        let said = shared.hello(content);
        let cookie = said.cookie;
        say(&mut connection, PeerMessage::Hello(said)).await?;
        Ok((connection, AwaitedHello { content, cookie }))
    };
    timeout(HANDSHAKE_TIMEOUT, shake)
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}

impl AwaitedHello {
    /// Reads the answer, which must come within [`HANDSHAKE_TIMEOUT`].
    pub(super) async fn hear(
        &self,
        stream: &mut FrameStream,
        limits: &LimitHandle,
    ) -> Result<Hello, HandshakeError> {
        let heard = timeout(HANDSHAKE_TIMEOUT, hear(stream, limits)).await;
        let hello = heard.unwrap_or(Err(HandshakeError::TimedOut))?;
        match hello.content == self.content {
            true => Ok(hello),
            false => Err(HandshakeError::OtherContent),
        }
    }
}

/// Reads the Hello of the other side. The side that accepted answers it.
pub(super) async fn hear(
    stream: &mut FrameStream,
    limits: &LimitHandle,
) -> Result<Hello, HandshakeError> {
    limits.set(HELLO_FRAMES);
    let frame = stream.next().await;
    limits.set(LINK_FRAMES);
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
