//! The files of a folder that are to be fetched, and those that are here by now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::super::error::FolderError;
use super::super::file_log::{FileLog, LoggedFile};
use super::super::obtain::{Obtain, Obtained};
use super::super::status::FolderProgress;
use crate::content::{
    Content, ContentId, ContentName, FolderEntry, FolderIndex, FolderIndexError, FolderItem,
    MAX_INDEX_LEN,
};
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::hashing::off_thread;
use crate::peer::contents::role::Role;
use crate::peer::shared::PeerShared;
use crate::storage::{Blob, StorageError};

/// A file that is wanted: where it is first in the folder.
pub(super) struct Wanted {
    pub(super) id: ContentId,
    pub(super) length: u64,
    pub(super) entry: FolderEntry,
}

/// The files that are done.
pub(super) struct Done {
    pub(super) progress: FolderProgress,
    pub(super) blobs: HashMap<ContentId, Arc<dyn Blob>>,
    /// Those that did not have to be fetched.
    found: HashSet<ContentId>,
    /// Where each file that is missing is to be: the numbers of its entries in the folder.
    places: HashMap<ContentId, Vec<usize>>,
    log: FileLog,
}

impl Done {
    /// Nothing so far, but what is in the log.
    pub(super) fn new(log: FileLog) -> Self {
        Self {
            progress: FolderProgress::default(),
            blobs: HashMap::new(),
            found: HashSet::new(),
            places: HashMap::new(),
            log,
        }
    }

    /// This is wanted of the whole folder, and that of it is not in its place.
    pub(super) fn want(
        &mut self,
        whole: &FolderIndex,
        (part, missing): (&FolderIndex, &FolderIndex),
    ) {
        let ((files, length), (missing_files, missing_length)) = (part.size(), missing.size());
        self.places = places(whole, missing);
        let lacking: HashSet<usize> = self.places.values().flatten().copied().collect();
        for entry in places(whole, part).into_values().flatten() {
            if !lacking.contains(&entry) {
                let found = true;
                self.log.add(LoggedFile { entry, found });
            }
        }
        self.progress = FolderProgress {
            files,
            length,
            files_done: files - missing_files,
            files_found: files - missing_files,
            verified_bytes: length - missing_length,
        };
        for (id, blob) in &self.blobs {
            let found = self.found.contains(id);
            let times = self.note(id, found);
            self.progress.files_done += times;
            self.progress.verified_bytes += blob.length() * times as u64;
            self.progress.files_found += if found { times } else { 0 };
        }
    }

    /// A file is here.
    pub(super) fn got(&mut self, file: &Wanted, got: &Obtained) {
        let times = self.note(&file.id, got.found.is_some());
        self.progress.files_done += times;
        self.progress.verified_bytes += file.length * times as u64;
        if got.found.is_some() {
            self.found.insert(file.id);
            self.progress.files_found += times;
        }
        self.blobs.insert(file.id, got.blob.now());
    }

    /// A file that was missing is here. Returns how often it occurs.
    fn note(&self, id: &ContentId, found: bool) -> usize {
        let places = self.places.get(id).map_or(&[][..], Vec::as_slice);
        for &entry in places {
            self.log.add(LoggedFile { entry, found });
        }
        places.len()
    }
}

/// Gets the index, and reads it.
pub(super) async fn index(
    obtain: &Obtain,
    listed_as: &ContentName,
    length: u64,
) -> Result<(FolderIndex, Bytes), FolderError> {
    let id = obtain.source.index();
    let known = Some(length).filter(|length| *length > 0);
    let Obtained { blob, found } = obtain.get((id, Role::Index), listed_as, known).await?;
    if found.is_some() {
        let content = Content::new(id, listed_as.clone(), blob.length());
        let asleep = Asleep::of_folder(content, Role::Index, blob.clone(), found);
        obtain.shared.contents.add_stored(asleep);
    }
    let len = blob.length();
    if len > MAX_INDEX_LEN {
        return Err(FolderIndexError::TooLong { len }.into());
    }
    let bytes = blob.read_at(0, len as usize).await?;
    let read = bytes.clone();
    let read = off_thread(move || (ContentId::of(&read) == id, FolderIndex::decode(&read)));
    match read.await {
        (true, index) => Ok((index?, bytes)),
        (false, _) => {
            let path = blob.file().map(|file| file.path().to_path_buf());
            let path = path.unwrap_or_else(|| id.to_string().into());
            Err(StorageError::Changed { path }.into())
        }
    }
}

/// Gets one file.
pub(super) async fn get(obtain: &Obtain, file: Wanted) -> (Wanted, Result<Obtained, FolderError>) {
    let id = (file.id, Role::File);
    let got = obtain.get(id, &file.id.into(), Some(file.length)).await;
    (file, got)
}

/// The files to get, each once. Not in the order of the index: peers that fetch a
/// folder at the same time begin with different files, and have something for each
/// other.
pub(super) fn wanted(shared: &PeerShared, part: &FolderIndex) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    let files = part.entries().iter().filter_map(|entry| match entry.item {
        FolderItem::File { id, length, .. } => seen.insert(id).then(|| Wanted {
            id,
            length,
            entry: entry.clone(),
        }),
        _ => None,
    });
    let mut wanted: Vec<Wanted> = files.collect();
    let seed = shared.swarm_config().planner.seed;
    fastrand::Rng::with_seed(seed).shuffle(&mut wanted);
    wanted
}

/// Where each file of a part is in the whole folder: the numbers of its entries.
fn places(whole: &FolderIndex, part: &FolderIndex) -> HashMap<ContentId, Vec<usize>> {
    let mut places: HashMap<_, Vec<usize>> = HashMap::new();
    let all = whole.entries();
    for entry in part.entries() {
        if let FolderItem::File { id, .. } = entry.item
            && let Ok(number) = all.binary_search_by(|other| other.path.cmp(&entry.path))
        {
            places.entry(id).or_default().push(number);
        }
    }
    places
}

/// Fails at once if what is not here yet does not fit.
pub(super) async fn check_room(obtain: &Obtain, part: &FolderIndex) -> Result<(), FolderError> {
    let occupied = obtain.home.occupied().await?;
    let is_here = |id: &ContentId| obtain.home.had(id) || obtain.shared.folders.has_file(id);
    let needed = room_for(part, &occupied, is_here);
    match obtain.home.available().await {
        Some(available) if available < needed => {
            let what = format!("the folder {}", obtain.source.index());
            Err(StorageError::full(what, needed, Some(available)).into())
        }
        _ => Ok(()),
    }
}

/// How many bytes the files need beyond those that they occupy already. A file that is here
/// may take no space for a second time, and one that occurs twice does.
fn room_for(
    part: &FolderIndex,
    occupied: &HashMap<ContentId, u64>,
    is_here: impl Fn(&ContentId) -> bool,
) -> u64 {
    let mut seen = HashSet::new();
    let needed = part.entries().iter().map(|entry| match entry.item {
        FolderItem::File { id, length, .. } => match seen.insert(id) {
            true if is_here(&id) => 0,
            true => length.saturating_sub(occupied.get(&id).copied().unwrap_or(0)),
            false => length,
        },
        _ => 0,
    });
    needed.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_occupies_already_is_not_needed_again() {
        let id = |name: &str| ContentId::of(name.as_bytes());
        let files = [("a", "half"), ("b", "here"), ("c", "new"), ("d", "half")];
        let entry =
            |(path, name): (&str, &str)| FolderEntry::file(path.parse().unwrap(), id(name), 1000);
        let part = FolderIndex::new(files.map(entry).into()).unwrap();
        let occupied = HashMap::from([(id("half"), 600), (id("more"), 50)]);
        let needed = room_for(&part, &occupied, |file| *file == id("here"));
        // The rest of the first, nothing, the third, and a copy of the first.
        assert_eq!(needed, 400 + 1000 + 1000);
        let occupied = HashMap::from([(id("half"), 4096)]);
        assert_eq!(room_for(&part, &occupied, |_| false), 3000);
    }
}
