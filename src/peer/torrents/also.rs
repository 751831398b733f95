//! The file of a torrent as a content of this crate's network: fetched from there as well, and
//! shared there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::options::TorrentOptions;
use crate::content::ContentId;
use crate::error::DownloadError;
use crate::error::ShareError;
use crate::peer::contents::common_place::CommonPlace;
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::hashing::manifest_of;
use crate::peer::contents::place::Place;
use crate::peer::contents::serve::{Telling, not_hashed, share_place};
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::task::DownloadTask;
use crate::peer::handles::download::{Download, DownloadOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::share::ShareSource;
use crate::peer::shared::PeerShared;
use crate::peer::tasks::Decision;
use crate::storage::{SpannedStorage, StorageError, TwinStorage};

/// How long it is waited before the network is asked again for a content that nobody there has:
/// a peer that has got it from elsewhere may be the first.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The other content that the file of a torrent should be.
pub(super) struct Also {
    shared: Arc<PeerShared>,
    id: ContentId,
    place: TwinStorage,
    options: DownloadOptions,
}

/// What a torrent with this storage is stored with, if its file is this content as well, and
/// what fetches and shares that.
pub(super) fn also(
    shared: &Arc<PeerShared>,
    storage: SpannedStorage,
    id: ContentId,
    options: &TorrentOptions,
) -> (TargetOptions, Also) {
    let (owner, guest) = TwinStorage::pair(storage);
    let owner = Arc::new(owner);
    let mut target = TargetOptions::to(owner.clone());
    target.sibling = Some(owner);
    let mut also = DownloadOptions::new().priority(options.priority);
    also = also.seed(options.seed);
    let place = Arc::new(guest.clone());
    also.common = Some(CommonPlace {
        storage: place.clone(),
        sibling: place,
    });
    let also = Also {
        shared: Arc::clone(shared),
        id,
        place: guest,
        options: also,
    };
    (target, also)
}

impl Also {
    /// Goes on until the content is shared, or cannot be. `torrent` is what is known of the
    /// download of the torrent.
    pub(super) async fn run(self, torrent: watch::Receiver<ContentStatus>) {
        let stop = self.shared.tasks.stop.clone();
        stop.run_until_cancelled(self.fetch(torrent)).await;
    }

    async fn fetch(self, mut torrent: watch::Receiver<ContentStatus>) {
        let mut ended = torrent.clone();
        tokio::select! {
            biased;
            () = self.place.owner_is_there() => {}
            _ = has_ended(&mut ended) => {}
        }
        loop {
            let is_over = torrent.borrow().outcome().is_some();
            let mut download = match is_over {
                true => None,
                false => Some(self.download()),
            };
            let outcome = tokio::select! {
                biased;
                outcome = outcome_of(&mut download) => outcome,
                is_complete = has_ended(&mut torrent) => {
                    if !is_complete {
                        // Others may want it.
                        return;
                    }
                    match download {
                        Some(download) if download.is_open() => download.await.map(|_| ()),
                        download => {
                            if let Some(download) = download {
                                download.cancel();
                                let _ = download.await;
                            }
                            return self.share().await;
                        }
                    }
                }
            };
            match outcome {
                Ok(()) => return,
                Err(error) if !may_pass(&error) => {
                    tracing::warn!(id = %self.id, %error, "not fetched beside its torrent");
                    return;
                }
                Err(error) => tracing::debug!(id = %self.id, %error, "nobody has it yet"),
            }
            tokio::select! {
                biased;
                _ = has_ended(&mut torrent) => {}
                () = sleep(ASK_AGAIN) => {}
            }
        }
    }

    /// Fetches the content into the file of the torrent.
    fn download(&self) -> Download {
        let (shared, key) = (&self.shared, DownloadKey::from(self.id));
        let span = tracing::info_span!(parent: &shared.tasks.span, "download", %key);
        let (mut task, download) = DownloadTask::new(Arc::clone(shared));
        task.asked_for(&key, &self.options);
        shared
            .tasks
            .spawn(span, task.run(key, self.options.clone()));
        download
    }

    /// Shares the file of the torrent, which is complete, if it is the content.
    async fn share(&self) {
        if !self.options.seed {
            return;
        }
        match self.share_file().await {
            Ok(()) => {}
            Err(error) => tracing::warn!(id = %self.id, %error, "not shared beside its torrent"),
        }
    }

    async fn share_file(&self) -> Result<(), ShareError> {
        let source = ShareSource::file(self.place.file_path());
        let (name, blob) = source.open(&*self.shared.storage).await?;
        let hashed = manifest_of(&*blob).await;
        let manifest = hashed.map_err(|error| not_hashed(&name, error))?;
        if manifest.id() != self.id {
            let path = self.place.file_path();
            return Err(StorageError::Mismatch { path }.into());
        }
        let (place, decided) = (Place::of_user(name, blob), Decision::default());
        let shared = share_place(&self.shared, place, manifest, (Telling::Later, &decided));
        shared.await.map(|_| ())
    }
}

/// Waits until a download has ended. Returns whether it is complete.
///
/// Cancel safe.
async fn has_ended(status: &mut watch::Receiver<ContentStatus>) -> bool {
    let ended = status.wait_for(|status| status.outcome().is_some()).await;
    ended.is_ok_and(|status| status.complete().is_some())
}

/// The outcome of a download, if there is one.
async fn outcome_of(download: &mut Option<Download>) -> Result<(), DownloadError> {
    match download {
        Some(download) => download.await.map(|_| ()),
        None => std::future::pending().await,
    }
}

/// Whether a later attempt may go better: nobody has the content, or nobody answers.
fn may_pass(error: &DownloadError) -> bool {
    matches!(
        error,
        DownloadError::NotFound { .. }
            | DownloadError::NoOwners { .. }
            | DownloadError::NoTracker { .. }
            | DownloadError::Tracker(_)
            | DownloadError::GaveUp { .. }
    )
}
