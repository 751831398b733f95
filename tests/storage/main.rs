//! The storages that come with the crate: the conformance suite on each, the
//! suite on storages that are broken on purpose, downloads that are
//! interrupted, and directories in states that nobody wants.

#![allow(clippy::unwrap_used)]

mod broken;
mod conformance;
#[cfg(unix)]
mod durable;
#[cfg(unix)]
mod files;
mod memory;
