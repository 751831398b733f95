//! From a session of TLS to a connection with a member.

use tokio::io::{AsyncRead, AsyncWrite};

use super::handshake::Shaken;
use crate::transport::auth::{Authenticator, MemberIo, Side};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;
use crate::transport::stream::ByteStream;

/// Makes a connection of a session whose handshake is done, if the other side is let in.
pub(super) async fn admit<S>(
    auth: &Authenticator,
    stream: ByteStream<Shaken<S>>,
    side: Side,
) -> Result<Connection, AuthError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ByteStream { io, remote, local } = stream;
    let Shaken {
        mut io,
        chain,
        exporter,
    } = io;
    let member = auth
        .admit(&mut io, side, chain.as_deref(), exporter)
        .await?;
    let membership = member.ended.membership();
    let io = MemberIo::new(io, member.ended);
    let connection = ByteStream::new(io, remote, local).framed();
    let connection = connection.with_identity(member.identity);
    Ok(connection.with_membership(membership))
}
