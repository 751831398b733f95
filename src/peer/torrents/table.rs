//! The torrents of a session, by all hashes that others know them by.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::error::TorrentError;
use super::file_choice::FileChoice;
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

    /// Somebody asks for it once more: for these files, or all, from these peers as well. As
    /// long as it is not known, it keeps what else it is to be.
    pub(super) fn asked_again(
        &self,
        files: Option<&FileChoice>,
        also: &[ContentId],
        peers: Vec<SocketAddr>,
    ) -> Result<(), TorrentError> {
        let meeting = self.meeting();
        meeting.choosing.asked_again(files, !also.is_empty())?;
        meeting.told_of(peers);
        if let Self::Sought(_) = self {
            also.iter().for_each(|id| meeting.is_also(*id));
        }
        Ok(())
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

    /// Those who name the torrent get a connection with it from now on. Whoever seeks it by
    /// another hash knows it.
    pub(super) fn insert(&self, torrent: &Arc<Torrent>) {
        let (metainfo, own) = (torrent.metainfo(), torrent.meeting.info_hash);
        let hashes = || hashes(metainfo).chain([own]);
        for found in hashes().filter_map(|hash| self.find(&hash)) {
            if let Found::Sought(sought) = found {
                sought.is_known_elsewhere(metainfo);
            }
        }
        self.put(hashes(), || Entry::Known(Arc::downgrade(torrent)));
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
