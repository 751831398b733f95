//! What outlives a tracker: rates by address, for sessions end with it, and the
//! contents with their names. A tracker that starts again recalls it for a
//! while, until the peers have come back by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::compact::Texts;
use super::desk::Desk;
use super::half::Half;
use super::reply::Out;
use super::{Catalog, Sessions};
use crate::content::{ContentId, ContentName};
use crate::protocol::Addr;

/// For how many leases an earlier tracker's knowledge is recalled.
const RECALLED_LEASES: u32 = 10;

/// What a tracker knows that is worth keeping. With the feature `serde` it is
/// saved and loaded in any format; as JSON it reads well:
///
/// ```json
/// {
///   "credits": [
///     { "addr": "10.0.0.1:7000", "bytes_per_second": 1250000 }
///   ],
///   "contents": [
///     { "id": "af13...", "length": 1024, "names": ["ubuntu.iso"] }
///   ]
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct Snapshot {
    /// How fast whom has been uploading, by address.
    pub credits: Vec<Credit>,
    /// What was owned, by id.
    pub contents: Vec<KnownContent>,
}

/// How fast a peer has been uploading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Credit {
    /// Where it listens.
    pub addr: Addr,
    /// The decayed rate.
    pub bytes_per_second: u64,
}

/// A content that somebody owned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KnownContent {
    /// What it is.
    pub id: ContentId,
    /// Its length in bytes, as an owner said.
    pub length: u64,
    /// What its owners call it, most of them by the first one.
    pub names: Vec<ContentName>,
}

/// What one shard of the catalog recalls of contents that nobody owns yet.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    until: Option<Instant>,
    contents: BTreeMap<ContentId, KnownContent>,
    by_name: BTreeSet<(ContentName, ContentId)>,
}

impl Recalled {
    fn insert(&mut self, content: &KnownContent) {
        let names = content.names.iter();
        let names = names.map(|name| (name.clone(), content.id));
        self.by_name.extend(names);
        self.contents.insert(content.id, content.clone());
    }

    /// Somebody owns it again: nothing is recalled of it any more.
    pub(super) fn remove(&mut self, id: &ContentId) {
        if let Some(content) = self.contents.remove(id) {
            for name in content.names {
                self.by_name.remove(&(name, *id));
            }
        }
    }

    /// Forgets everything when its time is over.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            *self = Self::default();
        }
    }

    pub(super) fn named(&self, name: &ContentName) -> impl Iterator<Item = (ContentId, u64)> {
        let first = ContentId::from_bytes([0; 32]);
        let from = self.by_name.range((name.clone(), first)..);
        let name = name.clone();
        let bearing = from.take_while(move |(other, _)| *other == name);
        bearing.filter_map(|(_, id)| Some((*id, self.contents.get(id)?.length)))
    }

    /// Answers NEED for a content that is recalled, without owners. Returns
    /// whether it is.
    pub(super) fn found(
        &self,
        id: &ContentId,
        name: Option<&ContentName>,
        out: &mut impl Out,
    ) -> bool {
        let Some(content) = self.contents.get(id) else {
            return false;
        };
        let Some(name) = name.or(content.names.first()) else {
            return false;
        };
        out.found(content.id, content.length, name);
        out.owners(&[], &Texts::default());
        true
    }
}

impl<S: Half<Sessions>, C: Half<Catalog>> Desk<'_, S, C> {
    /// Takes a snapshot, in order of addresses and ids.
    pub(crate) fn snapshot(&mut self, now: Instant) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for shard in 0..self.sessions.shards() {
            let (mut sessions, _) = self.sessions.at(shard);
            sessions.tick_remembered(now);
            let age = sessions.wheel.elapsed(now);
            let credits = sessions.credits(age).map(|(addr, rate)| Credit {
                addr,
                // Casts of floats saturate.
                bytes_per_second: rate.round() as u64,
            });
            snapshot.credits.extend(credits);
        }
        for shard in 0..self.catalogs.shards() {
            let (mut catalog, _) = self.catalogs.at(shard);
            catalog.recalled.tick(now);
            let contents = catalog.contents.iter();
            let contents = contents.map(|(_, content)| KnownContent {
                id: content.id,
                length: content.length,
                names: content.names.all().cloned().collect(),
            });
            snapshot.contents.extend(contents);
            let recalled = catalog.recalled.contents.values();
            snapshot.contents.extend(recalled.cloned());
        }
        snapshot.credits.sort_by(|a, b| a.addr.cmp(&b.addr));
        snapshot.contents.sort_by_key(|content| content.id);
        snapshot
    }

    /// Recalls a snapshot, as much of it as the quotas allow.
    pub(crate) fn restore(&mut self, now: Instant, snapshot: &Snapshot) {
        let config = &self.terms.config;
        // None: as long as time can be told.
        let until = now.checked_add(config.lease().saturating_mul(RECALLED_LEASES));
        for credit in snapshot.credits.iter().take(config.max_peers as usize) {
            let home = self.session_home(&credit.addr);
            let (mut sessions, _) = self.sessions.at(home);
            let age = sessions.wheel.elapsed(now);
            let rate = credit.bytes_per_second.min(config.max_credit_rate);
            sessions.remember(credit.addr.clone(), rate as f64, age, until);
        }
        for content in snapshot.contents.iter().take(config.max_contents as usize) {
            let (hash, home) = self.catalog_home(&content.id);
            let (mut catalog, _) = self.catalogs.at(home);
            if catalog.by_id(hash, &content.id).is_none() {
                catalog.recalled.until = until;
                catalog.recalled.insert(content);
            }
        }
    }
}
