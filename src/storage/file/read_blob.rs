//! The blob of a finished file. It is small, and open only while it is read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::{run, run_on, run_short};
use super::dir::{DataFile, Dir, open_path};
use super::disk::{Disk, DiskFile, FileStat, Refused};
use super::failure::{failed, refused};
use super::folder::tree_root::TreeRoot;
use super::pool::{FileKey, Place, Pool, PooledFile};
use super::stamp::{FileStamp, Stamp};
use super::storage_dir::StorageDir;
use crate::content::{Bitfield, ContentName, FolderPath};
use crate::storage::{Blob, StorageError, check_range};

/// Where a file is, and the pool that it is opened in.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) pool: Arc<Pool<DataFile>>,
    pub(super) at: Location,
}

/// Where a file is.
#[derive(Clone)]
pub(super) enum Location {
    /// In the directory of a storage, under this name.
    InDir(Arc<StorageDir<Dir>>, ContentName),
    /// Anywhere.
    AtPath(Box<Path>),
    /// In the tree of a folder.
    InTree(TreeRoot, FolderPath),
}

impl Location {
    /// The path of the file: for messages only, as a directory may have moved.
    fn path(&self) -> PathBuf {
        match self {
            Self::InDir(dir, name) => dir.path_of(name.as_str()),
            Self::AtPath(path) => path.to_path_buf(),
            Self::InTree(root, path) => root.path_of(path),
        }
    }

    fn open(&self) -> Result<DataFile, Refused> {
        match self {
            Self::InDir(dir, name) => dir.disk.open_existing(name.as_str()),
            Self::AtPath(path) => open_path(path),
            Self::InTree(root, path) => root.open_file(path),
        }
    }
}

/// A file that can be read. Reads fail when it changes.
#[derive(Clone)]
pub(super) struct ReadBlob(Arc<ReadFile>);

struct ReadFile {
    location: Located,
    key: FileKey,
    stamp: Stamp,
}

/// What a read starts with.
enum Start {
    /// The file is open.
    Open(Arc<PooledFile<DataFile>>),
    /// The file may be opened.
    Place(Place),
}

/// How long an operation takes.
#[derive(Clone, Copy)]
enum Takes {
    /// As long as to read this many bytes.
    Bytes(usize),
    /// Long.
    Long,
}

impl ReadBlob {
    /// A file that must still have this stamp when it is read.
    pub(super) fn new(location: Located, stamp: Stamp) -> Self {
        let key = location.pool.new_key();
        Self(Arc::new(ReadFile {
            location,
            key,
            stamp,
        }))
    }

    /// Opens a file for the first time.
    ///
    /// # Errors
    /// The error that `not_opened` makes of the path and the cause.
    pub(super) async fn open(
        location: Located,
        not_opened: impl Fn(&Path, Refused) -> StorageError + Send + Sync + 'static,
    ) -> Result<Self, StorageError> {
        let pool = Arc::clone(&location.pool);
        let not_opened = Arc::new(not_opened);
        pool.retry(|| async {
            let (location, place) = (location.clone(), pool.place().await);
            let not_opened = Arc::clone(&not_opened);
            run_short(move || {
                let path = location.at.path();
                let file = location.at.open().map_err(|e| not_opened(&path, e))?;
                let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
                check_end(&file, &stat, &path)?;
                let blob = Self::new(location, Stamp::of(&stat));
                blob.0.location.pool.keep(blob.0.key, file, place);
                Ok(blob)
            })
            .await
        })
        .await
    }

    /// Runs an operation on the open file, and then checks that the file is
    /// still the same. If it is, it was unchanged during the operation.
    async fn with_file<T: Send + 'static>(
        &self,
        takes: Takes,
        operation: impl Fn(&ReadFile, &DataFile) -> Result<T, StorageError> + Send + Sync + 'static,
    ) -> Result<T, StorageError> {
        let operation = Arc::new(operation);
        let pool = &self.0.location.pool;
        pool.retry(|| async {
            let start = match pool.open_file(self.0.key) {
                Some(file) => Start::Open(file),
                None => Start::Place(pool.place().await),
            };
            let (this, operation) = (Arc::clone(&self.0), Arc::clone(&operation));
            let work = move || {
                let file = this.opened(start)?;
                let done = operation(&this, &file);
                let same = this.check(&file);
                if same.is_err() {
                    // The next read looks what is there by then.
                    this.location.pool.close(this.key);
                }
                same?;
                done
            };
            match takes {
                Takes::Bytes(len) => run_on(len, work).await,
                Takes::Long => run(work).await,
            }
        })
        .await
    }
}

impl ReadFile {
    fn opened(&self, start: Start) -> Result<Arc<PooledFile<DataFile>>, StorageError> {
        let place = match start {
            Start::Open(file) => return Ok(file),
            Start::Place(place) => place,
        };
        match self.location.at.open() {
            Ok(file) => Ok(self.location.pool.keep(self.key, file, place)),
            // Gone, or replaced by something that is not a file.
            Err(Refused::Kind(_)) => Err(self.changed()),
            Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => Err(self.changed()),
            Err(error) => Err(refused("opening", &self.location.at.path(), error)),
        }
    }

    /// Checks that the open file is still the same, and still has its name.
    fn check(&self, file: &DataFile) -> Result<(), StorageError> {
        let path = || self.location.at.path();
        if self.stamp.check(file, path)?.linked {
            return Ok(());
        }
        match self.location.at.open() {
            Ok(again) => self.stamp.check(&again, path).map(drop),
            Err(Refused::Kind(_)) => Err(self.changed()),
            Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => Err(self.changed()),
            Err(error) => Err(refused("opening", &path(), error)),
        }
    }

    fn changed(&self) -> StorageError {
        StorageError::Changed {
            path: self.location.at.path(),
        }
    }
}

/// Checks that a file ends where the system says. To read past the end costs no
/// access to the disk; that nothing is missing before it shows when it is read.
fn check_end(file: &DataFile, stat: &FileStat, path: &Path) -> Result<(), StorageError> {
    match file.read_at(stat.len, 1) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(e) => return Err(failed("reading", path, e)),
        Ok(_) => {}
    }
    let stamp = Stamp::of(stat);
    // It may have grown since it was examined.
    stamp.check(file, || path.to_path_buf())?;
    Err(stamp.wrong_length(path.to_path_buf()))
}

impl Drop for ReadFile {
    fn drop(&mut self) {
        self.location.pool.close(self.key);
    }
}

#[async_trait]
impl Blob for ReadBlob {
    fn length(&self) -> u64 {
        self.0.stamp.len
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.0.stamp.len)?;
        self.with_file(Takes::Bytes(len), move |this, file| {
            file.read_at(offset, len).map_err(|e| {
                let path = this.location.at.path();
                match e.kind() {
                    // If the file has become shorter, that is told by its stamp.
                    io::ErrorKind::UnexpectedEof => this.stamp.wrong_length(path),
                    _ => failed("reading", &path, e),
                }
            })
        })
        .await
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        check_range(offset, len as u64, self.0.stamp.len).ok()?;
        let file = self.0.location.pool.open_file(self.0.key)?;
        let bytes = file.read_cached(offset, len)?;
        self.0.check(&file).ok()?;
        Some(bytes)
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.0.stamp.len)?;
        Err(StorageError::ReadOnly)
    }

    async fn commit(&self, _verified: &Bitfield) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    async fn finish(&self) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    async fn sync(&self) -> Result<(), StorageError> {
        if let Location::AtPath(_) | Location::InTree(..) = self.0.location.at {
            return Ok(());
        }
        let sync = |this: &ReadFile, file: &DataFile| match &this.location.at {
            Location::InDir(dir, name) => dir.make_durable(file, &dir.path_of(name.as_str())),
            Location::AtPath(_) | Location::InTree(..) => Ok(()),
        };
        self.with_file(Takes::Long, sync).await
    }

    fn file(&self) -> Option<FileStamp> {
        Some(FileStamp {
            path: self.0.location.at.path(),
            stamp: self.0.stamp,
        })
    }

    fn release(&self) {
        self.0.location.pool.close(self.0.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_is_small() {
        // Each `Arc` has two counts beside its value.
        let counts = 2 * size_of::<usize>();
        let heap = size_of::<ReadBlob>() + counts + size_of::<ReadFile>() + counts;
        // The name is that of the content, and is not copied.
        assert!(heap <= 144, "{heap}");
    }
}
