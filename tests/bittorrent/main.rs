//! BitTorrent, as clients of other makers speak it: its formats against files of another
//! program, models, and bytes that mean harm; and sessions.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod builder;
mod hostile_torrents;
mod mutations;
mod reference;
mod sessions;
mod tracker_http;
mod tracker_udp;
mod value;
mod wire;
