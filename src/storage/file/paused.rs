//! The records of downloads that were paused, each in a file of its own. Everything here
//! blocks.
//!
//! A record is written under a name that is used once, synced, and renamed, so it is there
//! as a whole or not at all, and a new one takes the place of an old one in one step.

use std::io;

use bytes::Bytes;

use super::checksum::{CHECKSUM_LEN, checksum};
use super::disk::{Disk, DiskFile};
use super::draft::unique;
use super::failure::{failed, failed_to_store};
use super::fields::take;
use super::names::{ReservedFile, parse_reserved, paused_name, pausing_name};
use super::storage_dir::StorageDir;
use crate::storage::{PausedDownload, PausedId, StorageError};

const MAGIC: [u8; 8] = *b"btl.paus";

/// The longest file in bytes.
const MAX_FILE_LEN: u64 = (MAGIC.len() + PausedDownload::MAX_LEN + CHECKSUM_LEN) as u64;

/// Writes a record durably.
pub(super) fn remember<D: Disk>(
    dir: &StorageDir<D>,
    paused: &PausedDownload,
) -> Result<(), StorageError> {
    let new = pausing_name(unique());
    let path = dir.path_of(&new);
    let locked = || StorageError::io("locking", io::ErrorKind::WouldBlock).at(&path);
    let file = dir.create_locked(&new)?.ok_or_else(locked)?;
    let bytes = encode(paused);
    let len = bytes.len() as u64;
    let written = file.write_at(0, &[bytes]).and_then(|()| file.sync_all());
    let mark = dir.mark();
    let renamed = match written {
        Ok(()) => dir.disk.replace(&new, &paused_name(paused.id)),
        Err(error) => {
            // At worst it is removed when the records are read.
            let _ = dir.disk.remove(&new);
            return Err(failed_to_store("writing", &path, len, error));
        }
    };
    let _ = file.unlock();
    let durable = renamed.and_then(|()| dir.sync(mark));
    durable.map_err(|e| failed("renaming", &path, e))
}

/// Removes a record. There may be none.
pub(super) fn forget<D: Disk>(dir: &StorageDir<D>, id: PausedId) -> Result<(), StorageError> {
    let name = paused_name(id);
    let mark = dir.mark();
    match dir.disk.remove(&name) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("removing", &dir.path_of(&name), e)),
    }
    let synced = dir.sync(mark);
    synced.map_err(|e| failed("syncing", dir.path(), e))
}

/// The records. One that cannot be read is reported, left out, and stays. What a crash has
/// left of one that was being written is removed.
pub(super) fn all<D: Disk>(dir: &StorageDir<D>) -> Result<Vec<PausedDownload>, StorageError> {
    let names = dir.disk.names();
    let names = names.map_err(|e| failed("listing", dir.path(), e))?;
    let mut all = Vec::new();
    for name in names {
        match parse_reserved(&name) {
            Some((id, ReservedFile::Paused)) => match read(dir, &name) {
                Some(bytes) => all.push(PausedDownload::new(PausedId(*id.as_bytes()), bytes)),
                None => {
                    let path = dir.path_of(&name);
                    let path = path.display();
                    tracing::warn!(%path, "the record of a paused download is damaged");
                }
            },
            Some((_, ReservedFile::Pausing)) => dir.drop_draft(&name),
            _ => {}
        }
    }
    all.sort_by_key(|paused| paused.id);
    Ok(all)
}

fn read<D: Disk>(dir: &StorageDir<D>, name: &str) -> Option<Bytes> {
    let file = dir.disk.open_existing(name).ok()?;
    let len = file.stat().ok()?.len;
    if len > MAX_FILE_LEN {
        return None;
    }
    decode(file.read_at(0, len as usize).ok()?)
}

fn encode(paused: &PausedDownload) -> Bytes {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&paused.bytes);
    bytes.extend(checksum(&[&bytes]));
    bytes.into()
}

pub(super) fn decode(mut bytes: Bytes) -> Option<Bytes> {
    let end = bytes.len().checked_sub(CHECKSUM_LEN)?;
    let sum = bytes.split_off(end);
    let is_whole = checksum(&[&bytes]) == sum[..] && take(&mut bytes)? == MAGIC;
    is_whole.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::dir::Dir;
    use super::*;

    fn record(id: u8, bytes: &'static [u8]) -> PausedDownload {
        PausedDownload::new(PausedId([id; 32]), Bytes::from_static(bytes))
    }

    #[test]
    fn record_is_read_back_unless_it_is_altered() {
        for paused in [record(1, b""), record(2, b"something")] {
            let bytes = encode(&paused);
            assert_eq!(decode(bytes.clone()), Some(paused.bytes));
            for at in 0..bytes.len() {
                let mut altered = bytes.to_vec();
                altered[at] ^= 1;
                assert_eq!(decode(altered.into()), None);
                assert_eq!(decode(bytes.slice(..at)), None);
            }
        }
    }

    #[test]
    fn records_are_replaced_and_removed_and_damaged_ones_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let dir = StorageDir::new(Dir::open(root.path()).unwrap(), root.path().to_path_buf());
        assert_eq!(all(&dir), Ok(Vec::new()));
        remember(&dir, &record(1, b"first")).unwrap();
        let (second, other) = (record(1, b"second"), record(2, b"other"));
        remember(&dir, &second).unwrap();
        remember(&dir, &other).unwrap();
        // A crash may have left one that was being written.
        let torn = root.path().join(pausing_name(unique()));
        std::fs::write(&torn, b"torn").unwrap();
        assert_eq!(all(&dir), Ok(vec![second.clone(), other.clone()]));
        assert!(!torn.exists());
        let damaged = root.path().join(paused_name(second.id));
        std::fs::write(&damaged, b"torn").unwrap();
        assert_eq!(all(&dir), Ok(vec![other.clone()]));
        let long = std::fs::File::create(&damaged).unwrap();
        long.set_len(MAX_FILE_LEN + 1).unwrap();
        assert_eq!(all(&dir), Ok(vec![other.clone()]));
        // It may be the user's.
        assert!(damaged.exists());
        forget(&dir, other.id).unwrap();
        forget(&dir, other.id).unwrap();
        assert_eq!(all(&dir), Ok(Vec::new()));
    }

    #[cfg(unix)]
    #[test]
    fn record_is_durable_before_it_has_its_name_and_so_is_its_removal() {
        use super::super::dir::times;

        let root = tempfile::tempdir().unwrap();
        let dir = StorageDir::new(Dir::open(root.path()).unwrap(), root.path().to_path_buf());
        let paused = record(1, b"x");
        remember(&dir, &paused).unwrap();
        let (file, names) = (
            times(&root.path().join(paused_name(paused.id))),
            times(root.path()),
        );
        assert!(file.is_durable() && names.is_durable());
        assert!(file.synced < names.changed);
        forget(&dir, paused.id).unwrap();
        assert!(times(root.path()).is_durable());
    }

    #[test]
    fn record_that_cannot_take_its_place_leaves_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = StorageDir::new(Dir::open(root.path()).unwrap(), root.path().to_path_buf());
        std::fs::create_dir(root.path().join(paused_name(PausedId([1; 32])))).unwrap();
        assert!(remember(&dir, &record(1, b"x")).is_err());
        assert_eq!(all(&dir), Ok(Vec::new()));
    }
}
