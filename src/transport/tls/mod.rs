//! TLS 1.3 over any transport of byte streams.
//!
//! Both sides authenticate themselves ([`auth`](super::auth)); there is nothing below
//! that. Sessions are not resumed, and nothing is sent before the other side is known. A
//! listener hands out connections whose handshake is done. Those under way are bounded
//! ([`HandshakeConfig`](super::auth::HandshakeConfig)), and run in the task that accepts,
//! so that a flood of them costs at most one core.

mod large_reads;
mod listener;
mod session;
mod transport;

pub use transport::TlsTransport;
