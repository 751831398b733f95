//! The swarm machine: all that a peer decides about one content.
//!
//! [`Swarm`] is pure. What happens comes in through its methods, each with the
//! time at which it happened; what is to be done comes out of
//! [`poll_output`](Swarm::poll_output), and [`poll_timeout`](Swarm::poll_timeout)
//! says when to call [`handle_timeout`](Swarm::handle_timeout). The same inputs
//! give the same outputs, always.
//!
//! ```text
//!  links up and down ─┐   ┌───────────────────────────┐   ┌─▶ messages, dials, drops
//!  messages ──────────┤   │ Swarm                     │   ├─▶ chunks to verify, to store
//!  verified, stored ──┼──▶│   ManifestFetch   AddressBook    ├───┼─▶ blocks to read
//!  read, sent ────────┤   │   Planner + Assembler     │   ├─▶ owners to find, to credit
//!  owners, time ──────┘   │   Uploader                │   └─▶ announcements, the end
//!                         └───────────────────────────┘
//! ```
//! A content goes through these phases; a seeder starts in the last one:
//!
//! ```text
//!  Manifest ──▶ Opening ──▶ Transfer ──▶ Finishing ──▶ Seeding
//!   (fetch)     (storage)   (blocks)      (publish)
//! ```
//! A chunk that was verified and written is offered to others from then on.
//! Nothing else ever is: what an earlier download left behind is read and
//! verified first, a little at a time beside all else, and the content is
//! finished when no chunk is left that was not.

mod address_book;
mod ask_queue;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod assembler;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod block_layout;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod chunk_set;
mod config;
mod contributor;
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
mod persistence;
mod phase;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod picker;
mod places;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod planner;
mod progress;
mod rate;
mod remote_chunks;
mod same_peer;
mod smart_ban;
mod super_seeding;
mod supply;
mod transfer;
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub(crate) mod uploader;

pub use config::SwarmConfig;
pub use link_id::LinkId;
pub use link_info::{LinkCookies, LinkInfo};
pub(crate) use link_map::LinkMap;
pub use machine::Swarm;
pub use manifest_fetch::ManifestClaim;
#[cfg(feature = "testing")]
pub(crate) use manifest_fetch::serve as manifest_page;
pub use output::{DropReason, Output};
pub use planner::{PlannerConfig, Strategy};
pub use progress::Progress;
