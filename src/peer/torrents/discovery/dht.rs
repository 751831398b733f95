//! Looks a torrent up in the distributed hash table (BEP 5), and announces it there.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, timeout};

use super::dht_node::DhtNode;
use super::turns::next_turn;
use crate::peer::torrents::rendezvous::Rendezvous;

/// How often a torrent is looked up and announced, as in libtorrent: nodes forget an announce
/// after half an hour.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The same as long as peers are missing.
const SOONEST: Duration = Duration::from_secs(60);

/// How long one look-up or announce may take. A node asks some dozens of others, each of which
/// may take two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many peers one look-up takes. Those that come first are of the nodes that answer first,
/// so that a liar must be fast to keep others out; and peers know further ones.
const MAX_FOUND: usize = 400;

/// Looks the torrent up and announces it, again and again.
pub(super) async fn look_up(torrent: Arc<Rendezvous>) {
    let session = &torrent.session;
    let Some(node) = &session.dht else {
        return;
    };
    loop {
        let since = Instant::now();
        let ask = async {
            // What has come by then is known.
            let _ = timeout(PATIENCE, find(node, &torrent)).await;
            // Who does not listen has nothing to announce.
            if let Some(port) = session.port {
                let announce = node.announce(&torrent.info_hash, port);
                let _ = timeout(PATIENCE, announce).await;
            }
        };
        tokio::select! {
            biased;
            () = torrent.not_public() => return,
            () = ask => {}
        }
        let next = next_turn(&torrent, since, SOONEST, INTERVAL);
        if next.await.is_none() {
            return;
        }
    }
}

/// Tells the torrent of peers that the table has.
async fn find(node: &DhtNode, torrent: &Rendezvous) {
    let mut found = std::pin::pin!(node.peers(&torrent.info_hash));
    let mut left = MAX_FOUND;
    while left > 0
        && let Some(mut peers) = found.next().await
    {
        peers.truncate(left);
        left -= peers.len();
        torrent.found(peers).await;
    }
}
