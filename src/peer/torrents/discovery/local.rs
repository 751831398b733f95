//! Announces a torrent in the local network (BEP 14).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::turns::next_turn;
use crate::peer::torrents::rendezvous::Rendezvous;

/// How often a torrent is announced (BEP 14).
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The same as long as peers are missing: the shortest that BEP 14 allows.
const SOONEST: Duration = Duration::from_secs(60);

/// Announces the torrent again and again, if this side can be dialled.
pub(super) async fn announce(torrent: Arc<Rendezvous>) {
    let session = &torrent.session;
    let (Some(local), Some(port)) = (&session.local, session.port) else {
        return;
    };
    while torrent.is_public() {
        let since = Instant::now();
        local.announce(torrent.info_hash, port).await;
        let next = next_turn(&torrent, since, SOONEST, INTERVAL);
        if next.await.is_none() {
            return;
        }
    }
}
