//! Conformance suites for implementations of the crate's seams (feature
//! `testing`).
//!
//! Each suite is a function that panics where an implementation breaks its
//! contract; call it from a test of your own.

pub mod simulation;
pub mod storage;
pub mod transport;
