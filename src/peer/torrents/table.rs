//! The torrents of a session, by all hashes that others know them by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::rendezvous::Rendezvous;
use super::sought::Sought;
use super::torrent::Torrent;
use crate::bittorrent::{InfoHashV1, Metainfo};
use crate::content::ContentId;

/// The torrents of a session.
#[derive(Default)]
pub(super) struct TorrentTable(Mutex<HashMap<InfoHashV1, Entry>>);

enum Entry {
    Known(Weak<Torrent>),
    Sought(Weak<Sought>),
}

/// A torrent of a session.
pub(super) enum Found {
    Known(Arc<Torrent>),
    /// Only its hash is known.
    Sought(Arc<Sought>),
}

impl Entry {
    /// What it stands for, as long as somebody wants that.
    fn found(&self) -> Option<Found> {
        let found = match self {
            Self::Known(torrent) => Found::Known(torrent.upgrade()?),
            Self::Sought(sought) => Found::Sought(sought.upgrade()?),
        };
        (!found.meeting().is_stopped()).then_some(found)
    }
}

impl Found {
    /// Where its peers meet.
    pub(super) fn meeting(&self) -> &Arc<Rendezvous> {
        match self {
            Self::Known(torrent) => &torrent.meeting,
            Self::Sought(sought) => &sought.meeting,
        }
    }
}

impl TorrentTable {
    /// The torrent that others know by this hash.
    pub(super) fn find(&self, hash: &InfoHashV1) -> Option<Found> {
        self.lock().get(hash)?.found()
    }

    /// The torrent with this id, if it is known.
    pub(super) fn of_content(&self, id: &ContentId) -> Option<Arc<Torrent>> {
        let table = self.lock();
        let known = table.values().filter_map(|entry| match entry {
            Entry::Known(torrent) => torrent.upgrade(),
            Entry::Sought(_) => None,
        });
        known.into_iter().find(|torrent| torrent.id == *id)
    }

    /// Those who name the torrent get a connection with it from now on.
    pub(super) fn insert(&self, torrent: &Arc<Torrent>) {
        let own = torrent.meeting.info_hash;
        self.put(hashes(torrent.metainfo()).chain([own]), || {
            Entry::Known(Arc::downgrade(torrent))
        });
    }

    /// The same for a torrent of which these hashes are known.
    pub(super) fn insert_sought(
        &self,
        hashes: impl IntoIterator<Item = InfoHashV1>,
        sought: &Arc<Sought>,
    ) {
        self.put(hashes, || Entry::Sought(Arc::downgrade(sought)));
    }

    fn put(&self, hashes: impl IntoIterator<Item = InfoHashV1>, entry: impl Fn() -> Entry) {
        let mut table = self.lock();
        table.retain(|_, entry| entry.found().is_some());
        for hash in hashes {
            table.insert(hash, entry());
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<InfoHashV1, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All hashes that others know a torrent by.
pub(super) fn hashes(metainfo: &Metainfo) -> impl Iterator<Item = InfoHashV1> + use<> {
    let v2 = metainfo.info_hash_v2().map(|hash| hash.truncated());
    metainfo.info_hash_v1().into_iter().chain(v2)
}
