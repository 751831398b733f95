//! The format of a record of a finished content, specified in `FORMAT.md`.
//! This module does no I/O.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::timestamp::Timestamp;
use crate::content::{
    ChunkHash, ChunkIndex, ContentId, ContentName, LengthProof, MAX_CHUNKS, Manifest,
};

const MAGIC: [u8; 8] = *b"btl.mfst";
const VERSION: u32 = 2;
/// This version is read as well. It has no separate name for trackers.
const VERSION_WITH_ONE_NAME: u32 = 1;
const HASH_LEN: usize = 32;
/// The maximum length of a record, in bytes: the hashes of the longest content,
/// and room for the rest.
pub(super) const MAX_RECORD_LEN: u64 = MAX_CHUNKS as u64 * HASH_LEN as u64 + (64 << 10);

/// What is recorded about one finished content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: ContentName,
    /// The name at trackers.
    pub(super) listed_as: ContentName,
    /// The path of the file; nothing if it is in the directory, under the name.
    pub(super) path: Option<PathBuf>,
    pub(super) len: u64,
    pub(super) modified: Timestamp,
    /// Whether every later change gives the file another modification time.
    pub(super) settled: bool,
    pub(super) manifest: Manifest,
}

impl Record {
    /// The bytes of the record; nothing if its path cannot be represented.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let manifest = &self.manifest;
        let path = match &self.path {
            None => &[][..],
            Some(path) => path_bytes(path)?,
        };
        let name = self.name.as_str().as_bytes();
        let proof = manifest.proof();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(manifest.id().as_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.modified.to_bytes());
        bytes.push(self.settled.into());
        bytes.extend(u16::try_from(name.len()).ok()?.to_le_bytes());
        bytes.extend(name);
        let listed_as = match &self.listed_as {
            same if *same == self.name => &[],
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

    /// Reads a record; nothing if it is damaged or of an unknown version.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let body = bytes.len().checked_sub(HASH_LEN)?;
        let checksum = bytes.split_off(body);
        if blake3::hash(&bytes) != *<&[u8; HASH_LEN]>::try_from(&checksum[..]).ok()? {
            return None;
        }
        if take::<8>(&mut bytes)? != MAGIC {
            return None;
        }
        let version = bytes.try_get_u32_le().ok()?;
        if ![VERSION_WITH_ONE_NAME, VERSION].contains(&version) {
            return None;
        }
        let id = ContentId::from_bytes(take(&mut bytes)?);
        let len = bytes.try_get_u64_le().ok()?;
        let modified = Timestamp::from_bytes(take(&mut bytes)?);
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
        let chunk_hashes = hashes(&mut bytes, count)?;
        let leaf_len = bytes.try_get_u16_le().ok()?;
        let leaf = split(&mut bytes, leaf_len.into())?;
        let count = bytes.try_get_u8().ok()?.into();
        let siblings = hashes(&mut bytes, count)?;
        let proof = LengthProof { leaf, siblings };
        Some(Self {
            name,
            listed_as,
            path,
            len,
            modified,
            settled,
            manifest: Manifest::check(id, len, chunk_hashes, proof).ok()?,
        })
        .filter(|_| bytes.is_empty())
    }
}

fn hashes(bytes: &mut Bytes, count: usize) -> Option<Vec<ChunkHash>> {
    let flat = split(bytes, count.checked_mul(HASH_LEN)?)?;
    let hash = |hash: &[u8]| hash.try_into().expect("cut to its length");
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
            modified: Timestamp {
                seconds: -5,
                nanos: 7,
            },
            settled: true,
            manifest: Manifest::of(content).unwrap(),
        }
    }

    #[test]
    fn record_is_read_back_unless_it_is_torn_or_altered() {
        for len in [0, 1, 40_000] {
            let mut record = record(&vec![9; len]);
            let other = record.listed_as.clone();
            for (path, listed_as) in [
                (None, other.clone()),
                (None, record.name.clone()),
                (Some("/some/where".into()), other),
            ] {
                (record.path, record.listed_as) = (path, listed_as);
                let bytes = record.encode().unwrap();
                assert_eq!(Record::decode(bytes.clone().into()).as_ref(), Some(&record));
                for cut in 0..bytes.len() {
                    assert_eq!(Record::decode(bytes[..cut].to_vec().into()), None);
                    let mut altered = bytes.clone();
                    altered[cut] ^= 1;
                    assert_eq!(Record::decode(altered.into()), None);
                }
            }
        }
    }

    #[test]
    fn record_of_version_1_has_one_name() {
        let mut record = record(&[7; 50]);
        record.listed_as = record.name.clone();
        let mut bytes = record.encode().unwrap();
        bytes.truncate(bytes.len() - HASH_LEN);
        bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
        // After magic, version, id, length, time, and the flag.
        let listed_at = 8 + 4 + 32 + 8 + 12 + 1 + 2 + record.name.as_str().len();
        assert_eq!(bytes.drain(listed_at..listed_at + 2).as_slice(), [0, 0]);
        bytes.extend(*blake3::hash(&bytes).as_bytes());
        assert_eq!(Record::decode(bytes.into()), Some(record));
    }

    #[test]
    fn record_without_a_valid_manifest_is_bad_despite_its_checksum() {
        let mut bytes = record(&[1; 100]).encode().unwrap();
        bytes.truncate(bytes.len() - HASH_LEN);
        // The length follows magic, version and id.
        bytes[44] ^= 1;
        bytes.extend(*blake3::hash(&bytes).as_bytes());
        assert_eq!(Record::decode(bytes.into()), None);
    }
}
