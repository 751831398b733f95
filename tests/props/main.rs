//! Properties of the pure parts, against naive models and arbitrary input.

mod bitfield;
mod codec;
mod codec_limits;
mod content;
mod manifest;
mod registry;
