//! Peers by the distributed hash table of BitTorrent (BEP 5). The node is that of the crate
//! `mainline`, which speaks IPv4.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::next_turn;
use crate::bittorrent::InfoHashV1;
use crate::peer::torrents::options::DhtConfig;
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

/// A node of the table.
pub(in crate::peer::torrents) struct DhtNode {
    node: AsyncDht,
    /// Where it listens.
    port: u16,
}

impl DhtNode {
    /// Starts a node, which has a thread of its own.
    pub(in crate::peer::torrents) async fn start(config: DhtConfig) -> io::Result<Self> {
        // It looks names up, and waits for its thread.
        let started = spawn_blocking(move || {
            let mut builder = Dht::builder();
            if !config.bootstrap.is_empty() {
                builder.bootstrap(&config.bootstrap);
            }
            builder.bind_address(*config.listen.ip());
            if config.listen.port() != 0 {
                builder.port(config.listen.port());
            }
            builder.build()
        });
        let node = started.await??.as_async();
        let port = node.info().await.local_addr().port();
        Ok(Self { node, port })
    }

    pub(in crate::peer::torrents) fn port(&self) -> u16 {
        self.port
    }

    /// Tells the torrent of peers that the table has.
    async fn find(&self, torrent: &Rendezvous) {
        let mut found = self.node.get_peers(id_of(&torrent.info_hash));
        let mut left = MAX_FOUND;
        while left > 0
            && let Some(peers) = found.next().await
        {
            let peers: Vec<_> = peers.into_iter().take(left).map(SocketAddr::V4).collect();
            left -= peers.len();
            torrent.found(peers).await;
        }
    }
}

/// Looks the torrent up and announces it, again and again.
pub(super) async fn look_up(torrent: Arc<Rendezvous>) {
    let session = &torrent.session;
    let Some(dht) = &session.dht else {
        return;
    };
    loop {
        let since = Instant::now();
        let ask = async {
            let _ = timeout(PATIENCE, dht.find(&torrent)).await;
            // Who does not listen has nothing to announce.
            if let Some(port) = session.port {
                let announced = dht
                    .node
                    .announce_peer(id_of(&torrent.info_hash), Some(port));
                match timeout(PATIENCE, announced).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "not announced in the DHT"),
                    Err(_) => tracing::debug!("not announced in the DHT in time"),
                }
            }
        };
        tokio::select! {
            biased;
            () = torrent.not_public() => return,
            () = ask => {}
        }
        if next_turn(&torrent, since, SOONEST, INTERVAL)
            .await
            .is_none()
        {
            return;
        }
    }
}

fn id_of(hash: &InfoHashV1) -> Id {
    Id::from(*hash.as_bytes())
}
