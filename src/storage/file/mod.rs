//! Contents as files in a directory, kept as a database keeps its rows.
//!
//! A content is the file with its name; while it is being downloaded it is
//! `<content id>.part` beside it: by id, so that two contents of one name do
//! not meet before the end, and a name may have its full length. Beside it,
//! `<content id>.journal` says which of its chunks may be trusted.
//!
//! What is promised: nothing outside the directory is read or written,
//! whatever names and links are in it; nothing that is there is replaced; one
//! writer at a time, across processes, by locks on the two files; and what was
//! reported durable is there after a crash at any moment. This module does not
//! know what the bytes are.
//!
//! `place` takes up an unfinished file, `part` brings it to its name, `journal`
//! and `ledger` keep the claims, `catalogue` what is remembered of finished
//! contents. All of them stand on the seam `disk`, and block; `blob` runs them
//! on threads that may.

mod blob;
mod catalogue;
#[cfg(test)]
mod crash;
mod dir;
mod disk;
mod journal;
mod ledger;
mod part;
mod place;
mod stamp;
mod writers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Blob, Partial, Storage, StorageError, Stored};
use crate::content::{Bitfield, ContentId, ContentName, Manifest};
use blob::{PartBlob, ReadBlob};
use dir::{Dir, Refused};
use disk::Disk;
use place::{Options, Place, refused};

pub use stamp::FileStamp;

/// Contents as files in a directory. A clone is the same storage.
///
/// A file in the directory is a content by its name. Beside them the storage
/// keeps files of its own, whose names are [`StorageError::Reserved`]:
/// `<content id>.part` for an unfinished download, `<content id>.journal` for
/// what is known of it, and `<64 hex digits>.manifest` for what was to be
/// [remembered](Storage::remember). Links and whatever else is no regular file
/// are left alone: [`StorageError::NotAFile`].
///
/// # Names
/// What is downloaded gets no name that hides what it is, or that means
/// something else on another system ([`ContentName::check_file_name`]):
/// [`Storage::create`] says [`StorageError::UnsafeName`]. A download by id
/// avoids such a name; see [`Peer::download`](crate::Peer::download). What lies
/// in the directory already can be read, and so shared, under any name that
/// the system takes.
///
/// A name may have its full length; where the file system takes less, creating
/// the content is [`StorageError::Io`].
///
/// Files are read and written on tokio's blocking threads, so the methods
/// of [`Storage`] and [`Blob`] must be called inside a tokio runtime; a
/// current-thread one is fine. An operation that has begun runs to its end
/// even if its future is dropped; until then the file stays locked for other
/// processes and other storages, while this storage and its clones wait for
/// it.
///
/// # How far the bytes are
/// What [`Blob::write_at`] took survives the process, what was written before
/// a [`Blob::commit`] survives the machine, and after [`Blob::finish`] the name
/// does too. A failed sync may have lost any write before it, so from then on
/// the blob takes nothing more, and repeats the error; whoever creates the
/// content again starts at the last commit.
///
/// # Resuming
/// A download that was interrupted goes on from the last commit, and no chunk
/// is hashed for that, unless [`verify_on_resume`] is set. If the file is as the
/// last commit left it (the download was cancelled or shut down), it is
/// [`untouched`](Partial::untouched), and finished on the word of the journal
/// for what nobody has looked at meanwhile. Where it has been written to since
/// (the process was killed, or somebody altered the file), the chunks of before
/// are verified once, when they are first read as a whole, or else when the
/// content is finished: it gets its name only if they are right, and is
/// [`StorageError::Altered`] otherwise, with nothing lost but the bad chunks.
///
/// # Changed files
/// A file that changes while it is open for reading (its length or its
/// modification time does) is [`StorageError::Changed`] from then on, and by the
/// same two a file is told to be the one that was
/// [remembered](Storage::remember). Where the modification time may have stood
/// still, the file is hashed instead. The limit: bytes that were altered while
/// the length stayed and the modification time was set back, on purpose or by a
/// tool that copies times, are served; whoever fetches them notices.
///
/// # A directory that goes
/// The directory is held open and followed when it is moved. When it is
/// removed, or its volume is, every operation fails with
/// [`StorageError::Io`], also when another takes its place: open a new storage
/// there.
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
///
/// [`verify_on_resume`]: FileStorageBuilder::verify_on_resume
///
#[doc = include_str!("FORMAT.md")]
#[derive(Debug, Clone)]
pub struct FileStorage(Arc<Place<Dir>>);

/// Options for a [`FileStorage`].
///
/// ```no_run
/// use bt_lite::FileStorage;
///
/// let storage = FileStorage::builder("downloads").preallocate(true).open()?;
/// # Ok::<(), bt_lite::StorageError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct FileStorageBuilder {
    path: PathBuf,
    options: Options,
}

impl FileStorage {
    /// Opens a directory as a storage, and creates it, with those above it, if
    /// it is missing. Blocks for a moment.
    ///
    /// # Errors
    /// [`StorageError::Io`] when it is no directory, or cannot be created or
    /// opened.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::builder(dir).open()
    }

    /// A storage with options.
    pub fn builder(dir: impl AsRef<Path>) -> FileStorageBuilder {
        FileStorageBuilder {
            path: dir.as_ref().to_path_buf(),
            options: Options::default(),
        }
    }
}

impl FileStorageBuilder {
    /// Whether a download takes all of its room when it starts, so that it
    /// cannot run out of it later. By default (`false`) the file is sparse, and
    /// grows with what is written. Where the file system cannot do it the file
    /// stays sparse.
    pub fn preallocate(mut self, preallocate: bool) -> Self {
        self.options.preallocate = preallocate;
        self
    }

    /// Whether taking up an interrupted download reads and verifies all that is
    /// there, whatever the journal says: those chunks and no others are present
    /// then. This takes as long as hashing the content, and also finds what the
    /// journal lost. `false` by default.
    pub fn verify_on_resume(mut self, verify: bool) -> Self {
        self.options.verify_on_resume = verify;
        self
    }

    /// Opens the storage: as [`FileStorage::open`].
    ///
    /// # Errors
    /// Those of [`FileStorage::open`].
    pub fn open(self) -> Result<FileStorage, StorageError> {
        let path = self.path;
        let opened = create_durably(&path).and_then(|()| Dir::open(&path));
        let dir =
            opened.map_err(|e| StorageError::io(format!("opening {}", path.display()), &e))?;
        Ok(FileStorage(Arc::new(Place::new(dir, path, self.options))))
    }
}

/// Opens a file of the user's, wherever it is, for reading: what a peer needs
/// to share it. Follows links, as it was asked for by its path.
///
/// The file must not change while it is open: once its length or modification
/// time does, reads fail.
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
        Ok(Arc::new(ReadBlob::new(file, path, None)?) as Arc<dyn Blob>)
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
        self.check_name(name)?;
        let id = manifest.id();
        let (place, name) = (self.0.clone(), name.clone());
        let Some(claim) = place.writers.claim(id) else {
            // What has the name says more than what has the lock.
            let locked = move || place.check_free(&name, id).and(Err(place.locked(id)));
            return blob::run(locked).await;
        };
        let turn = claim.turn().await;
        let manifest = manifest.clone();
        let resumed =
            blob::run(move || Place::open_part(place, name, manifest, Some(turn))).await?;
        let verified = match resumed.verified {
            true => resumed.present.clone(),
            false => Bitfield::none(resumed.present.chunks()),
        };
        Ok(Partial {
            untouched: resumed.part.is_proven(),
            blob: Arc::new(PartBlob::new(resumed.part, claim)),
            present: resumed.present,
            verified,
        })
    }

    fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
        check_free_for_use(name)?;
        name.check_file_name().map_err(|reason| {
            let name = name.clone();
            StorageError::UnsafeName { name, reason }
        })
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        check_readable(name)?;
        let (place, name) = (self.0.clone(), name.clone());
        blob::run(move || {
            let path = place.path.join(name.as_str());
            match place.dir.open_existing(name.as_str()) {
                Ok(file) => {
                    let blob = ReadBlob::new(file, path, Some(place.clone()))?;
                    Ok(Arc::new(blob) as Arc<dyn Blob>)
                }
                Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                    Err(StorageError::NotFound { name })
                }
                Err(error) => Err(refused(&path, "opening", error)),
            }
        })
        .await
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        let Some(stamp) = stored.blob.file() else {
            return Ok(());
        };
        let (place, stored) = (self.0.clone(), stored.clone());
        blob::run(move || place.remember(stored.name, stored.listed_as, stored.manifest, stamp))
            .await
    }

    async fn forget(&self, name: &ContentName) -> Result<(), StorageError> {
        let (place, name) = (self.0.clone(), name.clone());
        blob::run(move || place.forget(&name)).await
    }

    async fn catalogue(&self) -> Result<Vec<Stored>, StorageError> {
        let place = self.0.clone();
        blob::run(move || place.catalogue()).await
    }
}

/// Fails for a name that the storage keeps for itself.
fn check_free_for_use(name: &ContentName) -> Result<(), StorageError> {
    match is_reserved(name.as_str()) {
        true => Err(StorageError::Reserved { name: name.clone() }),
        false => Ok(()),
    }
}

/// Fails for a name under which something else than a file of this directory
/// would be read.
fn check_readable(name: &ContentName) -> Result<(), StorageError> {
    check_free_for_use(name)?;
    Dir::check_readable(name).map_err(|reason| {
        let name = name.clone();
        StorageError::UnsafeName { name, reason }
    })
}

/// What a file that the storage keeps for itself is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suffix {
    Part,
    Journal,
    Manifest,
}

/// The parts of a name that the storage keeps for itself: a hash, and what the
/// file is for. In either case, as a file system may not tell the two apart.
fn reserved_id(name: &str) -> Option<(ContentId, Suffix)> {
    let (id, ending) = name.split_at_checked(2 * ContentId::LEN)?;
    let id = id.parse().ok()?;
    let suffixes = [
        (".part", Suffix::Part),
        (".journal", Suffix::Journal),
        (".manifest", Suffix::Manifest),
    ];
    suffixes
        .into_iter()
        .find(|(reserved, _)| ending.eq_ignore_ascii_case(reserved))
        .map(|(_, suffix)| (id, suffix))
}

/// Whether a file of this name could be one that the storage keeps for itself. A
/// file system that ignores case may take other letters than ASCII for one of
/// an ending's, too.
fn is_reserved(name: &str) -> bool {
    let foreign = |(id, ending): (&str, &str)| {
        id.parse::<ContentId>().is_ok() && ending.starts_with('.') && !ending.is_ascii()
    };
    reserved_id(name).is_some()
        || name
            .split_at_checked(2 * ContentId::LEN)
            .is_some_and(foreign)
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
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match path.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        },
        Err(e) => Err(e),
        Ok(()) => Dir::open(above)?.sync(),
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
            format!("{id}.manifest"),
            format!("{}.PART", id.to_uppercase()),
        ] {
            assert!(reserved_id(&reserved).is_some(), "{reserved}");
            assert!(is_reserved(&reserved), "{reserved}");
        }
        // A long s is an s where case is ignored.
        assert!(is_reserved(&format!("{id}.manife\u{17f}t")));
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
}
