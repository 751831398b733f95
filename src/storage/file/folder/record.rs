//! What is recorded about a folder beside its index, and how it is written. This
//! module does no I/O.

use std::path::PathBuf;

use bytes::{Buf, Bytes};

use super::super::checksum::{CHECKSUM_LEN, checksum};
use super::super::fields::{split, take};
use super::super::manifest_bytes::{put_manifest, take_manifest};
use super::super::record::{bytes_path, path_bytes};
use super::super::stamp::Stamp;
use super::super::timestamp::Timestamp;
use super::placed_file::PlacedFile;
use crate::content::{ContentId, ContentName, FolderIndex, FolderItem, FolderPath, Manifest};

const MAGIC: &[u8; 8] = b"btl.fold";
const VERSION: u32 = 2;
/// Without what was there before.
const FIRST: u32 = 1;

/// What is said of a file.
const SETTLED: u8 = 1;
const WITH_MANIFEST: u8 = 2;
const WAS_THERE: u8 = 4;

/// Where a folder lies, and which of its files are there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FolderRecord {
    /// Its name: in the storage, if it lies there, and at trackers.
    pub(super) name: ContentName,
    pub(super) listed_as: ContentName,
    /// The path of the folder; nothing if it is in the storage.
    pub(super) path: Option<PathBuf>,
    /// Whether the tree was there before a download came to it.
    pub(super) was_there: bool,
    /// The files, in the order of the index.
    pub(super) files: Vec<FileRecord>,
}

/// A file of a folder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileRecord {
    pub(super) file: PlacedFile,
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
        bytes.push(u8::from(self.was_there));
        bytes.extend(u32::try_from(self.files.len()).ok()?.to_le_bytes());
        for FileRecord { file, manifest } in &self.files {
            bytes.extend(file.entry.to_le_bytes());
            bytes.extend(file.stamp.modified.to_bytes());
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            bytes.push(
                flag(file.stamp.settled, SETTLED)
                    | flag(manifest.is_some(), WITH_MANIFEST)
                    | flag(file.was_there, WAS_THERE),
            );
            if let Some(manifest) = manifest {
                put_manifest(&mut bytes, manifest)?;
            }
        }
        bytes.extend(checksum(&[id.as_bytes(), &bytes]));
        Some(bytes)
    }

    /// Reads the record of the folder with this index; nothing if it is not one.
    pub(super) fn decode(mut bytes: Bytes, id: ContentId, index: &FolderIndex) -> Option<Self> {
        let body = bytes.len().checked_sub(CHECKSUM_LEN)?;
        let found = bytes.split_off(body);
        if found[..] != checksum(&[id.as_bytes(), &bytes]) || take(&mut bytes)? != *MAGIC {
            return None;
        }
        let version = bytes.try_get_u32_le().ok()?;
        if ![FIRST, VERSION].contains(&version) {
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
        let was_there = match (version, &path) {
            // What lies elsewhere may be the user's.
            (FIRST, path) => path.is_some(),
            _ => bytes.try_get_u8().ok()? != 0,
        };
        let count = bytes.try_get_u32_le().ok()? as usize;
        if count > index.entries().len() {
            return None;
        }
        let mut files = Vec::with_capacity(count);
        for _ in 0..count {
            let mut file = FileRecord::take(&mut bytes, index)?;
            file.file.was_there |= version == FIRST && was_there;
            files.push(file);
        }
        bytes.is_empty().then_some(Self {
            name,
            listed_as,
            path,
            was_there,
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
        let manifest = match flags & WITH_MANIFEST {
            0 => None,
            _ => Some(take_manifest(bytes, id, len)?),
        };
        let stamp = Stamp {
            len,
            modified,
            settled: flags & SETTLED != 0,
        };
        let file = PlacedFile {
            entry,
            stamp,
            was_there: flags & WAS_THERE != 0,
        };
        Some(Self { file, manifest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::FolderEntry;

    #[test]
    fn first_version_says_nothing_of_what_was_there() {
        let (id, name) = (ContentId::of(b"x"), "here");
        let index = FolderIndex::new(vec![FolderEntry::file("f".parse().unwrap(), id, 1)]).unwrap();
        for path in ["", "/a"] {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(FIRST.to_le_bytes());
            for name in [name, name] {
                bytes.extend((name.len() as u16).to_le_bytes());
                bytes.extend(name.as_bytes());
            }
            bytes.extend((path.len() as u32).to_le_bytes());
            bytes.extend(path.as_bytes());
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(0_u32.to_le_bytes());
            let modified = Timestamp {
                seconds: 5,
                nanos: 6,
            };
            bytes.extend(modified.to_bytes());
            bytes.push(SETTLED);
            bytes.extend(checksum(&[index.id().as_bytes(), &bytes]));
            let record = FolderRecord::decode(bytes.into(), index.id(), &index).unwrap();
            assert_eq!(record.was_there, !path.is_empty());
            assert_eq!(record.files[0].file.was_there, !path.is_empty());
            assert_eq!(record.files[0].file.stamp.modified, modified);
        }
    }

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
            let was_there = path.is_some();
            let file = PlacedFile {
                entry: 1,
                stamp,
                was_there: !was_there,
            };
            let files = vec![FileRecord { file, manifest }];
            let record = FolderRecord {
                name: "here".parse().unwrap(),
                listed_as: "there".parse().unwrap(),
                path,
                was_there,
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
