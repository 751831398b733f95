//! The translation of a BitTorrent connection, for property tests. It is not part of the
//! stable surface of the crate.

pub use crate::bittorrent::link::*;
