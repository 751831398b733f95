//! Private swarms: whom they let in, and what all others learn.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod authority;
mod conformance;
mod floods;
mod identities;
mod in_the_clear;
#[cfg(unix)]
mod openssl;
mod outsider;
mod outsiders;
mod recorder;
mod reload;
mod revoking;
mod swarm;
