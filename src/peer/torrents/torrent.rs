//! One torrent of a session: what its connections and its driver share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::also::InCommon;
use super::begun::Begun;
use super::handshake::WireHashes;
use super::rendezvous::Rendezvous;
use crate::bittorrent::link::{HashTrees, Padding};
use crate::bittorrent::wire::HashRange;
use crate::bittorrent::{InfoHashV1, Metainfo};
use crate::content::{ContentId, Geometry};
use crate::peer::contents::hashing::off_thread;
use crate::protocol::Addr;

/// One torrent, as long as its driver or a connection is there.
pub(super) struct Torrent {
    pub(super) meeting: Arc<Rendezvous>,
    metainfo: Metainfo,
    /// The same with the hashes of v2 that it lacked, once they have been made.
    whole: OnceLock<Metainfo>,
    pub(super) id: ContentId,
    pub(super) geometry: Geometry,
    pub(super) common: Arc<InCommon>,
    pub(super) padding: Arc<Padding>,
    hashes: Arc<Mutex<HashTrees>>,
    /// Connections from the time when the torrent was not known, which wait for the driver
    /// to dial their addresses.
    ready: Mutex<HashMap<SocketAddr, ReadyAsk>>,
}

/// Where a connection that is ready hears who takes it.
pub(super) type ReadyAsk = oneshot::Sender<oneshot::Sender<Begun>>;

impl Torrent {
    pub(super) fn new(
        meeting: Arc<Rendezvous>,
        metainfo: Metainfo,
        (id, geometry): (ContentId, Geometry),
        common: Arc<InCommon>,
    ) -> Self {
        let padding = metainfo.files().iter().filter(|file| file.is_padding());
        let ranges = padding.map(|file| file.offset()..file.offset() + file.length());
        let hashes = HashTrees::new(&metainfo);
        Self {
            padding: Arc::new(Padding::new(ranges)),
            hashes: Arc::new(Mutex::new(hashes)),
            meeting,
            metainfo,
            whole: OnceLock::new(),
            id,
            geometry,
            common,
            ready: Mutex::default(),
        }
    }

    /// What its handshakes say.
    pub(super) fn wire_hashes(&self) -> WireHashes {
        WireHashes::new(self.meeting.info_hash, self.v2())
    }

    /// What is in it.
    pub(super) fn metainfo(&self) -> &Metainfo {
        self.whole.get().unwrap_or(&self.metainfo)
    }

    /// The same with the hashes of v2, which are served from now on.
    pub(super) fn is_whole(&self, metainfo: Metainfo) {
        *self.lock_hashes() = HashTrees::new(&metainfo);
        // Nobody else sets it.
        let _ = self.whole.set(metainfo);
    }

    /// How many requests bring all hashes of v2.
    pub(super) fn hash_requests(&self) -> u32 {
        self.lock_hashes().requests()
    }

    /// Its hash of v2 on the wire, if it has one.
    pub(super) fn v2(&self) -> Option<InfoHashV1> {
        Some(self.metainfo.info_hash_v2()?.truncated())
    }

    /// Hashes of v2 and their proof; nothing if there are none.
    pub(super) async fn hashes(&self, range: HashRange) -> Option<Bytes> {
        let hashes = Arc::clone(&self.hashes);
        // Not on this thread: all hashes of a file may have to be made first.
        off_thread(move || {
            let mut hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
            hashes.answer(&range)
        })
        .await
    }

    /// Those who may have some of it: first those that are connected already.
    pub(super) fn owners(&self) -> Vec<(Addr, bool)> {
        let ready: Vec<SocketAddr> = self.ready().keys().copied().collect();
        let named = self.meeting.peers.named().into_iter();
        let others = named.filter(|peer| !ready.contains(peer));
        let all = ready.iter().copied().chain(others);
        all.map(|peer| (peer.into(), false)).collect()
    }

    /// These connections wait for the driver.
    pub(super) fn have_ready(&self, ready: impl IntoIterator<Item = (SocketAddr, ReadyAsk)>) {
        self.ready().extend(ready);
    }

    /// The connection with this address that is ready, if there is one.
    pub(super) async fn take_ready(&self, addr: &SocketAddr) -> Option<Begun> {
        let ask = self.ready().remove(addr)?;
        let (taker, taken) = oneshot::channel();
        // Both fail if it has ended meanwhile.
        ask.send(taker).ok()?;
        taken.await.ok()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn lock_hashes(&self) -> MutexGuard<'_, HashTrees> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn ready(&self) -> MutexGuard<'_, HashMap<SocketAddr, ReadyAsk>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
