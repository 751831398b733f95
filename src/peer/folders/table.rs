//! Which folders are here, and which files belong to them.
//!
//! A file may belong to several folders, and the user may share it by itself as
//! well. It is served as long as one of them needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::move_blob::MoveBlob;
use super::status::Folder;
use crate::content::{Content, ContentId};
use crate::storage::Blob;

/// The folders of one peer.
#[derive(Default)]
pub(in crate::peer) struct FolderTable(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    folders: HashMap<ContentId, Entry>,
    files: HashMap<ContentId, FileUses>,
}

struct Entry {
    /// `None` while it is fetched, or made.
    folder: Option<Folder>,
    /// Whether all of its files are here.
    is_whole: bool,
    files: Vec<ContentId>,
    /// Whether the user had the index as a content of its own before.
    index_alone: bool,
}

/// A file, and who needs it.
struct FileUses {
    /// What is read when it is served.
    blob: Arc<MoveBlob>,
    /// Where it is in each folder.
    uses: Vec<(ContentId, Arc<dyn Blob>)>,
    alone: Alone,
}

/// Whether the user shares a file of a folder by itself.
enum Alone {
    No,
    /// It was here before the folder, and is like any content.
    Before,
    /// It was shared after the folder, under this name.
    Since(Content),
}

/// What became of a file when a folder went.
pub(in crate::peer) enum Left {
    /// Nobody needs it.
    Unused(ContentId),
    /// It is still served.
    Used,
}

impl FolderTable {
    /// A folder is about to be here. Returns `false` if it is already. `index_alone`
    /// says that its index is here as a content of its own.
    pub(super) fn begin(&self, id: ContentId, index_alone: bool) -> bool {
        let mut inner = self.inner();
        if inner.folders.contains_key(&id) {
            return false;
        }
        let entry = Entry {
            folder: None,
            is_whole: false,
            files: Vec::new(),
            index_alone,
        };
        inner.folders.insert(id, entry);
        true
    }

    /// A folder is here.
    pub(super) fn complete(&self, folder: Folder, is_whole: bool) {
        if let Some(entry) = self.inner().folders.get_mut(&folder.id) {
            entry.folder = Some(folder);
            entry.is_whole = is_whole;
        }
    }

    /// The folder, if it is here; and whether all of its files are.
    pub(super) fn get(&self, id: &ContentId) -> Option<(Folder, bool)> {
        let inner = self.inner();
        let entry = inner.folders.get(id)?;
        Some((entry.folder.clone()?, entry.is_whole))
    }

    /// The folders that are here, sorted by id.
    pub(in crate::peer) fn all(&self) -> Vec<Folder> {
        let inner = self.inner();
        let folders = inner.folders.values();
        let mut all: Vec<Folder> = folders.filter_map(|entry| entry.folder.clone()).collect();
        all.sort_by_key(|folder| folder.id);
        all
    }

    /// Whether this is the index of a folder of which all files are here.
    pub(in crate::peer) fn is_whole(&self, id: &ContentId) -> bool {
        self.inner()
            .folders
            .get(id)
            .is_some_and(|entry| entry.is_whole)
    }

    /// Adds a file to a folder. `blob` is what is served if nobody else needed it
    /// before, and `alone` says that the user shares it already.
    pub(super) fn add_file(
        &self,
        folder: ContentId,
        id: ContentId,
        blob: Arc<MoveBlob>,
        alone: bool,
    ) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(entry) = inner.folders.get_mut(&folder) else {
            return;
        };
        let here = blob.now();
        let file = inner.files.entry(id).or_insert_with(|| FileUses {
            blob,
            uses: Vec::new(),
            alone: match alone {
                true => Alone::Before,
                false => Alone::No,
            },
        });
        if file.uses.iter().all(|(user, _)| *user != folder) {
            file.uses.push((folder, here));
            entry.files.push(id);
        }
    }

    /// The files of a folder have come to their place.
    pub(super) fn moved(
        &self,
        folder: &ContentId,
        places: impl Iterator<Item = (ContentId, Arc<dyn Blob>)>,
    ) {
        let mut inner = self.inner();
        for (id, place) in places {
            let Some(file) = inner.files.get_mut(&id) else {
                continue;
            };
            let is_first = file.uses.first().is_some_and(|(user, _)| user == folder);
            if let Some((_, at)) = file.uses.iter_mut().find(|(user, _)| user == folder) {
                *at = Arc::clone(&place);
            }
            if is_first {
                file.blob.move_to(place);
            }
        }
    }

    /// Whether a folder has this file.
    pub(super) fn has_file(&self, id: &ContentId) -> bool {
        self.inner().files.contains_key(id)
    }

    /// The bytes of a file of a folder.
    pub(super) fn blob(&self, id: &ContentId) -> Option<Arc<MoveBlob>> {
        self.inner()
            .files
            .get(id)
            .map(|file| Arc::clone(&file.blob))
    }

    /// Whether this file is here only because a folder has it.
    pub(in crate::peer) fn is_unlisted(&self, id: &ContentId) -> bool {
        let inner = self.inner();
        inner
            .files
            .get(id)
            .is_some_and(|file| matches!(file.alone, Alone::No))
    }

    /// The user shares a file of a folder by itself as well. Returns `false` if that
    /// is known, or no folder has the file.
    pub(in crate::peer) fn shared_alone(&self, content: &Content) -> bool {
        let mut inner = self.inner();
        match inner.files.get_mut(&content.id) {
            Some(file) if matches!(file.alone, Alone::No) => {
                file.alone = Alone::Since(content.clone());
                true
            }
            _ => false,
        }
    }

    /// The user no longer shares a file by itself that a folder has. Returns how it
    /// was shared, if that was after the folder.
    pub(in crate::peer) fn unshared_alone(&self, id: &ContentId) -> Option<Content> {
        let mut inner = self.inner();
        let file = inner.files.get_mut(id)?;
        match std::mem::replace(&mut file.alone, Alone::No) {
            Alone::Since(content) => Some(content),
            Alone::No | Alone::Before => None,
        }
    }

    /// Removes a folder. `None` if there is none. Returns what became of each file and,
    /// at last, of the index.
    pub(super) fn remove(&self, id: &ContentId) -> Option<(Vec<Left>, Left)> {
        let mut inner = self.inner();
        let entry = inner.folders.remove(id)?;
        let left = entry.files.into_iter().map(|file_id| {
            let Some(file) = inner.files.get_mut(&file_id) else {
                return Left::Used;
            };
            file.uses.retain(|(user, _)| user != id);
            match (file.uses.first(), &file.alone) {
                (Some((_, blob)), _) => {
                    file.blob.move_to(Arc::clone(blob));
                    Left::Used
                }
                (None, Alone::Since(_)) => Left::Used,
                (None, alone) => {
                    let is_alone = matches!(alone, Alone::Before);
                    inner.files.remove(&file_id);
                    match is_alone {
                        true => Left::Used,
                        false => Left::Unused(file_id),
                    }
                }
            }
        });
        let index = match entry.index_alone {
            true => Left::Used,
            false => Left::Unused(*id),
        };
        Some((left.collect(), index))
    }

    /// A file that was shared by itself after a folder, which is gone, goes as well.
    pub(super) fn forget_unused(&self, id: &ContentId) -> bool {
        let mut inner = self.inner();
        let unused = inner.files.get(id).is_some_and(|file| file.uses.is_empty());
        if unused {
            inner.files.remove(id);
        }
        unused
    }

    /// Ignores poison: no change under this lock is left half done.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
