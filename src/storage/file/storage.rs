//! The file storage as its users see it.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;

use super::blocking::{run, run_short};
use super::catalogue::FileCatalogue;
use super::dir::Dir;
use super::disk::{Disk, Refused};
use super::draft::{DraftFile, FileDraft};
use super::failure::{failed, refused};
use super::folder::folders::Folders;
use super::names::{PartialNames, is_reserved};
use super::partial_blob::PartialBlob;
use super::partial_file::{PartialFile, Resumed};
use super::paused;
use super::pool::FilePool;
use super::read_blob::{Located, Location, ReadBlob};
use super::recovery::RecoveryOptions;
use super::removal::discard;
use super::short_file::ShortFile;
use super::short_writes::ShortWrites;
use super::stamp::FileStamp;
use super::storage_dir::{StorageDir, Taken};
use super::writers::{WriteClaim, Writers};
use crate::content::{ContentId, ContentName, Manifest};
use crate::storage::{
    Blob, Catalogue, Draft, FilePoolStats, Partial, PausedDownload, PausedId, Storage,
    StorageError, Stored,
};

/// Contents as files in a directory. A clone is the same storage.
///
/// The file of a content has the name of the content. The storage also keeps
/// files of its own in the directory: `<content id>.part` for an unfinished
/// download, `<content id>.journal` for its state, and
/// `<64 hex digits>.catalogue` for the contents to
/// [remember](Storage::remember), and directories `<folder id>.folder` for
/// [folders](crate::Peer::download_folder), and `<64 hex digits>.draft` for a content
/// whose end has not come yet ([`Storage::draft`]). For a moment there is also
/// `<content id>.probe` or `<content id>.probed`. These names are reserved
/// ([`StorageError::Reserved`]), and so is `<64 hex digits>.manifest`, which earlier
/// versions used. Links and other entries that are not regular
/// files are left alone ([`StorageError::NotAFile`]).
///
/// # Names
/// A download cannot have a name that hides what the file is, or that means
/// something else on another system ([`ContentName::check_file_name`]):
/// [`Storage::create`] fails with [`StorageError::UnsafeName`]. A download by id
/// avoids such a name; see [`Peer::download`](crate::Peer::download). A file
/// that is already in the directory can be read, and so shared, under any name
/// that the system accepts.
///
/// A name can have its full length. If the file system does not accept such a
/// long name, creating the content fails with [`StorageError::Io`].
///
/// # Open files
/// A content that is finished, shared or remembered holds no file open: see
/// [`FilePool`], which also bounds how many files are open at the same time.
/// [`Blob::read_at`] and [`Storage::create`] wait while all places are taken, first
/// come, first served. An unfinished download holds its places until its blob is
/// dropped or the content is finished. The storage itself holds its directory
/// open, and a file of its catalogue once it has remembered something.
///
/// # Threads
/// Files are read and written on tokio's blocking threads, so the methods of
/// [`Storage`] and [`Blob`] must be called inside a tokio runtime with time
/// enabled; a current-thread one is enough. An operation that has started runs to its end
/// even if its future is dropped. Until then the file stays locked for other
/// processes and for other storages; this storage and its clones wait for it.
///
/// # Durability
/// Bytes written by [`Blob::write_at`] survive the process; a
/// [`Blob::commit`] makes all earlier writes survive the machine; after
/// [`Blob::finish`] the name survives as well. A failed sync may have lost any
/// earlier write, so afterwards the blob accepts no more writes, and repeats the
/// error. Create the content again to resume at the last commit. A content of one
/// chunk waits in memory until it is finished, and is locked for other processes
/// only then.
///
/// # Resuming
/// An interrupted download resumes at its last commit. One of a content that is
/// only one chunk (16 KiB) long starts anew. No chunk is hashed for that, unless [`verify_on_resume`] is set. If the file was not written to
/// after the last commit (the download was cancelled or shut down), it is
/// [`untouched`](Partial::untouched), and can be finished without verifying the
/// chunks that the journal lists. If it was written to (the process was killed,
/// or somebody altered the file), each of these chunks is verified once: when it
/// is first read as a whole, and at the latest when the content is finished.
/// If one is wrong, finishing fails with [`StorageError::Altered`], and only the
/// wrong chunks are lost.
///
/// # Changed files
/// A content that is open for reading is found again by its name, and a file of
/// the user by its path, each time that it is read. If the length or the
/// modification time is another one then, or there is no file any more, reads fail
/// with [`StorageError::Changed`]. A
/// [remembered](Storage::remember) file is recognized by the same two
/// properties. If the file may have changed within the resolution of its
/// modification time, it is hashed instead. The limit: if bytes were altered,
/// the length is the same, and the modification time was set back (on purpose,
/// or by a tool that copies times), then the altered bytes are served; peers
/// that fetch them detect this.
///
/// # Unfinished files that change
/// A download looks at each commit, and before it is finished, whether its unfinished
/// file is still there, is the one that is written, and has its length. If somebody
/// else has removed, replaced or truncated it or its journal, it fails with
/// [`StorageError::Tampered`]; the next one keeps the chunks that are left. Bytes
/// that are altered in place are not detected.
///
/// # Files that are not what they seem
/// A file that reads longer or shorter than the system says, as those of procfs and
/// sysfs do, is refused with [`StorageError::WrongLength`], when it is opened or
/// read.
///
/// # File systems
/// The first download finds out what the file system can do, before a byte is
/// written. A finished file gets its name by a rename that replaces nothing or,
/// where there is none, by a hard link. Where there are no hard links either (some
/// FUSE, SMB and Android mounts), the name is taken by an empty file, which is then
/// replaced. That is a weaker promise: another program that replaces the empty file
/// at that very moment loses its own, other programs may see an empty file for a
/// moment, and after a crash in that moment an empty file remains. It has to be
/// removed before the content can be downloaded under that name.
///
/// Where files cannot be locked, downloads fail with [`StorageError::NoLocks`]. A
/// file system that does not state how much space it has is not taken for a full
/// one.
///
/// # Moved and removed directories
/// The directory is held open, so it can be moved. When it or its volume is
/// removed, every operation fails with [`StorageError::Io`], or
/// [`StorageError::Tampered`] for an unfinished download, even if another directory
/// takes its place: open a new storage there.
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
pub struct FileStorage {
    dir: Arc<StorageDir<Dir>>,
    catalogue: Arc<FileCatalogue>,
    writers: Arc<Writers>,
    pool: FilePool,
    options: RecoveryOptions,
    /// Where contents of one chunk are finished.
    writes: Arc<ShortWrites>,
    /// Those in other directories, as long as they are used.
    siblings: Siblings,
}

/// Storages in other directories, by their paths. Entries that are not used any more go
/// when one is added.
type Siblings = Arc<Mutex<HashMap<PathBuf, Weak<FileStorage>>>>;

/// Builds a [`FileStorage`] with options.
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
    pool: FilePool,
    options: RecoveryOptions,
}

impl FileStorage {
    /// Opens a directory as a storage. Creates the directory and its parents if
    /// they are missing. Blocks for a moment.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the path is not a directory, or cannot be
    /// created or opened.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::builder(dir).open()
    }

    /// Starts to build a storage with options.
    pub fn builder(dir: impl AsRef<Path>) -> FileStorageBuilder {
        FileStorageBuilder {
            path: dir.as_ref().to_path_buf(),
            pool: FilePool::shared(),
            options: RecoveryOptions::default(),
        }
    }
}

impl FileStorageBuilder {
    /// Whether a download reserves all of its space when it starts, so that it
    /// cannot run out of space later. By default (`false`) the file is sparse,
    /// and grows as it is written. If the file system cannot reserve space, the
    /// file stays sparse.
    pub fn preallocate(mut self, preallocate: bool) -> Self {
        self.options.preallocate = preallocate;
        self
    }

    /// Whether resuming a download reads and verifies the whole file, whatever
    /// the journal says. Then exactly the correct chunks are present, including
    /// those that the journal does not list. This takes as long as hashing the
    /// content. `false` by default.
    pub fn verify_on_resume(mut self, verify: bool) -> Self {
        self.options.verify = verify;
        self
    }

    /// Opens files in this pool, which bounds how many of them are open. By
    /// default this is [`FilePool::shared`].
    pub fn file_pool(mut self, pool: FilePool) -> Self {
        self.pool = pool;
        self
    }

    /// Opens the storage, like [`FileStorage::open`].
    ///
    /// # Errors
    /// Those of [`FileStorage::open`].
    pub fn open(self) -> Result<FileStorage, StorageError> {
        let path = self.path;
        let opened = create_durably(&path).and_then(|()| Dir::open(&path));
        let disk = opened.map_err(|e| failed("opening", &path, e))?;
        let dir = Arc::new(StorageDir::new(disk, path));
        Ok(FileStorage {
            catalogue: Arc::new(FileCatalogue::new(Arc::clone(&dir))),
            dir,
            writers: Arc::default(),
            pool: self.pool,
            options: self.options,
            writes: Arc::default(),
            siblings: Arc::default(),
        })
    }
}

/// Opens any file of the user for reading, for example to share it. Follows
/// links. The file is open only while it is read, in the
/// [shared pool](FilePool::shared).
///
/// The file must not change: after its length or modification time has changed,
/// or when it is gone, reads fail.
///
/// Cancel safe. This function and the methods of the blob must be called inside
/// a tokio runtime with time enabled.
///
/// # Errors
/// [`StorageError::NotAFile`] when the path refers to a directory, pipe, socket or
/// device, [`StorageError::WrongLength`] when the file goes on after its end, and
/// [`StorageError::Io`] when there is no file, or it cannot be read. A file that ends
/// too early is a [`StorageError::WrongLength`] when it is read.
pub async fn open_file(path: impl AsRef<Path>) -> Result<Arc<dyn Blob>, StorageError> {
    let path = path.as_ref();
    // The working directory may be another one when the file is opened again.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let location = Located {
        pool: Arc::clone(FilePool::shared().pool()),
        at: Location::AtPath(absolute.into()),
    };
    let blob = ReadBlob::open(location, |path, error| refused("opening", path, error));
    Ok(Arc::new(blob.await?))
}

impl FileStorage {
    /// A storage in a directory of its own within that of another one.
    pub(super) fn within(dir: Arc<StorageDir<Dir>>, folders: &Folders) -> Self {
        Self {
            catalogue: Arc::new(FileCatalogue::new(Arc::clone(&dir))),
            dir,
            writers: Arc::default(),
            pool: folders.pool.clone(),
            options: folders.options,
            writes: Arc::default(),
            siblings: Arc::default(),
        }
    }

    fn located(&self, name: &ContentName) -> Located {
        Located {
            pool: Arc::clone(self.pool.pool()),
            at: Location::InDir(Arc::clone(&self.dir), name.clone()),
        }
    }

    /// Runs file operations on a thread that may block, again if the system has
    /// no descriptor left.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&Self) -> Result<T, StorageError> + Send + Sync + 'static,
    ) -> Result<T, StorageError> {
        let work = Arc::new(work);
        let repeated = || {
            let (this, work) = (self.clone(), Arc::clone(&work));
            run(move || work(&this))
        };
        self.pool.pool().retry(repeated).await
    }

    /// Prepares a claimed content of one chunk. Its file is made when it is finished.
    async fn create_short(
        &self,
        name: &ContentName,
        manifest: &Manifest,
        claim: WriteClaim,
        options: RecoveryOptions,
    ) -> Result<Partial, StorageError> {
        let (dir, free, id) = (Arc::clone(&self.dir), name.clone(), manifest.id());
        run_short(move || dir.check_target(&free, id, options.taken)).await?;
        let file = ShortFile {
            dir: Arc::clone(&self.dir),
            pool: Arc::clone(self.pool.pool()),
            name: name.clone(),
            manifest: manifest.clone(),
            options,
            permit: Arc::new(claim.file_permit().await),
            target: self.located(name),
        };
        let blob = PartialBlob::short(file, claim, Arc::clone(&self.writes));
        Ok(Partial::empty(Arc::new(blob), 1))
    }

    /// Opens a claimed content for writing.
    async fn open_partial(
        &self,
        name: &ContentName,
        manifest: &Manifest,
        claim: &WriteClaim,
        options: RecoveryOptions,
    ) -> Result<Resumed<Dir>, StorageError> {
        let pool = self.pool.pool();
        let files = PartialFile::<Dir>::files(manifest);
        pool.retry(|| async {
            let permit = Arc::new(claim.file_permit().await);
            let places = pool.writer_places(files).await;
            let dir = Arc::clone(&self.dir);
            let (name, manifest) = (name.clone(), manifest.clone());
            run(move || {
                let permits = (Some(permit), Some(places));
                PartialFile::open(dir, name, manifest, options, permits)
            })
            .await
        })
        .await
    }

    /// Opens a content for writing.
    async fn create_with(
        &self,
        name: &ContentName,
        manifest: &Manifest,
        options: RecoveryOptions,
    ) -> Result<Partial, StorageError> {
        self.check_name(name)?;
        let id = manifest.id();
        let Some(claim) = self.writers.claim(id) else {
            // If the name is taken as well, that error is more useful.
            let name = name.clone();
            let locked = self.run(move |this| {
                let free = this.dir.check_target(&name, id, options.taken);
                free.and(Err(this.dir.locked(id)))
            });
            return locked.await;
        };
        let begins_now = options.preallocate || options.verify;
        if manifest.geometry().chunks() == 1 && !begins_now {
            return self.create_short(name, manifest, claim, options).await;
        }
        let resumed = self.open_partial(name, manifest, &claim, options).await?;
        let untouched = resumed.file.is_proven();
        let writes = Arc::clone(&self.writes);
        let blob = PartialBlob::new(resumed.file, self.located(name), claim, writes);
        let partial = Partial::resumed(Arc::new(blob), resumed.present);
        Ok(partial.verified(resumed.verified).untouched(untouched))
    }

    /// The storage in another directory, with the pool and the options of this one.
    fn sibling(&self, path: PathBuf) -> Result<Arc<Self>, StorageError> {
        if let Ok(kind) = std::fs::metadata(&path)
            && !kind.is_dir()
        {
            return Err(StorageError::NotADirectory { path });
        }
        create_durably(&path).map_err(|e| not_created(&path, e))?;
        let real = |path: &Path| std::fs::canonicalize(path);
        let path = real(&path).map_err(|e| failed("opening", &path, e))?;
        if real(self.dir.path()).is_ok_and(|own| own == path) {
            return Ok(Arc::new(self.clone()));
        }
        let siblings = self.siblings.lock();
        let mut siblings = siblings.unwrap_or_else(PoisonError::into_inner);
        if let Some(sibling) = siblings.get(&path).and_then(Weak::upgrade) {
            return Ok(sibling);
        }
        let mut sibling = FileStorageBuilder {
            path: path.clone(),
            pool: self.pool.clone(),
            options: self.options,
        }
        .open()?;
        sibling.siblings = Arc::clone(&self.siblings);
        let sibling = Arc::new(sibling);
        siblings.retain(|_, sibling| sibling.strong_count() > 0);
        siblings.insert(path, Arc::downgrade(&sibling));
        Ok(sibling)
    }
}

#[async_trait]
impl Storage for FileStorage {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.create_with(name, manifest, self.options).await
    }

    async fn create_replacing(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let options = RecoveryOptions {
            taken: Taken::Replaced,
            ..self.options
        };
        self.create_with(name, manifest, options).await
    }

    async fn draft(&self, name: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
        self.check_name(name)?;
        let places = self.pool.pool().writer_places(1).await;
        let named = name.clone();
        let begin = move |this: &Self| DraftFile::begin(Arc::clone(&this.dir), named.clone());
        let file = self.run(begin).await?;
        Ok(Box::new(FileDraft::new(file, self.located(name), places)))
    }

    async fn in_directory(&self, path: &Path) -> Result<Arc<dyn Storage>, StorageError> {
        let leads_out = |part| matches!(part, Component::ParentDir);
        if path.is_relative() && path.components().any(leads_out) {
            let what = "looking for a directory within that of the storage";
            return Err(StorageError::io(what, io::ErrorKind::InvalidInput).at(path));
        }
        let path = self.dir.path().join(path);
        let this = self.clone();
        let sibling = run(move || this.sibling(path)).await?;
        Ok(sibling)
    }

    fn path(&self, name: &ContentName) -> Option<PathBuf> {
        Some(self.dir.path_of(name.as_str()))
    }

    fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
        check_unreserved(name)?;
        name.check_file_name().map_err(|reason| {
            let name = name.clone();
            StorageError::UnsafeName { name, reason }
        })
    }

    fn folders(&self) -> Option<Folders> {
        Some(Folders {
            dir: Arc::clone(&self.dir),
            pool: self.pool.clone(),
            options: self.options,
        })
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        let (dir, names) = (self.dir.clone(), PartialNames::of(*id));
        let kind = run_short(move || Ok(dir.disk.kind(&names.data)));
        matches!(kind.await, Ok(Ok(Some(_))))
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        let id = *id;
        let Some(claim) = self.writers.claim(id) else {
            return Err(self.dir.locked(id));
        };
        let permit = Arc::new(claim.file_permit().await);
        self.run(move |this| {
            let _permit = &permit;
            discard(&this.dir, id)
        })
        .await
    }

    fn open_files(&self) -> Option<FilePoolStats> {
        Some(self.pool.stats())
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        check_readable(name)?;
        let not_found = StorageError::NotFound { name: name.clone() };
        let opened = ReadBlob::open(self.located(name), move |path, error| match error {
            Refused::Io(e) if e.kind() == io::ErrorKind::NotFound => not_found.clone(),
            error => refused("opening", path, error),
        });
        Ok(Arc::new(opened.await?))
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        if stored.manifest.is_torrent() {
            let what = "recording the manifest of a torrent";
            return Err(StorageError::Unsupported { what });
        }
        let Some(file) = stored.blob.file() else {
            return Ok(());
        };
        let stored = stored.clone();
        self.run(move |this| this.catalogue.remember(&stored, &file))
            .await
    }

    async fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
        let (name, id) = (name.clone(), *id);
        self.run(move |this| this.catalogue.forget(&name, &id))
            .await
    }

    async fn remove(
        &self,
        name: &ContentName,
        id: &ContentId,
        known: Option<&FileStamp>,
    ) -> Result<(), StorageError> {
        check_readable(name)?;
        let (name, id, known) = (name.clone(), *id, known.cloned());
        self.run(move |this| this.catalogue.remove(&name, &id, known.as_ref()))
            .await
    }

    async fn remember_paused(&self, paused: &PausedDownload) -> Result<(), StorageError> {
        let paused = paused.clone();
        self.run(move |this| paused::remember(&this.dir, &paused))
            .await
    }

    async fn forget_paused(&self, id: &PausedId) -> Result<(), StorageError> {
        let id = *id;
        self.run(move |this| paused::forget(&this.dir, id)).await
    }

    async fn paused(&self) -> Result<Vec<PausedDownload>, StorageError> {
        self.run(|this| paused::all(&this.dir)).await
    }

    async fn catalogue(&self) -> Result<Catalogue, StorageError> {
        self.run(|this| this.catalogue.contents(this.pool.pool()))
            .await
    }

    async fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        let (name, id) = (name.clone(), *id);
        self.run(move |this| this.catalogue.manifest(&name, &id))
            .await
    }
}

/// Fails for a reserved name.
fn check_unreserved(name: &ContentName) -> Result<(), StorageError> {
    match is_reserved(name.as_str()) {
        true => Err(StorageError::Reserved { name: name.clone() }),
        false => Ok(()),
    }
}

/// Fails for a name that the system would not take for the name of a file in
/// this directory.
fn check_readable(name: &ContentName) -> Result<(), StorageError> {
    check_unreserved(name)?;
    Dir::check_readable(name).map_err(|reason| {
        let name = name.clone();
        StorageError::UnsafeName { name, reason }
    })
}

/// The error of a directory that could not be created: also if one of its parents is a
/// file.
fn not_created(path: &Path, error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::NotADirectory => StorageError::NotADirectory {
            path: path.to_path_buf(),
        },
        _ => failed("creating", path, error),
    }
}

/// Creates a directory and its parents, and makes each name durable.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match path.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        },
        Err(e) => Err(e),
        Ok(()) => Dir::open(parent)?.sync(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::dir::times;
    use super::*;

    #[test]
    fn each_directory_that_is_made_has_a_durable_name() {
        let root = tempfile::tempdir().unwrap();
        create_durably(&root.path().join("a/b")).unwrap();
        assert!(root.path().join("a/b").is_dir());
        for above in ["", "a"] {
            assert!(times(&root.path().join(above)).synced > 0, "{above}");
        }
    }
}
