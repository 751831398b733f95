//! What all tasks of one peer share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::content::Content;
use crate::peer::config::PeerConfig;
use crate::peer::contents::table::Contents;
use crate::peer::downloads::queue::DownloadQueue;
use crate::peer::folders::table::FolderTable;
use crate::peer::session::Dialler;
use crate::peer::session::admission::Admission;
use crate::peer::session::identity::Identity;
use crate::peer::swarm::SwarmConfig;
use crate::peer::tasks::Tasks;
use crate::storage::{Storage, StorageError, Stored};
use crate::tracker::TrackerClient;

/// The shared state of a peer.
pub(super) struct PeerShared {
    pub(super) identity: Arc<Identity>,
    pub(super) config: PeerConfig,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) trackers: TrackerClient,
    /// Gives out the places of connections.
    pub(super) admission: Arc<Admission>,
    pub(super) contents: Arc<Contents>,
    pub(super) downloads: Arc<DownloadQueue>,
    pub(super) folders: FolderTable,
    /// Opens links.
    pub(super) dialler: Arc<Dialler>,
    pub(super) tasks: Arc<Tasks>,
    /// Whether the storage records complete contents for the next start.
    pub(super) share_stored: bool,
    pub(super) next_seed: AtomicU64,
}

impl PeerShared {
    /// The configuration of one more swarm, with its own seed.
    pub(super) fn swarm_config(&self) -> SwarmConfig {
        let mut config = self.config.swarm.clone();
        config.planner.seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
        config
    }

    /// Has the storage record a complete content for the next start, if the
    /// user wants that. Returns whether the storage can give its manifest back.
    pub(super) async fn remember(
        &self,
        stored: impl FnOnce() -> Stored,
    ) -> Result<bool, StorageError> {
        if !self.share_stored {
            return Ok(false);
        }
        let stored = stored();
        self.storage.remember(&stored).await?;
        if stored.manifest.geometry().chunks() == 1 {
            // It is never asked for.
            return Ok(false);
        }
        let id = stored.manifest.id();
        // A storage need not record every content.
        let recorded = self.storage.manifest(&stored.name, &id).await;
        Ok(matches!(recorded, Ok(Some(_))))
    }

    /// Drops that record, unless another content has taken the name since.
    pub(super) async fn forget(&self, content: &Content) {
        if !self.share_stored || self.contents.is_taken(&content.name, &content.id) {
            return;
        }
        if let Err(error) = self.storage.forget(&content.name).await {
            tracing::warn!(%error, "the storage did not drop its record of the content");
        }
    }
}
