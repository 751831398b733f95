//! Transports and the wire, on real sockets and on pipes.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod both_families;
mod broken;
mod config_files;
mod conformance;
mod errors;
#[cfg(unix)]
mod folder_access;
#[cfg(unix)]
mod folder_control;
#[cfg(unix)]
mod folder_errors;
#[cfg(unix)]
mod folder_files;
#[cfg(unix)]
mod folder_losses;
#[cfg(unix)]
mod folder_parts;
#[cfg(unix)]
mod folder_places;
#[cfg(unix)]
mod folder_stalls;
#[cfg(unix)]
mod folders;
mod forwarding;
mod framing;
mod json_forms;
mod metrics;
mod peer_control;
mod peer_crowd_strangers;
mod peer_disk;
mod peer_errors;
mod peer_eviction;
mod peer_files;
mod peer_handles;
mod peer_joins;
mod peer_names;
#[cfg(unix)]
mod peer_places;
mod peer_reading;
mod peer_resume;
mod peer_spans;
mod peer_streams;
mod peer_surface;
mod peer_transfer;
mod peer_watch;
mod tcp;
#[path = "../world/mod.rs"]
mod world;
