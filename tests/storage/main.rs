//! The storages of this crate: the conformance suite on each, the suite on
//! storages that are broken on purpose, interrupted downloads, and directories in
//! bad states.

#![allow(clippy::unwrap_used)]

mod broken;
mod conformance;
#[cfg(unix)]
mod descriptors;
#[cfg(unix)]
mod directories;
#[cfg(unix)]
mod durable;
#[cfg(unix)]
mod files;
mod forwarding;
mod memory;
#[cfg(target_os = "linux")]
mod odd_file_systems;
#[cfg(unix)]
mod removing;
#[cfg(unix)]
mod short;
#[path = "../world/traits.rs"]
mod traits;
