//! Announces one torrent at its trackers (BEP 3, 12), as long as its driver runs.
//!
//! The trackers of the first tier are asked in turns until one answers, which is then the
//! first to be asked the next time; only if none does those of the next tier are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::torrent::Torrent;
use super::tracker::{Announce, Announced};
use crate::bittorrent::tracker::AnnounceEvent;

/// The pause after all trackers have failed; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How long it may take to tell a tracker that this peer leaves.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);

/// How much a torrent has sent and received so far, and how much it lacks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) uploaded: u64,
    pub(super) downloaded: u64,
    pub(super) left: u64,
}

/// What others want of the announces of a torrent.
#[derive(Debug)]
pub(super) struct Announcer {
    /// Whether a tracker has answered, or none will.
    answered: watch::Sender<bool>,
    /// The torrent was completed here, and no tracker knows yet.
    completed: AtomicBool,
    /// The driver knows nobody more to ask.
    wants_peers: AtomicBool,
    changed: Notify,
}

impl Default for Announcer {
    fn default() -> Self {
        Self {
            answered: watch::Sender::new(false),
            completed: AtomicBool::new(false),
            wants_peers: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }
}

/// The trackers of a torrent in the order in which they are asked.
struct Tiers(Vec<Vec<String>>);

impl Announcer {
    /// There are no trackers.
    pub(super) fn has_none(&self) {
        self.answered.send_replace(true);
    }

    /// Waits until a tracker has answered for the first time, or all have failed.
    ///
    /// Cancel safe.
    pub(super) async fn answered(&self) {
        // The sender is here.
        let _ = self
            .answered
            .subscribe()
            .wait_for(|answered| *answered)
            .await;
    }

    /// The torrent was completed here.
    pub(super) fn completed(&self) {
        self.completed.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// More peers are needed as soon as the trackers permit it.
    pub(super) fn wants_peers(&self) {
        self.wants_peers.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Announces the torrent until it stops, and says then that it leaves.
    pub(super) fn run(&self, torrent: Arc<Torrent>) -> impl Future<Output = ()> + Send + use<> {
        async move { torrent.announcer().announce_all(&torrent).await }
    }

    async fn announce_all(&self, torrent: &Arc<Torrent>) {
        let mut rng = torrent.session.rng();
        let mut tiers = Tiers::new(torrent.metainfo.trackers(), &mut rng);
        let (mut begun, mut pause) = (false, FIRST_PAUSE);
        let mut tracker_id = None;
        let key = rng.u32(..);
        // What was here at the start was not completed here.
        let downloaded = torrent.figures().downloaded;
        loop {
            let is_new = torrent.figures().downloaded > downloaded;
            let completed = self.completed.swap(false, Ordering::Relaxed) && is_new;
            self.wants_peers.store(false, Ordering::Relaxed);
            let event = match (begun, completed) {
                (false, _) => Some(AnnounceEvent::Started),
                (true, true) => Some(AnnounceEvent::Completed),
                (true, false) => None,
            };
            let request = announce(torrent, event, key, tracker_id.clone());
            let asked = tokio::select! {
                biased;
                () = torrent.stopped() => break,
                asked = tiers.ask(torrent, &request) => asked,
            };
            let asked_at = Instant::now();
            let (next, soonest) = match asked {
                Some(announced) => {
                    (begun, pause) = (true, FIRST_PAUSE);
                    tracker_id = announced.tracker_id.or(tracker_id);
                    torrent.found(announced.peers).await;
                    (announced.interval, announced.min_interval)
                }
                None => {
                    self.completed.fetch_or(completed, Ordering::Relaxed);
                    let now = pause;
                    pause = (pause * 2).min(MAX_PAUSE);
                    (now, now)
                }
            };
            self.answered.send_replace(true);
            loop {
                // A change of what there is to say waits for nothing, if a tracker listens.
                let says = begun && next != soonest && self.completed.load(Ordering::Relaxed);
                let wants = self.wants_peers.load(Ordering::Relaxed);
                let due = match (says, wants) {
                    (true, _) => asked_at,
                    (false, true) => asked_at + soonest,
                    (false, false) => asked_at + next,
                };
                tokio::select! {
                    biased;
                    () = torrent.stopped() => break,
                    () = sleep_until(due) => break,
                    () = self.changed.notified() => {}
                }
            }
        }
        if begun {
            let request = announce(torrent, Some(AnnounceEvent::Stopped), key, tracker_id);
            let _ = timeout(FAREWELL_TIMEOUT, tiers.ask(torrent, &request)).await;
        }
    }
}

fn announce(
    torrent: &Torrent,
    event: Option<AnnounceEvent>,
    key: u32,
    tracker_id: Option<Vec<u8>>,
) -> Announce {
    let Figures {
        uploaded,
        downloaded,
        left,
    } = torrent.figures();
    Announce {
        info_hash: torrent.info_hash,
        client: torrent.session.client,
        port: torrent.session.port.unwrap_or(0),
        uploaded,
        downloaded,
        left,
        event,
        wanted: match event {
            Some(AnnounceEvent::Stopped) => 0,
            _ => torrent.session.config.peers_wanted,
        },
        key,
        tracker_id,
    }
}

impl Tiers {
    /// Those of each tier in any order, as BEP 12 has it.
    fn new(tiers: &[Vec<String>], rng: &mut fastrand::Rng) -> Self {
        let mut tiers = tiers.to_vec();
        tiers.iter_mut().for_each(|tier| rng.shuffle(tier));
        Self(tiers)
    }

    /// Asks one after the other until one answers.
    async fn ask(&mut self, torrent: &Torrent, request: &Announce) -> Option<Announced> {
        for tier in &mut self.0 {
            for at in 0..tier.len() {
                let url = &tier[at];
                match torrent.session.trackers.announce(url, request).await {
                    Ok(announced) => {
                        let first = tier.remove(at);
                        tier.insert(0, first);
                        return Some(announced);
                    }
                    Err(error) => tracing::info!(tracker = %url, %error, "not announced"),
                }
            }
        }
        None
    }
}
