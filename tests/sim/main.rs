//! Many endpoints in one thread, in virtual time.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod network;
