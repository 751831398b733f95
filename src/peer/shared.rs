//! What all tasks of one peer share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::content::{ContentId, ContentName};
use crate::peer::config::PeerConfig;
use crate::peer::contents::complete_bytes::ReadFaults;
use crate::peer::contents::losses::Losses;
use crate::peer::contents::place::{Place, check_present};
use crate::peer::contents::room::Room;
use crate::peer::contents::table::Contents;
use crate::peer::downloads::copies::Copies;
use crate::peer::downloads::queue::DownloadQueue;
use crate::peer::downloads::running::RunningDownloads;
use crate::peer::events::hub::EventHub;
#[cfg(feature = "file-storage")]
use crate::peer::folders::place_turns::PlaceTurns;
#[cfg(feature = "file-storage")]
use crate::peer::folders::running::RunningFolders;
use crate::peer::folders::table::FolderTable;
use crate::peer::limits::{ContentLimits, Limiter};
use crate::peer::session::Dialler;
use crate::peer::session::admission::Admission;
use crate::peer::session::guard::Guard;
use crate::peer::session::identity::Identity;
use crate::peer::swarm::SwarmConfig;
use crate::peer::tasks::Tasks;
use crate::peer::traffic::Traffic;
use crate::protocol::{Zone, ZoneTag};
use crate::storage::{Storage, StorageError, Stored};
use crate::tracker::TrackerClient;
use crate::transport::Transport;

/// The shared state of a peer.
pub(super) struct PeerShared {
    pub(super) identity: Arc<Identity>,
    pub(super) config: PeerConfig,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) trackers: TrackerClient,
    /// Whether the peer works without them.
    pub(super) trackers_optional: bool,
    /// For what only the transport knows: whether it can read an address.
    pub(super) transport: Arc<dyn Transport>,
    /// Gives out the places of connections.
    pub(super) admission: Arc<Admission>,
    pub(super) contents: Arc<Contents>,
    /// What was shared, and can no longer be read.
    pub(super) losses: Losses,
    /// Hears of contents that cannot be read here.
    pub(super) read_faults: Arc<dyn ReadFaults>,
    /// For those who watch the peer.
    pub(super) events: EventHub,
    /// What all contents together have sent and received.
    pub(super) traffic: Traffic,
    pub(super) downloads: Arc<DownloadQueue>,
    pub(super) running: Arc<RunningDownloads>,
    pub(super) folders: Arc<FolderTable>,
    /// The downloads of folders that have not ended.
    #[cfg(feature = "file-storage")]
    pub(super) running_folders: Arc<RunningFolders>,
    /// Which of them changes a place on the disk at the moment.
    #[cfg(feature = "file-storage")]
    pub(super) folder_places: PlaceTurns,
    /// Who may connect, and fetch what.
    pub(super) guard: Arc<Guard>,
    /// Opens links.
    pub(super) dialler: Arc<Dialler>,
    pub(super) tasks: Arc<Tasks>,
    /// Whether the storage records complete contents for the next start.
    pub(super) share_stored: bool,
    pub(super) next_seed: AtomicU64,
    /// Who may copy a content.
    pub(super) copies: Copies,
    /// How fast contents may be sent and received.
    pub(super) limiter: Arc<Limiter>,
    /// How much there may be in the storage.
    pub(super) room: Arc<Room>,
}

impl PeerShared {
    /// The configuration of one more swarm, with its own seed.
    pub(super) fn swarm_config(&self) -> SwarmConfig {
        let mut config = self.config.swarm.clone();
        config.planner.seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
        config
    }

    /// The zone of the peer, as others are told.
    pub(super) fn zone(&self) -> Option<ZoneTag> {
        self.config.zone.as_ref().map(Zone::tag)
    }

    /// Limits a content from now on.
    pub(super) fn limit_content(&self, id: ContentId, limits: ContentLimits) {
        let is_here = |id: &ContentId| self.contents.role(id).is_some();
        self.limiter.set_content(id, limits, is_here);
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
        if stored.manifest.is_torrent() {
            // Nothing of it would be left but bytes without a meaning.
            return Ok(false);
        }
        self.storage.remember(&stored).await?;
        self.losses.recorded(&stored.manifest.id(), &stored.name);
        if stored.manifest.geometry().chunks() == 1 {
            // It is never asked for.
            return Ok(false);
        }
        let id = stored.manifest.id();
        // A storage need not record every content.
        let recorded = self.storage.manifest(&stored.name, &id).await;
        Ok(matches!(recorded, Ok(Some(_))))
    }

    /// The next of the other places of a content whose bytes are there.
    pub(super) async fn next_place(&self, id: &ContentId) -> Option<Place> {
        loop {
            let place = self.contents.next_place(id)?;
            match check_present(&*place.blob).await {
                Ok(()) => return Some(place),
                Err(error) => tracing::warn!(name = %place.name, %error, "not served from there"),
            }
        }
    }

    /// Drops that record.
    pub(super) async fn forget(&self, name: &ContentName, id: &ContentId) {
        if !self.share_stored {
            return;
        }
        if let Err(error) = self.storage.forget(name, id).await {
            tracing::warn!(%error, "the storage did not drop its record of the content");
        }
    }
}
