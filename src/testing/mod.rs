//! Helpers for tests (feature `testing`): conformance suites for implementations
//! of [`Transport`](crate::Transport) and [`Storage`](crate::Storage), whole
//! swarms in virtual time, and the parts of the swarm machine.
//!
//! Each suite is a function that panics if an implementation breaks its contract.
//! Call it from a test of your own.

#[cfg(feature = "bittorrent")]
pub mod bittorrent;
pub mod machine;
pub mod simulation;
pub mod storage;
pub mod transport;
