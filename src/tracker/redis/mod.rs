//! A registry that several trackers share, in Redis or Valkey: the memory form of what is in
//! [`registry`](super::registry) for one.
//!
//! Everything that trackers must agree on is in the store, under the keys of [`schema`], and
//! changes by scripts, each of which is one step ([`scripts`]). What follows from a request
//! is decided by its [`plan`], without a connection. Tokens, the rule for addresses, the
//! choice among the owners that were drawn and the forms of replies are those of the
//! registry in memory ([`answers`]).
//!
//! - Who is there: a sorted set has when each lease ends, by the clock of the store. All
//!   trackers look each second whose is over. What a dead peer owns is known until all of
//!   it has ended, so a tracker that dies half way leaves nothing behind.
//! - A tracker that has lost the store ([`link`]) answers from what it last knew ([`known`]),
//!   keeps reports and farewells for later, and lists nothing new. After that, nobody is
//!   forgotten for a lease.
//! - The store may be a cluster: each script uses the keys of one slot, and calls go to the
//!   nodes that have them ([`link`], [`slots`]). What one node has forgotten and another one
//!   has not is found by a [`sweep`].
//! - The epoch that peers are told follows from the store and its history: a store that was
//!   restarted or promoted may have lost its last moments, and has another history.

#[cfg(feature = "bittorrent")]
mod announcing;
mod answers;
mod config;
mod known;
mod link;
mod node;
mod plan;
mod registry;
mod schema;
mod scripts;
mod slots;
mod sweep;
mod values;

pub use config::{RedisConfig, StoreError, StoreStats};
pub(super) use registry::RedisRegistry;
