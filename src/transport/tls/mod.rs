//! TLS 1.3 over any transport of byte streams.
//!
//! Both sides authenticate themselves ([`auth`](super::auth)); there is nothing below
//! that. Sessions are not resumed, and nothing is sent before the other side is known. A
//! listener hands out connections whose handshake is done. Those under way are bounded
//! ([`HandshakeConfig`](super::auth::HandshakeConfig)), and run in the task that accepts,
//! so that a flood of them costs at most one core.
//!
//! The library does the handshake and derives the keys. The records behind the handshake are
//! sealed and opened here, by the ciphers of the library, in the memory in which they are
//! sent and received: so each byte is copied once at either end.

mod exporter;
mod handshake;
mod incoming;
mod keys;
mod listener;
mod outgoing;
mod record;
mod session;
mod tls_stream;
mod transport;

pub use transport::TlsTransport;
