//! What a connection is set to, and why.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};

use crate::protocol::limits::IDLE_TIMEOUT;
use crate::transport::auth::{Authenticator, Verdict};

/// What the two sides agree to speak, with the version of the protocol.
pub(super) const ALPN: &[u8] = b"bt_lite/2";

/// How many bytes may be under way to a side, in one connection: enough for 400 Mbit/s over
/// a round trip of 200 ms, and as much as a member that sends and never fills a gap can
/// make this side keep. One content may have all of it, so each stream has the same.
const WINDOW: u32 = 10 << 20;

/// How many streams for channels a side may have open towards the other: one for each channel
/// of a session, of which either side opens 1,024 at most, and some that are about to end.
const MAX_LANES: u32 = 2 * 1024 + 64;

/// How many frames of channels may be there in part, in one connection, so that a member
/// that begins one on each stream makes this side keep 8 MiB and no more. What it sends
/// beyond that stays in the window. A side sends its frames one after the other, so that only
/// losses make parts.
pub(super) const MAX_PARTIAL: usize = 32;

/// The window until the other side is known: a proof is 33 bytes long.
const STRANGERS_WINDOW: u32 = 4 << 10;

/// How often a silent side says that it is there. Many routers forget a UDP flow after 30 s
/// (RFC 4787 asks for 2 min, and RFC 9000 says in 10.1.2 not to count on it).
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// The largest UDP payload that is tried, in bytes: Ethernet's 1,500, less the headers of
/// IPv6 and UDP. A connection begins with 1,200, which every path of QUIC carries.
const MAX_DATAGRAM: u16 = 1452;

/// How many handshakes may wait for this side to take them. Further ones are refused. While
/// one waits it keeps its first datagrams, and no more than [`WAITING_BYTES`] of them.
const MAX_WAITING: usize = 1024;

/// Bytes of one handshake that waits: a ClientHello of three datagrams and some more.
const WAITING_BYTES: u64 = 8 << 10;

/// How long the answer to a Retry may take: the longest round trip and some losses.
const RETRY_LIFETIME: Duration = Duration::from_secs(10);

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MAX_DATAGRAM);
    config
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(STRANGERS_WINDOW))
        .send_window(u64::from(WINDOW))
        // In the order in which frames were written: the session has its channels take turns.
        .send_fairness(false)
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

/// The configuration of one handshake of the side that connects.
pub(super) fn client(
    auth: &Authenticator,
) -> Result<(ClientConfig, Verdict), NoInitialCipherSuite> {
    let (mut tls, verdict) = auth.noting_client_config();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    Ok((config, verdict))
}

/// The configuration of a listener.
pub(super) fn server(auth: &Authenticator) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut tls = rustls::ServerConfig::clone(auth.server_config());
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport()))
        .migration(true)
        .retry_token_lifetime(RETRY_LIFETIME)
        .max_incoming(MAX_WAITING)
        .incoming_buffer_size(WAITING_BYTES)
        .incoming_buffer_size_total(WAITING_BYTES * MAX_WAITING as u64);
    Ok(config)
}

/// The other side is a member: it may send as much as a member may.
pub(super) fn let_in(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(WINDOW));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(MAX_LANES));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::limits::VERSION;

    #[test]
    fn alpn_has_the_version_of_the_protocol() {
        assert_eq!(ALPN, format!("bt_lite/{VERSION}").as_bytes());
    }
}
