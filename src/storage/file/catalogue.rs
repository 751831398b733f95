//! The finished contents that a storage remembers, so that they are offered
//! again after a restart without being hashed again. Everything here blocks.
//!
//! Each content name has one record, in the file `<BLAKE3 of the name>.manifest`
//! in the directory of the storage. The key is the name because a name refers to
//! one content at a time: the record of another content replaces it. A record
//! is only a cache. One that is torn, or does not match its file, is ignored, so
//! it is written in place and needs no order of steps.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::dir::{DataFile, Dir, open_path};
use super::disk::{Disk, DiskFile, Refused};
use super::failure::{failed, failed_to_store, refused};
use super::names::{ReservedFile, parse_reserved, record_name};
use super::pool::Pool;
use super::read_blob::{Located, Location, ReadBlob};
use super::record::{MAX_RECORD_LEN, Record};
use super::stamp::{FileStamp, Stamp};
use super::storage_dir::StorageDir;
use crate::content::{ContentName, Manifest};
use crate::storage::{StorageError, Stored};

/// How much of a file is read at a time when it is hashed, in bytes.
const READ_LEN: usize = 1 << 20;

/// The records in the directory of a storage.
pub(super) struct Catalogue<'a>(&'a Arc<StorageDir<Dir>>);

impl<'a> Catalogue<'a> {
    pub(super) fn of(dir: &'a Arc<StorageDir<Dir>>) -> Self {
        Self(dir)
    }

    /// Records that a file is this content.
    pub(super) fn remember(
        &self,
        name: ContentName,
        listed_as: ContentName,
        manifest: Manifest,
        stamp: FileStamp,
    ) -> Result<(), StorageError> {
        let path = match stamp.path == self.0.path_of(name.as_str()) {
            true => None,
            false => Some(std::path::absolute(&stamp.path).unwrap_or(stamp.path)),
        };
        self.write(&Record {
            name,
            listed_as,
            path,
            len: stamp.stamp.len,
            modified: stamp.stamp.modified,
            settled: stamp.stamp.settled,
            manifest,
        })
    }

    fn write(&self, record: &Record) -> Result<(), StorageError> {
        let Some(bytes) = record.encode() else {
            return Ok(());
        };
        let (name, len) = (record_name(&record.name), bytes.len() as u64);
        let write = || -> Result<(), Refused> {
            let mark = self.0.mark();
            let file = self.0.disk.open_or_create(&name)?;
            // A file with a second hard link is an error: writing to it could
            // change a file outside the storage.
            if self.0.disk.is_at(&name, &file)? {
                file.set_len(0)?;
                file.write_at(0, &[bytes.into()])?;
                file.sync_data()?;
                self.0.sync(mark)?;
            }
            Ok(())
        };
        write().map_err(|error| match error {
            Refused::Io(error) => failed_to_store("writing", &self.0.path_of(&name), len, error),
            other => refused("writing", &self.0.path_of(&name), other),
        })
    }

    /// Removes the record of a name.
    pub(super) fn forget(&self, name: &ContentName) -> Result<(), StorageError> {
        let record = record_name(name);
        let mark = self.0.mark();
        match self.0.disk.remove(&record) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done
                .and_then(|()| self.0.sync(mark))
                .map_err(|e| failed("removing", &self.0.path_of(&record), e)),
        }
    }

    /// All remembered contents that have not changed. Removes the records of
    /// all others, and journals without a file.
    pub(super) fn stored(&self, pool: &Arc<Pool<DataFile>>) -> Result<Vec<Stored>, StorageError> {
        let names = self.0.disk.names();
        let mut names = names.map_err(|e| failed("listing", self.0.path(), e))?;
        names.sort_unstable();
        let mut stored = Vec::new();
        for name in names {
            match parse_reserved(&name) {
                Some((_, ReservedFile::Record)) => stored.extend(self.recall(&name, pool)),
                Some((id, ReservedFile::Journal)) => self.0.drop_orphaned_journal(id),
                _ => {}
            }
        }
        Ok(stored)
    }

    /// The content of one record, if its file has not changed.
    fn recall(&self, record_name: &str, pool: &Arc<Pool<DataFile>>) -> Option<Stored> {
        match self.try_recall(record_name, pool) {
            Ok(Some(stored)) => return Some(stored),
            Ok(None) => {
                tracing::debug!(record = record_name, "the content has changed or is gone");
                if let Err(error) = self.0.disk.remove(record_name) {
                    tracing::debug!(record = record_name, %error, "failed to remove the record");
                }
            }
            // The record stays: the file may be readable the next time.
            Err(error) => {
                tracing::warn!(record = record_name, %error, "failed to read the content")
            }
        }
        None
    }

    /// The content of one record; nothing if the record is invalid.
    fn try_recall(
        &self,
        name: &str,
        pool: &Arc<Pool<DataFile>>,
    ) -> Result<Option<Stored>, StorageError> {
        let bytes = self.read(name);
        let bytes = bytes.map_err(|e| refused("reading", &self.0.path_of(name), e))?;
        let record = Record::decode(bytes).filter(|record| record_name(&record.name) == name);
        let Some(record) = record else {
            return Ok(None);
        };
        let (path, opened) = self.open(&record);
        match opened {
            Ok(file) => self.check_recalled(record, file, path, pool),
            Err(Refused::Io(e)) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed("opening", &path, e))
            }
            Err(_) => Ok(None),
        }
    }

    fn read(&self, name: &str) -> Result<Bytes, Refused> {
        let file = self.0.disk.open_existing(name)?;
        let len = file.stat()?.len.min(MAX_RECORD_LEN);
        Ok(file.read_at(0, len as usize)?)
    }

    /// Opens the file of a record.
    fn open(&self, record: &Record) -> (PathBuf, Result<DataFile, Refused>) {
        match &record.path {
            None => {
                let name = record.name.as_str();
                (self.0.path_of(name), self.0.disk.open_existing(name))
            }
            Some(path) => (path.clone(), open_path(path)),
        }
    }

    fn check_recalled(
        &self,
        mut record: Record,
        file: DataFile,
        path: PathBuf,
        pool: &Arc<Pool<DataFile>>,
    ) -> Result<Option<Stored>, StorageError> {
        let stat = file.stat().map_err(|e| failed("examining", &path, e))?;
        let stamp = Stamp::of(&stat);
        let Stamp { len, modified, .. } = stamp;
        if (len, modified) != (record.len, record.modified) {
            return Ok(None);
        }
        if !record.settled {
            // The file may have changed without a new modification time.
            let read = SequentialRead { file: &file, at: 0 };
            let found = Manifest::from_reader(read, len);
            stamp.check(&file, || path.clone())?;
            if found.ok().as_ref() != Some(&record.manifest) {
                return Ok(None);
            }
            // From now on the modification time is enough, if it has settled by
            // now. If this cannot be recorded, the file is hashed again the
            // next time.
            record.settled = stamp.settled;
            if let Err(error) = self.write(&record) {
                tracing::debug!(name = %record.name, %error, "failed to update the record");
            }
        }
        let at = match &record.path {
            None => Location::InDir(Arc::clone(self.0), record.name.as_str().into()),
            Some(path) => Location::AtPath(path.as_path().into()),
        };
        let pool = Arc::clone(pool);
        let blob = Arc::new(ReadBlob::new(Located { pool, at }, stamp));
        let stored = Stored::new(record.name, record.manifest, blob);
        Ok(Some(stored.listed_as(record.listed_as)))
    }
}

/// Reads a file from its start to its end.
struct SequentialRead<'a> {
    file: &'a DataFile,
    at: u64,
}

impl io::Read for SequentialRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.stat()?.len.saturating_sub(self.at);
        let len = buffer
            .len()
            .min(READ_LEN)
            .min(left.min(READ_LEN as u64) as usize);
        let bytes = self.file.read_at(self.at, len)?;
        buffer[..len].copy_from_slice(&bytes);
        self.at += len as u64;
        Ok(len)
    }
}
