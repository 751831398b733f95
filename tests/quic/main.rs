//! Swarms over QUIC: the contract, whom they let in, and what a network does to them.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../tls/authority.rs"]
#[allow(dead_code)]
mod authority;
mod channels;
mod conformance;
mod floods;
mod members;
mod outsiders;
mod stranger;
mod swarm;
