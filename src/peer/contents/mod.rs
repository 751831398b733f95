//! The contents of a peer, asleep and awake.
//!
//! A content that nobody asks for is an entry in the [`table`]. The first link
//! wakes it: it gets a [`driver`], a task that carries out what the machine in
//! [`swarm`](super::swarm) decides. With its last link it falls asleep again.

pub(super) mod asleep;
// Only torrents have one.
#[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
pub(super) mod choice;
pub(super) mod common_place;
pub(super) mod complete_bytes;
pub(super) mod driver;
pub(super) mod eviction;
pub(super) mod folder_source;
pub(super) mod hashing;
pub(super) mod inbox;
pub(super) mod kept_draft;
pub(super) mod listing;
pub(super) mod losses;
pub(super) mod lost;
pub(super) mod outside;
pub(super) mod passing;
pub(super) mod place;
#[cfg(feature = "file-storage")]
pub(super) mod pour;
pub(super) mod read_boards;
pub(super) mod readers;
pub(super) mod reading;
pub(super) mod replaced;
pub(super) mod role;
pub(super) mod room;
pub(super) mod serve;
pub(super) mod status;
pub(super) mod table;
pub(super) mod uploads;
pub(super) mod whole_reads;
pub(super) mod withdrawal;
