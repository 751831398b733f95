//! What a tracker is asked, and what it answers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::bittorrent::InfoHashV1;
use crate::bittorrent::tracker::AnnounceEvent;
use crate::bittorrent::wire::ClientId;

/// The shortest time between two announces that a tracker can ask for: less is its mistake.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The longest: after that a peer would be forgotten that does not come again.
const MAX_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);

/// What a tracker is told.
#[derive(Debug, Clone)]
pub(in super::super) struct Announce {
    pub(in super::super) info_hash: InfoHashV1,
    pub(in super::super) client: ClientId,
    /// Where others can connect to; 0 if nobody can.
    pub(in super::super) port: u16,
    pub(in super::super) uploaded: u64,
    pub(in super::super) downloaded: u64,
    pub(in super::super) left: u64,
    pub(in super::super) event: Option<AnnounceEvent>,
    pub(in super::super) wanted: u32,
    /// The same for all announces of one session.
    pub(in super::super) key: u32,
    /// What the tracker has given with its last answer.
    pub(in super::super) tracker_id: Option<Vec<u8>>,
}

/// What a tracker answers.
#[derive(Debug, Clone)]
pub(in super::super) struct Announced {
    pub(in super::super) peers: Vec<SocketAddr>,
    /// When to announce again, at the latest.
    pub(in super::super) interval: Duration,
    /// How much sooner that may be.
    pub(in super::super) min_interval: Duration,
    pub(in super::super) tracker_id: Option<Vec<u8>>,
}

/// Why a tracker has no answer.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum NotAnnounced {
    #[error("its address cannot be used")]
    Url,
    #[error("it cannot be reached: {0}")]
    Io(#[from] std::io::Error),
    #[error("it cannot be asked: {0}")]
    Http(#[from] reqwest::Error),
    #[error("it answered with the status {0}")]
    Status(u16),
    #[error("its answer cannot be read: {0}")]
    Answer(String),
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("it did not answer in time")]
    TimedOut,
}

impl Announced {
    pub(in super::super) fn new(
        peers: Vec<SocketAddr>,
        interval: u32,
        min_interval: Option<u32>,
    ) -> Self {
        let within = |seconds: u32| {
            let asked = Duration::from_secs(seconds.into());
            asked.clamp(MIN_INTERVAL, MAX_INTERVAL)
        };
        let interval = within(interval);
        let min_interval = min_interval.map_or(interval / 2, within);
        Self {
            peers,
            interval,
            min_interval: min_interval.min(interval),
            tracker_id: None,
        }
    }
}

#[cfg(test)]
impl Announce {
    /// One for tests.
    pub(super) fn sample() -> Self {
        Self {
            info_hash: InfoHashV1::from_bytes([1; 20]),
            client: ClientId([2; 20]),
            port: 1,
            uploaded: 0,
            downloaded: 0,
            left: 5,
            event: None,
            wanted: 50,
            key: 3,
            tracker_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_kept_within_what_makes_sense() {
        let of = |interval, min| {
            let announced = Announced::new(Vec::new(), interval, min);
            (
                announced.interval.as_secs(),
                announced.min_interval.as_secs(),
            )
        };
        assert_eq!(of(1800, Some(900)), (1800, 900));
        assert_eq!(of(1800, None), (1800, 900));
        assert_eq!(of(1800, Some(3600)), (1800, 1800));
        assert_eq!(of(0, Some(0)), (60, 60));
        assert_eq!(of(u32::MAX, None), (7200, 3600));
    }
}
