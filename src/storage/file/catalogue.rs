//! What the storage remembers of finished contents, so that they are offered
//! again after a restart without being hashed again.
//!
//! One record per content name, in the file `<BLAKE3 of the name>.manifest`
//! beside the contents: by name, because a name stands for one content at a
//! time, and its record goes when another takes the name. A record is a
//! convenience: one that is torn, or does not fit its file any more, is as
//! good as none, so it is written in place and needs no order of steps.
//!
//! The format is in `FORMAT.md`, which is part of the documentation of
//! [`FileStorage`](super::FileStorage).

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::blob::ReadBlob;
use super::dir::{DataFile, Dir, Refused, open_path};
use super::disk::{Disk, DiskFile, FileStat, Stamp};
use super::place::{Place, failed, refused};
use super::stamp::FileStamp;
use super::{Suffix, reserved_id};
use crate::content::{
    ChunkHash, ChunkIndex, ContentId, ContentName, LengthProof, MAX_CHUNKS, Manifest,
};
use crate::storage::{StorageError, Stored};

const MAGIC: [u8; 8] = *b"btl.mfst";
const VERSION: u32 = 2;
/// Read as well: it has no name of its own for trackers.
const VERSION_OF_ONE_NAME: u32 = 1;
const HASH_LEN: usize = 32;
/// The longest record, in bytes: the hashes of the longest content, and room
/// for the rest.
const MAX_RECORD_LEN: u64 = MAX_CHUNKS as u64 * HASH_LEN as u64 + (64 << 10);
/// How much of a file is read at a time when it has to be hashed, in bytes.
const READ_LEN: usize = 1 << 20;

/// What is remembered of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    name: ContentName,
    listed_as: ContentName,
    /// Where the file is, unless it is in the directory under the name.
    path: Option<PathBuf>,
    len: u64,
    modified: Stamp,
    settled: bool,
    manifest: Manifest,
}

impl Place<Dir> {
    /// Writes down that a file is this content.
    pub(super) fn remember(
        &self,
        name: ContentName,
        listed_as: ContentName,
        manifest: Manifest,
        stamp: FileStamp,
    ) -> Result<(), StorageError> {
        let path = match stamp.path == self.path.join(name.as_str()) {
            true => None,
            false => Some(std::path::absolute(&stamp.path).unwrap_or(stamp.path)),
        };
        let record = Record {
            name,
            listed_as,
            path,
            len: stamp.stat.len,
            modified: stamp.stat.modified,
            settled: stamp.settled,
            manifest,
        };
        if let Some(bytes) = encode(&record) {
            let name = record_name(&record.name);
            let len = bytes.len() as u64;
            self.write_record(&name, bytes)
                .map_err(|e| self.refused_record(&name, "writing", len, e))?;
        }
        Ok(())
    }

    fn write_record(&self, name: &str, bytes: Vec<u8>) -> Result<(), Refused> {
        let file = self.dir.open_or_create(name)?;
        // Not through a second name that somebody gave it.
        if self.dir.is_at(name, &file)? {
            file.set_len(0)?;
            file.write_at(0, &[bytes.into()])?;
            file.sync_data()?;
            self.sync()?;
        }
        Ok(())
    }

    /// Forgets what is remembered under a name.
    pub(super) fn forget(&self, name: &ContentName) -> Result<(), StorageError> {
        let record = record_name(name);
        match self.dir.remove(&record) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done
                .and_then(|()| self.sync())
                .map_err(|e| self.refused_record(&record, "removing", 0, e.into())),
        }
    }

    fn refused_record(&self, name: &str, doing: &str, len: u64, error: Refused) -> StorageError {
        let path = self.path.join(name);
        match error {
            Refused::Io(error) => failed(doing, &path, len, &error),
            other => refused(&path, doing, other),
        }
    }

    /// All that is remembered and still there, unchanged. Drops what is left
    /// over of contents that are not.
    pub(super) fn catalogue(&self) -> Result<Vec<Stored>, StorageError> {
        let mut names = self
            .dir
            .names()
            .map_err(|e| failed("listing", &self.path, 0, &e))?;
        names.sort_unstable();
        let mut stored = Vec::new();
        for name in names {
            match reserved_id(&name) {
                Some((_, Suffix::Manifest)) => stored.extend(self.recall(&name)),
                Some((id, Suffix::Journal)) => self.drop_orphan(id),
                _ => {}
            }
        }
        Ok(stored)
    }

    /// The content of one record, if its file is as it was.
    fn recall(&self, record_name: &str) -> Option<Stored> {
        match self.try_recall(record_name) {
            Ok(Some(stored)) => return Some(stored),
            Ok(None) => {
                tracing::debug!(record = record_name, "content changed or gone");
                if let Err(error) = self.dir.remove(record_name) {
                    tracing::debug!(record = record_name, %error, "record not dropped");
                }
            }
            // It may be there the next time.
            Err(error) => tracing::warn!(record = record_name, %error, "content not offered"),
        }
        None
    }

    /// Nothing if the record is void.
    fn try_recall(&self, name: &str) -> Result<Option<Stored>, StorageError> {
        let path = self.path.join(name);
        let read = || -> Result<Bytes, Refused> {
            let file = self.dir.open_existing(name)?;
            let len = file.stat()?.len.min(MAX_RECORD_LEN);
            Ok(file.read_at(0, len as usize)?)
        };
        let bytes = read().map_err(|e| refused(&path, "reading", e))?;
        let Some(record) = decode(bytes).filter(|record| record_name(&record.name) == name) else {
            return Ok(None);
        };
        let (path, opened) = match &record.path {
            None => {
                let path = self.path.join(record.name.as_str());
                (path, self.dir.open_existing(record.name.as_str()))
            }
            Some(path) => (path.clone(), open_path(path)),
        };
        let file = match opened {
            Ok(file) => file,
            Err(Refused::Io(e)) if e.kind() != io::ErrorKind::NotFound => {
                return Err(failed("opening", &path, 0, &e));
            }
            Err(_) => return Ok(None),
        };
        self.check_recalled(record, file, path)
    }

    fn check_recalled(
        &self,
        record: Record,
        file: DataFile,
        path: PathBuf,
    ) -> Result<Option<Stored>, StorageError> {
        let stamp = FileStamp::of(&file, path)?;
        let FileStat { len, modified, .. } = stamp.stat;
        if (len, modified) != (record.len, record.modified) {
            return Ok(None);
        }
        if !record.settled {
            let read = PositionRead { file: &file, at: 0 };
            let found = Manifest::from_reader(read, len);
            stamp.check(&file)?;
            if found.ok().as_ref() != Some(&record.manifest) {
                return Ok(None);
            }
            // From now on its modification time is enough, if it has settled.
            // Where that cannot be written down, it is hashed again.
            let (name, listed_as) = (record.name.clone(), record.listed_as.clone());
            let manifest = record.manifest.clone();
            if let Err(error) = self.remember(name, listed_as, manifest, stamp.clone()) {
                tracing::debug!(name = %record.name, %error, "record not written anew");
            }
        }
        Ok(Some(Stored {
            blob: std::sync::Arc::new(ReadBlob::with(file, stamp)),
            name: record.name,
            listed_as: record.listed_as,
            manifest: record.manifest,
        }))
    }
}

/// Reads a file from its start, position by position.
struct PositionRead<'a> {
    file: &'a DataFile,
    at: u64,
}

impl io::Read for PositionRead<'_> {
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

fn record_name(name: &ContentName) -> String {
    format!("{}.manifest", ContentId::of(name.as_str().as_bytes()))
}

/// Nothing for a path that cannot be written down.
fn encode(record: &Record) -> Option<Vec<u8>> {
    let manifest = &record.manifest;
    let path = match &record.path {
        None => &[][..],
        Some(path) => path_bytes(path)?,
    };
    let name = record.name.as_str().as_bytes();
    let proof = manifest.proof();
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(manifest.id().as_bytes());
    bytes.extend(record.len.to_le_bytes());
    bytes.extend(record.modified.to_bytes());
    bytes.push(record.settled.into());
    bytes.extend(u16::try_from(name.len()).ok()?.to_le_bytes());
    bytes.extend(name);
    let listed_as = match &record.listed_as {
        same if *same == record.name => &[],
        other => other.as_str().as_bytes(),
    };
    bytes.extend(u16::try_from(listed_as.len()).ok()?.to_le_bytes());
    bytes.extend(listed_as);
    bytes.extend(u32::try_from(path.len()).ok()?.to_le_bytes());
    bytes.extend(path);
    let chunks = manifest.geometry().chunks();
    bytes.extend(chunks.to_le_bytes());
    bytes.extend(manifest.hash_bytes(ChunkIndex(0)..ChunkIndex(chunks)));
    bytes.extend(u16::try_from(proof.leaf.len()).ok()?.to_le_bytes());
    bytes.extend(&proof.leaf);
    bytes.push(u8::try_from(proof.siblings.len()).ok()?);
    bytes.extend(proof.siblings.as_flattened());
    bytes.extend(blake3::hash(&bytes).as_bytes());
    Some(bytes)
}

fn decode(mut bytes: Bytes) -> Option<Record> {
    let body = bytes.len().checked_sub(HASH_LEN)?;
    let check = bytes.split_off(body);
    if blake3::hash(&bytes) != *<&[u8; HASH_LEN]>::try_from(&check[..]).ok()? {
        return None;
    }
    if take::<8>(&mut bytes)? != MAGIC {
        return None;
    }
    let version = bytes.try_get_u32_le().ok()?;
    if ![VERSION_OF_ONE_NAME, VERSION].contains(&version) {
        return None;
    }
    let id = ContentId::from_bytes(take(&mut bytes)?);
    let len = bytes.try_get_u64_le().ok()?;
    let modified = Stamp::from_bytes(take(&mut bytes)?);
    let settled = bytes.try_get_u8().ok()? != 0;
    let name_len = bytes.try_get_u16_le().ok()?;
    let name = ContentName::try_from(&split(&mut bytes, name_len.into())?[..]).ok()?;
    let listed_len = match version {
        VERSION => bytes.try_get_u16_le().ok()?,
        _ => 0,
    };
    let listed_as = match &split(&mut bytes, listed_len.into())?[..] {
        [] => name.clone(),
        listed_as => ContentName::try_from(listed_as).ok()?,
    };
    let path_len = bytes.try_get_u32_le().ok()?;
    let path = match &split(&mut bytes, path_len as usize)?[..] {
        [] => None,
        path => Some(bytes_path(path)?),
    };
    let count = bytes.try_get_u32_le().ok()? as usize;
    let hashes = hashes(&mut bytes, count)?;
    let leaf_len = bytes.try_get_u16_le().ok()?;
    let leaf = split(&mut bytes, leaf_len.into())?;
    let count = bytes.try_get_u8().ok()?.into();
    let siblings = self::hashes(&mut bytes, count)?;
    let proof = LengthProof { leaf, siblings };
    Some(Record {
        name,
        listed_as,
        path,
        len,
        modified,
        settled,
        manifest: Manifest::check(id, len, hashes, proof).ok()?,
    })
    .filter(|_| bytes.is_empty())
}

fn hashes(bytes: &mut Bytes, count: usize) -> Option<Vec<ChunkHash>> {
    let flat = split(bytes, count.checked_mul(HASH_LEN)?)?;
    let hash = |part: &[u8]| part.try_into().expect("cut to its length");
    Some(flat.chunks_exact(HASH_LEN).map(hash).collect())
}

fn take<const N: usize>(bytes: &mut Bytes) -> Option<[u8; N]> {
    let mut array = [0; N];
    bytes.try_copy_to_slice(&mut array).ok()?;
    Some(array)
}

fn split(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

#[cfg(unix)]
fn path_bytes(path: &Path) -> Option<&[u8]> {
    Some(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

#[cfg(unix)]
fn bytes_path(bytes: &[u8]) -> Option<PathBuf> {
    let path: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(bytes);
    Some(OsString::from(path).into())
}

#[cfg(not(unix))]
fn path_bytes(path: &Path) -> Option<&[u8]> {
    let path: &OsStr = path.as_os_str();
    path.to_str().map(str::as_bytes)
}

#[cfg(not(unix))]
fn bytes_path(bytes: &[u8]) -> Option<PathBuf> {
    let path = OsString::from(std::str::from_utf8(bytes).ok()?);
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &[u8]) -> Record {
        Record {
            name: "naïve 文件".parse().unwrap(),
            listed_as: "ubuntu.iso".parse().unwrap(),
            path: Some("/some/where".into()),
            len: content.len() as u64,
            modified: Stamp {
                seconds: -5,
                nanos: 7,
            },
            settled: true,
            manifest: Manifest::of(content).unwrap(),
        }
    }

    #[test]
    fn record_is_read_back_and_no_torn_or_altered_one() {
        for len in [0, 1, 40_000] {
            let mut record = record(&vec![9; len]);
            let other = record.listed_as.clone();
            for (path, listed_as) in [
                (None, other.clone()),
                (None, record.name.clone()),
                (Some("/some/where".into()), other),
            ] {
                (record.path, record.listed_as) = (path, listed_as);
                let bytes = encode(&record).unwrap();
                assert_eq!(decode(bytes.clone().into()).as_ref(), Some(&record));
                for cut in 0..bytes.len() {
                    assert_eq!(decode(bytes[..cut].to_vec().into()), None);
                    let mut altered = bytes.clone();
                    altered[cut] ^= 1;
                    assert_eq!(decode(altered.into()), None);
                }
            }
        }
    }

    #[test]
    fn record_of_version_1_is_read_as_one_of_one_name() {
        let mut record = record(&[7; 50]);
        record.listed_as = record.name.clone();
        let mut bytes = encode(&record).unwrap();
        bytes.truncate(bytes.len() - HASH_LEN);
        bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
        // Behind magic, version, id, length, time, and whether that had settled.
        let listed_at = 8 + 4 + 32 + 8 + 12 + 1 + 2 + record.name.as_str().len();
        assert_eq!(bytes.drain(listed_at..listed_at + 2).as_slice(), [0, 0]);
        bytes.extend(*blake3::hash(&bytes).as_bytes());
        assert_eq!(decode(bytes.into()), Some(record));
    }

    #[test]
    fn record_that_checks_and_makes_no_manifest_is_void() {
        let mut bytes = encode(&record(&[1; 100])).unwrap();
        bytes.truncate(bytes.len() - HASH_LEN);
        // The length is behind magic, version and id.
        bytes[44] ^= 1;
        bytes.extend(*blake3::hash(&bytes).as_bytes());
        assert_eq!(decode(bytes.into()), None);
    }
}
