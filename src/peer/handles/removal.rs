//! Where the contents of a peer lie, and how to be rid of them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::content::{ContentId, ContentName};
use crate::error::RemoveError;
use crate::peer::contents::place::{Place, check_present};
use crate::peer::contents::role::Role;
#[cfg(not(feature = "file-storage"))]
use crate::peer::contents::serve::unshare as unshare_any;
#[cfg(feature = "file-storage")]
use crate::peer::folders::here::read_index;
#[cfg(feature = "file-storage")]
use crate::peer::folders::share::unshare_any;
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::peer::Peer;
use crate::peer::shared::PeerShared;
#[cfg(feature = "file-storage")]
use crate::storage::Deletion;
use crate::storage::StorageError;

/// What becomes of the files of a content that is [removed](Peer::remove).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// They stay.
    KeepFile,
    /// Those that the peer has written to the directory of its storage are deleted: by a
    /// download, a copy, or [`Peer::share_reader`]. What was there before, and was only
    /// found or shared, always stays, and so does a file that lies elsewhere, because it was
    /// shared from there or downloaded into another directory.
    DeleteFile,
}

/// What was [removed](Peer::remove).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The content.
    pub id: ContentId,
    /// What became of it under each of its names.
    pub files: Vec<RemovedFile>,
}

/// One name of a content that was [removed](Peer::remove).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemovedFile {
    /// The name.
    pub name: ContentName,
    /// The path of the file, if the storage has paths.
    pub path: Option<PathBuf>,
    /// What became of the file.
    pub fate: FileFate,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFate {
    /// It stays, as was asked for.
    Kept,
    /// It is deleted, durably.
    Deleted,
    /// It was gone already.
    Gone,
    /// It lies outside the directory of the storage, and stays.
    Elsewhere,
    /// It was in the directory of the storage before: it was shared from there, or the
    /// download only found it. It stays. So does what is not known to be the peer's own,
    /// because an earlier version of this crate has recorded it, or the peer was killed at the
    /// moment between the end of its download and the record of that.
    WasThere,
    /// It could not be deleted, and stays: [`StorageError::Changed`] if something else has
    /// its name by now, [`StorageError::NotAFile`] if that is a link or the like,
    /// [`StorageError::Unsupported`] if the storage deletes nothing.
    Failed(StorageError),
}

impl fmt::Display for FileFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::Deleted => "deleted",
            Self::Gone => "gone already",
            Self::Elsewhere => "elsewhere, and kept",
            Self::WasThere => "there before, and kept",
            Self::Failed(error) => return write!(f, "not deleted: {error}"),
        })
    }
}

impl Peer {
    /// Stops serving a complete content under all its names, now and after a restart, as
    /// [`unshare`](Self::unshare) does, and with [`Removal::DeleteFile`] deletes its files
    /// in the storage. Links to peers that fetch it are ended in order: they hear that it
    /// is not here any more.
    ///
    /// A file is deleted only if the peer has written it ([`Removal::DeleteFile`]); what was
    /// there before stays ([`FileFate::WasThere`]), also after a restart. And only if it is
    /// still this content ([`Storage::remove`]); one that somebody has overwritten stays, and
    /// is reported. A file that lies elsewhere stays.
    ///
    /// A [folder](Self::folders) is removed as a whole, and is one of
    /// [`Removed::files`]. Of it is deleted what a download has put into the directory of
    /// the storage and nobody has changed since: files, links, and then the folders that
    /// are empty. All else stays:
    ///
    /// - a folder that lies elsewhere, shared from there or downloaded into another
    ///   directory (`FolderOptions::directory`; [`FileFate::Elsewhere`]);
    /// - a folder that was there before its download, which only found it
    ///   ([`FileFate::WasThere`]). Files that have come to such a folder are deleted, and its
    ///   own files, and all links and folders, stay;
    /// - a file that was found in the place of one that was wanted;
    /// - a file that somebody has changed, which is reported ([`FileFate::Failed`]);
    /// - whatever else lies there, with the folders that it lies in.
    ///
    /// Cancel safe: once polled, the content is no longer served, even if the future is
    /// dropped. Then some of its files may stay.
    ///
    /// # Errors
    /// [`RemoveError`]; nothing has changed then. A name stands for the only content here
    /// that has it.
    ///
    /// [`Storage::remove`]: crate::Storage::remove
    pub async fn remove(
        &self,
        key: impl Into<DownloadKey>,
        removal: Removal,
    ) -> Result<Removed, RemoveError> {
        let (shared, key) = (self.shared(), key.into());
        let unknown = key.to_string();
        if shared.tasks.stop.is_cancelled() {
            return Err(RemoveError::ShutDown);
        }
        let Some(id) = self.id_of(key) else {
            return Err(RemoveError::Unknown { key: unknown });
        };
        let remove = remove(shared, id, removal);
        let shut_down = RemoveError::ShutDown;
        shared.tasks.until_stopped(remove, shut_down).await
    }

    /// The paths of the files of a complete content: of each place that it was shared
    /// from or downloaded to, or where a download found it. The first one is served. Empty if
    /// it is not complete here, or lies in a storage without paths. A folder, or the part of
    /// it that is here, is one directory. A name stands for the only content here that has it.
    ///
    /// Cancel safe.
    pub async fn paths(&self, key: impl Into<DownloadKey>) -> Vec<PathBuf> {
        let Some(id) = self.id_of(key.into()) else {
            return Vec::new();
        };
        #[cfg(feature = "file-storage")]
        if let Some(placed) = self.shared().folders.placed(&id) {
            return vec![placed.root().path()];
        }
        if self.shared().folders.is_coming(&id) {
            return Vec::new();
        }
        let places = places(self.shared(), &id).await.unwrap_or_default();
        let mut paths = Vec::new();
        for path in places.iter().filter_map(|place| place.blob.path()) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }
}

/// The places of a complete content.
async fn places(shared: &PeerShared, id: &ContentId) -> Option<Vec<Place>> {
    let (main, more) = shared.contents.places(id).await?;
    Some(std::iter::once(main.place()).chain(more).collect())
}

async fn remove(
    shared: &Arc<PeerShared>,
    id: ContentId,
    removal: Removal,
) -> Result<Removed, RemoveError> {
    #[cfg(feature = "file-storage")]
    if let Some(removed) = remove_folder(shared, id, removal).await {
        return removed;
    }
    let folder = || RemoveError::Folder { id };
    if shared.folders.blob(&id).is_some() {
        return Err(folder());
    }
    let places = match shared.contents.role(&id) {
        Some(Role::Index) => return Err(RemoveError::Downloading { id }),
        Some(Role::File) => return Err(folder()),
        // What is remembered and cannot be read has no places.
        None => Vec::new(),
        #[cfg(feature = "bittorrent")]
        Some(Role::Torrent) => Vec::new(),
        Some(Role::Alone) => match places(shared, &id).await {
            Some(places) => places,
            None => return Err(RemoveError::Downloading { id }),
        },
    };
    if !unshare_any(shared, &id).await {
        return Err(RemoveError::NotHere { id });
    }
    let mut files = Vec::new();
    for place in places {
        let path = place.blob.path();
        let fate = match removal {
            Removal::KeepFile => FileFate::Kept,
            Removal::DeleteFile => delete(shared, &id, &place).await,
        };
        files.push(RemovedFile {
            name: place.name,
            path,
            fate,
        });
    }
    Ok(Removed { id, files })
}

/// Removes a folder. `None` if it is none that is here.
#[cfg(feature = "file-storage")]
async fn remove_folder(
    shared: &Arc<PeerShared>,
    id: ContentId,
    removal: Removal,
) -> Option<Result<Removed, RemoveError>> {
    if shared.running_folders.claimed(&id).is_some() {
        return Some(Err(RemoveError::Downloading { id }));
    }
    let (folder, _) = shared.folders.get(&id)?;
    let placed = shared.folders.placed(&id)?;
    let index = match removal {
        Removal::DeleteFile if placed.is_stored() => Some(read_index(shared, &id).await),
        _ => None,
    };
    if !unshare_any(shared, &id).await {
        return Some(Err(RemoveError::NotHere { id }));
    }
    let fate = match (removal, index) {
        (Removal::KeepFile, _) => FileFate::Kept,
        (Removal::DeleteFile, None) => FileFate::Elsewhere,
        (Removal::DeleteFile, Some(Err(error))) => FileFate::Failed(error),
        (Removal::DeleteFile, Some(Ok(index))) => match placed.delete(&index).await {
            Ok(Deletion::Deleted) => FileFate::Deleted,
            Ok(Deletion::Gone) => FileFate::Gone,
            Ok(Deletion::Kept) => FileFate::WasThere,
            Err(error) => FileFate::Failed(error),
        },
    };
    let file = RemovedFile {
        name: folder.name,
        path: Some(placed.root().path()),
        fate,
    };
    let files = vec![file];
    Some(Ok(Removed { id, files }))
}

/// What became of a file that this peer has only found: it stays.
async fn found_fate(shared: &PeerShared, place: &Place) -> FileFate {
    if place.is_in(&*shared.storage).await {
        return match shared.storage.open(&place.name).await {
            Err(StorageError::NotFound { .. }) => FileFate::Gone,
            // Something else may have its name by now, and is no more this peer's.
            _ => FileFate::WasThere,
        };
    }
    match check_present(&*place.blob).await {
        Ok(()) if place.is_beside(&*shared.storage) => FileFate::WasThere,
        Ok(()) => FileFate::Elsewhere,
        Err(_) => FileFate::Gone,
    }
}

/// Deletes the file of a place that is no longer served.
async fn delete(shared: &PeerShared, id: &ContentId, place: &Place) -> FileFate {
    let file = place.blob.file();
    if file.is_none() && shared.storage.path(&place.name).is_some() {
        // It was never in the storage, but in memory.
        return FileFate::Elsewhere;
    }
    place.blob.release();
    if !place.written_here {
        return found_fate(shared, place).await;
    }
    let removed = shared.storage.remove(&place.name, id, file.as_ref()).await;
    match removed {
        Ok(()) => FileFate::Deleted,
        // It is not where the storage would have it.
        Err(StorageError::NotFound { .. }) => match check_present(&*place.blob).await {
            Ok(()) => FileFate::Elsewhere,
            Err(_) => FileFate::Gone,
        },
        Err(error) => FileFate::Failed(error),
    }
}
