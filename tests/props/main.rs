//! Properties of the pure parts, against naive models and arbitrary input.

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
