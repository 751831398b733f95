//! Properties of the pure parts, against naive models and arbitrary input.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod bitfield;
mod codec;
mod codec_limits;
mod content;
mod manifest;
mod protocol_md;
mod registry;
mod subject;
mod tracker_abuse;
