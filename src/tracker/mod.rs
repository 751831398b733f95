//! The tracker: who is there, who owns what, and how fast each uploads.
//!
//! [`registry`] is what a tracker knows and decides, pure: a request and the
//! time in, a reply out. [`Tracker`] serves a registry over a transport, and
//! [`TrackerClient`] is the other side: what a peer, or any other program,
//! asks trackers with.

mod client;
pub mod registry;
mod server;
mod sharded;

pub use client::{ClientConfig, OwnEvent, OwnEvents, RefusedOwn, TrackerClient, TrackerError};
pub use registry::{
    AddressRule, Credit, KnownContent, RefusalCounts, RegistryConfig, RegistryStats, RequestCounts,
    RequestRates, Snapshot,
};
pub use server::{
    BindError, SHUTDOWN_TIMEOUT, Tracker, TrackerBuilder, TrackerConfig, TrackerStats,
};
pub use sharded::{MAX_SHARDS, ShardedRegistry};
