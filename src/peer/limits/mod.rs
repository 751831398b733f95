//! Rate limits: how fast a peer sends and receives, over all contents and links together.
//!
//! [`turns`] is the pure part: token buckets, and a fair queue before them. [`limiter`]
//! shares it among the drivers, which ask for a block at a time and are told when it may
//! pass. The machine of a content keeps what has to wait: see `swarm/gate.rs`.

mod bucket;
mod config;
mod limiter;
mod turns;

pub use config::{ContentLimits, RateLimits};
pub(in crate::peer) use limiter::{Limiter, Seat};
