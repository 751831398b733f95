//! Fuzz targets: each a function of bytes that panics when a promise of the crate is broken.
//!
//! A target asserts more than that nothing panics. What was read is written again as the
//! same bytes, or is the same when it is read again; the memory that it takes is within a
//! stated multiple of the input; a machine keeps its own invariants and agrees with a naive
//! model. `fuzz_targets/` has a program for each, which libFuzzer drives, and
//! `tests/corpus.rs` runs all of them over the corpus and over made-up inputs.

#![allow(
    clippy::field_reassign_with_default,
    reason = "the crate's structs cannot be written out elsewhere"
)]

mod contents;
mod files;
mod input;
mod links;
mod machines;
mod memory;
mod messages;
mod torrents;

/// The models of the machines, which the property tests use as well.
#[path = "../../tests/props"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "their tests are not built here"
)]
mod props {
    pub(crate) mod registry;
    pub(crate) mod registry_model;
    pub(crate) mod sample;
    pub(crate) mod swarm_observer;
    pub(crate) mod swarm_script;
}

// As they name each other.
use props::{registry_model, sample, swarm_observer};

pub use contents::{folder_indexes, manifests};
pub use files::{catalogues, journals, json, records};
pub use links::{hash_trees, links, metadata};
pub use machines::{registry, swarm};
pub use messages::{framed_streams, peer_frames, texts, tracker_frames};
pub use torrents::{bencode, extensions, http_trackers, magnets, metainfo, udp_trackers, wire};

/// A target, by its name.
pub type Target = (&'static str, fn(&[u8]));

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$((stringify!($name), $name)),+];
    };
}

targets![
    bencode,
    catalogues,
    extensions,
    folder_indexes,
    framed_streams,
    hash_trees,
    http_trackers,
    journals,
    json,
    links,
    magnets,
    manifests,
    metadata,
    metainfo,
    peer_frames,
    records,
    registry,
    swarm,
    texts,
    tracker_frames,
    udp_trackers,
    wire,
];
