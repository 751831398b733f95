//! What the tasks of a session share.

use std::sync::Arc;

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
}

impl std::fmt::Debug for SessionShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionShared")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl SessionShared {
    /// Random numbers that need not be secret.
    pub(super) fn rng(&self) -> fastrand::Rng {
        rng(&self.shared)
    }
}

/// Random numbers that follow from the seed of the peer.
pub(super) fn rng(shared: &PeerShared) -> fastrand::Rng {
    fastrand::Rng::with_seed(shared.swarm_config().planner.seed)
}
