//! Asks the trackers of torrents, over HTTP, HTTPS and UDP.

mod announce;
mod http;
#[cfg(feature = "_bittorrent_tls")]
mod https;
mod udp;

use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

pub(super) use announce::{Announce, Announced, NotAnnounced};

/// Asks trackers.
#[derive(Debug)]
pub(super) struct TrackerClients {
    /// Built when the first tracker over HTTP is asked.
    http: OnceCell<Client>,
    timeout: Duration,
}

impl TrackerClients {
    /// Clients whose requests take so long at most.
    pub(super) fn new(timeout: Duration) -> Self {
        let http = OnceCell::new();
        Self { http, timeout }
    }

    async fn http(&self) -> Result<&Client, NotAnnounced> {
        let timeout = self.timeout;
        let build = || async move {
            // It may read what the system trusts.
            let built = spawn_blocking(move || build(timeout)).await;
            Ok::<_, NotAnnounced>(built.map_err(std::io::Error::from)??)
        };
        self.http.get_or_try_init(build).await
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
                "http" | "https" => http::announce(self.http().await?, url, announce).await,
                "udp" => udp::announce(&parsed, announce, self.timeout).await,
                _ => Err(NotAnnounced::Url),
            }
        };
        let announced = tokio::time::timeout(self.timeout, asked).await;
        announced.unwrap_or(Err(NotAnnounced::TimedOut))
    }
}

fn build(timeout: Duration) -> reqwest::Result<Client> {
    let agent = concat!("bt_lite/", env!("CARGO_PKG_VERSION"));
    let builder = Client::builder().user_agent(agent).timeout(timeout);
    #[cfg(feature = "_bittorrent_tls")]
    let builder = https::trusting_the_system(builder);
    builder.build()
}
