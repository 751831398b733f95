//! The blob of a finished file. It is small, and open only while it is read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::run;
use super::dir::{DataFile, Dir, open_path};
use super::disk::{Disk, DiskFile, Refused};
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
            run(move || {
                let path = location.at.path();
                let file = location.at.open().map_err(|e| not_opened(&path, e))?;
                let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
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
            run(move || {
                let file = this.opened(start)?;
                let done = operation(&this, &file);
                let same = this.stamp.check(&**file, || this.location.at.path());
                if same.is_err() {
                    // The next read looks what is there by then.
                    this.location.pool.close(this.key);
                }
                same?;
                done
            })
            .await
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

    fn changed(&self) -> StorageError {
        StorageError::Changed {
            path: self.location.at.path(),
        }
    }
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
        self.with_file(move |this, file| {
            let read = file.read_at(offset, len);
            read.map_err(|e| failed("reading", &this.location.at.path(), e))
        })
        .await
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
        self.with_file(|this, file| match &this.location.at {
            Location::InDir(dir, name) => dir.make_durable(file, &dir.path_of(name.as_str())),
            Location::AtPath(_) | Location::InTree(..) => Ok(()),
        })
        .await
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
