//! Sessions: one connection between two peers, which carries all their contents.
//!
//! A session begins with a Hello from each side. Then either side opens channels,
//! one for each content, and each channel is a link of the driver of that content.
//! Which connections are kept, and how many, is decided in [`admission`].

mod accept;
pub(super) mod admission;
mod channels;
mod dialler;
pub(super) mod guard;
mod handshake;
pub(super) mod identity;
mod openings;
pub(super) mod outlet;
mod task;

pub(super) use accept::run as accept;
pub(super) use dialler::Dialler;
pub(super) use handshake::HandshakeError;
