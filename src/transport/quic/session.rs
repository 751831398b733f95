//! From a handshake to a connection with a member.

use std::sync::Arc;

use quinn::Connecting;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::failed;
use super::halves::{ReadHalf, WriteHalf};
use super::order::Order;
use super::settings::let_in;
use super::sink::QuicSink;
use super::stream::QuicStream;
use crate::transport::auth::{Authenticator, EXPORTER_LABEL, Side};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::{Connection, LimitHandle};
use crate::transport::tcp::canonical;

/// The first byte that the dialler sends: QUIC tells nobody of a stream on which nothing
/// was sent.
const FRAMES: u8 = 0;

/// Goes through a handshake. `port` is that of the own endpoint.
pub(super) async fn shake_hands(
    auth: &Authenticator,
    connecting: Connecting,
    side: Side,
    port: u16,
) -> Result<Connection, HandshakeFailure> {
    let connection = connecting.await?;
    Ok(admit(auth, connection, side, port).await?)
}

/// Why there is no connection.
pub(super) enum HandshakeFailure {
    /// Of the handshake of QUIC.
    Quic(quinn::ConnectionError),
    /// One side does not let the other in.
    Auth(AuthError),
}

impl From<quinn::ConnectionError> for HandshakeFailure {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Quic(error)
    }
}

impl From<AuthError> for HandshakeFailure {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<HandshakeFailure> for AuthError {
    fn from(failure: HandshakeFailure) -> Self {
        match failure {
            HandshakeFailure::Quic(error) => failed(&error),
            HandshakeFailure::Auth(error) => error,
        }
    }
}

/// Makes a connection with frames of one whose handshake is done, if the other side is let
/// in. If not, it is closed without a word.
async fn admit(
    auth: &Authenticator,
    connection: quinn::Connection,
    side: Side,
    port: u16,
) -> Result<Connection, AuthError> {
    let streams = match side {
        Side::Client => connection.open_bi().await,
        Side::Server => connection.accept_bi().await,
    };
    let (send, recv) = streams.map_err(|error| failed(&error))?;
    let mut io = tokio::io::join(ReadHalf(recv), WriteHalf(send));
    begin(&mut io, side).await?;
    let mut exporter = [0; 32];
    let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"");
    exported.map_err(|_| handshake("no keying material"))?;
    let chain = connection.peer_identity();
    let chain = chain.and_then(|chain| chain.downcast::<Vec<_>>().ok());
    let chain = chain.as_deref().map(Vec::as_slice);
    let member = auth.admit(&mut io, side, chain, exporter).await?;
    let_in(&connection);
    let (recv, send) = io.into_inner();
    let (order, limits) = (Arc::new(Order::new(side)), LimitHandle::default());
    let remote = canonical(connection.remote_address()).into();
    let local = connection.local_ip();
    let moving = connection.clone();
    let sink = QuicSink::new(connection.clone(), send, Arc::clone(&order));
    let membership = member.ended.membership();
    let stream = QuicStream::new(connection, recv, order, limits.clone(), member.ended);
    let mut framed = Connection::new(remote, sink, stream, limits);
    framed.local = local.map(|ip| canonical((ip, port).into()).into());
    let framed = framed.with_moving_remote(move || canonical(moving.remote_address()).into());
    let framed = framed.with_identity(member.identity);
    Ok(framed.with_membership(membership))
}

/// Says, or hears, that the stream is there.
async fn begin(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    side: Side,
) -> Result<(), AuthError> {
    let failed = |error: std::io::Error| AuthError::handshake(error);
    match side {
        Side::Client => io.write_all(&[FRAMES]).await.map_err(failed),
        Side::Server => match io.read_u8().await.map_err(failed)? {
            FRAMES => Ok(()),
            _ => Err(handshake("the stream is none of frames")),
        },
    }
}

fn handshake(reason: &str) -> AuthError {
    AuthError::Handshake {
        reason: reason.into(),
    }
}
