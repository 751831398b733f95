//! What is in the place of a folder: which of its files are still there, what else has
//! their paths, and how they are removed. Follows no link, and touches nothing that is not
//! of the folder.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::blocking::run;
use super::super::dir::Dir;
use super::super::disk::{Disk, EntryKind, Looked, Refused};
use super::super::failure::{failed, refused};
use super::super::pool::FilePool;
use super::super::stamp::Stamp;
use super::placed_file::{PlacedFile, Staged};
use super::record::file_at;
use super::tree_blob::tree_blob;
use super::tree_root::{TreeRoot, is_in_use};
use crate::content::{ContentId, FolderEntry, FolderIndex, FolderItem, FolderPath};
use crate::storage::{Blob, StorageError};

/// The files of a folder that is in its final place, with the entries of the index
/// that they are.
#[derive(Clone)]
pub(crate) struct PlacedFiles {
    pub(super) root: TreeRoot,
    /// In the order of the index.
    pub(super) files: Vec<PlacedFile>,
    /// Whether the tree was there already, so that its links and folders are not ours.
    pub(super) was_there: bool,
}

/// What became of the files of a folder that were to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// Those that a download has put there are deleted.
    Deleted,
    /// Nothing is where the folder was.
    Gone,
    /// All of them were there before, and stay.
    Kept,
}

/// What has the paths of files that are to come to the place of a folder.
pub(crate) enum Occupied {
    /// Something that is not of the folder, here.
    By(PathBuf),
    /// Nothing else than these files, which may be those of the folder: they have the
    /// right lengths.
    Maybe(Vec<FoundFile>),
}

/// A file that may be one of a folder.
pub(crate) struct FoundFile {
    /// Which one of those that were looked for.
    pub(crate) entry: usize,
    pub(crate) blob: Arc<dyn Blob>,
}

impl PlacedFiles {
    /// The files of a folder of the user, in the order of the index.
    pub(crate) fn of(root: TreeRoot, index: &FolderIndex, blobs: &[Arc<dyn Blob>]) -> Self {
        let stamps = blobs.iter().filter_map(|blob| Some(blob.file()?.stamp));
        let files = files_of(index).zip(stamps);
        let found = |(entry, stamp)| PlacedFile {
            entry,
            stamp,
            was_there: true,
        };
        Self {
            root,
            files: files.map(found).collect(),
            was_there: true,
        }
    }

    /// None of the files of a folder yet. `was_there` says whether the tree is somebody
    /// else's.
    pub(crate) fn none(root: TreeRoot, was_there: bool) -> Self {
        let files = Vec::new();
        Self {
            root,
            files,
            was_there,
        }
    }

    /// Files that were put into a tree just now, in the order of the index.
    pub(super) fn put(root: TreeRoot, index: &FolderIndex, stamps: Vec<Stamp>) -> Self {
        let files = files_of(index).zip(stamps);
        let put = |(entry, stamp)| PlacedFile {
            entry,
            stamp,
            was_there: false,
        };
        Self {
            root,
            files: files.map(put).collect(),
            was_there: false,
        }
    }

    /// Where the folder lies.
    pub(crate) fn root(&self) -> &TreeRoot {
        &self.root
    }

    /// Whether it is in the directory of a storage.
    pub(crate) fn is_stored(&self) -> bool {
        self.root.outside().is_none()
    }

    /// Whether the tree was there before a download came to it.
    pub(crate) fn was_there(&self) -> bool {
        self.was_there
    }

    /// The files that a download has put there, with their contents.
    pub(crate) fn own(&self, index: &FolderIndex) -> Staged {
        let own = self.files.iter().filter(|file| !file.was_there);
        let own = own.filter_map(|file| {
            let (_, id, _) = file_at(index, file.entry)?;
            Some((id, file.stamp))
        });
        Staged(own.collect())
    }

    /// The same files, found by their path from now on.
    pub(crate) fn by_path(mut self) -> Self {
        self.root = TreeRoot::at(&self.root.path());
        self
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Their entries.
    pub(crate) fn entries(&self) -> HashSet<u32> {
        self.files.iter().map(|file| file.entry).collect()
    }

    /// How many bytes they have together.
    pub(crate) fn length(&self) -> u64 {
        self.files.iter().map(|file| file.stamp.len).sum()
    }

    /// The files, to be read where they lie.
    pub(crate) fn blobs<'a>(
        &'a self,
        index: &'a FolderIndex,
        pool: &'a FilePool,
    ) -> impl Iterator<Item = (ContentId, Arc<dyn Blob>)> + 'a {
        self.files.iter().filter_map(|file| {
            let (path, id, _) = file_at(index, file.entry)?;
            Some((id, tree_blob(&self.root, path, file.stamp, pool)))
        })
    }

    /// The same files by their numbers in the index of the whole folder, of which
    /// `part` is a selection.
    pub(crate) fn within(mut self, part: &FolderIndex, whole: &FolderIndex) -> Self {
        for file in &mut self.files {
            let path = &part.entries()[file.entry as usize].path;
            let at = whole.entries().partition_point(|entry| entry.path < *path);
            file.entry = at as u32;
        }
        self
    }

    /// These and others of the same folder, in the same place.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.files.extend(others.files);
        self.files.sort_by_key(|file| file.entry);
        self.files.dedup_by_key(|file| file.entry);
        self
    }

    /// One more file, which was found where it has to be. It is somebody else's, unless it
    /// was `staged` for this folder.
    pub(crate) fn add(&mut self, (entry, id): (u32, ContentId), blob: &dyn Blob, staged: &Staged) {
        if let Some(file) = blob.file() {
            self.files.push(PlacedFile {
                entry,
                stamp: file.stamp,
                was_there: !staged.is_source_of(&id, file.stamp),
            });
            self.files.sort_by_key(|file| file.entry);
        }
    }

    /// A tree of which an earlier download has put something there is its own.
    pub(crate) fn owns_its_tree(mut self) -> Self {
        self.was_there = self.files.iter().all(|file| file.was_there);
        self
    }

    /// Those that are still there, and have not changed as far as can be told without
    /// reading them.
    ///
    /// Cancel safe. Must be called inside a tokio runtime.
    pub(crate) async fn present(&self, index: &FolderIndex) -> Result<Self, StorageError> {
        let (mut this, index) = (self.clone(), index.clone());
        run(move || {
            let root = this.root.clone();
            this.files.retain(|file| {
                let path = file_at(&index, file.entry).map(|(path, ..)| path);
                let looked = path.and_then(|path| root.look(path).ok().flatten());
                looked.is_some_and(|looked| file.stamp.is_of(&looked.stat))
            });
            Ok(this)
        })
        .await
    }

    /// Whether the links and empty folders of the index are there, if a download has made
    /// the tree. Those of others are no concern of anybody here.
    ///
    /// Cancel safe. Must be called inside a tokio runtime.
    pub(crate) async fn has_the_rest(&self, index: &FolderIndex) -> Result<bool, StorageError> {
        if self.was_there {
            return Ok(true);
        }
        let (root, index) = (self.root.clone(), index.clone());
        run(move || {
            let is_there = |entry: &FolderEntry| {
                let kind = root
                    .look(&entry.path)
                    .ok()
                    .flatten()
                    .map(|looked| looked.kind);
                match &entry.item {
                    FolderItem::File { .. } => true,
                    FolderItem::Symlink { .. } => kind == Some(EntryKind::Link),
                    FolderItem::EmptyFolder => kind == Some(EntryKind::Directory),
                }
            };
            Ok(index.entries().iter().all(is_there))
        })
        .await
    }

    /// Deletes the files that a download has put there, durably, and, if it has made the
    /// tree, the links and folders of the index that are then of no use. What was there
    /// before, what has changed, and what is not of the folder, stays, with the folders that
    /// it lies in.
    ///
    /// Not cancel safe: once polled, it goes on.
    ///
    /// # Errors
    /// [`StorageError::Changed`] with the first file that has changed.
    pub(crate) async fn delete(&self, index: &FolderIndex) -> Result<Deletion, StorageError> {
        let (this, index) = (self.clone(), index.clone());
        run(move || this.delete_now(&index)).await
    }

    fn delete_now(&self, index: &FolderIndex) -> Result<Deletion, StorageError> {
        let shown = self.root.path();
        if !self.root.is_taken()? {
            return Ok(Deletion::Gone);
        }
        if self.was_there && self.files.iter().all(|file| file.was_there) {
            return Ok(Deletion::Kept);
        }
        let opened = self.root.open();
        let top = opened.map_err(|e| refused("opening", &shown, e))?;
        let files: HashMap<u32, &PlacedFile> =
            self.files.iter().map(|file| (file.entry, file)).collect();
        let mut changed = None;
        let mut folders = BTreeSet::new();
        for (number, entry) in (0..).zip(index.entries()) {
            let file = files.get(&number);
            let was_there = match entry.item {
                FolderItem::File { .. } => file.is_some_and(|file| file.was_there),
                _ => self.was_there,
            };
            if was_there {
                continue;
            }
            let stamp = file.map(|file| &file.stamp);
            let removed = remove_one(&top, entry, stamp);
            let path = || shown.join(entry.path.as_str());
            match removed.map_err(|e| refused("removing", &path(), e))? {
                true => {}
                false => _ = changed.get_or_insert_with(path),
            }
            let mut folder = match entry.item {
                FolderItem::EmptyFolder => Some(entry.path.clone()),
                _ => entry.path.parent(),
            };
            while let Some(path) = folder {
                folder = path.parent();
                folders.insert(path);
            }
        }
        if self.was_there {
            // Which of the folders in it were there is not known.
            folders.clear();
        }
        // What is within a folder comes behind it.
        for folder in folders.iter().rev() {
            remove_folder(&top, folder).map_err(|e| refused("removing", &shown, e))?;
        }
        drop(top);
        if !self.was_there {
            let removed = self.root.remove_empty();
            removed.map_err(|e| failed("removing", &shown, e))?;
        }
        match changed {
            None => Ok(Deletion::Deleted),
            Some(path) => Err(StorageError::Changed { path }),
        }
    }
}

/// Which entries of an index are files.
pub(super) fn files_of(index: &FolderIndex) -> impl Iterator<Item = u32> {
    let entries = (0..).zip(index.entries());
    entries.filter_map(|(number, entry)| match entry.item {
        FolderItem::File { .. } => Some(number),
        _ => None,
    })
}

/// Looks at the paths of entries that are to come to the place of a folder. If it
/// `overwrites`, files and links that have them are as good as nothing.
///
/// Cancel safe. Must be called inside a tokio runtime.
///
/// # Errors
/// [`StorageError::Io`] if the folder cannot be read.
pub(crate) async fn occupied(
    root: &TreeRoot,
    pool: &FilePool,
    entries: &FolderIndex,
    overwrites: bool,
) -> Result<Occupied, StorageError> {
    let (root, pool, entries) = (root.clone(), pool.clone(), entries.clone());
    run(move || {
        let mut found = Vec::new();
        for (number, entry) in entries.entries().iter().enumerate() {
            let path = root.path_of(&entry.path);
            let looked = match root.look(&entry.path) {
                Ok(looked) => looked,
                Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => None,
                Err(Refused::Kind(_)) => return Ok(Occupied::By(path)),
                Err(error) => return Err(refused("examining", &path, error)),
            };
            let Some(looked) = looked else { continue };
            match (&entry.item, looked.kind) {
                (
                    FolderItem::File {
                        length, executable, ..
                    },
                    EntryKind::File,
                ) if looked.stat.len == *length
                    && !(overwrites && cfg!(unix) && looked.executable != *executable) =>
                {
                    let stamp = Stamp::of(&looked.stat);
                    found.push(FoundFile {
                        entry: number,
                        blob: tree_blob(&root, &entry.path, stamp, &pool),
                    });
                }
                (FolderItem::EmptyFolder, EntryKind::Directory) => {}
                (FolderItem::Symlink { target }, EntryKind::Link)
                    if is_link(&root, &entry.path, target) => {}
                (
                    FolderItem::File { .. } | FolderItem::Symlink { .. },
                    EntryKind::File | EntryKind::SharedFile | EntryKind::Link,
                ) if overwrites => {}
                _ => return Ok(Occupied::By(path)),
            }
        }
        Ok(Occupied::Maybe(found))
    })
    .await
}

fn is_link(root: &TreeRoot, path: &FolderPath, target: &str) -> bool {
    let open = || -> Result<bool, Refused> {
        let Some(dir) = folder_of(&root.open()?, path)? else {
            return Ok(false);
        };
        Ok(dir.read_link(path.name().as_ref())? == target)
    };
    open().unwrap_or(false)
}

/// The folder that something lies in, if that is there.
fn folder_of(top: &Dir, path: &FolderPath) -> Result<Option<Dir>, Refused> {
    let mut at = top.again()?;
    if let Some(parent) = path.parent() {
        for folder in parent.elements() {
            at = match at.enter(folder.as_ref()) {
                Ok(inner) => inner,
                Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(Refused::Kind(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
    }
    Ok(Some(at))
}

/// Removes an entry of a folder, if it is here and is that entry. Returns `false` if
/// something else has its path; then that stays.
fn remove_one(top: &Dir, entry: &FolderEntry, stamp: Option<&Stamp>) -> Result<bool, Refused> {
    let name: &OsStr = entry.path.name().as_ref();
    let Some(dir) = folder_of(top, &entry.path)? else {
        return Ok(true);
    };
    let looked: Option<Looked> = dir.look(name)?;
    match (&entry.item, looked, stamp) {
        (FolderItem::File { .. }, Some(looked), Some(stamp)) => {
            let is_same = looked.kind == EntryKind::File && stamp.is_of(&looked.stat);
            if is_same {
                dir.remove_entry(name)?;
                dir.sync()?;
            }
            Ok(is_same)
        }
        (FolderItem::Symlink { target }, Some(looked), _) if looked.kind == EntryKind::Link => {
            if dir.read_link(name)? == **target {
                dir.remove_entry(name)?;
            }
            Ok(true)
        }
        // It is not here, or is a folder, or somebody else's.
        _ => Ok(true),
    }
}

/// Removes a folder, if nothing is in it.
fn remove_folder(top: &Dir, path: &FolderPath) -> Result<(), Refused> {
    let Some(dir) = folder_of(top, path)? else {
        return Ok(());
    };
    match dir.remove_dir(path.name().as_ref()) {
        Ok(()) => Ok(()),
        Err(e) if is_in_use(&e) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::super::dir::times;
    use super::super::super::disk::DiskFile;
    use super::*;

    #[test]
    fn removal_of_a_file_is_durable() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        std::fs::write(root.path().join("a/b"), "x").unwrap();
        let top = Dir::open(root.path()).unwrap();
        let stat = top.open_within("a/b").unwrap().stat().unwrap();
        let entry = FolderEntry::file("a/b".parse().unwrap(), ContentId::of(b"x"), 1);
        let removed = remove_one(&top, &entry, Some(&Stamp::of(&stat)));
        assert!(matches!(removed, Ok(true)));
        assert!(!root.path().join("a/b").exists());
        assert!(times(&root.path().join("a")).is_durable());
    }
}
