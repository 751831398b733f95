//! A node of the distributed hash table of BitTorrent (BEP 5): that of the crate `mainline`,
//! which speaks IPv4.

use std::io;
use std::net::SocketAddr;

use futures::{Stream, StreamExt};
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id};
use tokio::task::spawn_blocking;

use crate::bittorrent::InfoHashV1;
use crate::peer::torrents::options::DhtConfig;

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

    /// The peers that the table has of a torrent, as its nodes name them: some several times.
    pub(super) fn peers(
        &self,
        torrent: &InfoHashV1,
    ) -> impl Stream<Item = Vec<SocketAddr>> + use<> {
        let found = self.node.get_peers(id_of(torrent));
        found.map(|peers| peers.into_iter().map(SocketAddr::V4).collect())
    }

    /// Announces that a torrent can be had at this port.
    pub(super) async fn announce(&self, torrent: &InfoHashV1, port: u16) {
        let announced = self.node.announce_peer(id_of(torrent), Some(port));
        if let Err(error) = announced.await {
            tracing::debug!(%error, "not announced in the DHT");
        }
    }
}

fn id_of(hash: &InfoHashV1) -> Id {
    Id::from(*hash.as_bytes())
}
