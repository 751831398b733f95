//! The home of one folder: what is fetched of it, and what is recorded about it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::super::blocking::run;
use super::super::dir::{DataFile, Dir, open_path};
use super::super::disk::{Disk, DiskFile, Refused};
use super::super::failure::{failed, failed_to_store, refused};
use super::super::names::{ReservedFile, folder_name, parse_reserved};
use super::super::read_blob::{Located, Location, ReadBlob};
use super::super::stamp::Stamp;
use super::super::storage::FileStorage;
use super::super::storage_dir::{LockAttempt, StorageDir};
use super::folders::Folders;
use super::in_place::PlacedFiles;
use super::paused::{self, PAUSED};
use super::placed_file::Staged;
use super::record::{FileRecord, FolderRecord, file_at};
use super::replacing::replace_tree;
use super::staging::{COPY_LEN, TreeBuilder, make_durable, publish, remove, remove_all, write_new};
use super::tree_blob::tree_blob;
use super::tree_root::TreeRoot;
use crate::content::{
    ContentId, ContentName, FolderIndex, MAX_PATH_DEPTH, Manifest, ManifestBuilder,
};
use crate::storage::{Blob, StorageError};

pub(super) const RECORD: &str = "record";
const NEW_RECORD: &str = "record.new";
const LOCK: &str = "lock";

/// How many bytes of manifests a record has, in all. Those that find no room are
/// made again when they are needed.
const MAX_MANIFESTS_LEN: usize = 64 << 20;
/// The maximum length of a record that is read, in bytes: the manifests, one that
/// does not fit any more, and the rest.
pub(super) const MAX_RECORD_LEN: u64 = 256 << 20;

/// The home of one folder. Nobody else has it as long as this lives.
pub(crate) struct FolderHome {
    id: ContentId,
    folders: Folders,
    dir: Arc<StorageDir<Dir>>,
    files: FileStorage,
    /// What was there when it was opened: files under their ids.
    had: HashSet<ContentId>,
    /// Locked.
    lock: DataFile,
}

impl FolderHome {
    /// Opens the home of a folder, or makes it.
    ///
    /// Cancel safe. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if somebody else has it.
    pub(crate) async fn open(folders: &Folders, id: ContentId) -> Result<Self, StorageError> {
        let folders = folders.clone();
        run(move || Self::open_now(folders, id)).await
    }

    fn open_now(folders: Folders, id: ContentId) -> Result<Self, StorageError> {
        let name = folder_name(id);
        let path = folders.dir.path_of(&name);
        let mark = folders.dir.mark();
        match folders.dir.disk.make_dir(&name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made
                .and_then(|()| folders.dir.sync(mark))
                .map_err(|e| failed("creating", &path, e))?,
        }
        let disk = folders.dir.disk.enter(name.as_ref());
        let disk = disk.map_err(|e| refused("opening", &path, e))?;
        let dir = Arc::new(StorageDir::new(disk, path));
        let LockAttempt::Acquired(lock) = dir.open_locked(LOCK)? else {
            let path = Some(dir.path_of(LOCK));
            return Err(StorageError::Locked { id, path });
        };
        let files = FileStorage::within(Arc::clone(&dir), &folders);
        let names = dir.disk.names();
        let names = names.map_err(|e| failed("listing", dir.path(), e))?;
        let had = names.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Self {
            id,
            folders,
            dir,
            files,
            had,
            lock,
        })
    }

    /// The files of the folder that were fetched, each under its id, and its index.
    pub(crate) fn files(&self) -> &FileStorage {
        &self.files
    }

    /// Whether it had a file with this id when it was opened.
    pub(crate) fn had(&self, id: &ContentId) -> bool {
        self.had.contains(id)
    }

    /// The stamps of those of these files that it had when it was opened.
    pub(crate) async fn staged(
        &self,
        files: impl Iterator<Item = ContentId>,
    ) -> Result<Staged, StorageError> {
        let had: HashSet<ContentId> = files.filter(|id| self.had(id)).collect();
        let dir = Arc::clone(&self.dir);
        run(move || {
            let mut stamps = HashMap::new();
            for id in had {
                let looked = dir.disk.look(id.to_string().as_ref());
                let looked = looked.map_err(|e| failed("examining", dir.path(), e))?;
                stamps.extend(looked.map(|looked| (id, Stamp::of(&looked.stat))));
            }
            Ok(Staged(stamps))
        })
        .await
    }

    /// Removes a file that is not what it should be.
    pub(crate) async fn discard(&self, id: ContentId) -> Result<(), StorageError> {
        let dir = Arc::clone(&self.dir);
        run(move || remove(&dir, &id.to_string())).await
    }

    /// How many bytes its files occupy by now, whole or not.
    ///
    /// Cancel safe.
    pub(crate) async fn occupied(&self) -> Result<HashMap<ContentId, u64>, StorageError> {
        let dir = Arc::clone(&self.dir);
        run(move || {
            let names = dir.disk.names();
            let names = names.map_err(|e| failed("listing", dir.path(), e))?;
            let mut occupied = HashMap::new();
            for name in names {
                let id = match parse_reserved(&name) {
                    Some((id, ReservedFile::Data)) => id,
                    _ => match name.parse() {
                        Ok(id) => id,
                        Err(_) => continue,
                    },
                };
                let looked = dir.disk.look(name.as_ref());
                let looked = looked.map_err(|e| failed("examining", &dir.path_of(&name), e))?;
                let bytes = looked.map_or(0, |looked| looked.stat.allocated);
                *occupied.entry(id).or_insert(0) += bytes;
            }
            Ok(occupied)
        })
        .await
    }

    /// How many bytes are available for more, if that is known.
    pub(crate) async fn available(&self) -> Option<u64> {
        let dir = Arc::clone(&self.dir);
        run(move || Ok(dir.disk.available())).await.unwrap_or(None)
    }

    /// Copies a content that is here already, if its bytes are what they should be.
    /// The copy is durable, and shares its bytes with the original where the file
    /// system can do that.
    ///
    /// Cancel safe.
    pub(crate) async fn adopt(
        &self,
        id: ContentId,
        source: &dyn Blob,
    ) -> Result<Option<(Arc<dyn Blob>, Manifest)>, StorageError> {
        let copy = format!("{id}.copy");
        let done = self.copy_verified(id, source, &copy).await;
        if !matches!(done, Ok(Some(_))) {
            let dir = Arc::clone(&self.dir);
            run(move || remove(&dir, &copy)).await?;
        }
        done
    }

    async fn copy_verified(
        &self,
        id: ContentId,
        source: &dyn Blob,
        copy: &str,
    ) -> Result<Option<(Arc<dyn Blob>, Manifest)>, StorageError> {
        let length = source.length();
        let Ok(mut builder) = ManifestBuilder::new(length) else {
            return Ok(None);
        };
        let path = source.file().map(|file| file.path().to_path_buf());
        let path = path.filter(|_| length > COPY_LEN);
        let (dir, name) = (Arc::clone(&self.dir), copy.to_owned());
        let (file, shared) = run(move || start_copy(&dir, &name, path.as_deref(), length)).await?;
        let file = Arc::new(file);
        let mut at = 0;
        while at < length {
            let len = COPY_LEN.min(length - at) as usize;
            let piece = match shared {
                true => None,
                false => Some(source.read_at(at, len).await?),
            };
            let (file, shown) = (Arc::clone(&file), self.dir.path_of(copy));
            let step = run(move || copy_piece(&file, &shown, builder, at, len, piece)).await?;
            let Some(next) = step else {
                return Ok(None);
            };
            builder = next;
            at += len as u64;
        }
        let manifest = builder.finish().ok().filter(|manifest| manifest.id() == id);
        let Some(manifest) = manifest else {
            return Ok(None);
        };
        let (dir, name) = (Arc::clone(&self.dir), copy.to_owned());
        let stamp = run(move || finish_copy(&dir, &name, id, &file)).await?;
        let location = Located {
            pool: Arc::clone(self.folders.pool.pool()),
            at: Location::InDir(Arc::clone(&self.dir), id.into()),
        };
        Ok(Some((Arc::new(ReadBlob::new(location, stamp)), manifest)))
    }

    /// Builds the folder out of the files in the home, and publishes it under a
    /// name: all of it, or nothing. Replaces nothing. `blobs` are the files. What is `held` is
    /// dropped when this has ended, also if the future was dropped before.
    ///
    /// Cancel safe: if the future is dropped, it is published or not.
    ///
    /// # Errors
    /// [`StorageError::Exists`] if something has the name, and
    /// [`StorageError::Changed`] if somebody has changed a file.
    pub(crate) async fn publish(
        &self,
        name: &ContentName,
        index: &FolderIndex,
        blobs: &HashMap<ContentId, Arc<dyn Blob>>,
        held: impl Send + 'static,
    ) -> Result<PlacedFiles, StorageError> {
        let stamps = stamps(blobs);
        let (home, root) = (Arc::clone(&self.dir), Arc::clone(&self.folders.dir));
        let (name, index) = (name.clone(), index.clone());
        run(move || {
            let _held = held;
            let stamps = TreeBuilder::build(&home, &index, |id| stamps.get(id).copied())?;
            publish(&home, &root, &name)?;
            let root = TreeRoot::stored(root, name);
            Ok(PlacedFiles::put(root, &index, stamps))
        })
        .await
    }

    /// Adds files in the home to a folder that is in its place, each whole and durable.
    /// `index` are those entries of the folder that are missing there. Replaces nothing. What
    /// is `held` is dropped as in [`publish`](Self::publish).
    ///
    /// Cancel safe: if the future is dropped, or the process ends, some of them may be
    /// there.
    ///
    /// # Errors
    /// [`StorageError::Exists`] if something has the path of a file, and
    /// [`StorageError::Changed`] if somebody has changed one.
    pub(crate) async fn extend(
        &self,
        root: &TreeRoot,
        index: &FolderIndex,
        blobs: &HashMap<ContentId, Arc<dyn Blob>>,
        held: impl Send + 'static,
    ) -> Result<PlacedFiles, StorageError> {
        let stamps = stamps(blobs);
        let (home, root, index) = (Arc::clone(&self.dir), root.clone(), index.clone());
        run(move || {
            let _held = held;
            let opened = root.open();
            let tree = opened.map_err(|e| refused("opening", &root.path(), e))?;
            let stamp = |id: &ContentId| stamps.get(id).copied();
            let stamps = TreeBuilder::extend(&home, (tree, root.path()), &index, stamp)?;
            Ok(PlacedFiles::put(root, &index, stamps))
        })
        .await
    }

    /// Puts files in the home into a tree that is in its place, instead of files and links
    /// that have their paths. `index` are those entries of the folder that are missing there.
    /// Each path has the one or the other at any moment, and the first is replaced when all
    /// that is to come is durable. What is `held` is dropped as in [`publish`](Self::publish).
    ///
    /// Cancel safe: if the future is dropped, or the process ends, some of them may be
    /// replaced.
    ///
    /// # Errors
    /// [`StorageError::NotAFile`] if something else than a file or a link is in the way, and
    /// [`StorageError::Changed`] if somebody has changed a file in the home. Nothing is
    /// replaced then.
    pub(crate) async fn replace(
        &self,
        root: &TreeRoot,
        index: &FolderIndex,
        blobs: &HashMap<ContentId, Arc<dyn Blob>>,
        held: impl Send + 'static,
    ) -> Result<PlacedFiles, StorageError> {
        let stamps = stamps(blobs);
        let (home, root, index) = (Arc::clone(&self.dir), root.clone(), index.clone());
        run(move || {
            let _held = held;
            let stamps = TreeBuilder::build(&home, &index, |id| stamps.get(id).copied())?;
            replace_tree(&home, &root, &index)?;
            Ok(PlacedFiles::put(root, &index, stamps))
        })
        .await
    }

    /// Writes the bytes of the index.
    pub(crate) async fn keep_index(&self, bytes: Bytes) -> Result<Arc<dyn Blob>, StorageError> {
        let (dir, name) = (Arc::clone(&self.dir), self.id.to_string());
        run(move || {
            // One of an earlier download is no better than a new one.
            remove(&dir, &name)?;
            let mark = dir.mark();
            let file = write_new(&dir, &name, bytes)?;
            let synced = file.sync_all().and_then(|()| dir.sync(mark));
            synced.map_err(|e| failed("syncing", &dir.path_of(&name), e))
        })
        .await?;
        self.index().await
    }

    /// The bytes of the index. They hold nothing open.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub(crate) async fn index(&self) -> Result<Arc<dyn Blob>, StorageError> {
        let (folders, id) = (self.folders.clone(), self.id);
        run(move || {
            let index = index_blob(&folders, id);
            index.map_err(|e| refused("opening", &folders.dir.path_of(&folder_name(id)), e))
        })
        .await
    }

    /// Records durably where the folder is, for the next start. `manifest` gives
    /// those that take long to make again.
    pub(crate) async fn record(
        &self,
        (name, listed_as): (&ContentName, &ContentName),
        index: &FolderIndex,
        placed: &PlacedFiles,
        manifest: impl Fn(&ContentId) -> Option<Manifest>,
    ) -> Result<(), StorageError> {
        let mut left = MAX_MANIFESTS_LEN;
        let files = placed.files.iter().map(|&file| {
            let manifest = file_at(index, file.entry).and_then(|(_, id, _)| manifest(&id));
            let manifest = manifest.filter(|manifest| !manifest.is_torrent());
            let fits = |manifest: &Manifest| {
                let len = manifest.hashes().as_flattened().len();
                let fits = len <= left;
                left -= if fits { len } else { 0 };
                fits
            };
            FileRecord {
                file,
                manifest: manifest.filter(fits),
            }
        });
        let record = FolderRecord {
            name: name.clone(),
            listed_as: listed_as.clone(),
            path: placed.root.outside().map(Path::to_path_buf),
            was_there: placed.was_there,
            files: files.collect(),
        };
        let Some(bytes) = record.encode(self.id) else {
            let path = placed.root.path();
            let what = format!("recording {}", path.display());
            let error = io::Error::other("its path is not UTF-8");
            return Err(StorageError::io(what, error).at(path));
        };
        let dir = Arc::clone(&self.dir);
        run(move || write_record(&dir, bytes.into())).await
    }

    /// Records durably that the download is paused, with what the peer says of it, or drops
    /// that record.
    pub(crate) async fn record_paused(&self, form: Option<Bytes>) -> Result<(), StorageError> {
        let (dir, id) = (Arc::clone(&self.dir), self.id);
        run(move || paused::write(&dir, id, form.as_deref())).await
    }

    /// Whether it is recorded in it that the folder is in its place.
    pub(crate) async fn is_recorded(&self) -> Result<bool, StorageError> {
        let dir = Arc::clone(&self.dir);
        run(move || Ok(dir.kind(RECORD)?.is_some())).await
    }

    /// Whether there is anything in it that is worth to be kept: files, whole or not, or a
    /// record.
    pub(crate) async fn holds_anything(&self) -> Result<bool, StorageError> {
        let (dir, index) = (Arc::clone(&self.dir), self.id);
        run(move || {
            let names = dir.disk.names();
            let names = names.map_err(|e| failed("listing", dir.path(), e))?;
            let is_worth = |name: &String| {
                let reserved = || parse_reserved(name).map(|(id, _)| id);
                let file = name.parse().ok().or_else(reserved);
                [RECORD, PAUSED].contains(&&**name) || file.is_some_and(|id| id != index)
            };
            Ok(names.iter().any(is_worth))
        })
        .await
    }

    /// Whether a folder has a home here.
    pub(crate) async fn is_there(folders: &Folders, id: ContentId) -> Result<bool, StorageError> {
        let dir = Arc::clone(&folders.dir);
        run(move || Ok(dir.kind(&folder_name(id))?.is_some())).await
    }

    /// Removes what was fetched, but for the index: the folder is in its place.
    pub(crate) async fn clear(&self) -> Result<(), StorageError> {
        let (dir, index) = (Arc::clone(&self.dir), self.id.to_string());
        let keep = move |name: &str| [RECORD, LOCK, &*index].contains(&name);
        run(move || clear(&dir, keep)).await
    }

    /// Removes all of the home. What is served from it can no longer be read.
    pub(crate) async fn remove(&self) -> Result<(), StorageError> {
        let (dir, root, id) = (Arc::clone(&self.dir), self.folders.clone(), self.id);
        run(move || {
            let (dir, root) = (&*dir, &root.dir);
            // First the record: the rest without it is nothing that is shared.
            remove(dir, RECORD)?;
            clear(dir, |name| name == LOCK)?;
            remove(dir, LOCK)?;
            let name = folder_name(id);
            let removed = root.disk.remove_dir(name.as_ref());
            removed.map_err(|e| failed("removing", &root.path_of(&name), e))
        })
        .await
    }
}

impl Drop for FolderHome {
    /// Releases the lock explicitly: a child process that was just forked may still
    /// have the file open.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(id = %self.id, %error, "failed to unlock");
        }
    }
}

/// The stamps of files that have one.
fn stamps(blobs: &HashMap<ContentId, Arc<dyn Blob>>) -> HashMap<ContentId, Stamp> {
    let stamp = |(id, blob): (&ContentId, &Arc<dyn Blob>)| Some((*id, blob.file()?.stamp));
    blobs.iter().filter_map(stamp).collect()
}

/// The index in the home of a folder, found again each time that it is read.
pub(super) fn index_blob(folders: &Folders, id: ContentId) -> Result<Arc<dyn Blob>, Refused> {
    let name = folder_name(id).parse().map_err(io::Error::other)?;
    let path = id.to_string().parse().map_err(io::Error::other)?;
    let home = TreeRoot::stored(Arc::clone(&folders.dir), name);
    match home.look(&path)? {
        Some(looked) => Ok(tree_blob(
            &home,
            &path,
            Stamp::of(&looked.stat),
            &folders.pool,
        )),
        None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
    }
}

/// Begins a copy. Returns whether it has the bytes of the original already.
fn start_copy(
    dir: &StorageDir<Dir>,
    name: &str,
    source: Option<&Path>,
    length: u64,
) -> Result<(DataFile, bool), StorageError> {
    remove(dir, name)?;
    let file = write_new(dir, name, Bytes::new())?;
    let source = source.and_then(|path| open_path(path).ok());
    let shares = source.is_some_and(|source| file.share_bytes_of(&source));
    let is_whole = shares && file.stat().is_ok_and(|stat| stat.len == length);
    Ok((file, is_whole))
}

/// Writes one piece of a copy, or reads it if it is there, and hashes it. Nothing if
/// the copy is longer than it should be.
fn copy_piece(
    file: &DataFile,
    path: &Path,
    mut builder: ManifestBuilder,
    at: u64,
    len: usize,
    piece: Option<Bytes>,
) -> Result<Option<ManifestBuilder>, StorageError> {
    let piece = match piece {
        Some(piece) => {
            let written = file.write_at(at, std::slice::from_ref(&piece));
            written.map_err(|e| failed_to_store("writing", path, len as u64, e))?;
            piece
        }
        None => {
            let read = file.read_at(at, len);
            read.map_err(|e| failed("reading", path, e))?
        }
    };
    Ok(builder.update(&piece).is_ok().then_some(builder))
}

/// Gives a copy its name, and makes both durable.
fn finish_copy(
    dir: &StorageDir<Dir>,
    copy: &str,
    id: ContentId,
    file: &DataFile,
) -> Result<Stamp, StorageError> {
    let (mark, name) = (dir.mark(), id.to_string());
    let path = dir.path_of(&name);
    let stamp = make_durable(file).map_err(|e| failed_to_store("syncing", &path, 0, e))?;
    let published = dir.publish(copy, &name, file).and_then(|()| dir.sync(mark));
    published.map_err(|e| failed("publishing", &path, e))?;
    Ok(stamp)
}

fn write_record(dir: &StorageDir<Dir>, bytes: Bytes) -> Result<(), StorageError> {
    remove(dir, NEW_RECORD)?;
    let mark = dir.mark();
    let file = write_new(dir, NEW_RECORD, bytes)?;
    let path = dir.path_of(RECORD);
    let written = file
        .sync_all()
        .and_then(|()| dir.disk.replace(NEW_RECORD, RECORD))
        .and_then(|()| dir.sync(mark));
    written.map_err(|e| failed("writing", &path, e))
}

/// Removes all entries but some.
fn clear(dir: &StorageDir<Dir>, keep: impl Fn(&str) -> bool) -> Result<(), StorageError> {
    let names = dir.disk.all_names(usize::MAX - 1);
    let names = names.map_err(|e| failed("listing", dir.path(), e))?;
    for name in names {
        if !name.to_str().is_some_and(&keep) {
            let removed = remove_all(&dir.disk, &name, MAX_PATH_DEPTH + 1);
            let path = || dir.path().join(&name);
            removed.map_err(|e| refused("removing", &path(), e))?;
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::super::dir::times;
    use super::*;

    #[test]
    fn copies_and_records_are_durable_before_they_have_their_names() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        let dir = StorageDir::new(Dir::open(path).unwrap(), path.to_path_buf());
        let id = ContentId::of(b"x");
        let copy = write_new(&dir, "copy", b"x".as_slice().into()).unwrap();
        finish_copy(&dir, "copy", id, &copy).unwrap();
        let is_safe = |name: &str| {
            let (file, names) = (times(&path.join(name)), times(path));
            file.is_durable() && names.is_durable() && file.synced < names.changed
        };
        assert!(is_safe(&id.to_string()));
        write_record(&dir, b"x".as_slice().into()).unwrap();
        assert!(is_safe(RECORD));
    }
}
