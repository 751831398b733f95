//! Asks the trackers of torrents, over HTTP and UDP.

mod http;
mod udp;

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Url;

use crate::bittorrent::InfoHashV1;
use crate::bittorrent::tracker::AnnounceEvent;
use crate::bittorrent::wire::ClientId;

/// The shortest time between two announces that a tracker can ask for: less is its mistake.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The longest: after that a peer would be forgotten that does not come again.
const MAX_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);

/// Asks trackers.
#[derive(Debug)]
pub(super) struct TrackerClients {
    http: reqwest::Client,
    timeout: Duration,
}

/// What a tracker is told.
#[derive(Debug, Clone)]
pub(super) struct Announce {
    pub(super) info_hash: InfoHashV1,
    pub(super) client: ClientId,
    /// Where others can connect to; 0 if nobody can.
    pub(super) port: u16,
    pub(super) uploaded: u64,
    pub(super) downloaded: u64,
    pub(super) left: u64,
    pub(super) event: Option<AnnounceEvent>,
    pub(super) wanted: u32,
    /// The same for all announces of one session.
    pub(super) key: u32,
    /// What the tracker has given with its last answer.
    pub(super) tracker_id: Option<Vec<u8>>,
}

/// What a tracker answers.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    pub(super) peers: Vec<SocketAddr>,
    /// When to announce again, at the latest.
    pub(super) interval: Duration,
    /// How much sooner that may be.
    pub(super) min_interval: Duration,
    pub(super) tracker_id: Option<Vec<u8>>,
}

/// Why a tracker has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAnnounced {
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

impl TrackerClients {
    /// Clients whose requests take so long at most.
    pub(super) fn new(timeout: Duration) -> Self {
        let agent = concat!("bt_lite/", env!("CARGO_PKG_VERSION"));
        let builder = reqwest::Client::builder()
            .user_agent(agent)
            .timeout(timeout);
        Self {
            // Fails where there is no TLS, which is not asked for.
            http: builder.build().unwrap_or_default(),
            timeout,
        }
    }

    /// Announces at one tracker.
    ///
    /// Cancel safe.
    pub(super) async fn announce(
        &self,
        url: &str,
        announce: &Announce,
    ) -> Result<Announced, NotAnnounced> {
        let parsed: Url = url.parse().map_err(|_| NotAnnounced::Url)?;
        let asked = async {
            match parsed.scheme() {
                "http" | "https" => http::announce(&self.http, url, announce).await,
                "udp" => udp::announce(&parsed, announce).await,
                _ => Err(NotAnnounced::Url),
            }
        };
        let announced = tokio::time::timeout(self.timeout, asked).await;
        announced.unwrap_or(Err(NotAnnounced::TimedOut))
    }
}

impl Announced {
    fn new(peers: Vec<SocketAddr>, interval: u32, min_interval: Option<u32>) -> Self {
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
