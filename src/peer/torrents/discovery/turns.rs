//! When a torrent is looked for again.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::peer::torrents::rendezvous::Rendezvous;

/// Waits for `interval` after `since`, or for `soonest` if more peers are wanted. Returns
/// `None` if the torrent is not public any more.
pub(super) async fn next_turn(
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
