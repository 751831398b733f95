//! What is in the place of a folder that is about to be fetched: nothing, a part of it, all
//! of it, or something else, which stays.

use std::collections::HashSet;
use std::path::PathBuf;

use super::error::FolderError;
use super::here::read_index;
use super::move_blob::MoveBlob;
use super::share::{hash_folder, serve_file};
use crate::content::{ContentId, ContentName, FolderIndex, FolderItem};
use crate::peer::contents::hashing::manifest_of;
use crate::peer::shared::PeerShared;
use crate::storage::{
    FilePool, FolderHome, Folders, Occupied, PlacedFiles, Staged, TreeRoot, is_folder, is_taken,
    occupied,
};

/// The part of a folder that is in its place.
pub(super) struct Base {
    pub(super) name: ContentName,
    /// Whether files and links that differ are replaced.
    pub(super) overwrites: bool,
    /// What a download of another folder has put there, which this one takes over.
    pub(super) inherited: Staged,
    /// Its files, by their entries in the index of the whole folder.
    pub(super) placed: PlacedFiles,
}

/// The folder or a part of it, if that is under one of its names already. An error if
/// something else is under all of them, unless this `overwrites` and that is a directory.
pub(super) async fn existing(
    shared: &PeerShared,
    folders: &Folders,
    home: &FolderHome,
    names: &[ContentName],
    whole: &FolderIndex,
    overwrites: bool,
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
            return Ok(Some(Base {
                name: name.clone(),
                overwrites,
                inherited: Staged::default(),
                placed: placed.owns_its_tree(),
            }));
        }
        if overwrites && is_folder(&root).await? {
            return Ok(Some(over(shared, name.clone(), root).await));
        }
        is_not_free = Some(taken(name.clone(), root.path(), id));
    }
    is_not_free.map_or(Ok(None), Err)
}

/// The place of a folder that replaces what differs there. What this peer has put there for
/// another folder is taken over as its own.
async fn over(shared: &PeerShared, name: ContentName, root: TreeRoot) -> Base {
    let (mut inherited, mut was_there) = (Staged::default(), true);
    for (id, there) in shared.folders.placed_at(&root.path()) {
        if let Ok(index) = read_index(shared, &id).await {
            inherited = inherited.and(&there.own(&index));
            was_there &= there.was_there();
        }
    }
    Base {
        name,
        overwrites: true,
        inherited,
        placed: PlacedFiles::none(root, was_there),
    }
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
    let overwrites = base.overwrites;
    let found = match occupied(&root, &pool, &absent, overwrites).await? {
        Occupied::By(path) => return Err(taken(base.name.clone(), path, id)),
        Occupied::Maybe(found) => found,
    };
    let staged = home.staged(files_of(&absent)).await?;
    let staged = staged.and(&base.inherited);
    let mut present = HashSet::new();
    for file in found {
        let entry = &absent.entries()[file.entry];
        let manifest = manifest_of(&*file.blob).await.ok();
        file.blob.release();
        let is_it = |id| manifest.as_ref().is_some_and(|m| m.id() == id);
        let file_id = match entry.item {
            FolderItem::File { id, .. } if is_it(id) => id,
            // It is replaced in the end.
            _ if overwrites => continue,
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
