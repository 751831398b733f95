//! The first messages on a link, as far as this side sends them.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::hello::{AwaitedHello, HandshakeError};
use super::shared::PeerShared;
use crate::content::ContentId;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, PeerMessage, RefuseReason};
use crate::transport::{Connection, TransportError};

/// How long a connection that is refused has to read that message and close.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

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
