//! The tracker's knowledge and decisions. Pure: requests and the time go in,
//! replies come out. It knows no socket, task, lock or clock, and no ambient
//! randomness.
//!
//! The registry has two halves, and each is split into shards. The *sessions*
//! ([`Sessions`]) know the peers of some hosts: tokens, leases, rates, and as mere
//! numbers what each peer owns. The *catalog* ([`Catalog`]) knows some of the
//! contents: names, and lists of owners whose entries hold all that a reply says,
//! so that NEED reads one short array and no peer. What all shards share are the
//! [`Settings`]. [`ShardedRegistry`](super::ShardedRegistry) puts a lock around
//! each shard and leads each request through the shards that it needs.
//!
//! A peer on IPv4 with one content takes 40 bytes in its slot, which includes its
//! link in the timer wheel, 16 in the content's list, 5 for the ownership, and
//! about 5 where its host is counted. With the reserve of the arrays that is
//! about 70. A further ownership takes about 50, an address that is not IPv4 about
//! 100, and a content about 500, which includes the votes of its owners' hosts. A peer that says
//! in which zone it is takes about 20 more, and 40 for each content.
//!
//! With a million peers, a request mostly waits for memory. So everything that
//! NEED reads lies together: 16 bytes of the asker's slot; of a content two lines of the
//! cache, with its id, a short name, where its fastest owners end and where its list is; and
//! all that a reply says of an owner, in 16 bytes of that list. Owners are drawn four at a time,
//! as they lie on one line. All of it is read as early as possible, so that several waits
//! become one.

mod addrs;
#[cfg(feature = "bittorrent")]
mod announce;
#[cfg(feature = "bittorrent")]
mod announcers;
mod backlog;
mod catalog;
mod config;
mod contents;
mod decay;
mod host_counts;
mod keyed;
mod listing;
mod names;
mod owner;
mod owner_list;
mod owners;
mod ownerships;
mod peers;
mod permits;
mod recalled;
mod reply;
mod request_rates;
mod sessions;
mod settings;
mod snapshot;
mod speed_buckets;
mod stats;
mod table;
mod timer_wheel;
mod votes;
mod zone_owners;

#[cfg(feature = "bittorrent")]
pub(super) use addrs::Vantage;
pub(super) use addrs::{ListenAddr, Viewpoint};
#[cfg(feature = "bittorrent")]
pub(super) use announce::{Announcer, Membership};
pub(super) use backlog::Job;
pub(super) use catalog::{Aim, Asker, Begun, Catalog, NameOutcome};
pub(super) use contents::room_for_bearer;
#[cfg(feature = "redis")]
pub(super) use keyed::{TokenIssuer, token, words};
pub(super) use listing::PeerListing;
pub(super) use peers::Holding;
pub(super) use permits::{EntryPermit, Owned, Permits};
pub(super) use reply::{ReplyValue, ReplyWriter};
pub(super) use sessions::{Heartbeat, Sessions};
pub(super) use settings::Settings;

#[cfg(feature = "bittorrent")]
pub use announce::{DEFAULT_WANTED, MAX_WANTED, TorrentAnnounce, TorrentAnswer};
pub(super) use config::MIN_ANNOUNCE_INTERVAL;
pub use config::{AddressRule, RegistryConfig};
pub use snapshot::{Credit, KnownContent, Snapshot};
pub use stats::{RefusalCounts, RegistryStats, RequestCounts, RequestsPerSecond};
