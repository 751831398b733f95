//! Whether a folder that is here, as far as is known, is still where it was. Somebody may
//! have deleted it, or some of its files.

use std::collections::HashSet;
use std::sync::Arc;

use super::release::stop_serving;
use super::status::Folder;
use crate::content::{ContentId, FolderIndex, FolderItem};
use crate::peer::contents::losses::LostThing;
use crate::peer::contents::serve::{retire, unshare};
use crate::peer::shared::PeerShared;
use crate::storage::{Lost, PlacedFiles, StorageError, is_taken};

/// The folder, if all of it is where it was. What is gone is no longer served: if some
/// files are, the folder is a part from now on, and if all are, it is not here.
pub(super) async fn intact(
    shared: &Arc<PeerShared>,
    id: &ContentId,
) -> Result<Option<Folder>, StorageError> {
    let (Some((folder, is_whole)), Some(placed)) =
        (shared.folders.get(id), shared.folders.placed(id))
    else {
        return Ok(None);
    };
    let Ok(index) = read_index(shared, id).await else {
        // Without it nothing can be told of the files.
        forget(shared, &folder, &placed).await;
        return Ok(None);
    };
    let present = placed.present(&index).await?;
    let is_same = present.len() == placed.len();
    if is_same && placed.has_the_rest(&index).await? {
        return Ok(Some(folder).filter(|_| is_whole));
    }
    // What was shared from elsewhere is fetched to the storage when nothing is left of it.
    let is_only_found = placed.was_there() && !placed.is_stored();
    let is_gone = present.len() == 0 && placed.len() > 0 && is_only_found;
    if is_gone || !is_taken(placed.root()).await? {
        forget(shared, &folder, &placed).await;
        return Ok(None);
    }
    let here: HashSet<u32> = present.entries();
    let is_file = |entry: u32| match index.entries()[entry as usize].item {
        FolderItem::File { id, .. } => Some(id),
        _ => None,
    };
    let left: HashSet<ContentId> = here.iter().filter_map(|at| is_file(*at)).collect();
    let gone = placed.entries().into_iter().filter_map(is_file);
    let gone: HashSet<ContentId> = gone.filter(|id| !left.contains(id)).collect();
    for file in gone {
        retire(shared, &file).await;
    }
    Ok(None)
}

/// Nothing of a folder is left where it was. Its record stays: it may lie on a volume that
/// comes back.
async fn forget(shared: &Arc<PeerShared>, folder: &Folder, placed: &Arc<PlacedFiles>) {
    let id = folder.id;
    let Some(unused) = shared.folders.remove_placed(&id, placed) else {
        return;
    };
    tracing::warn!(folder = %id, path = %placed.root().path().display(), "the folder is gone");
    shared.losses.forget_files(&id);
    for file in &unused.files {
        stop_serving(shared, file);
    }
    if unused.index {
        unshare(shared, &id).await;
    }
    let error = StorageError::NotFound {
        name: folder.name.clone(),
    };
    let lost = Lost::new(id, folder.name.clone(), error).recorded(shared.share_stored);
    shared.losses.insert(lost, LostThing::Folder);
}

/// What is in a folder that is here.
pub(in crate::peer) async fn read_index(
    shared: &PeerShared,
    id: &ContentId,
) -> Result<FolderIndex, StorageError> {
    let gone = || StorageError::NotFound { name: (*id).into() };
    let (main, _) = shared.contents.places(id).await.ok_or_else(gone)?;
    let bytes = main.blob.read_at(0, main.blob.length() as usize).await?;
    let index = Some(bytes).filter(|bytes| ContentId::of(bytes) == *id);
    let index = index.and_then(|bytes| FolderIndex::decode(&bytes).ok());
    index.ok_or_else(gone)
}
