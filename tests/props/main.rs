//! Property tests of the pure modules, with naive models and arbitrary input.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod announces;
mod assembler;
mod bitfield;
mod codec;
mod codec_limits;
mod content;
mod dont_have;
mod folder;
mod manifest;
mod picker;
mod planner;
mod protocol_md;
mod registry;
mod registry_batches;
mod registry_figures;
mod registry_model;
mod registry_threads;
mod sample;
mod swarm;
mod swarm_limits;
mod swarm_line;
mod swarm_observer;
mod swarm_script;
mod swarm_strangers;
mod swarm_world;
mod torrent;
mod torrent_swarm;
mod tracker_abuse;
mod tracker_addresses;
mod tracker_names;
mod tracker_replays;
mod tracker_strangers;
mod tracker_world;
mod tracker_zones;
mod uploader;
mod zones;
