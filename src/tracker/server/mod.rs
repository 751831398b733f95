//! Serves a registry over a transport.
//!
//! One task accepts connections ([`tracker`]), one runs expiry, and one per
//! connection answers requests ([`connection`]). They share the registry
//! ([`service`]), whose locks are held for one pure step at a time and never
//! across an await. A step takes less than a microsecond; a channel to a task that
//! owns the registry would not be faster. A client that is slow to read delays
//! only its own connection.

mod admission;
mod config;
mod connection;
mod permission;
mod questions;
mod recording;
mod registrations;
mod revoking;
mod service;
mod token_binding;
#[cfg(feature = "bittorrent")]
mod torrents;
mod tracker;

pub use config::{BindError, TrackerConfig};
pub use tracker::{SHUTDOWN_TIMEOUT, Tracker, TrackerBuilder, TrackerStats};
