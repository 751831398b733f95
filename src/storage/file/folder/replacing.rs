//! Moves the tree of a folder over one that is in its place. Files and links that have the
//! same paths are replaced, each in one step; nothing else is touched. Everything here
//! blocks.

use std::collections::BTreeSet;
use std::io;

use super::super::dir::Dir;
use super::super::disk::{Disk, EntryKind, Refused};
use super::super::failure::{failed, refused};
use super::super::storage_dir::StorageDir;
use super::staging::TREE;
use super::tree_root::TreeRoot;
use crate::content::{FolderEntry, FolderIndex, FolderItem, FolderPath};
use crate::storage::StorageError;

/// Moves what was built in the home to its place. `index` is all that was built, and it is
/// durable.
///
/// # Errors
/// [`StorageError::NotAFile`] if something is in the way that is not replaced. Then nothing
/// has changed.
pub(super) fn replace_tree(
    home: &StorageDir<Dir>,
    root: &TreeRoot,
    index: &FolderIndex,
) -> Result<(), StorageError> {
    let built = home.disk.enter(TREE.as_ref());
    let built = built.map_err(|e| refused("opening", &home.path_of(TREE), e))?;
    let top = root.open();
    let top = top.map_err(|e| refused("opening", &root.path(), e))?;
    for entry in index.entries() {
        let path = root.path_of(&entry.path);
        match way_of(&top, entry) {
            Ok(None) => {}
            Ok(Some(kind)) => {
                let found = kind.describe();
                return Err(StorageError::NotAFile { path, found });
            }
            Err(error) => return Err(refused("examining", &path, error)),
        }
    }
    let mut changed = BTreeSet::new();
    for entry in index.entries() {
        let moved = put(&built, &top, entry, &mut changed);
        moved.map_err(|e| refused("replacing", &root.path_of(&entry.path), e))?;
    }
    for folder in changed.iter().rev() {
        let synced = enter_all(&top, Some(folder)).and_then(|dir| Ok(dir.sync()?));
        synced.map_err(|e| refused("syncing", &root.path_of(folder), e))?;
    }
    top.sync().map_err(|e| failed("syncing", &root.path(), e))
}

/// What is in the way of an entry, if that is not replaced.
fn way_of(top: &Dir, entry: &FolderEntry) -> Result<Option<EntryKind>, Refused> {
    let mut dir = top.again()?;
    for folder in parent(entry).iter().flat_map(FolderPath::elements) {
        match dir.look(folder.as_ref())?.map(|looked| looked.kind) {
            None => return Ok(None),
            Some(EntryKind::Directory) => dir = dir.enter(folder.as_ref())?,
            other => return Ok(other),
        }
    }
    let here = dir.look(entry.path.name().as_ref())?;
    Ok(match (&entry.item, here.map(|looked| looked.kind)) {
        (FolderItem::EmptyFolder, Some(EntryKind::Directory)) => None,
        (FolderItem::EmptyFolder, other) => other,
        (_, Some(EntryKind::File | EntryKind::SharedFile | EntryKind::Link)) => None,
        (_, other) => other,
    })
}

/// Moves one entry. Notes the folders of which a name has changed.
fn put(
    built: &Dir,
    top: &Dir,
    entry: &FolderEntry,
    changed: &mut BTreeSet<FolderPath>,
) -> Result<(), Refused> {
    let mut to = top.again()?;
    let folder = match entry.item {
        FolderItem::EmptyFolder => Some(entry.path.clone()),
        _ => parent(entry),
    };
    for name in folder.iter().flat_map(FolderPath::elements) {
        match to.make_dir(name) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
        to = to.enter(name.as_ref())?;
    }
    let mut above = folder.clone();
    while let Some(path) = above {
        above = path.parent();
        changed.insert(path);
    }
    if entry.item == FolderItem::EmptyFolder {
        return Ok(());
    }
    let name = entry.path.name();
    let from = enter_all(built, folder.as_ref())?;
    Ok(from.replace_in(name, &to, name)?)
}

fn parent(entry: &FolderEntry) -> Option<FolderPath> {
    entry.path.parent()
}

fn enter_all(top: &Dir, folder: Option<&FolderPath>) -> Result<Dir, Refused> {
    let mut dir = top.again()?;
    for name in folder.into_iter().flat_map(FolderPath::elements) {
        dir = dir.enter(name.as_ref())?;
    }
    Ok(dir)
}
