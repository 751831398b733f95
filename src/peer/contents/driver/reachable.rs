//! Tells a driver that something can be reached again after a failure.

use tokio::sync::watch;

use crate::peer::shared::PeerShared;

/// What a driver hears from the trackers' client and the dialler.
pub(super) struct Reachable {
    trackers: watch::Receiver<u64>,
    peers: watch::Receiver<u64>,
}

impl Reachable {
    pub(super) fn new(shared: &PeerShared) -> Self {
        Self {
            trackers: shared.trackers.recoveries(),
            peers: shared.dialler.recoveries(),
        }
    }

    /// Returns when a tracker or a peer has answered after a failure. Never returns when
    /// both have ended.
    ///
    /// Cancel safe.
    pub(super) async fn again(&mut self) {
        let Self { trackers, peers } = self;
        tokio::select! {
            Ok(()) = trackers.changed() => {}
            Ok(()) = peers.changed() => {}
            else => std::future::pending().await,
        }
    }
}
