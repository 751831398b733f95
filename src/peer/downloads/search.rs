//! Finds out what a download is asked for, and waits for trackers that do not answer.
//!
//! ```text
//!   no answer ──waits──▶ asks again ──answer──▶ found, or an error
//!       ▲                    │
//!       └────────────────────┴──▶ not known, but the tracker has only just come back:
//!                                 its owners are on their way, so it is asked again
//! ```
//! A search outlives the pauses of its download: it goes on as it was.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::error::DownloadError;
use crate::peer::downloads::settings::Settings;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::StallReason;
use crate::protocol::{Addr, ContentKey, Found};
use crate::tracker::TrackerError;

/// How soon trackers that do not answer are asked again if nothing says that one does:
/// one may have been too slow, without having failed.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How soon a tracker that has come back and does not know the content is asked again.
const ASK_RETURNED: Duration = Duration::from_secs(2);

/// The search for one content.
pub(in crate::peer) struct Search<'a> {
    shared: &'a PeerShared,
    key: ContentKey,
    /// Owners that the user has named.
    owners: Vec<Addr>,
    /// Changes when a tracker has answered after a failure.
    recoveries: watch::Receiver<u64>,
    state: SearchState,
    /// For how long this search may go on without an owner, and for how long it did.
    patience: Option<Duration>,
    spent: Duration,
}

enum SearchState {
    /// Nothing has failed so far.
    Untried,
    /// No tracker answers, and the last error.
    Unanswered(TrackerError),
    /// A tracker answers again, and until when its owners may come back as well.
    Returned { until: Instant },
}

/// Time that is spent in vain until this is dropped, also with the future that holds it: one
/// whose download is paused goes on later.
struct Spending<'a> {
    all: &'a mut Duration,
    since: Instant,
}

impl<'a> Spending<'a> {
    fn on(all: &'a mut Duration) -> Self {
        let since = Instant::now();
        Self { all, since }
    }
}

impl Drop for Spending<'_> {
    fn drop(&mut self) {
        *self.all += self.since.elapsed();
    }
}

/// Why nothing was found.
pub(in crate::peer) enum Missed {
    /// Another try would end in the same way.
    Finally(DownloadError),
    /// It may be found later.
    Yet(StallReason),
}

impl<'a> Search<'a> {
    pub(in crate::peer) fn new(shared: &'a PeerShared, key: ContentKey, owners: &[Addr]) -> Self {
        Self {
            recoveries: shared.trackers.recoveries(),
            patience: shared.config.swarm.patience,
            spent: Duration::ZERO,
            state: SearchState::Untried,
            shared,
            key,
            owners: owners.to_vec(),
        }
    }

    /// Goes on with these settings.
    pub(in crate::peer) fn set(&mut self, settings: &Settings) {
        let default = self.shared.config.swarm.patience;
        self.patience = settings.patience.unwrap_or(default);
        self.owners = settings.owners().cloned().collect();
    }

    /// Asks the trackers once.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn ask(&mut self) -> Result<Found, Missed> {
        self.recoveries.mark_unchanged();
        let is_late = !matches!(self.state, SearchState::Untried);
        let spending = is_late.then(|| Spending::on(&mut self.spent));
        let asked = find(self.shared, self.key.clone(), &self.owners).await;
        drop(spending);
        match asked {
            Ok(found) if found.owners.is_empty() && self.owners.is_empty() => match self.returned()
            {
                true => Err(Missed::Yet(StallReason::NoOwners)),
                false => Ok(found),
            },
            Ok(found) => Ok(found),
            Err(DownloadError::NotFound { .. }) if self.returned() => {
                Err(Missed::Yet(StallReason::NoOwners))
            }
            Err(DownloadError::Tracker(source)) if source.is_temporary() => {
                self.state = SearchState::Unanswered(source);
                let trackers = self.shared.trackers.count() as u32;
                Err(Missed::Yet(StallReason::NoTracker { trackers }))
            }
            Err(error) => Err(Missed::Finally(error)),
        }
    }

    /// Waits until it is worth asking again: a tracker has come back, or some time has
    /// passed.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The last one, when the patience ends.
    pub(in crate::peer) async fn wait(&mut self) -> Result<(), DownloadError> {
        let left = self
            .patience
            .map(|patience| patience.saturating_sub(self.spent));
        let spending = Spending::on(&mut self.spent);
        let pause = match self.state {
            SearchState::Returned { .. } => ASK_RETURNED,
            _ => ASK_AGAIN,
        };
        let recoveries = &mut self.recoveries;
        let again = async {
            tokio::select! {
                biased;
                Ok(()) = recoveries.changed() => {}
                () = sleep(pause) => {}
            }
        };
        let is_over = match left {
            Some(left) => timeout(left, again).await.is_err(),
            None => {
                again.await;
                false
            }
        };
        drop(spending);
        match is_over {
            true => Err(self.given_up()),
            false => Ok(()),
        }
    }

    /// A tracker has answered, and does not know an owner. Returns whether it has been
    /// away so recently that the owners may not be back yet.
    fn returned(&mut self) -> bool {
        let now = Instant::now();
        let config = &self.shared.config.tracker;
        match self.state {
            SearchState::Untried => false,
            SearchState::Returned { until } => now < until,
            SearchState::Unanswered(_) => {
                // As others wait at most before they try a tracker again.
                let (_, longest) = config.backoff;
                let until = longest
                    .checked_add(config.return_spread)
                    .and_then(|time| now.checked_add(time));
                if let Some(until) = until {
                    self.state = SearchState::Returned { until };
                }
                until.is_some()
            }
        }
    }

    fn given_up(&self) -> DownloadError {
        match &self.state {
            SearchState::Unanswered(source) => DownloadError::NoTracker {
                trackers: self.shared.trackers.count() as u32,
                source: source.clone(),
            },
            SearchState::Untried | SearchState::Returned { .. } => DownloadError::NotFound {
                key: self.key.clone(),
            },
        }
    }
}

/// Asks the trackers once, unless the owners are known without them.
pub(in crate::peer) async fn find(
    shared: &PeerShared,
    key: ContentKey,
    owners: &[Addr],
) -> Result<Found, DownloadError> {
    let need = shared
        .trackers
        .need(key.clone(), shared.config.owners_wanted);
    let asked = match &key {
        // Trackers that do not answer are asked again while the owners are.
        ContentKey::Id(_) if !owners.is_empty() => {
            let grace = shared.config.tracker.need_grace;
            let asked = timeout(grace, need).await;
            asked.unwrap_or(Err(TrackerError::NoTracker))
        }
        _ => need.await,
    };
    match (asked, key) {
        (Ok(found), _) => Ok(found),
        (Err(_), ContentKey::Id(id)) if !owners.is_empty() => Ok(Found {
            id,
            // Nobody can ask for it by this name, as it reads as an id.
            name: id.into(),
            length: 0,
            owners: Vec::new(),
            importers: None,
        }),
        (Err(TrackerError::NotFound), key) => Err(DownloadError::NotFound { key }),
        (Err(TrackerError::Ambiguous { candidates }), ContentKey::Name(name)) => {
            Err(DownloadError::Ambiguous { name, candidates })
        }
        (Err(error), _) => Err(error.into()),
    }
}
