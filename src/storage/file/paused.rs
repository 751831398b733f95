//! The downloads that were paused, each in a file of its own beside its unfinished one.
//! Everything here blocks.
//!
//! A record is written under another name first, so it is there as a whole or not at all.
//! Losing one costs nothing but that the download is not listed after a restart.

use std::io;

use bytes::{Buf, Bytes};

use super::disk::{Disk, DiskFile};
use super::failure::{failed, failed_to_store};
use super::fields::{split, take};
use super::names::{PausedNames, ReservedFile, parse_reserved};
use super::storage_dir::StorageDir;
use crate::content::{ContentId, ContentName};
use crate::storage::{PausedDownload, StorageError};

const MAGIC: [u8; 8] = *b"btl.paus";
const VERSION: u32 = 1;
const CHECKSUM_LEN: usize = 16;
/// The other peers get what is here.
const SERVES: u8 = 1;
/// The content is shared in the end.
const SEEDS: u8 = 2;
/// A name follows.
const NAMED: u8 = 4;

/// The longest record in bytes: far more than the longest name.
const MAX_RECORD_LEN: u64 = 64 << 10;

/// Records durably that a download is paused.
pub(super) fn remember<D: Disk>(
    dir: &StorageDir<D>,
    paused: &PausedDownload,
) -> Result<(), StorageError> {
    let names = PausedNames::of(paused.id);
    let path = dir.path_of(&names.new);
    // One that a crash has left.
    remove_name(dir, &names.new)?;
    let written = dir.disk.create_new(&names.new).and_then(|file| {
        file.write_at(0, &[encode(paused)])?;
        file.sync_all()
    });
    written.map_err(|e| failed_to_store("writing", &path, MAX_RECORD_LEN, e))?;
    let mark = dir.mark();
    let replaced = dir.disk.replace(&names.new, &names.record);
    let durable = replaced.and_then(|()| dir.sync(mark));
    durable.map_err(|e| failed("renaming", &path, e))
}

/// Removes the record of a download. There may be none.
pub(super) fn forget<D: Disk>(dir: &StorageDir<D>, id: ContentId) -> Result<(), StorageError> {
    let names = PausedNames::of(id);
    let mark = dir.mark();
    if !remove_name(dir, &names.record)? {
        return Ok(());
    }
    let synced = dir.sync(mark);
    synced.map_err(|e| failed("syncing", dir.path(), e))
}

/// The downloads that are recorded. What cannot be read is left out.
pub(super) fn all<D: Disk>(dir: &StorageDir<D>) -> Result<Vec<PausedDownload>, StorageError> {
    let names = dir.disk.names();
    let names = names.map_err(|e| failed("listing", dir.path(), e))?;
    let mut all = Vec::new();
    for name in names {
        let Some((id, ReservedFile::Paused)) = parse_reserved(&name) else {
            continue;
        };
        match read(dir, &name) {
            Some(paused) if paused.id == id => all.push(paused),
            _ => tracing::warn!(record = name, "the record of a paused download is damaged"),
        }
    }
    all.sort_by_key(|paused| paused.id);
    Ok(all)
}

fn read<D: Disk>(dir: &StorageDir<D>, name: &str) -> Option<PausedDownload> {
    let file = dir.disk.open_existing(name).ok()?;
    let len = file.stat().ok()?.len;
    if len > MAX_RECORD_LEN {
        return None;
    }
    decode(file.read_at(0, len as usize).ok()?)
}

/// Removes a name. Returns whether there was one.
fn remove_name<D: Disk>(dir: &StorageDir<D>, name: &str) -> Result<bool, StorageError> {
    match dir.disk.remove(name) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed("removing", &dir.path_of(name), e)),
    }
}

fn encode(paused: &PausedDownload) -> Bytes {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(paused.id.as_bytes());
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let named = flag(paused.name.is_some(), NAMED);
    bytes.push(flag(paused.serve, SERVES) | flag(paused.seed, SEEDS) | named);
    bytes.extend(paused.name.iter().flat_map(|name| name.as_str().bytes()));
    bytes.extend(checksum(&bytes));
    bytes.into()
}

fn decode(mut bytes: Bytes) -> Option<PausedDownload> {
    let end = bytes.len().checked_sub(CHECKSUM_LEN)?;
    let sum = bytes.split_off(end);
    if checksum(&bytes) != sum[..] {
        return None;
    }
    if take::<8>(&mut bytes)? != MAGIC || bytes.try_get_u32_le().ok()? != VERSION {
        return None;
    }
    let id = ContentId::from_bytes(take(&mut bytes)?);
    let flags = bytes.try_get_u8().ok()?;
    let name = match flags & NAMED {
        0 => None,
        _ => {
            let len = bytes.len();
            Some(ContentName::try_from(&split(&mut bytes, len)?[..]).ok()?)
        }
    };
    let paused = PausedDownload::new(id, name);
    let paused = paused.serve(flags & SERVES != 0).seed(flags & SEEDS != 0);
    bytes.is_empty().then_some(paused)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_LEN]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::super::dir::Dir;
    use super::*;

    #[test]
    fn record_is_read_back_unless_it_is_altered() {
        let id = ContentId::of(b"x");
        for name in [None, Some("naïve 文件".parse().unwrap())] {
            for (serve, seed) in [(true, false), (false, true)] {
                let paused = PausedDownload::new(id, name.clone());
                let paused = paused.serve(serve).seed(seed);
                let bytes = encode(&paused);
                assert_eq!(decode(bytes.clone()), Some(paused));
                for at in 0..bytes.len() {
                    let mut altered = bytes.to_vec();
                    altered[at] ^= 1;
                    assert_eq!(decode(altered.into()), None);
                    assert_eq!(decode(bytes.slice(..at)), None);
                }
            }
        }
    }

    #[test]
    fn records_are_replaced_and_removed_and_damaged_ones_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let dir = StorageDir::new(Dir::open(root.path()).unwrap(), root.path().to_path_buf());
        assert_eq!(all(&dir), Ok(Vec::new()));
        let (x, y) = (ContentId::of(b"x"), ContentId::of(b"y"));
        let first = PausedDownload::new(x, None);
        remember(&dir, &first).unwrap();
        // A crash may have left one that was being written.
        std::fs::write(root.path().join(PausedNames::of(x).new), b"torn").unwrap();
        let second = first.clone().serve(false);
        remember(&dir, &second).unwrap();
        let other = PausedDownload::new(y, Some("y".parse().unwrap()));
        remember(&dir, &other).unwrap();
        let mut both = [second, other.clone()];
        both.sort_by_key(|paused| paused.id);
        assert_eq!(all(&dir), Ok(both.to_vec()));
        std::fs::write(root.path().join(PausedNames::of(x).record), b"torn").unwrap();
        assert_eq!(all(&dir), Ok(vec![other]));
        forget(&dir, y).unwrap();
        forget(&dir, y).unwrap();
        assert_eq!(all(&dir), Ok(Vec::new()));
    }
}
