//! What the tasks of a session share.

use std::sync::Arc;

#[cfg(feature = "bittorrent-dht")]
use super::discovery::dht_node::DhtNode;
use super::discovery::local_socket::LocalSocket;
use super::handshake::Oneself;
use super::options::TorrentSessionConfig;
use super::tracker::TrackerClients;
use crate::bittorrent::wire::ClientId;
use crate::peer::shared::PeerShared;
use crate::transport::TcpTransport;

/// What the tasks of a session share.
pub(super) struct SessionShared {
    pub(super) shared: Arc<PeerShared>,
    pub(super) transport: TcpTransport,
    /// The id of this side.
    pub(super) client: ClientId,
    /// The port that others can connect to.
    pub(super) port: Option<u16>,
    pub(super) config: TorrentSessionConfig,
    pub(super) trackers: TrackerClients,
    pub(super) local: Option<LocalSocket>,
    #[cfg(feature = "bittorrent-dht")]
    pub(super) dht: Option<DhtNode>,
}

impl std::fmt::Debug for SessionShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionShared")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl SessionShared {
    /// The port of the node of the distributed hash table, if there is one.
    pub(super) fn dht_port(&self) -> Option<u16> {
        #[cfg(feature = "bittorrent-dht")]
        return self.dht.as_ref().map(DhtNode::port);
        #[cfg(not(feature = "bittorrent-dht"))]
        None
    }

    /// What handshakes say of this side.
    pub(super) fn oneself(&self) -> Oneself {
        Oneself::new(self.client, self.dht_port().is_some())
    }

    /// Random numbers that need not be secret.
    pub(super) fn rng(&self) -> fastrand::Rng {
        rng(&self.shared)
    }
}

/// Random numbers that follow from the seed of the peer and its id: peers may have the same
/// seed, and are to be told apart.
pub(super) fn rng(shared: &PeerShared) -> fastrand::Rng {
    let id = u128::from_le_bytes(shared.identity.id.0);
    let seed = shared.swarm_config().planner.seed;
    fastrand::Rng::with_seed(seed ^ id as u64 ^ (id >> 64) as u64)
}
