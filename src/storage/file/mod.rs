//! Contents as files in a directory.
//!
//! A content is the file with its name; while it is being downloaded it is
//! `<content id>.part` beside it: by id, so that two contents of one name do
//! not meet before the end, and a name may have its full length.
//!
//! What is promised: nothing outside the directory is read or written,
//! whatever names and links are in it; nothing that is there is replaced; and
//! one writer at a time, across processes, by a lock on the unfinished file.
//! This module does not know what the bytes are and verifies none of them.

mod blob;
mod dir;
mod writers;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Blob, Partial, Storage, StorageError};
use crate::content::{Bitfield, ContentId, ContentName, Manifest};
use blob::{Part, PartBlob, ReadBlob};
use dir::{Dir, Refused};
use writers::{Turn, Writers};

/// How often opening an unfinished file starts again because somebody finished
/// it between the opening and the lock.
const OPEN_ATTEMPTS: u32 = 8;

/// The endings of the files that a storage keeps for itself.
const RESERVED_ENDINGS: [&str; 2] = [".part", ".journal"];

/// Contents as files in a directory. A clone is the same storage.
///
/// A file in the directory is a content by its name; an unfinished download is
/// `<content id>.part` beside it. Names of exactly that form, and
/// `<content id>.journal`, are [`StorageError::Reserved`]. Links and whatever
/// else is no regular file are left alone: [`StorageError::NotAFile`].
///
/// Files are read and written on tokio's blocking threads, so the methods
/// of [`Storage`] and [`Blob`] must be called inside a tokio runtime. An
/// operation that has begun runs to its end even if its future is dropped;
/// until then the file stays locked for other processes and other storages,
/// while this storage and its clones wait for it.
///
/// How far the bytes are: what [`Blob::write_at`] took survives the process,
/// what was written before a [`Blob::commit`] survives the machine, and after
/// [`Blob::finish`] the name does too. A failed sync may have lost any write
/// before it, so from then on the blob takes nothing more, and repeats the
/// error. A download that is taken up again starts with no chunk present:
/// nothing tells which bytes of an unfinished file are right.
///
/// # Example
/// ```no_run
/// use bt_lite::{ContentName, FileStorage, Storage};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let storage = FileStorage::open("downloads")?;
/// let name: ContentName = "ubuntu.iso".parse()?;
/// let content = storage.open(&name).await?;
/// let start = content.read_at(0, 16).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FileStorage(Arc<Place>);

#[derive(Debug)]
struct Place {
    dir: Dir,
    /// For messages only: the directory may be moved while it is open.
    path: PathBuf,
    writers: Writers,
}

impl FileStorage {
    /// Opens a directory as a storage, and creates it, with those above it, if
    /// it is missing. Blocks for a moment.
    ///
    /// # Errors
    /// [`StorageError::Io`] when it is no directory, or cannot be created or
    /// opened.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = dir.as_ref();
        let opened = create_durably(path).and_then(|()| Dir::open(path));
        let dir =
            opened.map_err(|e| StorageError::io(format!("opening {}", path.display()), &e))?;
        Ok(Self(Arc::new(Place {
            dir,
            path: path.to_path_buf(),
            writers: Writers::default(),
        })))
    }
}

/// Opens a file of the user's, wherever it is, for reading: what a peer needs
/// to share it. Follows links, as it was asked for by its path.
///
/// The file must not change while it is open. When it shrinks, reads past its
/// end fail; what it grows by is not part of the content.
///
/// Cancel safe. Must be called inside a tokio runtime, and so must the methods
/// of the blob.
///
/// # Errors
/// [`StorageError::NotAFile`] when the path leads to a directory, pipe or
/// device, and [`StorageError::Io`] when there is nothing, or it may not be
/// read.
pub async fn open_file(path: impl AsRef<Path>) -> Result<Arc<dyn Blob>, StorageError> {
    let path = path.as_ref().to_path_buf();
    blob::run(move || {
        let file = dir::open_path(&path).map_err(|e| refused(&path, "opening", e))?;
        Ok(Arc::new(ReadBlob::new(file, path)?) as Arc<dyn Blob>)
    })
    .await
}

#[async_trait]
impl Storage for FileStorage {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        check_name(name)?;
        let (id, geometry) = (manifest.id(), manifest.geometry());
        let locked = StorageError::Locked { id };
        let Some(claim) = self.0.writers.claim(id) else {
            // What has the name says more than what has the lock.
            let (place, name) = (self.0.clone(), name.clone());
            return blob::run(move || place.check_free(&name).and(Err(locked))).await;
        };
        let turn = claim.turn().await;
        let (place, name) = (self.0.clone(), name.clone());
        let part =
            blob::run(move || Place::open_part(place, name, id, geometry.length(), turn)).await?;
        Ok(Partial {
            blob: Arc::new(PartBlob::new(part, claim)),
            // Nothing tells which bytes of an earlier download are right.
            present: Bitfield::none(geometry.chunks()),
        })
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        check_name(name)?;
        let (place, name) = (self.0.clone(), name.clone());
        blob::run(move || {
            let path = place.path.join(name.as_str());
            match place.dir.open_existing(name.as_str()) {
                Ok(file) => Ok(Arc::new(ReadBlob::new(file, path)?) as Arc<dyn Blob>),
                Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                    Err(StorageError::NotFound { name })
                }
                Err(error) => Err(refused(&path, "opening", error)),
            }
        })
        .await
    }
}

impl Place {
    /// Opens the unfinished file of a content, and locks it.
    fn open_part(
        place: Arc<Self>,
        name: ContentName,
        id: ContentId,
        length: u64,
        turn: Turn,
    ) -> Result<Arc<Part>, StorageError> {
        let part_name = format!("{id}.part");
        let path = place.path.join(&part_name);
        for _ in 0..OPEN_ATTEMPTS {
            place.check_free(&name)?;
            let file = place
                .dir
                .open_part(&part_name)
                .map_err(|e| refused(&path, "opening", e))?;
            if !place.lock_part(&part_name, id, &file)? {
                continue;
            }
            place.check_free(&name)?;
            file.set_len(length)
                .map_err(|e| failed("reserving", &path, length, &e))?;
            return Ok(Arc::new(Part::new(
                file, place, name, part_name, length, turn,
            )));
        }
        Err(StorageError::Locked { id })
    }

    /// Locks an unfinished file, and tells whether it still is one: before the
    /// lock was ours, its holder may have published it, and then it is not to
    /// be touched.
    fn lock_part(&self, part_name: &str, id: ContentId, file: &File) -> Result<bool, StorageError> {
        let path = self.path.join(part_name);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::Locked { id }),
            Err(TryLockError::Error(e)) => return Err(failed("locking", &path, 0, &e)),
        }
        self.dir
            .is_at(part_name, file)
            .map_err(|e| refused(&path, "opening", e))
    }

    fn check_free(&self, name: &ContentName) -> Result<(), StorageError> {
        match self.dir.kind(name.as_str()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(StorageError::Exists { name: name.clone() }),
            Err(e) => Err(failed("looking for", &self.path.join(name.as_str()), 0, &e)),
        }
    }
}

fn check_name(name: &ContentName) -> Result<(), StorageError> {
    if is_reserved(name.as_str()) || !Dir::allows(name.as_str()) {
        return Err(StorageError::Reserved { name: name.clone() });
    }
    Ok(())
}

/// In either case: a file system may not tell the two apart.
fn is_reserved(name: &str) -> bool {
    name.split_at_checked(2 * ContentId::LEN)
        .is_some_and(|(id, ending)| {
            id.bytes().all(|digit| digit.is_ascii_hexdigit())
                && RESERVED_ENDINGS
                    .iter()
                    .any(|reserved| ending.eq_ignore_ascii_case(reserved))
        })
}

/// Creates a directory and those above it, each durable in the one above.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    create_durably(above)?;
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => Dir::open(above)?.sync(),
    }
}

fn refused(path: &Path, doing: &str, error: Refused) -> StorageError {
    match error {
        Refused::Kind(kind) => StorageError::NotAFile {
            path: path.to_path_buf(),
            found: kind.describe(),
        },
        Refused::Io(error) => failed(doing, path, 0, &error),
    }
}

/// What the operating system said, where `needed` bytes were to be written.
fn failed(doing: &str, path: &Path, needed: u64, error: &io::Error) -> StorageError {
    let what = format!("{doing} {}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StorageError::Full { what, needed }
        }
        _ => StorageError::io(what, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_reserved_only_in_exactly_the_form_of_an_unfinished_file() {
        let id = ContentId::of(b"x").to_string();
        for reserved in [
            format!("{id}.part"),
            format!("{id}.journal"),
            format!("{}.PART", id.to_uppercase()),
        ] {
            assert!(is_reserved(&reserved), "{reserved}");
        }
        for free in [
            id.clone(),
            format!("{id}.parts"),
            format!("{id}.part.part"),
            format!("{}.part", &id[1..]),
            format!("x{id}.part"),
            format!("{}g.part", &id[1..]),
            "a.part".into(),
            // A character across the place where the ending would begin.
            format!("{}é.part", &id[1..]),
        ] {
            assert!(!is_reserved(&free), "{free}");
        }
    }

    #[test]
    fn file_that_was_published_before_the_lock_is_no_unfinished_one() {
        let root = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(root.path()).unwrap();
        let (place, id) = (&storage.0, ContentId::of(b"x"));
        let holder = place.dir.open_part("p").unwrap();
        assert_eq!(place.lock_part("p", id, &holder), Ok(true));
        let late = place.dir.open_part("p").unwrap();
        assert_eq!(
            place.lock_part("p", id, &late),
            Err(StorageError::Locked { id })
        );
        place.dir.publish("p", "a", &holder).unwrap();
        drop(holder);
        assert_eq!(place.lock_part("p", id, &late), Ok(false));
        drop(late);

        // Nor is it the one that stands there since.
        let late = place.dir.open_part("p").unwrap();
        place.dir.publish("p", "b", &late).unwrap();
        place.dir.open_part("p").unwrap();
        #[cfg(unix)]
        assert_eq!(place.lock_part("p", id, &late), Ok(false));
    }

    #[test]
    fn full_disk_and_quota_are_told_apart_from_other_failures() {
        let path = Path::new("p");
        let full = |e: io::Error| failed("writing", path, 7, &e);
        let expected = StorageError::Full {
            what: "writing p".into(),
            needed: 7,
        };
        #[cfg(unix)]
        for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            assert_eq!(full(errno.into()), expected);
        }
        assert_eq!(full(io::ErrorKind::StorageFull.into()), expected);
        assert!(matches!(
            full(io::ErrorKind::PermissionDenied.into()),
            StorageError::Io {
                kind: io::ErrorKind::PermissionDenied,
                ..
            }
        ));
    }
}
