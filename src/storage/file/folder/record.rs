//! What is recorded about a folder beside its index, and how it is written. This
//! module does no I/O.

use std::path::PathBuf;

use bytes::{Buf, Bytes};

use super::super::fields::{split, take};
use super::super::manifest_bytes::{put_manifest, take_manifest};
use super::super::record::{bytes_path, path_bytes};
use super::super::stamp::Stamp;
use super::super::timestamp::Timestamp;
use crate::content::{ContentId, ContentName, FolderIndex, FolderItem, FolderPath, Manifest};

const MAGIC: &[u8; 8] = b"btl.fold";
const VERSION: u32 = 1;
const SUM_LEN: usize = 16;

/// Where a folder lies, and which of its files are there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FolderRecord {
    /// Its name: in the storage, if it lies there, and at trackers.
    pub(super) name: ContentName,
    pub(super) listed_as: ContentName,
    /// The path of the folder; nothing if it is in the storage.
    pub(super) path: Option<PathBuf>,
    /// The files, in the order of the index.
    pub(super) files: Vec<FileRecord>,
}

/// A file of a folder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileRecord {
    /// Which entry of the index it is.
    pub(super) entry: u32,
    pub(super) stamp: Stamp,
    /// Its manifest, if it takes long to make it again.
    pub(super) manifest: Option<Manifest>,
}

/// The file that an entry of an index stands for.
pub(super) fn file_at(index: &FolderIndex, entry: u32) -> Option<(&FolderPath, ContentId, u64)> {
    let entry = index.entries().get(entry as usize)?;
    match entry.item {
        FolderItem::File { id, length, .. } => Some((&entry.path, id, length)),
        _ => None,
    }
}

impl FolderRecord {
    /// The bytes of a record of the folder with this id; nothing if its path cannot
    /// be represented.
    pub(super) fn encode(&self, id: ContentId) -> Option<Vec<u8>> {
        let path = match &self.path {
            None => &[][..],
            Some(path) => path_bytes(path)?,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        for name in [&self.name, &self.listed_as] {
            bytes.extend((name.as_str().len() as u16).to_le_bytes());
            bytes.extend(name.as_str().as_bytes());
        }
        bytes.extend(u32::try_from(path.len()).ok()?.to_le_bytes());
        bytes.extend(path);
        bytes.extend(u32::try_from(self.files.len()).ok()?.to_le_bytes());
        for file in &self.files {
            bytes.extend(file.entry.to_le_bytes());
            bytes.extend(file.stamp.modified.to_bytes());
            bytes.push(u8::from(file.stamp.settled) | u8::from(file.manifest.is_some()) << 1);
            if let Some(manifest) = &file.manifest {
                put_manifest(&mut bytes, manifest)?;
            }
        }
        bytes.extend(sum(id, &bytes));
        Some(bytes)
    }

    /// Reads the record of the folder with this index; nothing if it is not one.
    pub(super) fn decode(mut bytes: Bytes, id: ContentId, index: &FolderIndex) -> Option<Self> {
        let body = bytes.len().checked_sub(SUM_LEN)?;
        let found = bytes.split_off(body);
        if found[..] != sum(id, &bytes) || take(&mut bytes)? != *MAGIC {
            return None;
        }
        if bytes.try_get_u32_le().ok()? != VERSION {
            return None;
        }
        let mut name = || -> Option<ContentName> {
            let len = bytes.try_get_u16_le().ok()?;
            ContentName::try_from(&split(&mut bytes, len.into())?[..]).ok()
        };
        let (name, listed_as) = (name()?, name()?);
        let len = bytes.try_get_u32_le().ok()?;
        let path = match &split(&mut bytes, len as usize)?[..] {
            [] => None,
            path => Some(bytes_path(path)?),
        };
        let count = bytes.try_get_u32_le().ok()? as usize;
        if count > index.entries().len() {
            return None;
        }
        let mut files = Vec::with_capacity(count);
        for _ in 0..count {
            files.push(FileRecord::take(&mut bytes, index)?);
        }
        bytes.is_empty().then_some(Self {
            name,
            listed_as,
            path,
            files,
        })
    }
}

impl FileRecord {
    fn take(bytes: &mut Bytes, index: &FolderIndex) -> Option<Self> {
        let entry = bytes.try_get_u32_le().ok()?;
        let (_, id, len) = file_at(index, entry)?;
        let modified = Timestamp::from_bytes(take(bytes)?);
        let flags = bytes.try_get_u8().ok()?;
        let manifest = match flags & 2 {
            0 => None,
            _ => Some(take_manifest(bytes, id, len)?),
        };
        let stamp = Stamp {
            len,
            modified,
            settled: flags & 1 != 0,
        };
        Some(Self {
            entry,
            stamp,
            manifest,
        })
    }
}

/// The checksum of a record of the folder with this id.
fn sum(id: ContentId, bytes: &[u8]) -> [u8; SUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(bytes);
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_LEN]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::FolderEntry;

    #[test]
    fn record_survives_its_encoding_and_no_change_of_a_byte() {
        let long = vec![7; 40_000];
        let id = ContentId::of(&long);
        let index = FolderIndex::new(vec![
            FolderEntry::empty_folder("e".parse().unwrap()),
            FolderEntry::file("f".parse().unwrap(), id, 40_000),
        ])
        .unwrap();
        let stamp = Stamp {
            len: 40_000,
            modified: Timestamp {
                seconds: 5,
                nanos: 6,
            },
            settled: true,
        };
        let manifest = Manifest::of(&long).unwrap();
        for (path, manifest) in [(None, Some(manifest)), (Some("/a/b".into()), None)] {
            let files = vec![FileRecord {
                entry: 1,
                stamp,
                manifest,
            }];
            let record = FolderRecord {
                name: "here".parse().unwrap(),
                listed_as: "there".parse().unwrap(),
                path,
                files,
            };
            let id = index.id();
            let bytes = record.encode(id).unwrap();
            let decode =
                |bytes: &[u8], id| FolderRecord::decode(Bytes::copy_from_slice(bytes), id, &index);
            assert_eq!(decode(&bytes, id), Some(record));
            assert_eq!(decode(&bytes, ContentId::of(b"other")), None);
            for at in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                assert_eq!(decode(&wrong, id), None, "{at}");
                assert_eq!(decode(&bytes[..at], id), None, "{at}");
            }
        }
    }
}
