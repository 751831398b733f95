//! What may be set on a tracker client, and what can go wrong.

use std::time::Duration;

use thiserror::Error;

use crate::content::ContentId;
use crate::protocol::{Addr, ProtocolError, Refusal};
use crate::transport::TransportError;

/// The longest time that anything waits. Longer ones count as this, for they
/// could not be added to the time of day.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The shortest pause after a failure, whatever is configured: a tracker that is
/// gone is not to keep a core busy.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The figures of a [`TrackerClient`](super::TrackerClient). Any value of each
/// is good: times past a year count as a year, pauses below ten milliseconds as
/// that, and a bound of zero lets nothing in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientConfig {
    /// How long connecting, and each request, may take. Default 10 s.
    pub request_timeout: Duration,
    /// How long NEED waits for the other trackers once one has named owners.
    /// Default 500 ms.
    pub need_grace: Duration,
    /// How often uploads are reported. Default 5 s.
    pub report_interval: Duration,
    /// The pauses after a failure: the first one, and the longest one to which
    /// they double. Each is shortened by up to a half at random. Default
    /// 500 ms and 15 s, less than a heartbeat, so that owners are back within
    /// one after a tracker's restart.
    pub backoff: (Duration, Duration),
    /// Over which time the clients that lost a tracker come back to it: each
    /// waits a part of it drawn at random, or of the pause after a failure where
    /// that is longer, unless the connection has only just been lost and the
    /// client is asked for something. So a restarted tracker is not overrun by
    /// all at once. Default 8 s.
    pub return_spread: Duration,
    /// The pauses before a tracker is told again about a content that it has
    /// refused, or whose name it has: the first one, and the longest one to
    /// which they double. Each is shortened by up to a half at random. Default
    /// 10 s and 60 s: whoever has taken a place meanwhile without right is
    /// outlived by a minute.
    pub own_retry: (Duration, Duration),
    /// How many contents may be owned at a time. Default 100,000, as many as a
    /// tracker takes of one peer.
    pub max_contents: usize,
    /// For how many owners per tracker uploads can be credited: those that it
    /// named last. Default 10,000.
    pub max_known_owners: usize,
    /// What jitter is drawn from. Default: a random one.
    pub seed: Option<u64>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            need_grace: Duration::from_millis(500),
            report_interval: Duration::from_secs(5),
            backoff: (Duration::from_millis(500), Duration::from_secs(15)),
            return_spread: Duration::from_secs(8),
            own_retry: (Duration::from_secs(10), Duration::from_secs(60)),
            max_contents: 100_000,
            max_known_owners: 10_000,
            seed: None,
        }
    }
}

impl ClientConfig {
    /// The same, with what cannot be put right.
    pub(super) fn put_right(mut self) -> Self {
        for time in [
            &mut self.request_timeout,
            &mut self.need_grace,
            &mut self.report_interval,
            &mut self.return_spread,
        ] {
            *time = (*time).min(LONGEST);
        }
        for (first, longest) in [&mut self.backoff, &mut self.own_retry] {
            *first = (*first).clamp(SHORTEST_PAUSE, LONGEST);
            *longest = (*longest).clamp(SHORTEST_PAUSE, LONGEST);
        }
        self
    }
}

/// The pause after so many failures in a row.
pub(super) fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(longest)
}

/// Why a tracker, or all of them, did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// It could not be reached, or the connection was lost.
    #[error("tracker {tracker} is out of reach: {source}")]
    Unreachable {
        /// Which tracker.
        tracker: Addr,
        /// What the transport says.
        source: TransportError,
    },
    /// It did not connect or answer in time.
    #[error("tracker {tracker} did not answer in time")]
    TimedOut {
        /// Which tracker.
        tracker: Addr,
    },
    /// It said no.
    #[error("tracker {tracker} refuses: {refusal}")]
    Refused {
        /// Which tracker.
        tracker: Addr,
        /// Why.
        refusal: Refusal,
    },
    /// What it sent cannot be read.
    #[error("tracker {tracker} broke the protocol: {source}")]
    Protocol {
        /// Which tracker.
        tracker: Addr,
        /// What is wrong.
        source: ProtocolError,
    },
    /// It answered something else than it was asked.
    #[error("tracker {tracker} gave an answer to another question")]
    Unexpected {
        /// Which tracker.
        tracker: Addr,
    },
    /// Several contents bear this name: ask by one of the ids.
    #[error("the name stands for {} contents: ask by id", candidates.len())]
    Ambiguous {
        /// Their ids and lengths in bytes, by id.
        candidates: Vec<(ContentId, u64)>,
    },
    /// All trackers that answered know no such content.
    #[error("no tracker knows such a content")]
    NotFound,
    /// There is no tracker to ask.
    #[error("no tracker is configured")]
    NoTracker,
    /// What was to be announced cannot be said in the protocol.
    #[error("cannot be announced: {0}")]
    Invalid(ProtocolError),
    /// More contents are owned than [`ClientConfig::max_contents`].
    #[error("{max} contents are owned, which is the most")]
    TooManyContents {
        /// The bound.
        max: usize,
    },
    /// The client has been shut down.
    #[error("the tracker client is shut down")]
    Closed,
}
