//! BitTorrent itself: what clients of other makers speak.
//!
//! [`wire`] is what is said on a connection between two peers: the handshake, the messages,
//! and the extensions. One connection is translated for the swarm machine by the module
//! `link`. Both are pure: no sockets, clocks or tasks.

#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, unused_imports, unreachable_pub)
)]
pub(crate) mod link;
pub mod wire;
