//! Private swarms: whom they let in, and what all others learn.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod authority;
mod chains;
#[cfg(feature = "bittorrent")]
mod clear_door;
mod conformance;
mod expiry;
mod floods;
mod identities;
mod in_the_clear;
mod learned;
mod nothing_learned;
#[cfg(unix)]
mod openssl;
mod outsider;
mod outsiders;
mod recorder;
mod reload;
mod revocation_lists;
mod revoking;
mod set_up;
mod swarm;
mod warnings;
