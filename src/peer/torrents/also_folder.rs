//! The files of a torrent as a folder of this crate's network: fetched from there as well, and
//! shared there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::sleep;

use super::also::{ASK_AGAIN, InCommon, has_ended, is_there, may_pass};
use super::options::TorrentOptions;
use crate::content::{ContentId, ContentName, FolderItem, FolderPath};
use crate::error::DownloadError;
use crate::peer::contents::common_place::{CommonFolder, CommonPlace, CommonTree};
use crate::peer::contents::pour::pour;
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::queue::CommonTurn;
use crate::peer::folders::error::FolderError;
use crate::peer::folders::fetch::FolderTask;
use crate::peer::folders::here::read_index;
use crate::peer::folders::share::share_folder_if;
use crate::peer::handles::folder::{FolderDownload, FolderOptions};
use crate::peer::handles::key::DownloadKey;
use crate::storage::{CommonStorage, StorageError};

/// The files of a torrent, by their paths in its folder.
struct TorrentTree {
    name: ContentName,
    files: CommonStorage,
    turn: CommonTurn,
    is_under_way: bool,
    /// The number and the length of each.
    paths: HashMap<FolderPath, (usize, u64)>,
    /// The places that were given.
    places: Mutex<HashMap<usize, CommonPlace>>,
}

impl TorrentTree {
    fn new(common: &InCommon, name: ContentName, is_under_way: bool) -> Self {
        let prefix = format!("{name}/");
        let files = common.files.files().enumerate();
        let paths = files.filter_map(|(number, (path, len))| {
            let path = path.as_str().strip_prefix(&prefix)?.parse().ok()?;
            Some((path, (number, len)))
        });
        Self {
            paths: paths.collect(),
            name,
            files: common.files.clone(),
            turn: common.turn.clone(),
            is_under_way,
            places: Mutex::default(),
        }
    }
}

#[async_trait]
impl CommonTree for TorrentTree {
    fn name(&self) -> &ContentName {
        &self.name
    }

    fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    fn turn(&self) -> &CommonTurn {
        &self.turn
    }

    fn length_of(&self, path: &FolderPath) -> Option<u64> {
        self.paths.get(path).map(|(_, len)| *len)
    }

    fn place(&self, path: &FolderPath) -> Option<CommonPlace> {
        let (number, _) = *self.paths.get(path).filter(|_| self.is_under_way)?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&number) {
            return Some(place.clone());
        }
        let guest = Arc::new(self.files.guest_in(number)?);
        let place = CommonPlace {
            storage: guest.clone(),
            sibling: guest,
            turn: self.turn.clone(),
        };
        places.insert(number, place.clone());
        Some(place)
    }

    async fn is_done(&self) -> bool {
        self.files.owner_is_done().await
    }
}

/// Fetches and shares the files of a torrent as this folder as well, until it is shared, or
/// cannot be. `torrent` is what is known of the download of the torrent.
pub(super) async fn also_folder(
    common: &InCommon,
    id: ContentId,
    options: &TorrentOptions,
    mut torrent: watch::Receiver<ContentStatus>,
) {
    let folder = common.files.files().next().and_then(|(path, _)| {
        let top = path.elements().next()?;
        top.parse::<ContentName>().ok()
    });
    let Some(name) = folder else {
        tracing::warn!(%id, "a torrent of this name cannot be a folder as well");
        return;
    };
    let mut ended = torrent.clone();
    tokio::select! {
        biased;
        () = common.files.owner_is_there() => {}
        _ = has_ended(&mut ended) => {}
    }
    loop {
        let (is_over, is_complete) = {
            let status = torrent.borrow();
            (status.outcome().is_some(), status.complete().is_some())
        };
        if is_over && !is_complete {
            // Others may want it.
            return;
        }
        if is_over && (!options.seed || is_shared(common, id, &name).await) {
            return;
        }
        let tree = Arc::new(TorrentTree::new(common, name.clone(), !is_over));
        let mut download = download(common, id, options, Arc::clone(&tree));
        let outcome = tokio::select! {
            biased;
            outcome = &mut download => outcome.map(|_| ()),
            is_complete = has_ended(&mut torrent), if !is_over => {
                match is_complete {
                    // Others may want it.
                    false => return,
                    true if !download.files().is_empty() => download.await.map(|_| ()),
                    // Perhaps it needs nobody.
                    true => {
                        download.cancel();
                        let _ = download.await;
                        continue;
                    }
                }
            }
        };
        match outcome {
            // It is here in another place, unless the torrent has ended.
            Ok(()) => {
                tokio::select! {
                    biased;
                    _ = has_ended(&mut torrent) => {}
                    () = poured(common, id, &tree) => {
                        // Until then the torrent verifies it.
                        has_ended(&mut torrent).await;
                    }
                }
                return;
            }
            Err(FolderError::AlreadyHere { .. }) if !is_over => {
                tracing::debug!(%id, "the folder comes to another place");
            }
            Err(FolderError::Download(error)) if may_pass(&error) => {
                tracing::debug!(%id, %error, "nobody has the folder yet");
            }
            Err(FolderError::Download(DownloadError::ShutDown)) => return,
            Err(error) => {
                tracing::warn!(%id, %error, "the folder is not fetched beside its torrent");
                return;
            }
        }
        tokio::select! {
            biased;
            _ = has_ended(&mut torrent), if !is_over => {}
            () = sleep(ASK_AGAIN) => {}
        }
    }
}

/// Shares what the torrent has brought, which is complete, if that is the folder and nothing
/// else. Returns whether it does.
async fn is_shared(common: &InCommon, id: ContentId, name: &ContentName) -> bool {
    let path = common.files.root().join(name.as_str());
    match share_folder_if(&common.shared, &path, None, Some(id)).await {
        Ok(_) => true,
        Err(FolderError::Storage(StorageError::Mismatch { .. })) => false,
        Err(error) => {
            tracing::debug!(%id, %error, "not shared as it is");
            false
        }
    }
}

/// Gives the torrent what is here of the folder.
async fn poured(common: &InCommon, id: ContentId, tree: &TorrentTree) {
    let shared = &common.shared;
    let Ok(index) = read_index(shared, &id).await else {
        return;
    };
    for entry in index.entries() {
        let FolderItem::File { id, length, .. } = entry.item else {
            continue;
        };
        let fits = length > 0 && tree.length_of(&entry.path) == Some(length);
        let (true, Some(blob)) = (fits, shared.folders.blob(&id)) else {
            continue;
        };
        let file = common.files.root().join(tree.name.as_str());
        if is_there(&*blob, &file.join(entry.path.as_str())).await {
            continue;
        }
        if let Some(place) = tree.place(&entry.path)
            && let Err(error) = pour(&*blob, id, &*place.storage).await
        {
            tracing::warn!(path = %entry.path, %error, "not taken for the torrent");
        }
    }
}

fn download(
    common: &InCommon,
    id: ContentId,
    options: &TorrentOptions,
    tree: Arc<TorrentTree>,
) -> FolderDownload {
    let (shared, key) = (&common.shared, DownloadKey::from(id));
    let mut wanted = FolderOptions::new()
        .priority(options.priority)
        .seed(options.seed)
        .directory(common.files.root());
    wanted.common = Some(CommonFolder(tree));
    let parent = &shared.tasks.span;
    let span = tracing::info_span!(parent: parent, "download", %key, folder = true);
    let (task, request, download) = FolderTask::new(shared, key, wanted, None);
    shared.tasks.spawn(span, task.run(request));
    download
}
