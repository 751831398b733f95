//! From a session of TLS to a connection with a member.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsStream;

use crate::transport::auth::{Authenticator, EXPORTER_LABEL, MemberIo, Side, from_rustls};
use crate::transport::auth_error::AuthError;
use crate::transport::connection::Connection;
use crate::transport::stream::ByteStream;

/// How many bytes are encrypted before they are written, at most: as many as a socket takes
/// at once, and few enough that they are still in the cache of the processor.
const SENT_AT_ONCE: usize = 256 << 10;

/// Makes a connection of a session whose handshake is done, if the other side is let in.
pub(super) async fn admit<S>(
    auth: &Authenticator,
    stream: ByteStream<TlsStream<S>>,
    side: Side,
) -> Result<Connection, AuthError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ByteStream {
        mut io,
        remote,
        local,
    } = stream;
    let exporter = match &io {
        TlsStream::Client(io) => {
            io.get_ref()
                .1
                .export_keying_material([0; 32], EXPORTER_LABEL, None)
        }
        TlsStream::Server(io) => {
            io.get_ref()
                .1
                .export_keying_material([0; 32], EXPORTER_LABEL, None)
        }
    };
    let exporter = exporter.map_err(|error| from_rustls(&error))?;
    let chain = io.get_ref().1.peer_certificates().map(<[_]>::to_vec);
    let member = auth
        .admit(&mut io, side, chain.as_deref(), exporter)
        .await?;
    let membership = member.ended.membership();
    match &mut io {
        TlsStream::Client(io) => io.get_mut().1.set_buffer_limit(Some(SENT_AT_ONCE)),
        TlsStream::Server(io) => io.get_mut().1.set_buffer_limit(Some(SENT_AT_ONCE)),
    }
    let io = MemberIo::new(io, member.ended);
    let connection = ByteStream::new(io, remote, local).framed();
    let connection = connection.with_identity(member.identity);
    Ok(connection.with_membership(membership))
}
