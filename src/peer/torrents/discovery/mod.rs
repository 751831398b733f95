//! How peers of a torrent are found without a tracker: by the distributed hash table (BEP 5),
//! and in the local network (BEP 14). Neither knows of private torrents (BEP 27).

#[cfg(feature = "bittorrent-dht")]
mod dht;
mod local;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[cfg(feature = "bittorrent-dht")]
pub(super) use dht::DhtNode;
pub(super) use local::LocalDiscovery;

use super::rendezvous::Rendezvous;

/// Looks for peers from now on, in the ways that the session has, until the torrent stops or
/// turns out to be private.
pub(super) fn discover(torrent: &Arc<Rendezvous>) {
    let session = &torrent.session;
    let tasks = &session.shared.tasks;
    let span = tracing::info_span!(parent: &tasks.span, "torrent", hash = %torrent.info_hash);
    #[cfg(feature = "bittorrent-dht")]
    if session.dht.is_some() {
        tasks.spawn(span.clone(), dht::look_up(Arc::clone(torrent)));
    }
    if session.local.is_some() {
        tasks.spawn(span, local::announce(Arc::clone(torrent)));
    }
}

/// Waits for `interval` after `since`, or for `soonest` if more peers are wanted. Returns
/// `None` if the torrent is not public any more.
async fn next_turn(
    torrent: &Rendezvous,
    since: Instant,
    soonest: Duration,
    interval: Duration,
) -> Option<()> {
    let mut wanted = torrent.wishes.wanted();
    let soon = async {
        sleep_until(since + soonest).await;
        // The sender is as old as the torrent.
        let _ = wanted.changed().await;
    };
    tokio::select! {
        biased;
        () = torrent.not_public() => None,
        () = sleep_until(since + interval) => Some(()),
        () = soon => Some(()),
    }
}
