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
use super::tracker::{Announce, Announced, NotAnnounced};
use super::wishes::{AnnounceWishes, Figures};
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
    let mut course = Course::new(Instant::now());
    let key = rng.u32(..);
    loop {
        let said = course.says(wishes);
        let request = request(&torrent, said.event, key, course.tracker_id.clone());
        let told = (request.left, request.event == Some(AnnounceEvent::Paused));
        let asked = tokio::select! {
            biased;
            () = torrent.stopped() => break,
            asked = tiers.ask(|url| announce_at(&torrent, &request, url)) => asked,
        };
        match asked {
            Some(announced) => {
                course.answered(Instant::now(), &announced);
                torrent.found(announced.peers).await;
            }
            None => course.failed(Instant::now(), said, wishes),
        }
        wishes.answered.send_replace(true);
        loop {
            let left = torrent.figures().left;
            if course.listens && told == (left, is_partial_seed(&torrent, left)) {
                // It settled while the request was made.
                wishes.is_settled.store(false, Ordering::Relaxed);
            }
            tokio::select! {
                biased;
                () = torrent.stopped() => break,
                () = sleep_until(course.due(wishes)) => break,
                () = wishes.changed.notified() => {}
            }
        }
    }
    if course.has_begun {
        let stopped = Some(AnnounceEvent::Stopped);
        let request = request(&torrent, stopped, key, course.tracker_id);
        let told = tiers.ask(|url| announce_at(&torrent, &request, url));
        let _ = timeout(FAREWELL_TIMEOUT, told).await;
    }
}

async fn announce_at(
    torrent: &Rendezvous,
    request: &Announce,
    url: String,
) -> Result<Announced, NotAnnounced> {
    let announced = torrent.session.trackers.announce(&url, request).await;
    announced.inspect_err(|error| tracing::info!(tracker = %url, %error, "not announced"))
}

/// What is announced next, and when.
#[derive(Debug)]
struct Course {
    /// Whether a tracker knows of this peer.
    has_begun: bool,
    /// The pause if all trackers fail the next time.
    pause: Duration,
    tracker_id: Option<Vec<u8>>,
    /// When they were asked last, and whether one listened.
    asked_at: Instant,
    listens: bool,
    /// After how long to ask again, and how much sooner it may be.
    next: Duration,
    soonest: Duration,
}

/// What an announce says that must not be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    event: Option<AnnounceEvent>,
    is_settled: bool,
}

impl Course {
    fn new(now: Instant) -> Self {
        Self {
            has_begun: false,
            pause: FIRST_PAUSE,
            tracker_id: None,
            asked_at: now,
            listens: false,
            next: Duration::ZERO,
            soonest: Duration::ZERO,
        }
    }

    /// What the announce says that begins now.
    fn says(&self, wishes: &AnnounceWishes) -> Said {
        wishes.wants_peers.store(false, Ordering::Relaxed);
        let event = match self.has_begun {
            false => Some(AnnounceEvent::Started),
            true if wishes.completed.swap(false, Ordering::Relaxed) => {
                Some(AnnounceEvent::Completed)
            }
            true => None,
        };
        let is_settled = wishes.is_settled.swap(false, Ordering::Relaxed);
        Said { event, is_settled }
    }

    fn answered(&mut self, now: Instant, announced: &Announced) {
        (self.has_begun, self.pause) = (true, FIRST_PAUSE);
        if announced.tracker_id.is_some() {
            self.tracker_id.clone_from(&announced.tracker_id);
        }
        (self.asked_at, self.listens) = (now, true);
        (self.next, self.soonest) = (announced.interval, announced.min_interval);
    }

    /// No tracker has answered: what was said is to be said again.
    fn failed(&mut self, now: Instant, said: Said, wishes: &AnnounceWishes) {
        let completed = said.event == Some(AnnounceEvent::Completed);
        wishes.completed.fetch_or(completed, Ordering::Relaxed);
        wishes
            .is_settled
            .fetch_or(said.is_settled, Ordering::Relaxed);
        (self.asked_at, self.listens) = (now, false);
        (self.next, self.soonest) = (self.pause, self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    /// When to announce again, as it is by now.
    fn due(&self, wishes: &AnnounceWishes) -> Instant {
        // A change of what there is to say waits for nothing, if a tracker listens.
        let news = [&wishes.completed, &wishes.is_settled];
        let says = self.listens && news.iter().any(|news| news.load(Ordering::Relaxed));
        let wants = wishes.wants_peers.load(Ordering::Relaxed);
        match (says, wants) {
            (true, _) => self.asked_at,
            (false, true) => self.asked_at + self.soonest,
            (false, false) => self.asked_at + self.next,
        }
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
    async fn ask<A>(&mut self, announce: impl Fn(String) -> A) -> Option<Announced>
    where
        A: Future<Output = Result<Announced, NotAnnounced>>,
    {
        for tier in &mut self.0 {
            for at in 0..tier.len() {
                if let Ok(announced) = announce(tier[at].clone()).await {
                    let first = tier.remove(at);
                    tier.insert(0, first);
                    return Some(announced);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::FutureExt;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn announced(tracker_id: Option<&[u8]>) -> Announced {
        let mut announced = Announced::new(Vec::new(), 1800, Some(60));
        announced.tracker_id = tracker_id.map(<[u8]>::to_vec);
        announced
    }

    /// Asks where only these answer, and returns who was asked.
    fn asked(tiers: &mut Tiers, answers: &[&str]) -> Vec<String> {
        let asked = RefCell::new(Vec::new());
        let answered = tiers.ask(|url| {
            let answers = answers.contains(&&*url);
            asked.borrow_mut().push(url);
            async move {
                match answers {
                    true => Ok(announced(None)),
                    false => Err(NotAnnounced::TimedOut),
                }
            }
        });
        let answered = answered.now_or_never().unwrap();
        assert_eq!(answered.is_some(), !answers.is_empty());
        asked.into_inner()
    }

    #[test]
    fn tracker_that_has_answered_is_the_first_of_its_tier_from_then_on() {
        let tier = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
        let mut tiers = Tiers(vec![tier(&["a", "b", "c"]), tier(&["d", "e"])]);
        assert_eq!(asked(&mut tiers, &["c"]), ["a", "b", "c"]);
        assert_eq!(asked(&mut tiers, &["b", "c"]), ["c"]);
        assert_eq!(asked(&mut tiers, &["b", "e"]), ["c", "a", "b"]);
        assert_eq!(asked(&mut tiers, &["e"]), ["b", "c", "a", "d", "e"]);
        assert_eq!(asked(&mut tiers, &[]), ["b", "c", "a", "e", "d"]);
    }

    #[test]
    fn pauses_grow_while_all_trackers_fail_and_begin_anew_after_an_answer() {
        let (start, wishes) = (Instant::now(), AnnounceWishes::default());
        let mut course = Course::new(start);
        for _ in 0..2 {
            for seconds in [15, 30, 60, 120, 240, 480, 900, 900] {
                let said = course.says(&wishes);
                course.failed(start, said, &wishes);
                // Nor is anybody asked sooner.
                wishes.wants_peers();
                let pause = Duration::from_secs(seconds);
                assert_eq!(course.due(&wishes), start + pause);
            }
            course.answered(start, &announced(None));
        }
    }

    #[test]
    fn what_no_tracker_has_heard_is_said_again() {
        let (start, wishes) = (Instant::now(), AnnounceWishes::default());
        let mut course = Course::new(start);
        let said = |event, is_settled| Said { event, is_settled };
        let started = Some(AnnounceEvent::Started);
        wishes.settles();
        for _ in 0..2 {
            let says = course.says(&wishes);
            assert_eq!(says, said(started, true));
            course.failed(start, says, &wishes);
            // What there is to say does not hurry where nobody listens.
            assert!(course.due(&wishes) > start);
        }
        assert_eq!(course.says(&wishes), said(started, true));
        course.answered(start, &announced(None));
        wishes.completed();
        assert_eq!(course.due(&wishes), start);
        for _ in 0..2 {
            let says = course.says(&wishes);
            assert_eq!(says, said(Some(AnnounceEvent::Completed), false));
            course.failed(start, says, &wishes);
        }
        course.says(&wishes);
        course.answered(start, &announced(None));
        assert_eq!(course.says(&wishes), said(None, false));
    }

    #[test]
    fn peers_are_asked_for_as_soon_as_the_tracker_permits_it() {
        let (start, wishes) = (Instant::now(), AnnounceWishes::default());
        let mut course = Course::new(start);
        course.answered(start, &announced(None));
        assert_eq!(course.due(&wishes), start + 30 * MINUTE);
        wishes.wants_peers();
        assert_eq!(course.due(&wishes), start + MINUTE);
        course.says(&wishes);
        assert_eq!(course.due(&wishes), start + 30 * MINUTE);
    }

    #[test]
    fn id_of_a_tracker_is_kept_until_it_gives_another_one() {
        let mut course = Course::new(Instant::now());
        for (given, kept) in [
            (None, None),
            (Some(&b"one"[..]), Some(&b"one"[..])),
            (None, Some(b"one")),
            (Some(b"two"), Some(b"two")),
        ] {
            course.answered(Instant::now(), &announced(given));
            assert_eq!(course.tracker_id.as_deref(), kept);
        }
    }
}
