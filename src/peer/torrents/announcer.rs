//! Announces one torrent at its trackers (BEP 3, 12), as long as somebody wants it.
//!
//! The trackers of the first tier are asked in turns until one answers, which is then the
//! first to be asked the next time; only if none does those of the next tier are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::discovery::discover;
use super::rendezvous::Rendezvous;
use super::tracker::{Announce, Announced};
use super::wishes::Figures;
use crate::bittorrent::tracker::AnnounceEvent;

/// The pause after all trackers have failed; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How long it may take to tell a tracker that this peer leaves.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);

/// The trackers of a torrent in the order in which they are asked.
struct Tiers(Vec<Vec<String>>);

/// Announces the torrent from now on until it stops, and says then that it leaves.
pub(super) fn announce(torrent: &Arc<Rendezvous>) {
    if !torrent.is_to_be_announced() {
        return;
    }
    discover(torrent);
    if torrent.trackers.is_empty() {
        torrent.wishes.has_no_tracker();
        return;
    }
    let tasks = &torrent.session.shared.tasks;
    let span = tracing::info_span!(parent: &tasks.span, "torrent", hash = %torrent.info_hash);
    tasks.spawn(span, announce_all(Arc::clone(torrent)));
}

async fn announce_all(torrent: Arc<Rendezvous>) {
    let wishes = &torrent.wishes;
    let mut rng = torrent.session.rng();
    let mut tiers = Tiers::new(&torrent.trackers, &mut rng);
    let (mut begun, mut pause) = (false, FIRST_PAUSE);
    let mut tracker_id = None;
    let key = rng.u32(..);
    loop {
        wishes.wants_peers.store(false, Ordering::Relaxed);
        let event = match begun {
            false => Some(AnnounceEvent::Started),
            true if wishes.completed.swap(false, Ordering::Relaxed) => {
                Some(AnnounceEvent::Completed)
            }
            true => None,
        };
        let is_settled = wishes.is_settled.swap(false, Ordering::Relaxed);
        let request = request(&torrent, event, key, tracker_id.clone());
        let told = (request.left, request.event == Some(AnnounceEvent::Paused));
        let asked = tokio::select! {
            biased;
            () = torrent.stopped() => break,
            asked = tiers.ask(&torrent, &request) => asked,
        };
        let asked_at = Instant::now();
        let listens = asked.is_some();
        let (next, soonest) = match asked {
            Some(announced) => {
                (begun, pause) = (true, FIRST_PAUSE);
                tracker_id = announced.tracker_id.or(tracker_id);
                torrent.found(announced.peers).await;
                (announced.interval, announced.min_interval)
            }
            None => {
                let completed = event == Some(AnnounceEvent::Completed);
                wishes.completed.fetch_or(completed, Ordering::Relaxed);
                wishes.is_settled.fetch_or(is_settled, Ordering::Relaxed);
                let now = pause;
                pause = (pause * 2).min(MAX_PAUSE);
                (now, now)
            }
        };
        wishes.answered.send_replace(true);
        loop {
            // A change of what there is to say waits for nothing, if a tracker listens.
            let settled = || {
                let left = torrent.figures().left;
                // It may have been told already, as it settled while the request was made.
                let is_told = told == (left, is_partial_seed(&torrent, left));
                wishes.is_settled.load(Ordering::Relaxed) && !is_told
            };
            let says = listens && (wishes.completed.load(Ordering::Relaxed) || settled());
            let wants = wishes.wants_peers.load(Ordering::Relaxed);
            let due = match (says, wants) {
                (true, _) => asked_at,
                (false, true) => asked_at + soonest,
                (false, false) => asked_at + next,
            };
            tokio::select! {
                biased;
                () = torrent.stopped() => break,
                () = sleep_until(due) => break,
                () = wishes.changed.notified() => {}
            }
        }
    }
    if begun {
        let request = request(&torrent, Some(AnnounceEvent::Stopped), key, tracker_id);
        let _ = timeout(FAREWELL_TIMEOUT, tiers.ask(&torrent, &request)).await;
    }
}

/// Trackers tell partial seeds from those that fetch (BEP 21), as libtorrent has it.
fn is_partial_seed(torrent: &Rendezvous, left: u64) -> bool {
    torrent.is_upload_only() && left > 0
}

fn request(
    torrent: &Rendezvous,
    event: Option<AnnounceEvent>,
    key: u32,
    tracker_id: Option<Vec<u8>>,
) -> Announce {
    let Figures {
        uploaded,
        downloaded,
        left,
    } = torrent.figures();
    let event = event.or(is_partial_seed(torrent, left).then_some(AnnounceEvent::Paused));
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
    async fn ask(&mut self, torrent: &Rendezvous, request: &Announce) -> Option<Announced> {
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
