//! The tracker: which peers there are, what each of them owns, and how fast it
//! uploads.
//!
//! [`ShardedRegistry`] is the knowledge of a tracker and its decisions: a request
//! and the time go in, a reply comes out. [`Tracker`] serves a registry over a
//! transport. [`TrackerClient`] is the other side, with which a peer, or any other
//! program, asks trackers.

#[cfg(feature = "bittorrent")]
mod announcing;
mod batch;
mod client;
#[cfg(feature = "redis")]
mod redis;
mod registry;
mod request_handler;
mod server;
mod sharded;
mod shards;
mod store;

pub use batch::{Asked, Replies};
pub use client::{ClientConfig, OwnEvent, OwnEvents, RefusedOwn, TrackerClient, TrackerError};
#[cfg(feature = "redis")]
pub use redis::{RedisConfig, StoreError, StoreStats};
pub use registry::{
    AddressRule, Credit, KnownContent, RefusalCounts, RegistryConfig, RegistryStats, RequestCounts,
    RequestsPerSecond, Snapshot,
};
#[cfg(feature = "bittorrent")]
pub use registry::{DEFAULT_WANTED, MAX_WANTED, TorrentAnnounce, TorrentAnswer};
pub use server::{
    BindError, SHUTDOWN_TIMEOUT, Tracker, TrackerBuilder, TrackerConfig, TrackerStats,
};
pub use sharded::{MAX_SHARDS, ShardedRegistry};
