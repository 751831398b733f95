//! BitTorrent, as clients of other makers speak it: its formats against files of another
//! program, models, and bytes that mean harm; and sessions.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![allow(clippy::single_range_in_vec_init, reason = "padding may be one range")]

mod also;
mod also_folders;
mod announces;
mod builder;
mod choosing;
mod discovery;
mod hash_trees;
mod hostile_torrents;
mod link_choking;
mod link_desk;
mod link_having;
mod link_machine;
mod link_magnet;
mod link_others;
mod link_pair;
mod link_requests;
mod link_strangers;
mod magnets;
mod metadata_fetch;
mod mutations;
mod raw_peer;
mod reference;
mod served;
mod session_slots;
mod sessions;
mod tracker_http;
mod tracker_udp;
mod value;
mod wire_bytes;
mod wire_extensions;
mod wire_props;
