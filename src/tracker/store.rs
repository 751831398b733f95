//! The seam between a tracker and what it remembers: who is there, what each owns, until
//! when, and how fast each uploads.
//!
//! A tracker remembers by itself ([`ShardedRegistry`]), or in a store that it shares with
//! others. What is asked of either is the same: batches of requests, in their order, and a
//! few questions for when somebody may do something no more. Nothing above knows which it
//! is, and the calls of the first kind are never waited for: they return at their first
//! poll, so that the seam costs nothing.

use std::time::Instant;

#[cfg(feature = "redis")]
use tokio_util::sync::CancellationToken;

use super::batch::{Asked, Replies};
#[cfg(feature = "redis")]
use super::redis::{RedisRegistry, StoreStats};
#[cfg(feature = "bittorrent")]
use super::registry::{Membership, TorrentAnnounce, TorrentAnswer};
use super::registry::{Owned, Permits, RegistryStats, Snapshot};
use super::sharded::ShardedRegistry;
#[cfg(feature = "bittorrent")]
use crate::bittorrent::InfoHashV1;
#[cfg(feature = "bittorrent")]
use crate::bittorrent::tracker::ScrapeFigures;
use crate::content::{ContentId, ContentName};
use crate::protocol::{Addr, ContentKey, Refusal, Token, TrackerRequest};

/// What a tracker remembers, and where.
#[derive(Debug)]
#[cfg_attr(
    feature = "redis",
    expect(clippy::large_enum_variant, reason = "a tracker has one")
)]
pub(super) enum Store {
    /// In its own memory.
    Memory(ShardedRegistry),
    /// In a store that it shares with others.
    #[cfg(feature = "redis")]
    Redis(Box<RedisRegistry>),
}

impl Store {
    /// Answers requests that came together, in their order. Everything is permitted.
    pub(super) async fn handle_batch(
        &self,
        now: Instant,
        batch: &[Asked<'_>],
        replies: &mut Replies,
    ) {
        match self {
            Self::Memory(registry) => registry.handle_batch(now, batch, replies),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => registry.handle_batch(now, batch, replies).await,
        }
    }

    /// Does what is permitted of one request. A refusal of all of it is the reply as well.
    pub(super) async fn handle_permitted(
        &self,
        now: Instant,
        from: (&Addr, Option<&Addr>),
        request: &TrackerRequest,
        permits: Permits<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Memory(registry) => registry.handle_permitted(now, from, request, permits, reply),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => {
                let handled = registry.handle_permitted(now, from, request, permits, reply);
                handled.await
            }
        }
    }

    /// Answers an announce of a BitTorrent client. Who is remembered in a shared store has no
    /// token there: it is known by its torrent and its address.
    #[cfg(feature = "bittorrent")]
    pub(super) async fn announce(
        &self,
        now: Instant,
        from: (&Addr, Option<&Addr>),
        announce: &TorrentAnnounce,
    ) -> Result<(TorrentAnswer, Membership), Refusal> {
        match self {
            Self::Memory(registry) => registry.announce_as_member(now, from, announce),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => {
                let answered = registry.announce(from, announce).await;
                answered.map(|answer| (answer, Membership::None))
            }
        }
    }

    /// Answers a scrape of a BitTorrent client that came from `source`.
    #[cfg(feature = "bittorrent")]
    pub(super) async fn scrape(
        &self,
        now: Instant,
        source: &Addr,
        torrents: &[InfoHashV1],
    ) -> Vec<Option<ScrapeFigures>> {
        match self {
            Self::Memory(registry) => registry.scrape(now, source, torrents),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => registry.scrape(torrents).await,
        }
    }

    /// The contents that a NEED is about, each with a name that it has. An id is one of
    /// them also if nobody knows it.
    pub(super) async fn asked_for(
        &self,
        now: Instant,
        key: &ContentKey,
    ) -> Vec<(ContentId, Option<ContentName>)> {
        match self {
            Self::Memory(registry) => registry.asked_for(now, key),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => registry.asked_for(key).await,
        }
    }

    /// Ends what a peer owns of these contents under these names. Does not extend its lease.
    pub(super) async fn disown_all(&self, now: Instant, token: &Token, owned: &[Owned]) {
        match self {
            Self::Memory(registry) => registry.disown_all(now, token, owned),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => registry.disown_all(token, owned).await,
        }
    }

    /// Some of what a peer owns, from the content of this number on, each under each of its
    /// names; and the number to go on with, if there are more. Nothing if the token is
    /// unknown. Does not extend the lease.
    pub(super) async fn owned(
        &self,
        now: Instant,
        token: &Token,
        from: u32,
    ) -> (Vec<Owned>, Option<u32>) {
        match self {
            Self::Memory(registry) => registry.owned(now, token, from),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => (registry.owned(token).await, None),
        }
    }

    /// What is held, and what this tracker was asked and has refused so far.
    pub(super) fn stats(&self) -> RegistryStats {
        match self {
            Self::Memory(registry) => registry.stats(),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => registry.stats(),
        }
    }

    /// How many peers, contents and ownerships there are.
    pub(super) fn counts(&self) -> [u64; 3] {
        match self {
            Self::Memory(registry) => registry.counts(),
            #[cfg(feature = "redis")]
            Self::Redis(registry) => registry.counts(),
        }
    }

    /// What is worth saving when the tracker ends: nothing, if it is in a store.
    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        match self {
            Self::Memory(registry) => registry.snapshot(now),
            #[cfg(feature = "redis")]
            Self::Redis(_) => Snapshot::default(),
        }
    }

    /// The registry in this tracker's memory, if it is there.
    pub(super) fn memory(&self) -> Option<&ShardedRegistry> {
        match self {
            Self::Memory(registry) => Some(registry),
            #[cfg(feature = "redis")]
            Self::Redis(_) => None,
        }
    }

    /// Does what is to be done whether or not there are requests, until the tracker stops.
    /// The registry in memory has a task of its own for that.
    #[cfg(feature = "redis")]
    pub(super) async fn look_after(&self, stop: &CancellationToken) {
        if let Self::Redis(registry) = self {
            registry.look_after(stop).await;
        }
    }

    /// How the tracker stands with its store, if it shares one.
    #[cfg(feature = "redis")]
    pub(super) fn store_stats(&self) -> Option<StoreStats> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(registry) => Some(registry.store_stats()),
        }
    }
}
