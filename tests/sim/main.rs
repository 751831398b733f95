//! Many endpoints in one thread, in virtual time.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod adversaries;
mod crowd;
mod deaf;
mod network;
mod pauses;
mod peer_access;
mod peer_access_unsure;
mod peer_break;
mod peer_cancel;
mod peer_config;
mod peer_control;
mod peer_crowd_strangers;
mod peer_crowd_takers;
mod peer_events;
mod peer_faults;
mod peer_hostile;
mod peer_joins;
mod peer_limited;
mod peer_limits;
mod peer_paused;
mod peer_reading;
mod peer_replay;
mod peer_sessions;
mod peer_shutdown;
mod peer_stalls;
mod peer_strangers;
mod peer_stream;
mod peer_stream_offers;
mod peer_trackers;
mod peer_waits;
mod peer_waste;
mod peer_watch;
mod peer_zones;
mod tit_for_tat;
#[path = "../world/mod.rs"]
mod world;
mod zones;
