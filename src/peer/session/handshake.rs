//! The first message of a session, from both sides.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use crate::protocol::limits::LINK_FRAMES;
use crate::protocol::{ChannelId, FrameLimits, Hello, PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{Connection, FrameStream, LimitHandle, PeerIdentity, TransportError};

/// How long a connection that is refused has to read that message and close.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The frames that are read before the Hello. This version sends no body there;
/// the room for one lets other versions be told that theirs is not spoken here.
const HELLO_FRAMES: FrameLimits = FrameLimits {
    head: LINK_FRAMES.head,
    body: LINK_FRAMES.head as u32,
};

/// Why there is no session.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::peer) enum HandshakeError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("refused: {0}")]
    Refused(RefuseReason),
    #[error("it uses the id of another peer")]
    WrongPeer,
    #[error("this peer does not allow it")]
    Denied,
    #[error("this peer cannot tell now whether it allows it")]
    Unsure,
    #[error("the first message was not a Hello")]
    NoHello,
    #[error("the handshake took too long")]
    TimedOut,
    #[error("this peer has no place for another connection")]
    Full,
    #[error("this peer is shutting down")]
    ShutDown,
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
        (ChannelId::SESSION, PeerMessage::Hello(hello)) => Ok(hello),
        (ChannelId::SESSION, PeerMessage::Refuse(reason)) => Err(HandshakeError::Refused(reason)),
        _ => Err(HandshakeError::NoHello),
    }
}

/// Checks that the other side is who its Hello says, where the transport knows who it is.
pub(super) fn check_peer(
    hello: &Hello,
    identity: Option<PeerIdentity>,
) -> Result<(), HandshakeError> {
    match identity {
        Some(identity) if identity.peer_id() != hello.peer => Err(HandshakeError::WrongPeer),
        _ => Ok(()),
    }
}

/// Sends one message during the handshake.
pub(super) async fn say(
    connection: &mut Connection,
    message: PeerMessage,
) -> Result<(), TransportError> {
    let frame = message.encode(ChannelId::SESSION);
    connection.sink.send(frame).await
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
