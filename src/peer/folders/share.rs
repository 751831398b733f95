//! Folders that are here: shared where they lie, and found again after a restart.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::oneshot;

use super::error::FolderError;
use super::here::intact;
use super::move_blob::MoveBlob;
use super::pause_record::open_when_free;
use super::release::{release_files, stop_serving, take};
use super::status::Folder;
use crate::content::{
    Content, ContentId, ContentName, FolderEntry, FolderIndex, FolderItem, Manifest, NameError,
};
use crate::error::ShareError;
use crate::peer::contents::asleep::{Asleep, REHASHED_LEN};
use crate::peer::contents::hashing::{HashError, manifest_of};
use crate::peer::contents::listing::Listing;
use crate::peer::contents::losses::LostThing;
use crate::peer::contents::role::Role;
use crate::peer::contents::serve::{tell_trackers, unshare};
use crate::peer::events::event::PeerEvent;
use crate::peer::shared::PeerShared;
use crate::protocol::{OwnEntry, OwnState};
use crate::storage::{
    Blob, FilePool, FolderHome, Lost, MemoryStorage, PlacedFiles, ScannedFile, ScannedFolder,
    Storage, StorageError, TreeRoot, remembered_folders, scan_folder,
};

/// How many files are read and hashed at a time: enough to keep a disk and some
/// cores busy.
const MAX_HASHING: usize = 8;

/// A folder that was read and hashed, where it lies.
pub(super) struct HashedFolder {
    pub(super) index: FolderIndex,
    /// The files, in the order of the index.
    files: Vec<HashedFile>,
}

struct HashedFile {
    entry: FolderEntry,
    blob: Arc<dyn Blob>,
    manifest: Manifest,
}

/// Lists and hashes a folder.
pub(super) async fn hash_folder(
    root: &TreeRoot,
    pool: &FilePool,
) -> Result<HashedFolder, FolderError> {
    let ScannedFolder { others, files } = scan_folder(root, pool).await?;
    let hashed = stream::iter(files).map(hash_file).buffered(MAX_HASHING);
    let mut files: Vec<HashedFile> = hashed.try_collect().await?;
    files.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let entries = files.iter().map(|file| file.entry.clone());
    let index = FolderIndex::new(entries.chain(others).collect())?;
    Ok(HashedFolder { index, files })
}

impl HashedFolder {
    /// Which entries of this folder its files are; nothing if something in it is not of the
    /// folder, or nothing at all is in it: an empty directory may be anybody's. Who may run a
    /// file is not known on every system.
    pub(super) fn numbers_in(&self, whole: &FolderIndex) -> Option<Vec<u32>> {
        let same = |a: &FolderEntry, b: &FolderEntry| match (&a.item, &b.item) {
            (FolderItem::File { id: a_id, .. }, FolderItem::File { id: b_id, .. })
                if cfg!(not(unix)) =>
            {
                a_id == b_id
            }
            (a, b) => a == b,
        };
        let entries = whole.entries();
        let mut numbers = Vec::with_capacity(self.files.len());
        for here in self.index.entries() {
            let at = entries.partition_point(|entry| entry.path < here.path);
            let there = entries.get(at)?;
            let is_empty = here.item == FolderItem::EmptyFolder;
            match there.path == here.path && same(here, there) {
                true if matches!(here.item, FolderItem::File { .. }) => numbers.push(at as u32),
                true => {}
                // What lies in it is missing.
                false if is_empty && there.path.is_within(&here.path) => {}
                false => return None,
            }
        }
        let is_all = self.index.entries().len() == entries.len();
        (is_all || !self.index.entries().is_empty()).then_some(numbers)
    }

    /// The bytes of its files, in the order of the index.
    pub(super) fn blobs(&self) -> Vec<Arc<dyn Blob>> {
        let blobs = self.files.iter();
        blobs.map(|file| Arc::clone(&file.blob)).collect()
    }

    pub(super) fn into_files(self) -> impl Iterator<Item = (FolderEntry, Arc<dyn Blob>)> {
        self.files.into_iter().map(|file| (file.entry, file.blob))
    }
}

async fn hash_file(file: ScannedFile) -> Result<HashedFile, FolderError> {
    let ScannedFile {
        path,
        executable,
        blob,
    } = file;
    let manifest = match manifest_of(&*blob).await {
        Ok(manifest) => manifest,
        Err(HashError::Storage(error)) => return Err(error.into()),
        // It is longer than a content can be, or changed while it was read.
        Err(HashError::Manifest(_)) => {
            let file = blob.file().map(|file| file.path().to_path_buf());
            let path = file.unwrap_or_else(|| path.as_str().into());
            return Err(StorageError::Changed { path }.into());
        }
    };
    blob.release();
    let (id, length) = (manifest.id(), blob.length());
    let entry = match executable {
        true => FolderEntry::executable(path, id, length),
        false => FolderEntry::file(path, id, length),
    };
    Ok(HashedFile {
        entry,
        blob,
        manifest,
    })
}

/// Shares a folder where it lies. Nothing is recorded before the trackers know of it, and
/// then all of it, even if the future is dropped or the peer stops meanwhile.
pub(in crate::peer) async fn share_folder(
    shared: &Arc<PeerShared>,
    path: &Path,
    name: Option<ContentName>,
) -> Result<Folder, FolderError> {
    share_folder_if(shared, path, name, None).await
}

/// The same, if it is this folder.
///
/// # Errors
/// Also [`StorageError::Mismatch`] if it is another one.
pub(in crate::peer) async fn share_folder_if(
    shared: &Arc<PeerShared>,
    path: &Path,
    name: Option<ContentName>,
    expected: Option<ContentId>,
) -> Result<Folder, FolderError> {
    let stopped = || FolderError::from(ShareError::ShutDown);
    let announced = announce(shared, path, name, expected);
    let sharing = match shared.tasks.until_stopped(announced, stopped()).await? {
        Announced::Already(folder) => return Ok(folder),
        Announced::New(sharing) => sharing,
    };
    let (done, heard) = oneshot::channel();
    // A step of the disk goes on when its future is dropped, so this has a task of its own,
    // which sees it through or takes it back.
    shared.tasks.spawn(shared.tasks.span.clone(), async move {
        let outcome = sharing.record().await;
        // Nobody may hear of it.
        let _ = done.send(outcome);
    });
    // It ends with an error if the task was ended at once.
    match heard.await {
        Ok(Err(_)) if shared.tasks.stop.is_cancelled() => Err(stopped()),
        Ok(outcome) => outcome,
        Err(_) => Err(stopped()),
    }
}

/// What became of a folder that is to be shared.
enum Announced {
    /// It is shared already.
    Already(Folder),
    /// Trackers know of it.
    New(Box<Sharing>),
}

/// A folder that is served and announced, and not recorded yet.
struct Sharing {
    undo: Undo,
    folder: Folder,
    content: Content,
    index: FolderIndex,
    bytes: Bytes,
    index_blob: Arc<MoveBlob>,
    placed: PlacedFiles,
    /// The manifests that are worth to be recorded.
    manifests: HashMap<ContentId, Manifest>,
}

async fn announce(
    shared: &Arc<PeerShared>,
    path: &Path,
    name: Option<ContentName>,
    expected: Option<ContentId>,
) -> Result<Announced, FolderError> {
    let root = TreeRoot::at(path);
    let name = match name {
        Some(name) => name,
        None => folder_name(path)?,
    };
    let folders = shared.storage.folders();
    let pool = folders.as_ref().map(|folders| folders.pool().clone());
    let pool = pool.unwrap_or_else(FilePool::shared);
    let hashed = hash_folder(&root, &pool).await?;
    let bytes = hashed.index.encode();
    let id = ContentId::of(&bytes);
    if expected.is_some_and(|expected| expected != id) {
        let path = root.path();
        return Err(StorageError::Mismatch { path }.into());
    }
    if shared.running_folders.claimed(&id).is_none()
        && let Some(folder) = intact(shared, &id).await?
    {
        return Ok(Announced::Already(folder));
    }
    let begin = || shared.folders.begin(id, shared.contents.is_alone(&id));
    let begun = begin() || (release_own_part(shared, &id) && begin());
    if !begun {
        return Err(FolderError::AlreadyHere { id });
    }
    // If this future is dropped, or the trackers refuse: not shared.
    let undo = Undo {
        shared: Some(Arc::clone(shared)),
        id,
    };
    let placed = PlacedFiles::of(root, &hashed.index, &hashed.blobs());
    let index_blob = MoveBlob::new(in_memory(id, bytes.clone()).await?);
    let (files, length) = hashed.index.size();
    let folder = Folder {
        id,
        name,
        files,
        length,
    };
    let mut manifests = HashMap::new();
    for file in hashed.files {
        let manifest = Some(file.manifest).filter(|_| is_long(file.blob.length()));
        manifests.extend(manifest.clone().map(|manifest| (manifest.id(), manifest)));
        serve_file(shared, id, MoveBlob::new(file.blob), file.entry, manifest);
    }
    shared
        .folders
        .complete(folder.clone(), true, placed.clone());
    let content = Content::new(id, folder.name.clone(), index_blob.length());
    let index = Asleep::of_folder(content.clone(), Role::Index, index_blob.clone(), None);
    if let Err(here) = shared.contents.add(index).await {
        // The user has it as a content of its own, or downloads it as one.
        drop(here);
    }
    let mut listing = Listing::new(content.clone(), folder.name.clone());
    let told = tell_trackers(shared, listing.announce(OwnState::Complete));
    told.await.map_err(ShareError::from)?;
    Ok(Announced::New(Box::new(Sharing {
        undo,
        folder,
        content,
        index: hashed.index,
        bytes,
        index_blob,
        placed,
        manifests,
    })))
}

/// Releases a folder that the user has shared, and that is a part since some of its files were
/// gone: all of them are here again. Returns `false` if it is something else.
fn release_own_part(shared: &Arc<PeerShared>, id: &ContentId) -> bool {
    let is_part = matches!(shared.folders.get(id), Some((_, false)));
    let placed = shared.folders.placed(id);
    let is_own = placed.is_some_and(|placed| placed.was_there() && !placed.is_stored());
    if !is_part || !is_own || shared.running_folders.claimed(id).is_some() {
        return false;
    }
    if release_files(shared, id) {
        take(shared, id);
    }
    true
}

impl Sharing {
    /// Has the storage remember the folder, if the user wants that. If that fails, or the
    /// peer stops before it has begun, the folder is not shared.
    async fn record(mut self) -> Result<Folder, FolderError> {
        let Some(shared) = self.undo.shared.clone() else {
            return Ok(self.folder);
        };
        if shared.tasks.stop.is_cancelled() {
            return Err(ShareError::ShutDown.into());
        }
        if let Some(folders) = shared.storage.folders().filter(|_| shared.share_stored) {
            let was_there = FolderHome::is_there(&folders, self.folder.id).await?;
            let home = FolderHome::open(&folders, self.folder.id).await?;
            if let Err(error) = self.keep_in(&home).await {
                if !was_there && let Err(error) = home.remove().await {
                    tracing::warn!(%error, "what could not be recorded is left");
                }
                return Err(error.into());
            }
        }
        shared.losses.found(&self.folder.id);
        self.undo.shared = None;
        shared.contents.announced(&self.folder.id);
        let content = || self.content.clone();
        shared
            .events
            .publish(|| PeerEvent::ShareStarted { content: content() });
        Ok(self.folder)
    }

    async fn keep_in(&self, home: &FolderHome) -> Result<(), StorageError> {
        let index_blob = home.keep_index(self.bytes.clone()).await?;
        let manifest = |id: &ContentId| self.manifests.get(id).cloned();
        let name = &self.folder.name;
        home.record((name, name), &self.index, &self.placed, manifest)
            .await?;
        self.index_blob.move_to(index_blob);
        Ok(())
    }
}

/// Whether the manifest of a file is worth to be recorded.
pub(super) fn is_long(length: u64) -> bool {
    length > REHASHED_LEN
}

/// The bytes of an index that no file has.
pub(super) async fn in_memory(id: ContentId, bytes: Bytes) -> Result<Arc<dyn Blob>, StorageError> {
    let memory = MemoryStorage::new();
    memory.insert(id.into(), bytes)?;
    memory.open(&id.into()).await
}

fn folder_name(path: &Path) -> Result<ContentName, FolderError> {
    let whole = path.canonicalize();
    let whole = whole.as_deref().unwrap_or(path);
    let name = path.file_name().or(whole.file_name()).unwrap_or_default();
    let valid = match name.to_str() {
        Some(text) => text.parse(),
        None => Err(NameError::Encoding),
    };
    let name = name.to_string_lossy().into_owned();
    valid.map_err(|source| ShareError::Name { name, source }.into())
}

/// Serves a file of a folder that is here, as long as that is shared.
pub(super) fn serve_file(
    shared: &PeerShared,
    folder: ContentId,
    blob: Arc<MoveBlob>,
    entry: FolderEntry,
    manifest: Option<Manifest>,
) {
    let FolderItem::File { id, length, .. } = entry.item else {
        return;
    };
    let content = Content::new(id, id.into(), length);
    let asleep = Asleep::of_folder(content, Role::File, blob.clone(), manifest);
    shared.contents.add_stored(asleep);
    if shared.folders.add_file(folder, id, blob) {
        shared.losses.found(&id);
    } else if !shared.folders.has_file(&id) {
        // Somebody has ended that while more of the folder came.
        stop_serving(shared, &id);
    }
}

/// Removes a folder that could not be shared after all.
struct Undo {
    /// `None` if it is shared.
    shared: Option<Arc<PeerShared>>,
    id: ContentId,
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        if release_files(shared, &self.id) {
            take(shared, &self.id);
        }
        shared.contents.announced(&self.id);
    }
}

/// Ends the sharing of a content: a folder with its files, or something else. Returns
/// `false` if there is nothing that is shared under this id.
pub(in crate::peer) async fn unshare_any(shared: &Arc<PeerShared>, id: &ContentId) -> bool {
    let is_folder = shared.folders.get(id).is_some() || shared.losses.is_folder(id);
    if !is_folder {
        return unshare(shared, id).await;
    }
    let forget = forget_record(shared, *id);
    if shared.folders.get(id).is_some() {
        shared.losses.forget_files(id);
        if release_files(shared, id) {
            unshare(shared, id).await;
        }
    } else {
        // Only its record is left.
        shared.losses.forget(id);
    }
    forget.await;
    true
}

/// Has the storage drop what it has of a folder, also if the future is dropped.
fn forget_record(shared: &Arc<PeerShared>, id: ContentId) -> impl Future<Output = ()> + use<> {
    let (done, heard) = oneshot::channel::<()>();
    if let Some(folders) = shared.storage.folders().filter(|_| shared.share_stored) {
        shared.tasks.spawn(shared.tasks.span.clone(), async move {
            let removed = async {
                let home = open_when_free(&folders, id).await?;
                home.remove().await
            };
            if let Err(error) = removed.await {
                tracing::warn!(folder = %id, %error, "the storage did not drop its record");
            }
            drop(done);
        });
    }
    async move {
        // It ends with an error when it is dropped.
        let _ = heard.await;
    }
}

/// Adds all folders that the storage remembers, and announces them.
pub(in crate::peer) async fn restore(shared: &Arc<PeerShared>) -> Result<(), StorageError> {
    let Some(folders) = shared.storage.folders() else {
        return Ok(());
    };
    let mut entries = Vec::new();
    for found in remembered_folders(&folders).await? {
        let found = match found {
            Ok(found) => found,
            Err(lost) => {
                tracing::warn!(folder = %lost.id, error = %lost.error, "not shared");
                shared.losses.insert(lost, LostThing::Folder);
                continue;
            }
        };
        let id = found.id;
        if !shared.folders.begin(id, shared.contents.is_alone(&id)) {
            continue;
        }
        if !found.lost.is_empty() {
            let lost = found.lost.len();
            tracing::warn!(folder = %id, lost, "some files are not shared again");
        }
        let (mut files, mut length) = (0, 0);
        for (path, blob, manifest) in found.files {
            let at = found
                .index
                .entries()
                .partition_point(|entry| entry.path < path);
            let entry = found.index.entries()[at].clone();
            files += 1;
            length += blob.length();
            serve_file(shared, id, MoveBlob::new(blob), entry, manifest);
        }
        for (file, error) in found.lost {
            if shared.contents.names(&file).is_some() {
                // It has a place of its own.
                continue;
            }
            let lost = Lost::new(file, file.into(), error).recorded(true);
            shared.losses.insert(lost, LostThing::FolderFile(id));
        }
        let is_whole = files == found.index.size().0;
        let folder = Folder {
            id,
            name: found.name,
            files,
            length,
        };
        shared.folders.complete(folder, is_whole, found.placed);
        let length = found.index_blob.length();
        let content = Content::new(id, found.listed_as.clone(), length);
        let index = Asleep::of_folder(content, Role::Index, found.index_blob, None);
        shared.contents.add_stored(index);
        let state = match is_whole {
            true => OwnState::Complete,
            false => OwnState::Partial,
        };
        entries.push(OwnEntry::new(id, found.listed_as, length, state));
    }
    let left_out = shared.trackers.own_all(entries);
    if left_out > 0 {
        tracing::warn!(left_out, "some folders are not announced");
    }
    Ok(())
}
