//! The folders that a storage remembers. Whether a file is still the same is seen
//! without opening it.

use std::sync::Arc;

use bytes::Bytes;

use super::super::blocking::run;
use super::super::dir::Dir;
use super::super::disk::{Disk, DiskFile, Refused};
use super::super::failure::{failed, refused};
use super::super::names::{ReservedFile, folder_name, parse_reserved};
use super::super::stamp::Stamp;
use super::folders::Folders;
use super::home::{MAX_RECORD_LEN, RECORD, index_blob};
use super::in_place::PlacedFiles;
use super::paused::{self, PausedFolder};
use super::record::{FileRecord, FolderRecord, file_at};
use super::staging::COPY_LEN;
use super::tree_blob::tree_blob;
use super::tree_root::TreeRoot;
use crate::content::{ContentId, ContentName, FolderIndex, FolderPath, MAX_INDEX_LEN, Manifest};
use crate::storage::{Blob, Lost, StorageError};

/// A folder that a storage has remembered.
pub(crate) struct RememberedFolder {
    pub(crate) id: ContentId,
    pub(crate) name: ContentName,
    pub(crate) listed_as: ContentName,
    pub(crate) index: FolderIndex,
    /// The bytes of the index.
    pub(crate) index_blob: Arc<dyn Blob>,
    /// Which files are there, and where.
    pub(crate) placed: PlacedFiles,
    /// The files that are there, unchanged as far as can be told.
    pub(crate) files: Vec<(FolderPath, Arc<dyn Blob>, Option<Manifest>)>,
    /// The files that are gone or have changed, and why they are not here.
    pub(crate) lost: Vec<(ContentId, StorageError)>,
}

/// All folders that are recorded, and why nothing of one is here.
///
/// # Errors
/// [`StorageError::Io`] when they cannot be listed at all.
pub(crate) async fn remembered_folders(
    folders: &Folders,
) -> Result<Vec<Result<RememberedFolder, Lost>>, StorageError> {
    let this = folders.clone();
    run(move || {
        let names = this.dir.disk.names();
        let mut names = names.map_err(|e| failed("listing", this.dir.path(), e))?;
        names.sort();
        let ids = names.iter().filter_map(|name| match parse_reserved(name) {
            Some((id, ReservedFile::Folder)) => Some(id),
            _ => None,
        });
        Ok(ids.filter_map(|id| one(&this, id)).collect())
    })
    .await
}

/// The downloads of folders that are recorded as paused.
///
/// # Errors
/// [`StorageError::Io`] when they cannot be listed.
pub(crate) async fn paused_folders(folders: &Folders) -> Result<Vec<PausedFolder>, StorageError> {
    let this = folders.clone();
    run(move || paused::all(&this)).await
}

fn one(this: &Folders, id: ContentId) -> Option<Result<RememberedFolder, Lost>> {
    let name = folder_name(id);
    let lost = |name, error| Some(Err(Lost::new(id, name, error).recorded(true)));
    let path = this.dir.path_of(&name);
    let read = || -> Result<_, Refused> {
        let home = this.dir.disk.enter(name.as_ref())?;
        let record = match home.look(RECORD.as_ref())? {
            // A folder that is being fetched.
            None => return Ok(None),
            Some(_) => read_all(&home, RECORD, MAX_RECORD_LEN)?,
        };
        let index = read_all(&home, &id.to_string(), MAX_INDEX_LEN)?;
        Ok(Some((index, record)))
    };
    let (bytes, record) = match read() {
        Ok(found) => found?,
        Err(error) => {
            return lost(id.into(), refused("reading", &path, error));
        }
    };
    let index = Some(&bytes).filter(|bytes| ContentId::of(bytes) == id);
    let index = index.and_then(|bytes| FolderIndex::decode(bytes).ok());
    let record = index.and_then(|i| Some((FolderRecord::decode(record, id, &i)?, i)));
    let Some((record, index)) = record else {
        // What is recorded about it is damaged.
        return lost(id.into(), StorageError::Changed { path });
    };
    let name = record.name.clone();
    match in_place(this, id, record, index) {
        Ok(found) => Some(Ok(found)),
        Err(error) => lost(name, error),
    }
}

/// What is left of a recorded folder; an error if that is nothing, or only what the user has
/// put there. Without files it is what more of it can be added to.
fn in_place(
    this: &Folders,
    id: ContentId,
    record: FolderRecord,
    index: FolderIndex,
) -> Result<RememberedFolder, StorageError> {
    let at = || this.dir.path_of(&folder_name(id));
    let index_blob = index_blob(this, id).map_err(|error| refused("reading", &at(), error))?;
    let root = match &record.path {
        Some(path) => TreeRoot::at(path),
        None => this.root(&record.name),
    };
    let mut files = Vec::with_capacity(record.files.len());
    let mut lost = Vec::new();
    let mut placed = PlacedFiles::none(root.clone(), record.was_there);
    for FileRecord { file, manifest } in record.files {
        let Some((path, id, _)) = file_at(&index, file.entry) else {
            continue;
        };
        match check_unchanged(&root, path, id, file.stamp) {
            Ok(()) => {
                placed.files.push(file);
                let blob = tree_blob(&root, path, file.stamp, &this.pool);
                files.push((path.clone(), blob, manifest));
            }
            Err(error) => lost.push((id, error)),
        }
    }
    let is_ours = record.path.is_none() || !record.was_there;
    if files.is_empty()
        && !(is_ours && root.open().is_ok())
        && let Some((_, error)) = lost.pop()
    {
        return Err(error);
    }
    Ok(RememberedFolder {
        id,
        name: record.name,
        listed_as: record.listed_as,
        lost,
        placed,
        index,
        index_blob,
        files,
    })
}

/// Refuses a file that is not what was recorded. One that may have changed without a new
/// modification time is hashed.
fn check_unchanged(
    root: &TreeRoot,
    path: &FolderPath,
    id: ContentId,
    stamp: Stamp,
) -> Result<(), StorageError> {
    let at = root.path().join(path.as_str());
    let looked = match root.look(path) {
        Ok(Some(looked)) => looked,
        Ok(None) => return Err(StorageError::NotFound { name: id.into() }),
        Err(error) => return Err(refused("examining", &at, error)),
    };
    let changed = StorageError::Changed { path: at };
    if !stamp.is_of(&looked.stat) {
        return Err(changed);
    }
    if stamp.settled {
        return Ok(());
    }
    let hash = || -> Result<ContentId, Refused> {
        let file = root.open_file(path)?;
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        while at < stamp.len {
            let piece = file.read_at(at, COPY_LEN.min(stamp.len - at) as usize)?;
            hasher.update(&piece);
            at += piece.len() as u64;
        }
        Ok(ContentId::from_bytes(*hasher.finalize().as_bytes()))
    };
    match hash() {
        Ok(found) if found == id => Ok(()),
        _ => Err(changed),
    }
}

fn read_all(dir: &Dir, name: &str, max: u64) -> Result<Bytes, Refused> {
    let file = dir.open_existing(name)?;
    let len = file.stat()?.len;
    match len > max {
        true => Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge).into()),
        false => Ok(file.read_at(0, len as usize)?),
    }
}
