//! What is in the place of a folder that is about to be fetched: nothing, a part of it, all
//! of it, or something else, which stays.

use std::collections::HashSet;
use std::path::PathBuf;

use super::error::FolderError;
use super::move_blob::MoveBlob;
use super::share::{hash_folder, serve_file};
use crate::content::{ContentId, ContentName, FolderIndex, FolderItem};
use crate::peer::contents::hashing::manifest_of;
use crate::peer::shared::PeerShared;
use crate::storage::{FilePool, FolderHome, Folders, Occupied, PlacedFiles, is_taken, occupied};

/// The part of a folder that is in its place.
pub(super) struct Base {
    pub(super) name: ContentName,
    /// Its files, by their entries in the index of the whole folder.
    pub(super) placed: PlacedFiles,
}

/// The folder or a part of it, if that is under one of its names already. An error if
/// something else is under all of them.
pub(super) async fn existing(
    shared: &PeerShared,
    folders: &Folders,
    home: &FolderHome,
    names: &[ContentName],
    whole: &FolderIndex,
) -> Result<Option<Base>, FolderError> {
    let id = whole.id();
    let mut is_not_free = None;
    for name in names {
        let root = folders.root(name);
        if !is_taken(&root).await? {
            return Ok(None);
        }
        let hashed = hash_folder(&root, folders.pool()).await.ok();
        if let Some((hashed, numbers)) =
            hashed.and_then(|hashed| hashed.numbers_in(whole).map(|numbers| (hashed, numbers)))
        {
            let staged = home.staged(files_of(&hashed.index)).await?;
            let mut placed = PlacedFiles::none(root, true);
            for (number, (entry, blob)) in numbers.into_iter().zip(hashed.into_files()) {
                if let FolderItem::File { id, .. } = entry.item {
                    placed.add((number, id), &*blob, &staged);
                }
                serve_file(shared, id, MoveBlob::new(blob), entry, None);
            }
            let (name, placed) = (name.clone(), placed.owns_its_tree());
            return Ok(Some(Base { name, placed }));
        }
        is_not_free = Some(taken(name.clone(), root.path(), id));
    }
    is_not_free.map_or(Ok(None), Err)
}

/// What of a part of the folder is not in its place. Files that are there although
/// nobody has recorded that are taken as what they are.
///
/// # Errors
/// [`FolderError::TargetExists`] if something else is where they have to be.
pub(super) async fn missing(
    shared: &PeerShared,
    home: &FolderHome,
    whole: &FolderIndex,
    part: &FolderIndex,
    base: &mut Option<Base>,
) -> Result<FolderIndex, FolderError> {
    let Some(base) = base else {
        return Ok(part.clone());
    };
    let id = whole.id();
    let number = |entry: u32| {
        let path = &part.entries()[entry as usize].path;
        let at = whole.entries().partition_point(|entry| entry.path < *path);
        at as u32
    };
    let here = base.placed.entries();
    let absent = part.only(|entry| !here.contains(&number(entry)));
    let root = base.placed.root().clone();
    let pool = FilePool::shared();
    let found = match occupied(&root, &pool, &absent).await? {
        Occupied::By(path) => return Err(taken(base.name.clone(), path, id)),
        Occupied::Maybe(found) => found,
    };
    let staged = home.staged(files_of(&absent)).await?;
    let mut present = HashSet::new();
    for file in found {
        let entry = &absent.entries()[file.entry];
        let manifest = manifest_of(&*file.blob).await.ok();
        file.blob.release();
        let is_it = |id| manifest.as_ref().is_some_and(|m| m.id() == id);
        let file_id = match entry.item {
            FolderItem::File { id, .. } if is_it(id) => id,
            _ => {
                let path = root.path().join(entry.path.as_str());
                return Err(taken(base.name.clone(), path, id));
            }
        };
        let at = whole.entries().partition_point(|e| e.path < entry.path);
        base.placed.add((at as u32, file_id), &*file.blob, &staged);
        serve_file(shared, id, MoveBlob::new(file.blob), entry.clone(), None);
        present.insert(file.entry as u32);
    }
    Ok(absent.only(|entry| !present.contains(&entry)))
}

/// The contents of the files of a folder.
fn files_of(index: &FolderIndex) -> impl Iterator<Item = ContentId> {
    index.entries().iter().filter_map(|entry| match entry.item {
        FolderItem::File { id, .. } => Some(id),
        _ => None,
    })
}

/// Something else has the place of a folder, or of something in it.
pub(super) fn taken(name: ContentName, path: PathBuf, id: ContentId) -> FolderError {
    FolderError::TargetExists { name, path, id }
}
