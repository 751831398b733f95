//! One torrent of a session: what its connections, its driver and its announces share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::known_peers::KnownPeers;
use super::shared::SessionShared;
use super::wishes::{AnnounceWishes, Figures};
use crate::bittorrent::link::Padding;
use crate::bittorrent::{InfoHashV1, Metainfo};
use crate::content::{ContentId, Geometry};
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::status::ContentStatus;
use crate::protocol::Addr;

/// One torrent, as long as its driver or a connection is there.
pub(super) struct Torrent {
    pub(super) session: Arc<SessionShared>,
    pub(super) metainfo: Metainfo,
    pub(super) id: ContentId,
    /// What its connections and its trackers know it by.
    pub(super) info_hash: InfoHashV1,
    pub(super) geometry: Geometry,
    pub(super) padding: Arc<Padding>,
    pub(super) peers: Arc<KnownPeers>,
    pub(super) wishes: AnnounceWishes,
    /// Cancelled when the driver has ended.
    stop: CancellationToken,
    is_complete: AtomicBool,
    driven: OnceLock<Driven>,
}

/// The driver of a torrent, as seen from outside.
pub(super) struct Driven {
    pub(super) status: watch::Receiver<ContentStatus>,
    pub(super) inbox: mpsc::Sender<DriverInput>,
}

impl Torrent {
    pub(super) fn new(
        session: Arc<SessionShared>,
        metainfo: Metainfo,
        info_hash: InfoHashV1,
        (id, geometry): (ContentId, Geometry),
        peers: Vec<SocketAddr>,
    ) -> Self {
        let padding = metainfo.files().iter().filter(|file| file.is_padding());
        let ranges = padding.map(|file| file.offset()..file.offset() + file.length());
        let known = KnownPeers::default();
        known.found(peers);
        Self {
            padding: Arc::new(Padding::new(ranges)),
            stop: session.shared.tasks.stop.child_token(),
            session,
            metainfo,
            id,
            info_hash,
            geometry,
            peers: Arc::new(known),
            wishes: AnnounceWishes::default(),
            is_complete: AtomicBool::new(false),
            driven: OnceLock::new(),
        }
    }

    /// It has this driver.
    pub(super) fn driven_by(&self, driven: Driven) {
        // Nobody else sets it.
        let _ = self.driven.set(driven);
    }

    /// What trackers are told.
    pub(super) fn figures(&self) -> Figures {
        let status = self.driven.get().map(|driven| driven.status.borrow());
        let (uploaded, downloaded, verified) = match &status {
            Some(status) => {
                let progress = status.progress();
                let uploaded = status.uploads().bytes();
                (uploaded, progress.downloaded, progress.verified_bytes)
            }
            None => (0, 0, 0),
        };
        Figures {
            uploaded,
            downloaded,
            left: match self.is_complete() {
                true => 0,
                false => self.geometry.length().saturating_sub(verified),
            },
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    /// Everything of it is here. Returns whether that is news.
    pub(super) fn complete(&self) -> bool {
        !self.is_complete.swap(true, Ordering::Relaxed)
    }

    /// Waits until the driver has ended.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The driver has ended.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Those who may have some of it.
    pub(super) fn owners(&self) -> Vec<(Addr, bool)> {
        let named = self.peers.named().into_iter();
        named.map(|peer| (peer.into(), false)).collect()
    }

    /// Peers were named. The driver hears of them at once, if it runs.
    pub(super) async fn found(&self, peers: Vec<SocketAddr>) {
        let new = self.peers.found(peers);
        if new.is_empty() {
            return;
        }
        let new = new.into_iter().map(Addr::from).collect();
        if let Some(Driven { inbox, .. }) = self.driven.get() {
            // When the driver has ended, nobody needs to know.
            let _ = inbox.send(DriverInput::Owners(new)).await;
        }
    }
}
