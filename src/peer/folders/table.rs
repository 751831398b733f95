//! Which folders are here, and which files belong to them.
//!
//! A file may belong to several folders. It is served as long as one of them needs it,
//! or the user shares it by itself: then it has a place of its own among the contents.

use std::collections::{HashMap, HashSet};
#[cfg(feature = "file-storage")]
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::move_blob::MoveBlob;
use super::status::Folder;
use crate::content::{Content, ContentId};
use crate::storage::Blob;
#[cfg(feature = "file-storage")]
use crate::storage::PlacedFiles;

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
    /// Those that are to come, while it is fetched.
    expected: HashSet<ContentId>,
    /// Whether the user had the index as a content of its own before.
    index_alone: bool,
    /// Where its files lie, once they do.
    #[cfg(feature = "file-storage")]
    placed: Option<Arc<PlacedFiles>>,
}

impl Entry {
    /// A file of this many bytes is gone. Returns whether the folder was whole.
    fn lost(&mut self, length: u64) -> bool {
        if let Some(folder) = &mut self.folder {
            folder.files = folder.files.saturating_sub(1);
            folder.length = folder.length.saturating_sub(length);
        }
        std::mem::replace(&mut self.is_whole, false)
    }
}

impl Inner {
    fn remove(&mut self, id: &ContentId) -> Option<Unused> {
        let entry = self.folders.remove(id)?;
        let is_unused = |file: &ContentId| drop_use(&mut self.files, file, id);
        Some(Unused {
            files: entry.files.into_iter().filter(is_unused).collect(),
            index: !entry.index_alone,
        })
    }
}

/// A file, and who needs it.
struct FileUses {
    /// What is read when it is served.
    blob: Arc<MoveBlob>,
    /// Where it is in each folder.
    uses: Vec<(ContentId, Arc<dyn Blob>)>,
}

/// What a folder needed that is gone, and no other folder needs.
pub(in crate::peer) struct Unused {
    pub(super) files: Vec<ContentId>,
    /// Whether the index is not a content of its own.
    pub(super) index: bool,
}

/// A file that a folder has lost.
pub(in crate::peer) struct LostFile {
    pub(in crate::peer) folder: ContentId,
    /// Whether the folder had all of its files until then.
    pub(in crate::peer) was_whole: bool,
    /// The file as another folder has it, in another place. That is to be served.
    pub(in crate::peer) rest: Option<Arc<dyn Blob>>,
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
            expected: HashSet::new(),
            index_alone,
            #[cfg(feature = "file-storage")]
            placed: None,
        };
        inner.folders.insert(id, entry);
        true
    }

    /// A folder is here, or more of it.
    #[cfg(feature = "file-storage")]
    pub(super) fn complete(&self, folder: Folder, is_whole: bool, placed: PlacedFiles) {
        if let Some(entry) = self.inner().folders.get_mut(&folder.id) {
            entry.folder = Some(folder);
            entry.is_whole = is_whole;
            entry.expected = HashSet::new();
            entry.placed = Some(Arc::new(placed));
        }
    }

    /// Where the files of a folder that is here lie.
    #[cfg(feature = "file-storage")]
    pub(in crate::peer) fn placed(&self, id: &ContentId) -> Option<Arc<PlacedFiles>> {
        self.inner().folders.get(id)?.placed.clone()
    }

    /// The folders that lie there.
    #[cfg(feature = "file-storage")]
    pub(super) fn placed_at(&self, path: &Path) -> Vec<(ContentId, Arc<PlacedFiles>)> {
        let inner = self.inner();
        let placed = inner.folders.iter();
        let placed =
            placed.filter_map(|(id, entry)| Some((*id, Arc::clone(entry.placed.as_ref()?))));
        let there = placed.filter(|(_, placed)| placed.root().path() == path);
        there.collect()
    }

    /// Whether this is only the index of a folder that is not here yet.
    pub(in crate::peer) fn is_coming(&self, id: &ContentId) -> bool {
        let inner = self.inner();
        let entry = inner.folders.get(id);
        entry.is_some_and(|entry| entry.folder.is_none() && !entry.index_alone)
    }

    /// The files that a folder has and no other folder needs, to be served or not.
    #[cfg(feature = "file-storage")]
    pub(super) fn own_files(&self, id: &ContentId) -> Vec<(ContentId, Arc<dyn Blob>)> {
        let inner = self.inner();
        let files = inner.folders.get(id).map(|entry| &entry.files);
        let files = files.into_iter().flatten().filter_map(|file_id| {
            let file = inner.files.get(file_id)?;
            let is_own = file.uses.iter().all(|(user, _)| user == id);
            is_own.then(|| (*file_id, Arc::clone(&file.blob) as Arc<dyn Blob>))
        });
        files.collect()
    }

    /// The ids of all files that a folder has.
    #[cfg(feature = "file-storage")]
    pub(in crate::peer) fn files(&self, id: &ContentId) -> Vec<ContentId> {
        let inner = self.inner();
        let files = inner.folders.get(id).map(|entry| entry.files.clone());
        files.unwrap_or_default()
    }

    /// Takes files away that a folder has got since it had only these. Returns those that
    /// no other folder needs.
    #[cfg(feature = "file-storage")]
    pub(super) fn keep_only(&self, id: &ContentId, kept: &HashSet<ContentId>) -> Vec<ContentId> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(entry) = inner.folders.get_mut(id) else {
            return Vec::new();
        };
        entry.expected = HashSet::new();
        let gone = entry.files.extract_if(.., |file| !kept.contains(file));
        let gone: Vec<ContentId> = gone.collect();
        gone.into_iter()
            .filter(|file| drop_use(&mut inner.files, file, id))
            .collect()
    }

    /// A folder is about to get these files.
    pub(super) fn expect(&self, folder: &ContentId, files: impl Iterator<Item = ContentId>) {
        if let Some(entry) = self.inner().folders.get_mut(folder) {
            entry.expected = files.collect();
        }
    }

    /// The folders that have a file, or are about to get it. Where no folder has it, all
    /// folders are looked at.
    pub(in crate::peer) fn of_file(&self, id: &ContentId) -> Vec<ContentId> {
        let inner = self.inner();
        if let Some(file) = inner.files.get(id) {
            return file.uses.iter().map(|(folder, _)| *folder).collect();
        }
        let expecting = inner.folders.iter();
        let expecting = expecting.filter(|(_, entry)| entry.expected.contains(id));
        expecting.map(|(folder, _)| *folder).collect()
    }

    /// Whether this was found to be a folder, of which files are about to come.
    pub(in crate::peer) fn is_expected(&self, id: &ContentId) -> bool {
        let inner = self.inner();
        let entry = inner.folders.get(id);
        entry.is_some_and(|entry| !entry.expected.is_empty() || !entry.files.is_empty())
    }

    /// The folder, if it is here; and whether all of its files are.
    pub(in crate::peer) fn get(&self, id: &ContentId) -> Option<(Folder, bool)> {
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

    /// Adds a file to a folder. `blob` is what is served if no other folder needed it
    /// before. Returns `false` if the folder is not here any more.
    pub(super) fn add_file(&self, folder: ContentId, id: ContentId, blob: Arc<MoveBlob>) -> bool {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(entry) = inner.folders.get_mut(&folder) else {
            return false;
        };
        let here = blob.now();
        let file = inner.files.entry(id).or_insert_with(|| FileUses {
            blob,
            uses: Vec::new(),
        });
        if file.uses.iter().all(|(user, _)| *user != folder) {
            file.uses.push((folder, here));
            entry.files.push(id);
        }
        true
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

    /// The bytes of a file are gone where it is served from. `None` if no folder has it.
    pub(in crate::peer) fn lose_file(&self, file: &Content) -> Option<LostFile> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let uses = inner.files.get_mut(&file.id)?;
        let (folder, _) = uses.uses.remove(0);
        let rest = uses.uses.first().map(|(_, blob)| {
            uses.blob.move_to(Arc::clone(blob));
            Arc::clone(&uses.blob) as Arc<dyn Blob>
        });
        if rest.is_none() {
            inner.files.remove(&file.id);
        }
        let entry = inner.folders.get_mut(&folder);
        let was_whole = entry.is_some_and(|entry| {
            entry.files.retain(|id| *id != file.id);
            entry.lost(file.length)
        });
        Some(LostFile {
            folder,
            was_whole,
            rest,
        })
    }

    /// Whether a folder has this file.
    pub(super) fn has_file(&self, id: &ContentId) -> bool {
        self.inner().files.contains_key(id)
    }

    /// The bytes of a file of a folder.
    pub(in crate::peer) fn blob(&self, id: &ContentId) -> Option<Arc<dyn Blob>> {
        let inner = self.inner();
        let file = inner.files.get(id)?;
        Some(file.blob.clone())
    }

    /// Removes a folder that lies there. `None` if it does not, by now.
    #[cfg(feature = "file-storage")]
    pub(super) fn remove_placed(
        &self,
        id: &ContentId,
        placed: &Arc<PlacedFiles>,
    ) -> Option<Unused> {
        let mut inner = self.inner();
        let here = inner.folders.get(id)?.placed.as_ref();
        here.filter(|here| Arc::ptr_eq(here, placed))?;
        inner.remove(id)
    }

    /// Removes a folder. `None` if there is none.
    pub(super) fn remove(&self, id: &ContentId) -> Option<Unused> {
        self.inner().remove(id)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder does not need a file any more. Returns whether no other does.
fn drop_use(
    files: &mut HashMap<ContentId, FileUses>,
    file_id: &ContentId,
    folder: &ContentId,
) -> bool {
    let Some(file) = files.get_mut(file_id) else {
        return false;
    };
    file.uses.retain(|(user, _)| user != folder);
    if let Some((_, blob)) = file.uses.first() {
        file.blob.move_to(Arc::clone(blob));
        return false;
    }
    files.remove(file_id);
    true
}
