//! BitTorrent, as clients of other makers speak it.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod sessions;
mod wire;
