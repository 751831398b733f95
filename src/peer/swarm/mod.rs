//! The swarm machine: all that a peer decides about one content.
//!
//! [`Swarm`] is pure. Its methods take what happens, each with the time at which it
//! happened. [`poll_output`](Swarm::poll_output) returns what to do, and
//! [`poll_timeout`](Swarm::poll_timeout) says when to call
//! [`handle_timeout`](Swarm::handle_timeout). The same inputs always give the same outputs.
//!
//! ```text
//!  links up and down ─┐   ┌─────────────────────────────┐   ┌─▶ messages, dials, drops
//!  messages ──────────┤   │ Swarm                       │   ├─▶ chunks to hash, to write
//!  hashed, written ───┼──▶│  AddressBook  ManifestFetch │───┼─▶ blocks to read
//!  read, sent ────────┤   │  Planner      Transfer      │   ├─▶ owners to find, to credit
//!  owners, time ──────┘   │  Uploader     Outbox        │   └─▶ announcements, the end
//!                         └─────────────────────────────┘
//! ```
//! A content goes through these phases. A seeder starts in the last one:
//!
//! ```text
//!  Manifest ──▶ Opening ──▶ Transfer ──▶ Seeding
//!   (fetch)     (storage)   (blocks, then publishing)
//! ```
//! A chunk that was verified and written is offered to others from then on, and no other
//! chunk is. What an earlier download left behind is read and verified first, a little at a
//! time beside everything else. The content is finished when every chunk is verified.

mod address_book;
mod ask_queue;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod assembler;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod block_layout;
mod chunk_bytes;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod chunk_set;
mod config;
mod contributor;
mod early;
mod event;
mod gate;
mod leftover;
mod link;
mod link_id;
mod link_info;
mod link_map;
mod machine;
mod manifest_fetch;
mod newcomers;
mod outbox;
mod output;
mod owner_search;
mod page_asks;
mod passage;
mod persistence;
mod phase;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod picker;
mod piece_map;
mod places;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod planner;
mod progress;
mod rate;
mod read_window;
mod remote_chunks;
mod same_peer;
mod smart_ban;
mod stall;
mod standby;
mod stats;
mod super_seeding;
mod supply;
mod throughput;
mod transfer;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod uploader;
mod waiting_line;
mod withdrawals;

pub(crate) use chunk_bytes::ChunkBytes;
pub use config::SwarmConfig;
pub use event::{BanReason, BannedPeer, LeaveReason, RemotePeer, SwarmEvent};
pub use gate::{Allowance, AllowanceKind, Direction};
pub use link_id::LinkId;
pub use link_info::{LinkCookies, LinkInfo, LinkKind};
pub(crate) use link_map::LinkMap;
pub use machine::Swarm;
pub use manifest_fetch::ManifestClaim;
#[cfg(feature = "testing")]
pub(crate) use manifest_fetch::serve as manifest_page;
pub use output::{DropReason, Output};
pub use piece_map::{PieceMap, PieceRun, PieceState};
pub use planner::{PlannerConfig, Strategy};
pub use progress::{FarBytes, Progress, Waste};
pub use read_window::ReadWindow;
pub use stall::StallReason;
pub use stats::{DownloadStats, LinkState, LinkStats};
pub use throughput::RATE_WINDOW;
pub(crate) use throughput::Throughput;
