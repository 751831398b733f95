//! The client of trackers, for peers and for other programs.
//!
//! A [`TrackerClient`] keeps one task per tracker ([`session`]), which owns the
//! connection: it registers, sends heartbeats, reconnects after a failure, and
//! brings a restarted tracker up to date. Trackers that share a store have one task, which
//! uses one of them at a time ([`fleet`]). What the trackers must know is kept in
//! one shared place ([`state`]), so that nothing is lost with a connection.

mod config;
mod connection;
mod error;
mod events;
mod fleet;
mod handle;
mod lately;
mod merge;
mod other_family;
mod pipeline;
mod session;
mod state;

pub use config::ClientConfig;
pub use error::TrackerError;
pub use events::{OwnEvent, OwnEvents, RefusedOwn};
pub use handle::TrackerClient;
