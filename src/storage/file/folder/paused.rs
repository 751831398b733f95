//! The record that the download of a folder is paused: a file of its own in the home.
//! Everything here blocks.
//!
//! It is written under another name first, so it is there as a whole or not at all.
//! Losing one costs nothing but that the download is not listed after a restart.

use std::path::PathBuf;

use bytes::{Buf, Bytes};

use super::super::checksum::{CHECKSUM_LEN, checksum};
use super::super::dir::Dir;
use super::super::disk::{Disk, DiskFile};
use super::super::failure::{failed, failed_to_store};
use super::super::fields::{split, take};
use super::super::names::{ReservedFile, folder_name, parse_reserved};
use super::super::record::bytes_path;
use super::super::storage_dir::StorageDir;
use super::folders::Folders;
use super::staging::{remove, write_new};
use crate::content::{ContentId, ContentName, FolderPath, MAX_INDEX_LEN};
use crate::storage::{PausedDownload, StorageError};

pub(super) const PAUSED: &str = "paused";
const NEW: &str = "paused.new";

const MAGIC: [u8; 8] = *b"btl.fpau";
/// What the peer has to say is its own matter.
const VERSION: u32 = 2;
/// With little more than the selection.
const FIRST: u32 = 1;
/// The longest record in bytes: no selection is longer than an index, and the rest is no
/// longer than that of a content.
const MAX_LEN: u64 = MAX_INDEX_LEN + PausedDownload::MAX_LEN as u64;
/// The other peers get what is here.
const SERVES: u8 = 1;
/// The folder is shared in the end.
const SEEDS: u8 = 2;

/// A download of a folder that is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PausedFolder {
    pub(crate) id: ContentId,
    pub(crate) form: PausedForm,
}

/// What is recorded of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PausedForm {
    /// What an earlier version has recorded.
    First(FirstPaused),
    /// The peer that wrote it reads it.
    Bytes(Bytes),
}

/// A paused download as version 1 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FirstPaused {
    /// The name that the user wants it stored under.
    pub(crate) name: Option<ContentName>,
    /// What is wanted of it; all, if there are none.
    pub(crate) paths: Vec<FolderPath>,
    /// The directory that it goes to, if it is another one.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) serve: bool,
    pub(crate) seed: bool,
}

/// The record of the folder with this id.
pub(super) fn encode(id: ContentId, form: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(id.as_bytes());
    bytes.extend(form);
    bytes.extend(checksum(&[&bytes]));
    bytes
}

impl PausedFolder {
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let body = bytes.len().checked_sub(CHECKSUM_LEN)?;
        let found = bytes.split_off(body);
        if found[..] != checksum(&[&bytes]) || take(&mut bytes)? != MAGIC {
            return None;
        }
        let version = bytes.try_get_u32_le().ok()?;
        let id = ContentId::from_bytes(take(&mut bytes)?);
        let form = match version {
            FIRST => PausedForm::First(FirstPaused::decode(bytes)?),
            VERSION => PausedForm::Bytes(bytes),
            _ => return None,
        };
        Some(Self { id, form })
    }
}

impl FirstPaused {
    fn decode(mut bytes: Bytes) -> Option<Self> {
        let flags = bytes.try_get_u8().ok()?;
        let mut text = || {
            let len = bytes.try_get_u32_le().ok()?;
            split(&mut bytes, len as usize)
        };
        let name = match text()? {
            name if name.is_empty() => None,
            name => Some(ContentName::try_from(&name[..]).ok()?),
        };
        let directory = match text()? {
            path if path.is_empty() => None,
            path => Some(bytes_path(&path)?),
        };
        let count = bytes.try_get_u32_le().ok()?;
        let mut paths = Vec::new();
        for _ in 0..count {
            let len = bytes.try_get_u32_le().ok()?;
            let path = split(&mut bytes, len as usize)?;
            paths.push(std::str::from_utf8(&path).ok()?.parse().ok()?);
        }
        bytes.is_empty().then_some(Self {
            name,
            paths,
            directory,
            serve: flags & SERVES != 0,
            seed: flags & SEEDS != 0,
        })
    }
}

/// Writes the record into the home of the folder, or removes it.
pub(super) fn write(
    home: &StorageDir<Dir>,
    id: ContentId,
    form: Option<&[u8]>,
) -> Result<(), StorageError> {
    let mark = home.mark();
    let path = home.path_of(PAUSED);
    let Some(form) = form else {
        remove(home, PAUSED)?;
        return home.sync(mark).map_err(|e| failed("syncing", &path, e));
    };
    let bytes = encode(id, form);
    let len = bytes.len() as u64;
    if len > MAX_LEN {
        let error = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
        return Err(failed("recording", &path, error));
    }
    remove(home, NEW)?;
    let file = write_new(home, NEW, bytes.into())?;
    let written = file
        .sync_all()
        .and_then(|()| home.disk.replace(NEW, PAUSED))
        .and_then(|()| home.sync(mark));
    written.map_err(|e| failed_to_store("writing", &path, len, e))
}

/// The downloads that are recorded. What cannot be read is left out.
pub(super) fn all(folders: &Folders) -> Result<Vec<PausedFolder>, StorageError> {
    let names = folders.dir.disk.names();
    let mut names = names.map_err(|e| failed("listing", folders.dir.path(), e))?;
    names.sort();
    let ids = names.iter().filter_map(|name| match parse_reserved(name) {
        Some((id, ReservedFile::Folder)) => Some(id),
        _ => None,
    });
    Ok(ids.filter_map(|id| one(folders, id)).collect())
}

fn one(folders: &Folders, id: ContentId) -> Option<PausedFolder> {
    let home = folders.dir.disk.enter(folder_name(id).as_ref()).ok()?;
    home.look(PAUSED.as_ref()).ok()??;
    let read = || {
        let file = home.open_existing(PAUSED).ok()?;
        let len = file.stat().ok()?.len;
        let fits = len <= MAX_LEN;
        let bytes = fits.then(|| file.read_at(0, len as usize).ok())??;
        PausedFolder::decode(bytes).filter(|paused| paused.id == id)
    };
    let paused = read();
    if paused.is_none() {
        tracing::warn!(folder = %id, "the record of a paused download is damaged");
    }
    paused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Option<PausedFolder> {
        PausedFolder::decode(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn record_survives_its_encoding_and_no_change_of_a_byte() {
        let id = ContentId::of(b"x");
        for form in [&b""[..], b"what the peer says"] {
            let bytes = encode(id, form);
            let form = PausedForm::Bytes(Bytes::copy_from_slice(form));
            assert_eq!(decode(&bytes), Some(PausedFolder { id, form }));
            for at in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                assert_eq!(decode(&wrong), None, "{at}");
                assert_eq!(decode(&bytes[..at]), None, "{at}");
            }
        }
    }

    #[test]
    fn first_version_is_read() {
        let id = ContentId::of(b"x");
        for (flags, name, directory, paths) in
            [(0, "", "", vec![]), (3, "here", "/a/b", vec!["a", "b/c"])]
        {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(FIRST.to_le_bytes());
            bytes.extend(id.as_bytes());
            bytes.push(flags);
            let put = |bytes: &mut Vec<u8>, text: &str| {
                bytes.extend((text.len() as u32).to_le_bytes());
                bytes.extend(text.as_bytes());
            };
            put(&mut bytes, name);
            put(&mut bytes, directory);
            bytes.extend((paths.len() as u32).to_le_bytes());
            for path in &paths {
                put(&mut bytes, path);
            }
            bytes.extend(checksum(&[&bytes]));
            let form = PausedForm::First(FirstPaused {
                name: name.parse().ok(),
                paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
                directory: Some(directory).filter(|d| !d.is_empty()).map(PathBuf::from),
                serve: flags == 3,
                seed: flags == 3,
            });
            assert_eq!(decode(&bytes), Some(PausedFolder { id, form }));
            for at in 0..bytes.len() {
                assert_eq!(decode(&bytes[..at]), None, "{at}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn record_is_durable_before_it_has_its_name_and_so_is_its_removal() {
        use super::super::super::dir::times;

        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_path_buf();
        let home = StorageDir::new(Dir::open(&path).unwrap(), path.clone());
        let id = ContentId::of(b"x");
        write(&home, id, Some(b"form")).unwrap();
        let (file, names) = (times(&path.join(PAUSED)), times(&path));
        assert!(file.is_durable() && names.is_durable());
        assert!(file.synced < names.changed);
        write(&home, id, None).unwrap();
        assert!(times(&path).is_durable());
    }
}
