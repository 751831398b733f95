//! The record that the download of a folder is paused: a file of its own in the home.
//! Everything here blocks.
//!
//! It is written under another name first, so it is there as a whole or not at all.
//! Losing one costs nothing but that the download is not listed after a restart.

use std::path::PathBuf;

use bytes::{Buf, Bytes};

use super::super::dir::Dir;
use super::super::disk::{Disk, DiskFile};
use super::super::failure::{failed, failed_to_store};
use super::super::fields::{split, take};
use super::super::names::{ReservedFile, folder_name, parse_reserved};
use super::super::record::{bytes_path, path_bytes};
use super::super::storage_dir::StorageDir;
use super::folders::Folders;
use super::staging::{remove, write_new};
use crate::content::{ContentId, ContentName, FolderPath, MAX_INDEX_LEN};
use crate::storage::StorageError;

pub(super) const PAUSED: &str = "paused";
const NEW: &str = "paused.new";

const MAGIC: [u8; 8] = *b"btl.fpau";
const VERSION: u32 = 1;
const SUM_LEN: usize = 16;
/// The other peers get what is here.
const SERVES: u8 = 1;
/// The folder is shared in the end.
const SEEDS: u8 = 2;

/// A download of a folder that is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PausedFolder {
    pub(crate) id: ContentId,
    /// The name that the user wants it stored under.
    pub(crate) name: Option<ContentName>,
    /// What is wanted of it; all, if there are none.
    pub(crate) paths: Vec<FolderPath>,
    /// The directory that it goes to, if it is another one.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) serve: bool,
    pub(crate) seed: bool,
}

impl PausedFolder {
    fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.id.as_bytes());
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        bytes.push(flag(self.serve, SERVES) | flag(self.seed, SEEDS));
        let directory = match &self.directory {
            None => &[][..],
            Some(path) => path_bytes(path)?,
        };
        let name = self.name.iter().flat_map(|name| name.as_str().bytes());
        for text in [&name.collect::<Vec<u8>>()[..], directory] {
            bytes.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
            bytes.extend(text);
        }
        bytes.extend(u32::try_from(self.paths.len()).ok()?.to_le_bytes());
        for path in &self.paths {
            bytes.extend(u32::try_from(path.as_str().len()).ok()?.to_le_bytes());
            bytes.extend(path.as_str().as_bytes());
        }
        bytes.extend(sum(&bytes));
        Some(bytes)
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let body = bytes.len().checked_sub(SUM_LEN)?;
        let found = bytes.split_off(body);
        if found[..] != sum(&bytes) || take(&mut bytes)? != MAGIC {
            return None;
        }
        if bytes.try_get_u32_le().ok()? != VERSION {
            return None;
        }
        let id = ContentId::from_bytes(take(&mut bytes)?);
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
            id,
            name,
            paths,
            directory,
            serve: flags & SERVES != 0,
            seed: flags & SEEDS != 0,
        })
    }
}

fn sum(bytes: &[u8]) -> [u8; SUM_LEN] {
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..SUM_LEN]);
    sum
}

/// Writes the record into the home of the folder, or removes it.
pub(super) fn write(
    home: &StorageDir<Dir>,
    paused: Option<&PausedFolder>,
) -> Result<(), StorageError> {
    let mark = home.mark();
    let path = home.path_of(PAUSED);
    let Some(paused) = paused else {
        remove(home, PAUSED)?;
        return home.sync(mark).map_err(|e| failed("syncing", &path, e));
    };
    let Some(bytes) = paused.encode() else {
        let error = std::io::Error::other("its path is not UTF-8");
        return Err(failed("recording", &path, error));
    };
    remove(home, NEW)?;
    let len = bytes.len() as u64;
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
        // No selection is longer than an index.
        let fits = len <= MAX_INDEX_LEN;
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

    #[test]
    fn record_survives_its_encoding_and_no_change_of_a_byte() {
        for (name, directory, paths) in [
            (None, None, vec![]),
            (Some("here"), Some("/a/b"), vec!["a", "b/c"]),
        ] {
            let paused = PausedFolder {
                id: ContentId::of(b"x"),
                name: name.map(|name| name.parse().unwrap()),
                paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
                directory: directory.map(PathBuf::from),
                serve: name.is_some(),
                seed: name.is_none(),
            };
            let bytes = paused.encode().unwrap();
            let decode = |bytes: &[u8]| PausedFolder::decode(Bytes::copy_from_slice(bytes));
            assert_eq!(decode(&bytes), Some(paused));
            for at in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                assert_eq!(decode(&wrong), None, "{at}");
                assert_eq!(decode(&bytes[..at]), None, "{at}");
            }
        }
    }
}
