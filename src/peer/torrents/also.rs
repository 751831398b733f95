//! The file of a torrent as a content of this crate's network: fetched from there as well, and
//! shared there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::options::TorrentOptions;
use crate::content::ContentId;
use crate::error::DownloadError;
use crate::error::ShareError;
use crate::peer::contents::common_place::CommonPlace;
use crate::peer::contents::hashing::{manifest_of, off_thread};
use crate::peer::contents::place::Place;
use crate::peer::contents::pour::pour;
use crate::peer::contents::serve::{Telling, not_hashed, share_place};
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::queue::CommonTurn;
use crate::peer::downloads::task::DownloadTask;
use crate::peer::handles::download::{Download, DownloadOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::share::ShareSource;
use crate::peer::shared::PeerShared;
use crate::peer::tasks::Decision;
use crate::storage::{Blob, CommonStorage, StorageError};

/// How long it is waited before the network is asked again for a content that nobody there has:
/// a peer that has got it from elsewhere may be the first.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What a torrent has in common with other contents.
pub(super) struct InCommon {
    pub(super) shared: Arc<PeerShared>,
    /// Its files.
    pub(super) files: CommonStorage,
    /// Its place among the active downloads.
    pub(super) turn: CommonTurn,
    /// Whether it is a single file.
    pub(super) is_single: bool,
    /// The contents that are fetched beside it.
    under_way: Mutex<HashSet<ContentId>>,
}

/// A content that the file of a torrent should be as well.
pub(super) struct Also {
    common: Arc<InCommon>,
    id: ContentId,
    options: DownloadOptions,
}

/// It is no longer fetched beside the torrent when this is dropped.
pub(super) struct UnderWay {
    common: Arc<InCommon>,
    id: ContentId,
}

impl InCommon {
    pub(super) fn new(shared: &Arc<PeerShared>, files: CommonStorage, is_single: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            files,
            turn: CommonTurn::new(),
            is_single,
            under_way: Mutex::default(),
        }
    }

    /// Begins with a content, unless it has begun.
    pub(super) fn begin(self: &Arc<Self>, id: ContentId) -> Option<UnderWay> {
        let is_new = self.under_way().insert(id);
        is_new.then(|| UnderWay {
            common: Arc::clone(self),
            id,
        })
    }

    /// Ignores poison: no change under this lock is left half done.
    fn under_way(&self) -> MutexGuard<'_, HashSet<ContentId>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.common.under_way().remove(&self.id);
    }
}

/// Fetches and shares the file of a torrent under another id as well, until it is shared, or
/// cannot be. `torrent` is what is known of the download of the torrent.
pub(super) async fn also_file(
    common: Arc<InCommon>,
    id: ContentId,
    options: &TorrentOptions,
    torrent: watch::Receiver<ContentStatus>,
) {
    let also = Also {
        options: DownloadOptions::new()
            .priority(options.priority)
            .seed(options.seed),
        common,
        id,
    };
    also.fetch(torrent).await;
}

impl Also {
    async fn fetch(mut self, mut torrent: watch::Receiver<ContentStatus>) {
        let files = self.common.files.clone();
        let Some(guest) = files.only_guest() else {
            return;
        };
        let file = guest.file_path();
        let place = Arc::new(guest);
        self.options.common = Some(CommonPlace {
            storage: place.clone(),
            sibling: place,
            turn: self.common.turn.clone(),
        });
        let mut ended = torrent.clone();
        tokio::select! {
            biased;
            () = files.owner_is_there() => {}
            _ = has_ended(&mut ended) => {}
        }
        loop {
            let is_over = torrent.borrow().outcome().is_some();
            if !is_over && self.is_here().await {
                return self.pour(&mut torrent, &file).await;
            }
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
                            return self.share(file).await;
                        }
                    }
                }
            };
            match outcome {
                // It may be here in another place.
                Ok(()) => return self.pour(&mut torrent, &file).await,
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

    /// Whether this peer has the content.
    async fn is_here(&self) -> bool {
        self.common.shared.contents.places(&self.id).await.is_some()
    }

    /// Gives the torrent the content, which this peer has, and waits until the torrent has
    /// ended: until then it verifies that. The content stays where it is.
    async fn pour(&self, torrent: &mut watch::Receiver<ContentStatus>, file: &Path) {
        let poured = async {
            let here = self.common.shared.contents.places(&self.id).await;
            let (Some((here, _)), Some(common)) = (here, &self.options.common) else {
                return;
            };
            if is_there(&*here.blob, file).await {
                return;
            }
            if let Err(error) = pour(&*here.blob, self.id, &*common.storage).await {
                tracing::warn!(id = %self.id, %error, "not taken for its torrent");
            }
        };
        tokio::select! {
            biased;
            _ = has_ended(torrent) => return,
            () = poured => {}
        }
        has_ended(torrent).await;
    }

    /// Fetches the content into the file of the torrent.
    fn download(&self) -> Download {
        let (shared, key) = (&self.common.shared, DownloadKey::from(self.id));
        let span = tracing::info_span!(parent: &shared.tasks.span, "download", %key);
        let (mut task, download) = DownloadTask::new(Arc::clone(shared));
        task.asked_for(&key, &self.options);
        shared
            .tasks
            .spawn(span, task.run(key, self.options.clone()));
        download
    }

    /// Shares the file of the torrent, which is complete, if it is the content.
    async fn share(&self, file: PathBuf) {
        if !self.options.seed {
            return;
        }
        match self.share_file(file).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(id = %self.id, %error, "not shared beside its torrent"),
        }
    }

    async fn share_file(&self, path: PathBuf) -> Result<(), ShareError> {
        let shared = &self.common.shared;
        let source = ShareSource::file(path.clone());
        let (name, blob) = source.open(&*shared.storage).await?;
        let hashed = manifest_of(&*blob).await;
        let manifest = hashed.map_err(|error| not_hashed(&name, error))?;
        if manifest.id() != self.id {
            return Err(StorageError::Mismatch { path }.into());
        }
        let (place, decided) = (Place::of_user(name, blob), Decision::default());
        let shared = share_place(shared, place, manifest, (Telling::Later, &decided));
        shared.await.map(|_| ())
    }
}

/// Whether a content lies in this file, which may not have its name yet.
pub(super) async fn is_there(blob: &dyn Blob, file: &Path) -> bool {
    let (Some(path), file) = (blob.path(), file.to_path_buf()) else {
        return false;
    };
    off_thread(move || {
        let same = |file| Some(std::fs::canonicalize(&path).ok()? == file);
        path == file || std::fs::canonicalize(&file).ok().and_then(same) == Some(true)
    })
    .await
}

/// Waits until a download has ended. Returns whether it is complete.
///
/// Cancel safe.
pub(super) async fn has_ended(status: &mut watch::Receiver<ContentStatus>) -> bool {
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
pub(super) fn may_pass(error: &DownloadError) -> bool {
    matches!(
        error,
        DownloadError::NotFound { .. }
            | DownloadError::NoOwners { .. }
            | DownloadError::NoTracker { .. }
            | DownloadError::Tracker(_)
            | DownloadError::GaveUp { .. }
    )
}
