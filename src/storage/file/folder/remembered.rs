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
use super::record::{FolderRecord, file_at};
use super::staging::COPY_LEN;
use super::tree_blob::tree_blob;
use super::tree_root::TreeRoot;
use crate::content::{ContentId, ContentName, FolderIndex, FolderPath, MAX_INDEX_LEN, Manifest};
use crate::storage::{Blob, StorageError};

/// A folder that a storage has remembered.
pub(crate) struct RememberedFolder {
    pub(crate) id: ContentId,
    pub(crate) name: ContentName,
    pub(crate) listed_as: ContentName,
    pub(crate) index: FolderIndex,
    /// The bytes of the index.
    pub(crate) index_blob: Arc<dyn Blob>,
    /// The files that are there, unchanged as far as can be told.
    pub(crate) files: Vec<(FolderPath, Arc<dyn Blob>, Option<Manifest>)>,
    /// How many are gone or have changed.
    pub(crate) lost: usize,
}

/// All folders that are recorded. Those that cannot be read are left out, with a
/// line in the log.
///
/// # Errors
/// [`StorageError::Io`] when they cannot be listed at all.
pub(crate) async fn remembered_folders(
    folders: &Folders,
) -> Result<Vec<RememberedFolder>, StorageError> {
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

fn one(this: &Folders, id: ContentId) -> Option<RememberedFolder> {
    let name = folder_name(id);
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
            let error = refused("reading", &path, error);
            tracing::warn!(folder = %id, %error, "not shared");
            return None;
        }
    };
    let index = Some(&bytes).filter(|bytes| ContentId::of(bytes) == id);
    let index = index.and_then(|bytes| FolderIndex::decode(bytes).ok());
    let record = index.and_then(|i| Some((FolderRecord::decode(record, id, &i)?, i)));
    let Some((record, index)) = record else {
        tracing::warn!(folder = %id, "not shared: what is recorded about it is damaged");
        return None;
    };
    let found = in_place(this, id, record, index);
    if found.is_none() {
        tracing::warn!(folder = %id, "not shared: none of its files is where it was");
    }
    found
}

/// What is left of a recorded folder; nothing if that is no file.
fn in_place(
    this: &Folders,
    id: ContentId,
    record: FolderRecord,
    index: FolderIndex,
) -> Option<RememberedFolder> {
    let index_blob = index_blob(this, id).ok()?;
    let root = match &record.path {
        Some(path) => TreeRoot::at(path),
        None => this.root(&record.name),
    };
    let recorded = record.files.len();
    let mut files = Vec::with_capacity(recorded);
    for file in record.files {
        let Some((path, id, _)) = file_at(&index, file.entry) else {
            continue;
        };
        if is_unchanged(&root, path, id, file.stamp) {
            let blob = tree_blob(&root, path, file.stamp, &this.pool);
            files.push((path.clone(), blob, file.manifest));
        }
    }
    if files.is_empty() && recorded > 0 {
        return None;
    }
    Some(RememberedFolder {
        id,
        name: record.name,
        listed_as: record.listed_as,
        lost: recorded - files.len(),
        index,
        index_blob,
        files,
    })
}

/// Whether a file is what was recorded. One that may have changed without a new
/// modification time is hashed.
fn is_unchanged(root: &TreeRoot, path: &FolderPath, id: ContentId, stamp: Stamp) -> bool {
    let looked = match root.look(path) {
        Ok(Some(looked)) => looked,
        _ => return false,
    };
    if !stamp.is_of(&looked.stat) || stamp.settled {
        return stamp.is_of(&looked.stat);
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
    hash().is_ok_and(|found| found == id)
}

fn read_all(dir: &Dir, name: &str, max: u64) -> Result<Bytes, Refused> {
    let file = dir.open_existing(name)?;
    let len = file.stat()?.len;
    match len > max {
        true => Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge).into()),
        false => Ok(file.read_at(0, len as usize)?),
    }
}
