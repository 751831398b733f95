//! The peer: shares, downloads, and serves while it downloads.

pub mod swarm;
