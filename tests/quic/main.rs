//! Swarms over QUIC: the contract, whom they let in, and what a network does to them.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../tls/authority.rs"]
mod authority;
mod conformance;
mod members;
