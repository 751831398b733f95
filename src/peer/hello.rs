//! The Hello of the other side, and why there may be none.

use futures::StreamExt;
use tokio::time::timeout;

use crate::content::ContentId;
use crate::protocol::limits::{HANDSHAKE_TIMEOUT, LINK_FRAMES};
use crate::protocol::{FrameLimits, Hello, LinkCookie, PeerMessage, ProtocolError, RefuseReason};
use crate::transport::{FrameStream, LimitHandle, TransportError};

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
    pub(super) content: ContentId,
    /// What this side said.
    pub(super) cookie: LinkCookie,
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
