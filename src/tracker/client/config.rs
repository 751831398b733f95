//! The figures of a tracker client.

use std::time::Duration;

use crate::protocol::Zone;

/// The longest time that anything waits. Longer times count as this one, because
/// they could not be added to an `Instant`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The shortest pause after a failure, whatever is configured, so that a tracker
/// that is gone does not keep a core busy.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The figures of a [`TrackerClient`](super::TrackerClient). Every value is valid:
/// times over a year count as a year, pauses below ten milliseconds count as ten,
/// and a limit of zero lets nothing in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ClientConfig {
    /// How long connecting may take, and each request. Default 10 s: TCP repeats a lost
    /// packet several times within that, and a tracker that needs longer is of no use.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub request_timeout: Duration,
    /// How long NEED waits for the other trackers after one has named owners.
    /// Default 500 ms: longer than a round trip around the world, and hardly noticed
    /// before a download.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub need_grace: Duration,
    /// How often uploads are reported. Default 5 s: several times within the half-life
    /// of what they credit ([`RegistryConfig::half_life`](crate::tracker::RegistryConfig)).
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub report_interval: Duration,
    /// The pauses after a failure: the first one, and the longest one, up to
    /// which they double. Each is shortened by up to a half at random. Default
    /// 500 ms and 15 s. That is less than a heartbeat, so that owners are back
    /// within one heartbeat after a tracker's restart.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub backoff: (Duration, Duration),
    /// The time over which clients that lost a tracker return to it, so that a
    /// restarted tracker is not overrun by all of them at once. Each waits for a
    /// random part of this time, or of the pause after a failure where that is
    /// longer. After the first failure a client does not wait if it is asked for
    /// something. Default 8 s: all are back within half a heartbeat.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub return_spread: Duration,
    /// The pauses before a content is announced again to a tracker that has
    /// refused it or its name: the first one, and the longest one, up to which
    /// they double. Each is shortened by up to a half at random. Default 10 s and
    /// 60 s, so that a place which becomes free is taken within a minute.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub own_retry: (Duration, Duration),
    /// How many contents may be owned at a time. Default 100,000, which is how
    /// many a tracker accepts from one peer.
    pub max_contents: usize,
    /// For how many owners per tracker uploads can be credited: the ones that the
    /// tracker named last. Default 10,000: those of 200 answers of the longest kind.
    pub max_known_owners: usize,
    /// Whether the trackers share a store ([`TrackerBuilder::redis`](crate::TrackerBuilder)).
    /// Then the client registers with one of them, and uses another when that fails, with the
    /// same token and without announcing anything again. Default `false`: each tracker knows
    /// what it was told, and is told everything.
    pub one_store: bool,
    /// The zone of the peer: trackers name owners there first. A peer sets it to
    /// [`PeerConfig::zone`](crate::PeerConfig). Default `None`: all owners are named alike.
    pub zone: Option<Zone>,
    /// The seed of the jitter. Default: a random one, so that clients do not act in step.
    pub seed: Option<u64>,
}

setters!(ClientConfig {
    request_timeout: Duration,
    need_grace: Duration,
    report_interval: Duration,
    backoff: (Duration, Duration),
    return_spread: Duration,
    own_retry: (Duration, Duration),
    max_contents: usize,
    max_known_owners: usize,
    one_store: bool,
    zone: impl Into<Option<Zone>>,
    seed: u64,
});

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
            one_store: false,
            zone: None,
            seed: None,
        }
    }
}

impl ClientConfig {
    /// The same figures, each within its limits.
    pub(super) fn within_limits(mut self) -> Self {
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

/// The pause after this number of failures in a row.
pub(super) fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(longest)
}
