//! The registry, for several threads: the sessions and the catalog in shards, each
//! shard with its own lock.
//!
//! A heartbeat takes the lock of the sessions of one host, OWN that lock and the
//! one of the content's shard, NEED first the one and then the other. Each lock is
//! held for one pure step, and never across an await. Peers, contents and
//! ownerships are counted over all shards, so that quotas are exact.

use std::time::Instant;

use super::batch::{Asked, Replies};
#[cfg(feature = "bittorrent")]
use super::registry::{Membership, TorrentAnnounce, TorrentAnswer};
use super::registry::{
    Owned, Permits, RegistryConfig, RegistryStats, ReplyValue, RequestsPerSecond, Snapshot,
};
use super::request_handler::RequestHandler;
#[cfg(feature = "bittorrent")]
use crate::bittorrent::{InfoHashV1, tracker::ScrapeFigures};
use crate::content::{ContentId, ContentName};
use crate::protocol::{Addr, ContentKey, Refusal, Token, TrackerReply, TrackerRequest};

/// The highest number of shards that a registry can have.
pub const MAX_SHARDS: u32 = 256;

/// For how many leases the knowledge of an earlier tracker is recalled.
const RECALLED_LEASES: u32 = 10;

/// The peers, the contents that they own, and how fast each owner uploads.
///
/// It is a machine: requests and the time go in, replies come out. It knows no
/// socket, task or clock. The same key, epoch, number of shards and calls give the
/// same replies. It guarantees that only its token changes what a peer has; that
/// no peer is named to itself; that nothing of a peer is left once it has said
/// EXIT or its lease has run out; and that the quotas of [`RegistryConfig`] bound
/// its memory.
///
/// Several threads may use it at once. One delays another only if both need the
/// same shard. Work that spans several shards (a name that several contents share,
/// the contents of a peer that leaves) is done shard by shard, and meanwhile other
/// threads may see a part of it done.
///
/// ```
/// use std::time::Instant;
/// use bt_lite::protocol::{TrackerReply, TrackerRequest};
/// use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
///
/// let now = Instant::now();
/// let registry = ShardedRegistry::new(RegistryConfig::default(), [7; 32], 1, 16, now);
/// let request = TrackerRequest::Register {
///     listen: Some("0.0.0.0:7000".parse()?),
///     token: None,
/// };
/// std::thread::scope(|scope| {
///     for source in ["10.0.0.1:4000", "10.0.0.2:4000"] {
///         let (registry, request) = (&registry, &request);
///         scope.spawn(move || {
///             let source = source.parse().expect("an address");
///             let reply = registry.handle(now, &source, request);
///             let TrackerReply::Registered(registered) = reply else {
///                 panic!("{reply:?}");
///             };
///             assert!(registered.listed.is_some_and(|addr| addr.same_host(&source)));
///         });
///     }
/// });
/// assert_eq!(registry.stats().peers, 2);
/// # Ok::<(), bt_lite::AddrError>(())
/// ```
#[derive(Debug)]
pub struct ShardedRegistry {
    handler: RequestHandler,
}

impl ShardedRegistry {
    /// An empty registry. The key must be secret and random: tokens are made with
    /// it, and hash maps and draws are seeded from it. The epoch distinguishes one
    /// start of a tracker from the next. No later call may come from before `now`.
    ///
    /// The number of shards is rounded up to a power of two, and is at most
    /// [`MAX_SHARDS`]. It should be several times the number of threads, so that
    /// two of them rarely need the same shard. One shard is right for a single
    /// thread. An empty registry takes about 135 KiB with one shard, and 5 KiB per
    /// shard with 64 or more.
    pub fn new(
        config: RegistryConfig,
        key: [u8; 32],
        epoch: u64,
        shards: u32,
        now: Instant,
    ) -> Self {
        let bits = shards.clamp(1, MAX_SHARDS).next_power_of_two().ilog2();
        Self {
            handler: RequestHandler::new(config, &key, epoch, bits, now),
        }
    }

    /// Answers one request, which came from `source` at `now`. Time must not go
    /// backwards from call to call.
    ///
    /// Costs:
    /// - REGISTER: constant, with a keyed hash for a new peer or another address.
    /// - OWN: constant per entry. That is a keyed hash of the id. Where the name is
    ///   new to the content, it is also a keyed hash of the name, a look into each
    ///   shard, and a look at the few contents of that name.
    /// - NEED: the number of owners wanted. By name also a look into each shard.
    /// - UPDATE: constant per entry.
    /// - EXIT: one step per content owned, at most 128.
    ///
    /// When a peer that owns more than a few contents changes its address or speed,
    /// or says EXIT, [`handle_timeout`](Self::handle_timeout) brings its entries up
    /// to date. It goes through everything that a peer owns at most once in a
    /// lease; until then some entries are listed as they were before. A step moves
    /// one owner for each of at most 15 levels of speed in its list. An array that
    /// is full grows, which on some systems copies it; the tables of hosts and ids
    /// grow in many small parts.
    ///
    /// Every request with a valid token extends the lease, by one write.
    ///
    /// - REGISTER with an unknown token counts as one without. So does, where
    ///   addresses must be of the source's host, REGISTER with a token that was
    ///   registered from another host. A listening address with port 0 counts as
    ///   none. All other requests may come from anywhere, because the token proves
    ///   the sender. A peer is always counted under the host that it registered
    ///   from.
    /// - OWN is applied entry by entry. The reply names the entries that were
    ///   refused; all others are done. A refused entry changes nothing, unless only
    ///   its name has found no place ([`Refusal::is_of_name`]): then the content is
    ///   listed by its id, and keeps the name that the peer used for it before, if
    ///   any. A peer has one name for a content, and a new one replaces it. The
    ///   length listed is the one that a seeder announced last.
    /// - Hosts share the places for contents of one name, and those for names of
    ///   one content. No host takes more than half. Where all places are taken, and
    ///   a host has at least two more of them than a newcomer's host, it loses one:
    ///   one that no other host was seen to fetch, or that has only one owner.
    /// - NEED by id is answered with the name that owners on most hosts use; of
    ///   equals, with the one that was there first. Of more than 64 hosts, a sample
    ///   is counted, chosen by a keyed hash. If no name has a place, the name is the
    ///   id as text. NEED leaves out the asker, every owner with the asker's
    ///   listening address, and all but one of the owners that share an address. A
    ///   known content without any other owner is found with an empty list. An
    ///   owner is named until [`handle_timeout`](Self::handle_timeout) has forgotten
    ///   it.
    /// - UPDATE credits no more than the reporter can have received since its last
    ///   report (or, at most, within one lease), and no more than its host can have
    ///   received, however many of its peers report. Owners that are gone, and the
    ///   reporter itself, are skipped.
    pub fn handle(&self, now: Instant, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        let mut reply = ReplyValue::default();
        // A refusal is also the reply.
        let _refusal = self
            .handler
            .handle(now, (source, None), request, Permits::All, &mut reply);
        reply.into_reply()
    }

    /// Like [`handle`](Self::handle), but appends the reply to `reply` as the head
    /// of its frame, without building a value. Where owners are named, that is
    /// several times as fast. A buffer that is reused is not allocated again.
    ///
    /// # Errors
    /// The refusal of the whole request, which is in the buffer as well.
    pub fn handle_into(
        &self,
        now: Instant,
        source: &Addr,
        request: &TrackerRequest,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.handle_at(now, source, None, request, reply)
    }

    /// Like [`handle_into`](Self::handle_into), for a request that reached the tracker at
    /// its address `local`. Owners on the tracker's own machine, which registered over
    /// loopback and listen at all addresses, are named to the asker with that IP.
    /// Without it they are named over loopback only. Loopback addresses are never named
    /// to an asker who is not on loopback himself.
    ///
    /// # Errors
    /// The refusal of the whole request, which is in the buffer as well.
    pub fn handle_at(
        &self,
        now: Instant,
        source: &Addr,
        local: Option<&Addr>,
        request: &TrackerRequest,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.handle_permitted(now, (source, local), request, Permits::All, reply)
    }

    /// Answers requests that came together, in their order, into `replies`. The outcome is
    /// that of [`handle_at`](Self::handle_at) for one after the other. With many peers it
    /// takes less time, because the memory is asked for what several of them need at once.
    /// A batch should have at least 16 requests.
    pub fn handle_batch(&self, now: Instant, batch: &[Asked<'_>], replies: &mut Replies) {
        self.handler.handle_batch(now, batch, replies);
    }

    /// Like [`handle_at`](Self::handle_at), but does only what is permitted.
    pub(super) fn handle_permitted(
        &self,
        now: Instant,
        from: (&Addr, Option<&Addr>),
        request: &TrackerRequest,
        permits: Permits<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.handler.handle(now, from, request, permits, reply)
    }

    /// Answers an announce of a BitTorrent client, which came from `source` and reached the
    /// tracker at its address `local` (as in [`handle_at`](Self::handle_at)).
    ///
    /// A torrent is the content with the id [`ContentId::of_torrent_v1`] of the 20 bytes by
    /// which trackers know it. Whoever has announced it is one of its owners until it says
    /// that it stops, or has not announced for one and a half of
    /// [`RegistryConfig::announce_interval`]. So NEED by that id names it as well, and an
    /// announce names those who own that id by OWN, at the address at which they have
    /// registered. It is known by the torrent and its address; a peer that stops must call
    /// itself as the one that has announced from there last.
    ///
    /// Costs as much as OWN and NEED.
    ///
    /// # Errors
    /// [`Refusal::PeersPerHost`], [`Refusal::Peers`], [`Refusal::Contents`],
    /// [`Refusal::OwnersPerContent`] and [`Refusal::Ownerships`] for one that is not known
    /// yet and for which there is no room.
    #[cfg(feature = "bittorrent")]
    pub fn announce(
        &self,
        now: Instant,
        source: &Addr,
        local: Option<&Addr>,
        announce: &TorrentAnnounce,
    ) -> Result<TorrentAnswer, Refusal> {
        let answer = self.handler.announce(now, (source, local), announce);
        answer.map(|(answer, _)| answer)
    }

    /// The same, and what has become of the peer.
    #[cfg(feature = "bittorrent")]
    pub(super) fn announce_as_member(
        &self,
        now: Instant,
        from: (&Addr, Option<&Addr>),
        announce: &TorrentAnnounce,
    ) -> Result<(TorrentAnswer, Membership), Refusal> {
        self.handler.announce(now, from, announce)
    }

    /// Answers a scrape of a BitTorrent client, which came from `source`: the figures of
    /// each torrent, if it has owners. Costs a step for each.
    #[cfg(feature = "bittorrent")]
    pub fn scrape(
        &self,
        now: Instant,
        source: &Addr,
        torrents: &[InfoHashV1],
    ) -> Vec<Option<ScrapeFigures>> {
        self.handler.scrape(now, source, torrents)
    }

    /// The contents that a NEED is about, each with a name that it has. An id is one of
    /// them also if nobody knows it.
    pub(super) fn asked_for(
        &self,
        now: Instant,
        key: &ContentKey,
    ) -> Vec<(ContentId, Option<ContentName>)> {
        self.handler.asked_for(now, key)
    }

    /// Ends what a peer owns of these contents under these names. Does not extend its lease.
    pub(super) fn disown_all(&self, now: Instant, token: &Token, owned: &[Owned]) {
        self.handler.disown_all(now, token, owned);
    }

    /// Some of what a peer owns, from the content of this number on, each under each of its
    /// names; and the number to go on with, if there are more. Nothing if the token is
    /// unknown. Does not extend the lease.
    pub(super) fn owned(
        &self,
        now: Instant,
        token: &Token,
        from: u32,
    ) -> (Vec<Owned>, Option<u32>) {
        self.handler.owned(now, token, from)
    }

    /// Forgets peers whose lease has run out by `now`, and continues the work that
    /// requests have left, in the shard in which something has been due for
    /// longest. It looks at no more than 128 peers and ownerships, so that no call
    /// takes long. Call it again while [`poll_timeout`](Self::poll_timeout) is in
    /// the past.
    pub fn handle_timeout(&self, now: Instant) {
        let due = (0..).zip(self.handler.sessions.each());
        let due = due.filter_map(|(shard, sessions)| Some((sessions.next_turn()?, shard)));
        if let Some((turn, shard)) = due.min()
            && turn <= now
        {
            self.handler.expire(now, shard);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next. It is in the past
    /// while there is more to do. Looks at no more than 128 ticks per shard.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.handler.sessions.each();
        sessions.filter_map(|sessions| sessions.next_turn()).min()
    }

    /// What the registry holds, and what it was asked and has refused so far. Costs
    /// one step per shard.
    pub fn stats(&self) -> RegistryStats {
        let mut stats = RegistryStats {
            peers: self.handler.peers.get().into(),
            contents: self.handler.contents.get().into(),
            ..RegistryStats::default()
        };
        let rates = self.handler.sessions.each().map(|sessions| {
            sessions.add_to(&mut stats);
            sessions.requests_per_second()
        });
        let rates = RequestsPerSecond::sum(rates);
        stats.rates = rates;
        let catalogs = self.handler.catalogs.each();
        let counts = catalogs.map(|catalog| catalog.ownership_count() as u64);
        stats.ownerships = counts.sum();
        stats
    }

    /// How many peers, contents and ownerships there are. O(1).
    pub(super) fn counts(&self) -> [u64; 3] {
        let handler = &self.handler;
        let counts = [&handler.peers, &handler.contents, &handler.ownerships];
        counts.map(|count| count.get().into())
    }

    /// The knowledge that is worth saving when the tracker ends: the upload rates
    /// of the peers that listen, by address, and the contents. Costs one step for
    /// each of them.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for mut sessions in self.handler.sessions.each() {
            snapshot.credits.extend(sessions.credits(now));
        }
        for mut catalog in self.handler.catalogs.each() {
            snapshot.contents.extend(catalog.known(now));
        }
        snapshot.credits.sort_by(|a, b| a.addr.cmp(&b.addr));
        snapshot.contents.sort_by_key(|content| content.id);
        snapshot
    }

    /// Recalls the knowledge of an earlier registry, as much of it as the quotas
    /// allow, for ten leases. A peer that registers with an address of the snapshot
    /// gets the rate that it had. A content of the snapshot is found, without
    /// owners, until it has an owner again.
    pub fn restore(&self, now: Instant, snapshot: &Snapshot) {
        let settings = &self.handler.settings;
        let config = &settings.config;
        // `None` if the end is too far off for an `Instant`: then without end.
        let until = now.checked_add(config.lease().saturating_mul(RECALLED_LEASES));
        for credit in snapshot.credits.iter().take(config.max_peers as usize) {
            let home = settings.shard_of_addr(&credit.addr);
            let mut sessions = self.handler.sessions.lock(home);
            sessions.remember(now, credit, config, until);
        }
        for content in snapshot.contents.iter().take(config.max_contents as usize) {
            let (hash, home) = settings.locate(&content.id);
            let mut catalog = self.handler.catalogs.lock(home);
            catalog.recall(hash, content, until);
        }
    }

    /// Lets other threads run before each lock is taken, which would rarely happen
    /// otherwise: for tests that look for steps which must not be interrupted.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn yielding(mut self) -> Self {
        self.handler.sessions.set_yielding();
        self.handler.catalogs.set_yielding();
        self
    }

    /// How many ownerships have been touched since the start: the work of requests
    /// and expiry, in a unit that does not depend on a clock.
    #[cfg(any(test, feature = "testing"))]
    pub fn steps(&self) -> u64 {
        let sessions = self.handler.sessions.each();
        sessions.map(|sessions| sessions.steps()).sum()
    }

    /// Checks that all parts agree with each other.
    ///
    /// # Panics
    /// When they do not.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_invariants(&self) {
        let sessions: Vec<_> = self.handler.sessions.each().collect();
        let catalogs: Vec<_> = self.handler.catalogs.each().collect();
        let peers: usize = sessions.iter().map(|sessions| sessions.check()).sum();
        assert_eq!(peers, self.handler.peers.get() as usize);
        let mut owned = 0;
        for (shard, catalog) in (0..).zip(&catalogs) {
            let held = sessions.iter().flat_map(|sessions| sessions.holdings());
            let held = held
                .filter(|(held, ..)| self.handler.settings.shard_of_content(held.content) == shard);
            owned += catalog.check(held);
        }
        let held = sessions.iter().flat_map(|sessions| sessions.holdings());
        assert_eq!(owned, held.count());
        assert_eq!(owned, self.handler.ownerships.get() as usize);
        let contents: usize = catalogs.iter().map(|catalog| catalog.len()).sum();
        assert_eq!(contents, self.handler.contents.get() as usize);
    }
}

#[cfg(all(test, shuttle))]
#[path = "../../tests/threads/registry.rs"]
mod schedules;

#[cfg(test)]
mod tests;
