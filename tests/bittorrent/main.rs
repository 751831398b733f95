//! The data formats of BitTorrent: against files of another program, models, and bytes that
//! mean harm.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod builder;
mod hostile_torrents;
mod mutations;
mod reference;
mod tracker_http;
mod tracker_udp;
mod value;
