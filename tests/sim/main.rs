//! Many endpoints in one thread, in virtual time.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod network;
mod peer_faults;
#[path = "../world/mod.rs"]
mod world;
