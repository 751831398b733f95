//! Asks the trackers of torrents, over HTTP and UDP.

mod announce;
mod http;
mod udp;

use std::time::Duration;

use reqwest::Url;

pub(super) use announce::{Announce, Announced, NotAnnounced};

/// Asks trackers.
#[derive(Debug)]
pub(super) struct TrackerClients {
    http: reqwest::Client,
    timeout: Duration,
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
