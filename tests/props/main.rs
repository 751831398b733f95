//! Properties of the pure parts, against naive models and arbitrary input.

// Also in the functions that the tests call.
#![allow(clippy::unwrap_used)]

mod assembler;
mod bitfield;
mod codec;
mod codec_limits;
mod content;
mod manifest;
mod picker;
mod planner;
mod swarm;
mod swarm_world;
mod uploader;
