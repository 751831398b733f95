//! QUIC, over UDP, with the authentication of [`auth`](super::auth).
//!
//! Two programs have one QUIC connection, and each channel has a stream of its own in it in
//! each direction, so that a datagram that is lost holds up one content and not all. It survives a change of address of the side
//! that has dialled. A transport dials from the address that it listens at. Nothing is sent
//! before the other side is known (no 0-RTT): the first flight of a session registers it,
//! and opens channels and asks for blocks, and whoever replayed it would do that again.
//!
//! A listener hands out connections whose handshake is done. Those under way are bounded
//! ([`HandshakeConfig`](super::auth::HandshakeConfig)). An address that may be forged has
//! to prove itself by a round trip more (Retry) while there are many of them, and when its
//! host has failed of late, so that a flood of forged ones costs a datagram each.

mod endpoints;
mod error;
mod halves;
mod lane;
mod listener;
mod order;
mod session;
mod settings;
mod sink;
mod socket;
mod stream;
mod transport;

pub use transport::QuicTransport;
