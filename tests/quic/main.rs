//! Swarms over QUIC: the contract, whom they let in, and what a network does to them.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../tls/authority.rs"]
#[allow(dead_code)]
mod authority;
mod channels;
mod conformance;
mod floods;
#[path = "../tls/learned.rs"]
mod learned;
mod losses;
mod lossy;
mod members;
mod nothing_learned;
#[path = "../tls/outsider.rs"]
#[allow(dead_code)]
mod outsider;
mod outsiders;
mod revoking;
mod swarm;
