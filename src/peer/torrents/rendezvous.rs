//! Where the peers of one torrent meet: the hash that it is known by on the wire, its
//! trackers, and the peers that somebody has named. It is there before the torrent is known.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::choosing::Choosing;
use super::known_peers::KnownPeers;
use super::shared::SessionShared;
use super::wishes::{AnnounceWishes, Figures};
use crate::bittorrent::InfoHashV1;
use crate::content::ContentId;
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::status::ContentStatus;
use crate::protocol::Addr;

/// How much trackers are told that is missing as long as nobody knows how much that is, in
/// bytes: what libtorrent says. Who lacks nothing would be listed as one that has all.
const UNKNOWN_LEFT: u64 = 16 << 10;

/// Where the peers of one torrent meet.
pub(super) struct Rendezvous {
    pub(super) session: Arc<SessionShared>,
    /// What connections and trackers know the torrent by.
    pub(super) info_hash: InfoHashV1,
    /// The addresses of trackers, in tiers.
    pub(super) trackers: Vec<Vec<String>>,
    pub(super) peers: Arc<KnownPeers>,
    pub(super) wishes: AnnounceWishes,
    /// Peers were named, and there is no driver that hears of them.
    pub(super) news: Notify,
    /// Cancelled when the torrent is not wanted any more.
    stop: CancellationToken,
    /// Cancelled then, or when the torrent is known to be private (BEP 27).
    public: CancellationToken,
    is_announced: AtomicBool,
    is_complete: AtomicBool,
    driven: watch::Sender<Option<Driven>>,
    /// All that is wanted is here, and that is not all.
    resting: watch::Sender<bool>,
    has_rested: AtomicBool,
    /// Which files are wanted.
    pub(super) choosing: Choosing,
    /// What the torrent is as well, as was said before it was known.
    also: Mutex<Vec<ContentId>>,
}

/// The driver of a torrent, as seen from outside.
#[derive(Clone)]
pub(super) struct Driven {
    pub(super) status: watch::Receiver<ContentStatus>,
    pub(super) inbox: mpsc::Sender<DriverInput>,
    /// Bytes of the torrent.
    pub(super) length: u64,
}

impl Rendezvous {
    pub(super) fn new(
        session: Arc<SessionShared>,
        info_hash: InfoHashV1,
        trackers: Vec<Vec<String>>,
        choosing: Choosing,
    ) -> Self {
        let stop = session.shared.tasks.stop.child_token();
        Self {
            public: stop.child_token(),
            stop,
            session,
            info_hash,
            trackers,
            peers: Arc::default(),
            wishes: AnnounceWishes::default(),
            news: Notify::new(),
            is_announced: AtomicBool::new(false),
            is_complete: AtomicBool::new(false),
            driven: watch::Sender::new(None),
            resting: watch::Sender::new(false),
            has_rested: AtomicBool::new(false),
            choosing,
            also: Mutex::default(),
        }
    }

    /// The torrent has this driver from now on.
    pub(super) fn driven_by(&self, driven: Driven) {
        self.driven.send_replace(Some(driven));
    }

    /// The driver, if there is one.
    pub(super) fn driver(&self) -> Option<Driven> {
        self.driven.borrow().clone()
    }

    /// Waits until there is one.
    ///
    /// Cancel safe.
    pub(super) async fn driven(&self) -> Option<Driven> {
        let mut driven = self.driven.subscribe();
        // The sender is here.
        driven.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// All that is wanted is here, and that is not all; or not any more.
    pub(super) fn rests(&self, rests: bool) {
        self.resting.send_if_modified(|before| {
            let is_news = *before != rests;
            *before = rests;
            is_news
        });
        if rests && !self.has_rested.swap(true, Ordering::Relaxed) {
            // Trackers take it for one that fetches. Later times wait for the next announce.
            self.wishes.settles();
        }
    }

    /// Whether that is so, and whoever hears when it changes.
    pub(super) fn resting(&self) -> watch::Receiver<bool> {
        self.resting.subscribe()
    }

    /// Whether this side wants nothing of others (BEP 21).
    pub(super) fn is_upload_only(&self) -> bool {
        self.is_complete() || *self.resting.borrow()
    }

    /// The torrent is this content as well.
    pub(super) fn is_also(&self, id: ContentId) {
        let mut also = self.also.lock().unwrap_or_else(PoisonError::into_inner);
        also.push(id);
    }

    /// What the torrent is as well, as was said before it was known.
    pub(super) fn also(&self) -> Vec<ContentId> {
        let also = self.also.lock().unwrap_or_else(PoisonError::into_inner);
        also.clone()
    }

    /// Trackers are told from now on. Returns whether that is news.
    pub(super) fn is_to_be_announced(&self) -> bool {
        !self.is_announced.swap(true, Ordering::Relaxed)
    }

    /// What trackers are told.
    pub(super) fn figures(&self) -> Figures {
        let Some(Driven { status, length, .. }) = self.driver() else {
            return Figures {
                uploaded: 0,
                downloaded: 0,
                left: UNKNOWN_LEFT,
            };
        };
        let status = status.borrow();
        let progress = status.progress();
        Figures {
            uploaded: status.uploads().bytes(),
            downloaded: progress.downloaded,
            left: match self.is_complete() {
                true => 0,
                false => {
                    let here = progress.verified_bytes + progress.unwanted_bytes;
                    length.saturating_sub(here)
                }
            },
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    /// Everything of it is here.
    pub(super) fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }

    /// Waits until nobody wants the torrent any more.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The torrent is private: only its trackers name peers (BEP 27).
    pub(super) fn set_private(&self) {
        self.public.cancel();
    }

    /// Whether others may name its peers: as long as it is wanted, and not known to be private.
    pub(super) fn is_public(&self) -> bool {
        !self.public.is_cancelled()
    }

    /// Waits until nobody wants the torrent any more, or it is known to be private.
    pub(super) async fn not_public(&self) {
        self.public.cancelled().await;
    }

    /// Nobody wants the torrent any more.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Cancelled when nobody wants the torrent any more, or before.
    pub(super) fn child_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Peers were named. The driver hears of them at once, if there is one.
    pub(super) async fn found(&self, peers: Vec<SocketAddr>) {
        let new = self.peers.found(peers);
        if new.is_empty() {
            return;
        }
        match self.driver() {
            Some(Driven { inbox, .. }) => {
                let new = new.into_iter().map(Addr::from).collect();
                // When the driver has ended, nobody needs to know.
                let _ = inbox.send(DriverInput::Owners(new)).await;
            }
            None => self.news.notify_one(),
        }
    }

    /// The same for peers that the user names.
    pub(super) fn told_of(self: &Arc<Self>, peers: Vec<SocketAddr>) {
        if peers.is_empty() {
            return;
        }
        let (tasks, meeting) = (&self.session.shared.tasks, Arc::clone(self));
        tasks.spawn(
            tasks.span.clone(),
            async move { meeting.found(peers).await },
        );
    }
}
