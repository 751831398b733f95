//! What a tracker knows and decides. A pure machine: requests and the time go
//! in, replies come out; it knows no socket, task, clock or ambient
//! randomness. The same key, epoch and calls give the same replies.
//!
//! What it promises: only the token moves what a peer has; no peer is named to
//! itself; nothing of a peer stays behind once it has left or its lease has
//! run out; memory is bounded by the quotas of [`RegistryConfig`].
//!
//! It has two halves. The *sessions* know the peers: tokens, leases, hosts,
//! rates, and as mere numbers what each owns. The *catalog* knows the contents:
//! names, and lists of owners whose entries hold all that a reply says, so that
//! NEED reads one short array and no peer. Each half may be split into shards,
//! the sessions by host and the catalog by content;
//! [`ShardedRegistry`](super::ShardedRegistry) does that, for several cores.
//!
//! A peer on IPv4 with one content takes 48 bytes in its slot, through which the
//! wheel is linked, 16 in the content's list, 5 for the ownership between them,
//! and about 10 where its host is counted; with what arrays hold in reserve,
//! about 85. A further ownership takes about 50, an address that is no IPv4 about
//! 100, a content about 500, which includes the votes of its owners' hosts.
//!
//! With a million peers a request costs what it waits for memory. So whatever
//! NEED reads lies together: the id, the levels of speed and the address of a
//! content's list; all that a reply says of an owner in its 16 bytes of that
//! list; and it is asked for as early as can be, so that several waits are one.

mod catalog;
#[cfg(any(test, feature = "testing"))]
mod check;
mod chores;
mod compact;
mod config;
mod contents;
mod desk;
mod half;
mod keyed;
mod meter;
mod names;
mod owners;
mod ownerships;
mod peers;
mod rate;
mod reply;
mod runs;
mod sessions;
mod snapshot;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod votes;
mod wheel;

use std::time::Instant;

use crate::protocol::{Addr, Refusal, TrackerReply, TrackerRequest};
use half::Lone;

pub(super) use catalog::Catalog;
#[cfg(any(test, feature = "testing"))]
pub(super) use check::check;
pub(super) use desk::{Desk, Terms};
pub(super) use half::{Counted, Half, Total};
pub(super) use reply::Built;
pub(super) use sessions::Sessions;
pub(super) use stats::gather;

pub use config::{AddressRule, RegistryConfig};
pub use snapshot::{Credit, KnownContent, Snapshot};
pub use stats::{RefusalCounts, RegistryStats, RequestCounts, RequestRates};

/// Who is there, who owns what, and how fast each owner uploads.
///
/// ```
/// use std::time::Instant;
/// use bt_lite::protocol::{TrackerReply, TrackerRequest};
/// use bt_lite::tracker::{RegistryConfig, registry::Registry};
///
/// let mut registry = Registry::new(RegistryConfig::default(), [7; 32], 1);
/// let request = TrackerRequest::Register {
///     listen: Some("0.0.0.0:7000".parse()?),
///     token: None,
/// };
/// let reply = registry.handle(Instant::now(), &"10.0.0.1:4000".parse()?, &request);
/// let TrackerReply::Registered(registered) = reply else {
///     panic!("{reply:?}");
/// };
/// assert_eq!(registered.listed, Some("10.0.0.1:7000".parse()?));
/// # Ok::<(), bt_lite::AddrError>(())
/// ```
#[derive(Debug)]
pub struct Registry {
    terms: Terms,
    sessions: Lone<Sessions>,
    catalog: Lone<Catalog>,
}

impl Registry {
    /// An empty registry. The key must be secret and random: tokens are made
    /// with it, and hash maps and draws are seeded from it. The epoch tells
    /// peers one start of a tracker from the next.
    pub fn new(config: RegistryConfig, key: [u8; 32], epoch: u64) -> Self {
        let terms = Terms::new(config, &key, epoch);
        Self {
            sessions: Lone::new(terms.sessions(&key, (0, 0), None)),
            catalog: Lone::new(Catalog::new(&key, 0, 0)),
            terms,
        }
    }

    fn desk(&mut self) -> Desk<'_, &mut Lone<Sessions>, &mut Lone<Catalog>> {
        Desk {
            terms: &self.terms,
            sessions: &mut self.sessions,
            catalogs: &mut self.catalog,
        }
    }

    /// Answers one request, which came from `source` at `now`. Time must not
    /// go backwards from call to call.
    ///
    /// Costs: REGISTER, constant, with a keyed hash for a new peer or another
    /// address; OWN, constant per entry (a keyed hash of the id, and, where the
    /// name is new to the content, of the name and a look into each shard, and
    /// at the few contents of that name); NEED, the number of owners wanted, and
    /// by name also a look into each shard; UPDATE, constant per entry; EXIT, one
    /// step per content owned, 128 at the most. What an address, a speed or an
    /// EXIT means for a peer that owns more contents than a few is done by
    /// [`handle_timeout`](Self::handle_timeout), and all that a peer owns is gone
    /// through once in a lease at the most: until then some of it is listed as it
    /// was before. A step moves one owner for each of at most 15 levels of speed
    /// in its list. An array that is full grows, which on some systems copies it;
    /// the tables of hosts and ids do so in many parts.
    ///
    /// Every request with a good token extends the lease, by one write.
    ///
    /// - REGISTER with a token that is unknown here counts as one without; so
    ///   does, where addresses must be of the source's host, one with a token
    ///   that was registered from another host. A listening address of port 0
    ///   counts as none. All other requests may come from anywhere: the token
    ///   proves who speaks. A peer stays counted under the host that it
    ///   registered from.
    /// - OWN is applied entry by entry: the reply names those that were refused,
    ///   and all others are done. A refused entry changes nothing, but for one
    ///   whose name alone found no place ([`Refusal::is_of_name`]): that is
    ///   listed by its id, and keeps the name that it had before, if any. A peer
    ///   has one name for a content: another one takes its place. The length
    ///   listed is the one that a seeder said last.
    /// - A name's places, and those of a content for names, are shared by hosts:
    ///   none takes more than half, and where all are taken, a host that has at
    ///   least two more of them than a newcomer's loses one that nobody of
    ///   another host was seen to fetch, or that has only one owner.
    /// - NEED by id is answered with the name that most owners' hosts use, of
    ///   equals with the one that was there first; of hosts past 64, a part is
    ///   counted, drawn by a keyed hash. Where no name has a place, the id as
    ///   text is the name. NEED leaves out the asker, whoever has the asker's
    ///   listening address, and all but one of the owners that share an address.
    ///   A known content without any other owner is found with an empty list. An
    ///   owner is named until [`handle_timeout`](Self::handle_timeout) has
    ///   forgotten it.
    /// - UPDATE credits no more than the reporter can have received since its
    ///   last one (or, at the most, within one lease), and no more than its host
    ///   can have, however many peers of it report; owners that are gone, and
    ///   the reporter itself, are passed over.
    pub fn handle(
        &mut self,
        now: Instant,
        source: &Addr,
        request: &TrackerRequest,
    ) -> TrackerReply {
        let mut reply = Built::default();
        // A refusal is also the reply.
        let _refusal = self.desk().handle(now, source, request, &mut reply);
        reply.reply()
    }

    /// Like [`handle`](Self::handle), and appends the reply to `reply` as the
    /// head of its frame, without making a value of it: several times as fast
    /// where owners are named. A buffer that is used again is not allocated
    /// again.
    ///
    /// # Errors
    /// The refusal of the whole request, which is in the buffer as well.
    pub fn handle_into(
        &mut self,
        now: Instant,
        source: &Addr,
        request: &TrackerRequest,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.desk().handle(now, source, request, reply)
    }

    /// Forgets peers whose lease has run out by `now`, and goes on with what
    /// requests have left to do: it looks at 128 peers and ownerships at the
    /// most, so that no call takes long. Call it again while
    /// [`poll_timeout`](Self::poll_timeout) lies in the past.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.desk().expire(now, 0);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next; in the past
    /// while it has more to do. Looks at 128 places at the most.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sessions.one.next_turn()
    }

    /// What there is, and what was asked and refused so far. Constant.
    pub fn stats(&self) -> RegistryStats {
        let counts = (self.sessions.total[0], self.catalog.total[0]);
        gather([&self.sessions.one], [&self.catalog.one], counts)
    }

    /// What is worth keeping when the tracker ends: the rates of those that
    /// listen, by address, and the contents. Costs a step for each of them.
    pub fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.desk().snapshot(now)
    }

    /// Recalls what an earlier registry knew, as much of it as the quotas allow
    /// and for ten leases: whoever registers with an address of the snapshot
    /// has the rate that it had, and a content of it is found, without owners,
    /// until somebody owns it again.
    pub fn restore(&mut self, now: Instant, snapshot: &Snapshot) {
        self.desk().restore(now, snapshot);
    }
}
