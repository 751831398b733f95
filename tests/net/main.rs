//! Transports and the wire, on real sockets and on pipes.
//!
//! What whole peers do is tested over TCP, TLS, QUIC and in memory (`on_all_networks`). In
//! memory alone are tests that set what only that network can do (rates, cuts, virtual
//! time), and over TCP alone those about its sockets and about strangers without a key.

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
mod folder_joins;
#[cfg(unix)]
mod folder_losses;
#[cfg(unix)]
mod folder_overwritten;
#[cfg(unix)]
mod folder_parts;
#[cfg(unix)]
mod folder_paused;
#[cfg(unix)]
mod folder_places;
#[cfg(unix)]
mod folder_removal;
#[cfg(unix)]
mod folder_shares;
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
mod peer_interrupted;
mod peer_joins;
mod peer_keys;
mod peer_liars;
mod peer_local_reads;
mod peer_names;
#[cfg(unix)]
mod peer_paths;
#[cfg(unix)]
mod peer_places;
mod peer_read_ahead;
mod peer_reading;
#[cfg(unix)]
mod peer_removal;
#[cfg(unix)]
mod peer_replaced;
mod peer_resume;
mod peer_spans;
mod peer_started_seeks;
mod peer_streams;
mod peer_surface;
mod peer_transfer;
mod peer_verify;
mod peer_watch;
mod tcp;
#[path = "../world/mod.rs"]
mod world;
